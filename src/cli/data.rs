//! Opening the data folder.

use std::path::Path;
use std::sync::Arc;

use crate::engine::paths::Paths;
use crate::engine::{Engine, EngineError};

/// Opens the data folder, making it if there is none.
///
/// # Errors
/// As [`Engine::open`].
pub async fn open(given: Option<&Path>) -> Result<Arc<Engine>, EngineError> {
    Engine::open(Paths::new(given)?).await
}

/// Prints a value as JSON.
///
/// # Errors
/// If it has no JSON form, or cannot be written.
pub fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    super::text::print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Who works on the data folder, for the audit log.
pub fn actor() -> String {
    let user = nix::unistd::getuid();
    let name = nix::unistd::User::from_uid(user).ok().flatten().map(|user| user.name);
    format!("{} on this machine", name.unwrap_or_else(|| format!("user {user}")))
}
