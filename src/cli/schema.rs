//! `orchestrator schema`: the JSON Schema of the pipeline language.

use anyhow::Context;

use super::text::print;

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
/// If there is no text.
pub fn run() -> anyhow::Result<i32> {
    print(&text()?)?;
    Ok(0)
}
