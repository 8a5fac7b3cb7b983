//! Texts with a meaning of their own. `x-format` names the rule that the shape check applies; `pattern` tells editors.

use schemars::JsonSchema;
use serde::Deserialize;

/// A name: lower-case letters, digits and `-`, at most 63.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-format" = "name", "pattern" = "^[a-z0-9][a-z0-9-]{0,62}$"))]
pub(crate) struct Name(pub String);

/// The name of an environment variable.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-format" = "variable", "pattern" = "^[A-Za-z_][A-Za-z0-9_]*$"))]
pub(crate) struct Variable(pub String);

/// A duration: `90s`, `30m`, `2h`, `1h30m`, `500ms`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Duration")]
#[schemars(extend("x-format" = "duration", "pattern" = "^([0-9]+(\\.[0-9]+)?(ms|s|m|h|d))+$"))]
pub(crate) struct DurationText(pub String);

/// A size: `512MiB`, `4GiB`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Size")]
#[schemars(extend("x-format" = "size", "pattern" = "^[0-9]+(\\.[0-9]+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$"))]
pub(crate) struct SizeText(pub String);

/// A share: `5%`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Percent")]
#[schemars(extend("x-format" = "percent", "pattern" = "^[0-9]+(\\.[0-9]+)?%$"))]
pub(crate) struct PercentText(pub String);

/// A rate: `200/s`, `600/m`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Rate")]
#[schemars(extend("x-format" = "rate", "pattern" = "^[0-9]+(\\.[0-9]+)?/(s|m|h)$"))]
pub(crate) struct RateText(pub String);

/// A glob: `*` within one part of a path, `**` across parts, `{a,b}`, `[ab]`, `?`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-format" = "glob"))]
pub(crate) struct Glob(pub String);

/// A path inside the workspace: relative, and never above it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Path")]
#[schemars(extend("x-format" = "path"))]
pub(crate) struct OutputPath(pub String);

/// A shell script. Nothing is put into it; parameters and matrix values come as variables.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-format" = "script"))]
pub(crate) struct Script(pub String);

/// Text, a number, `true` or `false`: taken as it is written. `3.10` stays `3.10`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-format" = "text", "type" = ["string", "number", "boolean"]))]
pub(crate) struct Text(pub String);

/// Text taken as it is written, into which `${params.x}` and, in a stage, `${matrix.x}` are put. `$${` stands for `${`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("x-format" = "template", "type" = ["string", "number", "boolean"]))]
pub(crate) struct Template(pub String);

/// A limit with its comparison: `"< 200ms"`, `"> 100"`, `"< 1%"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(rename = "Limit")]
#[schemars(extend("x-format" = "limit", "pattern" = "^ *(<|<=|>|>=) *[0-9.]+ *(%|ms|s|m|/s)? *$"))]
pub(crate) struct LimitText(pub String);
