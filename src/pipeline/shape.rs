//! Checks a tree against the schema, finding all errors at once, and makes plain JSON of what is good.
//!
//! What is bad is left out of the JSON, so that later checks see the rest of the file; they ask the sink before they
//! complain about something that is absent.

use serde_json::{Map, Value};

use super::diagnostic::{Diagnostic, Sink, did_you_mean, list, shown};
use super::expected::{describe, first_sentence, instead_of_list, range, unknown_key_help};
use super::rules::rule;
use super::schema::{SCHEMA, properties, resolve, words};
use super::substitute;
use super::tree::{At, Content, Node};

/// Checks a whole file.
pub(super) fn check(root: At<'_>, sink: &mut Sink) -> Value {
    let label = Label { key: "the file", item: false };
    Shape { sink }.value(&SCHEMA, root, label).unwrap_or_else(|| Value::Object(Map::new()))
}

/// What a value is called in messages.
#[derive(Clone, Copy)]
struct Label<'a> {
    key: &'a str,
    item: bool,
}

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = shown(self.key);
        match (self.key, self.item) {
            ("the file", _) => f.write_str("the file"),
            (_, true) => write!(f, "an item of `{key}`"),
            (_, false) => write!(f, "`{key}`"),
        }
    }
}

struct Shape<'s> {
    sink: &'s mut Sink,
}

impl Shape<'_> {
    /// The value as JSON; `None` if it is not what the schema wants, which is reported.
    fn value(&mut self, schema: &Value, at: At<'_>, label: Label<'_>) -> Option<Value> {
        let schema = resolve(schema);
        let node = at.node()?;
        if is_free(schema) {
            return Some(json(node));
        }
        let parts = schema.get("anyOf").and_then(Value::as_array);
        if node.is_null() && !parts.is_some_and(|parts| parts.iter().map(resolve).any(is_free)) {
            self.no_value(schema, at, label);
            return empty_object(schema);
        }
        if let Some(format) = schema.get("x-format").and_then(Value::as_str) {
            return self.formatted(format, schema, at, label);
        }
        if let Some(parts) = parts {
            return self.one_of(schema, parts, at, label);
        }
        if let Some(words) = words(schema) {
            return self.word(&words, at, label);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("object") => self.object(schema, at, label),
            Some("array") => self.array(schema, at, label),
            Some("string") => self.string(at, label).map(Value::from),
            Some("integer" | "number") => self.number(schema, at, label),
            Some("boolean") => match node.boolean() {
                Some(value) => Some(value.into()),
                None => self.wrong_type(schema, at, label),
            },
            Some(_) | None => Some(json(node)),
        }
    }

    fn no_value(&mut self, schema: &Value, at: At<'_>, label: Label<'_>) {
        let help = match schema.get("x-format").and_then(Value::as_str) {
            Some("text" | "template") => "write `\"\"` for an empty text".to_owned(),
            Some(_) | None => match schema.get("type").and_then(Value::as_str) {
                Some("object") if schema.get("required").is_none() => {
                    format!("write `{}: {{}}`, or remove it", label.key)
                }
                Some("array") => format!("write `{}: []`, or remove it", label.key),
                Some(_) | None => format!("write {}, or remove the key", describe(schema)),
            },
        };
        self.sink.push(Diagnostic::error("no-value", at.key_span(), format!("{label} has no value")).help(help));
    }

    fn wrong_type(&mut self, schema: &Value, at: At<'_>, label: Label<'_>) -> Option<Value> {
        let Some(node) = at.node() else { return empty_object(schema) };
        let help = match (schema.get("type").and_then(Value::as_str), &node.content) {
            (Some("array"), Content::Scalar { text, .. }) if !text.contains(['\n', ',', '[']) => {
                Some(format!("write `[{}]`", shown(text)))
            }
            (Some("boolean"), Content::Scalar { text, .. }) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" | "1" => Some("write `true`".to_owned()),
                "no" | "off" | "n" | "false" | "0" => Some("write `false`".to_owned()),
                _ => None,
            },
            (Some("integer" | "number"), Content::Scalar { text, plain: false })
                if super::tree::number(text).is_some() =>
            {
                Some("remove the quotes".to_owned())
            }
            (Some("object"), Content::List(items)) => Some(instead_of_list(schema, items)),
            (Some("object"), Content::Scalar { .. }) => properties(schema)
                .map(|known| format!("its keys are {}", list(known.keys().map(String::as_str), "and"))),
            _ => None,
        };
        let message = format!("{label} must be {}, found {}", describe(schema), node.what());
        self.sink.push(Diagnostic::error("wrong-type", at.span(), message).maybe_help(help));
        empty_object(schema)
    }

    /// Text that is written as text: a number or `true` needs quotes.
    fn string(&mut self, at: At<'_>, label: Label<'_>) -> Option<String> {
        let text = self.strict_text(at, label)?;
        if let Some(found) = substitute::ours(text) {
            let message = format!("nothing is put into {label}: `{found}` would stay as it is");
            self.sink.push(
                Diagnostic::error("no-substitution-here", at.span(), message)
                    .help("it works in `image`, `build`, `command`, `env`, `services` and the names of steps"),
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn strict_text<'t>(&mut self, at: At<'t>, label: Label<'_>) -> Option<&'t str> {
        let node = at.node()?;
        match &node.content {
            Content::Scalar { text, .. } if node.number().is_none() && node.boolean().is_none() => Some(text),
            Content::Scalar { text, .. } => {
                let message = format!("{label} must be text, found {}", node.what());
                let help = format!("put it in quotes: `\"{}\"`", shown(text));
                self.sink.push(Diagnostic::error("wrong-type", at.span(), message).help(help));
                None
            }
            Content::List(_) | Content::Map(_) => {
                let message = format!("{label} must be text, found {}", node.what());
                let help = matches!(node.content, Content::Map(_)).then(|| {
                    "if it is meant as text, put it in quotes: `{`, `[` and `: ` have a meaning in YAML".to_owned()
                });
                self.sink.push(Diagnostic::error("wrong-type", at.span(), message).maybe_help(help));
                None
            }
        }
    }

    /// A text with a rule of its own.
    fn formatted(&mut self, format: &str, schema: &Value, at: At<'_>, label: Label<'_>) -> Option<Value> {
        let loose = matches!(format, "text" | "template" | "duration" | "size" | "percent" | "rate" | "limit");
        let text = if loose {
            match at.node().map(|node| &node.content) {
                Some(Content::Scalar { text, .. }) => text.as_str(),
                Some(Content::List(_) | Content::Map(_)) | None => return self.wrong_type(schema, at, label),
            }
        } else {
            self.strict_text(at, label)?
        };
        match rule(format, text, &label) {
            Ok(()) => Some(text.into()),
            Err((code, message, help)) => {
                self.sink.push(Diagnostic::error(code, at.span(), message).maybe_help(help));
                None
            }
        }
    }

    /// The alternative that is of the value's type.
    fn one_of(&mut self, schema: &Value, parts: &[Value], at: At<'_>, label: Label<'_>) -> Option<Value> {
        let node = at.node()?;
        match parts.iter().map(resolve).find(|part| fits(part, node)) {
            Some(part) => self.value(part, at, label),
            None => self.wrong_type(schema, at, label),
        }
    }

    fn word(&mut self, words: &[&str], at: At<'_>, label: Label<'_>) -> Option<Value> {
        let node = at.node()?;
        let Content::Scalar { text, .. } = &node.content else {
            let message = format!("{label} must be {}, found {}", list(words.iter().copied(), "or"), node.what());
            let help = match &node.content {
                Content::List(items) if items.len() == 1 => Some("write it without the list".to_owned()),
                Content::List(_) | Content::Map(_) | Content::Scalar { .. } => None,
            };
            self.sink.push(Diagnostic::error("wrong-type", at.span(), message).maybe_help(help));
            return None;
        };
        if words.contains(&text.as_str()) {
            return Some(text.as_str().into());
        }
        let message = format!("{label} cannot be `{}`", shown(text));
        let help = did_you_mean(text, words.iter().copied())
            .unwrap_or_else(|| format!("it is {}", list(words.iter().copied(), "or")));
        self.sink.push(Diagnostic::error("unknown-word", at.span(), message).help(help));
        None
    }

    fn number(&mut self, schema: &Value, at: At<'_>, label: Label<'_>) -> Option<Value> {
        let whole = schema.get("type").is_some_and(|word| word == "integer");
        let Some(number) = at.node().and_then(Node::number) else { return self.wrong_type(schema, at, label) };
        let value = number.as_f64().unwrap_or(f64::NAN);
        let number = match (whole, number.is_f64()) {
            (true, true) if value.fract() == 0.0 && value.abs() < 9e15 => serde_json::Number::from(value as i64),
            (true, true) => return self.wrong_type(schema, at, label),
            (true | false, _) => number,
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
        let bad = bound("minimum").is_some_and(|min| value < min)
            || bound("maximum").is_some_and(|max| value > max)
            || bound("exclusiveMinimum").is_some_and(|min| value <= min)
            || bound("exclusiveMaximum").is_some_and(|max| value >= max);
        if bad {
            let message = format!("{label} must be {}, found `{number}`", range(schema));
            self.sink.push(Diagnostic::error("out-of-range", at.span(), message));
            return None;
        }
        Some(Value::Number(number))
    }

    fn array(&mut self, schema: &Value, at: At<'_>, label: Label<'_>) -> Option<Value> {
        let Some(Content::List(items)) = at.node().map(|node| &node.content) else {
            return self.wrong_type(schema, at, label);
        };
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let (min, max) = (bound("minItems"), bound("maxItems"));
        if min.is_some_and(|min| items.len() < min) || max.is_some_and(|max| items.len() > max) {
            let message = match (min, max) {
                (Some(min), Some(max)) if min == max => {
                    format!("{label} must hold {min} values, found {}", items.len())
                }
                (_, Some(max)) if items.len() > max => format!("{label} can hold {max} values, found {}", items.len()),
                _ => format!("{label} is empty"),
            };
            self.sink.push(Diagnostic::error("wrong-count", at.span(), message));
            return None;
        }
        let item_schema = schema.get("items").unwrap_or(&Value::Null);
        let item = Label { key: label.key, item: true };
        let checked: Vec<Option<Value>> =
            (0..items.len()).map(|index| self.value(item_schema, at.item(index), item)).collect();
        // One bad item makes the list unknown: to go on with the others would count them wrongly.
        checked.into_iter().collect::<Option<Vec<Value>>>().map(Value::Array)
    }

    fn object(&mut self, schema: &Value, at: At<'_>, label: Label<'_>) -> Option<Value> {
        let Some(Content::Map(entries)) = at.node().map(|node| &node.content) else {
            return self.wrong_type(schema, at, label);
        };
        let nothing = Map::new();
        let known = properties(schema).unwrap_or(&nothing);
        let others = schema.get("additionalProperties").filter(|others| **others != Value::Bool(false));
        let mut out = Map::new();
        for entry in entries {
            let here = at.entry(entry);
            let key = entry.key.text.as_str();
            let inner = match (known.get(key), others) {
                (Some(inner), _) => inner,
                (None, Some(inner)) => {
                    self.key_rule(schema, key, here, label);
                    inner
                }
                (None, None) => {
                    self.unknown_key(known, key, here, label);
                    continue;
                }
            };
            if let Some(value) = self.value(inner, here, Label { key, item: false }) {
                out.insert(key.to_owned(), value);
            }
        }
        let required = schema.get("required").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for key in required.iter().filter_map(Value::as_str).filter(|key| !at.get(key).exists()) {
            let about = known.get(key).and_then(|inner| inner.get("description")).and_then(Value::as_str);
            let about = about.map(|text| format!("`{key}`: {}", first_sentence(text)));
            let message = format!("{label} needs the key `{key}`");
            self.sink.push(Diagnostic::error("missing-key", at.key_span(), message).maybe_help(about));
        }
        let count = |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        if entries.is_empty() && count("minProperties").is_some() {
            self.sink.push(Diagnostic::error("wrong-count", at.span(), format!("{label} is empty")));
        }
        if let Some(max) = count("maxProperties").filter(|max| entries.len() > *max) {
            let message = format!("{label} holds {} entries; at most {max} are allowed", entries.len());
            self.sink.push(Diagnostic::error("wrong-count", at.key_span(), message));
            return empty_object(schema);
        }
        Some(Value::Object(out))
    }

    /// The rule for keys that the user chooses.
    fn key_rule(&mut self, schema: &Value, key: &str, at: At<'_>, label: Label<'_>) {
        let Some(format) = schema.get("propertyNames").and_then(|names| names.get("x-format")) else { return };
        let in_map = Label { key: label.key, item: true };
        if let Err((code, _, help)) = rule(format.as_str().unwrap_or(""), key, &in_map) {
            let message = format!("the key `{}` of {label} is not a valid name", shown(key));
            self.sink.push(Diagnostic::error(code, at.key_span(), message).maybe_help(help));
        }
    }

    fn unknown_key(&mut self, known: &Map<String, Value>, key: &str, at: At<'_>, label: Label<'_>) {
        if self.sink.is_full() {
            self.sink.push(Diagnostic::error("unknown-key", at.key_span(), ""));
            return;
        }
        let help = unknown_key_help(known, key);
        let message = match label {
            Label { key: "the file", .. } => format!("`{}` is not a key of a pipeline", shown(key)),
            Label { .. } => format!("`{}` is not a key of {label}", shown(key)),
        };
        self.sink.push(Diagnostic::error("unknown-key", at.key_span(), message).help(help));
    }
}

/// Whether any value will do.
fn is_free(schema: &Value) -> bool {
    let rules = ["type", "anyOf", "oneOf", "enum", "const", "x-format"];
    schema.as_object().is_none_or(|object| rules.iter().all(|rule| !object.contains_key(*rule)))
}

/// Whether a value is of the alternative's type; what exactly is wrong with it is said later.
fn fits(schema: &Value, node: &Node) -> bool {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => matches!(node.content, Content::Map(_)),
        Some("array") => matches!(node.content, Content::List(_)),
        Some("integer" | "number") => node.number().is_some(),
        Some("boolean") => node.boolean().is_some(),
        Some("string") => match (&node.content, words(schema)) {
            (Content::Scalar { text, .. }, Some(words)) => words.contains(&text.as_str()),
            (Content::Scalar { .. }, None) => true,
            (Content::List(_) | Content::Map(_), _) => false,
        },
        Some(_) => false,
        None => is_free(schema) && !(schema.get("not").is_some() && matches!(node.content, Content::Map(_))),
    }
}

/// What stands for a value that is wrong: an empty mapping, so that what holds it is still looked at.
fn empty_object(schema: &Value) -> Option<Value> {
    let object = schema.get("type").is_some_and(|word| word == "object");
    object.then(|| Value::Object(Map::new()))
}

/// A value as JSON by the rules of YAML 1.2.
fn json(node: &Node) -> Value {
    match &node.content {
        Content::List(items) => Value::Array(items.iter().map(json).collect()),
        Content::Map(entries) => {
            Value::Object(entries.iter().map(|entry| (entry.key.text.clone(), json(&entry.value))).collect())
        }
        Content::Scalar { text, .. } => {
            if node.is_null() {
                Value::Null
            } else if let Some(boolean) = node.boolean() {
                boolean.into()
            } else {
                node.number().map_or_else(|| text.as_str().into(), Value::Number)
            }
        }
    }
}
