//! The table of keys for the docs, printed from the schema.

use std::fmt::Write;

use serde_json::Value;

use super::schema::{SCHEMA, properties, resolve, words};

/// Every mapping of the language with its keys, as Markdown.
pub fn reference() -> String {
    let mut out = String::new();
    section(&mut out, "Pipeline", &SCHEMA);
    let defs = SCHEMA.get("$defs").and_then(Value::as_object);
    for (name, schema) in defs.into_iter().flatten() {
        if properties(schema).is_some() {
            section(&mut out, name, schema);
        }
    }
    out
}

fn section(out: &mut String, name: &str, schema: &Value) {
    // Writing to a string cannot fail.
    let _ = write!(out, "### {name}\n\n{}\n\n| key | value | meaning |\n|---|---|---|\n", text(schema));
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, inner) in properties(schema).into_iter().flatten() {
        let must = if required.contains(&key.as_str()) { " **Required.**" } else { "" };
        let default = inner.get("default").map(|value| format!(" Default: `{}`.", plain(value))).unwrap_or_default();
        let _ = writeln!(out, "| `{key}` | {} | {}{must}{default} |", kind(inner), text(inner).replace('|', "\\|"));
    }
    if let Some(others) = schema.get("additionalProperties").filter(|others| others.is_object()) {
        let _ = writeln!(out, "| *any other* | {} | {} |", kind(others), text(others).replace('|', "\\|"));
    }
    out.push('\n');
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// What a key holds, with a link where that has keys of its own.
fn kind(schema: &Value) -> String {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    if let Some(name) = target.filter(|_| properties(resolve(schema)).is_some()) {
        return format!("[{name}](#{})", name.to_ascii_lowercase());
    }
    let schema = resolve(schema);
    if let Some(words) = words(schema) {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" ");
    }
    if let Some(parts) = schema.get("anyOf").and_then(Value::as_array) {
        return parts.iter().map(kind).collect::<Vec<_>>().join(", or ");
    }
    if let Some(format) = schema.get("x-format").and_then(Value::as_str) {
        return match format {
            "text" | "template" => "text".to_owned(),
            other => other.replace("variable-part", "name"),
        };
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => format!("list of {}", schema.get("items").map_or_else(String::new, kind)),
        Some("object") => match schema.get("additionalProperties").filter(|others| others.is_object()) {
            Some(others) => format!("name → {}", kind(others)),
            None => "mapping".to_owned(),
        },
        Some("integer") => "whole number".to_owned(),
        Some("string") => "text".to_owned(),
        Some(word) => word.to_owned(),
        None => "any value".to_owned(),
    }
}
