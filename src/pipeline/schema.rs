//! The JSON Schema of the language, made from the types of [`super::raw`].

use std::sync::LazyLock;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use serde_json::{Map, Value};

use super::raw;

/// The schema, as `orchestrator schema` prints it (JSON Schema 2020-12).
///
/// Keys that begin with `x-` are ours: `x-format` names a rule that a pattern alone cannot say.
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// Made once: the check of a file's shape reads it for every key.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.untagged_enum_variant_titles = false;
    });
    let mut schema =
        settings.with_transform(no_null as fn(&mut Schema)).into_generator().into_root_schema_for::<raw::Pipeline>();
    schema.insert("title".to_owned(), "orchestrator pipeline".into());
    schema.to_value()
});

/// Takes out what only says that a Rust field is an `Option`: `null`, and defaults that mean "absent".
fn no_null(schema: &mut Schema) {
    transform_subschemas(&mut (no_null as fn(&mut Schema)), schema);
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|word| word != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    let is_null =
        |part: &Value| part.get("type").is_some_and(|word| word == "null") && part.get("description").is_none();
    if let Some(Value::Array(parts)) = object.get_mut("anyOf") {
        parts.retain(|part| !is_null(part));
        if let [Value::Object(only)] = parts.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if object.get("default").is_some_and(empty) {
        object.remove("default");
    }
    // `uint32` and the like say how Rust stores a number, which is nobody's concern here.
    if object.get("type").is_some_and(|word| word != "string") {
        object.remove("format");
    }
}

/// Follows `$ref` to the definition.
pub(super) fn resolve(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/")) {
        Some(name) => SCHEMA.get("$defs").and_then(|defs| defs.get(name)).unwrap_or(&Value::Null),
        None => schema,
    }
}

/// The properties of a mapping's schema.
pub(super) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// The words that a schema allows, if it is a list of words.
pub(super) fn words(schema: &Value) -> Option<Vec<&str>> {
    let schema = resolve(schema);
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![word]);
    }
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return list.iter().map(Value::as_str).collect();
    }
    let parts = schema.get("oneOf").and_then(Value::as_array)?;
    parts.iter().map(|part| part.get("const").and_then(Value::as_str)).collect()
}

/// The mappings that know a key, by their names in the schema.
pub(super) fn owners(key: &str) -> Vec<&'static str> {
    let Some(defs) = SCHEMA.get("$defs").and_then(Value::as_object) else { return Vec::new() };
    let top = properties(&SCHEMA).filter(|known| known.contains_key(key)).map(|_| "Pipeline");
    let inner = defs
        .iter()
        .filter(|(_, schema)| properties(schema).is_some_and(|known| known.contains_key(key)))
        .map(|(name, _)| name.as_str());
    top.into_iter().chain(inner).collect()
}
