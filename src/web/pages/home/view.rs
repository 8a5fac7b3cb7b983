//! What the first page shows. PURE.

use std::sync::Arc;

use askama::Template;

use crate::config::repository::Repository;
use crate::config::types::Poll;
use crate::daemon::projects::Project;
use crate::ids::Micros;
use crate::store::deployments::{DeploymentRow, DeploymentStatus};
use crate::store::glance::Glance;
use crate::web::pages::coded::Coded;
use crate::web::pages::line::{Line, Strip, usual};
use crate::web::pages::mark::Mark;
use crate::web::pages::moment::{Moment, Span};
use crate::web::pages::shell::{Section, Shell};

/// What the store knows.
pub struct Rows {
    /// Builds under way.
    pub running: Vec<Glance>,
    /// Builds that wait, and for what.
    pub waiting: Vec<(Glance, String)>,
    /// Why the queue is paused, if it is.
    pub paused: Option<String>,
    /// In the order of the projects.
    pub projects: Vec<ProjectRows>,
    /// What serves, or is being started.
    pub serving: Vec<DeploymentRow>,
}

/// What the store knows of a project.
pub struct ProjectRows {
    /// The newest first.
    pub builds: Vec<Glance>,
    /// Why the newest that ended failed.
    pub failure: Option<Failure>,
    /// Why what came last could not even begin.
    pub refused: Option<String>,
}

/// What failed first.
#[derive(Debug, Clone)]
pub struct Failure {
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
    paused: Option<String>,
    projects: Vec<Card>,
    serving: Vec<Serving>,
    webhook: String,
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
    refused: Option<String>,
    problem: Option<String>,
    /// What makes its first build, in words.
    first: String,
}

struct Serving {
    model: String,
    version: u64,
    port: u16,
    mark: Mark,
    since: Moment,
}

impl HomePage {
    /// The page of these rows.
    pub fn of(shell: Shell, projects: &[Arc<Project>], rows: &Rows, public_url: &str, now: Micros) -> Self {
        let of_project = |name: &str| {
            let at = projects.iter().position(|project| project.name == name);
            at.and_then(|at| rows.projects.get(at)).map_or(&[][..], |rows| &rows.builds)
        };
        let running = rows.running.iter().map(|row| running(row, of_project(&row.project), now));
        let waiting = rows.waiting.iter().map(|(row, why)| (Line::of(row, now), why.clone()));
        let cards = projects.iter().zip(&rows.projects).map(|(project, rows)| card(project, rows, now));
        let serving = rows.serving.iter().map(|row| Serving {
            model: row.model.clone(),
            version: row.version,
            port: row.port,
            mark: serves(row.status),
            since: Moment::of(row.since, now),
        });
        Self {
            shell,
            running: running.collect(),
            waiting: waiting.collect(),
            paused: rows.paused.clone(),
            projects: cards.collect(),
            serving: serving.collect(),
            webhook: format!("{}/hooks/github", public_url.trim_end_matches('/')),
        }
    }
}

fn serves(status: DeploymentStatus) -> Mark {
    match status {
        DeploymentStatus::Live => Mark { shape: "passed", word: "live" },
        DeploymentStatus::Starting => Mark { shape: "running", word: "starting" },
        DeploymentStatus::Stopped => Mark { shape: "cancelled", word: "stopped" },
        DeploymentStatus::Failed => Mark { shape: "failed", word: "failed" },
    }
}

fn running(row: &Glance, others: &[Glance], now: Micros) -> Running {
    let usual = usual(others, &row.pipeline).filter(|usual| !usual.is_zero());
    let so_far = row.started_at.map(|from| now.since(from)).unwrap_or_default();
    let share = usual.map(|usual| (so_far.as_secs_f64() / usual.as_secs_f64() * 100.0).min(100.0) as u32);
    let left = usual.map(|usual| match usual.checked_sub(so_far) {
        Some(left) if left.as_secs() > 0 => format!("about {} left", crate::words::duration(left)),
        _ => format!("usually {}", crate::words::duration(usual)),
    });
    Running { line: Line::of(row, now), share, left }
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
        last: rows.builds.first().map(|row| Line::of(row, now)),
        strip: Strip::of(&rows.builds, super::STRIP, now),
        usual: usual(&rows.builds, pipeline).map(Span::over),
        passed: ended.iter().filter(|row| row.status.word() == "passed").count(),
        ended: ended.len(),
        failure: rows.failure.clone(),
        refused: rows.refused.clone(),
        problem: project.problem.clone(),
        first,
    }
}
