//! What runs for a year: the queue, the triggers, the clock, the API. Nothing else wires rooms together.
//!
//! ```text
//! webhook, poll, watch, schedule, API -> trigger row -> decide -> build row -> queue -> Engine::drive
//! ```

pub mod queue;
pub mod secrets;
