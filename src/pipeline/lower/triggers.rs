//! `on`, `concurrency` and `params`.

use indexmap::IndexMap;
use jiff::tz::{TimeZoneDatabase, TimeZoneName};

use super::Cx;
use crate::pipeline::cron::Cron;
use crate::pipeline::diagnostic::{Diagnostic, did_you_mean, shown};
use crate::pipeline::params::{self, ParamValue};
use crate::pipeline::raw;
use crate::pipeline::substitute;
use crate::pipeline::tree::At;
use crate::pipeline::types::{Concurrency, Param, ParamKind, PullRequestTrigger, PushTrigger, Schedule, Triggers};

pub(super) fn on(raw: Option<&raw::On>, at: At<'_>, cx: &mut Cx<'_>) -> Option<Triggers> {
    let Some(raw) = raw else {
        return Some(Triggers {
            push: Some(PushTrigger::default()),
            pull_request: Some(PullRequestTrigger::default()),
            schedule: Vec::new(),
        });
    };
    let schedule = raw.schedule.iter().enumerate().map(|(index, line)| {
        let at = at.get("schedule").item(index);
        let cron = line.cron.clone()?;
        if let Err(problem) = cron_problem(&cron) {
            cx.push(
                Diagnostic::error("bad-cron", at.get("cron").span(), format!("`{}`: {problem}", shown(&cron)))
                    .help("five fields: minute, hour, day of month, month, day of week, like `0 3 * * *`"),
            );
        }
        let timezone = line.timezone.clone().unwrap_or_else(|| "UTC".to_owned());
        if TimeZoneDatabase::bundled().get(&timezone).is_err() {
            let message = format!("`{}` is not the name of a time zone", shown(&timezone));
            // Looking for what was meant takes a while: a file full of wrong names is told so without it.
            let zones = TimeZoneDatabase::bundled();
            let names: Vec<_> = zones.available().collect();
            let meant = (index < 8).then(|| did_you_mean(&timezone, names.iter().map(TimeZoneName::as_str))).flatten();
            let help =
                meant.unwrap_or_else(|| "use a name of the IANA list, like `Europe/Berlin`, or `UTC`".to_owned());
            cx.push(Diagnostic::error("bad-timezone", at.get("timezone").span(), message).help(help));
        }
        Some(Schedule { cron, timezone, branch: line.branch.clone() })
    });
    let schedule: Option<Vec<Schedule>> = schedule.collect();
    Some(Triggers {
        push: raw.push.as_ref().map(|push| PushTrigger {
            branches: push.branches.as_ref().map(|branches| globs(branches)),
            tags: globs(&push.tags),
            paths: globs(&push.paths),
            paths_ignore: globs(&push.paths_ignore),
        }),
        pull_request: raw.pull_request.as_ref().map(|pull_request| PullRequestTrigger {
            branches: globs(&pull_request.branches),
            paths: globs(&pull_request.paths),
            paths_ignore: globs(&pull_request.paths_ignore),
        }),
        schedule: schedule?,
    })
}

pub(super) fn globs(raw: &[raw::Glob]) -> Vec<String> {
    raw.iter().map(|glob| glob.0.clone()).collect()
}

pub(super) fn concurrency(raw: &raw::Concurrency, at: At<'_>, cx: &mut Cx<'_>) -> Option<Concurrency> {
    let group = cx.template_with(raw.group.as_ref()?, at.get("group"), &["branch", "event"]);
    Some(Concurrency { group, cancel_superseded: raw.cancel_superseded })
}

pub(super) fn params(
    raw: &IndexMap<String, raw::Param>,
    at: At<'_>,
    cx: &mut Cx<'_>,
) -> Option<IndexMap<String, Param>> {
    let mut variables: IndexMap<String, &str> = IndexMap::new();
    let mut good = true;
    let mut made = IndexMap::new();
    for (name, raw) in raw {
        let here = at.get(name);
        let variable = substitute::variable("PARAM", name);
        if let Some(other) = variables.insert(variable.clone(), name) {
            let message = format!("`{name}` and `{other}` would both be the variable `{variable}`");
            cx.push(
                Diagnostic::error("same-variable", here.key_span(), message)
                    .related(at.get(other).key_span(), "the other one")
                    .help("rename one of them"),
            );
        }
        match param(name, raw, here, cx) {
            Some(param) => {
                made.insert(name.clone(), param);
            }
            None => good = false,
        }
    }
    good.then_some(made)
}

fn param(name: &str, raw: &raw::Param, at: At<'_>, cx: &mut Cx<'_>) -> Option<Param> {
    let kind = raw.r#type?;
    let numeric = matches!(kind, raw::ParamType::Integer | raw::ParamType::Number);
    for (key, given) in [("min", raw.min.is_some()), ("max", raw.max.is_some())] {
        if given && !numeric {
            let message = format!("`{key}` only has a meaning for `integer` and `number`");
            cx.push(Diagnostic::error("no-meaning-here", at.get(key).key_span(), message).help("remove it"));
        }
    }
    if raw.min.zip(raw.max).is_some_and(|(min, max)| min > max) {
        cx.push(Diagnostic::error("out-of-range", at.get("max").span(), "`max` is less than `min`"));
    }
    if kind == raw::ParamType::Choice && raw.choices.is_empty() {
        let diagnostic =
            Diagnostic::error("missing-key", at.key_span(), "a parameter of type `choice` needs `choices`");
        cx.push(diagnostic.help("write `choices: [a, b]`"));
        return None;
    }
    if kind != raw::ParamType::Choice && at.get("choices").exists() {
        let help = "write `type: choice`, or remove it";
        let diagnostic =
            Diagnostic::error("no-meaning-here", at.get("choices").key_span(), "`choices` needs `type: choice`");
        cx.push(diagnostic.help(help));
    }
    let whole = |key: &str, value: Option<f64>, cx: &mut Cx<'_>| {
        let bound = value?;
        if bound.fract() != 0.0 || bound.abs() > 9e15 {
            let message = format!("`{key}` of an `integer` must be a whole number");
            cx.push(Diagnostic::error("wrong-type", at.get(key).span(), message));
        }
        Some(bound as i64)
    };
    let choices: Vec<String> = raw.choices.iter().map(|choice| choice.0.clone()).collect();
    let without = match kind {
        raw::ParamType::String => ParamKind::String { default: None },
        raw::ParamType::Boolean => ParamKind::Boolean { default: None },
        raw::ParamType::Number => ParamKind::Number { default: None, min: raw.min, max: raw.max },
        raw::ParamType::Choice => ParamKind::Choice { default: None, choices },
        raw::ParamType::Integer => {
            let (min, max) = (whole("min", raw.min, cx), whole("max", raw.max, cx));
            ParamKind::Integer { default: None, min, max }
        }
    };
    let description = raw.description.clone();
    let Some(default) = &raw.default else { return Some(Param { kind: without, description }) };
    match params::read(&without, &default.0) {
        Ok(value) => Some(Param { kind: with_default(without, value), description }),
        Err(problem) => {
            let message = format!("the default of `{name}` {problem}");
            cx.push(Diagnostic::error("bad-default", at.get("default").span(), message));
            None
        }
    }
}

/// Puts a value that was read for this very kind into it.
fn with_default(kind: ParamKind, value: ParamValue) -> ParamKind {
    match (kind, value) {
        (ParamKind::String { .. }, ParamValue::String(text)) => ParamKind::String { default: Some(text) },
        (ParamKind::Choice { choices, .. }, ParamValue::String(text)) => {
            ParamKind::Choice { default: Some(text), choices }
        }
        (ParamKind::Integer { min, max, .. }, ParamValue::Integer(number)) => {
            ParamKind::Integer { default: Some(number), min, max }
        }
        (ParamKind::Number { min, max, .. }, ParamValue::Number(number)) => {
            ParamKind::Number { default: Some(number), min, max }
        }
        (ParamKind::Boolean { .. }, ParamValue::Boolean(flag)) => ParamKind::Boolean { default: Some(flag) },
        (kind, _) => kind,
    }
}

/// Whether it is a cron expression, and one that some day fulfils.
fn cron_problem(text: &str) -> Result<(), String> {
    if Cron::parse(text)?.comes() {
        Ok(())
    } else {
        Err("this day never comes: no such month has so many days".to_owned())
    }
}
