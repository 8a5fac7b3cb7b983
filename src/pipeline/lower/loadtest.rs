//! `loadtest`.

use std::time::Duration;

use indexmap::IndexMap;

use super::Cx;
use super::http::{Parts, expect, one_of, request, title};
use crate::pipeline::diagnostic::{Diagnostic, shown};
use crate::pipeline::raw;
use crate::pipeline::tree::At;
use crate::pipeline::types::{Comparison, Generator, LoadMetric, Loadtest, ScenarioItem, Threshold};
use crate::pipeline::units;

/// Metrics in messages; percentiles are any between 0 and 100.
const METRICS: [&str; 8] = ["failure_rate", "p50", "p90", "p95", "p99", "p99.9", "max", "rps"];

pub(super) fn loadtest(raw: &raw::Loadtest, at: At<'_>, cx: &mut Cx<'_>) -> Option<Loadtest> {
    let scenario = scenario(raw, at.get("scenario"), cx);
    let generator = generator(raw, at, cx);
    let built_in = at.get("locust").node().is_none() && at.get("k6").node().is_none();
    if built_in && raw.scenario.is_empty() && !cx.sink.has_error_in(at.whole()) {
        cx.push(
            Diagnostic::error("missing-key", at.key_span(), "`loadtest` needs the key `scenario`")
                .help("write `scenario: [{ request: GET /healthz }]`"),
        );
    }
    let names: Vec<String> = scenario.iter().flatten().map(|item| item.name.clone()).collect();
    let (thresholds, request_thresholds) = thresholds(raw, at.get("thresholds"), &names, built_in, cx);
    Some(Loadtest {
        scenario: scenario?,
        generator: generator?,
        duration: cx.positive(raw.duration.as_ref(), Duration::from_secs(30), at.get("duration"), "duration"),
        ramp_up: cx.duration(raw.ramp_up.as_ref(), Duration::ZERO),
        warmup: cx.duration(raw.warmup.as_ref(), Duration::ZERO),
        request_timeout: cx.positive(raw.timeout.as_ref(), Duration::from_secs(10), at.get("timeout"), "timeout"),
        thresholds,
        request_thresholds,
    })
}

fn scenario(raw: &raw::Loadtest, at: At<'_>, cx: &mut Cx<'_>) -> Option<Vec<ScenarioItem>> {
    let mut items: Vec<ScenarioItem> = Vec::new();
    let mut good = true;
    for (index, raw) in raw.scenario.iter().enumerate() {
        let here = at.item(index);
        let parts = Parts {
            request: raw.request.as_deref(),
            headers: &raw.headers,
            json: raw.json.as_ref(),
            json_lines: raw.json_lines.as_ref(),
            body: raw.body.as_deref(),
            form: raw.form.as_ref(),
        };
        let request = request(&parts, here, cx);
        let (Some(request), Some(expect)) = (request, expect(raw.expect.as_ref(), here.get("expect"), cx)) else {
            good = false;
            continue;
        };
        let name = raw.name.clone().unwrap_or_else(|| title(&request));
        if let Some(first) = items.iter().position(|item| item.name == name) {
            cx.push(
                Diagnostic::error("same-name", here.span(), format!("two requests are called `{}`", shown(&name)))
                    .related(at.item(first).span(), "the other one")
                    .help("give one of them a `name`: results are told apart by it"),
            );
        }
        items.push(ScenarioItem { name, request, weight: raw.weight.unwrap_or(1), expect });
    }
    good.then_some(items)
}

/// Who makes the load: exactly one of four keys.
fn generator(raw: &raw::Loadtest, at: At<'_>, cx: &mut Cx<'_>) -> Option<Generator> {
    let present: Vec<&str> = ["locust", "k6", "users", "rate"].into_iter().filter(|key| at.get(key).exists()).collect();
    if let [first, second, ..] = present[..] {
        let help = match (first, second) {
            ("locust" | "k6", "users") => format!("write `{first}: {{ file: ..., users: ... }}`"),
            ("locust" | "k6", "rate") => format!("the {first} script decides how fast requests are sent"),
            (_, "rate") => "`users` wait for answers (closed model); `rate` does not (open model). Keep one".to_owned(),
            (_, _) => "keep one of them".to_owned(),
        };
        cx.push(
            Diagnostic::error(
                "two-generators",
                at.get(second).key_span(),
                format!("`{first}` and `{second}` exclude each other"),
            )
            .related(at.get(first).key_span(), "the other one")
            .help(help),
        );
        return None;
    }
    if at.get("max_in_flight").exists() && !at.get("rate").exists() {
        let message = "`max_in_flight` only has a meaning with `rate`";
        cx.push(Diagnostic::error("no-meaning-here", at.get("max_in_flight").key_span(), message).help("remove it"));
    }
    if let Some(locust) = &raw.locust {
        let users = locust.users.unwrap_or(10);
        let spawn_rate = locust.spawn_rate.unwrap_or_else(|| f64::from(users));
        return Some(Generator::Locust { file: locust.file.as_ref()?.0.clone(), users, spawn_rate });
    }
    if let Some(k6) = &raw.k6 {
        return Some(Generator::K6 { file: k6.file.as_ref()?.0.clone(), users: k6.users.unwrap_or(10) });
    }
    if let Some(rate) = &raw.rate {
        let per_second = units::rate(&rate.0).ok()?;
        return Some(Generator::Rate { per_second, max_in_flight: raw.max_in_flight.unwrap_or(1000) });
    }
    if let Some(users) = raw.users {
        return Some(Generator::Users(users));
    }
    if present.is_empty() && !cx.sink.has_error_in(at.key_span()) {
        cx.push(
            Diagnostic::error("missing-key", at.key_span(), "`loadtest` does not say how much load is made")
                .help("add `users: 50` (each waits for its answer) or `rate: 200/s` (sent whatever comes back)"),
        );
    }
    None
}

type Limits = (Vec<Threshold>, IndexMap<String, Vec<Threshold>>);

fn thresholds(raw: &raw::Loadtest, at: At<'_>, names: &[String], built_in: bool, cx: &mut Cx<'_>) -> Limits {
    let mut all = Vec::new();
    let mut by_request = IndexMap::new();
    for (key, line) in &raw.thresholds {
        let here = at.get(key);
        match line {
            raw::ThresholdLine::Limit(limit) => all.extend(threshold(key, &limit.0, here, names, cx)),
            raw::ThresholdLine::Request(limits) => {
                // What Locust and k6 call their requests is known to their scripts only.
                if built_in && !names.contains(key) && !names.is_empty() {
                    let message = format!("the scenario has no request `{}`", shown(key));
                    cx.push(Diagnostic::error("unknown-request", here.key_span(), message).help(one_of(key, names)));
                    continue;
                }
                let limits =
                    limits.iter().filter_map(|(metric, limit)| threshold(metric, &limit.0, here.get(metric), &[], cx));
                by_request.insert(key.clone(), limits.collect());
            }
        }
    }
    (all, by_request)
}

fn threshold(key: &str, text: &str, at: At<'_>, names: &[String], cx: &mut Cx<'_>) -> Option<Threshold> {
    let Some(metric) = units::load_metric(key) else {
        let known: Vec<String> = METRICS.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect();
        let (message, help) = if names.iter().any(|name| name == key) {
            (format!("the limits of `{}` must be a mapping", shown(key)), "write `{ p95: \"< 200ms\" }`".to_owned())
        } else {
            (format!("`{}` is not something that a load test measures", shown(key)), one_of(key, &known))
        };
        cx.push(Diagnostic::error("unknown-metric", at.key_span(), message).help(help));
        return None;
    };
    let found = match units::threshold(metric, text) {
        Ok(found) => found,
        Err(error) => {
            let message = format!("`{key}`: {}", error.message);
            cx.push(Diagnostic::error("bad-unit", at.span(), message).maybe_help(error.help));
            return None;
        }
    };
    let upper = matches!(found.comparison, Comparison::Lt | Comparison::Le);
    let wants_upper = metric != LoadMetric::Rps;
    if upper != wants_upper {
        let when = match metric {
            LoadMetric::FailureRate => "requests fail",
            LoadMetric::Quantile(_) | LoadMetric::Max => "answers are slow",
            LoadMetric::Rps => "few requests are answered",
        };
        let message = format!("`{key}: {}` passes when {when}", shown(&found.text));
        let sign = if wants_upper { "<" } else { ">" };
        cx.push(Diagnostic::warning("odd-threshold", at.span(), message).help(format!("did you mean `{sign}`?")));
    }
    Some(found)
}
