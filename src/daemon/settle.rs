//! What is made of a trigger, in one transaction: its decision, its builds, the builds that end for it.

use rusqlite::Connection;

use crate::build::plan::Plan;
use crate::ids::{BuildId, Micros};
use crate::store::builds::{self, BuildRequest};
use crate::store::outbox::Changed;
use crate::store::triggers::{self, Decided};
use crate::store::{StoreError, heads, outbox, queue};

/// What others are told of a build that waits for a person; else it is the status's word.
pub const AWAITING: &str = "awaiting";

/// A build that is to be made.
#[derive(Debug)]
pub struct NewBuild {
    /// What is built.
    pub request: BuildRequest,
    /// Its graph.
    pub plan: Plan,
    /// Greater goes first.
    pub priority: i64,
    /// Its concurrency group.
    pub group: Option<String>,
    /// It takes the place of older ones of its group.
    pub supersede: bool,
    /// Why a person has to agree first.
    pub awaits: Option<String>,
}

/// What is made of a trigger.
#[derive(Debug, Default)]
pub struct Settled {
    /// Why, for people.
    pub reason: String,
    /// By which the same is known again.
    pub identity: Option<String>,
    /// A ref that is at a commit now.
    pub head: Option<(String, String)>,
    /// A schedule whose slot has passed: pipeline, line, slot.
    pub slot: Option<(String, String, Micros)>,
    /// Builds to make.
    pub builds: Vec<NewBuild>,
    /// A pull request that was closed.
    pub closed: Option<u64>,
    /// A commit with a pipeline that cannot be built, and why: others are told.
    pub trouble: Option<(String, String)>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Came {
    /// Builds that were made.
    pub made: Vec<BuildId>,
    /// Builds that are to end.
    pub ended: Vec<BuildId>,
}

/// Stores it all.
///
/// # Errors
/// [`StoreError::Conflict`] if the trigger was decided before.
pub fn settle(
    tx: &Connection,
    project: &str,
    trigger: u64,
    decided: Decided,
    settled: &Settled,
    at: Micros,
) -> Result<Came, StoreError> {
    triggers::decide(tx, trigger, decided, &settled.reason, settled.identity.as_deref(), at)?;
    if let Some((name, commit)) = &settled.head {
        heads::set(tx, project, name, commit, at)?;
    }
    if let Some((pipeline, line, slot)) = &settled.slot {
        heads::set_slot(tx, project, pipeline, line, *slot)?;
    }
    if let Some((commit, reason)) = &settled.trouble {
        let (project, commit, reason) = (project.to_owned(), commit.clone(), reason.clone());
        outbox::came_to_nothing(tx, &Changed::Trigger { trigger, project, commit, reason }, at)?;
    }
    let mut came = Came::default();
    for new in &settled.builds {
        let id = builds::create(tx, &new.request, &new.plan, at)?;
        let entry =
            queue::Entry { trigger, priority: new.priority, group: new.group.clone(), awaits: new.awaits.clone() };
        queue::enter(tx, id, &entry)?;
        if new.request.reports {
            outbox::changed(tx, id, if new.awaits.is_some() { AWAITING } else { "queued" }, at)?;
        }
        if let (Some(group), true) = (&new.group, new.supersede) {
            came.ended.extend(queue::supersede(tx, project, group, id)?);
        }
        // An approval holds for one commit: an older one of the same pull request waits for nothing any more.
        if let Some(number) = new.request.pull_request {
            came.ended.extend(queue::supersede_awaiting(tx, project, number, id)?);
        }
        came.made.push(id);
    }
    if let Some(number) = settled.closed {
        came.ended.extend(queue::cancel_pull_request(tx, project, number)?);
    }
    Ok(came)
}
