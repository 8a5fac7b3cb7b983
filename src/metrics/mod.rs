//! Numbers for Prometheus: what is counted, under which names, and when a series goes away.
//!
//! It knows no room but `ids` and `build`: whoever does the work tells it. Counters begin at 0 with each start. Labels hold
//! names of projects, pipelines, stages and models, and words of our own; never text of a person or a request. Series of a
//! project that is removed from the configuration are gone at the next scrape.

mod load;
mod make;
mod page;
mod tally;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder,
};

pub use load::{LoadFigures, LoadSeries};
pub use make::Family;
use make::{LONG, Maker, SHORT};
pub use page::page;
pub use tally::Tally;

/// Combinations of project, pipeline and stage that have series of their own. Those beyond are counted together, so that a
/// repository that invents a name for each build cannot fill the memory.
const COMBINATIONS: usize = 2000;
/// Stands for the pipelines and stages beyond.
const OTHER: &str = "other";

/// Every number that is served.
#[derive(Debug)]
pub struct Metrics {
    maker: Maker,
    named: Mutex<BTreeSet<(String, String, String)>>,
    builds: IntCounterVec,
    build_seconds: HistogramVec,
    queue_wait: HistogramVec,
    builds_running: IntGaugeVec,
    builds_waiting: IntGaugeVec,
    stages: IntCounterVec,
    attempts: IntCounterVec,
    attempt_seconds: HistogramVec,
    stages_running: IntGaugeVec,
    log_bytes: IntCounterVec,
    slots: IntGaugeVec,
    slots_used: IntGaugeVec,
    slots_awaited: IntGaugeVec,
    slot_wait: HistogramVec,
    deliveries: IntCounterVec,
    delivery_seconds: Histogram,
    triggers: IntCounterVec,
    told: IntCounterVec,
    untold: IntGauge,
    looks: IntCounterVec,
    look_seconds: HistogramVec,
    looked_at: GaugeVec,
    commit_seconds: Histogram,
    data_free: IntGauge,
    repairs: IntCounterVec,
    cleanups: IntCounterVec,
    cleanup_seconds: Histogram,
    cleaned: IntCounterVec,
    cleaned_bytes: IntCounter,
    promotions: IntCounterVec,
    champion: IntGaugeVec,
    champion_metric: GaugeVec,
    load: load::LoadFamilies,
    start_time: Gauge,
    resident: IntGauge,
    scrapes: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new().expect("the names of the families are valid and distinct: every test of this room makes them")
    }
}

impl Metrics {
    #[allow(clippy::too_many_lines, reason = "a list of families")]
    fn new() -> Result<Self, Error> {
        let mut maker = Maker::default();
        let m = &mut maker;
        let info = m.gauges("orchestrator_build_info", &["version"], "Always 1; tells the program's version.")?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let pipeline: &[&str] = &["project", "pipeline"];
        let stage: &[&str] = &["project", "pipeline", "stage", "kind"];
        let metrics = Self {
            builds: m.counters(
                "orchestrator_builds_total",
                &["project", "pipeline", "result"],
                "Builds that ended, by result: passed, failed, cancelled.",
            )?,
            build_seconds: m.times_by(
                "orchestrator_build_duration_seconds",
                pipeline,
                LONG,
                "From a build's begin to its end.",
            )?,
            queue_wait: m.times_by(
                "orchestrator_build_queue_wait_seconds",
                &["project"],
                LONG,
                "From the moment a build was made to its begin; approvals count as waiting.",
            )?,
            builds_running: m.gauges("orchestrator_builds_running", &["project"], "Builds under way.")?,
            builds_waiting: m.gauges("orchestrator_builds_waiting", &["project"], "Builds that wait to begin.")?,
            stages: m.counters(
                "orchestrator_stages_total",
                &["project", "pipeline", "stage", "kind", "result"],
                "Stages that ended, by result: succeeded, reused (an earlier result stood for it), failed, skipped, cancelled.",
            )?,
            attempts: m.counters(
                "orchestrator_stage_attempts_total",
                &["project", "pipeline", "stage", "kind", "result"],
                "Attempts of stages that ended, by result: succeeded, failed, cancelled, interrupted. More than one of a stage are retries.",
            )?,
            attempt_seconds: m.times_by(
                "orchestrator_stage_attempt_duration_seconds",
                stage,
                LONG,
                "From the begin of a stage's attempt to its end.",
            )?,
            stages_running: m.gauges("orchestrator_stages_running", &["project", "kind"], "Stages with an attempt under way.")?,
            log_bytes: m.counters(
                "orchestrator_log_bytes_total",
                &["project"],
                "Bytes of the logs of attempts that ended, before compression.",
            )?,
            slots: m.gauges("orchestrator_runner_slots", &["runner"], "Places for stages on a runner.")?,
            slots_used: m.gauges("orchestrator_runner_slots_used", &["runner"], "Places on a runner that a stage has.")?,
            slots_awaited: m.gauges("orchestrator_runner_stages_waiting", &["runner"], "Stages that wait for a place on a runner.")?,
            slot_wait: m.times_by(
                "orchestrator_runner_slot_wait_seconds",
                &["runner"],
                LONG,
                "How long a stage waited for its place on a runner.",
            )?,
            deliveries: m.counters(
                "orchestrator_deliveries_total",
                &["source", "result"],
                "Webhook calls by answer: accepted, duplicate, unsigned, invalid, conflict, too-large, unavailable.",
            )?,
            delivery_seconds: m.times(
                "orchestrator_delivery_answer_seconds",
                SHORT,
                "From a webhook call's headers to its answer; an accepted one is on the disk by then.",
            )?,
            triggers: m.counters(
                "orchestrator_triggers_total",
                &["project", "source", "result"],
                "Triggers by where they came from (webhook, poll, watch, schedule, manual, ...) and what was decided (started, awaiting, skipped, ignored, duplicate, cancelled, failed).",
            )?,
            told: m.counters(
                "orchestrator_reports_total",
                &["kind", "result"],
                "Tries to tell others of a build, by kind (github-status, github-check, github-comment, webhook, slack, email) and result: told, retried, given-up.",
            )?,
            untold: m.gauge("orchestrator_reports_waiting", "Messages to others that wait to be told.")?,
            looks: m.counters(
                "orchestrator_repository_looks_total",
                &["project", "result"],
                "Looks at a repository's refs, by result: succeeded, failed.",
            )?,
            look_seconds: m.times_by(
                "orchestrator_repository_look_duration_seconds",
                &["project"],
                SHORT,
                "How long a look at a repository's refs took.",
            )?,
            looked_at: m.reals(
                "orchestrator_repository_last_look_timestamp_seconds",
                &["project"],
                "When a look at the repository last went well, in seconds since 1970; `time() -` this is how far behind polling is.",
            )?,
            commit_seconds: m.times(
                "orchestrator_database_commit_seconds",
                SHORT,
                "How long a group of transactions took to be on the disk.",
            )?,
            data_free: m.gauge("orchestrator_data_free_bytes", "Free space where the data folder lies.")?,
            repairs: m.counters(
                "orchestrator_reconcile_repairs_total",
                &["kind"],
                "What was found left of a daemon that was killed, and put right: deployment, unit, network.",
            )?,
            cleanups: m.counters(
                "orchestrator_cleanups_total",
                &["result"],
                "Looks for old builds and files that nobody needs, by result: succeeded, failed.",
            )?,
            cleanup_seconds: m.times("orchestrator_cleanup_duration_seconds", LONG, "How long such a look took.")?,
            cleaned: m.counters(
                "orchestrator_cleanup_removed_total",
                &["kind"],
                "What clean-ups removed: build, delivery, file.",
            )?,
            cleaned_bytes: m.counter("orchestrator_cleanup_removed_bytes_total", "Bytes of logs and files that clean-ups removed.")?,
            promotions: m.counters(
                "orchestrator_promotions_total",
                &["project", "model", "result"],
                "Decisions of promote stages by verdict: promoted, rejected, inconclusive, unchanged, error; held waits for a person.",
            )?,
            champion: m.gauges("orchestrator_model_champion_version", &["model"], "The version that is champion.")?,
            champion_metric: m.reals(
                "orchestrator_model_champion_metric",
                &["model", "metric"],
                "A metric of the champion, as its training reported it; at most 50 of a model.",
            )?,
            load: load::LoadFamilies::new(m)?,
            start_time: m.real("process_start_time_seconds", "When the daemon started, in seconds since 1970.")?,
            resident: m.gauge("process_resident_memory_bytes", "Memory of the daemon's process.")?,
            scrapes: m.counter("orchestrator_scrapes_total", "Times that these numbers were asked for.")?,
            named: Mutex::default(),
            maker: Maker::default(),
        };
        metrics.start_time.set(seconds_now());
        // Words that are known from the start have a series from the start: a rate needs the 0 before the first.
        for result in ["accepted", "duplicate", "unsigned", "invalid", "conflict", "too-large", "unavailable"] {
            metrics.deliveries.with_label_values(&["github", result]);
        }
        for kind in ["deployment", "unit", "network"] {
            metrics.repairs.with_label_values(&[kind]);
        }
        for result in ["succeeded", "failed"] {
            metrics.cleanups.with_label_values(&[result]);
        }
        for kind in ["build", "delivery", "file"] {
            metrics.cleaned.with_label_values(&[kind]);
        }
        Ok(Self { maker, ..metrics })
    }

    /// All families, in the order of the page.
    pub fn families(&self) -> &[Family] {
        &self.maker.families
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// If a number cannot be written, which would be our own fault.
    pub fn render(&self) -> Result<String, Error> {
        self.scrapes.inc();
        TextEncoder::new().encode_to_string(&self.maker.registry.gather())
    }

    /// The labels of a stage, or of all beyond the bound.
    fn bounded(&self, project: &str, pipeline: &str, stage: &str) -> (String, String) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (project.to_owned(), pipeline.to_owned(), stage.to_owned());
        if named.contains(&key) || (named.len() < COMBINATIONS && named.insert(key)) {
            (pipeline.to_owned(), stage.to_owned())
        } else {
            (OTHER.to_owned(), OTHER.to_owned())
        }
    }

    /// Forgets all projects but these.
    pub fn keep_projects(&self, stays: &dyn Fn(&str) -> bool) {
        prune(&self.builds, stays);
        prune(&self.build_seconds, stays);
        prune(&self.queue_wait, stays);
        prune(&self.builds_running, stays);
        prune(&self.builds_waiting, stays);
        prune(&self.stages, stays);
        prune(&self.attempts, stays);
        prune(&self.attempt_seconds, stays);
        prune(&self.stages_running, stays);
        prune(&self.log_bytes, stays);
        prune(&self.triggers, stays);
        prune(&self.looks, stays);
        prune(&self.look_seconds, stays);
        prune(&self.looked_at, stays);
        prune(&self.promotions, stays);
        self.load.keep_projects(stays);
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|(project, ..)| stays(project));
    }

    /// How many builds of each project wait. Projects that are known and not named have none.
    pub fn waiting<'a>(&self, projects: impl Iterator<Item = &'a str>) {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for project in projects {
            *counts.entry(project).or_default() += 1;
        }
        for labels in series(&self.builds_waiting) {
            let project = labels.get("project").map_or("", String::as_str);
            if !counts.contains_key(project) {
                self.builds_waiting.with_label_values(&[project]).set(0);
            }
        }
        for (project, count) in counts {
            self.builds_waiting.with_label_values(&[project]).set(count);
        }
    }

    /// A project is there: what it has none of is 0.
    pub fn known_project(&self, project: &str) {
        self.builds_waiting.with_label_values(&[project]);
        self.builds_running.with_label_values(&[project]);
        for result in ["succeeded", "failed"] {
            self.looks.with_label_values(&[project, result]);
        }
    }

    /// A runner's places now.
    pub fn places(&self, runner: &str, slots: usize, used: usize, waiting: usize) {
        let set = |gauge: &IntGaugeVec, value: usize| {
            gauge.with_label_values(&[runner]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.slots, slots);
        set(&self.slots_used, used);
        set(&self.slots_awaited, waiting);
    }

    /// A stage has its place.
    pub fn got_place(&self, runner: &str, waited: Duration) {
        self.slot_wait.with_label_values(&[runner]).observe(waited.as_secs_f64());
    }

    /// A webhook call was answered.
    pub fn delivery(&self, status: u16, took: Duration) {
        let result = match status {
            202 => "accepted",
            200 => "duplicate",
            401 | 403 => "unsigned",
            409 => "conflict",
            413 => "too-large",
            400..=499 => "invalid",
            _ => "unavailable",
        };
        self.deliveries.with_label_values(&["github", result]).inc();
        self.delivery_seconds.observe(took.as_secs_f64());
    }

    /// A trigger was decided.
    pub fn trigger(&self, project: &str, source: &str, decided: &str) {
        self.triggers.with_label_values(&[project, source, decided]).inc();
    }

    /// Somebody was told of something, or was not.
    pub fn told(&self, kind: &str, result: &str) {
        self.told.with_label_values(&[kind, result]).inc();
    }

    /// So many messages wait to be told.
    pub fn untold(&self, waiting: u64) {
        self.untold.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Someone looked at a repository.
    pub fn look(&self, project: &str, well: bool, took: Duration) {
        let result = if well { "succeeded" } else { "failed" };
        self.looks.with_label_values(&[project, result]).inc();
        self.look_seconds.with_label_values(&[project]).observe(took.as_secs_f64());
        if well {
            self.looked_at.with_label_values(&[project]).set(seconds_now());
        }
    }

    /// Where commits to the database are measured.
    pub fn commits(&self) -> Histogram {
        self.commit_seconds.clone()
    }

    /// Something that a killed daemon left was put right.
    pub fn repaired(&self, kind: &str, count: usize) {
        self.repairs.with_label_values(&[kind]).inc_by(count as u64);
    }

    /// A clean-up ended; it broke if there is nothing to tell.
    pub fn cleaned(&self, done: Option<Cleaned>, took: Duration) {
        self.cleanups.with_label_values(&[if done.is_some() { "succeeded" } else { "failed" }]).inc();
        self.cleanup_seconds.observe(took.as_secs_f64());
        let done = done.unwrap_or_default();
        for (kind, count) in [("build", done.builds), ("delivery", done.deliveries), ("file", done.files)] {
            self.cleaned.with_label_values(&[kind]).inc_by(count);
        }
        self.cleaned_bytes.inc_by(done.bytes);
    }

    /// A promote stage decided.
    pub fn promotion(&self, project: &str, model: &str, verdict: &str) {
        self.promotions.with_label_values(&[project, model, verdict]).inc();
    }

    /// The champions with their metrics, all of them.
    pub fn champions(&self, champions: &[Champion]) {
        const METRICS: usize = 50;
        for labels in series(&self.champion) {
            let stays = |champion: &&Champion| Some(&champion.model) == labels.get("model");
            if champions.iter().find(stays).is_none() {
                let _ = self.champion.remove(&labels);
            }
        }
        for labels in series(&self.champion_metric) {
            let stays = champions.iter().find(|champion| Some(&champion.model) == labels.get("model"));
            if !stays
                .is_some_and(|champion| labels.get("metric").is_some_and(|name| champion.metrics.contains_key(name)))
            {
                let _ = self.champion_metric.remove(&labels);
            }
        }
        for champion in champions {
            let version = i64::try_from(champion.version).unwrap_or(i64::MAX);
            self.champion.with_label_values(&[&champion.model]).set(version);
            for (name, value) in champion.metrics.iter().take(METRICS) {
                self.champion_metric.with_label_values(&[&champion.model, name]).set(*value);
            }
        }
    }

    /// What the machine says at a scrape.
    pub fn machine(&self, data_free: Option<u64>, resident: Option<u64>) {
        for (gauge, value) in [(&self.data_free, data_free), (&self.resident, resident)] {
            if let Some(value) = value {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }
}

/// What a clean-up removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// Builds.
    pub builds: u64,
    /// Webhook calls, and decided triggers without a build.
    pub deliveries: u64,
    /// Files of artifacts.
    pub files: u64,
    /// Bytes of files and logs.
    pub bytes: u64,
}

/// A model's champion.
#[derive(Debug, Clone, PartialEq)]
pub struct Champion {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// As its training reported them.
    pub metrics: BTreeMap<String, f64>,
}

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The labels of all series of a family.
fn series<T: MetricVecBuilder>(family: &MetricVec<T>) -> Vec<HashMap<&'static str, String>>
where
    MetricVec<T>: Collector,
{
    const LABELS: [&str; 10] =
        ["project", "pipeline", "stage", "kind", "result", "source", "runner", "model", "metric", "version"];
    let mut found = Vec::new();
    for family in family.collect() {
        for metric in family.get_metric() {
            let pairs = metric.get_label().iter();
            found.push(
                pairs
                    .filter_map(|pair| {
                        let name = LABELS.iter().find(|name| **name == pair.name())?;
                        Some((*name, pair.value().to_owned()))
                    })
                    .collect(),
            );
        }
    }
    found
}

/// Removes the series of projects that are gone.
fn prune<T: MetricVecBuilder>(family: &MetricVec<T>, stays: &dyn Fn(&str) -> bool)
where
    MetricVec<T>: Collector,
{
    for labels in series(family) {
        if labels.get("project").is_some_and(|project| !stays(project)) {
            // Somebody else may have removed it meanwhile.
            let _ = family.remove(&labels);
        }
    }
}
