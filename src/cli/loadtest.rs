//! `orchestrator loadtest URL`: the built-in load engine by itself, with a live view.
//!
//! Standard output is the result (a table, or JSON with `--json`); everything on the way goes to standard error.

mod credentials;
mod table;
mod view;

use std::io::{IsTerminal, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use indexmap::IndexMap;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::text;
use crate::load::contract::broken_contract;
use crate::load::engine::{LoadError, run as run_load};
use crate::load::plan::{JsonLines, LoadPlan, MAX_JSON_LINES_BYTES, split_json_lines};
use crate::load::report::{LoadModel, LoadReport, Verdict};
use crate::load::target::Target;
use crate::load::threshold::{parse_duration, parse_rate, parse_threshold};
use crate::load::trust::Trust;
use crate::load::{checks::CheckResult, html};
use crate::logs::Quotes;
use crate::pipeline::types::{Body, Expect, HttpRequest, ScenarioItem, Threshold};

/// Exit codes as documented for all commands.
const PASSED: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const CANCELLED: i32 = 130;

/// Put load on a web address and judge what comes back
///
/// First one request must be answered well; then load starts. Without `--rate` it is the closed model: each user waits for
/// its answer before it sends again. With `--rate` requests are sent at their times whatever comes back, and latency counts
/// from the time a request was due, so a stalled server is seen.
///
/// The verdict is passed, failed or invalid. Failures are judged first (at most 1 %, unless a threshold says otherwise);
/// latency is that of good answers. It is invalid if the generator could not keep up or too few answers carry a percentile.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 passed, 1 failed or invalid, 2 usage, 130 interrupted.\n\nExamples:\n  \
    orchestrator loadtest http://localhost:8000/healthz --users 50 --duration 30s\n  \
    orchestrator loadtest http://localhost:8000/predict --data '{\"Goals\": 20}' --rate 200/s \\\n      \
    --threshold 'p95<200ms' --threshold 'failure_rate<0.1%' --html report.html")]
pub struct LoadtestArgs {
    /// What to load: http or https, with path and query; `user:password@` is sent as basic authorization, and never shown
    #[arg(value_name = "URL", value_parser = parse_url)]
    pub url: Url,

    /// Method: GET, or POST with a body
    #[arg(short, long, value_name = "METHOD")]
    pub method: Option<String>,

    /// A header; can be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub headers: Vec<(String, String)>,

    /// Body of each request; sent as JSON if it is JSON
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["data_file", "data_lines"])]
    pub data: Option<String>,

    /// File with the body of each request (`-` for standard input)
    #[arg(long, value_name = "FILE", conflicts_with = "data_lines")]
    pub data_file: Option<PathBuf>,

    /// File with one JSON document a line: each request takes the next one as its body
    #[arg(long, value_name = "FILE")]
    pub data_lines: Option<PathBuf>,

    /// Status that a good answer has; any 2xx otherwise
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u16).range(200..600))]
    pub expect_status: Option<u16>,

    /// Users that each wait for their answer (closed model)
    #[arg(short, long, value_name = "N", default_value_t = 10, conflicts_with = "rate")]
    pub users: u32,

    /// Requests a second, like `200/s`, sent whatever comes back (open model)
    #[arg(short, long, value_name = "RATE", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// With a rate: what is due while this many requests are unanswered is dropped, and counts as failed
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "rate")]
    pub max_in_flight: u32,

    /// How long load is counted
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Full load before counting starts
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// Time from no load to full load; not counted
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub ramp_up: Duration,

    /// Time for one answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// What must hold: failure_rate, p50 to p99.99, max or rps; can be given several times
    #[arg(short, long = "threshold", value_name = "METRIC<LIMIT", value_parser = parse_threshold)]
    pub thresholds: Vec<Threshold>,

    /// File with PEM certificates: believe what these have signed, and these, instead of the system's authorities
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,

    /// Believe any certificate
    #[arg(long, conflicts_with = "ca_cert")]
    pub insecure: bool,

    /// Start load without trying one request first
    #[arg(long)]
    pub no_contract: bool,

    /// Threads of the generator; half of the processors otherwise
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Print the whole report as JSON
    #[arg(long)]
    pub json: bool,

    /// Write the report as one HTML file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}: write it like http://localhost:8000/predict"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("it must start with http:// or https://".to_owned()),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it like `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Runs the command; the exit code is 0 for passed, 1 for failed or invalid, 2 for a wrong command line, 130 if interrupted.
///
/// # Errors
/// If files cannot be read or written, or the test could not be run at all.
pub async fn run(args: Box<LoadtestArgs>) -> anyhow::Result<i32> {
    let (plan, quotes) = make_plan(&args)?;
    if let Err(error) = plan.check() {
        anstream::eprintln!("error: {error}");
        return Ok(USAGE);
    }
    let cancel = CancellationToken::new();
    let guard = cancel.clone().drop_guard();
    let mut view = view::View::new(&plan, args.json);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let load = run_load(plan, cancel.clone(), |tick| view.tick(tick));
    tokio::pin!(load);
    let mut stop = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let ended = tokio::select! {
        ended = &mut load => ended,
        // From here on a second signal ends the program in the usual way only if nobody waits for it: so it is waited for.
        () = stop() => {
            cancel.cancel();
            tokio::select! {
                ended = &mut load => ended,
                () = stop() => return Ok(CANCELLED),
            }
        }
    };
    drop(guard);
    match ended {
        Ok(mut report) => {
            credentials::hide(&mut report, &quotes);
            finish(&args, &report)
        }
        Err(LoadError::Contract(mut results)) => {
            credentials::hide_checks(&mut results, &quotes);
            refuse(&args, &results)
        }
        Err(error @ (LoadError::Plan(_) | LoadError::Request { .. })) => {
            anstream::eprintln!("error: {error}");
            Ok(USAGE)
        }
        Err(error @ (LoadError::Target(_) | LoadError::Descriptors { .. } | LoadError::Thread(_))) => Err(error.into()),
    }
}

/// What is to be done, and what of it must not be shown.
fn make_plan(args: &LoadtestArgs) -> anyhow::Result<(LoadPlan, Quotes)> {
    let mut json_lines = JsonLines::new();
    let body = body(args, &mut json_lines)?;
    let method = args.method.clone().map_or_else(
        || if matches!(body, Body::None) { "GET".to_owned() } else { "POST".to_owned() },
        |method| method.to_ascii_uppercase(),
    );
    let (mut base, login) = credentials::split(&args.url)?;
    base.set_path("");
    base.set_query(None);
    base.set_fragment(None);
    let query = args.url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut headers = headers(args);
    if let Some(login) = &login
        && !headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"))
    {
        headers.insert("authorization".to_owned(), login.header());
    }
    let quotes = credentials::quotes(login.as_ref(), headers.iter());
    let path = format!("{}{query}", args.url.path());
    let request = HttpRequest { method: method.clone(), path, headers, body };
    let scenario = vec![ScenarioItem {
        name: format!("{method} {}", args.url.path()),
        request,
        weight: 1,
        expect: Expect { status: args.expect_status, ..Expect::default() },
    }];
    let trust = match &args.ca_cert {
        Some(path) => Trust::Only(certificates(path)?),
        None if args.insecure => Trust::Anyone,
        None => Trust::System,
    };
    let model = match args.rate {
        Some(per_second) => LoadModel::Open { per_second, max_in_flight: args.max_in_flight },
        None => LoadModel::Closed { users: args.users },
    };
    let plan = LoadPlan {
        target: Target { trust, ..Target::new(base) },
        scenario,
        json_lines,
        model,
        ramp_up: args.ramp_up,
        warmup: args.warmup,
        duration: args.duration,
        request_timeout: args.timeout,
        thresholds: args.thresholds.clone(),
        request_thresholds: IndexMap::new(),
        contract: !args.no_contract,
        threads: args.threads,
        seed: 0,
    };
    Ok((plan, quotes))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let text = read_file(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| anyhow::anyhow!("`{shown}` is not a file of PEM certificates: {error}"))?;
    anyhow::ensure!(!found.is_empty(), "`{shown}` holds no PEM certificate (`-----BEGIN CERTIFICATE-----`)");
    Ok(found)
}

/// What was given, and that JSON is JSON.
fn headers(args: &LoadtestArgs) -> IndexMap<String, String> {
    let mut headers: IndexMap<String, String> = args.headers.iter().cloned().collect();
    let given =
        |headers: &IndexMap<String, String>, name: &str| headers.keys().any(|key| key.eq_ignore_ascii_case(name));
    let is_json = args.data.as_deref().is_some_and(|data| serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok());
    if is_json && !given(&headers, "content-type") {
        headers.insert("content-type".to_owned(), "application/json".to_owned());
    }
    headers
}

fn body(args: &LoadtestArgs, json_lines: &mut JsonLines) -> anyhow::Result<Body> {
    if let Some(data) = &args.data {
        return Ok(Body::Text(data.clone()));
    }
    if let Some(path) = &args.data_file {
        let text =
            String::from_utf8(read_file(path)?).with_context(|| format!("`{}` is not UTF-8 text", path.display()))?;
        return Ok(Body::Text(text));
    }
    if let Some(path) = &args.data_lines {
        let name = path.display().to_string();
        let lines = split_json_lines(&name, &Bytes::from(read_file(path)?))?;
        json_lines.insert(name.clone(), lines);
        return Ok(Body::JsonLines(name));
    }
    Ok(Body::None)
}

/// Reads a file, or standard input, up to the cap for request bodies and a byte more, so that more is noticed.
fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    let most = MAX_JSON_LINES_BYTES as u64 + 1;
    let mut content = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut content).context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
        file.take(most).read_to_end(&mut content).with_context(|| format!("cannot read `{}`", path.display()))?;
    }
    anyhow::ensure!(content.len() <= MAX_JSON_LINES_BYTES, "`{}` is too large for request bodies", path.display());
    Ok(content)
}

fn finish(args: &LoadtestArgs, report: &LoadReport) -> anyhow::Result<i32> {
    if let Some(path) = &args.html {
        std::fs::write(path, html::render(report)).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if args.json {
        print_json(&serde_json::to_value(report)?)?;
    } else {
        text::print(&table::render(report))?;
        if let Some(path) = &args.html {
            anstream::eprintln!("report: {}", path.display());
        }
    }
    Ok(match report.verdict {
        Verdict::Passed => PASSED,
        Verdict::Failed | Verdict::Invalid if report.cancelled => CANCELLED,
        Verdict::Failed | Verdict::Invalid => FAILED,
    })
}

/// No load was started: the answer that stopped it is the result.
fn refuse(args: &LoadtestArgs, results: &[CheckResult]) -> anyhow::Result<i32> {
    let reason = broken_contract(results).unwrap_or_default();
    if args.json {
        let verdict = Verdict::Failed.word();
        print_json(&serde_json::json!({ "verdict": verdict, "reasons": [reason], "contract": results }))?;
    } else {
        text::print(&format!("{}\n{reason}\n", table::verdict(Verdict::Failed)))?;
    }
    Ok(FAILED)
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    let pretty = std::io::stdout().is_terminal();
    let json = if pretty { serde_json::to_string_pretty(value)? } else { value.to_string() };
    text::print(&format!("{json}\n"))
}
