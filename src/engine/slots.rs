//! Places on runners: how many stages run at once, who has them, and what the others wait for.
//!
//! An attempt holds a place from before its start until its end. Within a runner the stage with the highest priority goes
//! first, then the one of the oldest build. Attempts that are taken up after a restart hold their places without asking,
//! since they run already.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::ids::{BuildId, NodeKey};

/// Who has a place, or wants one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Holder {
    /// The build.
    pub build: BuildId,
    /// The stage.
    pub node: NodeKey,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.build, self.node)
    }
}

/// One runner's places.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PoolView {
    /// Its name.
    pub runner: String,
    /// Places in all.
    pub slots: usize,
    /// Who has one.
    pub held: Vec<Holder>,
    /// Who waits, the next one first.
    pub waiting: Vec<Holder>,
}

impl PoolView {
    /// What those in its line wait for: `slot on docker: 2 of 2 used by #41 train, #42 loadtest`.
    pub fn reason(&self) -> String {
        const SHOWN: usize = 5;
        let mut held: Vec<String> = self.held.iter().take(SHOWN).map(Holder::to_string).collect();
        if self.held.len() > SHOWN {
            held.push(format!("{} more", self.held.len() - SHOWN));
        }
        format!("slot on {}: {} of {} used by {}", self.runner, self.held.len(), self.slots, held.join(", "))
    }
}

/// The places of all runners. Clones share them.
#[derive(Debug, Clone)]
pub struct Slots {
    pools: Arc<Mutex<Pools>>,
}

#[derive(Debug)]
struct Pools {
    /// For runners that have no number of their own.
    default: usize,
    pools: BTreeMap<String, Pool>,
    /// Counted up for each place asked for.
    next: u64,
}

#[derive(Debug)]
struct Pool {
    slots: usize,
    held: BTreeMap<u64, Holder>,
    waiting: BTreeMap<Turn, (Holder, oneshot::Sender<()>)>,
}

/// The order in a line: smaller goes first.
type Turn = (std::cmp::Reverse<i64>, BuildId, u64);

impl Pool {
    fn new(slots: usize) -> Self {
        Self { slots, held: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Gives free places to those who wait.
    fn hand_out(&mut self) {
        while self.held.len() < self.slots {
            let Some(((_, _, ticket), (holder, granted))) = self.waiting.pop_first() else { return };
            // One who has gone away leaves the place to the next.
            if granted.send(()).is_ok() {
                self.held.insert(ticket, holder);
            }
        }
    }
}

impl Slots {
    /// Places: `default` on each runner that is not named.
    pub fn new(default: usize, runners: BTreeMap<String, usize>) -> Self {
        let pools = runners.into_iter().map(|(name, slots)| (name, Pool::new(slots.max(1)))).collect();
        Self { pools: Arc::new(Mutex::new(Pools { default: default.max(1), pools, next: 0 })) }
    }

    /// For a single build on this machine: twice the processors, since stages wait for disks and networks, too; at least four.
    pub fn of_this_machine() -> Self {
        let slots = std::thread::available_parallelism().map_or(4, |count| (count.get() * 2).max(4));
        Self::new(slots, BTreeMap::new())
    }

    /// Changes how many places there are. Those who hold one keep it.
    pub fn resize(&self, default: usize, runners: &BTreeMap<String, usize>) {
        let mut pools = self.lock();
        pools.default = default.max(1);
        for (name, &slots) in runners {
            pools.pool(name).slots = slots.max(1);
        }
        let default = pools.default;
        for (name, pool) in &mut pools.pools {
            if !runners.contains_key(name) {
                pool.slots = default;
            }
            pool.hand_out();
        }
    }

    /// Waits for a place. Whoever drops the future leaves the line.
    pub async fn take(&self, runner: &str, holder: Holder, priority: i64) -> Permit {
        let (ticket, granted) = {
            let mut pools = self.lock();
            pools.next += 1;
            let ticket = pools.next;
            let (sender, granted) = oneshot::channel();
            let pool = pools.pool(runner);
            pool.waiting.insert((std::cmp::Reverse(priority), holder.build, ticket), (holder, sender));
            pool.hand_out();
            (ticket, granted)
        };
        // Made before the wait: dropped in the middle it takes the ticket out of the line, or gives a place back that was
        // granted but not seen.
        let permit = Permit { slots: self.clone(), runner: runner.to_owned(), ticket };
        // The sender is only dropped with the pool, which `self` keeps alive.
        let _ = granted.await;
        permit
    }

    /// A place for what runs already, whether one is free or not.
    pub fn occupy(&self, runner: &str, holder: Holder) -> Permit {
        let mut pools = self.lock();
        pools.next += 1;
        let ticket = pools.next;
        pools.pool(runner).held.insert(ticket, holder);
        Permit { slots: self.clone(), runner: runner.to_owned(), ticket }
    }

    /// All runners' places as they are now.
    pub fn view(&self) -> Vec<PoolView> {
        self.lock().pools.iter().map(|(name, pool)| pool.view(name)).collect()
    }

    /// What a stage waits for, if it is in a line.
    pub fn waits_for(&self, build: BuildId, node: &NodeKey) -> Option<String> {
        let pools = self.lock();
        let (name, pool) = pools
            .pools
            .iter()
            .find(|(_, pool)| pool.waiting.values().any(|(holder, _)| holder.build == build && holder.node == *node))?;
        Some(pool.view(name).reason())
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        // Nothing in here leaves the numbers half changed.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pools {
    fn pool(&mut self, runner: &str) -> &mut Pool {
        let default = self.default;
        self.pools.entry(runner.to_owned()).or_insert_with(|| Pool::new(default))
    }
}

impl Pool {
    fn view(&self, name: &str) -> PoolView {
        PoolView {
            runner: name.to_owned(),
            slots: self.slots,
            held: self.held.values().cloned().collect(),
            waiting: self.waiting.values().map(|(holder, _)| holder.clone()).collect(),
        }
    }
}

/// A place on a runner, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    slots: Slots,
    runner: String,
    ticket: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut pools = self.slots.lock();
        let pool = pools.pool(&self.runner);
        pool.held.remove(&self.ticket);
        pool.waiting.retain(|(_, _, ticket), _| *ticket != self.ticket);
        pool.hand_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn holder(build: u64) -> Holder {
        Holder { build: BuildId(build), node: "train".parse().unwrap() }
    }

    fn one() -> Slots {
        Slots::new(1, BTreeMap::new())
    }

    #[tokio::test]
    async fn the_oldest_build_and_the_highest_priority_go_first() {
        let slots = one();
        let first = slots.take("docker", holder(9), 0).await;
        let mut late = Box::pin(slots.take("docker", holder(7), 0));
        let mut old = Box::pin(slots.take("docker", holder(3), 0));
        let mut urgent = Box::pin(slots.take("docker", holder(8), 5));
        assert!(late.as_mut().now_or_never().is_none());
        assert!(old.as_mut().now_or_never().is_none());
        assert!(urgent.as_mut().now_or_never().is_none());
        let view = &slots.view()[0];
        assert_eq!(view.waiting, [holder(8), holder(3), holder(7)]);
        assert_eq!(view.reason(), "slot on docker: 1 of 1 used by #9 train");
        drop(first);
        let urgent = urgent.now_or_never().unwrap();
        assert!(old.as_mut().now_or_never().is_none());
        drop(urgent);
        assert!(old.now_or_never().is_some());
        assert!(late.now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_who_goes_away_holds_nobody_up() {
        let slots = one();
        let first = slots.take("local", holder(1), 0).await;
        let mut second = Box::pin(slots.take("local", holder(2), 0));
        let mut third = Box::pin(slots.take("local", holder(3), 0));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        // Granted, but gone before it looked.
        drop(second);
        assert!(third.now_or_never().is_some());
        assert!(slots.view()[0].waiting.is_empty());
        // And the place is free again.
        assert!(slots.take("local", holder(4), 0).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_runs_already_holds_a_place_beyond_the_limit() {
        let slots = one();
        let running = [slots.occupy("docker", holder(1)), slots.occupy("docker", holder(2))];
        let mut waits = Box::pin(slots.take("docker", holder(3), 0));
        assert!(waits.as_mut().now_or_never().is_none());
        assert_eq!(
            slots.waits_for(BuildId(3), &"train".parse().unwrap()).as_deref(),
            Some("slot on docker: 2 of 1 used by #1 train, #2 train")
        );
        slots.resize(3, &BTreeMap::new());
        assert!(waits.now_or_never().is_some());
        drop(running);
        assert!(slots.view()[0].held.is_empty());
    }
}
