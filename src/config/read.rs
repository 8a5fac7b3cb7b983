//! TOML text to single settings, each of the right kind and with its place; everything that is wrong is told at once.
//!
//! PURE.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{Document, Item, TableLike, Value};

use super::keys::{self, KEYS, Key};
use super::setting::{Setting, setting};
use crate::ids::is_name;
use crate::pipeline::diagnostic::{Diagnostic, Sink, Span, did_you_mean, list, shown};

/// Longest file that is read.
pub const MAX_BYTES: usize = 1 << 20;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The file.
    File(Span),
    /// An environment variable.
    Environment(&'static str),
}

/// A value that was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Given {
    /// The value.
    pub setting: Setting,
    /// Where it comes from.
    pub origin: Origin,
}

/// All that was given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Values {
    /// By path, like `projects.api.poll`.
    pub given: BTreeMap<String, Given>,
    /// Tables that are there, by path, with the place of their name.
    pub tables: Vec<(String, Span)>,
    /// Paths whose value was wrong, so that it is not told to be missing.
    pub(super) broken: BTreeSet<String>,
}

impl Values {
    /// Names that the user chose below this table, in the order of the file.
    pub fn names(&self, table: &str) -> Vec<(&str, Span)> {
        let below = |path: &'_ str| -> Option<String> {
            let rest = path.strip_prefix(table)?.strip_prefix('.')?;
            (!rest.contains('.')).then(|| rest.to_owned())
        };
        self.tables
            .iter()
            .filter(|(path, _)| below(path).is_some())
            .map(|(path, span)| (&path[table.len() + 1..], *span))
            .collect()
    }
}

/// Gives places to bytes: the parser counts only bytes.
struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, lines }
    }

    fn span(&self, range: Option<std::ops::Range<usize>>) -> Span {
        let Some(range) = range else { return Span { line: 1, col: 1, offset: 0, len: 0 } };
        let line = self.lines.partition_point(|start| *start <= range.start);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let col = self.text.get(start..range.start).map_or(1, |before| before.chars().count() + 1);
        Span { line, col, offset: range.start, len: range.len() }
    }
}

/// Reads the text. What is wrong goes into the sink; what is good is returned.
pub(super) fn values(text: &str, sink: &mut Sink) -> Values {
    let mut values = Values::default();
    let places = Places::new(text);
    if text.len() > MAX_BYTES {
        sink.push(Diagnostic::error("too-large", places.span(None), "the file is larger than 1 MiB"));
        return values;
    }
    let document =
        match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let message = format!("this is not TOML: {}", error.message().lines().collect::<Vec<_>>().join(", "));
                sink.push(Diagnostic::error("syntax", places.span(error.span()), message).help(
                    "texts stand in quotes, tables in brackets, like `[server]` and `listen = \"127.0.0.1:8484\"`",
                ));
                return values;
            }
        };
    Walk { places, sink, values: &mut values }.table(document.as_table(), "");
    values
}

struct Walk<'a> {
    places: Places<'a>,
    sink: &'a mut Sink,
    values: &'a mut Values,
}

impl Walk<'_> {
    fn table(&mut self, table: &dyn TableLike, path: &str) {
        for (name, item) in table.iter() {
            if item.is_none() {
                continue;
            }
            let key = table.get_key_value(name).and_then(|(key, _)| key.span());
            let span = self.places.span(key.or_else(|| item.span()));
            if keys::NAMED.contains(&path) && !is_name(name) {
                let message = format!("`{}` is not a name", shown(name));
                self.sink.push(
                    Diagnostic::error("bad-name", span, message)
                        .help("a name is lower-case letters, digits and `-`, at most 63, not beginning with `-`"),
                );
                continue;
            }
            let here = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            self.entry(&here, name, item, span);
        }
    }

    fn entry(&mut self, path: &str, name: &str, item: &Item, span: Span) {
        let pattern = keys::pattern(path);
        if let Some(key) = keys::find(&pattern) {
            self.value(path, key, item, span);
        } else if !keys::below(&pattern).is_empty() || keys::NAMED.contains(&path) {
            match item.as_table_like() {
                Some(table) => {
                    self.values.tables.push((path.to_owned(), span));
                    self.table(table, path);
                }
                None => self.sink.push(
                    Diagnostic::error("wrong-type", span, format!("`{path}` is a table"))
                        .help(format!("write `[{path}]` on a line of its own, and its keys below")),
                ),
            }
        } else {
            self.unknown(path, name, span);
        }
    }

    fn value(&mut self, path: &str, key: &Key, item: &Item, span: Span) {
        let at = self.places.span(item.span());
        let Some(value) = item.as_value() else {
            self.values.broken.insert(path.to_owned());
            let message = format!("`{path}` is a single value, not a table");
            self.sink.push(Diagnostic::error("wrong-type", span, message));
            return;
        };
        match setting(key.kind, value) {
            Ok(setting) => {
                let given = Given { setting, origin: Origin::File(at) };
                self.values.given.insert(path.to_owned(), given);
            }
            Err(wrong) => {
                self.values.broken.insert(path.to_owned());
                let at = wrong.part.map_or(at, |part| self.places.span(Some(part)));
                let message = format!("`{path}`: {}", wrong.message);
                self.sink.push(Diagnostic::error(wrong.code, at, message).maybe_help(wrong.help));
            }
        }
    }

    fn unknown(&mut self, path: &str, name: &str, span: Span) {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        let pattern = keys::pattern(parent);
        let known = if parent.is_empty() { keys::below("") } else { keys::below(&pattern) };
        let as_file = format!("{name}_file");
        if let Some(file) = known.iter().find(|word| **word == as_file) {
            self.values.broken.insert(format!("{path}_file"));
            let variable = file.replace("_file", "_env");
            let or = if known.contains(&variable.as_str()) {
                format!(", or an environment variable's name as `{variable}`")
            } else {
                String::new()
            };
            self.sink.push(
                Diagnostic::error("secret-in-file", span, format!("`{path}`: a secret does not belong into this file"))
                    .help(format!(
                        "write it into a file that only orchestrator can read, and name that as `{file}`{or}"
                    )),
            );
            return;
        }
        let elsewhere = || {
            let tail = format!(".{name}");
            KEYS.iter().find(|key| key.path.ends_with(&tail)).map(|key| format!("there is `{}`", key.path))
        };
        let help = did_you_mean(name, known.iter().copied())
            .or_else(elsewhere)
            .unwrap_or_else(|| format!("known here: {}", list(known.iter().copied(), "and")));
        let place = if parent.is_empty() { "this file".to_owned() } else { format!("`[{parent}]`") };
        let message = format!("`{}` is not known in {place}", shown(name));
        self.sink.push(Diagnostic::error("unknown-key", span, message).help(help));
    }
}

/// Adds what the environment says; it goes before the file.
pub(super) fn environment(variables: &BTreeMap<String, String>, values: &mut Values, sink: &mut Sink) {
    for (variable, path) in keys::ENVIRONMENT {
        let Some(text) = variables.get(*variable).filter(|text| !text.is_empty()) else { continue };
        let Some(key) = keys::find(path) else { continue };
        match setting(key.kind, &Value::from(text.as_str())) {
            Ok(setting) => {
                let given = Given { setting, origin: Origin::Environment(variable) };
                values.given.insert((*path).to_owned(), given);
            }
            Err(wrong) => sink.push(
                Diagnostic::error(wrong.code, Span::default(), format!("`{variable}`: {}", wrong.message))
                    .maybe_help(wrong.help),
            ),
        }
    }
}

/// The text with everything starred out that may be a secret: excerpts of it are shown and logged. Bytes keep their places.
pub fn without_secrets(text: &str) -> String {
    const WORDS: &[&str] = &["token", "secret", "password", "passphrase", "url", "key", "credentials"];
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('=') {
            out.push_str(before);
            out.push('=');
            let word = before.trim_end().trim_end_matches(['"', '\'']);
            let word =
                word.rsplit([' ', '\t', '{', ',', '.', '"', '\'']).next().unwrap_or_default().to_ascii_lowercase();
            // `key` and `url` are right in one table and a secret in another: better a star too many.
            let known = !["key", "url"].contains(&word.as_str())
                && KEYS.iter().any(|key| key.path.rsplit('.').next() == Some(word.as_str()));
            if !known && WORDS.iter().any(|secret| word.contains(secret)) {
                let value = after.trim_start_matches([' ', '\t']);
                out.push_str(&after[..after.len() - value.len()]);
                star(value, &mut out);
                rest = "";
            } else {
                rest = after;
            }
        }
        out.push_str(rest);
    }
    without_passwords(&out)
}

/// Stars for a text, a byte for a byte.
fn star(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(c),
            _ => out.extend(std::iter::repeat_n('*', c.len_utf8())),
        }
    }
}

/// Stars for what stands between `://` and `@`.
fn without_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['"', '\'', '/', ' ', '\n', '\r']).unwrap_or(after.len());
        let user = after[..end].rfind('@').unwrap_or(0);
        // A user alone (`git@`) is no secret.
        if user > 0 && after[..user] != *"git" {
            star(&after[..user], &mut out);
        } else {
            out.push_str(&after[..user]);
        }
        rest = &after[user..];
    }
    out.push_str(rest);
    out
}
