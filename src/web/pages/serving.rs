//! What serves, and whether it answers: the same on every page that shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;

use super::mark::Mark;
use super::moment::Moment;
use super::visitor::Visitor;
use crate::deploy::Health;
use crate::engine::deployments::deployer;
use crate::engine::now;
use crate::store::access::Scope;
use crate::store::deployments::{self, DeploymentRow, DeploymentStatus};
use crate::store::{StoreError, Tx, models};
use crate::web::App;
use crate::web::problem::Answer;

/// Servers that are looked at for a page.
const LOOKED_AT: usize = 50;
/// For how long a page waits for their answers: who asks for a page wants it now.
const GLANCE: Duration = Duration::from_millis(200);

/// A server of a version.
#[derive(Debug)]
pub struct Serving {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// The build that trained it; none if retention has taken it.
    pub build: Option<u64>,
    /// The project that trained it.
    pub project: Option<String>,
    /// The port that users talk to.
    pub port: u16,
    /// `docker` or `local`.
    pub runner: String,
    /// How it stands.
    pub mark: Mark,
    /// More than a word about that.
    pub detail: String,
    /// Since when.
    pub since: Moment,
}

/// A deployment with the project and the build that trained its version.
pub type Known = (DeploymentRow, Option<(String, u64)>);

/// With where its version comes from.
///
/// # Errors
/// The database's.
pub fn known(db: &Tx, row: DeploymentRow) -> Result<Known, StoreError> {
    match models::version(db, &row.model, row.version) {
        Ok(version) => Ok((row, Some((version.lineage.project, version.build.0)))),
        // A version that retention has removed is nobody's.
        Err(StoreError::Missing(_)) => Ok((row, None)),
        Err(error) => Err(error),
    }
}

/// Whether the visitor may know of it.
pub fn sees(visitor: &Visitor, (_, of): &Known) -> bool {
    match of {
        Some((project, _)) => visitor.caller.sees(project),
        None => visitor.caller.projects().is_none(),
    }
}

/// What serves now, of all models that the visitor sees, or of one; each was asked whether it is well.
pub async fn serving(visitor: &Visitor, app: &App, model: Option<&str>) -> Answer<Vec<Serving>> {
    visitor.caller.may(Scope::Read)?;
    let model = model.map(str::to_owned);
    let read = app.engine.store.read(move |db| {
        let open = deployments::open(db)?.into_iter().filter(|row| model.as_ref().is_none_or(|one| row.model == *one));
        open.map(|row| known(db, row)).collect::<Result<Vec<_>, _>>()
    });
    let open: Vec<Known> = read.await?.into_iter().filter(|row| sees(visitor, row)).collect();
    let looks = join_all(open.iter().take(LOOKED_AT).map(|(row, _)| look(app, row, GLANCE))).await;
    let looks = looks.into_iter().chain(std::iter::repeat_with(|| None));
    Ok(open.into_iter().zip(looks).map(|(row, health)| of(row, health)).collect())
}

fn of((row, from): Known, health: Option<Health>) -> Serving {
    let (mark, detail) = standing(&row, health);
    let (project, build) = from.unzip();
    Serving {
        model: row.model,
        version: row.version,
        build,
        project,
        port: row.port,
        runner: row.runner,
        mark,
        detail,
        since: Moment::of(row.since, now()),
    }
}

/// Looks whether a server is well, for so long.
pub async fn look(app: &App, row: &DeploymentRow, patience: Duration) -> Option<Health> {
    if row.status != DeploymentStatus::Live {
        return None;
    }
    let looker = deployer(&app.engine, BTreeMap::new());
    let late = || Health::NotAnswering(format!("no answer in {:.1} s", patience.as_secs_f64()));
    Some(tokio::time::timeout(patience, looker.health(row)).await.unwrap_or_else(|_| late()))
}

/// How it stands in a word, and more.
pub fn standing(row: &DeploymentRow, health: Option<Health>) -> (Mark, String) {
    let mark = |shape, word| Mark { shape, word };
    let detail = row.detail.clone();
    match (row.status, health) {
        (DeploymentStatus::Live, Some(Health::Healthy)) => (mark("passed", "healthy"), detail),
        (DeploymentStatus::Live, Some(Health::NotAnswering(why))) => (mark("held", "not answering"), why),
        (DeploymentStatus::Live, Some(Health::Gone(why))) => (mark("failed", "gone"), why),
        (DeploymentStatus::Live, Some(Health::WrongOwner(why))) => (mark("failed", "wrong owner"), why),
        (DeploymentStatus::Live, Some(Health::Unknown(why))) => (mark("held", "not known"), why),
        (DeploymentStatus::Live, None) => (mark("passed", "live"), detail),
        (DeploymentStatus::Starting, _) => (mark("running", "starting"), detail),
        (DeploymentStatus::Stopped, _) => (mark("cancelled", "stopped"), detail),
        (DeploymentStatus::Failed, _) => (mark("failed", "failed"), detail),
    }
}
