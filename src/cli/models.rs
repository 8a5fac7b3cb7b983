//! `orchestrator models`, `promote`, `rollback`, `deployments`.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::{DeploymentsArgs, DeploymentsCommand, ModelsArgs, ModelsCommand, PromoteArgs, RollbackArgs};
use super::exit::{self, Usage};
use super::run::actor;
use super::{data, text};
use crate::deploy::{self, DeploySpec, Deployer};
use crate::engine::{Engine, now, workspace};
use crate::runner::UnitStatus;
use crate::runner::spec::UnitName;
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::models::{self, Promotion, VersionRow};

/// How much of a history is shown.
const SHOWN: usize = 30;

#[derive(Serialize)]
struct ModelSummary {
    model: String,
    versions: u64,
    champion: Option<u64>,
    serving: Option<DeploymentRow>,
}

#[derive(Serialize)]
struct ModelDetail {
    model: String,
    champion: Option<u64>,
    versions: Vec<VersionRow>,
    promotions: Vec<Promotion>,
}

/// Lists models, or shows one.
///
/// # Errors
/// The database's, or if there is no such model.
pub async fn list(data: Option<&Path>, args: ModelsArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    if let Some(ModelsCommand::Show { model, json }) = args.command {
        return show(&engine, model, json || args.json).await;
    }
    let models = engine
        .store
        .read(|db| {
            let mut found = Vec::new();
            for (model, versions) in models::names(db)? {
                let (champion, serving) = (models::champion(db, &model)?, deployments::live(db, &model)?);
                found.push(ModelSummary { model, versions, champion, serving });
            }
            Ok(found)
        })
        .await?;
    if args.json {
        data::print_json(&models)?;
        return Ok(exit::PASSED);
    }
    if models.is_empty() {
        text::remark("no models yet: a `train` stage registers the first version");
        return Ok(exit::PASSED);
    }
    let mut table = vec![["MODEL", "VERSIONS", "CHAMPION", "SERVES"].map(str::to_owned).to_vec()];
    for row in models {
        let serves =
            row.serving.map_or(String::new(), |live| format!("version {} on port {}", live.version, live.port));
        let champion = row.champion.map_or("none".to_owned(), |version| format!("version {version}"));
        table.push(vec![text::one_line(&row.model, 40), row.versions.to_string(), champion, serves]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

async fn show(engine: &Arc<Engine>, model: String, json: bool) -> anyhow::Result<i32> {
    let name = model.clone();
    let detail = engine
        .store
        .read(move |db| {
            Ok(ModelDetail {
                champion: models::champion(db, &name)?,
                versions: models::versions(db, &name, SHOWN)?,
                promotions: models::history(db, &name, SHOWN)?,
                model: name,
            })
        })
        .await?;
    if detail.versions.is_empty() {
        return Err(Usage(format!("there is no model `{model}`; `orchestrator models` lists them")).into());
    }
    if json {
        data::print_json(&detail)?;
        return Ok(exit::PASSED);
    }
    let mut table = vec![["VERSION", "", "BUILD", "SOURCE", "MADE", "METRICS"].map(str::to_owned).to_vec()];
    for row in &detail.versions {
        let champion =
            if detail.champion == Some(row.version) { text::paint(text::GOOD, "champion") } else { String::new() };
        let metrics: Vec<String> =
            row.metrics.iter().take(4).map(|(name, value)| format!("{name} {}", text::number(*value))).collect();
        let commit = row.lineage.commit.as_deref().map_or("folder".to_owned(), |commit| {
            format!("{}{}", commit.get(..9).unwrap_or(commit), if row.lineage.dirty { "+changes" } else { "" })
        });
        let metrics = text::one_line(&metrics.join("  "), 70);
        table.push(vec![
            row.version.to_string(),
            champion,
            row.build.to_string(),
            commit,
            text::moment(row.made_at),
            metrics,
        ]);
    }
    anstream::print!("{}", text::table(&table));
    if !detail.promotions.is_empty() {
        anstream::println!();
    }
    for decision in &detail.promotions {
        let against = decision.champion.map_or(String::new(), |version| format!(" against version {version}"));
        let reason = decision.evidence.get("reason").and_then(serde_json::Value::as_str).unwrap_or("");
        anstream::println!(
            "{}  version {}{against}: {} by {}{}",
            text::moment(decision.at),
            decision.candidate,
            text::paint(text::BOLD, &decision.verdict),
            text::one_line(&decision.actor, 40),
            if reason.is_empty() { String::new() } else { format!(" · {}", text::one_line(reason, 120)) }
        );
    }
    Ok(exit::PASSED)
}

/// Makes a version champion by hand.
///
/// # Errors
/// If there is no such version, or its deployment fails.
pub async fn promote(data: Option<&Path>, args: PromoteArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let (model, version) = (args.model.clone(), args.version);
    let found = engine.store.read(move |db| Ok((models::version(db, &model, version)?, models::champion(db, &model)?)));
    let (row, champion) = found.await?;
    if champion == Some(row.version) {
        anstream::println!("version {} of `{}` is the champion already", row.version, args.model);
        return Ok(exit::PASSED);
    }
    change(&engine, &args.model, row.version, champion, "promoted", &args.reason).await
}

/// Goes back to the champion before.
///
/// # Errors
/// If there was none, or its deployment fails.
pub async fn rollback(data: Option<&Path>, args: RollbackArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    let model = args.model.clone();
    let (champion, history) =
        engine.store.read(move |db| Ok((models::champion(db, &model)?, models::history(db, &model, 500)?))).await?;
    let Some(champion) = champion else {
        return Err(Usage(format!("model `{}` has no champion", args.model)).into());
    };
    let made = history.iter().find(|decision| decision.candidate == champion && decision.verdict == "promoted");
    let Some(before) = made.and_then(|decision| decision.champion) else {
        return Err(Usage(format!(
            "version {champion} of `{}` is its first champion; there is none before it",
            args.model
        ))
        .into());
    };
    change(&engine, &args.model, before, Some(champion), "rolled-back", &args.reason).await
}

async fn change(
    engine: &Arc<Engine>,
    model: &str,
    version: u64,
    champion: Option<u64>,
    verdict: &str,
    reason: &str,
) -> anyhow::Result<i32> {
    let decision = Promotion {
        model: model.to_owned(),
        candidate: version,
        champion,
        verdict: verdict.to_owned(),
        actor: actor(),
        stage: None,
        evidence: serde_json::json!({ "reason": reason }),
        at: now(),
    };
    engine.store.write(move |tx| models::decide(tx, &decision)).await?;
    let deployed = redeploy(engine, model, version).await;
    if let (Err(_), Some(before)) = (&deployed, champion) {
        let back = Promotion {
            model: model.to_owned(),
            candidate: before,
            champion: Some(version),
            verdict: "rolled-back".to_owned(),
            actor: actor(),
            stage: None,
            evidence: serde_json::json!({ "reason": "its deployment failed" }),
            at: now(),
        };
        engine.store.write(move |tx| models::decide(tx, &back)).await?;
    }
    let code = deployed?;
    anstream::println!("version {version} of `{model}` is champion ({verdict})");
    Ok(code)
}

/// Where a version of this model serves, the new champion takes its port, if it has been deployed before.
async fn redeploy(engine: &Arc<Engine>, model: &str, version: u64) -> anyhow::Result<i32> {
    let name = model.to_owned();
    let (live, earlier) = engine
        .store
        .read(move |db| Ok((deployments::live(db, &name)?, deployments::of_version(db, &name, version)?)))
        .await?;
    let Some(live) = live.filter(|live| live.version != version) else { return Ok(exit::PASSED) };
    let earlier = match earlier {
        Some(earlier) => earlier,
        None => like(engine, &live, model, version).await?,
    };
    let at = now();
    let row = DeploymentRow {
        id: 0,
        unit: deploy::unit_name(&engine.store.instance, model, version, at),
        version,
        port: live.port,
        status: DeploymentStatus::Starting,
        detail: String::new(),
        since: at,
        ..earlier
    };
    let new = row.clone();
    let id = engine.store.write(move |tx| deployments::create(tx, &new)).await?;
    let secrets = row.spec.get("secrets").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let secrets = secrets
        .iter()
        .filter_map(serde_json::Value::as_str)
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect();
    let deployer = Deployer {
        store: Arc::clone(&engine.store),
        artifacts: Arc::clone(&engine.artifacts),
        runner: engine.runners.named(&row.runner).await?,
        secrets,
        now,
    };
    deployer.take_port(&DeploymentRow { id, ..row.clone() }).await?;
    anstream::println!("version {version} serves on port {}", row.port);
    Ok(exit::PASSED)
}

/// How a version that was never deployed is started: as the one that serves, with its own source tree and outputs.
async fn like(engine: &Arc<Engine>, live: &DeploymentRow, model: &str, version: u64) -> anyhow::Result<DeploymentRow> {
    let name = model.to_owned();
    let row = engine.store.read(move |db| models::version(db, &name, version)).await?;
    let mut spec: DeploySpec = serde_json::from_value(live.spec.clone())?;
    spec.workspace = workspace::of_version(engine, &row).await?;
    Ok(DeploymentRow { spec: serde_json::to_value(spec)?, ..live.clone() })
}

/// Lists deployments, or stops one.
///
/// # Errors
/// The database's, or the runner's.
pub async fn deployments(data: Option<&Path>, args: DeploymentsArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    if let Some(DeploymentsCommand::Stop { model }) = args.command {
        return stop(&engine, &model).await;
    }
    let mut rows = engine.store.read(|db| deployments::list(db, SHOWN)).await?;
    for row in rows.iter_mut().filter(|row| row.status == DeploymentStatus::Live) {
        if let Some(detail) = down(&engine, row).await {
            row.detail = detail;
        }
    }
    if args.json {
        data::print_json(&rows)?;
        return Ok(exit::PASSED);
    }
    if rows.is_empty() {
        text::remark("nothing is deployed: a `promote` stage with `deploy` does it");
        return Ok(exit::PASSED);
    }
    let mut table = vec![["MODEL", "VERSION", "PORT", "STATUS", "SINCE", ""].map(str::to_owned).to_vec()];
    for row in rows {
        let style = match row.status {
            DeploymentStatus::Live if row.detail.is_empty() => text::GOOD,
            DeploymentStatus::Live => text::WARN,
            DeploymentStatus::Failed => text::BAD,
            DeploymentStatus::Starting | DeploymentStatus::Stopped => text::DIM,
        };
        table.push(vec![
            text::one_line(&row.model, 40),
            row.version.to_string(),
            row.port.to_string(),
            text::paint(style, row.status.word()),
            text::moment(row.since),
            text::one_line(&row.detail, 80),
        ]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

/// What is wrong with a deployment that should serve; `None` if its unit runs.
async fn down(engine: &Engine, row: &DeploymentRow) -> Option<String> {
    let unit = UnitName(row.unit.clone());
    let status = match engine.runners.named(&row.runner).await {
        Ok(runner) => runner.status(&unit).await,
        Err(error) => Err(error),
    };
    match status {
        Ok(UnitStatus::Running) => None,
        Ok(UnitStatus::Absent | UnitStatus::Created | UnitStatus::Exited(_) | UnitStatus::Lost) => {
            Some("its process is gone; promote a version or run the pipeline to deploy again".to_owned())
        }
        Err(error) => Some(format!("not known: {error}")),
    }
}

async fn stop(engine: &Arc<Engine>, model: &str) -> anyhow::Result<i32> {
    let name = model.to_owned();
    let Some(row) = engine.store.read(move |db| deployments::live(db, &name)).await? else {
        return Err(Usage(format!("nothing serves `{model}`; `orchestrator deployments` lists what does")).into());
    };
    let runner = engine.runners.named(&row.runner).await?;
    runner.remove(&UnitName(row.unit.clone())).await?;
    let (id, at, detail) = (row.id, now(), format!("stopped by {}", actor()));
    engine.store.write(move |tx| deployments::set(tx, id, DeploymentStatus::Stopped, &detail, at)).await?;
    anstream::println!("version {} of `{model}` no longer serves on port {}", row.version, row.port);
    Ok(exit::PASSED)
}
