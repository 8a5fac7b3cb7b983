//! Whether a candidate becomes the champion: the `promote` stage's rules applied to evidence.
//!
//! Every condition ends as holds, fails, inconclusive or error ([`Finding`]); the verdict is the worst of them. A condition
//! that cannot be looked at for want of evidence is inconclusive, never passed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::judge::better::{self, Measured};
use crate::judge::classes;
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

    /// Both sides' values from one source: predictions of the same rows, or as recorded. What both models predicted for other
    /// rows is not compared, and neither is what was recorded of that. The error is what to say instead.
    pub(super) fn values(&self, name: &str) -> Result<(f64, f64, Source), (Outcome, String)> {
        if let Some(metric) = metrics::find(name) {
            match &self.pairing {
                Ok((new, old)) => {
                    if let (Ok(new), Ok(old)) = (metric.of(new), metric.of(old)) {
                        return Ok((new, old, Source::Predictions));
                    }
                }
                Err((outcome, words))
                    if self.candidate.predictions.is_some() && self.champion.predictions.is_some() =>
                {
                    return Err((*outcome, format!("`{name}`: {words}")));
                }
                Err(_) => {}
            }
        }
        let recorded = |side: &SideEvidence, who| {
            let value = side.metrics.get(name).copied().filter(|value| value.is_finite());
            value.ok_or_else(|| (Outcome::Inconclusive, guardrail::missing(name, who)))
        };
        Ok((recorded(self.candidate, "candidate")?, recorded(self.champion, "champion")?, Source::Recorded))
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
        positive_class: candidate.predictions.as_ref().and_then(classes::positive_class),
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
mod tests;
