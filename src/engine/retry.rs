//! A build that has ended runs again, in part or whole: the same build, with new attempts.

use std::sync::Arc;

use super::lock::BuildLock;
use super::submit::expand;
use super::{Engine, EngineError, now};
use crate::build::event::{Event, Stamped};
use crate::build::retry::{Which, chosen};
use crate::build::transition::{replay, transition};
use crate::ids::{BuildId, NodeKey};
use crate::store::{StoreError, attempts, builds, events, outbox, queue, results};

impl Engine {
    /// Queues stages of a build that has ended anew. What they made before is no result of the build any more; models that they
    /// registered stay. Answers which nodes.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the build has not ended or there is nothing to run, [`StoreError::Missing`] if there is no
    /// such build.
    pub async fn retry(self: &Arc<Self>, id: BuildId, which: Which, actor: &str) -> Result<Vec<NodeKey>, EngineError> {
        // A driver that is about to let go of it, or one that takes it up at this moment.
        let _lock = BuildLock::take_soon(&self.paths, id).await?;
        let row = self.store.read(move |db| builds::get(db, id)).await?;
        let expanded = expand(&row.request)?;
        let actor = actor.to_owned();
        let written = self.store.write(move |tx| {
            let plan = &expanded.plan;
            let history = events::of_build(tx, id)?;
            let state = replay(plan, &history).map_err(|illegal| StoreError::Corrupt(illegal.to_string()))?;
            if !state.status.is_terminal() {
                return Err(StoreError::Conflict(format!("build {id} has not ended; cancel it first")));
            }
            let nodes = chosen(plan, &state, &which).map_err(StoreError::Conflict)?;
            let keys: Vec<NodeKey> = nodes.iter().map(|&node| plan.nodes[node].key.clone()).collect();
            let mut again = Vec::new();
            for key in &keys {
                again.push((key.clone(), attempts::last(tx, id, key)?));
                results::forget(tx, id, key)?;
            }
            let at = now();
            let event = Stamped { at, event: Event::Retried { nodes: again, actor } };
            let after = transition(plan, &state, &event).map_err(|illegal| StoreError::Corrupt(illegal.to_string()))?;
            events::append(tx, id, &[event])?;
            builds::save(tx, id, plan, &state, &after, at)?;
            queue::reenter(tx, id)?;
            if row.request.reports {
                outbox::changed(tx, id, after.status.word(), at)?;
            }
            Ok(keys)
        });
        Ok(written.await?)
    }
}
