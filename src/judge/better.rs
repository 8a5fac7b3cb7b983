//! One line of `better_if`: does the candidate win on this metric?
//!
//! First every metric is measured, then Holm's adjustment (which needs all p-values) is applied and the outcome told.

use crate::judge::finding::{Finding, Outcome, Role, Shown, Source, Test};
use crate::judge::guardrail::missing;
use crate::judge::metrics;
use crate::judge::paired::{self, Discordant, Resampling};
use crate::judge::promote::Sides;
use crate::pipeline::types::{BetterIf, PairedTest};

/// What was measured for one metric.
#[derive(Debug)]
pub(super) enum Measured {
    /// Nothing could be.
    Not(Outcome, String),
    /// Two numbers.
    Point { candidate: f64, champion: f64, source: Source },
    /// Who was right where the other was not.
    Mcnemar { rows: u64, candidate: f64, champion: f64, counts: Discordant, p: f64 },
    /// A resampled gain.
    Bootstrap { rows: u64, resampled: paired::Bootstrap, p: f64 },
}

impl Measured {
    /// The test's p-value, if there was a test.
    pub(super) fn p(&self) -> Option<f64> {
        match self {
            Measured::Not(..) | Measured::Point { .. } => None,
            Measured::Mcnemar { p, .. } | Measured::Bootstrap { p, .. } => Some(*p),
        }
    }
}

/// Measures one metric for both sides.
pub(super) fn measure(name: &str, rule: &BetterIf, sides: &Sides<'_>) -> Measured {
    let measured = match rule.test {
        PairedTest::None => point(name, sides),
        PairedTest::Mcnemar => mcnemar(name, sides),
        PairedTest::Bootstrap => bootstrap(name, rule, sides),
    };
    measured.unwrap_or_else(|(outcome, words)| Measured::Not(outcome, words))
}

type Refusal = (Outcome, String);

fn point(name: &str, sides: &Sides<'_>) -> Result<Measured, Refusal> {
    let (candidate, champion, source) = sides.values(name)?;
    Ok(Measured::Point { candidate, champion, source })
}

fn mcnemar(name: &str, sides: &Sides<'_>) -> Result<Measured, Refusal> {
    if name != "accuracy" {
        let words = format!(
            "`mcnemar` compares which model is right on more rows, so it judges `accuracy`; for `{name}` use `test: bootstrap`"
        );
        return Err((Outcome::Error, words));
    }
    let (new, old) = sides.need_rows().map_err(|(outcome, words)| (outcome, format!("`{name}`: {words}")))?;
    let value = |predictions| {
        let metric = metrics::find("accuracy").ok_or_else(|| "is not known".to_owned())?;
        metric.of(predictions).map_err(|error| error.to_string())
    };
    let cannot = |error: String| (Outcome::Error, format!("`{name}` cannot be computed: {error}"));
    let counts = paired::discordant(new, old);
    Ok(Measured::Mcnemar {
        rows: new.rows().len() as u64,
        candidate: value(new).map_err(cannot)?,
        champion: value(old).map_err(cannot)?,
        counts,
        p: paired::mcnemar(counts.candidate, counts.champion),
    })
}

fn bootstrap(name: &str, rule: &BetterIf, sides: &Sides<'_>) -> Result<Measured, Refusal> {
    let metric = metrics::find(name).ok_or_else(|| {
        let known = metrics::METRICS.iter().map(|metric| metric.name).collect::<Vec<_>>().join("`, `");
        let words = format!("`{name}` cannot be computed from predictions, so it cannot be resampled; use `test: none`, or one of `{known}`");
        (Outcome::Error, words)
    })?;
    let (new, old) = sides.need_rows().map_err(|(outcome, words)| (outcome, format!("`{name}`: {words}")))?;
    let resampling = Resampling { goal: rule.goal, resamples: rule.resamples, seed: rule.seed };
    let resampled = paired::bootstrap(metric, new, old, resampling).map_err(|error| {
        let outcome = match error {
            metrics::MetricError::Undefined => Outcome::Inconclusive,
            metrics::MetricError::NotTwoClasses(_)
            | metrics::MetricError::TooManyClasses
            | metrics::MetricError::NoScore(_)
            | metrics::MetricError::NotProbability { .. }
            | metrics::MetricError::NotNumber { .. } => Outcome::Error,
        };
        (outcome, format!("`{name}` cannot be computed: {error}"))
    })?;
    let p = resampled.p_at_most(rule.min_gain);
    Ok(Measured::Bootstrap { rows: new.rows().len() as u64, resampled, p })
}

/// The finding for a first version, which has nothing to beat.
pub(super) fn not_compared(name: &str, rule: &BetterIf, value: Option<f64>) -> Finding {
    let sentence = match value {
        Some(value) => format!("`{name}` is {}; there is no champion to compare with", Shown(value)),
        None => missing(name, "candidate"),
    };
    let mut finding = blank(name, rule, Outcome::NotCompared, sentence);
    finding.candidate = value;
    finding
}

/// The finding for what was measured; `p_adjusted` is there where a test was made.
pub(super) fn finding(name: &str, rule: &BetterIf, measured: Measured, p_adjusted: Option<f64>) -> Finding {
    let p_adjusted = p_adjusted.unwrap_or(1.0);
    match measured {
        Measured::Not(outcome, sentence) => blank(name, rule, outcome, sentence),
        Measured::Point { candidate, champion, source } => {
            let mut finding = with_values(name, rule, candidate, champion);
            finding.test = Test::Point { source };
            tell_point(&mut finding, rule, source);
            finding
        }
        Measured::Mcnemar { rows, candidate, champion, counts, p } => {
            let mut finding = with_values(name, rule, candidate, champion);
            let discordant = counts.candidate + counts.champion;
            finding.test = Test::Mcnemar {
                rows,
                candidate_only_right: counts.candidate,
                champion_only_right: counts.champion,
                p,
                p_adjusted,
                p_worse: paired::mcnemar(counts.champion, counts.candidate),
                confidence: rule.confidence,
                rows_needed: paired::discordant_needed(counts, rule.confidence)
                    .map(|needed| needed.max(discordant + 1) as f64 / discordant as f64 * rows as f64)
                    .map(|needed| needed.ceil() as u64),
            };
            tell_mcnemar(&mut finding, rule);
            finding
        }
        Measured::Bootstrap { rows, resampled, p } => {
            let mut finding = with_values(name, rule, resampled.candidate, resampled.champion);
            let gain = paired::gain(rule.goal, resampled.candidate, resampled.champion);
            let standard_error = resampled.standard_error();
            finding.test = Test::Bootstrap {
                rows,
                resamples: rule.resamples,
                seed: rule.seed,
                confidence: rule.confidence,
                lower: resampled.lower(rule.confidence),
                upper: resampled.upper(rule.confidence),
                p,
                p_adjusted,
                standard_error,
                minimum_detectable: paired::minimum_detectable(standard_error, rule.confidence),
                rows_needed: paired::rows_needed(rows, gain, rule.min_gain, standard_error, rule.confidence),
            };
            tell_bootstrap(&mut finding, rule);
            finding
        }
    }
}

fn blank(name: &str, rule: &BetterIf, outcome: Outcome, sentence: String) -> Finding {
    Finding {
        metric: name.to_owned(),
        role: Role::BetterIf,
        goal: rule.goal,
        candidate: None,
        champion: None,
        gain: None,
        margin: Some(rule.min_gain),
        test: Test::None,
        outcome,
        sentence,
    }
}

fn with_values(name: &str, rule: &BetterIf, candidate: f64, champion: f64) -> Finding {
    let mut finding = blank(name, rule, Outcome::Inconclusive, String::new());
    finding.candidate = Some(candidate);
    finding.champion = Some(champion);
    finding.gain = Some(paired::gain(rule.goal, candidate, champion));
    finding
}

/// `0.73 against 0.65`.
fn values(finding: &Finding) -> String {
    let shown = |value: Option<f64>| value.map_or("nothing".to_owned(), |value| Shown(value).to_string());
    format!("{} against {}", shown(finding.candidate), shown(finding.champion))
}

fn tell_point(finding: &mut Finding, rule: &BetterIf, source: Source) {
    let gain = finding.gain.unwrap_or(f64::NEG_INFINITY);
    let won = gain > rule.min_gain;
    finding.outcome = if won { Outcome::Holds } else { Outcome::Fails };
    let asked = if won { "more than" } else { "and must be more than" };
    let from = match source {
        Source::Predictions => "predictions on the same rows",
        Source::Recorded => "recorded metrics",
    };
    finding.sentence = format!(
        "`{}` is {}: a gain of {}, {asked} {} (from {from}, without a test)",
        finding.metric,
        values(finding),
        Shown(gain),
        Shown(rule.min_gain)
    );
}

fn tell_mcnemar(finding: &mut Finding, rule: &BetterIf) {
    let Test::Mcnemar {
        rows,
        candidate_only_right: wins,
        champion_only_right: losses,
        p,
        p_adjusted,
        p_worse,
        confidence,
        rows_needed,
    } = finding.test
    else {
        return;
    };
    let alpha = 1.0 - confidence;
    let gain = finding.gain.unwrap_or_default();
    let counted = format!(
        "`{}` is {}: of {rows} rows, {wins} only the candidate and {losses} only the champion got right",
        finding.metric,
        values(finding)
    );
    let p_words =
        if p == p_adjusted { format!("p {}", Shown(p)) } else { format!("p {} after Holm", Shown(p_adjusted)) };
    let (outcome, words) = if p_adjusted < alpha && gain > rule.min_gain {
        (Outcome::Holds, format!("exact McNemar, {p_words}"))
    } else if p_adjusted < alpha {
        (Outcome::Fails, format!("a gain of {} that must be more than {}", Shown(gain), Shown(rule.min_gain)))
    } else if p_worse < alpha {
        (Outcome::Fails, format!("it is worse (exact McNemar, p {})", Shown(p_worse)))
    } else {
        let needed = needed_words(rows_needed, rows);
        (Outcome::Inconclusive, format!("{p_words} must be below {}; {needed}", Shown(alpha)))
    };
    finding.outcome = outcome;
    finding.sentence = format!("{counted}; {words}");
}

fn tell_bootstrap(finding: &mut Finding, rule: &BetterIf) {
    let Test::Bootstrap { rows, resamples, seed, confidence, lower, upper, p, p_adjusted, rows_needed, .. } =
        finding.test
    else {
        return;
    };
    let alpha = 1.0 - confidence;
    let gain = finding.gain.unwrap_or_default();
    let sure = format!("with {} % confidence", Shown(confidence * 100.0));
    let made = format!("{rows} rows, {resamples} resamples, seed {seed}");
    let (outcome, words) = if p_adjusted < alpha {
        (Outcome::Holds, format!("{sure} the gain of {} is above {} ({made})", Shown(gain), Shown(lower)))
    } else if upper < rule.min_gain {
        (Outcome::Fails, format!("{sure} the gain is below {} ({made})", Shown(rule.min_gain)))
    } else if p < alpha {
        let words = format!(
            "p {} after Holm must be below {}; {} ({made})",
            Shown(p_adjusted),
            Shown(alpha),
            needed_words(rows_needed, rows)
        );
        (Outcome::Inconclusive, words)
    } else {
        let words = format!(
            "the gain of {} lies between {} and {} and must be above {} {sure}; {} ({made})",
            Shown(gain),
            Shown(lower),
            Shown(upper),
            Shown(rule.min_gain),
            needed_words(rows_needed, rows)
        );
        (Outcome::Inconclusive, words)
    };
    finding.outcome = outcome;
    finding.sentence = format!("`{}` is {}: {words}", finding.metric, values(finding));
}

fn needed_words(rows_needed: Option<u64>, rows: u64) -> String {
    match rows_needed {
        Some(needed) => format!(
            "about {} held-out rows like these would be needed to tell, and there are {rows}",
            needed.max(rows + 1)
        ),
        None => "more rows like these would not show a gain, since there is none in them".to_owned(),
    }
}
