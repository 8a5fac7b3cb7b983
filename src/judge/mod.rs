//! Evidence in, verdict out: checks of API answers, metrics from predictions, paired statistics, promotion.
//!
//! PURE: no file, clock, environment or runtime is touched here. Everything that a verdict rests on is in the value that
//! comes back, so that anyone can compute it again.

pub mod checks;
pub mod classes;

pub mod metrics_file;

pub mod predictions;

pub mod metrics;

pub mod paired;

pub mod finding;

mod better;

pub mod guardrail;

pub mod promote;
