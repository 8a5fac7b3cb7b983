//! What starts a build: bytes and times in, decisions out.
//!
//! ```text
//! delivery: raw bytes -> signature -> github::parse -> decide::first -> (fetch, read pipeline) -> decide::second -> build
//! time:     Schedule  -> schedule::Timetable -> due(last, now) -> build
//! ```
//!
//! PURE: no clock, file, socket or store. What a decision needs to know is handed in, what follows from it is done elsewhere;
//! so each delivery that was kept can be decided again, with the same outcome. Everything in a payload is data from outside:
//! bounded, checked, and never the source of a project's identity or address.

pub mod decide;
pub mod git;
pub mod github;
pub mod schedule;
pub mod signature;
