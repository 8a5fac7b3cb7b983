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
    /// Words of the title, of who started it, or their beginnings; or the beginning of a commit.
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

/// The question to the index of words: all of them, each as it is or the beginning of one.
fn matching(project: &str, text: &str) -> String {
    let hex: String = project.bytes().map(|byte| format!("{byte:02X}")).collect();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(16);
    let words: Vec<String> = words.map(|word| format!("\"{word}\"*")).collect();
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
