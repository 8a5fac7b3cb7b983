//! Verdicts on evidence made for them.

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

fn check(spec: &Promote, candidate: SideEvidence, champion: SideEvidence, verdict: Verdict, reason: &str) -> Judgement {
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
    let sides = || Evidence { candidate: side(2, wrong_below(100, 0)), champion: Some(side(1, wrong_below(100, 5))) };
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
    let verdict = |metrics: &[(&str, f64)]| judge(&spec, &Evidence { candidate: numbers(1, metrics), champion: None });
    let well = verdict(&[("accuracy", 0.95), ("p95", 100.0)]);
    assert_eq!(well.verdict, Verdict::Promoted);
    assert_eq!(well.reason, "v1 is the first version of this model and keeps to its absolute limits");
    assert_eq!(well.notes, ["the candidate has no metric `quality`, so the next version cannot be compared by it"]);
    let broken = verdict(&[("accuracy", 0.95), ("p95", 250.0)]);
    assert_eq!(broken.verdict, Verdict::Rejected);
    assert_eq!(broken.reason, "v1 breaks a guardrail: `p95` is 250, above its limit of 200");
    assert_eq!(verdict(&[("accuracy", 0.95)]).verdict, Verdict::Inconclusive);
    assert!(broken.fails_stage(&[types::Finding::Rejected]) && !broken.fails_stage(&[types::Finding::Inconclusive]));
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

/// The candidate's numbers are the better ones, and of easier rows.
#[test]
fn numbers_of_other_rows_are_not_compared() {
    let recorded = |side: SideEvidence, accuracy: f64| SideEvidence {
        metrics: [("accuracy".to_owned(), accuracy), ("q".to_owned(), accuracy)].into(),
        ..side
    };
    let (candidate, champion) =
        (recorded(side(2, wrong_below(50, 0)), 1.0), recorded(side(1, wrong_below(49, 9)), 0.8));
    let verdict = |metric: &str, champion: &SideEvidence| {
        let spec = spec(&[(metric, rule(PairedTest::None))], &[]);
        judge(&spec, &Evidence { candidate: candidate.clone(), champion: Some(champion.clone()) })
    };
    let got = verdict("accuracy", &champion);
    assert_eq!(got.verdict, Verdict::Inconclusive, "{}", got.reason);
    assert!(got.reason.contains("add `evaluation` and `score`"), "{}", got.reason);
    // No metric of predictions, and a champion that keeps none: as recorded, as the rule asks for no test.
    assert_eq!(verdict("q", &champion).verdict, Verdict::Promoted);
    assert_eq!(verdict("accuracy", &SideEvidence { predictions: None, ..champion }).verdict, Verdict::Promoted);
}

#[test]
fn impossible_wishes_are_errors() {
    let sides = || (side(2, wrong_below(50, 0)), side(1, wrong_below(50, 9)));
    for (name, test) in
        [("f1", PairedTest::Mcnemar), ("loadtest.p95_ms", PairedTest::Bootstrap), ("roc_auc", PairedTest::Bootstrap)]
    {
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
