//! What a build is and what comes next: statuses, events, the rules between them, the plan, the key of reuse.
//!
//! PURE: time and names come in as values. Only [`transition`] makes a changed status.
//!
//! ```text
//! event -> transition(plan, state) -> state' -> (one transaction) -> next_actions(plan, state', now) -> the world
//! ```

pub mod event;
pub mod next;
pub mod plan;
pub mod queue;
pub mod retry;
pub mod reuse;
pub mod status;
pub mod transition;
