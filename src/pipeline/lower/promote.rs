//! `promote`.

use super::Cx;
use crate::pipeline::diagnostic::{Diagnostic, did_you_mean, list, shown};
use crate::pipeline::predicted::{self, Predicted};
use crate::pipeline::raw;
use crate::pipeline::tree::At;
use crate::pipeline::types::{BetterIf, Deploy, Finding, Goal, Guardrail, Loss, PairedTest, Promote};
use crate::pipeline::units;

pub(super) fn promote(raw: &raw::Promote, at: At<'_>, cx: &mut Cx<'_>) -> Option<Promote> {
    let better_if_at = at.get("better_if");
    if raw.better_if.is_empty() && !cx.sink.has_error_in(at.whole()) {
        let span = if better_if_at.exists() { better_if_at.span() } else { at.key_span() };
        cx.push(
            Diagnostic::error(
                "no-gate",
                span,
                "`better_if` names no metric, so a second version could never be judged",
            )
            .help("add a metric on which the candidate must win, like `better_if: { accuracy: { goal: maximize } }`"),
        );
    }
    let bootstraps = raw.better_if.values().filter(|rule| rule.test == Some(raw::PairedTest::Bootstrap)).count();
    let better_if: Option<_> = raw
        .better_if
        .iter()
        .map(|(name, raw)| {
            let rule = better_if(raw)?;
            let place = better_if_at.get(name);
            can_hold(name, &rule, bootstraps, place, cx);
            without_meaning(raw, &rule, place, cx);
            Some((name.clone(), rule))
        })
        .collect();
    let guardrails_at = at.get("guardrails");
    let guardrails: Option<_> = raw
        .guardrails
        .iter()
        .map(|(name, raw)| Some((name.clone(), guardrail(name, raw, guardrails_at.get(name), cx)?)))
        .collect();
    let deploy = deploy(raw.deploy.as_ref(), at.get("deploy"), cx);
    Some(Promote {
        model: raw.model.as_ref()?.0.clone(),
        better_if: better_if?,
        guardrails: guardrails?,
        fail_on: raw
            .fail_on
            .iter()
            .map(|word| match word {
                raw::Finding::Rejected => Finding::Rejected,
                raw::Finding::Inconclusive => Finding::Inconclusive,
            })
            .collect(),
        approval_manual: raw.approval == Some(raw::Approval::Manual),
        deploy: deploy?,
    })
}

pub(super) fn goal(word: raw::Goal) -> Goal {
    match word {
        raw::Goal::Maximize => Goal::Maximize,
        raw::Goal::Minimize => Goal::Minimize,
    }
}

fn better_if(raw: &raw::BetterIf) -> Option<BetterIf> {
    Some(BetterIf {
        goal: goal(raw.goal?),
        min_gain: raw.min_gain.unwrap_or(0.0),
        test: match raw.test {
            Some(raw::PairedTest::Mcnemar) => PairedTest::Mcnemar,
            Some(raw::PairedTest::Bootstrap) => PairedTest::Bootstrap,
            Some(raw::PairedTest::None) | None => PairedTest::None,
        },
        confidence: raw.confidence.unwrap_or(0.95),
        resamples: raw.resamples.unwrap_or(2000),
        seed: raw.seed.unwrap_or(7),
    })
}

/// Refuses what no candidate could ever pass.
fn can_hold(name: &str, rule: &BetterIf, bootstraps: usize, at: At<'_>, cx: &mut Cx<'_>) {
    let known = predicted::find(name);
    if let Some(known) = known {
        usual_goal(known, rule.goal, at, cx);
        if known.is_share && rule.min_gain >= 1.0 {
            let message = format!("`{name}` lies between 0 and 1, so no gain is more than {}", rule.min_gain);
            let help = format!("a gain of 2 points is written `min_gain: 0.02`, not `min_gain: {}`", rule.min_gain);
            cx.push(Diagnostic::error("never-holds", at.get("min_gain").span(), message).help(help));
        }
    }
    let test_at = at.get("test");
    match rule.test {
        PairedTest::None => {}
        PairedTest::Mcnemar if name != "accuracy" => {
            let message = format!(
                "`mcnemar` counts which model is right on more rows: it judges `accuracy`, not `{}`",
                shown(name)
            );
            let help = match known {
                Some(_) => "write `test: bootstrap`, which judges any metric of predictions",
                None => "write `test: none`, which compares the numbers",
            };
            cx.push(Diagnostic::error("test-and-metric", test_at.span(), message).help(help));
        }
        PairedTest::Mcnemar if rule.goal == Goal::Minimize => {
            let message = "`mcnemar` shows that more rows are right, so it cannot judge whether fewer are";
            cx.push(
                Diagnostic::error("test-and-metric", at.get("goal").span(), message).help("write `goal: maximize`"),
            );
        }
        PairedTest::Mcnemar => {}
        PairedTest::Bootstrap if known.is_none() => {
            let names = predicted::PREDICTED.iter().map(|metric| metric.name);
            let message = format!("`{}` cannot be computed from predictions, so it cannot be resampled", shown(name));
            let help = did_you_mean(name, names.clone())
                .unwrap_or_else(|| format!("write `test: none`, or one of {}", list(names, "or")));
            cx.push(Diagnostic::error("test-and-metric", test_at.span(), message).help(help));
        }
        PairedTest::Bootstrap => enough_resamples(rule, bootstraps, at, cx),
    }
}

/// The smallest p-value of a bootstrap is 1 / (1 + resamples), and Holm's adjustment multiplies it by the number of
/// such lines where all have it.
fn enough_resamples(rule: &BetterIf, bootstraps: usize, at: At<'_>, cx: &mut Cx<'_>) {
    let alpha = 1.0 - rule.confidence;
    let lines = u32::try_from(bootstraps).map_or(f64::MAX, f64::from);
    if lines / (1.0 + f64::from(rule.resamples)) < alpha {
        return;
    }
    let place = if at.get("confidence").exists() { at.get("confidence") } else { at.get("resamples") };
    let message = format!("{} resamples can never show a gain with this confidence", rule.resamples);
    let needed = (lines / alpha).ceil();
    let help = if needed < 1e6 {
        format!("write `resamples: {needed}` or more, or a lower `confidence`")
    } else {
        "write a lower `confidence`".to_owned()
    };
    cx.push(Diagnostic::error("never-holds", place.span(), message).help(help));
}

fn usual_goal(known: &Predicted, goal: Goal, at: At<'_>, cx: &mut Cx<'_>) {
    if known.goal != goal {
        let (word, other) = match known.goal {
            Goal::Maximize => ("larger", "maximize"),
            Goal::Minimize => ("smaller", "minimize"),
        };
        let message = format!("a {word} `{}` is better", known.name);
        let help = format!("write `goal: {other}`, unless the metrics file means something else by this name");
        cx.push(Diagnostic::warning("unusual-goal", at.get("goal").span(), message).help(help));
    }
}

/// Settings of a test that is not made.
fn without_meaning(raw: &raw::BetterIf, rule: &BetterIf, at: At<'_>, cx: &mut Cx<'_>) {
    let bootstrap = rule.test == PairedTest::Bootstrap;
    let given = [
        ("confidence", raw.confidence.is_some() && rule.test == PairedTest::None),
        ("resamples", raw.resamples.is_some() && !bootstrap),
        ("seed", raw.seed.is_some() && !bootstrap),
    ];
    for (key, _) in given.into_iter().filter(|(_, idle)| *idle) {
        let message = format!("`{key}` has no meaning for this test");
        let help = match key {
            "confidence" => {
                "write `test: mcnemar` or `test: bootstrap`, or remove it: without a test the numbers are compared"
            }
            _ => "write `test: bootstrap`, or remove it",
        };
        cx.push(Diagnostic::error("no-meaning-here", at.get(key).key_span(), message).help(help));
    }
}

fn guardrail(name: &str, raw: &raw::Guardrail, at: At<'_>, cx: &mut Cx<'_>) -> Option<Guardrail> {
    let none = raw.max_loss.is_none() && raw.min.is_none() && raw.max.is_none();
    if none && !cx.sink.has_error_in(at.whole()) {
        cx.push(
            Diagnostic::error("nothing-to-do", at.key_span(), "this guardrail has no limit")
                .help("add `max_loss` (against the champion), `min` or `max` (absolute)"),
        );
    }
    if raw.min.zip(raw.max).is_some_and(|(min, max)| min > max) {
        cx.push(Diagnostic::error("out-of-range", at.get("max").span(), "`max` is less than `min`"));
    }
    let max_loss = match &raw.max_loss {
        None => None,
        Some(raw::Loss::Absolute(number)) => Some(Loss::Absolute(*number)),
        Some(raw::Loss::Relative(percent)) => Some(Loss::Relative(units::percent(&percent.0).ok()?)),
    };
    if let (Some(known), Some(raw_goal)) = (predicted::find(name), raw.goal) {
        usual_goal(known, goal(raw_goal), at, cx);
    }
    Some(Guardrail { goal: goal(raw.goal?), max_loss, min: raw.min, max: raw.max })
}

fn deploy(raw: Option<&raw::Deploy>, at: At<'_>, cx: &mut Cx<'_>) -> Option<Deploy> {
    let Some(raw) = raw else { return Some(Deploy::None) };
    let strategy_at = at.get("strategy");
    let later = |word: &str, cx: &mut Cx<'_>| {
        cx.push(
            Diagnostic::error(
                "later-version",
                strategy_at.span(),
                format!("the strategy `{word}` comes in a later version"),
            )
            .help("use `replace`, which brings the old one back if the new one fails, or `none`"),
        );
        None
    };
    match raw.strategy? {
        raw::Strategy::BlueGreen => later("blue-green", cx),
        raw::Strategy::Canary => later("canary", cx),
        raw::Strategy::None => {
            if at.get("port").exists() {
                let message = "`port` has no meaning: nothing is deployed";
                let help = "write `strategy: replace`, or remove it";
                cx.push(Diagnostic::error("no-meaning-here", at.get("port").key_span(), message).help(help));
            }
            Some(Deploy::None)
        }
        raw::Strategy::Replace => {
            if at.get("canary").exists() {
                let message = "`canary` has no meaning for this strategy";
                cx.push(Diagnostic::error("no-meaning-here", at.get("canary").key_span(), message).help("remove it"));
            }
            if raw.port.is_none() && !at.get("port").exists() {
                cx.push(
                    Diagnostic::error("missing-key", at.key_span(), "`deploy` needs the key `port`")
                        .help("`port`: the port that users talk to"),
                );
            }
            Some(Deploy::Replace { port: raw.port? })
        }
    }
}
