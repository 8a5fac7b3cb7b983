//! The pipeline language: text in, validated value or diagnostics out.
//!
//! PURE: no file, clock, environment or runtime is touched here.

pub mod types;
