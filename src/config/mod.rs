//! The daemon's configuration: `orchestrator.toml` and a few environment variables in, one checked [`Config`] or diagnostics out.
//!
//! ```text
//! text -> read (single settings with places) -> lower (Config, rules) -> load (files looked at) -> watch (kept fresh)
//! ```
//!
//! `keys` says what there is; everything that shows or checks keys is made from it. All but `load`, `watch` and `edit` is PURE.

pub mod describe;
pub mod edit;
pub mod keys;
pub mod load;
mod lower;
mod read;
pub mod repository;
mod setting;
pub mod types;
pub mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

pub use load::{LoadError, Loaded, find, load};
pub use read::{Given, MAX_BYTES, Origin, Values, without_secrets};
pub use setting::Setting;
pub use types::Config;

use crate::pipeline::diagnostic::{Diagnostic, Sink};

/// A good configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What it says.
    pub config: Config,
    /// The single settings that were given, with their places.
    pub values: Values,
    /// What it likely does not mean.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks the text of a configuration file.
///
/// `name` is the file's name for messages, `base` the absolute folder where relative paths begin, `variables` the environment.
///
/// # Errors
/// Everything that is wrong, in the order of the file, warnings included. Show it with [`without_secrets`] of the text.
pub fn parse(
    name: &str,
    text: &str,
    base: &Path,
    variables: &BTreeMap<String, String>,
) -> Result<Parsed, Vec<Diagnostic>> {
    let mut sink = Sink::new(name);
    let mut values = read::values(text, &mut sink);
    read::environment(variables, &mut values, &mut sink);
    let config = lower::config(&mut lower::Reader::new(&values, base, &mut sink));
    let warnings = sink.finish()?;
    Ok(Parsed { config, values, warnings })
}
