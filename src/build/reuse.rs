//! The key of a stage's result, and what differs between two keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All that a result depends on, part by part; each part's value is a digest or a short text. Two results with equal parts
/// are interchangeable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyParts(pub BTreeMap<String, String>);

impl KeyParts {
    /// Adds a part as it stands.
    pub fn text(&mut self, part: &str, value: impl Into<String>) {
        self.0.insert(part.to_owned(), value.into());
    }

    /// Adds a part by its digest: for what is long, or not to be shown (variables).
    pub fn digest(&mut self, part: &str, value: &impl Serialize) {
        let json = serde_json::to_vec(value).expect("keys of maps are text and numbers are finite");
        self.0.insert(part.to_owned(), blake3::hash(&json).to_hex().to_string());
    }

    /// The key: BLAKE3 over all parts, in hex.
    pub fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (part, value) in &self.0 {
            for text in [part, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The names of the parts that differ, are new or are gone, in order.
    pub fn changed_since(&self, earlier: &KeyParts) -> Vec<String> {
        let all: std::collections::BTreeSet<&String> = self.0.keys().chain(earlier.0.keys()).collect();
        all.into_iter().filter(|part| self.0.get(*part) != earlier.0.get(*part)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_every_part_and_its_name() {
        let mut one = KeyParts::default();
        one.text("image", "a");
        one.text("script", "bc");
        let mut two = one.clone();
        assert_eq!(one.key(), two.key());
        two.text("script", "bd");
        assert_ne!(one.key(), two.key());
        assert_eq!(two.changed_since(&one), ["script"]);
        let mut moved = KeyParts::default();
        moved.text("image", "ab");
        moved.text("script", "c");
        assert_ne!(one.key(), moved.key());
    }
}
