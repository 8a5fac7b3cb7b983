//! What a driver tells those who watch. Notices are hints: the rows and the log files are the truth, and a watcher that is
//! too slow misses notices, not facts.

use crate::build::event::Stamped;
use crate::ids::{BuildId, NodeKey};

/// One hint.
#[derive(Debug, Clone)]
pub enum Notice {
    /// An event was committed.
    Event {
        /// Of which build.
        build: BuildId,
        /// What.
        event: Stamped,
    },
    /// Slow work before an attempt begins or while it goes on: pulls, uploads, waits.
    Progress {
        /// Of which stage.
        node: NodeKey,
        /// For people.
        text: String,
    },
    /// A load test under way.
    Load {
        /// Of which stage.
        node: NodeKey,
        /// One line of figures.
        text: String,
    },
    /// The driver itself waits for something: a full disk, a lost engine.
    Waiting {
        /// For people.
        text: String,
    },
}

/// Where notices go.
pub type Notices = tokio::sync::broadcast::Sender<Notice>;

/// Notices that a watcher may be behind before it misses some.
pub const CAPACITY: usize = 1024;

/// Tells, if anyone listens.
pub fn tell(notices: &Notices, notice: Notice) {
    // No receiver is no error: builds run unwatched.
    let _ = notices.send(notice);
}
