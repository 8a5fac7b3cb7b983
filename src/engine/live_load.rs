//! Load tests under way, for those who look on. In memory alone: after a restart the test begins anew, and so does this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::{BuildId, NodeKey};
use crate::load::collect::Tick;
use crate::load::live::Live;

type Key = (BuildId, NodeKey);

/// All that are under way in this process.
#[derive(Debug, Default)]
pub struct LiveLoads {
    all: Mutex<HashMap<Key, Live>>,
}

impl LiveLoads {
    /// A test begins; it is forgotten when the answer is dropped.
    pub fn begin(self: &Arc<Self>, build: BuildId, node: NodeKey) -> Watched {
        let key = (build, node);
        self.with(|all| all.insert(key.clone(), Live::default()));
        Watched { loads: Arc::clone(self), key }
    }

    /// How a test stands.
    pub fn of(&self, build: BuildId, node: &NodeKey) -> Option<Live> {
        self.with(|all| all.get(&(build, node.clone())).cloned())
    }

    fn with<T>(&self, look: impl FnOnce(&mut HashMap<Key, Live>) -> T) -> T {
        // Whole seconds are put in or taken out at once: a panic elsewhere leaves nothing half done.
        look(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A test that is shown while it runs.
#[derive(Debug)]
pub struct Watched {
    loads: Arc<LiveLoads>,
    key: Key,
}

impl Watched {
    /// A second has passed.
    pub fn tick(&self, tick: &Tick) {
        self.loads.with(|all| {
            if let Some(live) = all.get_mut(&self.key) {
                live.push(tick);
            }
        });
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.loads.with(|all| all.remove(&self.key));
    }
}
