//! What the pages of models show. PURE.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use serde_json::Value;

use crate::ids::Micros;
use crate::plot::{Point, Row, Scale};
use crate::store::models;
use crate::web::api::models::{DecisionView, ModelView, VersionView};
use crate::web::api::page::Listed;
use crate::web::pages::coded::Coded;
use crate::web::pages::line::short;
use crate::web::pages::mark::Mark;
use crate::web::pages::moment::Moment;
use crate::web::pages::serving::Serving;
use crate::web::pages::shell::{Section, Shell};
use crate::words;

/// All models.
#[derive(Template)]
#[template(path = "models.html")]
pub struct ModelsPage {
    shell: Shell,
    models: Vec<ModelView>,
    deployments: Vec<Serving>,
}

impl ModelsPage {
    /// The page of these.
    pub fn of(shell: Shell, models: Vec<ModelView>, deployments: Vec<Serving>) -> Self {
        Self { shell, models, deployments }
    }
}

/// One model.
#[derive(Template)]
#[template(path = "model.html")]
pub struct ModelPage {
    shell: Shell,
    model: String,
    serves: Vec<Serving>,
    champion: Option<u64>,
    metrics: Vec<String>,
    metric: String,
    chart: Option<Row>,
    columns: Vec<String>,
    versions: Vec<Version>,
    older: Option<u64>,
    decisions: Vec<Decision>,
    /// What is compared if nothing else is chosen: the champion, or the one before, and the newest.
    pair: (u64, u64),
    /// The version that a person has to decide about.
    held: Option<u64>,
    /// The visitor may promote and reject.
    may_decide: bool,
    /// The visitor may roll back, and there is what to go back to.
    can_go_back: bool,
}

struct Version {
    number: u64,
    champion: bool,
    verdict: Option<Mark>,
    build: u64,
    stage: String,
    commit: String,
    made: Moment,
    values: Vec<String>,
}

/// A decision as shown.
pub struct Decision {
    /// Its number, for what is opened and closed on the page.
    pub id: u64,
    /// The verdict.
    pub mark: Mark,
    /// A rollback: the candidate came back.
    pub is_back: bool,
    /// Which version.
    pub candidate: u64,
    /// The champion at that time.
    pub champion: Option<u64>,
    /// Who.
    pub actor: String,
    /// In which build, unless a person decided.
    pub build: Option<u64>,
    /// When.
    pub at: Moment,
    /// Why.
    pub reason: String,
    /// What it rests on.
    pub findings: Vec<Finding>,
    /// What is worth knowing beside.
    pub notes: Vec<String>,
}

/// A number that a decision rests on.
pub struct Finding {
    /// How it came out.
    pub outcome: String,
    /// In a sentence.
    pub sentence: String,
    /// What it was for: `better_if`, `guardrail`.
    pub role: String,
}

/// Metrics that can be chosen for the chart.
const NAMES: usize = 200;
/// Metrics that a table has room for.
const COLUMNS: usize = 4;

impl ModelPage {
    /// The page of these.
    pub fn of(
        shell: Shell,
        model: String,
        versions: Listed<VersionView>,
        decisions: Vec<DecisionView>,
        serves: Vec<Serving>,
        wanted: &str,
        now: Micros,
    ) -> Self {
        let champion = versions.items.iter().find(|row| row.champion).map(|row| row.version);
        let judged = judged(&decisions);
        let metrics = metrics(&versions.items, &judged);
        let metric = metrics.iter().find(|name| *name == wanted).or(metrics.first()).cloned().unwrap_or_default();
        let columns: Vec<String> = metrics.iter().take(COLUMNS).cloned().collect();
        let verdicts = verdicts(&decisions);
        let newest = versions.items.first().map_or(1, |row| row.version);
        let other = champion.filter(|champion| *champion != newest).unwrap_or(newest.saturating_sub(1).max(1));
        let version = |row: &VersionView| Version {
            number: row.version,
            champion: row.champion,
            verdict: verdicts.get(&row.version).copied(),
            build: row.build,
            stage: row.stage.clone(),
            commit: short(row.lineage.commit.as_deref()),
            made: Moment::of(Micros(row.made_at), now),
            values: columns
                .iter()
                .map(|name| row.metrics.get(name).map_or("–".to_owned(), |value| words::number(*value)))
                .collect(),
        };
        Self {
            chart: chart(&model, &metric, &versions.items, &verdicts, &reigned(&decisions)),
            versions: versions.items.iter().map(version).collect(),
            older: versions.next,
            serves,
            pair: (other, newest),
            held: decisions.first().filter(|row| row.verdict == "held").map(|row| row.candidate),
            decisions: decisions.into_iter().map(|row| decision(row, now)).collect(),
            may_decide: false,
            can_go_back: false,
            champion,
            metrics,
            metric,
            columns,
            model,
            shell,
        }
    }
}

impl ModelPage {
    /// With what the visitor may do.
    pub fn for_who_decides(self, may_decide: bool, can_go_back: bool) -> Self {
        Self { may_decide, can_go_back, ..self }
    }
}

/// What came of each version: that it was promoted or rolled back is more than that it was still the champion later.
fn verdicts(decisions: &[DecisionView]) -> BTreeMap<u64, Mark> {
    let mut verdicts: BTreeMap<u64, &str> = BTreeMap::new();
    // The newest comes first.
    for row in decisions {
        let about = models::about(&row.verdict, row.candidate, row.champion);
        let known = verdicts.entry(about).or_insert(&row.verdict);
        if *known == "unchanged" {
            *known = &row.verdict;
        }
    }
    verdicts.into_iter().map(|(version, verdict)| (version, Mark::verdict(verdict))).collect()
}

/// The versions that were champion at some time.
fn reigned(decisions: &[DecisionView]) -> BTreeSet<u64> {
    let became = decisions.iter().filter(|row| matches!(row.verdict.as_str(), "promoted" | "rolled-back"));
    became.flat_map(|row| std::iter::once(row.candidate).chain(row.champion)).collect()
}

/// The metrics that decisions were about, the newest first.
fn judged(decisions: &[DecisionView]) -> Vec<String> {
    let findings = decisions.iter().filter_map(|row| row.evidence.get("findings")?.as_array()).flatten();
    findings.filter_map(|finding| Some(finding.get("metric")?.as_str()?.to_owned())).collect()
}

/// The names of metrics: those that decide come first, cells of confusion matrices and counts of rows last.
fn metrics(versions: &[VersionView], judged: &[String]) -> Vec<String> {
    let mut names: Vec<String> = versions.iter().flat_map(|row| row.metrics.keys().cloned()).collect();
    names.sort();
    names.dedup();
    let place = |name: &String| {
        let first = judged.iter().position(|other| other == name).unwrap_or(usize::MAX);
        let minor = name.starts_with("confusion.") || name.ends_with("rows");
        (minor, first, name.clone())
    };
    names.sort_by_cached_key(place);
    names.truncate(NAMES);
    names
}

/// A metric over the versions, the oldest first; the line joins those that became champion.
fn chart(
    model: &str,
    metric: &str,
    versions: &[VersionView],
    verdicts: &BTreeMap<u64, Mark>,
    reigned: &BTreeSet<u64>,
) -> Option<Row> {
    let known: Vec<(&VersionView, f64)> =
        versions.iter().rev().filter_map(|row| Some((row, *row.metrics.get(metric)?))).collect();
    let (first, last) = (known.first()?, known.last()?);
    let point = |(row, value): &(&VersionView, f64)| {
        let verdict = verdicts.get(&row.version).copied();
        let promoted = row.champion || reigned.contains(&row.version);
        let shape = if promoted { "passed" } else { verdict.map_or("waiting", |mark| mark.shape) };
        let word = verdict.map_or("not judged", |mark| mark.word);
        Point {
            value: *value,
            shape,
            joined: promoted,
            title: format!("version {}: {metric} {}, {word}", row.version, words::number(*value)),
            link: format!("/models/{model}#v{}", row.version),
        }
    };
    Some(Row {
        label: format!(
            "{metric} of versions {} to {}, the newest {}; the table below has the numbers",
            first.0.version,
            last.0.version,
            words::number(last.1)
        ),
        points: known.iter().map(point).collect(),
        scale: Scale::Around,
        number: short_number,
        ends: (format!("version {}", first.0.version), format!("version {}", last.0.version)),
    })
}

/// Without the zeros that say nothing.
fn short_number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    rounded.to_string()
}

/// A decision of the API as shown.
pub fn decision(row: DecisionView, now: Micros) -> Decision {
    let texts = |name: &str| {
        let all = row.evidence.get(name).and_then(Value::as_array).into_iter().flatten();
        all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    Decision {
        id: row.id,
        mark: Mark::verdict(&row.verdict),
        is_back: row.verdict == "rolled-back" && row.champion.is_some(),
        candidate: row.candidate,
        champion: row.champion,
        actor: row.actor.clone(),
        build: row.build,
        at: Moment::of(Micros(row.at), now),
        reason: row.evidence.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned(),
        findings: findings(&row.evidence),
        notes: texts("notes"),
    }
}

/// What a judgement rests on.
pub fn findings(evidence: &Value) -> Vec<Finding> {
    let all = evidence.get("findings").and_then(Value::as_array).into_iter().flatten();
    let text =
        |finding: &Value, name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default().replace('_', " ");
    all.map(|finding| Finding {
        outcome: text(finding, "outcome"),
        sentence: finding.get("sentence").and_then(Value::as_str).unwrap_or_default().to_owned(),
        role: text(finding, "role"),
    })
    .collect()
}
