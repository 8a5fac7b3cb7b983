//! The evidence of a promotion: both models' numbers, and both models' predictions on the same rows, made now where the
//! stored ones are of other rows.

use std::path::Path;
use std::sync::Arc;

use super::attempt::{Attempt, Halt};
use super::kind::plain;
use super::scratch::Scratch;
use super::unit;
use super::workspace;
use crate::artifact::manifest::{FileEntry, Manifest};
use crate::build::status::FailureKind;
use crate::ids::{BuildId, NodeKey};
use crate::judge::metrics;
use crate::judge::predictions::Predictions;
use crate::judge::promote::{Evidence, Judgement, SideEvidence, Verdict, judge};
use crate::model::score::score;
use crate::pipeline::types::{Kind, Network, PairedTest, Promote, Step, Work};
use crate::runner::spec::UnitSpec;
use crate::store::models::{self, Promotion, VersionRow};
use crate::store::results;

/// Largest predictions file that is read.
const PREDICTIONS: u64 = 1 << 30;
/// Where a champion that is scored again finds the rows, beside its own files.
const EVALUATION: &str = ".orchestrator/evaluation";
/// Where it writes its predictions.
const SCORED: &str = ".orchestrator/predictions.csv";

/// A candidate and the champion that it is judged against.
pub struct Case {
    /// The candidate.
    pub candidate: VersionRow,
    /// The champion, if there is one.
    pub champion: Option<VersionRow>,
    evidence: Evidence,
    /// A person turned this very model down.
    turned_down: Option<Promotion>,
}

impl Case {
    /// Has it judged. What a person turned down does not come back by itself, however good its numbers are: that person knew
    /// them, too.
    pub fn judge(&self, spec: &Promote) -> Judgement {
        let mut judgement = judge(spec, &self.evidence);
        if let Some(back) = self.turned_down.as_ref().filter(|_| judgement.verdict == Verdict::Promoted) {
            judgement.verdict = Verdict::Rejected;
            judgement.reason = turned_down(&judgement, back);
        }
        judgement
    }
}

fn turned_down(judgement: &Judgement, by: &Promotion) -> String {
    let why = by.evidence.get("reason").and_then(serde_json::Value::as_str).unwrap_or_default();
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    let (model, candidate) = (&judgement.model, judgement.candidate);
    let (what, version) = match by.verdict.as_str() {
        "rejected" => ("rejected", Some(by.candidate)),
        _ => ("rolled back", by.champion),
    };
    let same = match version {
        Some(version) if version != candidate => format!("v{candidate} is v{version}, byte for byte, which"),
        Some(_) | None => format!("v{candidate}"),
    };
    format!(
        "{same} was {what} by {}{why}, though its numbers are good: `orchestrator promote {model} {candidate}` if it shall \
         serve after all",
        by.actor
    )
}

/// Gathers it.
///
/// # Errors
/// [`Halt`] if there is no candidate, or something stored cannot be read.
pub async fn gather(attempt: &mut Attempt, spec: &Promote) -> Result<Case, Halt> {
    let candidate = candidate(attempt, &spec.model).await?;
    let model = spec.model.clone();
    let store = &attempt.cx.build.engine.store;
    let (owner, champion) = store
        .read(move |db| {
            let champion = models::champion(db, &model)?;
            let champion = champion.map(|version| models::version(db, &model, version)).transpose()?;
            Ok((models::owner(db, &model)?, champion))
        })
        .await
        .map_err(Halt::internal)?;
    same_project(attempt, &spec.model, owner, champion.as_ref())?;
    let mut side = side(attempt, &candidate, attempt.cx.build.id).await?;
    let mut against = None;
    if let Some(champion) = &champion {
        let made_champion = made_champion(attempt, champion).await?;
        let mut other = self::side(attempt, champion, made_champion).await?;
        let same_model = champion.version == candidate.version || champion.artifact == candidate.artifact;
        if !same_model && wants_pairs(spec) {
            pair(attempt, &candidate, champion, &mut side, &mut other).await?;
        }
        against = Some(other);
    }
    tell_reuse_of_rows(attempt, spec, &side).await?;
    let (model, artifact) = (spec.model.clone(), candidate.artifact.clone());
    let store = &attempt.cx.build.engine.store;
    let turned_down = store.read(move |db| models::turned_down(db, &model, &artifact)).await.map_err(Halt::internal)?;
    Ok(Case { candidate, champion, turned_down, evidence: Evidence { candidate: side, champion: against } })
}

/// Earlier versions of this program let any project add versions to a model. What they left is no candidate of the one project,
/// and tells the other no numbers.
fn same_project(
    attempt: &Attempt,
    model: &str,
    owner: Option<String>,
    champion: Option<&VersionRow>,
) -> Result<(), Halt> {
    let project = &attempt.cx.build.request.project;
    if owner.is_some_and(|owner| owner != *project) {
        return Err(Halt::failed(FailureKind::Promote, models::belongs_elsewhere(model)));
    }
    match champion.filter(|champion| champion.lineage.project != *project) {
        None => Ok(()),
        Some(champion) => Err(Halt::failed(
            FailureKind::Promote,
            format!(
                "the champion of `{model}`, version {}, was made by another project and is not judged against: `orchestrator \
                 promote {model} VERSION` makes one of yours champion",
                champion.version
            ),
        )),
    }
}

fn wants_pairs(spec: &Promote) -> bool {
    let of_predictions = |name: &String| metrics::find(name).is_some();
    spec.better_if.iter().any(|(name, rule)| rule.test != PairedTest::None || of_predictions(name))
        || spec.guardrails.keys().any(of_predictions)
}

/// The version that a training before this stage registered or took over.
async fn candidate(attempt: &Attempt, model: &str) -> Result<VersionRow, Halt> {
    let build = &attempt.cx.build;
    let id = build.id;
    let trains = |node: &&usize| matches!(&build.expanded.plan.nodes[**node].stage.kind, Kind::Train(train) if train.model == model);
    let keys: Vec<NodeKey> =
        attempt.cx.good.iter().filter(trains).map(|&node| build.expanded.plan.nodes[node].key.clone()).collect();
    if keys.len() > 1 {
        let names: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        let text = format!(
            "{} all train `{model}`, and which is the candidate is not said: need one of them",
            names.join(", ")
        );
        return Err(Halt::failed(FailureKind::Promote, text));
    }
    let name = model.to_owned();
    let found = build.engine.store.read(move |db| {
        for key in keys.iter().rev() {
            let version = results::of_stage(db, id, key)?.and_then(|result| result.version);
            if let Some(version) = version
                && let Ok(row) = models::version(db, &name, version)
            {
                return Ok(Some(row));
            }
        }
        Ok(None)
    });
    found.await.map_err(Halt::internal)?.ok_or_else(|| {
        let text = format!("no stage before this one trained a version of `{model}`: add it to `needs`");
        Halt::failed(FailureKind::Promote, text)
    })
}

/// The build whose decision made this version champion: its load test is the champion's.
async fn made_champion(attempt: &Attempt, champion: &VersionRow) -> Result<BuildId, Halt> {
    let (model, version) = (champion.model.clone(), champion.version);
    let history = attempt.cx.build.engine.store.read(move |db| models::history(db, &model, 200));
    let made = history.await.map_err(Halt::internal)?.into_iter().find_map(|decision| {
        let it = decision.candidate == version && decision.verdict == "promoted";
        decision.stage.filter(|_| it).map(|(build, _)| build)
    });
    Ok(made.unwrap_or(champion.build))
}

/// One side: its own metrics, the numbers of the stages beside it as `<stage>.<metric>`, its stored predictions.
async fn side(attempt: &Attempt, version: &VersionRow, build: BuildId) -> Result<SideEvidence, Halt> {
    let here = &attempt.cx.build;
    let mut metrics = version.metrics.clone();
    for node in &here.expanded.plan.nodes {
        let key = node.key.clone();
        let row = here.engine.store.read(move |db| results::of_stage(db, build, &key)).await.map_err(Halt::internal)?;
        for (name, value) in row.map(|row| row.metrics).unwrap_or_default() {
            // What a stage measured counts, whatever the model's own file says under the same name.
            metrics.insert(format!("{}.{name}", node.key), value);
        }
    }
    Ok(SideEvidence {
        version: version.version,
        artifact_digest: version.artifact.clone(),
        metrics,
        predictions: stored_predictions(attempt, version).await?,
        scored_now: false,
    })
}

async fn outputs(attempt: &Attempt, version: &VersionRow) -> Result<Manifest, Halt> {
    let digest = version.outputs.parse().map_err(Halt::internal)?;
    let manifest = attempt.cx.build.engine.artifacts.manifest(&digest).await.map_err(Halt::internal)?;
    Ok(manifest.from_origin(&format!("version {} of `{}`", version.version, version.model)))
}

async fn stored_predictions(attempt: &Attempt, version: &VersionRow) -> Result<Option<Predictions>, Halt> {
    let Some(path) = &version.lineage.files.predictions else { return Ok(None) };
    let bytes = get(attempt, &outputs(attempt, version).await?, path).await?;
    parse(&bytes, path).map(Some)
}

async fn get(attempt: &Attempt, manifest: &Manifest, path: &str) -> Result<Vec<u8>, Halt> {
    let artifacts = &attempt.cx.build.engine.artifacts;
    artifacts
        .get_file(manifest, path, PREDICTIONS)
        .await
        .map_err(|error| Halt::failed(FailureKind::Promote, format!("`{path}`: {error}")))
}

fn parse(bytes: &[u8], path: &str) -> Result<Predictions, Halt> {
    Predictions::parse(bytes).map_err(|error| Halt::failed(FailureKind::Promote, format!("`{path}`: {error}")))
}

/// Has the champion score the candidate's rows, if its stored predictions are of others and it can.
async fn pair(
    attempt: &mut Attempt,
    candidate: &VersionRow,
    champion: &VersionRow,
    side: &mut SideEvidence,
    other: &mut SideEvidence,
) -> Result<(), Halt> {
    let Some(rows) = side.predictions.as_ref().map(Predictions::rows_digest) else { return Ok(()) };
    if other.predictions.as_ref().map(Predictions::rows_digest) == Some(rows) {
        attempt.log.note("both models' stored predictions are of the very same rows");
        return Ok(());
    }
    let Some(evaluation) = candidate.lineage.files.evaluation.clone() else {
        attempt.log.note(
            "the champion's predictions are of other rows, and this training names no `evaluation` to score it on",
        );
        return Ok(());
    };
    let scored = if champion.lineage.files.linfa {
        score_built_in(attempt, candidate, champion, &evaluation).await?
    } else if let Some(script) = champion.lineage.files.score.clone() {
        score_by_script(attempt, candidate, champion, &evaluation, script).await?
    } else {
        attempt
            .log
            .note("the champion's predictions are of other rows, and its version has no `score` to score it again");
        return Ok(());
    };
    attempt.log.note(&format!("champion version {} was scored on this build's rows", champion.version));
    other.predictions = Some(parse(&scored, "the champion's new predictions")?);
    other.scored_now = true;
    Ok(())
}

async fn score_built_in(
    attempt: &Attempt,
    candidate: &VersionRow,
    champion: &VersionRow,
    evaluation: &str,
) -> Result<Vec<u8>, Halt> {
    let scratch = Scratch::new(attempt)?;
    let model = get(attempt, &outputs(attempt, champion).await?, &champion.lineage.files.artifact).await?;
    let rows = get(attempt, &outputs(attempt, candidate).await?, evaluation).await?;
    let folder = scratch.input();
    // The extension says how the rows are written.
    let rows_file = Path::new(evaluation).file_name().unwrap_or(evaluation.as_ref()).to_owned();
    let done = tokio::task::spawn_blocking(move || -> Result<Vec<u8>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (model_file, rows_file, made) = (folder.join("model"), folder.join(rows_file), folder.join("predictions"));
        std::fs::write(&model_file, model).map_err(|error| text(&error))?;
        std::fs::write(&rows_file, rows).map_err(|error| text(&error))?;
        score(&model_file, &rows_file, &made).map_err(|error| text(&error))?;
        std::fs::read(&made).map_err(|error| text(&error))
    });
    done.await
        .map_err(Halt::internal)?
        .map_err(|error| Halt::failed(FailureKind::Promote, format!("the champion cannot be scored: {error}")))
}

/// The champion's own script, in its own image and source tree, with its own artifact, on these rows.
async fn score_by_script(
    attempt: &mut Attempt,
    candidate: &VersionRow,
    champion: &VersionRow,
    evaluation: &str,
    script: String,
) -> Result<Vec<u8>, Halt> {
    let build = Arc::clone(&attempt.cx.build);
    let mut tree = workspace::tree_of(&build.engine, champion).await.map_err(Halt::internal)?;
    let rows = outputs(attempt, candidate).await?.files.into_iter().find(|file| file.path == evaluation);
    let rows = rows.ok_or_else(|| Halt::failed(FailureKind::Promote, format!("there is no `{evaluation}`")))?;
    tree.files.retain(|file| file.path != EVALUATION);
    tree.files.push(FileEntry { path: EVALUATION.to_owned(), ..rows });
    let workspace = workspace::tar(&build, tree);

    let on_host = champion.lineage.image_id.is_none();
    attempt.runner = if on_host { "local" } else { "docker" }.to_owned();
    let work = Work::Run { steps: vec![Step { name: "score the champion".to_owned(), script }], shell: None };
    let file = &champion.lineage.files.artifact;
    let env = [("MODEL", file.as_str()), ("EVALUATION", EVALUATION), ("PREDICTIONS", SCORED)];
    let unit = UnitSpec {
        name: attempt.cx.unit("score"),
        image: champion.lineage.image_id.clone(),
        command: plain::command(Some(&work), &attempt.nonce),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        network: Network::None,
        caches: Vec::new(),
        ..plain::spec(attempt, Vec::new(), None)
    };
    let name = unit.name.clone();
    let exit = unit::run(attempt, unit, Some(workspace)).await?;
    unit::check(attempt, &exit)?;
    let runner = unit::runner(attempt).await?;
    let made = workspace::collect(attempt, runner.as_ref(), &name, &[SCORED.to_owned()]).await?;
    get(attempt, &made, SCORED).await
}

/// Judging again and again on the same rows finds a winner by chance sooner or later; whoever reads the verdict should know.
async fn tell_reuse_of_rows(attempt: &mut Attempt, spec: &Promote, side: &SideEvidence) -> Result<(), Halt> {
    let Some(rows) = side.predictions.as_ref().map(Predictions::rows_digest) else { return Ok(()) };
    let model = spec.model.clone();
    let store = &attempt.cx.build.engine.store;
    let count = store.read(move |db| models::decisions_on_rows(db, &model, &rows)).await.map_err(Halt::internal)?;
    if count >= 20 {
        attempt.log.note(&format!(
            "{count} decisions were already made on these evaluation rows: renew them, or chance will find a winner"
        ));
    }
    Ok(())
}
