//! `orchestrator models`, `deployments`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::{DeploymentsArgs, DeploymentsCommand, ModelsArgs, ModelsCommand};
use super::exit::{self, Usage};
use super::run::actor;
use super::{data, deployment_logs, text};
use crate::deploy::Health;
use crate::engine::by_hand;
use crate::engine::deployments::{self as of, FromEnvironment, Right};
use crate::engine::{Engine, now};
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

/// The right to change what serves a model, with everything in order that an interrupted process left.
///
/// # Errors
/// The database's, or if the locks cannot be used.
pub async fn right(engine: &Arc<Engine>, model: &str) -> anyhow::Result<Right> {
    let holder = format!("{} at a terminal", actor());
    let (right, recovered) = by_hand::right(engine, model, &holder, (&FromEnvironment, text::remark)).await?;
    for found in recovered {
        text::remark(&format!("version {} of `{model}` {}", found.version, found.what));
    }
    Ok(right)
}

/// Takes up deployments that an interrupted process left, and says what came of them.
///
/// # Errors
/// The database's.
pub async fn recover(engine: &Arc<Engine>) -> anyhow::Result<()> {
    for found in of::recover(engine, &FromEnvironment).await? {
        text::remark(&format!("version {} of `{}` {}", found.version, found.model, found.what));
    }
    Ok(())
}

/// A deployment as listed.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    row: DeploymentRow,
    /// Where users reach it, if it is on this machine.
    url: String,
    /// The build that made its version.
    build: Option<crate::ids::BuildId>,
    /// What one sees of it from outside; only of what should serve.
    #[serde(flatten)]
    health: Option<Health>,
}

/// Lists deployments, shows what one printed, stops one, or starts again those whose server is gone.
///
/// # Errors
/// The database's, or the runner's.
pub async fn deployments(data: Option<&Path>, args: DeploymentsArgs) -> anyhow::Result<i32> {
    let engine = data::open(data).await?;
    match args.command {
        Some(DeploymentsCommand::Logs { model, lines }) => return deployment_logs::show(&engine, &model, lines).await,
        Some(DeploymentsCommand::Stop { model }) => return stop(&engine, &model).await,
        Some(DeploymentsCommand::Restore { model }) => return restore(&engine, model.as_deref()).await,
        None => {}
    }
    let rows = engine.store.read(|db| deployments::list(db, SHOWN)).await?;
    let looker = of::deployer(&engine, BTreeMap::new());
    let mut listed = Vec::new();
    for row in rows {
        let health = if row.status == DeploymentStatus::Live { Some(looker.health(&row).await) } else { None };
        let (model, version) = (row.model.clone(), row.version);
        let build = engine.store.read(move |db| Ok(models::version(db, &model, version)?.build)).await.ok();
        listed.push(Listed { url: format!("http://127.0.0.1:{}", row.port), row, build, health });
    }
    if args.json {
        data::print_json(&listed)?;
        return Ok(exit::PASSED);
    }
    if listed.is_empty() {
        text::remark("nothing is deployed: a `promote` stage with `deploy` does it");
        return Ok(exit::PASSED);
    }
    let head = ["MODEL", "VERSION", "BUILD", "PORT", "STATUS", "SINCE", ""];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for Listed { row, build, health, .. } in listed {
        let (style, word, detail) = standing(&row, health);
        table.push(vec![
            text::one_line(&row.model, 40),
            row.version.to_string(),
            build.map_or(String::new(), |build| build.to_string()),
            row.port.to_string(),
            text::paint(style, word),
            text::moment(row.since),
            text::one_line(&detail, 80),
        ]);
    }
    anstream::print!("{}", text::table(&table));
    Ok(exit::PASSED)
}

/// How a deployment is shown: colour, word, more.
fn standing(row: &DeploymentRow, health: Option<Health>) -> (anstyle::Style, &'static str, String) {
    let word = row.status.word();
    match (row.status, health) {
        (DeploymentStatus::Live, Some(Health::Healthy)) => (text::GOOD, word, row.detail.clone()),
        (DeploymentStatus::Live, Some(Health::NotAnswering(why))) => (text::WARN, "not answering", why),
        (DeploymentStatus::Live, Some(Health::Gone(why))) => (text::BAD, "gone", why),
        (DeploymentStatus::Live, Some(Health::WrongOwner(why))) => (text::BAD, "wrong owner", why),
        (DeploymentStatus::Live, Some(Health::Unknown(why))) => (text::WARN, "not known", why),
        (DeploymentStatus::Live, None) => (text::GOOD, word, row.detail.clone()),
        (DeploymentStatus::Failed, _) => (text::BAD, word, row.detail.clone()),
        (DeploymentStatus::Starting | DeploymentStatus::Stopped, _) => (text::DIM, word, row.detail.clone()),
    }
}

async fn stop(engine: &Arc<Engine>, model: &str) -> anyhow::Result<i32> {
    let _right = right(engine, model).await?;
    let name = model.to_owned();
    let Some(row) = engine.store.read(move |db| deployments::live(db, &name)).await? else {
        return Err(Usage(format!("nothing serves `{model}`; `orchestrator deployments` lists what does")).into());
    };
    // Intent first: interrupted here, a clean-up removes the unit.
    let (id, at, detail) = (row.id, now(), format!("stopped by {}", actor()));
    engine.store.write(move |tx| deployments::set(tx, id, DeploymentStatus::Stopped, &detail, at)).await?;
    let runner = engine.runners.named(&row.runner).await?;
    runner.remove(&UnitName(row.unit.clone())).await?;
    anstream::println!("version {} of `{model}` no longer serves on port {}", row.version, row.port);
    Ok(exit::PASSED)
}

/// Starts again what should serve and does not, after a reboot or an accident.
async fn restore(engine: &Arc<Engine>, wanted: Option<&str>) -> anyhow::Result<i32> {
    let open = engine.store.read(deployments::open).await?;
    let mut models: Vec<String> = open.iter().map(|row| row.model.clone()).collect();
    models.sort_unstable();
    models.dedup();
    if let Some(wanted) = wanted {
        models.retain(|model| model == wanted);
        if models.is_empty() {
            let text = format!("`{wanted}` is not deployed; `orchestrator deployments` lists what is");
            return Err(Usage(text).into());
        }
    }
    let mut code = exit::PASSED;
    for model in models {
        let _right = right(engine, &model).await?;
        let values = of::values(&FromEnvironment, &open).await;
        match of::deployer(engine, values).restore(&model).await {
            Ok(true) => anstream::println!("`{model}` serves again"),
            Ok(false) => anstream::println!("`{model}` serves"),
            Err(error) => {
                text::error(&format!("`{model}` cannot be started: {error}"));
                code = exit::FAILED;
            }
        }
    }
    Ok(code)
}
