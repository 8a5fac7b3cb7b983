//! How a project's builds ended, for feed readers (Atom, RFC 4287).

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::page::Named;
use crate::ids::Micros;
use crate::store::access::Scope;
use crate::store::glance::{self, Glance};
use crate::web::App;
use crate::web::auth::Caller;
use crate::web::problem::{Answer, Problem};
use crate::words::{duration, escape};

/// Builds that are looked at.
const LOOKED_AT: usize = 50;

/// The newest builds that have ended, as a feed. Readers give a token as the password of basic authentication.
#[utoipa::path(get, path = "/projects/{project}/feed.atom", params(("project" = String, Path)),
    responses((status = 200, content_type = "application/atom+xml", body = String), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub async fn feed(caller: Caller, State(app): State<App>, Named(name): Named<String>) -> Answer<Response> {
    caller.may_in(Scope::Read, &name)?;
    app.projects.get(&name).ok_or_else(|| Problem::missing(format!("there is no project `{name}`")))?;
    let asked = name.clone();
    let rows = app.engine.store.read(move |db| glance::newest(db, &asked, LOOKED_AT)).await?;
    let kind = (header::CONTENT_TYPE, "application/atom+xml; charset=utf-8");
    Ok(([kind, (header::CACHE_CONTROL, "no-cache")], write(&app.public_url, &name, &rows)).into_response())
}

/// Builds, newest first, as a feed. PURE.
fn write(public_url: &str, project: &str, rows: &[Glance]) -> String {
    let base = escape(public_url.trim_end_matches('/'));
    let ended: Vec<(&Glance, Micros)> =
        rows.iter().filter(|row| row.status.is_terminal()).filter_map(|row| Some((row, row.ended_at?))).collect();
    let newest = ended.iter().map(|(_, at)| *at).max().unwrap_or(Micros(0));
    let name = escape(project);
    let page = format!("{base}/projects/{name}");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\n  <id>{page}</id>\n  \
         <title>Builds of {name}</title>\n  <updated>{}</updated>\n  <link href=\"{page}\"/>\n",
        moment(newest)
    );
    for (row, at) in ended {
        entry(&mut text, &base, row, at);
    }
    text.push_str("</feed>\n");
    text
}

fn entry(text: &mut String, base: &str, row: &Glance, at: Micros) {
    let word = row.status.word();
    let of = row.title.as_deref().or(row.branch.as_deref()).unwrap_or(&row.event);
    let place = row.branch.as_deref().or(row.tag.as_deref()).unwrap_or("no branch");
    let mut summary = format!("{} on {place}, {word}", row.pipeline);
    if let Some(begun) = row.started_at {
        let took = u64::try_from(at.0.saturating_sub(begun.0)).unwrap_or_default();
        summary.push_str(&format!(" after {}", duration(std::time::Duration::from_micros(took))));
    }
    // A text grows; it does not fail.
    let _ = writeln!(
        text,
        "  <entry>\n    <id>{base}/builds/{0}</id>\n    <title>#{0} {word}: {1}</title>\n    <updated>{2}</updated>\n    \
         <author><name>{3}</name></author>\n    <link href=\"{base}/builds/{0}\"/>\n    <summary>{4}</summary>\n  </entry>",
        row.id.0,
        escape(of),
        moment(at),
        escape(&row.actor),
        escape(&summary),
    );
}

/// As RFC 3339 has it.
fn moment(at: Micros) -> String {
    jiff::Timestamp::from_microsecond(at.0).map(|at| format!("{at:.0}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::status::BuildStatus;
    use crate::ids::BuildId;

    #[test]
    fn words_from_outside_stay_words() {
        let row = |id, status, ended_at| Glance {
            id: BuildId(id),
            project: "a".to_owned(),
            pipeline: "<p>".to_owned(),
            status,
            event: "push".to_owned(),
            branch: Some("x\"><script>".to_owned()),
            tag: None,
            commit: None,
            title: Some("]]> & <b>\u{0}".to_owned()),
            pull_request: None,
            actor: "me & you".to_owned(),
            awaits: false,
            created_at: Micros(0),
            started_at: Some(Micros(1_000_000)),
            ended_at,
        };
        let rows = [row(3, BuildStatus::Running, None), row(2, BuildStatus::Failed, Some(Micros(3_500_000)))];
        insta::assert_snapshot!(write("https://ci.example/", "demo", &rows));
        let empty = write("https://ci.example", "a", &[]);
        assert!(empty.contains("<updated>1970-01-01T00:00:00Z</updated>") && !empty.contains("<entry>"), "{empty}");
    }
}
