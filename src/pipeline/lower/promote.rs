//! `promote`.

use super::Cx;
use crate::pipeline::diagnostic::Diagnostic;
use crate::pipeline::raw;
use crate::pipeline::tree::At;
use crate::pipeline::types::{BetterIf, Deploy, Finding, Goal, Guardrail, Loss, PairedTest, Promote};
use crate::pipeline::units;

pub(super) fn promote(raw: &raw::Promote, at: At<'_>, cx: &mut Cx<'_>) -> Option<Promote> {
    if raw.better_if.is_empty() && !cx.sink.has_error_in(at.whole()) {
        cx.push(
            Diagnostic::warning("no-gate", at.key_span(), "every candidate is promoted that keeps the guardrails")
                .help("add `better_if: { accuracy: { goal: maximize } }`"),
        );
    }
    let better_if: Option<_> = raw.better_if.iter().map(|(name, raw)| Some((name.clone(), better_if(raw)?))).collect();
    let guardrails_at = at.get("guardrails");
    let guardrails: Option<_> = raw
        .guardrails
        .iter()
        .map(|(name, raw)| Some((name.clone(), guardrail(raw, guardrails_at.get(name), cx)?)))
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

fn guardrail(raw: &raw::Guardrail, at: At<'_>, cx: &mut Cx<'_>) -> Option<Guardrail> {
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
