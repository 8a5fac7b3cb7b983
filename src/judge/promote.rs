//! Whether a candidate becomes the champion: the `promote` stage's rules applied to evidence.
//!
//! Every condition ends as holds, fails, inconclusive or error ([`Finding`]); the verdict is the worst of them. A condition
//! that cannot be looked at for want of evidence is inconclusive, never passed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::judge::better::{self, Measured};
use crate::judge::finding::{Finding, Outcome, Role, Source};
use crate::judge::guardrail;
use crate::judge::metrics;
use crate::judge::paired;
use crate::judge::predictions::{PairError, Predictions, check_pair};
use crate::pipeline::types::{self, Promote};

/// What is known about one version of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct SideEvidence {
    /// Its number in the registry.
    pub version: u64,
    /// Digest of the artifact: equal digests are one model.
    pub artifact_digest: String,
    /// Recorded metrics by dotted name: the metrics file's, and other stages' as `stage.metric`.
    pub metrics: BTreeMap<String, f64>,
    /// Predictions on held-out rows.
    pub predictions: Option<Predictions>,
    /// Whether the predictions were made now, on the candidate's rows; false for those stored with the version.
    pub scored_now: bool,
}

/// All evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The version that was just trained.
    pub candidate: SideEvidence,
    /// The version that serves now; `None` if this is the model's first.
    pub champion: Option<SideEvidence>,
}

/// The verdict on a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It becomes the champion.
    Promoted,
    /// It does not: a condition fails.
    Rejected,
    /// Too little evidence: held for a person.
    Inconclusive,
    /// It is the champion already.
    Unchanged,
    /// It could not be judged.
    Error,
}

impl Verdict {
    /// The word that reports use.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Promoted => "promoted",
            Verdict::Rejected => "rejected",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Unchanged => "unchanged",
            Verdict::Error => "error",
        }
    }
}

/// A verdict with everything that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// What came out.
    pub verdict: Verdict,
    /// Why, in one sentence for people.
    pub reason: String,
    /// The model's registry name.
    pub model: String,
    /// The candidate's version.
    pub candidate: u64,
    /// The champion's version, if there is one.
    pub champion: Option<u64>,
    /// Every condition, `better_if` first, in the order written.
    pub findings: Vec<Finding>,
    /// Digest of the candidate's held-out rows (ids and labels).
    pub rows_digest: Option<String>,
    /// How many these are.
    pub rows: Option<u64>,
    /// Whether both models' predictions are of these very rows.
    pub same_rows: bool,
    /// The class that `f1`, `precision`, `recall` and scores are about, in a task of two classes.
    pub positive_class: Option<String>,
    /// Remarks that change nothing, such as a recorded metric that the predictions do not bear out.
    pub notes: Vec<String>,
}

impl Judgement {
    /// Whether the stage fails: the verdict is an error, or one of those named by `fail_on`.
    pub fn fails_stage(&self, fail_on: &[types::Finding]) -> bool {
        match self.verdict {
            Verdict::Promoted | Verdict::Unchanged => false,
            Verdict::Rejected => fail_on.contains(&types::Finding::Rejected),
            Verdict::Inconclusive => fail_on.contains(&types::Finding::Inconclusive),
            Verdict::Error => true,
        }
    }
}

impl SideEvidence {
    /// The metric as computed from this version's predictions, or else as recorded.
    pub(super) fn value(&self, name: &str) -> Option<(f64, Source)> {
        let computed = || metrics::find(name)?.of(self.predictions.as_ref()?).ok();
        let recorded = || self.metrics.get(name).copied().filter(|value| value.is_finite());
        computed().map(|value| (value, Source::Predictions)).or_else(|| Some((recorded()?, Source::Recorded)))
    }
}

/// Candidate and champion, and whether their rows are the same.
#[derive(Debug)]
pub struct Sides<'a> {
    candidate: &'a SideEvidence,
    champion: &'a SideEvidence,
    pairing: Result<(&'a Predictions, &'a Predictions), (Outcome, String)>,
}

impl<'a> Sides<'a> {
    fn new(candidate: &'a SideEvidence, champion: &'a SideEvidence) -> Self {
        Self { candidate, champion, pairing: pair(candidate, champion) }
    }

    /// Both predictions, if they are of the same rows.
    pub(super) fn same_rows(&self) -> Option<(&'a Predictions, &'a Predictions)> {
        self.pairing.as_ref().ok().copied()
    }

    /// Both predictions, or what to say where a test needs them.
    pub(super) fn need_rows(&self) -> Result<(&'a Predictions, &'a Predictions), (Outcome, String)> {
        self.pairing.clone()
    }

    /// Both sides' values from one source: predictions of the same rows, or as recorded. The error names the side that has
    /// no such metric.
    pub(super) fn values(&self, name: &str) -> Result<(f64, f64, Source), &'static str> {
        if let (Some((new, old)), Some(metric)) = (self.same_rows(), metrics::find(name))
            && let (Ok(new), Ok(old)) = (metric.of(new), metric.of(old))
        {
            return Ok((new, old, Source::Predictions));
        }
        let recorded = |side: &SideEvidence| side.metrics.get(name).copied().filter(|value| value.is_finite());
        let candidate = recorded(self.candidate).ok_or("candidate")?;
        let champion = recorded(self.champion).ok_or("champion")?;
        Ok((candidate, champion, Source::Recorded))
    }
}

fn pair<'a>(
    candidate: &'a SideEvidence,
    champion: &'a SideEvidence,
) -> Result<(&'a Predictions, &'a Predictions), (Outcome, String)> {
    const ADD: &str =
        "add `evaluation` and `score` to the `train` stage, so that a champion can be scored again on new rows";
    let unclear = |words: String| (Outcome::Inconclusive, words);
    let new = candidate.predictions.as_ref().ok_or_else(|| {
        unclear("the candidate has no predictions; add `predictions` to the `train` stage".to_owned())
    })?;
    let old = champion.predictions.as_ref().ok_or_else(|| {
        unclear(format!("the champion v{} has no predictions on these rows; {ADD}", champion.version))
    })?;
    check_pair(new, old).map(|()| (new, old)).map_err(|error| match &error {
        PairError::OtherRows { .. } if !champion.scored_now => {
            unclear(format!("the champion's stored predictions cannot serve, {error}; {ADD}"))
        }
        PairError::OtherRows { .. } => (
            Outcome::Error,
            format!("the champion was scored again, but not on the candidate's rows, {error}; its `score` must write one line for every row of `$EVALUATION`"),
        ),
        PairError::LabelsDiffer { .. } => (Outcome::Error, error.to_string()),
    })
}

/// Judges a candidate.
pub fn judge(spec: &Promote, evidence: &Evidence) -> Judgement {
    let candidate = &evidence.candidate;
    let mut judgement = Judgement {
        verdict: Verdict::Unchanged,
        reason: String::new(),
        model: spec.model.clone(),
        candidate: candidate.version,
        champion: evidence.champion.as_ref().map(|champion| champion.version),
        findings: Vec::new(),
        rows_digest: candidate.predictions.as_ref().map(Predictions::rows_digest),
        rows: candidate.predictions.as_ref().map(|predictions| predictions.rows().len() as u64),
        same_rows: false,
        positive_class: candidate.predictions.as_ref().and_then(metrics::positive_class),
        notes: notes(spec, candidate),
    };
    match &evidence.champion {
        None => first_version(spec, candidate, &mut judgement),
        Some(champion) if champion.version == candidate.version => {
            judgement.reason = format!("v{} is the champion already", champion.version);
        }
        Some(champion) if champion.artifact_digest == candidate.artifact_digest => {
            judgement.reason = format!(
                "v{} and the champion v{} are the same model, byte for byte",
                candidate.version, champion.version
            );
        }
        Some(champion) => against_champion(spec, candidate, champion, &mut judgement),
    }
    judgement
}

fn first_version(spec: &Promote, candidate: &SideEvidence, judgement: &mut Judgement) {
    for (name, rule) in &spec.better_if {
        let value = candidate.value(name).map(|(value, _)| value);
        if value.is_none() {
            judgement.notes.push(format!(
                "{}, so the next version cannot be compared by it",
                guardrail::missing(name, "candidate")
            ));
        }
        judgement.findings.push(better::not_compared(name, rule, value));
    }
    let limits = spec.guardrails.iter().filter_map(|(name, rule)| guardrail::limits(name, rule, candidate));
    judgement.findings.extend(limits);
    let held = judgement.findings.iter().filter(|finding| finding.role == Role::Guardrail).count();
    let all_well = match held {
        0 => format!("v{} is the first version of this model, so there is nothing to beat", candidate.version),
        _ => format!("v{} is the first version of this model and keeps to its absolute limits", candidate.version),
    };
    conclude(judgement, &all_well);
}

fn against_champion(spec: &Promote, candidate: &SideEvidence, champion: &SideEvidence, judgement: &mut Judgement) {
    let sides = Sides::new(candidate, champion);
    judgement.same_rows = sides.same_rows().is_some();
    let measured: Vec<Measured> =
        spec.better_if.iter().map(|(name, rule)| better::measure(name, rule, &sides)).collect();
    let p_values: Vec<f64> = measured.iter().filter_map(Measured::p).collect();
    let mut adjusted = paired::holm(&p_values).into_iter();
    for ((name, rule), measured) in spec.better_if.iter().zip(measured) {
        let p_adjusted = measured.p().and_then(|_| adjusted.next());
        judgement.findings.push(better::finding(name, rule, measured, p_adjusted));
    }
    for (name, rule) in &spec.guardrails {
        judgement.findings.extend(guardrail::limits(name, rule, candidate));
        judgement.findings.extend(guardrail::loss(name, rule, &sides));
    }
    if spec.better_if.is_empty() {
        // The language asks for `better_if`; without it nothing shows that the candidate is better.
        judgement.verdict = Verdict::Error;
        judgement.reason = "`better_if` names no metric, so nothing can show that the candidate is better".to_owned();
        return;
    }
    let won: Vec<&str> = judgement
        .findings
        .iter()
        .filter(|finding| finding.role == Role::BetterIf)
        .map(|finding| finding.sentence.as_str())
        .collect();
    let all_well = format!("v{} is better than v{}: {}", candidate.version, champion.version, won.join("; "));
    conclude(judgement, &all_well);
}

/// The verdict is the worst outcome; the reason is its first sentence.
fn conclude(judgement: &mut Judgement, all_well: &str) {
    let first = |outcome| judgement.findings.iter().find(|finding| finding.outcome == outcome);
    let than = judgement.champion.map(|champion| format!(" than v{champion}")).unwrap_or_default();
    let candidate = judgement.candidate;
    let (verdict, reason) = if let Some(finding) = first(Outcome::Error) {
        (Verdict::Error, format!("v{candidate} could not be judged: {}", finding.sentence))
    } else if let Some(finding) = first(Outcome::Fails) {
        let what = match finding.role {
            Role::BetterIf => format!("v{candidate} is not better{than}"),
            Role::Guardrail => format!("v{candidate} breaks a guardrail"),
        };
        (Verdict::Rejected, format!("{what}: {}", finding.sentence))
    } else if let Some(finding) = first(Outcome::Inconclusive) {
        let what = match finding.role {
            Role::BetterIf => format!("it is not shown that v{candidate} is better{than}"),
            Role::Guardrail => format!("it is not shown that v{candidate} keeps to a guardrail"),
        };
        (Verdict::Inconclusive, format!("{what}: {}", finding.sentence))
    } else {
        (Verdict::Promoted, all_well.to_owned())
    };
    judgement.verdict = verdict;
    judgement.reason = reason;
}

fn notes(spec: &Promote, candidate: &SideEvidence) -> Vec<String> {
    let mut notes = Vec::new();
    let goals = spec.better_if.iter().map(|(name, rule)| (name, rule.goal));
    let goals = goals.chain(spec.guardrails.iter().map(|(name, rule)| (name, rule.goal)));
    for (name, goal) in goals {
        let Some(metric) = metrics::find(name) else { continue };
        if metric.goal != goal {
            notes.push(format!("`{name}` is judged against its usual goal: it is {}", metric.meaning));
        }
        let recorded = candidate.metrics.get(name);
        let computed = candidate.predictions.as_ref().and_then(|predictions| metric.of(predictions).ok());
        if let (Some(recorded), Some(computed)) = (recorded, computed)
            && (recorded - computed).abs() > 1e-6 * (1.0 + computed.abs())
        {
            notes.push(format!(
                "the candidate's metrics say `{name}` is {recorded}, its predictions give {computed}; the predictions count"
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::judge::finding::Test;
    use crate::pipeline::types::{BetterIf, Deploy, Goal, Guardrail, Loss, PairedTest};

    fn rule(test: PairedTest) -> BetterIf {
        BetterIf { goal: Goal::Maximize, min_gain: 0.0, test, confidence: 0.95, resamples: 2000, seed: 7 }
    }

    fn spec(better_if: &[(&str, BetterIf)], guardrails: &[(&str, Guardrail)]) -> Promote {
        Promote {
            model: "m".into(),
            better_if: better_if.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect(),
            guardrails: guardrails.iter().map(|(name, rule)| ((*name).to_owned(), rule.clone())).collect(),
            fail_on: vec![],
            approval_manual: false,
            deploy: Deploy::None,
        }
    }

    /// `right[i]` says whether the model gets row `i` right; every fifth row is of class 1.
    fn side(version: u64, right: impl Iterator<Item = bool>) -> SideEvidence {
        let rows = right.enumerate().map(|(row, right)| {
            let label = row % 5 == 0;
            format!("{row},{},{}\n", u8::from(label), u8::from(label == right))
        });
        let text = format!("id,label,prediction\n{}", rows.collect::<String>());
        SideEvidence {
            version,
            artifact_digest: format!("digest-{version}"),
            metrics: BTreeMap::new(),
            predictions: Some(Predictions::parse(text.as_bytes()).expect("valid")),
            scored_now: false,
        }
    }

    fn numbers(version: u64, metrics: &[(&str, f64)]) -> SideEvidence {
        SideEvidence {
            version,
            artifact_digest: format!("digest-{version}"),
            metrics: metrics.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            predictions: None,
            scored_now: false,
        }
    }

    fn check(
        spec: &Promote,
        candidate: SideEvidence,
        champion: SideEvidence,
        verdict: Verdict,
        reason: &str,
    ) -> Judgement {
        let got = judge(spec, &Evidence { candidate, champion: Some(champion) });
        assert_eq!((got.verdict, got.reason.as_str()), (verdict, reason), "{got:#?}");
        let text = serde_json::to_string(&got).expect("serialises");
        assert_eq!(serde_json::from_str::<Judgement>(&text).expect("reads back"), got);
        got
    }

    /// Right on all rows but those below `wrong`.
    fn wrong_below(rows: usize, wrong: usize) -> impl Iterator<Item = bool> {
        (0..rows).map(move |row| row >= wrong)
    }

    #[test]
    fn mcnemar_promotes_rejects_and_holds() {
        let spec = spec(&[("accuracy", rule(PairedTest::Mcnemar))], &[]);
        check(
            &spec,
            side(2, wrong_below(100, 10)),
            side(1, wrong_below(100, 20)),
            Verdict::Promoted,
            "v2 is better than v1: `accuracy` is 0.9 against 0.8: of 100 rows, 10 only the candidate and 0 only the champion got right; exact McNemar, p 9.77e-4",
        );
        check(
            &spec,
            side(2, wrong_below(100, 20)),
            side(1, wrong_below(100, 10)),
            Verdict::Rejected,
            "v2 is not better than v1: `accuracy` is 0.8 against 0.9: of 100 rows, 0 only the candidate and 10 only the champion got right; it is worse (exact McNemar, p 9.77e-4)",
        );
        check(
            &spec,
            side(2, wrong_below(100, 10)),
            side(1, wrong_below(100, 13)),
            Verdict::Inconclusive,
            "it is not shown that v2 is better than v1: `accuracy` is 0.9 against 0.87: of 100 rows, 3 only the candidate and 0 only the champion got right; p 0.125 must be below 0.05; about 167 held-out rows like these would be needed to tell, and there are 100",
        );
        check(
            &spec,
            side(2, wrong_below(100, 10)),
            side(1, wrong_below(100, 10)),
            Verdict::Inconclusive,
            "it is not shown that v2 is better than v1: `accuracy` is 0.9 against 0.9: of 100 rows, 0 only the candidate and 0 only the champion got right; p 1 must be below 0.05; more rows like these would not show a gain, since there is none in them",
        );
    }

    #[test]
    fn a_gain_below_min_gain_is_rejected_by_mcnemar() {
        let spec = spec(&[("accuracy", BetterIf { min_gain: 0.2, ..rule(PairedTest::Mcnemar) })], &[]);
        let got = judge(
            &spec,
            &Evidence { candidate: side(2, wrong_below(100, 10)), champion: Some(side(1, wrong_below(100, 20))) },
        );
        assert_eq!(got.verdict, Verdict::Rejected);
        assert!(got.reason.ends_with("a gain of 0.1 that must be more than 0.2"), "{}", got.reason);
    }

    #[test]
    fn bootstrap_of_f1() {
        let spec = spec(&[("f1", rule(PairedTest::Bootstrap))], &[]);
        let verdict = |new, old| {
            judge(
                &spec,
                &Evidence { candidate: side(2, wrong_below(300, new)), champion: Some(side(1, wrong_below(300, old))) },
            )
        };
        assert_eq!(verdict(10, 40).verdict, Verdict::Promoted);
        assert_eq!(verdict(40, 10).verdict, Verdict::Rejected);
        let close = verdict(10, 11);
        assert_eq!(close.verdict, Verdict::Inconclusive);
        assert!(close.reason.contains("held-out rows like these would be needed"), "{}", close.reason);
        assert_eq!(close.positive_class.as_deref(), Some("1"));
        assert!(close.same_rows);
    }

    #[test]
    fn several_tests_are_adjusted_by_holm() {
        let better = [("accuracy", rule(PairedTest::Mcnemar)), ("f1", rule(PairedTest::Bootstrap))];
        // 5 : 0 gives p 0.031 alone, which is not enough as the larger of two is multiplied by 1, the smaller by 2.
        let sides =
            || Evidence { candidate: side(2, wrong_below(100, 0)), champion: Some(side(1, wrong_below(100, 5))) };
        assert_eq!(judge(&spec(&better[..1], &[]), &sides()).verdict, Verdict::Promoted);
        let got = judge(&spec(&better, &[]), &sides());
        let adjusted: Vec<f64> = got
            .findings
            .iter()
            .map(|finding| match finding.test {
                Test::Mcnemar { p, p_adjusted, .. } | Test::Bootstrap { p, p_adjusted, .. } => p_adjusted / p,
                Test::None | Test::Point { .. } | Test::Limits { .. } => panic!("a test was asked for"),
            })
            .collect();
        assert!(adjusted.iter().any(|factor| *factor > 1.0), "{got:#?}");
    }

    #[test]
    fn plain_numbers_and_missing_metrics() {
        let better = spec(&[("quality", rule(PairedTest::None))], &[]);
        check(
            &better,
            numbers(2, &[("quality", 0.9)]),
            numbers(1, &[("quality", 0.8)]),
            Verdict::Promoted,
            "v2 is better than v1: `quality` is 0.9 against 0.8: a gain of 0.1, more than 0 (from recorded metrics, without a test)",
        );
        check(
            &better,
            numbers(2, &[("quality", 0.8)]),
            numbers(1, &[("quality", 0.8)]),
            Verdict::Rejected,
            "v2 is not better than v1: `quality` is 0.8 against 0.8: a gain of 0, and must be more than 0 (from recorded metrics, without a test)",
        );
        for (new, old, who) in
            [(None, Some(1.0), "candidate"), (Some(1.0), None, "champion"), (Some(f64::NAN), Some(1.0), "candidate")]
        {
            let metrics = |value: Option<f64>| value.map(|value| ("quality", value)).into_iter().collect::<Vec<_>>();
            check(
                &better,
                numbers(2, &metrics(new)),
                numbers(1, &metrics(old)),
                Verdict::Inconclusive,
                &format!("it is not shown that v2 is better than v1: the {who} has no metric `quality`"),
            );
        }
    }

    fn guard(goal: Goal, max_loss: Option<Loss>, min: Option<f64>, max: Option<f64>) -> Guardrail {
        Guardrail { goal, max_loss, min, max }
    }

    #[test]
    fn guardrails_by_number() {
        let table = [
            (Loss::Relative(0.1), 100.0, 110.0, Verdict::Promoted),
            (Loss::Relative(0.1), 100.0, 111.0, Verdict::Rejected),
            (Loss::Absolute(5.0), 100.0, 105.0, Verdict::Promoted),
            (Loss::Absolute(5.0), 100.0, 105.5, Verdict::Rejected),
            (Loss::Relative(0.1), 0.0, 0.0, Verdict::Promoted),
            (Loss::Relative(0.1), 0.0, 0.001, Verdict::Rejected),
            (Loss::Relative(0.1), -100.0, -90.0, Verdict::Promoted),
        ];
        for (loss, old, new, expected) in table {
            let spec = spec(
                &[("q", rule(PairedTest::None))],
                &[("loadtest.p95_ms", guard(Goal::Minimize, Some(loss), None, None))],
            );
            let evidence = Evidence {
                candidate: numbers(2, &[("q", 2.0), ("loadtest.p95_ms", new)]),
                champion: Some(numbers(1, &[("q", 1.0), ("loadtest.p95_ms", old)])),
            };
            let got = judge(&spec, &evidence);
            assert_eq!(got.verdict, expected, "{loss:?} {old} {new}: {}", got.reason);
        }
        let spec = spec(
            &[("q", rule(PairedTest::None))],
            &[("p95", guard(Goal::Minimize, Some(Loss::Relative(0.1)), None, None))],
        );
        check(
            &spec,
            numbers(2, &[("q", 2.0)]),
            numbers(1, &[("q", 1.0), ("p95", 1.0)]),
            Verdict::Inconclusive,
            "it is not shown that v2 keeps to a guardrail: the candidate has no metric `p95`",
        );
    }

    #[test]
    fn guardrails_by_resampling_are_three_valued() {
        let verdict = |max_loss, wrong| {
            let spec = spec(
                &[("q", rule(PairedTest::None))],
                &[("recall", guard(Goal::Maximize, Some(Loss::Absolute(max_loss)), None, None))],
            );
            let with_q = |side: SideEvidence, q| SideEvidence { metrics: [("q".to_owned(), q)].into(), ..side };
            let evidence = Evidence {
                candidate: with_q(side(2, wrong_below(300, wrong)), 2.0),
                champion: Some(with_q(side(1, wrong_below(300, 20)), 1.0)),
            };
            judge(&spec, &evidence)
        };
        assert_eq!(verdict(0.0, 20).verdict, Verdict::Promoted);
        assert_eq!(verdict(0.2, 30).verdict, Verdict::Promoted);
        assert_eq!(verdict(0.05, 30).verdict, Verdict::Inconclusive);
        assert_eq!(verdict(0.01, 100).verdict, Verdict::Rejected);
    }

    #[test]
    fn a_first_version_needs_only_its_absolute_limits() {
        let spec = spec(
            &[("quality", rule(PairedTest::Bootstrap))],
            &[
                ("accuracy", guard(Goal::Maximize, Some(Loss::Absolute(0.01)), Some(0.9), None)),
                ("p95", guard(Goal::Minimize, None, None, Some(200.0))),
            ],
        );
        let verdict =
            |metrics: &[(&str, f64)]| judge(&spec, &Evidence { candidate: numbers(1, metrics), champion: None });
        let well = verdict(&[("accuracy", 0.95), ("p95", 100.0)]);
        assert_eq!(well.verdict, Verdict::Promoted);
        assert_eq!(well.reason, "v1 is the first version of this model and keeps to its absolute limits");
        assert_eq!(well.notes, ["the candidate has no metric `quality`, so the next version cannot be compared by it"]);
        let broken = verdict(&[("accuracy", 0.95), ("p95", 250.0)]);
        assert_eq!(broken.verdict, Verdict::Rejected);
        assert_eq!(broken.reason, "v1 breaks a guardrail: `p95` is 250, above its limit of 200");
        assert_eq!(verdict(&[("accuracy", 0.95)]).verdict, Verdict::Inconclusive);
        assert!(
            broken.fails_stage(&[types::Finding::Rejected]) && !broken.fails_stage(&[types::Finding::Inconclusive])
        );
    }

    #[test]
    fn the_champion_itself_is_unchanged() {
        let spec = spec(&[("accuracy", rule(PairedTest::Mcnemar))], &[]);
        let one = side(1, wrong_below(10, 0));
        check(&spec, one.clone(), one.clone(), Verdict::Unchanged, "v1 is the champion already");
        check(
            &spec,
            SideEvidence { version: 2, ..one.clone() },
            one,
            Verdict::Unchanged,
            "v2 and the champion v1 are the same model, byte for byte",
        );
    }

    #[test]
    fn other_rows_are_inconclusive_unless_scored_now_and_other_labels_an_error() {
        let spec = spec(&[("accuracy", rule(PairedTest::Mcnemar))], &[]);
        let verdict = |champion: SideEvidence| {
            judge(&spec, &Evidence { candidate: side(2, wrong_below(50, 0)), champion: Some(champion) })
        };
        let other = side(1, wrong_below(49, 9));
        let got = verdict(other.clone());
        assert_eq!(got.verdict, Verdict::Inconclusive);
        assert!(got.reason.contains("add `evaluation` and `score`"), "{}", got.reason);
        assert_eq!(verdict(SideEvidence { scored_now: true, ..other.clone() }).verdict, Verdict::Error);
        let none = verdict(SideEvidence { predictions: None, ..other.clone() });
        assert_eq!(none.verdict, Verdict::Inconclusive);
        let relabelled: String = (0..50).map(|row| format!("{row},1,1\n")).collect();
        let predictions = Predictions::parse(format!("id,label,prediction\n{relabelled}").as_bytes()).ok();
        let got = verdict(SideEvidence { predictions, ..other });
        assert_eq!(got.verdict, Verdict::Error);
        assert!(got.reason.contains("the label of id `1` is `0`"), "{}", got.reason);
        assert!(got.fails_stage(&[]));
    }

    #[test]
    fn impossible_wishes_are_errors() {
        let sides = || (side(2, wrong_below(50, 0)), side(1, wrong_below(50, 9)));
        for (name, test) in [
            ("f1", PairedTest::Mcnemar),
            ("loadtest.p95_ms", PairedTest::Bootstrap),
            ("roc_auc", PairedTest::Bootstrap),
        ] {
            let (candidate, champion) = sides();
            let got = judge(&spec(&[(name, rule(test))], &[]), &Evidence { candidate, champion: Some(champion) });
            assert_eq!(got.verdict, Verdict::Error, "{name}: {}", got.reason);
        }
    }

    #[test]
    fn the_worst_outcome_decides() {
        let better: IndexMap<_, _> =
            [("accuracy".to_owned(), rule(PairedTest::Mcnemar)), ("q".to_owned(), rule(PairedTest::None))].into();
        let spec = Promote { better_if: better, ..spec(&[], &[]) };
        let with_q = |side: SideEvidence, q| SideEvidence { metrics: [("q".to_owned(), q)].into(), ..side };
        let verdict = |new_q| {
            let candidate = with_q(side(2, wrong_below(100, 0)), new_q);
            judge(&spec, &Evidence { candidate, champion: Some(with_q(side(1, wrong_below(100, 10)), 1.0)) }).verdict
        };
        assert_eq!(verdict(2.0), Verdict::Promoted);
        assert_eq!(verdict(0.5), Verdict::Rejected);
    }

    #[test]
    fn a_recorded_metric_that_predictions_do_not_bear_out_is_noted() {
        let spec = spec(&[("accuracy", rule(PairedTest::None))], &[]);
        let candidate = SideEvidence { metrics: [("accuracy".to_owned(), 0.99)].into(), ..side(2, wrong_below(10, 5)) };
        let got = judge(&spec, &Evidence { candidate, champion: Some(side(1, wrong_below(10, 6))) });
        assert_eq!(
            got.notes,
            ["the candidate's metrics say `accuracy` is 0.99, its predictions give 0.5; the predictions count"]
        );
        assert_eq!(got.findings[0].candidate, Some(0.5));
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
        #[test]
        fn never_both_better_than_each_other(
            answers in proptest::collection::vec((proptest::bool::weighted(0.8), proptest::bool::weighted(0.6)), 5..80),
            test in 0..3u8,
            min_gain in 0.0f64..0.1,
        ) {
            let (name, test) = [("accuracy", PairedTest::None), ("accuracy", PairedTest::Mcnemar), ("f1_macro", PairedTest::Bootstrap)][usize::from(test)];
            let spec = spec(&[(name, BetterIf { min_gain, resamples: 200, ..rule(test) })], &[]);
            let new = || side(2, answers.iter().map(|(new, _)| *new));
            let old = || side(1, answers.iter().map(|(_, old)| *old));
            let forth = judge(&spec, &Evidence { candidate: new(), champion: Some(old()) });
            let back = judge(&spec, &Evidence { candidate: old(), champion: Some(new()) });
            prop_assert!(forth.verdict != Verdict::Promoted || back.verdict != Verdict::Promoted);
            prop_assert_eq!(judge(&spec, &Evidence { candidate: new(), champion: Some(old()) }), forth);
        }
    }
}
