//! The pipeline language: text in, validated value or diagnostics out.
//!
//! PURE: no file, clock, environment or runtime is touched here.

pub mod schema;
pub mod diagnostic;
mod parse;
mod raw;
mod tree;
pub mod types;
pub mod units;
