//! What the page of a project shows. PURE.

use std::time::Duration;

use askama::Template;
use url::form_urlencoded::Serializer;

use super::stages::{self, OfBuild, StageLately};
use super::start::PARAM;
use crate::config::types::Poll;
use crate::daemon::projects::Project;
use crate::ids::{BuildId, Micros};
use crate::pipeline::types::{Param, ParamKind, Schedule};
use crate::plot::{Point, Row, Scale};
use crate::store::find::{Found, LOOKED_AT, Wanted};
use crate::store::glance::Glance;
use crate::store::triggers::{Decided, TriggerRow};
use crate::store::verdicts::Verdict;
use crate::trigger::schedule::Timetable;
use crate::web::api::models::ModelView;
use crate::web::pages::coded::Coded;
use crate::web::pages::line::Line;
use crate::web::pages::mark::Mark;
use crate::web::pages::moment::{Moment, Span};
use crate::web::pages::refused::{self, Refused};
use crate::web::pages::serving::Serving;
use crate::web::pages::shell::{Section, Shell};
use crate::words;

/// What the store knows.
pub struct Rows {
    /// The builds that were looked for.
    pub found: Found,
    /// What each of them decided about models.
    pub verdicts: Vec<Vec<Verdict>>,
    /// The stages of the newest build, in the plan's order.
    pub order: Vec<String>,
    /// They are the newest.
    pub is_first: bool,
    /// The newest builds, whatever was looked for.
    pub newest: Vec<Glance>,
    /// The attempts of the newest of them.
    pub lately: Vec<OfBuild>,
    /// What can be started.
    pub forms: Vec<PipelineForm>,
    /// What happened, with the builds that it started.
    pub heard: Vec<(Vec<BuildId>, TriggerRow)>,
    /// What the visitor asked for.
    pub asked: Option<TriggerRow>,
    /// The builds that it started.
    pub started: Vec<BuildId>,
}

/// A pipeline that can be started.
pub struct PipelineForm {
    /// Its name.
    pub pipeline: String,
    /// Its file.
    pub file: String,
    /// The branch that is built if no other is named.
    pub branch: String,
    /// When it is started by the clock.
    pub schedules: Vec<Schedule>,
    /// What it takes.
    pub params: Vec<(String, Param)>,
}

/// The page.
#[derive(Template)]
#[template(path = "project.html")]
pub struct ProjectPage {
    shell: Shell,
    name: String,
    repository: String,
    problem: Option<String>,
    asked: Option<Outcome>,
    /// What came last, if it could not be built.
    refused: Option<Refused>,
    models: Vec<ModelView>,
    serving: Vec<Serving>,
    /// Each schedule in words, and when it is next.
    schedules: Vec<(String, Option<Moment>)>,
    wanted: Fields,
    filtered: bool,
    builds: Vec<Line>,
    is_first: bool,
    older: Option<String>,
    looked_at: Option<usize>,
    chart: Option<Row>,
    /// The stage that the chart is of; of whole builds if empty.
    charted: String,
    stages: Vec<StageLately>,
    rates: Vec<(&'static str, String)>,
    can_start: bool,
    forms: Vec<Form>,
    heard: Vec<Heard>,
    setup: Vec<(&'static str, String)>,
    webhook: Option<String>,
    public_badge: bool,
    badge: String,
}

/// The filter's fields as they were filled in.
struct Fields {
    branch: String,
    actor: String,
    event: Vec<Choice>,
    status: Vec<Choice>,
    text: String,
}

struct Choice {
    value: String,
    text: String,
    chosen: bool,
}

struct Form {
    pipeline: String,
    file: String,
    branch: String,
    fields: Vec<Field>,
}

struct Field {
    name: String,
    label: String,
    help: Option<String>,
    /// `text`, `number`, or `select`.
    kind: &'static str,
    value: String,
    min: String,
    max: String,
    step: &'static str,
    required: bool,
    choices: Vec<Choice>,
}

struct Heard {
    source: &'static str,
    what: String,
    delivery: Option<u64>,
    at: Moment,
    outcome: Outcome,
}

/// What became of a trigger.
struct Outcome {
    mark: Option<Mark>,
    word: &'static str,
    reason: String,
    builds: Vec<u64>,
}

const STATES: [&str; 5] = ["queued", "running", "passed", "failed", "cancelled"];
const EVENTS: [&str; 6] = ["push", "pull_request", "tag", "release", "schedule", "manual"];

impl ProjectPage {
    /// The page of these rows.
    pub fn of(
        shell: Shell,
        project: &Project,
        wanted: &Wanted,
        rows: &Rows,
        can_start: bool,
        public_url: &str,
        now: Micros,
    ) -> Self {
        let base = public_url.trim_end_matches('/');
        let name = project.name.clone();
        let filtered = *wanted != Wanted { project: name.clone(), ..Wanted::default() };
        Self {
            repository: project.settings.repository.to_string(),
            problem: project.problem.clone(),
            asked: rows.asked.as_ref().map(|row| outcome(row, &rows.started)),
            wanted: Fields {
                branch: wanted.branch.clone().unwrap_or_default(),
                actor: wanted.actor.clone().unwrap_or_default(),
                event: choices("any event", &EVENTS, wanted.event.as_deref()),
                status: choices("any state", &STATES, wanted.status.as_deref()),
                text: wanted.text.clone().unwrap_or_default(),
            },
            filtered,
            builds: lines(rows, now),
            is_first: rows.is_first,
            older: rows.found.looked_to.map(|before| older(wanted, before)),
            looked_at: (wanted.is_scanned() && rows.found.looked_to.is_some()).then_some(LOOKED_AT),
            chart: None,
            charted: String::new(),
            stages: stages::lately(&rows.lately, &rows.order),
            refused: refused(rows, now),
            serving: Vec::new(),
            models: Vec::new(),
            schedules: schedules(&rows.forms, now),
            rates: rates(&rows.newest),
            can_start,
            forms: rows.forms.iter().map(form).collect(),
            heard: rows.heard.iter().map(|(builds, row)| heard(row, builds, now)).collect(),
            setup: setup(project),
            webhook: project.webhook_secret.is_some().then(|| format!("{base}/hooks/github")),
            public_badge: project.settings.public_badge,
            badge: format!("[![build]({base}/api/v1/projects/{name}/badge.svg)]({base}/projects/{name})"),
            shell,
            name,
        }
    }

    /// With the models that it trains, and what of them serves.
    pub fn with_models(self, models: Vec<ModelView>, serving: Vec<Serving>) -> Self {
        Self { models, serving, ..self }
    }

    /// With the chart of a stage, or of whole builds.
    pub fn charted(self, rows: &Rows, stage: &str) -> Self {
        let known = self.stages.iter().any(|one| one.node == stage);
        let of_stage = if known { stages::durations(&rows.lately, stage) } else { None };
        let charted = if known { stage.to_owned() } else { String::new() };
        Self { chart: of_stage.or_else(|| chart(&rows.newest)), charted, ..self }
    }
}

fn lines(rows: &Rows, now: Micros) -> Vec<Line> {
    let verdicts = rows.verdicts.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
    rows.found.builds.iter().zip(verdicts).map(|(row, verdicts)| Line::of(row, now).judged(verdicts)).collect()
}

/// What came last, if it could not be built: until the next thing comes, that is what one has to know.
fn refused(rows: &Rows, now: Micros) -> Option<Refused> {
    let (_, last) = rows.heard.first()?;
    (last.decision == Some(Decided::Failed) && rows.asked.is_none()).then(|| Refused::of(last, now))
}

/// The schedules of the newest pipelines. What cannot be kept is told where it was pushed.
fn schedules(forms: &[PipelineForm], now: Micros) -> Vec<(String, Option<Moment>)> {
    let zones = jiff::tz::db();
    let of = |schedule: &Schedule| {
        let next = Timetable::new(schedule, zones).ok().and_then(|table| table.next_after(now));
        let branch = schedule.branch.as_deref().map(|branch| format!(" on {branch}")).unwrap_or_default();
        (format!("{} {}{branch}", schedule.cron, schedule.timezone), next.map(|at| Moment::of(at, now)))
    };
    forms.iter().flat_map(|form| &form.schedules).map(of).collect()
}

fn choices(any: &str, values: &[&str], chosen: Option<&str>) -> Vec<Choice> {
    let none = Choice { value: String::new(), text: any.to_owned(), chosen: chosen.is_none() };
    let choice = |value: &&str| Choice {
        value: (*value).to_owned(),
        text: value.replace('_', " "),
        chosen: chosen == Some(*value),
    };
    std::iter::once(none).chain(values.iter().map(choice)).collect()
}

/// The query of the next page.
fn older(wanted: &Wanted, before: BuildId) -> String {
    let mut query = Serializer::new(String::new());
    let fields = [
        ("branch", &wanted.branch),
        ("status", &wanted.status),
        ("event", &wanted.event),
        ("actor", &wanted.actor),
        ("text", &wanted.text),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.append_pair("before", &before.0.to_string());
    query.finish()
}

/// How long the newest builds took, the oldest first.
fn chart(newest: &[Glance]) -> Option<Row> {
    let took = |row: &Glance| Some(row.ended_at?.since(row.started_at?).as_secs_f64());
    let ended: Vec<(&Glance, f64)> = newest.iter().rev().filter_map(|row| Some((row, took(row)?))).collect();
    let (first, last) = (ended.first()?, ended.last()?);
    if ended.len() < 3 {
        return None;
    }
    let time = |seconds: f64| words::duration(Duration::from_secs_f64(seconds.max(0.0)));
    let point = |(row, seconds): &(&Glance, f64)| {
        let mark = Mark::build(row.status, false);
        Point {
            value: *seconds,
            shape: mark.shape,
            joined: mark.shape == "passed",
            title: format!("{} {}, {}", row.id, mark.word, time(*seconds)),
            link: format!("/builds/{}", row.id.0),
        }
    };
    Some(Row {
        label: format!(
            "Durations of the last {} builds, the newest {}; a list with all of them is on this page",
            ended.len(),
            time(last.1)
        ),
        points: ended.iter().map(point).collect(),
        scale: Scale::FromZero,
        number: |seconds| words::duration(Duration::from_secs_f64(seconds.max(0.0))),
        ends: (first.0.id.to_string(), last.0.id.to_string()),
    })
}

fn rates(newest: &[Glance]) -> Vec<(&'static str, String)> {
    let count = |word: &str| newest.iter().filter(|row| row.status.word() == word).count();
    let (passed, failed) = (count("passed"), count("failed"));
    let mut rates = Vec::new();
    if passed + failed > 0 {
        let share = passed as f64 / (passed + failed) as f64 * 100.0;
        rates.push(("passed", format!("{share:.0} % of the last {}", passed + failed)));
    }
    let pipeline = newest.first().map(|row| row.pipeline.as_str()).unwrap_or_default();
    if let Some(usual) = crate::web::pages::line::usual(newest, pipeline) {
        rates.push(("usual time", Span::over(usual).words()));
    }
    rates
}

fn form(form: &PipelineForm) -> Form {
    Form {
        pipeline: form.pipeline.clone(),
        file: form.file.clone(),
        branch: form.branch.clone(),
        fields: form.params.iter().map(|(name, param)| field(name, param)).collect(),
    }
}

fn field(name: &str, param: &Param) -> Field {
    let text = |number: Option<String>| number.unwrap_or_default();
    let plain = Field {
        name: format!("{PARAM}{name}"),
        label: name.to_owned(),
        help: param.description.clone(),
        kind: "text",
        value: String::new(),
        min: String::new(),
        max: String::new(),
        step: "any",
        required: false,
        choices: Vec::new(),
    };
    match &param.kind {
        ParamKind::String { default } => {
            Field { value: default.clone().unwrap_or_default(), required: default.is_none(), ..plain }
        }
        ParamKind::Integer { default, min, max } => Field {
            kind: "number",
            value: text(default.map(|number| number.to_string())),
            min: text(min.map(|number| number.to_string())),
            max: text(max.map(|number| number.to_string())),
            step: "1",
            required: default.is_none(),
            ..plain
        },
        ParamKind::Number { default, min, max } => Field {
            kind: "number",
            value: text(default.map(|number| number.to_string())),
            min: text(min.map(|number| number.to_string())),
            max: text(max.map(|number| number.to_string())),
            required: default.is_none(),
            ..plain
        },
        ParamKind::Boolean { default } => {
            let chosen = default.map(|flag| flag.to_string());
            select(plain, &["true".to_owned(), "false".to_owned()], chosen.as_deref())
        }
        ParamKind::Choice { default, choices } => select(plain, choices, default.as_deref()),
    }
}

fn select(field: Field, values: &[String], chosen: Option<&str>) -> Field {
    let choices =
        values.iter().map(|value| Choice { value: value.clone(), text: value.clone(), chosen: chosen == Some(value) });
    Field { kind: "select", choices: choices.collect(), ..field }
}

fn heard(row: &TriggerRow, builds: &[BuildId], now: Micros) -> Heard {
    Heard {
        source: row.source.word(),
        what: refused::what(&row.subject, row.identity.as_deref()),
        delivery: row.delivery,
        at: Moment::of(row.received_at, now),
        outcome: outcome(row, builds),
    }
}

fn outcome(row: &TriggerRow, builds: &[BuildId]) -> Outcome {
    let mark = row.decision.map(|decision| match decision {
        Decided::Started => Mark { shape: "passed", word: "started" },
        Decided::Awaiting => Mark { shape: "held", word: "waits for approval" },
        Decided::Skipped => Mark { shape: "skipped", word: "skipped" },
        Decided::Ignored => Mark { shape: "skipped", word: "ignored" },
        Decided::Duplicate => Mark { shape: "reused", word: "duplicate" },
        Decided::Cancelled => Mark { shape: "cancelled", word: "ended builds" },
        Decided::Failed => Mark { shape: "failed", word: "not possible" },
    });
    Outcome {
        word: mark.map_or("being looked at", |mark| mark.word),
        mark,
        reason: row.reason.clone(),
        builds: builds.iter().map(|id| id.0).collect(),
    }
}

fn setup(project: &Project) -> Vec<(&'static str, String)> {
    let settings = &project.settings;
    let poll = match settings.poll {
        Poll::Off => "by webhooks alone".to_owned(),
        Poll::Watch => "watched".to_owned(),
        Poll::Every(every) => format!("looked at every {} s", every.as_secs()),
    };
    vec![
        ("Repository", poll),
        ("Branches", if settings.branches.is_empty() { "all".to_owned() } else { settings.branches.join(", ") }),
        ("Pipelines", settings.pipeline.join(", ")),
        ("Builds at once", settings.max_builds.to_string()),
        ("Local runner", if settings.trusted { "allowed" } else { "not allowed" }.to_owned()),
    ]
}
