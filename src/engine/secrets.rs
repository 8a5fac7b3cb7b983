//! Whether a build goes on with the secrets that it began with.
//!
//! What a stage under way has printed is read again from its first byte, and masked with the values given now. With another
//! value the old one would come to light, so such a build does not go on. Values are known again by a print of 16 bits: enough to
//! notice nearly every change, too little to find the value by trying.

use std::collections::BTreeMap;

use super::EngineError;
use super::environment::Secrets;
use crate::build::plan::Plan;
use crate::build::status::{BuildState, StageStatus};
use crate::store::builds::BuildRequest;

/// Compares the values given now with those that the build began with, and puts down the new ones. Says whether anything
/// changed that is to be stored.
///
/// # Errors
/// [`EngineError::Secrets`] if one differs or is missing and a stage is under way.
pub fn settle(
    request: &mut BuildRequest,
    plan: &Plan,
    state: &BuildState,
    (instance, given): (&str, &Secrets),
) -> Result<bool, EngineError> {
    let now: BTreeMap<String, String> =
        given.pairs().map(|(name, value)| (name.to_owned(), print(instance, name, value))).collect();
    if request.secrets == now {
        return Ok(false);
    }
    let under_way = state.stages.iter().position(|stage| matches!(stage, StageStatus::Running { .. }));
    let other = request.secrets.iter().find(|(name, print)| now.get(*name) != Some(*print));
    if let (Some(stage), Some((name, _))) = (under_way, other) {
        let how = if now.contains_key(name) { "has another value than when the build began" } else { "is not given" };
        let stage = &plan.nodes[stage].key;
        return Err(EngineError::Secrets(format!(
            "the build cannot go on: secret {name} {how}, and what stage `{stage}` has printed can only be masked with the old \
             value; give that one (in the environment or by --secret-file), or end the build by `orchestrator cancel` and \
             run the pipeline again"
        )));
    }
    request.secrets = now;
    Ok(true)
}

/// The same value has the same print in all builds of a data folder, so that many builds tell no more of it than one.
fn print(instance: &str, name: &str, value: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("orchestrator: print of a secret");
    for part in [instance, name, value] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_hex()[..4].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_tell_values_apart_and_little_more() {
        let of = |name: &str, value: &str| print("instance", name, value);
        assert_eq!(of("A", "one"), of("A", "one"));
        assert_ne!(of("A", "one"), of("A", "two"));
        assert_ne!(of("A", "one"), of("B", "one"));
        assert_ne!(print("other", "A", "one"), of("A", "one"));
        assert_eq!(of("A", "one").len(), 4, "16 bits");
    }
}
