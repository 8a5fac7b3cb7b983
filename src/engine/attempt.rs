//! One attempt of a stage, from its workspace to its result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, watch};

use super::begin::Start;
use super::drive::{Build, Launch, Stop};
use super::kind;
use super::now;
use crate::build::plan::Node;
use crate::build::reuse::KeyParts;
use crate::build::status::{CancelReason, Failure, FailureKind, Outcome};
use crate::ids::Micros;
use crate::logs::Quotes;
use crate::runner::PreparedImage;
use crate::runner::spec::UnitName;
use crate::store::attempts::{AttemptRow, NewAttempt, StepRow};
use crate::store::models::NewVersion;
use crate::store::results::ResultRow;

/// What a kind found out, by name: `checks`, `loadtest`, `judgement`.
pub type Reports = BTreeMap<String, serde_json::Value>;

/// Characters of a failure's message that are kept.
const LONGEST_MESSAGE: usize = 16_000;

/// What an attempt works with.
pub struct AttemptCx {
    /// The build.
    pub build: Arc<Build>,
    /// Index in the plan.
    pub node: usize,
    /// From 1.
    pub attempt: u32,
    /// Nodes before it whose outputs are there.
    pub good: Vec<usize>,
    /// Set when it is to stop.
    pub stop: watch::Receiver<Stop>,
    /// Where it asks for its launch to be committed.
    pub launches: mpsc::Sender<Launch>,
}

impl AttemptCx {
    /// The node in the plan.
    pub fn node(&self) -> &Node {
        &self.build.expanded.plan.nodes[self.node]
    }

    /// The name of its unit in this role.
    pub fn unit(&self, role: &str) -> UnitName {
        unit_name(&self.build, self.node, self.attempt, role)
    }

    /// The name of its private network.
    pub fn network(&self) -> String {
        self.unit("net").0
    }
}

/// The name of a unit: the same after a crash as before it.
pub fn unit_name(build: &Build, node: usize, attempt: u32, role: &str) -> UnitName {
    let key = &build.expanded.plan.nodes[node].key;
    UnitName(format!("orc-{}-b{}-{key}-a{attempt}-{role}", build.engine.store.instance, build.id.0))
}

/// Marks of steps: random, so that a script's own output is not taken for one by accident.
pub fn nonce() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// How an attempt comes to its task: begun now, or found under way.
pub struct Takeover {
    /// Marks of its steps.
    pub nonce: String,
    /// Name of its runner.
    pub runner: String,
    /// When it began.
    pub started_at: Micros,
    /// When its unit was started, if that was committed.
    pub launched_at: Option<Micros>,
    /// It was found under way, and no longer by the process that began it.
    pub again: bool,
    /// What was found out before the launch.
    pub reports: Reports,
    /// Image and key, where the attempt was begun now.
    pub start: Option<Start>,
}

impl Takeover {
    /// An attempt that begins now.
    pub fn fresh(new: &NewAttempt, start: Start) -> Self {
        Self {
            nonce: new.nonce.clone(),
            runner: new.runner.clone(),
            started_at: new.at,
            launched_at: None,
            again: false,
            reports: Reports::new(),
            start: Some(start),
        }
    }

    /// An attempt that another process began.
    pub fn again(row: AttemptRow, launched: bool) -> Self {
        let launched_at = if launched { row.launched_at.or(Some(row.started_at)) } else { None };
        Self {
            nonce: row.nonce,
            runner: row.runner,
            started_at: row.started_at,
            launched_at,
            again: true,
            reports: row.reports,
            start: None,
        }
    }
}

/// What came out of an attempt; the driver stores it in one transaction.
pub struct AttemptDone {
    /// How it ended.
    pub outcome: Outcome,
    /// Its steps.
    pub steps: Vec<StepRow>,
    /// What its kind found out.
    pub reports: Reports,
    /// Its result, if it ended well.
    pub result: Option<ResultRow>,
    /// The model version to register with it.
    pub version: Option<NewVersion>,
    /// Leave the unit for a look.
    pub keep: bool,
}

impl AttemptDone {
    /// An outcome with nothing else.
    pub fn bare(outcome: Outcome) -> Self {
        Self { outcome, steps: Vec::new(), reports: Reports::new(), result: None, version: None, keep: false }
    }
}

/// Why an attempt does not go on: not an error of the engine, but its outcome.
#[derive(Debug)]
pub enum Halt {
    /// It failed.
    Failed(Failure),
    /// It was stopped.
    Cancelled(CancelReason),
    /// It cannot be taken up again.
    Interrupted(String),
}

impl Halt {
    /// A failure.
    pub fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Halt::Failed(Failure::new(kind, message))
    }

    /// A failure of ours or the host's.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Halt::failed(FailureKind::Internal, error.to_string())
    }

    fn outcome(self) -> Outcome {
        match self {
            Halt::Failed(failure) => {
                Outcome::Failed { failure: Failure { message: bounded(failure.message), ..failure } }
            }
            Halt::Cancelled(reason) => Outcome::Cancelled { reason },
            Halt::Interrupted(detail) => Outcome::Interrupted { detail: bounded(detail) },
        }
    }
}

/// A message may quote what a server, an engine or a file says, of any length. `…` says that it was cut.
fn bounded(message: String) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

/// What a kind hands back when all went well.
#[derive(Default)]
pub struct Good {
    /// Digest of the outputs' manifest.
    pub outputs: Option<String>,
    /// Numbers that it reports.
    pub metrics: BTreeMap<String, f64>,
    /// The model version to register.
    pub version: Option<NewVersion>,
}

/// An attempt under way: what was gathered so far.
pub struct Attempt {
    /// What it works with.
    pub cx: AttemptCx,
    /// Its log.
    pub log: super::unit::Log,
    /// Its steps.
    pub steps: Vec<StepRow>,
    /// What its kind found out.
    pub reports: Reports,
    /// Name of its runner.
    pub runner: String,
    /// Marks of its steps.
    pub nonce: String,
    /// When its unit was started, if that was committed.
    pub launched_at: Option<Micros>,
    /// Another process began it.
    pub again: bool,
    /// The container engine could not be reached for a while.
    pub engine_lost: AtomicBool,
    /// Its image.
    pub image: Option<PreparedImage>,
    /// What its result is made of.
    pub parts: KeyParts,
}

impl Attempt {
    /// What its kind found out, with all secrets hidden: answers of servers are quoted there.
    pub fn masked_reports(&self) -> Reports {
        self.reports.iter().map(|(name, report)| (name.clone(), self.log.masked_json(report.clone()))).collect()
    }
}

/// Runs an attempt to its end, whatever that is.
pub async fn run(cx: AttemptCx, takeover: Takeover) -> AttemptDone {
    let quotes = cx.build.quotes.clone();
    let mut done = run_to_its_end(cx, takeover).await;
    // What failed is stored and shown, and may quote what a script, server or engine said.
    done.outcome = masked(&quotes, done.outcome);
    done
}

async fn run_to_its_end(cx: AttemptCx, takeover: Takeover) -> AttemptDone {
    let (keep, quotes) = (cx.build.request.keep, cx.build.quotes.clone());
    if takeover.again && *cx.stop.borrow() >= Some(CancelReason::Kill) {
        // Whoever ends a build may not have its secrets, so its output is not read, and nothing of it is finished. The units are
        // killed once this outcome is stored.
        return AttemptDone::bare(Outcome::Cancelled { reason: CancelReason::Kill });
    }
    let mut attempt = match open(cx, takeover).await {
        Ok(attempt) => attempt,
        Err(halt) => return AttemptDone::bare(halt.outcome()),
    };
    let ended = kind::run(&mut attempt).await.and_then(|good| harmless_names(&quotes, good));
    let (outcome, good) = match ended {
        Ok(good) => (Outcome::Succeeded, Some(good)),
        Err(halt) => (halt.outcome(), None),
    };
    let keep = keep && matches!(outcome, Outcome::Failed { .. }) && attempt.launched_at.is_some();
    if keep {
        let how = super::kept::how_to_look(&attempt);
        attempt.log.note(&how);
    }
    // The source of an interrupted attempt may still go on, or be unknown: its last line stays as it is.
    let log = match &outcome {
        Outcome::Interrupted { .. } => {
            attempt.log.outcome(&outcome);
            Ok(())
        }
        Outcome::Succeeded | Outcome::Failed { .. } | Outcome::Cancelled { .. } => {
            attempt.log.outcome(&outcome);
            attempt.log.finish()
        }
    };
    let mut done = AttemptDone::bare(outcome);
    if let Err(error) = log {
        let failure = Failure::new(FailureKind::Internal, error.to_string());
        done.outcome = Outcome::Failed { failure };
    }
    done.keep = keep;
    if let (Outcome::Succeeded, Some(good)) = (&done.outcome, good) {
        match result(&attempt, good).await {
            Ok((result, version)) => {
                done.result = Some(result);
                done.version = version;
            }
            Err(halt) => done.outcome = halt.outcome(),
        }
    }
    done.reports = attempt.masked_reports();
    done.steps = attempt.steps;
    done
}

/// A metric's name cannot be hidden: two would become one, and a gate would ask for it in vain.
fn harmless_names(quotes: &Quotes, good: Good) -> Result<Good, Halt> {
    match good.metrics.keys().find(|name| quotes.is_in(name)) {
        None => Ok(good),
        Some(name) => {
            let text = format!("the name of the metric `{name}` holds the value of a secret; call it something else");
            Err(Halt::failed(FailureKind::Output, text))
        }
    }
}

fn masked(quotes: &Quotes, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed { failure } => {
            let message = quotes.text(&failure.message);
            Outcome::Failed { failure: Failure { message, ..failure } }
        }
        Outcome::Interrupted { detail } => Outcome::Interrupted { detail: quotes.text(&detail) },
        Outcome::Succeeded | Outcome::Cancelled { .. } => outcome,
    }
}

async fn open(cx: AttemptCx, takeover: Takeover) -> Result<Attempt, Halt> {
    let log = super::unit::Log::open(&cx, &takeover.nonce, takeover.again).map_err(Halt::internal)?;
    let mut attempt = Attempt {
        log,
        steps: Vec::new(),
        reports: takeover.reports,
        runner: takeover.runner,
        nonce: takeover.nonce,
        launched_at: takeover.launched_at,
        engine_lost: AtomicBool::new(false),
        again: takeover.again,
        image: None,
        parts: KeyParts::default(),
        cx,
    };
    let start = match takeover.start {
        Some(start) => start,
        None => {
            match super::begin::begin(&attempt.cx.build, attempt.cx.node, attempt.cx.attempt.max(2), &attempt.cx.good)
                .await
            {
                super::begin::Begun::Run(start) => *start,
                super::begin::Begun::Reuse(_) => {
                    return Err(Halt::internal("a second attempt was taken from a result"));
                }
            }
        }
    };
    let may_reuse = attempt.cx.node().stage.reusable();
    if may_reuse && !start.why.is_empty() && !attempt.again {
        attempt.log.note(&format!("runs: {}", start.why));
    }
    attempt.parts = start.parts;
    match start.image {
        Ok(image) => attempt.image = image,
        Err(failure) => {
            attempt.log.outcome(&Outcome::Failed { failure: failure.clone() });
            attempt.log.finish().map_err(Halt::internal)?;
            return Err(Halt::Failed(failure));
        }
    }
    Ok(attempt)
}

async fn result(attempt: &Attempt, good: Good) -> Result<(ResultRow, Option<NewVersion>), Halt> {
    let build = &attempt.cx.build;
    let outputs = match good.outputs {
        Some(digest) => digest,
        None => super::workspace::empty(build).await.map_err(Halt::internal)?,
    };
    let mut version = good.version.filter(|_| build.may_register());
    if let Some(version) = &mut version {
        version.lineage.params = build.quotes.foreign_json(std::mem::take(&mut version.lineage.params));
    }
    let row = ResultRow {
        build: build.id,
        made_by: build.id,
        node: attempt.cx.node().key.clone(),
        attempt: attempt.cx.attempt,
        parts: attempt.parts.clone(),
        outputs,
        metrics: good.metrics,
        version: None,
        made_at: now(),
    };
    Ok((row, version))
}

/// Removes the units and the network of an attempt whose end is on the disk.
pub async fn clean_up(build: Arc<Build>, node: usize, attempt: u32, keep: bool) {
    if keep {
        return;
    }
    super::gc::remove_attempt(&build, node, attempt).await;
}
