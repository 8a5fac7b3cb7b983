//! Finds builds of a project by what is known of them.
//!
//! One of the wishes is met by an index, the one that leaves least; if there are others, a bounded number of what it gives is
//! looked at. So a page of builds costs the same however many there are.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::StoreError;
use super::glance::{Glance, read};
use crate::ids::BuildId;

/// Which builds of a project are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The project.
    pub project: String,
    /// Of this branch.
    pub branch: Option<String>,
    /// In this state.
    pub status: Option<String>,
    /// Started by this kind of event.
    pub event: Option<String>,
    /// Started by this person, written as they are.
    pub actor: Option<String>,
    /// Words of the title and of who started it, in any order (`promot*` is the beginning of one); or the beginning of a commit.
    pub text: Option<String>,
}

/// Builds that were found, and where the search went on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The newest first.
    pub builds: Vec<Glance>,
    /// All before this one were not looked at; `None` if nothing is left.
    pub looked_to: Option<BuildId>,
}

/// Builds that one search by more than one wish looks at.
pub const LOOKED_AT: usize = 2000;

/// A wish: the builds that meet it by an index, and whether a build meets it.
struct Wish {
    ids: &'static str,
    meets: &'static str,
    value: Value,
}

impl Wish {
    fn of(ids: &'static str, meets: &'static str, value: &str) -> Self {
        Self { ids, meets, value: value.to_owned().into() }
    }
}

impl Wanted {
    /// Not all of it is met by an index: a bounded number of builds is looked at.
    pub fn is_scanned(&self) -> bool {
        self.wishes().len() > 1
    }

    /// The wishes beside the project. What leaves least comes first.
    fn wishes(&self) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let status = |passed: bool| {
            let status = self.status.as_deref().filter(|status| (*status == "passed") == passed)?;
            Some(Wish::of(
                "builds INDEXED BY builds_by_status WHERE project = ?1 AND status = ?2",
                "status = ?",
                status,
            ))
        };
        if let Some(text) = &self.text {
            wishes.push(self.words(text));
        }
        wishes.extend(status(false));
        if let Some(actor) = &self.actor {
            let ids = "builds INDEXED BY builds_by_actor WHERE project = ?1 AND actor = ?2";
            wishes.push(Wish::of(ids, "actor = ?", actor));
        }
        if let Some(branch) = &self.branch {
            let ids = "builds INDEXED BY builds_by_branch WHERE project = ?1 AND branch = ?2";
            wishes.push(Wish::of(ids, "branch = ?", branch));
        }
        if let Some(event) = &self.event {
            let ids = "builds INDEXED BY builds_by_event WHERE project = ?1 AND event = ?2";
            wishes.push(Wish::of(ids, "event = ?", event));
        }
        wishes.extend(status(true));
        wishes
    }

    /// Words, or a commit: nobody writes a word like `0123456` in a title and means it.
    fn words(&self, text: &str) -> Wish {
        let text = text.trim();
        if (6..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            // `g` comes behind every digit.
            let ids = "(SELECT id AS rowid, project FROM builds INDEXED BY builds_by_commit WHERE commit_sha >= ?2 AND \
                       commit_sha < ?2 || 'g' LIMIT 500) WHERE project = ?1";
            return Wish::of(ids, "commit_sha LIKE ? || '%'", &text.to_lowercase());
        }
        let ids = "builds_words WHERE ?1 = ?1 AND builds_words MATCH ?2";
        Wish::of(ids, "", &matching(&self.project, text))
    }
}

/// The question to the index of words: all of them, in any order. `word*` is the beginning of one, which costs more.
fn matching(project: &str, text: &str) -> String {
    let hex: String = project.bytes().map(|byte| format!("{byte:02X}")).collect();
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '*').take(64);
    let word = |word: &str| {
        let bare = word.replace('*', "");
        let star = if word.ends_with('*') { "*" } else { "" };
        (!bare.is_empty()).then(|| format!("\"{bare}\"{star}"))
    };
    let words: Vec<String> = words.filter_map(word).take(16).collect();
    // What has no word is in no title.
    let words = if words.is_empty() { "\"\"".to_owned() } else { words.join(" AND ") };
    format!("project : \"{hex}\" AND words : ({words})")
}

/// The newest builds before `before` that are wanted, at most `limit`.
///
/// # Errors
/// The database's.
pub fn find(db: &Connection, wanted: &Wanted, before: Option<BuildId>, limit: usize) -> Result<Found, StoreError> {
    let before = before.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
    let mut wishes = wanted.wishes().into_iter();
    let (ids, value) = match wishes.next() {
        Some(first) => (first.ids, first.value),
        None => ("builds INDEXED BY builds_by_project WHERE project = ?1 AND ?2 IS NULL", Value::Null),
    };
    let others: Vec<Wish> = wishes.collect();
    // One more tells whether there are others.
    let most = if others.is_empty() { limit } else { LOOKED_AT } as i64 + 1;
    let ids = format!("SELECT rowid FROM {ids} AND rowid < ?3 ORDER BY rowid DESC LIMIT ?4");
    let values: Vec<Value> = vec![wanted.project.clone().into(), value, before.into(), most.into()];
    let (count, last): (i64, Option<u64>) = db
        .prepare_cached(&format!("SELECT count(*), min(rowid) FROM ({ids})"))?
        .query_row(rusqlite::params_from_iter(values.clone()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let end = last.filter(|_| count == most).map(BuildId);
    let mut filters = vec![format!("id IN ({ids})"), "project = ?1".to_owned()];
    let mut values = values;
    for wish in others {
        filters.push(wish.meets.to_owned());
        values.push(wish.value);
    }
    values.push((limit as i64 + 1).into());
    let mut builds = read(db, &format!("WHERE {} ORDER BY id DESC LIMIT ?", filters.join(" AND ")), values)?;
    let more = builds.len() > limit;
    builds.truncate(limit);
    let looked_to = if more { builds.last().map(|row| row.id) } else { end };
    Ok(Found { builds, looked_to })
}

#[cfg(test)]
mod tests {
    use rusqlite::params;
    use serde_json::json;

    use super::*;
    use crate::store::MIGRATIONS;

    /// Builds 1 to `count` of two projects in turns.
    fn database(count: u64) -> Connection {
        let db = Connection::open_in_memory().expect("a database");
        for script in MIGRATIONS {
            db.execute_batch(script).expect("a migration");
        }
        for id in 1..=count {
            let even = id % 2 == 0;
            let request = json!({
                "event": if id % 5 == 0 { "tag" } else { "push" }, "branch": if id % 3 == 0 { "main" } else { "other" },
                "actor": if id % 7 == 0 { "Ann Lee" } else { "bob" }, "commit": format!("{:040x}", id * 0x0010_0000),
                "title": format!("Mend the \"{}\" thing, pre-commit {id}", if id % 4 == 0 { "odd" } else { "usual" }),
            });
            let status = if id % 11 == 0 { "failed" } else { "passed" };
            db.execute(
                "INSERT INTO builds (id, project, pipeline, request, status, status_json, created_at) \
                 VALUES (?1, ?2, 'p', ?3, ?4, ?5, 0)",
                params![
                    id,
                    if even { "demo" } else { "demo-2" },
                    request.to_string(),
                    status,
                    json!({ "status": status }).to_string()
                ],
            )
            .expect("a build");
        }
        db
    }

    fn wanted(of: impl FnOnce(&mut Wanted)) -> Wanted {
        let mut wanted = Wanted { project: "demo".to_owned(), ..Wanted::default() };
        of(&mut wanted);
        wanted
    }

    /// The numbers of all builds that are found, page by page.
    fn all(db: &Connection, wanted: &Wanted) -> Vec<u64> {
        let mut ids = Vec::new();
        let mut before = None;
        loop {
            let found = find(db, wanted, before, 7).expect("found");
            ids.extend(found.builds.iter().map(|row| row.id.0));
            match found.looked_to {
                Some(next) => before = Some(next),
                None => return ids,
            }
        }
    }

    #[test]
    fn each_wish_and_all_together_find_what_they_mean() {
        let db = database(200);
        let text = |text: &str| Some(text.to_owned());
        let check = |wish: Wanted, holds: &dyn Fn(u64) -> bool| {
            let expected: Vec<u64> = (1..=200).rev().filter(|id| id % 2 == 0 && holds(*id)).collect();
            assert_eq!(all(&db, &wish), expected, "{wish:?}");
        };
        check(wanted(|_| {}), &|_| true);
        check(wanted(|wish| wish.branch = text("main")), &|id| id % 3 == 0);
        check(wanted(|wish| wish.status = text("failed")), &|id| id % 11 == 0);
        check(wanted(|wish| wish.status = text("passed")), &|id| id % 11 != 0);
        check(wanted(|wish| wish.event = text("tag")), &|id| id % 5 == 0);
        check(wanted(|wish| wish.actor = text("Ann Lee")), &|id| id % 7 == 0);
        check(wanted(|wish| wish.text = text("ODD")), &|id| id % 4 == 0);
        check(wanted(|wish| wish.text = text("lee mend")), &|id| id % 7 == 0);
        check(wanted(|wish| wish.text = text("commit")), &|_| true);
        check(wanted(|wish| wish.text = text("mending things")), &|_| true);
        check(wanted(|wish| wish.text = text("comm")), &|_| false);
        check(wanted(|wish| wish.text = text("comm*")), &|_| true);
        check(wanted(|wish| wish.text = text("comm* OR \"bob")), &|_| false);
        check(wanted(|wish| wish.text = text("\"'!")), &|_| false);
        check(wanted(|wish| wish.text = text(&format!("{:040x}", 20 * 0x0010_0000)[..38])), &|id| id == 20);
        check(
            wanted(|wish| (wish.branch, wish.status, wish.text) = (text("main"), text("passed"), text("usual"))),
            &|id| id % 3 == 0 && id % 11 != 0 && id % 4 != 0,
        );
    }

    #[test]
    fn what_is_gone_is_not_found() {
        let db = database(10);
        db.execute("DELETE FROM builds WHERE id = 4", []).expect("gone");
        assert_eq!(all(&db, &wanted(|wish| wish.text = Some("odd".to_owned()))), [8]);
    }

    #[test]
    fn no_question_sorts_or_walks_through_all_builds() {
        let db = database(10);
        let some = || Some("x".to_owned());
        let wishes = [
            wanted(|_| {}),
            wanted(|wish| wish.branch = some()),
            wanted(|wish| wish.status = some()),
            wanted(|wish| wish.event = some()),
            wanted(|wish| wish.actor = some()),
            wanted(|wish| wish.text = some()),
        ];
        for wish in wishes {
            let first = wish.wishes().into_iter().next();
            let ids =
                first.map_or("builds INDEXED BY builds_by_project WHERE project = ?1 AND ?2 IS NULL", |wish| wish.ids);
            let plan =
                format!("EXPLAIN QUERY PLAN SELECT rowid FROM {ids} AND rowid < ?3 ORDER BY rowid DESC LIMIT ?4");
            let mut query = db.prepare(&plan).expect("a plan");
            let steps = query
                .query_map(params!["demo", "project : \"x\"", 9, 3], |row| row.get::<_, String>(3))
                .expect("steps");
            for step in steps {
                let step = step.expect("a step");
                let by_words = step.contains("VIRTUAL TABLE INDEX");
                assert!(step.starts_with("SEARCH") || by_words, "{wish:?}: {step}");
                assert!(!step.contains("TEMP B-TREE"), "{wish:?}: {step}");
            }
        }
    }
}
