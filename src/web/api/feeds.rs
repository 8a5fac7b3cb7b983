//! What other programs show: a badge, the picture in a pull request, and the list that CruiseControl's tray icons read.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::page::{Asked, Named};
use super::sealed::RESOURCE_POLICY;
use crate::build::status::BuildStatus;
use crate::daemon::tell::mark_key;
use crate::daemon::tell::spread::picture_key;
use crate::ids::BuildId;
use crate::store::access::Scope;
use crate::store::builds::{self, BuildRow, Filter};
use crate::web::App;
use crate::web::auth::{Caller, hash};
use crate::web::problem::{Answer, Problem};
use crate::words::escape;

/// Builds of a project that are looked at: enough to find the newest of each pipeline.
const LOOKED_AT: usize = 50;

/// What a badge is of.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BadgeOf {
    /// The branch; all branches, pull requests excepted, if not given.
    pub branch: Option<String>,
    /// The pipeline; any if not given.
    pub pipeline: Option<String>,
}

/// How the newest build ended, as a picture. Projects with `public_badge` show it without a token.
#[utoipa::path(get, path = "/projects/{project}/badge.svg", params(("project" = String, Path), BadgeOf),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = 304),
        (status = 401, body = Problem), (status = 404, body = Problem)))]
pub async fn badge(
    caller: Result<Caller, Problem>,
    State(app): State<App>,
    Named(name): Named<String>,
    Asked(of): Asked<BadgeOf>,
    asked: HeaderMap,
) -> Answer<Response> {
    let project = app.projects.get(&name);
    let public = project.as_ref().is_some_and(|project| project.settings.public_badge);
    if !public {
        caller?.may_in(Scope::Read, &name)?;
    }
    project.ok_or_else(|| Problem::missing(format!("there is no project `{name}`")))?;
    let wanted = |row: &BuildRow| {
        row.status.is_terminal()
            && (of.branch.is_some() || row.request.pull_request.is_none())
            && of.pipeline.as_ref().is_none_or(|pipeline| *pipeline == row.request.pipeline)
    };
    let filter = Filter { projects: Some(vec![name]), branch: of.branch.clone(), ..Filter::default() };
    let rows = app.engine.store.read(move |db| builds::find(db, &filter, None, LOOKED_AT)).await?;
    let status = rows.iter().find(|row| wanted(row)).map(|row| row.status);
    let (word, colour) = match status {
        Some(BuildStatus::Passed) => ("passed", "#1a7f37"),
        Some(BuildStatus::Failed) => ("failed", "#b42318"),
        Some(BuildStatus::Cancelled { .. }) => ("cancelled", "#5f6670"),
        Some(BuildStatus::Queued | BuildStatus::Running) | None => ("unknown", "#5f6670"),
    };
    let tag = format!("\"{word}\"");
    // A picture that is kept for long tells yesterday's news.
    let kept = (header::CACHE_CONTROL, "no-cache".to_owned());
    let shown_by = (RESOURCE_POLICY, shown_by(public).to_owned());
    if asked.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(&tag) {
        return Ok((StatusCode::NOT_MODIFIED, [kept, shown_by, (header::ETAG, tag)]).into_response());
    }
    let kind = (header::CONTENT_TYPE, "image/svg+xml; charset=utf-8".to_owned());
    let safe = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'".to_owned());
    Ok(([kept, kind, safe, shown_by, (header::ETAG, tag)], picture(word, colour)).into_response())
}

/// By what a picture is seen without a token.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PlotOf {
    /// From the address in a pull request's comment.
    pub key: Option<String>,
}

/// Metrics beside the champion's, and latencies, as a picture: that of pull requests' comments.
#[utoipa::path(get, path = "/builds/{build}/plot.svg", params(("build" = u64, Path), PlotOf),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub async fn plot(
    caller: Result<Caller, Problem>,
    State(app): State<App>,
    Named(id): Named<u64>,
    Asked(of): Asked<PlotOf>,
) -> Answer<Response> {
    let id = BuildId(id);
    let known = match &of.key {
        // Of their hashes, so that the time it takes tells nothing of the key.
        Some(key) => hash(key) == hash(&picture_key(&mark_key(&app.engine).await?, id)),
        None => false,
    };
    if !known {
        super::builds::allowed(&caller?, &app, Scope::Read, id).await?;
    }
    let report = app.engine.store.read(move |db| crate::engine::outcome::of_build(db, id)).await?;
    let none = || Problem::missing(format!("build {id} has nothing to compare"));
    let picture = crate::report::plot::of_build(&report).ok_or_else(none)?;
    let kind = (header::CONTENT_TYPE, "image/svg+xml; charset=utf-8");
    let safe = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox");
    let shown_by = (RESOURCE_POLICY, shown_by(known));
    Ok(([kind, safe, shown_by, (header::CACHE_CONTROL, "no-cache")], picture).into_response())
}

/// Pages of other sites show what needs no token; what needs one is for its own reader.
fn shown_by(public: bool) -> &'static str {
    if public { "cross-origin" } else { "same-origin" }
}

/// Two boxes with words. Nothing of it comes from outside.
fn picture(word: &str, colour: &str) -> String {
    let (left, right) = (37, 12 + 7 * word.len());
    let (width, middle) = (left + right, left + right / 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"20\" role=\"img\" aria-label=\"build: {word}\">\
         <title>build: {word}</title><rect width=\"{width}\" height=\"20\" rx=\"3\" fill=\"#3b4048\"/>\
         <path d=\"M{left} 0h{}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{}z\" fill=\"{colour}\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{}\" y=\"14\">build</text><text x=\"{middle}\" y=\"14\">{word}</text></g></svg>\n",
        right - 3,
        right - 3,
        left / 2 + 1,
    )
}

/// Every pipeline of every project that the caller sees, as CCTray reads it.
#[utoipa::path(get, path = "/cctray.xml",
    responses((status = 200, content_type = "application/xml", body = String), (status = 401, body = Problem)))]
pub async fn cctray(caller: Caller, State(app): State<App>) -> Answer<Response> {
    caller.may(Scope::Read)?;
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Projects>\n");
    for name in app.projects.all().keys().filter(|name| caller.sees(name)) {
        let filter = Filter { projects: Some(vec![name.clone()]), ..Filter::default() };
        let rows = app.engine.store.read(move |db| builds::find(db, &filter, None, LOOKED_AT)).await?;
        let mut pipelines: BTreeMap<&str, Vec<&BuildRow>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.request.pull_request.is_none()) {
            pipelines.entry(&row.request.pipeline).or_default().push(row);
        }
        for (pipeline, rows) in pipelines {
            text.push_str(&line(&app.public_url, name, pipeline, &rows));
        }
    }
    text.push_str("</Projects>\n");
    Ok(([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], text).into_response())
}

/// One pipeline by its builds, newest first.
fn line(public_url: &str, project: &str, pipeline: &str, rows: &[&BuildRow]) -> String {
    let activity = if rows.iter().any(|row| !row.status.is_terminal()) { "Building" } else { "Sleeping" };
    let ended = rows.iter().find(|row| row.status.is_terminal());
    let status = match ended.map(|row| row.status) {
        Some(BuildStatus::Passed) => "Success",
        Some(BuildStatus::Failed) => "Failure",
        Some(BuildStatus::Cancelled { .. } | BuildStatus::Queued | BuildStatus::Running) | None => "Unknown",
    };
    let mut text = format!(
        "  <Project name=\"{} / {}\" activity=\"{activity}\" lastBuildStatus=\"{status}\"",
        escape(project),
        escape(pipeline)
    );
    if let Some(row) = ended {
        let at = row.ended_at.and_then(|at| jiff::Timestamp::from_microsecond(at.0).ok());
        // A text grows; it does not fail.
        let _ = write!(text, " lastBuildLabel=\"{}\"", row.id.0);
        if let Some(at) = at {
            let _ = write!(text, " lastBuildTime=\"{at:.0}\"");
        }
    }
    let newest = rows.first().map_or(0, |row| row.id.0);
    let _ = writeln!(text, " webUrl=\"{}/builds/{newest}\"/>", escape(public_url.trim_end_matches('/')));
    text
}
