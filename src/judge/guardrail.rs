//! Guardrails: what must not get worse, and limits that hold for every version.
//!
//! Where both models' predictions of the same rows allow it, "not worse than `max_loss`" is a non-inferiority test: the
//! upper bound of the loss must lie within the margin. Elsewhere (latencies, sizes) the two numbers are compared as they stand.

use crate::judge::finding::{Finding, Outcome, Role, Shown, Source, Test};
use crate::judge::metrics;
use crate::judge::paired::{self, Resampling};
use crate::judge::promote::{SideEvidence, Sides};
use crate::pipeline::types::{Guardrail, Loss};

/// Confidence of the bound of a loss.
pub const CONFIDENCE: f64 = 0.95;

/// Resamples for the bound of a loss.
pub const RESAMPLES: u32 = 2_000;

/// Seed for the bound of a loss.
pub const SEED: u64 = 1;

/// Judges `min` and `max` for the candidate alone; `None` if the guardrail has neither.
pub fn limits(name: &str, guardrail: &Guardrail, candidate: &SideEvidence) -> Option<Finding> {
    let (min, max) = (guardrail.min, guardrail.max);
    if min.is_none() && max.is_none() {
        return None;
    }
    let mut finding = blank(name, guardrail);
    let Some((value, source)) = candidate.value(name) else {
        finding.outcome = Outcome::Inconclusive;
        finding.sentence = missing(name, "candidate");
        return Some(finding);
    };
    finding.candidate = Some(value);
    finding.test = Test::Limits { min, max, source };
    let broken = match (min, max) {
        (Some(min), _) if value < min => Some(format!("below its limit of {}", Shown(min))),
        (_, Some(max)) if value > max => Some(format!("above its limit of {}", Shown(max))),
        (_, _) => None,
    };
    finding.outcome = if broken.is_some() { Outcome::Fails } else { Outcome::Holds };
    let words = broken.unwrap_or_else(|| "within its limits".to_owned());
    finding.sentence = format!("`{name}` is {}, {words}", Shown(value));
    Some(finding)
}

/// Judges `max_loss` against the champion; `None` if the guardrail has none.
pub fn loss(name: &str, guardrail: &Guardrail, sides: &Sides<'_>) -> Option<Finding> {
    let bound = guardrail.max_loss?;
    let mut finding = blank(name, guardrail);
    if !by_resampling(name, guardrail, bound, sides, &mut finding) {
        by_point(name, guardrail, bound, sides, &mut finding);
    }
    Some(finding)
}

fn blank(name: &str, guardrail: &Guardrail) -> Finding {
    Finding {
        metric: name.to_owned(),
        role: Role::Guardrail,
        goal: guardrail.goal,
        candidate: None,
        champion: None,
        gain: None,
        margin: None,
        test: Test::None,
        outcome: Outcome::NotCompared,
        sentence: String::new(),
    }
}

/// The sentence for a metric that one side does not have.
pub(super) fn missing(name: &str, side: &str) -> String {
    format!("the {side} has no metric `{name}`")
}

/// How much may be lost, in the metric's unit. A share of 0 is 0: no loss at all is allowed then.
fn margin(bound: Loss, champion: f64) -> f64 {
    match bound {
        Loss::Absolute(loss) => loss,
        Loss::Relative(share) => share * champion.abs(),
    }
}

fn margin_words(bound: Loss, champion: f64) -> String {
    match bound {
        Loss::Absolute(loss) => format!("a loss of {} is allowed", Shown(loss)),
        Loss::Relative(share) if champion == 0.0 => {
            format!("the champion's value is 0, so a loss of {} % of it is none at all", Shown(share * 100.0))
        }
        Loss::Relative(share) => format!("a loss of {} % is allowed", Shown(share * 100.0)),
    }
}

/// Returns false if the predictions do not allow a test of this metric.
fn by_resampling(name: &str, guardrail: &Guardrail, bound: Loss, sides: &Sides<'_>, finding: &mut Finding) -> bool {
    let (Some((new, old)), Some(metric)) = (sides.same_rows(), metrics::find(name)) else { return false };
    let resampling = Resampling { goal: guardrail.goal, resamples: RESAMPLES, seed: SEED };
    let Ok(resampled) = paired::bootstrap(metric, new, old, resampling) else { return false };
    let rows = new.rows().len() as u64;
    let gain = paired::gain(guardrail.goal, resampled.candidate, resampled.champion);
    let allowed = margin(bound, resampled.champion);
    let (lower, upper) = (resampled.lower(CONFIDENCE), resampled.upper(CONFIDENCE));
    let standard_error = resampled.standard_error();
    let p = resampled.p_at_most(-allowed);
    let rows_needed = paired::rows_needed(rows, gain, -allowed, standard_error, CONFIDENCE);
    finding.candidate = Some(resampled.candidate);
    finding.champion = Some(resampled.champion);
    finding.gain = Some(gain);
    finding.margin = Some(0.0 - allowed);
    finding.test = Test::Bootstrap {
        rows,
        resamples: RESAMPLES,
        seed: SEED,
        confidence: CONFIDENCE,
        lower,
        upper,
        p,
        p_adjusted: p,
        standard_error,
        minimum_detectable: paired::minimum_detectable(standard_error, CONFIDENCE),
        rows_needed,
    };
    let (outcome, words) = if lower >= -allowed {
        (Outcome::Holds, format!("the loss is at most {}", Shown((-lower).max(0.0))))
    } else if upper < -allowed {
        (Outcome::Fails, format!("the loss is at least {}", Shown(-upper)))
    } else {
        let needed = match rows_needed {
            Some(needed) => format!("about {needed} rows would be needed to tell, and there are {rows}"),
            None => format!("{rows} rows do not tell more"),
        };
        (Outcome::Inconclusive, format!("the loss may be as large as {}; {needed}", Shown(-lower)))
    };
    finding.outcome = outcome;
    finding.sentence = format!(
        "`{name}` is {} against {}: with {} % confidence {words} ({})",
        Shown(resampled.candidate),
        Shown(resampled.champion),
        Shown(CONFIDENCE * 100.0),
        margin_words(bound, resampled.champion),
    );
    true
}

fn by_point(name: &str, guardrail: &Guardrail, bound: Loss, sides: &Sides<'_>, finding: &mut Finding) {
    let (candidate, champion, source) = match sides.values(name) {
        Ok(values) => values,
        Err((outcome, sentence)) => {
            (finding.outcome, finding.sentence) = (outcome, sentence);
            return;
        }
    };
    let gain = paired::gain(guardrail.goal, candidate, champion);
    let allowed = margin(bound, champion);
    let holds = gain >= -allowed;
    finding.candidate = Some(candidate);
    finding.champion = Some(champion);
    finding.gain = Some(gain);
    finding.margin = Some(0.0 - allowed);
    finding.test = Test::Point { source };
    finding.outcome = if holds { Outcome::Holds } else { Outcome::Fails };
    finding.sentence = format!(
        "`{name}` is {} against {}, {} ({}; {})",
        Shown(candidate),
        Shown(champion),
        if holds { "not too much worse" } else { "too much worse" },
        margin_words(bound, champion),
        match source {
            Source::Predictions => "compared as numbers, from predictions on the same rows",
            Source::Recorded => "compared as recorded numbers, without a test",
        },
    );
}
