//! Load tests and API checks: the built-in engine, its client, and adapters for Locust and k6.
//!
//! ```text
//! plan -> contract (one request of each kind) -> worker threads -> collect -> verdict -> report -> html
//!                     encode, response, http, target      measure
//! ```
//!
//! Knows nothing of builds, stages or stores; the engine's stage kinds and the command line call [`engine::run`] and
//! [`checks::run_checks`].

pub mod checks;
pub mod collect;
pub mod contract;
pub mod distribution;
pub mod encode;
pub mod engine;
pub mod html;
pub mod html_charts;
pub mod http;
mod insecure;
pub mod k6;
pub mod live;
pub mod locust;
pub mod measure;
pub mod mix;
mod pacer;
pub mod plan;
pub mod probe;
pub mod report;
pub mod response;
pub mod schedule;
pub mod target;
pub mod threshold;
pub mod tool;
pub mod trust;
mod usage;
pub mod verdict;
mod worker;
