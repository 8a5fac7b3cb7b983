//! The load test of an attempt: its numbers, and how they went over time.

use std::fmt;

use askama::Template;
use askama::filters::HtmlSafe;
use axum::extract::State;
use axum::response::Response;

use super::find;
use crate::load::html;
use crate::load::report::LoadReport;
use crate::web::App;
use crate::web::api::page::Named;
use crate::web::pages::shell::{Section, Shell};
use crate::web::pages::visitor::Visitor;
use crate::web::problem::{Answer, Problem};

/// The report as it was drawn.
struct Report(String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// [`html`] escapes every text that it puts in.
impl HtmlSafe for Report {}

#[derive(Template)]
#[template(path = "load.html")]
struct LoadPage {
    shell: Shell,
    build: u64,
    project: String,
    node: String,
    attempt: u32,
    report: Report,
}

/// A load test.
pub async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(which): Named<(u64, String, u32)>,
) -> Answer<Response> {
    let found = find(&visitor, &app, which).await?;
    let (node, attempt) = (found.stage.node.to_string(), found.attempt.attempt);
    let report = found.attempt.reports.get("loadtest");
    let report = report.ok_or_else(|| Problem::missing(format!("attempt {attempt} of `{node}` measured no load")))?;
    let report: LoadReport = serde_json::from_value(report.clone())
        .map_err(|error| Problem::missing(format!("this version cannot read the report of `{node}`: {error}")))?;
    super::super::page(&LoadPage {
        shell: Shell::new(&visitor, Section::Builds, format!("Load test {node} of {}", found.build.id)),
        build: found.build.id.0,
        project: found.build.request.project,
        node,
        attempt,
        report: Report(html::fragment(&report)),
    })
}
