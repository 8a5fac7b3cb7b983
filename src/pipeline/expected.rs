//! What the schema expects, in words.

use serde_json::{Map, Value};

use super::diagnostic::{list, nearest, shown};
use super::schema::{owners, resolve, words};
use super::tree::{Content, Node};

/// What to write instead of an unknown key: a near one, our word for another system's, or where the key belongs.
pub(super) fn unknown_key_help(known: &Map<String, Value>, key: &str) -> String {
    if let Some(near) = nearest(key, known.keys().map(String::as_str)) {
        return format!("did you mean `{near}`?");
    }
    if let Some((_, ours)) = FOREIGN.iter().find(|(theirs, ours)| *theirs == key && known.contains_key(*ours)) {
        return format!("here it is called `{ours}`");
    }
    let places: Vec<String> = owners(key).into_iter().map(place_name).collect();
    if let 1..=4 = places.len() {
        return format!("`{}` is a key of {}", shown(key), places.join(", of "));
    }
    format!("known keys are {}", list(known.keys().map(String::as_str), "and"))
}

/// What other systems call our keys.
const FOREIGN: [(&str, &str); 31] = [
    ("retries", "retry"),
    ("script", "run"),
    ("steps", "run"),
    ("cmd", "run"),
    ("commands", "run"),
    ("depends_on", "needs"),
    ("dependencies", "needs"),
    ("requires", "needs"),
    ("deps", "needs"),
    ("after", "needs"),
    ("variables", "env"),
    ("environment", "env"),
    ("jobs", "stages"),
    ("pipeline", "stages"),
    ("tasks", "stages"),
    ("if", "when"),
    ("only", "when"),
    ("rules", "when"),
    ("condition", "when"),
    ("artifacts", "outputs"),
    ("outs", "outputs"),
    ("container", "image"),
    ("docker", "image"),
    ("timeout-minutes", "timeout"),
    ("continue-on-error", "allow_failure"),
    ("strategy", "matrix"),
    ("triggers", "on"),
    ("parameters", "params"),
    ("inputs", "params"),
    ("assert", "expect"),
    ("requests", "scenario"),
];

/// How a mapping of the schema is called in the file.
pub(super) fn place_name(definition: &str) -> String {
    let word = match definition {
        "Pipeline" => return "the whole file".to_owned(),
        "Stage" => return "a stage".to_owned(),
        "Step" => return "a step".to_owned(),
        "Check" => "checks",
        "ScenarioItem" => "scenario",
        "TestApi" => "test-api",
        "Service" => "services",
        "BetterIf" => "better_if",
        "Guardrail" => "guardrails",
        "Param" => "params",
        "PullRequest" => "pull_request",
        "EarlyStopping" => "early_stopping",
        "SearchSpace" => "parameters",
        "JsonTests" => "json",
        other => return format!("`{}`", other.to_ascii_lowercase()),
    };
    format!("`{word}`")
}

/// What a schema wants, in words.
pub(super) fn describe(schema: &Value) -> String {
    let schema = resolve(schema);
    if let Some(parts) = schema.get("anyOf").and_then(Value::as_array) {
        let parts: Vec<String> = parts.iter().map(describe).collect();
        return parts.join(", or ");
    }
    if let Some(words) = words(schema) {
        return list(words, "or");
    }
    let word = match schema.get("x-format").and_then(Value::as_str) {
        Some("duration") => "a duration like `90s`, `30m` or `2h`",
        Some("size") => "a size like `512MiB` or `4GiB`",
        Some("percent") => "a share like `10%`",
        Some("rate") => "a rate like `200/s`",
        Some("limit") => "a limit like `\"< 200ms\"`",
        Some("script") => "a script",
        Some("name") => "a name",
        Some("glob") => "a glob",
        Some("path") => "a path",
        Some(_) => "text",
        None => match schema.get("type").and_then(Value::as_str) {
            Some("object") => "a mapping",
            Some("array") => "a list",
            Some("integer") if schema.get("minimum").is_some() => return range(schema),
            Some("integer") => "a whole number",
            Some("number") => "a number",
            Some("boolean") => "`true` or `false`",
            Some("string") => "text",
            Some(_) | None => "a value",
        },
    };
    word.to_owned()
}

/// What to write instead of a list where a mapping is wanted.
pub(super) fn instead_of_list(schema: &Value, items: &[Node]) -> String {
    let names_are_free = schema.get("additionalProperties").is_some_and(Value::is_object);
    let first_name = items.first().and_then(|item| match &item.content {
        Content::Map(entries) => {
            entries.iter().find(|entry| entry.key.text == "name").map(|entry| &entry.value.content)
        }
        scalar @ Content::Scalar { .. } => Some(scalar),
        Content::List(_) => None,
    });
    match first_name {
        Some(Content::Scalar { text, .. }) if names_are_free => match text.split_once('=') {
            Some((name, value)) => format!("write `{}: \"{}\"`", shown(name), shown(value)),
            None => format!("write the name as a key: `{}:`", shown(text)),
        },
        Some(_) | None => "write its keys without the `-` before them".to_owned(),
    }
}

/// The numbers that a schema allows, in words.
pub(super) fn range(schema: &Value) -> String {
    let kind = if schema.get("type").is_some_and(|word| word == "integer") { "a whole number" } else { "a number" };
    let bound = |key: &str| schema.get(key).map(ToString::to_string);
    let low = bound("minimum").map(|min| (min, true)).or_else(|| bound("exclusiveMinimum").map(|min| (min, false)));
    let high = bound("maximum").map(|max| (max, true)).or_else(|| bound("exclusiveMaximum").map(|max| (max, false)));
    match (low, high) {
        (Some((min, true)), Some((max, true))) => format!("{kind} from {min} to {max}"),
        (Some((min, _)), Some((max, _))) => format!("{kind} between {min} and {max}"),
        (Some((min, true)), None) => format!("{kind} of at least {min}"),
        (Some((min, false)), None) => format!("{kind} above {min}"),
        (None, Some((max, _))) => format!("{kind} of at most {max}"),
        (None, None) => kind.to_owned(),
    }
}

pub(super) fn first_sentence(text: &str) -> String {
    let joined = text.replace('\n', " ");
    joined.split_once(". ").map_or(joined.trim_end_matches('.'), |(first, _)| first).to_owned()
}
