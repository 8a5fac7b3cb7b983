//! `orchestrator schema`: the JSON Schema of the pipeline language.

use std::io::Write;

use anyhow::Context;

/// The schema as it is printed, with a line end.
///
/// # Errors
/// Only if JSON cannot hold it, which it can.
pub fn text() -> anyhow::Result<String> {
    let mut text =
        serde_json::to_string_pretty(&crate::pipeline::schema()).context("cannot write the schema as JSON")?;
    text.push('\n');
    Ok(text)
}

/// Prints it.
///
/// # Errors
/// If standard output is closed.
pub fn run() -> anyhow::Result<i32> {
    std::io::stdout().write_all(text()?.as_bytes()).context("cannot write to standard output")?;
    Ok(0)
}
