//! What runs for a year: the queue, the triggers, the clock, the API. Nothing else wires rooms together.
//!
//! ```text
//! webhook, poll, watch, schedule, API -> trigger row -> decide -> build row -> queue -> Engine::drive
//! ```

pub mod builds;
pub mod clock;
pub mod decider;
pub mod intake;
pub mod keyring;
pub mod place;
pub mod projects;
pub mod queue;
pub mod retention;
pub mod secrets;
pub mod serve;
pub mod settle;
pub mod subject;
pub mod tell;
pub mod traces;
