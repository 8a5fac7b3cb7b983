//! Whether a data folder is as it must be: rows, logs, artifacts, units. Nothing is changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::lock::{BuildLock, NamedLock};
use super::{Engine, EngineError, gc};
use crate::artifact::Sweep;
use crate::artifact::manifest::Digest;
use crate::ids::BuildId;
use crate::logs::LogReader;
use crate::store::{StoreError, inspect, roots};

/// One thing that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// What must hold.
    pub what: &'static str,
    /// What breaks it, the first of them.
    pub broken: Vec<String>,
    /// It is no fault, but somebody should know.
    pub remark: bool,
    /// How many were looked at, where that is counted.
    pub count: Option<usize>,
}

/// Violations of one kind that are named.
const NAMED: usize = 20;
/// Builds whose attempts are read at once.
const BUILDS: usize = 200;

/// Looks at everything. A daemon may run meanwhile.
///
/// # Errors
/// If the looking itself is not possible.
pub async fn all(engine: &Arc<Engine>) -> Result<Vec<Looked>, EngineError> {
    let fault = |what, broken| Looked { what, broken, remark: false, count: None };
    let (integrity, rules) = engine.store.read(|db| Ok((inspect::integrity(db)?, inspect::rules(db)?))).await?;
    let mut looked = vec![fault("the database is whole", integrity)];
    looked.extend(rules.into_iter().map(|broken| fault(broken.rule, broken.rows)));
    looked.push(owners(engine).await?);
    looked.push(logs(engine).await?);
    looked.push(artifacts(engine).await?);
    looked.push(units(engine).await?);
    Ok(looked)
}

/// Builds under way that nobody drives. They are taken up again: by the daemon's next start, or by `run --resume`.
async fn owners(engine: &Arc<Engine>) -> Result<Looked, EngineError> {
    let daemon = NamedLock::try_take(&engine.paths.locks().join("daemon"), "a look by doctor")?.is_err();
    let running = engine.store.read(inspect::running).await?;
    let count = running.len();
    let mut broken = Vec::new();
    for (build, triggered) in running {
        if BuildLock::take(&engine.paths, build).is_ok() {
            broken.push(match (triggered, daemon) {
                (true, true) => format!("build {build} has no driver, and a daemon runs"),
                (true, false) => format!("build {build} waits for the daemon's next start"),
                (false, _) => format!("build {build} was interrupted: orchestrator run --resume {}", build.0),
            });
        }
    }
    broken.truncate(NAMED);
    Ok(Looked { what: "running builds are driven", broken, remark: !daemon, count: Some(count) })
}

async fn logs(engine: &Arc<Engine>) -> Result<Looked, EngineError> {
    let (mut broken, mut count, mut behind) = (Vec::new(), 0, BuildId(0));
    loop {
        let read = engine
            .store
            .read(move |db| Ok((inspect::step(db, behind, BUILDS)?, inspect::launched(db, behind, BUILDS)?)));
        let (Some(last), attempts) = read.await? else { break };
        behind = last;
        count += attempts.len();
        let paths = engine.paths.clone();
        let look = tokio::task::spawn_blocking(move || {
            let wrong = attempts.into_iter().filter_map(|(build, node, attempt)| {
                let why = whole(&paths.log(build, &node, attempt))?;
                Some(format!("build {build} {node} attempt {attempt}: {why}"))
            });
            wrong.take(NAMED).collect::<Vec<_>>()
        });
        broken.extend(look.await.map_err(|error| StoreError::Other(error.to_string()))?);
    }
    broken.truncate(NAMED);
    Ok(Looked { what: "logs are there and whole", broken, remark: false, count: Some(count) })
}

/// What is wrong with a log: read from its first line on and by its index, it has the same lines.
fn whole(path: &Path) -> Option<String> {
    let count = || {
        let by_index = LogReader::open(path)?.line_count()?;
        let mut by_reading = 0;
        for line in LogReader::open(path)?.lines_from(0)? {
            line?;
            by_reading += 1;
        }
        Ok::<_, crate::logs::LogError>((by_index, by_reading))
    };
    match count() {
        Ok((by_index, by_reading)) if by_index == by_reading => None,
        Ok((by_index, by_reading)) => Some(format!("its index says {by_index} lines, it has {by_reading}")),
        Err(error) => Some(error.to_string()),
    }
}

async fn artifacts(engine: &Arc<Engine>) -> Result<Looked, EngineError> {
    let read = engine.store.read(|db| {
        let mut found: BTreeSet<String> = BTreeSet::new();
        roots::for_each(db, |digest| {
            found.insert(digest.to_owned());
            Ok(())
        })?;
        Ok(found)
    });
    let found = read.await?;
    let count = found.len();
    let mut broken = Vec::new();
    for text in found {
        let Ok(digest) = text.parse::<Digest>() else {
            broken.push(format!("`{text}` is no digest"));
            continue;
        };
        let missing = engine.artifacts.missing(&digest).await;
        if let Some(what) = missing.map_err(|error| EngineError::Artifact(error.to_string()))? {
            broken.push(format!("{what} of {text} is not there, or damaged"));
        }
        if broken.len() >= NAMED {
            break;
        }
    }
    Ok(Looked { what: "artifacts that rows name are there", broken, remark: false, count: Some(count) })
}

/// Processes, containers and networks that no row owns. An engine that is not there has none.
async fn units(engine: &Arc<Engine>) -> Result<Looked, EngineError> {
    let mut removed = gc::sweep(engine, engine.runners.local().as_ref(), Sweep::Tell, gc::Kept::Stay).await?;
    if let Ok(docker) = engine.runners.docker().await {
        let more = gc::sweep(engine, docker.as_ref(), Sweep::Tell, gc::Kept::Stay).await?;
        removed.units.extend(more.units);
        removed.networks.extend(more.networks);
    }
    let mut broken: Vec<String> = removed.units.into_iter().chain(removed.networks).collect();
    broken.truncate(NAMED);
    Ok(Looked { what: "units and networks have a row", broken, remark: false, count: None })
}
