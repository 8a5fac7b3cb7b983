//! What was found out about one metric, with the numbers that it rests on.
//!
//! Stored and shown as JSON: these shapes are read again by later versions, so fields are only ever added.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::pipeline::types::Goal;

/// One judged condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The metric's name.
    pub metric: String,
    /// Why it was looked at.
    pub role: Role,
    /// `maximize` or `minimize`.
    #[serde(with = "goal_word")]
    pub goal: Goal,
    /// The candidate's value.
    pub candidate: Option<f64>,
    /// The champion's value.
    pub champion: Option<f64>,
    /// The candidate's advantage in the metric's unit: positive if it is better.
    pub gain: Option<f64>,
    /// What the gain is compared with: it must be more than this (`better_if`), or not less (`guardrail`, where it is at
    /// most 0).
    pub margin: Option<f64>,
    /// How it was judged.
    pub test: Test,
    /// What came of it.
    pub outcome: Outcome,
    /// The same for people.
    pub sentence: String,
}

/// Why a metric was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The candidate must win here.
    BetterIf,
    /// The candidate must not lose much here, or must keep to a limit.
    Guardrail,
}

/// What came of one condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// The evidence is too little to tell, or is missing.
    Inconclusive,
    /// It cannot be judged: the evidence contradicts itself or the pipeline asks for something that does not exist.
    Error,
    /// There is no champion to compare with.
    NotCompared,
}

/// Where both values of a comparison are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Computed now from both models' predictions on the same rows.
    Predictions,
    /// As recorded with each version or stage.
    Recorded,
}

/// How a condition was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Test {
    /// Not at all.
    None,
    /// The two numbers as they stand.
    Point {
        /// Where they are from.
        source: Source,
    },
    /// The candidate's number against limits.
    Limits {
        /// Smallest that is allowed.
        min: Option<f64>,
        /// Largest that is allowed.
        max: Option<f64>,
        /// Where the number is from.
        source: Source,
    },
    /// Exact one-sided McNemar test.
    Mcnemar {
        /// Rows that both models predicted.
        rows: u64,
        /// Of these, only the candidate right.
        candidate_only_right: u64,
        /// Of these, only the champion right.
        champion_only_right: u64,
        /// Chance of so many wins if the candidate were not better.
        p: f64,
        /// The same, adjusted by Holm for the number of tests in this verdict.
        p_adjusted: f64,
        /// Chance of so many losses if the candidate were not worse.
        p_worse: f64,
        /// As asked for.
        confidence: f64,
        /// Rows that would show such a gain with a power of 80 %; absent if no number would.
        rows_needed: Option<u64>,
    },
    /// Paired bootstrap over rows.
    Bootstrap {
        /// Rows that both models predicted.
        rows: u64,
        /// Resamples drawn.
        resamples: u32,
        /// Seed of the generator.
        seed: u64,
        /// As asked for; the bounds are one-sided at this confidence.
        confidence: f64,
        /// Lower bound of the gain.
        lower: f64,
        /// Upper bound of the gain.
        upper: f64,
        /// (1 + resamples whose gain is at most the margin) / (1 + resamples).
        p: f64,
        /// The same, adjusted by Holm for the number of tests in this verdict.
        p_adjusted: f64,
        /// Standard deviation of the gain.
        standard_error: f64,
        /// Gain beyond the margin that these rows show with a power of 80 %.
        minimum_detectable: f64,
        /// Rows that would show such a gain with a power of 80 %; absent if no number would.
        rows_needed: Option<u64>,
    },
}

/// A goal as its word in YAML.
mod goal_word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::pipeline::types::Goal;

    pub fn serialize<S: Serializer>(goal: &Goal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match goal {
            Goal::Maximize => "maximize",
            Goal::Minimize => "minimize",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Goal, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "maximize" => Ok(Goal::Maximize),
            "minimize" => Ok(Goal::Minimize),
            other => Err(D::Error::custom(format!("`{other}` is not a goal"))),
        }
    }
}

/// A number for people: four decimals without trailing zeros, or scientific where that would lose it.
#[derive(Debug, Clone, Copy)]
pub struct Shown(pub f64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value != 0.0 && (value.abs() < 0.001 || value.abs() >= 1e9) {
            return write!(f, "{value:.2e}");
        }
        let text = format!("{value:.4}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        f.write_str(if text == "-0" { "0" } else { text })
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;

    #[test]
    fn numbers_for_people() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.5, "0.5"),
            (0.66666, "0.6667"),
            (12.0, "12"),
            (0.00012, "1.20e-4"),
            (-3.1, "-3.1"),
        ] {
            assert_eq!(Shown(value).to_string(), expected);
        }
    }
}
