//! The pipeline language: text in, validated value or diagnostics out.
//!
//! ```text
//! bytes -> parse (tree with places) -> shape (against the schema) -> raw types -> lower -> check -> Pipeline
//! ```
//!
//! Each step reports all that it finds and hands on what is good, so that one run shows every error of a file.
//! PURE: no file, clock, environment or runtime is touched here.

mod check;
pub mod condition;
pub mod cron;
pub mod diagnostic;
mod expected;
pub mod graph;
mod lower;
pub mod matrix;
pub mod params;
mod parse;
pub mod predicted;
mod promotes;
mod raw;
pub mod reference;
mod rules;
mod schema;
mod shape;
pub mod substitute;
mod tree;
pub mod types;
pub mod units;

pub use diagnostic::{Colour, Diagnostic, Related, Severity, Span, render};
pub use parse::MAX_BYTES;
pub use schema::schema;

use diagnostic::Sink;
use serde::Deserialize;
use tree::At;
use types::Pipeline;

/// A good file.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub pipeline: Pipeline,
    /// What it likely does not mean.
    pub warnings: Vec<Diagnostic>,
}

/// Reads any YAML or JSON document as a value, under the same guards against hostile input as a pipeline.
///
/// # Errors
/// What is wrong with it, in words.
pub fn document(bytes: &[u8]) -> Result<serde_json::Value, String> {
    parse::document(bytes)
}

/// Reads and checks a pipeline file. Time and memory are bounded whatever the bytes are; files over 1 MiB are refused.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file, warnings included.
pub fn parse(file_name: &str, bytes: &[u8]) -> Result<Parsed, Vec<Diagnostic>> {
    let mut sink = Sink::new(file_name);
    let tree = match parse::tree(bytes) {
        Ok(tree) => tree,
        Err(found) => {
            found.into_iter().for_each(|diagnostic| sink.push(diagnostic));
            return Err(sink.finish().err().unwrap_or_default());
        }
    };
    let root = At::root(&tree);
    let json = shape::check(root, &mut sink);
    let raw = match raw::Pipeline::deserialize(json) {
        Ok(raw) => raw,
        // The shape check covers the types; if it ever has a gap, the user still gets a message.
        Err(error) => {
            sink.push(Diagnostic::error("unreadable", root.key_span(), format!("the file cannot be read: {error}")));
            return Err(sink.finish().err().unwrap_or_default());
        }
    };
    let lowered = lower::pipeline(&raw, root, &mut sink);
    check::check(&raw, &lowered, root, &mut sink);
    let count = raw.stages.as_ref().map_or(0, indexmap::IndexMap::len);
    let warnings = sink.finish()?;
    let complete = lowered.pipeline.filter(|_| count == lowered.stages.len());
    let Some(mut pipeline) = complete else {
        let mut incomplete = Sink::new(file_name);
        let message = "the file could not be read in full, and no reason was found";
        incomplete
            .push(Diagnostic::error("unreadable", root.key_span(), message).help("please report this with the file"));
        return Err(incomplete.finish().err().unwrap_or_default());
    };
    pipeline.stages = lowered.stages.into_values().map(|stage| (stage.name.clone(), stage)).collect();
    Ok(Parsed { pipeline, warnings })
}
