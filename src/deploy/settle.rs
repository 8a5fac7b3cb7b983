//! What the rows say after a deployment was tried: the new one serves, the old one serves again, or nothing does.

use std::time::Duration;

use super::{Author, DeployError, Deployer};
use crate::runner::UnitStatus;
use crate::runner::spec::UnitName;
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::models;
use crate::store::{StoreError, Tx};

/// Between two tries: to write on a full disk or a busy database, to start a server again.
const RETRY: Duration = Duration::from_millis(500);
/// For how long they are waited out. What serves goes on meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// For how long the old version is tried to be brought back, if it fails quickly: an engine that is just busy.
const BACK_PATIENCE: Duration = Duration::from_secs(5);

/// An interrupted deployment that was found, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Recovered {
    /// Its model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// In a sentence.
    pub what: String,
}

impl Deployer {
    /// Takes up what an interrupted process left between its decision and the end of its deployment. The caller holds the
    /// model's lock, so whoever began it is gone.
    ///
    /// # Errors
    /// The database's.
    pub async fn recover(&self, model: &str) -> Result<Vec<Recovered>, DeployError> {
        let wanted = model.to_owned();
        let (open, champion, history) = self
            .store
            .read(move |db| {
                let open = deployments::open(db)?;
                Ok((open, models::champion(db, &wanted)?, models::history(db, &wanted, 100)?))
            })
            .await?;
        let mut recovered = Vec::new();
        for row in open.iter().filter(|row| row.model == model && row.status == DeploymentStatus::Starting) {
            let decision = history.iter().find(|decision| decision.candidate == row.version);
            let what = if champion != Some(row.version) {
                // Its promotion was taken back already.
                self.abandon(row).await?;
                "was interrupted after its promotion had been taken back, and is gone".to_owned()
            } else {
                let author = Author {
                    actor: decision.map_or("orchestrator", |decision| &decision.actor).to_owned(),
                    stage: decision.and_then(|decision| decision.stage.clone()),
                };
                let before = decision.filter(|decision| decision.verdict != "unchanged").and_then(|d| d.champion);
                let done = match decision {
                    Some(decision) if decision.verdict != "unchanged" => self.make_true(row, before, &author).await,
                    Some(_) | None => self.take_port(row).await,
                };
                match done {
                    Ok(()) => format!("was interrupted, and serves now on port {}", row.port),
                    Err(error @ DeployError::Secrets { .. }) => format!("was interrupted and waits: {error}"),
                    Err(error) => format!("was interrupted: {error}"),
                }
            };
            recovered.push(Recovered { model: model.to_owned(), version: row.version, what });
        }
        Ok(recovered)
    }

    /// Removes an unwanted deployment, and sees to it that what is live runs.
    async fn abandon(&self, row: &DeploymentRow) -> Result<(), DeployError> {
        self.runner(row).await?.remove(&UnitName(row.unit.clone())).await?;
        self.mark(row.id, DeploymentStatus::Failed, "interrupted").await?;
        self.restore(&row.model).await.map(drop)
    }

    /// Starts the live deployment of a model again if its unit is gone: after a reboot, or an interruption. Answers whether
    /// that was needed.
    ///
    /// # Errors
    /// If it cannot be started; its row says why then.
    pub async fn restore(&self, model: &str) -> Result<bool, DeployError> {
        let wanted = model.to_owned();
        let Some(live) = self.store.read(move |db| deployments::live(db, &wanted)).await? else { return Ok(false) };
        if self.status(&live).await? == UnitStatus::Running {
            return Ok(false);
        }
        self.check_secrets(&live)?;
        self.no_stranger(&live, None).await?;
        match self.start(&live).await {
            Ok(()) => Ok(true),
            Err(why) => {
                self.runner(&live).await?.remove(&UnitName(live.unit.clone())).await?;
                self.mark(live.id, DeploymentStatus::Failed, &format!("could not be started again: {why}")).await?;
                let back = "nothing serves it now".to_owned();
                Err(DeployError::NotReady { version: live.version, port: live.port, why, back })
            }
        }
    }

    /// The new one serves.
    pub(super) async fn settle(&self, new: &DeploymentRow, old: Option<&DeploymentRow>) -> Result<(), DeployError> {
        // On another port the old one still runs.
        if let Some(old) = old
            && let Err(error) = self.remove(old).await
        {
            tracing::warn!(unit = old.unit, %error, "the old version cannot be removed; `orchestrator gc` tries again");
        }
        let (id, at, version) = (new.id, (self.now)(), new.version);
        let old = old.map(|old| old.id);
        self.write(move |tx| {
            if let Some(old) = old {
                let detail = format!("version {version} took its place");
                deployments::set(tx, old, DeploymentStatus::Stopped, &detail, at)?;
            }
            deployments::set(tx, id, DeploymentStatus::Live, "", at)
        })
        .await
    }

    /// The new one does not serve: what served is started again. Answers the error that says so.
    pub(super) async fn go_back(
        &self,
        new: &DeploymentRow,
        old: Option<&DeploymentRow>,
        why: String,
    ) -> Result<DeployError, DeployError> {
        if let Err(error) = self.remove(new).await {
            tracing::warn!(unit = new.unit, %error, "a failed deployment cannot be removed; `orchestrator gc` tries again");
        }
        let back = match old {
            None => "nothing served before it".to_owned(),
            Some(old) => match self.bring_back(old).await {
                Ok(()) => format!("version {} serves on port {}", old.version, old.port),
                Err(error) => {
                    // Else it would be started again and again, with nobody to look.
                    if let Err(error) = self.remove(old).await {
                        tracing::warn!(unit = old.unit, %error, "it cannot be removed; `orchestrator gc` tries again");
                    }
                    self.mark(old.id, DeploymentStatus::Failed, &format!("could not be brought back: {error}")).await?;
                    format!("NOTHING SERVES NOW: version {} could not be brought back: {error}", old.version)
                }
            },
        };
        self.mark(new.id, DeploymentStatus::Failed, &why).await?;
        Ok(DeployError::NotReady { version: new.version, port: new.port, why, back })
    }

    async fn bring_back(&self, old: &DeploymentRow) -> Result<(), String> {
        let until = tokio::time::Instant::now() + BACK_PATIENCE;
        loop {
            match self.start(old).await {
                Ok(()) => return Ok(()),
                // One that did not get ready in its own time has used this up, too.
                Err(error) if tokio::time::Instant::now() >= until => return Err(error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    pub(super) async fn remove(&self, row: &DeploymentRow) -> Result<(), DeployError> {
        Ok(self.runner(row).await?.remove(&UnitName(row.unit.clone())).await?)
    }

    pub(super) async fn mark(&self, id: i64, status: DeploymentStatus, detail: &str) -> Result<(), DeployError> {
        let (at, detail) = ((self.now)(), detail.to_owned());
        self.write(move |tx| deployments::set(tx, id, status, &detail, at)).await
    }

    /// Writes; a full disk or a busy database is waited out for a while, since the world has changed already.
    pub(super) async fn write<F>(&self, part: F) -> Result<(), DeployError>
    where
        F: Fn(&Tx) -> Result<(), StoreError> + Send + Sync + 'static,
    {
        let part = std::sync::Arc::new(part);
        let until = tokio::time::Instant::now() + PATIENCE;
        let mut told = false;
        loop {
            let part = std::sync::Arc::clone(&part);
            match self.store.write(move |tx| part(tx)).await {
                Err(error @ (StoreError::Full | StoreError::Busy)) if tokio::time::Instant::now() < until => {
                    if !told {
                        let patience = PATIENCE.as_secs();
                        tracing::error!("cannot store what serves now: {error}; trying again for {patience} s");
                        told = true;
                    }
                    tokio::time::sleep(RETRY).await;
                }
                done => return Ok(done?),
            }
        }
    }
}
