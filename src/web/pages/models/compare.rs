//! Two versions of a model side by side.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::matrix::Matrix;
use super::view::{Finding, findings};
use crate::judge::metrics;
use crate::pipeline::types::Goal;
use crate::web::App;
use crate::web::api::models::{self as api, DecisionView, VersionView};
use crate::web::api::page::{Asked, Cursor, Named, Page, Rows};
use crate::web::pages::coded::Coded;
use crate::web::pages::line::short;
use crate::web::pages::mark::Mark;
use crate::web::pages::shell::{Section, Shell};
use crate::web::pages::visitor::Visitor;
use crate::web::problem::{Answer, Problem};
use crate::words;

/// Which two.
#[derive(Debug, Deserialize)]
pub struct Pair {
    a: Option<Cursor>,
    b: Option<Cursor>,
}

/// Decisions among which one about the two is looked for.
const DECISIONS: u64 = 200;

#[derive(Template)]
#[template(path = "compare.html")]
struct ComparePage {
    shell: Shell,
    model: String,
    a: Side,
    b: Side,
    rows: Vec<Row>,
    /// The confusion matrices of those that have one, with their versions.
    matrices: Vec<(u64, Matrix)>,
    facts: Vec<(&'static str, String, String)>,
    verdict: Option<(Mark, String)>,
    /// What a person decided about them since.
    by_hand: Option<String>,
    findings: Vec<Finding>,
}

struct Side {
    version: u64,
    champion: bool,
    build: u64,
}

struct Row {
    metric: String,
    a: String,
    b: String,
    difference: String,
    /// In a word, where it is known which way is better.
    word: &'static str,
    /// The word's symbol, if the verdict rests on this metric; numbers that nobody tested are told in words alone.
    shape: Option<&'static str>,
}

/// Two versions.
pub async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Named(model): Named<String>,
    Asked(pair): Asked<Pair>,
) -> Answer<Response> {
    let (Some(a), Some(b)) = (pair.a, pair.b) else {
        return Err(Problem::invalid("name two versions: `a` and `b`"));
    };
    let caller = visitor.caller.clone();
    let version =
        |number: Cursor| api::version(caller.clone(), State(app.clone()), Named((model.clone(), number.number())));
    let (Json(a), Json(b)) = (version(a).await?, version(b).await?);
    let page = Asked(Page { before: None, limit: Rows::try_from(DECISIONS).ok() });
    let Json(decisions) = api::promotions(caller.clone(), State(app.clone()), Named(model.clone()), page).await?;
    let about = |row: &&DecisionView| row.candidate == b.version && row.champion == Some(a.version);
    // A judgement has the numbers; what a person said is told beside it.
    let judged = decisions.items.iter().filter(about).find(|row| row.evidence.get("findings").is_some());
    let by_hand = decisions.items.iter().find(about).filter(|row| row.build.is_none() && judged.is_some());
    let decision = judged.or_else(|| decisions.items.iter().find(about));
    let shell = Shell::new(&visitor, Section::Models, format!("{model}: {} and {}", a.version, b.version));
    let by_hand = by_hand.map(said);
    super::super::page(&ComparePage { by_hand, ..ComparePage::of(shell, model, &a, &b, decision, &decisions.items) })
}

impl ComparePage {
    fn of(
        shell: Shell,
        model: String,
        a: &VersionView,
        b: &VersionView,
        decision: Option<&DecisionView>,
        all: &[DecisionView],
    ) -> Self {
        let goals = goals(all);
        let findings_of = |row: &DecisionView| row.evidence.get("findings").and_then(Value::as_array).cloned();
        let tested: BTreeSet<String> =
            decision.and_then(findings_of).into_iter().flatten().map(|finding| text(&finding, "metric")).collect();
        let mut names: Vec<&String> = a.metrics.keys().chain(b.metrics.keys()).collect();
        // Those that decide come first.
        names.sort_by_key(|name| (!goals.contains_key(name.as_str()), (*name).clone()));
        names.dedup();
        let matrices: Vec<(u64, Matrix)> =
            [a, b].into_iter().filter_map(|row| Some((row.version, Matrix::of(&row.metrics)?))).collect();
        // Its cells are shown as what they are.
        names.retain(|name| matrices.is_empty() || !name.starts_with("confusion."));
        let side = |row: &VersionView| Side { version: row.version, champion: row.champion, build: row.build };
        Self {
            rows: names
                .into_iter()
                .map(|name| {
                    let more_is_better = goals.get(name.as_str()).copied().or(known(name));
                    row(name, a, b, more_is_better, tested.contains(name.as_str()))
                })
                .collect(),
            matrices,
            by_hand: None,
            facts: facts(a, b),
            verdict: decision.map(|row| (Mark::verdict(&row.verdict), text(&row.evidence, "reason"))),
            findings: decision.map(|row| findings(&row.evidence)).unwrap_or_default(),
            a: side(a),
            b: side(b),
            model,
            shell,
        }
    }
}

/// What a person decided.
fn said(row: &DecisionView) -> String {
    let reason = text(&row.evidence, "reason");
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("Since then it was {} by {}{reason}.", row.verdict.replace('-', " "), row.actor)
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Which way is better, as the newest decisions have it, else as the metric is known: `true` for more.
fn goals(decisions: &[DecisionView]) -> BTreeMap<String, bool> {
    let mut goals = BTreeMap::new();
    let findings = decisions.iter().filter_map(|row| row.evidence.get("findings")?.as_array()).flatten();
    for finding in findings {
        let more = match text(finding, "goal").as_str() {
            "maximize" => true,
            "minimize" => false,
            _ => continue,
        };
        goals.entry(text(finding, "metric")).or_insert(more);
    }
    goals
}

/// Which way a metric that we compute ourselves is better.
fn known(name: &str) -> Option<bool> {
    metrics::find(name).map(|metric| metric.goal == Goal::Maximize)
}

fn row(name: &str, a: &VersionView, b: &VersionView, more_is_better: Option<bool>, tested: bool) -> Row {
    let (one, other) = (a.metrics.get(name).copied(), b.metrics.get(name).copied());
    let number = |value: Option<f64>| value.map_or("–".to_owned(), words::number);
    let difference = one.zip(other).map(|(one, other)| other - one);
    let (word, shape) = match (difference, more_is_better) {
        (Some(difference), Some(more)) if difference != 0.0 => {
            if (difference > 0.0) == more {
                ("better", "passed")
            } else {
                ("worse", "failed")
            }
        }
        (Some(_), Some(_)) => ("same", "skipped"),
        (None, _) | (_, None) => ("", ""),
    };
    let signed = |value: f64| {
        // As the verdict's sentences have it.
        let number = if value != 0.0 && value.abs() < 5e-4 { format!("{value:.2e}") } else { words::number(value) };
        format!("{}{number}", if value > 0.0 { "+" } else { "" })
    };
    Row {
        metric: name.to_owned(),
        a: number(one),
        b: number(other),
        difference: difference.map(signed).unwrap_or_default(),
        word,
        shape: tested.then_some(shape),
    }
}

/// What they were made of, where it differs.
fn facts(a: &VersionView, b: &VersionView) -> Vec<(&'static str, String, String)> {
    let data = |row: &VersionView| {
        let files = row.lineage.data.iter().map(|(path, digest)| format!("{path} {}", short(Some(digest))));
        files.collect::<Vec<_>>().join(", ")
    };
    let all = [
        ("commit", short(a.lineage.commit.as_deref()), short(b.lineage.commit.as_deref())),
        ("source", short(Some(&a.lineage.source)), short(Some(&b.lineage.source))),
        ("image", a.lineage.image.clone(), b.lineage.image.clone()),
        ("data", data(a), data(b)),
        ("parameters", a.lineage.params.to_string(), b.lineage.params.to_string()),
    ];
    all.into_iter().filter(|(_, one, other)| one != other).collect()
}
