//! Runs a whole load test: contract check, generator threads, account, verdict.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ids::Micros;
use crate::load::checks::CheckResult;
use crate::load::collect::{Collector, Tick};
#[cfg(doc)]
use crate::load::contract::broken_contract;
use crate::load::contract::{Contract, check_contract};
use crate::load::encode::{EncodeError, Encoded};
use crate::load::plan::{LoadPlan, PlanError};
use crate::load::report::{GeneratorFacts, LoadReport, RequestReport, Tool, Verdict};
use crate::load::target::{Endpoint, TargetError};
use crate::load::usage::Shares;
use crate::load::verdict::{Gates, assess, judge, notes};
use crate::load::worker::{Message, Outbox, Prepared, Shared, run_thread};

/// Descriptors for everything that is not a connection of the test.
const SPARE_DESCRIPTORS: u64 = 256;

/// Most threads of a generator, unless said otherwise.
const MOST_THREADS: usize = 8;

/// Time for all threads to be there before load starts.
const HEAD_START: Duration = Duration::from_millis(20);

/// Accounts that wait to be added up; a second's worth of many threads.
const OUTBOX: usize = 64;

/// A load test that could not be run. One that ran and found a bad server is a report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The plan makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The server's address makes no sense.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A request cannot be sent as written.
    #[error("request `{name}`: {source}")]
    Request {
        /// Its name.
        name: String,
        /// What is wrong.
        #[source]
        source: EncodeError,
    },
    /// Too many connections for this machine.
    #[error(
        "{needed} connections need more file descriptors than this process may have ({limit}): raise the limit \
         (`ulimit -n`), or take fewer users"
    )]
    Descriptors {
        /// Connections.
        needed: u32,
        /// The hard limit.
        limit: u64,
    },
    /// A request of the scenario is not answered as it must be, so no load was started. All kinds' results, at least one
    /// of which did not pass; [`broken_contract`] tells about it in full.
    #[error("no load was started: {} of {} kinds of request are not answered as they must be", failed(.0), .0.len())]
    Contract(Vec<CheckResult>),
    /// Our own fault.
    #[error("a thread of the load generator failed: {0}")]
    Thread(String),
}

fn failed(results: &[CheckResult]) -> usize {
    results.iter().filter(|result| !result.passed).count()
}

/// Runs a load test to its end, or until `cancel` fires: then the report says `cancelled`, and so does its verdict.
///
/// `on_tick` is called once a second. Dropping the future ends the generator, too.
///
/// # Errors
/// [`LoadError`] if the test could not be run or the contract check failed; a server that fails under load is a report
/// with the verdict `Failed`.
pub async fn run(
    plan: LoadPlan,
    cancel: CancellationToken,
    mut on_tick: impl FnMut(&Tick) + Send,
) -> Result<LoadReport, LoadError> {
    plan.check()?;
    let items = prepare(&plan)?;
    let mut report = empty_report(&plan);
    let endpoint = tokio::select! {
        endpoint = Endpoint::resolve(&plan.target) => endpoint?,
        () = cancel.cancelled() => return Ok(stopped(report, &plan)),
    };
    if plan.contract {
        let contract =
            Contract { scenario: &plan.scenario, json_lines: &plan.json_lines, timeout: plan.request_timeout };
        let results = tokio::select! {
            results = check_contract(&plan.target, &endpoint, contract) => results?,
            () = cancel.cancelled() => return Ok(stopped(report, &plan)),
        };
        if failed(&results) > 0 {
            return Err(LoadError::Contract(results));
        }
        report.contract = results.into_iter().map(shortened).collect();
    }
    make_room(plan.connections())?;
    let threads = thread_count(&plan);
    let shared = Arc::new(Shared {
        endpoint,
        items,
        model: plan.model,
        timeline: plan.timeline(),
        request_timeout: plan.request_timeout,
        epoch: Instant::now() + HEAD_START,
        threads,
        seed: plan.seed,
    });
    let end = generate(&shared, &cancel, &mut on_tick).await?;
    report.cancelled = cancel.is_cancelled() && end.ended < shared.timeline.end;
    Ok(complete(report, &plan, end, threads))
}

/// The report of a test that was stopped before any load.
fn stopped(mut report: LoadReport, plan: &LoadPlan) -> LoadReport {
    report.cancelled = true;
    report.ended = wall_clock();
    judge(&mut report, Gates { total: &[], by_name: &plan.request_thresholds });
    report
}

/// A passed contract check is kept without the bytes.
fn shortened(mut result: CheckResult) -> CheckResult {
    result.request.clear();
    result.headers.clear();
    result.body.clear();
    result
}

fn prepare(plan: &LoadPlan) -> Result<Vec<Prepared>, LoadError> {
    let prepare_one = |item| -> Result<Prepared, LoadError> {
        let item: &crate::pipeline::types::ScenarioItem = item;
        let encoded = Encoded::new(&plan.target.base, &item.request)
            .map_err(|source| LoadError::Request { name: item.name.clone(), source })?;
        Ok(Prepared::new(encoded, plan.lines(item)?.to_vec(), item.weight, &item.expect))
    };
    plan.scenario.iter().map(prepare_one).collect()
}

fn empty_report(plan: &LoadPlan) -> LoadReport {
    let now = wall_clock();
    LoadReport {
        tool: Tool::BuiltIn,
        target: plan.target.base.to_string(),
        model: plan.model,
        started: now,
        ended: now,
        counted_seconds: 0.0,
        verdict: Verdict::Invalid,
        reasons: Vec::new(),
        notes: Vec::new(),
        thresholds: Vec::new(),
        total: RequestReport { name: "all".to_owned(), ..RequestReport::default() },
        requests: Vec::new(),
        errors: Vec::new(),
        series: Vec::new(),
        contract: Vec::new(),
        generator: None,
        cancelled: false,
    }
}

fn wall_clock() -> Micros {
    crate::clock::now()
}

fn thread_count(plan: &LoadPlan) -> u32 {
    let available = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let usual = (available / 2).clamp(1, MOST_THREADS);
    let threads = plan.threads.map_or(usual, NonZeroUsize::get).min(256);
    u32::try_from(threads).unwrap_or(1).min(plan.connections()).max(1)
}

/// Raises this process's soft limit of descriptors, if it must and may.
fn make_room(connections: u32) -> Result<(), LoadError> {
    let needed = u64::from(connections) + SPARE_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if soft >= needed {
        return Ok(());
    }
    if hard < needed || setrlimit(Resource::RLIMIT_NOFILE, needed, hard).is_err() {
        return Err(LoadError::Descriptors { needed: connections, limit: hard });
    }
    Ok(())
}

/// What the threads left behind.
struct End {
    collector: Collector,
    shares: Shares,
    /// When the last was done, in nanoseconds since load started.
    ended: u64,
}

async fn generate(
    shared: &Arc<Shared>,
    cancel: &CancellationToken,
    on_tick: &mut (impl FnMut(&Tick) + Send),
) -> Result<End, LoadError> {
    // A child that is cancelled whenever this function is left: no thread outlives the test.
    let stop = cancel.child_token();
    let guard = stop.clone().drop_guard();
    let (outbox, mut inbox) = mpsc::channel(OUTBOX);
    let handles = (0..shared.threads)
        .map(|index| spawn_thread(shared, index, outbox.clone(), stop.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    drop(outbox);
    let collector = Collector::new(shared.items.len(), shared.threads as usize, shared.timeline);
    let mut end = End { collector, shares: Shares::default(), ended: 0 };
    let mut done = 0;
    while let Some((thread, message)) = inbox.recv().await {
        match message {
            Message::Second(interval) => end.collector.add(thread as usize, interval),
            Message::Done { shares, ended } => {
                end.collector.finish(thread as usize);
                end.shares.cpu += shares.cpu / f64::from(shared.threads);
                end.shares.busy += shares.busy / f64::from(shared.threads);
                end.ended = end.ended.max(ended);
                done += 1;
            }
        }
        while let Some(tick) = end.collector.next_tick() {
            on_tick(&tick);
        }
    }
    drop(guard);
    // All have closed their end of the channel: joining does not wait.
    for handle in handles {
        match handle.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(LoadError::Thread(error.to_string())),
            Err(_) => return Err(LoadError::Thread("it panicked".to_owned())),
        }
    }
    if done == shared.threads { Ok(end) } else { Err(LoadError::Thread("it ended without its account".to_owned())) }
}

type ThreadHandle = std::thread::JoinHandle<std::io::Result<()>>;

fn spawn_thread(
    shared: &Arc<Shared>,
    index: u32,
    outbox: Outbox,
    stop: CancellationToken,
) -> Result<ThreadHandle, LoadError> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name(format!("load-{index}"))
        .spawn(move || run_thread(shared, index, &outbox, &stop))
        .map_err(|error| LoadError::Thread(error.to_string()))
}

fn complete(mut report: LoadReport, plan: &LoadPlan, end: End, threads: u32) -> LoadReport {
    let names: Vec<&str> = plan.scenario.iter().map(|item| item.name.as_str()).collect();
    let (lag_p99_ms, lag_max_ms) = (end.collector.lag_ms(0.99), end.collector.lag_ms(1.0));
    let own_failures = end.collector.own_failures();
    let results = end.collector.into_results(&names, end.ended);
    let mut facts = GeneratorFacts {
        threads,
        cpu_share: end.shares.cpu,
        busy_share: end.shares.busy,
        lag_p99_ms,
        lag_max_ms,
        own_failures,
        ..GeneratorFacts::default()
    };
    assess(&mut facts, plan.model, results.total.latency.quantile_ms(0.99));
    report.ended = wall_clock();
    report.counted_seconds = results.counted_seconds;
    report.notes = notes(&results.total, plan.model);
    report.generator = Some(facts);
    report.total = results.total;
    report.requests = results.requests;
    report.errors = results.errors;
    report.series = results.series;
    judge(&mut report, Gates { total: &plan.thresholds, by_name: &plan.request_thresholds });
    report
}
