//! What the first page shows. PURE.

use std::path::Path;
use std::sync::Arc;

use askama::Template;
use url::{Host, Url};

use crate::config::repository::Repository;
use crate::config::types::Poll;
use crate::daemon::projects::Project;
use crate::ids::Micros;
use crate::store::glance::Glance;
use crate::store::triggers::TriggerRow;
use crate::store::verdicts::{Held, Verdict};
use crate::web::pages::coded::Coded;
use crate::web::pages::line::{Line, Strip, usual};
use crate::web::pages::mark::Mark;
use crate::web::pages::moment::Span;
use crate::web::pages::refused::Refused;
use crate::web::pages::serving::Serving;
use crate::web::pages::shell::{Section, Shell};

/// What the store knows.
pub struct Rows {
    /// Builds under way, and whether a stage of theirs has failed.
    pub running: Vec<(Glance, bool)>,
    /// Builds that wait, and for what.
    pub waiting: Vec<(Glance, String)>,
    /// Why the queue is paused, if it is.
    pub paused: Option<String>,
    /// Versions that a person has to decide about.
    pub held: Vec<Held>,
    /// In the order of the projects.
    pub projects: Vec<ProjectRows>,
}

/// What the store knows of a project.
pub struct ProjectRows {
    /// The newest first.
    pub builds: Vec<Glance>,
    /// Why the newest that ended failed.
    pub failure: Option<Failure>,
    /// What came last, if it could not even begin.
    pub refused: Option<TriggerRow>,
    /// What the newest one decided about models.
    pub verdicts: Vec<Verdict>,
}

/// What failed first.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The build.
    pub build: u64,
    /// The stage.
    pub stage: String,
    /// Why.
    pub message: String,
}

/// The page.
#[derive(Template)]
#[template(path = "home.html")]
pub struct HomePage {
    shell: Shell,
    running: Vec<Running>,
    waiting: Vec<(Line, String)>,
    held: Vec<Held>,
    paused: Option<String>,
    projects: Vec<Card>,
    serving: Vec<Serving>,
    webhook: String,
    /// Only this machine can reach it there.
    is_near: bool,
    /// The configuration's file.
    config: String,
}

struct Running {
    line: Line,
    /// How far it is, in hundredths of the usual time; none if nothing is known.
    share: Option<u32>,
    /// What is left, in words.
    left: Option<String>,
}

struct Card {
    name: String,
    repository: String,
    last: Option<Line>,
    strip: Strip,
    usual: Option<Span>,
    passed: usize,
    ended: usize,
    failure: Option<Failure>,
    refused: Option<Refused>,
    problem: Option<String>,
    /// What makes its first build, in words.
    first: String,
}

/// Where the daemon is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What browsers and GitHub are told.
    pub public_url: &'a str,
    /// The configuration's file.
    pub config: Option<&'a Path>,
}

/// Whether an address is one that only this machine, or its own network, reaches.
fn is_near(url: &str) -> bool {
    let host = Url::parse(url).ok().and_then(|url| url.host().map(|host| host.to_owned()));
    match host {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unique_local(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

impl HomePage {
    /// The page of these rows.
    pub fn of(
        shell: Shell,
        projects: &[Arc<Project>],
        rows: &Rows,
        serving: Vec<Serving>,
        place: Place<'_>,
        now: Micros,
    ) -> Self {
        let of_project = |name: &str| {
            let at = projects.iter().position(|project| project.name == name);
            at.and_then(|at| rows.projects.get(at)).map_or(&[][..], |rows| &rows.builds)
        };
        let running = rows.running.iter().map(|(row, bad)| running(row, *bad, of_project(&row.project), now));
        let waiting = rows.waiting.iter().map(|(row, why)| (Line::of(row, now), why.clone()));
        let cards = projects.iter().zip(&rows.projects).map(|(project, rows)| card(project, rows, now));
        Self {
            shell,
            running: running.collect(),
            waiting: waiting.collect(),
            paused: rows.paused.clone(),
            held: rows.held.clone(),
            projects: cards.collect(),
            serving,
            webhook: format!("{}/hooks/github", place.public_url.trim_end_matches('/')),
            is_near: is_near(place.public_url),
            config: place.config.map_or("orchestrator.toml".to_owned(), |path| path.display().to_string()),
        }
    }
}

fn running(row: &Glance, failing: bool, others: &[Glance], now: Micros) -> Running {
    let usual = usual(others, &row.pipeline).filter(|usual| !usual.is_zero());
    let so_far = row.started_at.map(|from| now.since(from)).unwrap_or_default();
    let share = usual.map(|usual| (so_far.as_secs_f64() / usual.as_secs_f64() * 100.0).min(100.0) as u32);
    let left = usual.map(|usual| match usual.checked_sub(so_far) {
        Some(left) if left.as_secs() > 0 => format!("about {} left", crate::words::duration(left)),
        _ => format!("usually {}", crate::words::duration(usual)),
    });
    Running { line: Line { failing, ..Line::of(row, now) }, share, left }
}

fn card(project: &Project, rows: &ProjectRows, now: Micros) -> Card {
    let ended: Vec<&Glance> = rows.builds.iter().filter(|row| row.status.is_terminal()).collect();
    let pipeline = rows.builds.first().map(|row| row.pipeline.as_str()).unwrap_or_default();
    let settings = &project.settings;
    let first = match (&settings.repository, settings.poll) {
        (Repository::Local(_), Poll::Watch) => "commit to the repository: it is watched".to_owned(),
        (_, Poll::Every(every)) => format!("push a commit: the repository is looked at every {} s", every.as_secs()),
        (Repository::Local(_) | Repository::Remote(_), Poll::Off | Poll::Watch) if project.webhook_secret.is_some() => {
            "push a commit, once the webhook is set up".to_owned()
        }
        (Repository::Local(_) | Repository::Remote(_), Poll::Off | Poll::Watch) => "start one by hand".to_owned(),
    };
    Card {
        name: project.name.clone(),
        repository: settings.repository.to_string(),
        last: rows.builds.first().map(|row| Line::of(row, now).judged(&rows.verdicts)),
        strip: Strip::of(&rows.builds, super::STRIP, now),
        usual: usual(&rows.builds, pipeline).map(Span::over),
        passed: ended.iter().filter(|row| row.status.word() == "passed").count(),
        ended: ended.len(),
        failure: rows.failure.clone(),
        refused: rows.refused.as_ref().map(|row| Refused::of(row, now)),
        problem: project.problem.clone(),
        first,
    }
}
