//! Names and numbers that the rest of the program passes around, as types of their own.
//!
//! PURE: nothing here reads a clock, a file or the environment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A build's number: counted up from 1 within one data folder, shown as `#12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(pub u64);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl FromStr for BuildId {
    type Err = InvalidName;

    /// Reads `12` or `#12`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let digits = text.strip_prefix('#').unwrap_or(text);
        digits.parse().map(BuildId).map_err(|_| InvalidName { text: text.to_owned() })
    }
}

/// A name that does not follow the rule `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid name (lower-case letters, digits and `-`, at most 63, not starting with `-`)")]
pub struct InvalidName {
    /// What was written.
    pub text: String,
}

/// A stage's name as written in the pipeline: `[a-z0-9][a-z0-9-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StageName(String);

impl StageName {
    /// Checks the rule for names.
    ///
    /// # Errors
    /// [`InvalidName`] if the text breaks it.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(InvalidName { text: text.to_owned() }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for StageName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(&text)
    }
}

impl From<StageName> for String {
    fn from(name: StageName) -> String {
        name.0
    }
}

/// Whether the text is a valid name: `[a-z0-9][a-z0-9-]{0,62}`.
pub fn is_name(text: &str) -> bool {
    let ok = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(|b| ok(&b)) && !text.starts_with('-')
}

/// One node of a plan: a stage, or one matrix cell of it.
///
/// As text `train`, or `test.3.12-debian` for a cell. A stage's name holds no dot, so the first dot separates.
/// The text is safe as a file name and in a container's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeKey {
    /// The stage.
    pub stage: StageName,
    /// The cell's slug (`[a-z0-9._-]+`), if the stage has a matrix.
    pub cell: Option<String>,
}

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cell {
            None => f.pad(self.stage.as_str()),
            Some(cell) => f.pad(&format!("{}.{cell}", self.stage)),
        }
    }
}

impl FromStr for NodeKey {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (stage, cell) = match text.split_once('.') {
            None => (text, None),
            Some((stage, cell)) => (stage, Some(cell)),
        };
        let good = |c: &str| {
            !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if cell.is_some_and(|c| !good(c)) {
            return Err(InvalidName { text: text.to_owned() });
        }
        Ok(Self { stage: StageName::new(stage)?, cell: cell.map(str::to_owned) })
    }
}

impl TryFrom<String> for NodeKey {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<NodeKey> for String {
    fn from(key: NodeKey) -> String {
        key.to_string()
    }
}

/// Microseconds since the Unix epoch: how this program stores every moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// Time passed since `earlier`; zero if the clock went back.
    pub fn since(self, earlier: Micros) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_keys_round_trip() {
        for text in ["train", "test.3.12-debian", "a.b"] {
            let key: NodeKey = text.parse().expect("valid");
            assert_eq!(key.to_string(), text);
        }
        for text in ["", "-a", "A", "a.", "a./", "a.B"] {
            assert!(text.parse::<NodeKey>().is_err(), "{text:?}");
        }
    }
}
