//! What a trigger that is no webhook saw or was asked for, as stored with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The subject of a trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// A branch or tag is at another commit.
    Head {
        /// The full ref.
        git_ref: String,
        /// Where it is.
        commit: String,
        /// Where it was, if it was known.
        before: Option<String>,
    },
    /// A time has come.
    Schedule {
        /// The pipeline's file.
        pipeline: String,
        /// The schedule: expression, zone, branch.
        line: String,
        /// The branch that is built.
        branch: String,
        /// The time, in microseconds since 1970.
        slot: i64,
        /// Times that passed before it and start nothing.
        missed: u32,
    },
    /// Someone asked for a build.
    Manual(Asked),
}

/// What someone asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BuildAsked)]
pub struct Asked {
    /// Branch; the default branch if neither this nor a tag or commit is given.
    #[serde(default)]
    pub branch: Option<String>,
    /// Tag.
    #[serde(default)]
    pub tag: Option<String>,
    /// Full id of a commit.
    #[serde(default)]
    pub commit: Option<String>,
    /// The pipeline's file; needed where the project has several.
    #[serde(default)]
    pub pipeline: Option<String>,
    /// Parameters by name, as text.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Only these stages and what they need.
    #[serde(default)]
    pub stages: Vec<String>,
    /// From this stage on; what stands before it is taken from earlier builds.
    #[serde(default)]
    pub from: Option<String>,
    /// Reuse nothing.
    #[serde(default)]
    pub no_reuse: bool,
    /// Who asked; set by the server, whatever is given.
    #[serde(default)]
    #[schema(read_only)]
    pub actor: String,
}
