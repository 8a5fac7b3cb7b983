//! Paired statistics: two models on the same rows.
//!
//! - Exact McNemar test: of the rows on which exactly one model is right, `b` are the candidate's. If neither were better, `b`
//!   would be binomial with `n = b + c` and 1/2; the one-sided p-value is the chance of `b` or more.
//! - Paired bootstrap: rows are drawn with replacement, within each label for classification, the same rows for both
//!   models; the gains of the resamples give a percentile interval.
//!
//! Random numbers: xoshiro256++ seeded by `seed_from_u64` (SplitMix64); a row of `n` is the upper 64 bits of the 128-bit
//! product of one output and `n`. So a seed gives the same resamples on every machine.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};

use crate::judge::metrics::{Metric, MetricError};
use crate::judge::predictions::Predictions;
use crate::pipeline::types::Goal;

/// Power that "how many rows would be needed" aims at.
pub const POWER: f64 = 0.8;

/// Rows on which exactly one of the models is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discordant {
    /// Only the candidate is right.
    pub candidate: u64,
    /// Only the champion is right.
    pub champion: u64,
}

/// Counts the rows on which exactly one is right. Both must be of the same rows.
pub fn discordant(candidate: &Predictions, champion: &Predictions) -> Discordant {
    let mut counts = Discordant { candidate: 0, champion: 0 };
    for (new, old) in candidate.rows().iter().zip(champion.rows()) {
        match (new.prediction == new.label, old.prediction == old.label) {
            (true, false) => counts.candidate += 1,
            (false, true) => counts.champion += 1,
            (true, true) | (false, false) => {}
        }
    }
    counts
}

/// Exact one-sided McNemar p-value: the chance of `wins` or more of `wins + losses` fair coin flips. 1 if there are none.
pub fn mcnemar(wins: u64, losses: u64) -> f64 {
    if wins <= losses {
        // The tail is the larger part: one less the other tail, which is at least as exact.
        return if wins == 0 { 1.0 } else { 1.0 - upper_tail(losses + 1, wins - 1) };
    }
    upper_tail(wins, losses)
}

/// P(X >= wins) for wins > losses: the first term in log space, the falling rest as multiples of it.
fn upper_tail(wins: u64, losses: u64) -> f64 {
    let flips = wins + losses;
    let ln_choose: f64 = (1..=losses).map(|k| ((flips - losses + k) as f64 / k as f64).ln()).sum();
    let (mut term, mut sum) = (1.0, 1.0);
    for k in wins..flips {
        term *= (flips - k) as f64 / (k + 1) as f64;
        sum += term;
        if term < sum * f64::EPSILON / 16.0 {
            break;
        }
    }
    (ln_choose - flips as f64 * std::f64::consts::LN_2).exp() * sum
}

/// Discordant rows needed to see, with a power of [`POWER`], a candidate that wins this share of them. `None` if it does
/// not win more than half.
pub fn discordant_needed(counts: Discordant, confidence: f64) -> Option<u64> {
    let share = counts.candidate as f64 / (counts.candidate + counts.champion) as f64;
    if share.is_nan() || share <= 0.5 {
        return None;
    }
    let spread = normal_quantile(confidence) * 0.5 + normal_quantile(POWER) * (share * (1.0 - share)).sqrt();
    // Below this many nothing can pass, even if the candidate wins them all.
    let least = (-(1.0 - confidence).log2()).ceil();
    Some((spread / (share - 0.5)).powi(2).ceil().max(least) as u64)
}

/// What a paired bootstrap gave. Gains are positive where the candidate is better.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// The candidate's value over all rows.
    pub candidate: f64,
    /// The champion's value over all rows.
    pub champion: f64,
    /// Gains of the resamples, sorted.
    gains: Vec<f64>,
}

/// How resamples are drawn and gains are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// Which way is better.
    pub goal: Goal,
    /// How many.
    pub resamples: u32,
    /// Seed of the generator.
    pub seed: u64,
}

/// Draws resamples of the rows and computes the metric of both models on each. Both must be of the same rows.
///
/// # Errors
/// [`MetricError`] if the rows are not what the metric needs, or it has no value for them or for a resample.
pub fn bootstrap(
    metric: &Metric,
    candidate: &Predictions,
    champion: &Predictions,
    Resampling { goal, resamples, seed }: Resampling,
) -> Result<Bootstrap, MetricError> {
    let (new, old) = (metric.sample(candidate)?, metric.sample(champion)?);
    let strata = strata(new.labels(), candidate.rows().len());
    let value = |sample, weights: &[u32]| metric.weighted(sample, weights).ok_or(MetricError::Undefined);
    let mut weights = vec![1; candidate.rows().len()];
    let (new_value, old_value) = (value(&new, &weights)?, value(&old, &weights)?);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut gains = Vec::with_capacity(resamples as usize);
    for _ in 0..resamples {
        weights.fill(0);
        for stratum in &strata {
            for _ in stratum {
                weights[stratum[below(&mut random, stratum.len())]] += 1;
            }
        }
        gains.push(gain(goal, value(&new, &weights)?, value(&old, &weights)?));
    }
    gains.sort_by(f64::total_cmp);
    Ok(Bootstrap { candidate: new_value, champion: old_value, gains })
}

/// The candidate's advantage: positive if it is better.
pub fn gain(goal: Goal, candidate: f64, champion: f64) -> f64 {
    match goal {
        Goal::Maximize => candidate - champion,
        Goal::Minimize => champion - candidate,
    }
}

/// Row numbers by label code; one stratum of all rows where there are no labels' codes.
fn strata(labels: &[u32], rows: usize) -> Vec<Vec<usize>> {
    if labels.is_empty() {
        return vec![(0..rows).collect()];
    }
    let classes = labels.iter().max().map_or(0, |most| *most as usize + 1);
    let mut strata = vec![Vec::new(); classes];
    for (row, label) in labels.iter().enumerate() {
        strata[*label as usize].push(row);
    }
    strata
}

fn below(random: &mut Xoshiro256PlusPlus, bound: usize) -> usize {
    ((u128::from(random.next_u64()) * bound as u128) >> 64) as usize
}

impl Bootstrap {
    /// One-sided p-value of "the gain is at most `margin`": (1 + resamples with such a gain) / (1 + resamples).
    pub fn p_at_most(&self, margin: f64) -> f64 {
        let count = self.gains.partition_point(|gain| *gain <= margin);
        (1 + count) as f64 / (1 + self.gains.len()) as f64
    }

    /// One-sided p-value of "the gain is at least `margin`".
    pub fn p_at_least(&self, margin: f64) -> f64 {
        let count = self.gains.len() - self.gains.partition_point(|gain| *gain < margin);
        (1 + count) as f64 / (1 + self.gains.len()) as f64
    }

    /// One-sided lower bound of the gain: above `margin` exactly if [`p_at_most`](Self::p_at_most) is below `1 - confidence`.
    pub fn lower(&self, confidence: f64) -> f64 {
        self.gains[self.cut(confidence)]
    }

    /// One-sided upper bound of the gain.
    pub fn upper(&self, confidence: f64) -> f64 {
        self.gains[self.gains.len() - 1 - self.cut(confidence)]
    }

    /// Standard deviation of the resamples' gains.
    pub fn standard_error(&self) -> f64 {
        let count = self.gains.len() as f64;
        let mean = self.gains.iter().sum::<f64>() / count;
        (self.gains.iter().map(|gain| (gain - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0)).sqrt()
    }

    /// How many of the lowest resamples lie outside the one-sided bound: the most for which p stays below 1 - confidence.
    fn cut(&self, confidence: f64) -> usize {
        let count = self.gains.len();
        let outside = ((1.0 - confidence) * (count + 1) as f64).ceil() as usize;
        outside.saturating_sub(2).min(count - 1)
    }
}

/// The gain beyond the margin that rows with this standard error show with a power of [`POWER`].
pub fn minimum_detectable(standard_error: f64, confidence: f64) -> f64 {
    (normal_quantile(confidence) + normal_quantile(POWER)) * standard_error
}

/// Rows needed to show, with a power of [`POWER`], the gain that was seen. `None` if it does not go beyond the margin.
pub fn rows_needed(rows: u64, gain: f64, margin: f64, standard_error: f64, confidence: f64) -> Option<u64> {
    if gain <= margin {
        return None;
    }
    let factor = (minimum_detectable(standard_error, confidence) / (gain - margin)).powi(2);
    let needed = (rows as f64 * factor).ceil();
    // Beyond this the number says no more than "no number of rows".
    (needed < 1e12).then_some((needed as u64).max(rows + 1))
}

/// Holm's adjusted p-values, in the order given: each p times the number of p-values that are not smaller, made monotone.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut highest = 0.0f64;
    for (rank, index) in order.iter().enumerate() {
        highest = highest.max(p_values[*index] * (p_values.len() - rank) as f64).min(1.0);
        adjusted[*index] = highest;
    }
    adjusted
}

/// The standard normal quantile by Acklam's rational approximation (relative error below 1.2e-9), for advice only.
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    let polynomial = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&C, q) / (polynomial(&D, q) * q + 1.0)
    };
    if p < 0.024_25 {
        tail(p)
    } else if p > 1.0 - 0.024_25 {
        -tail(1.0 - p)
    } else {
        let (q, r) = (p - 0.5, (p - 0.5).powi(2));
        polynomial(&A, r) * q / (polynomial(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::judge::metrics::find;

    /// Expected values are exact binomial tails, computed with Python's `fractions`.
    fn check_mcnemar(wins: u64, losses: u64, expected: f64) {
        let got = mcnemar(wins, losses);
        assert!((got - expected).abs() <= expected * 1e-12, "{wins}:{losses}: {got} is not {expected}");
    }

    #[test]
    fn mcnemar_is_the_exact_binomial_tail() {
        check_mcnemar(0, 0, 1.0);
        check_mcnemar(0, 5, 1.0);
        check_mcnemar(4, 0, 0.0625);
        check_mcnemar(5, 0, 0.03125);
        check_mcnemar(8, 2, 0.054_687_5);
        check_mcnemar(30, 18, 0.055_701_445_530_509_375);
        check_mcnemar(60, 40, 0.028_443_966_820_490_39);
        check_mcnemar(2, 8, 0.989_257_812_5);
        check_mcnemar(1, 1, 0.75);
    }

    proptest! {
        #[test]
        fn more_wins_are_more_evidence(wins in 0u64..3000, losses in 0u64..3000) {
            let p = mcnemar(wins, losses);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&p));
            prop_assert!(mcnemar(wins + 1, losses) <= p + 1e-12);
            prop_assert!(mcnemar(wins, losses + 1) >= p - 1e-12);
            prop_assert!(p + mcnemar(losses, wins) >= 1.0 - 1e-9);
        }

        #[test]
        fn holm_is_never_smaller_and_keeps_the_order(p_values in proptest::collection::vec(0.0f64..=1.0, 1..8)) {
            let adjusted = holm(&p_values);
            for (a, p) in adjusted.iter().zip(&p_values) {
                prop_assert!(a >= p && *a <= 1.0);
            }
            for (i, j) in (0..p_values.len()).flat_map(|i| (0..p_values.len()).map(move |j| (i, j))) {
                prop_assert!(p_values[i] > p_values[j] || adjusted[i] <= adjusted[j]);
            }
        }
    }

    #[test]
    fn holm_table() {
        assert_eq!(holm(&[0.01, 0.04, 0.03]), [0.03, 0.06, 0.06]);
        assert_eq!(holm(&[0.2]), [0.2]);
    }

    #[test]
    fn normal_quantiles() {
        for (p, expected) in
            [(0.5, 0.0), (0.8, 0.841_621_233_572_914), (0.95, 1.644_853_626_951_472), (0.999, 3.090_232_306_167_813)]
        {
            assert!((normal_quantile(p) - expected).abs() < 1e-8, "{p}");
            assert!((normal_quantile(1.0 - p) + expected).abs() < 1e-8, "{p}");
        }
    }

    #[test]
    fn power_advice_agrees_with_the_tables() {
        // 60 % of the discordant rows won: 153 by (1.645 * 0.5 + 0.842 * sqrt(0.24))^2 / 0.01.
        assert_eq!(discordant_needed(Discordant { candidate: 60, champion: 40 }, 0.95), Some(153));
        assert_eq!(discordant_needed(Discordant { candidate: 4, champion: 0 }, 0.95), Some(5));
        assert_eq!(discordant_needed(Discordant { candidate: 2, champion: 2 }, 0.95), None);
        assert_eq!(discordant_needed(Discordant { candidate: 0, champion: 0 }, 0.95), None);
        assert_eq!(rows_needed(100, 0.0, 0.0, 0.1, 0.95), None);
        assert_eq!(rows_needed(100, 0.1, 0.0, 0.1, 0.95), Some(619));
    }

    fn resampling(goal: Goal, resamples: u32, seed: u64) -> Resampling {
        Resampling { goal, resamples, seed }
    }

    fn models() -> (Predictions, Predictions) {
        let mut new = "id,label,prediction,score\n".to_owned();
        let mut old = new.clone();
        for row in 0..200 {
            let label = u32::from(row % 10 == 0);
            let (new_said, old_said) = (if row % 40 == 0 { 0 } else { label }, if row % 20 == 0 { 0 } else { label });
            new += &format!("{row},{label},{new_said},{}\n", f64::from(row % 7) + 3.0 * f64::from(new_said));
            old += &format!("{row},{label},{old_said},{}\n", f64::from(row % 5) + 3.0 * f64::from(old_said));
        }
        (Predictions::parse(new.as_bytes()).expect("valid"), Predictions::parse(old.as_bytes()).expect("valid"))
    }

    #[test]
    fn the_bootstrap_is_the_same_for_a_seed_and_its_bounds_fit_its_p_values() {
        let (new, old) = models();
        for name in ["accuracy", "f1", "average_precision", "mae"] {
            let metric = find(name).expect(name);
            let one = bootstrap(metric, &new, &old, resampling(metric.goal, 2000, 7)).expect("computed");
            assert_eq!(
                one,
                bootstrap(metric, &new, &old, resampling(metric.goal, 2000, 7)).expect("computed"),
                "{name}"
            );
            assert_ne!(
                one,
                bootstrap(metric, &new, &old, resampling(metric.goal, 2000, 8)).expect("computed"),
                "{name}"
            );
            for confidence in [0.9, 0.95, 0.99] {
                for margin in [-0.01, 0.0, one.lower(confidence), 0.01, 0.05, one.upper(confidence)] {
                    let (won, lost) = (one.lower(confidence) > margin, one.upper(confidence) < margin);
                    assert_eq!(won, one.p_at_most(margin) < 1.0 - confidence, "{name} {confidence} {margin}");
                    assert_eq!(lost, one.p_at_least(margin) < 1.0 - confidence, "{name} {confidence} {margin}");
                }
            }
        }
    }

    #[test]
    fn the_bootstrap_of_a_mean_has_its_known_standard_error() {
        // Accuracy gains per row are 5 of +1 in 20 positives: within that stratum the variance is 0.25 * 0.75.
        let (new, old) = models();
        let got = bootstrap(find("accuracy").expect("known"), &new, &old, resampling(Goal::Maximize, 20_000, 1))
            .expect("computed");
        assert!((gain(Goal::Maximize, got.candidate, got.champion) - 5.0 / 200.0).abs() < 1e-12);
        let expected = (20.0f64 * 0.25 * 0.75).sqrt() / 200.0;
        assert!((got.standard_error() / expected - 1.0).abs() < 0.02, "{} {expected}", got.standard_error());
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn swapping_the_sides_mirrors_the_gains(answers in proptest::collection::vec((0u8..2, 0u8..2, 0u8..2), 4..60), seed: u64) {
            let text = |pick: fn(&(u8, u8, u8)) -> u8| {
                let rows = answers.iter().enumerate().map(|(i, row)| format!("{i},{},{}\n", row.0, pick(row)));
                Predictions::parse(format!("id,label,prediction\n{}", rows.collect::<String>()).as_bytes()).expect("valid")
            };
            let (new, old) = (text(|row| row.1), text(|row| row.2));
            let metric = find("accuracy").expect("known");
            let one = bootstrap(metric, &new, &old, resampling(Goal::Maximize, 200, seed)).expect("computed");
            let other = bootstrap(metric, &old, &new, resampling(Goal::Maximize, 200, seed)).expect("computed");
            prop_assert_eq!(one.lower(0.9), -other.upper(0.9));
            prop_assert!(!(one.lower(0.9) > 0.0 && other.lower(0.9) > 0.0));
        }
    }
}
