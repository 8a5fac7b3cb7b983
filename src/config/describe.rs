//! The keys for people: what is in force and why, a starting file, and the page in `docs/`.
//!
//! PURE.

use std::fmt::Write;

use serde::Serialize;

use super::keys::{self, ENVIRONMENT, KEYS, Key, Kind, RESTART, TABLES};
use super::read::{Origin, Values};
use super::setting::Setting;

/// One key as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Where it stands, like `projects.api.poll`.
    pub key: String,
    /// The value as TOML, if there is one.
    pub value: Option<String>,
    /// `file:12`, `environment ORCHESTRATOR_LISTEN`, `default` or `not set`.
    pub origin: String,
    /// The default as TOML, if there is one.
    pub default: Option<&'static str>,
    /// What it is for.
    pub doc: &'static str,
}

/// All keys in force: those with names once for each name, and once as `<name>` if there is none.
pub fn in_force(values: &Values) -> Vec<Shown> {
    let mut found = Vec::new();
    for (table, _) in TABLES {
        let (group, named) = match table.strip_suffix(".<name>") {
            Some(group) => (group, values.names(group)),
            None => (*table, Vec::new()),
        };
        let names: Vec<&str> =
            if named.is_empty() { vec!["<name>"] } else { named.iter().map(|(name, _)| *name).collect() };
        for name in names {
            for key in of_table(group) {
                found.push(shown(&key.path.replace("<name>", name), key, values));
            }
        }
    }
    found
}

/// The keys below a table.
fn of_table(table: &str) -> impl Iterator<Item = &'static Key> {
    let head = format!("{table}.");
    KEYS.iter().filter(move |key| key.path.starts_with(&head))
}

fn shown(path: &str, key: &'static Key, values: &Values) -> Shown {
    let default = (!key.default.is_empty()).then_some(key.default);
    let inherited = path.rsplit_once('.').map(|(_, word)| format!("defaults.{word}"));
    let inherited = inherited.filter(|other| path.starts_with("projects.") && keys::find(other).is_some());
    let (value, origin) = match (values.given.get(path), inherited) {
        (Some(given), _) => {
            let origin = match &given.origin {
                Origin::File(span) => format!("file:{}", span.line),
                Origin::Environment(name) => format!("environment {name}"),
            };
            (Some(as_toml(&given.setting)), origin)
        }
        (None, Some(other)) => (None, format!("as {other}")),
        (None, None) if default.is_some() => (default.map(str::to_owned), "default".to_owned()),
        (None, None) => (None, "not set".to_owned()),
    };
    Shown { key: path.to_owned(), value, origin, default, doc: key.doc }
}

/// The value as it would be written.
fn as_toml(setting: &Setting) -> String {
    let text = |text: &str| toml_edit::Value::from(text).to_string();
    match setting {
        Setting::Text(value) => text(value),
        Setting::Flag(flag) => flag.to_string(),
        Setting::Number(number) => number.to_string(),
        Setting::Time(time) => text(&time_words(time.as_secs())),
        Setting::Size(bytes) => text(&format!("{bytes}B")),
        Setting::Texts(texts) => format!("[{}]", texts.iter().map(|one| text(one)).collect::<Vec<_>>().join(", ")),
        Setting::Networks(networks) => {
            let all: Vec<String> = networks.iter().map(|one| text(&format!("{}/{}", one.address, one.bits))).collect();
            format!("[{}]", all.join(", "))
        }
        Setting::Address(address) => text(&address.to_string()),
        Setting::Repository(repository) => text(&repository.to_string()),
    }
}

/// Seconds in the largest unit that fits.
fn time_words(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let unit = units.iter().find(|(size, _)| seconds.is_multiple_of(*size) && seconds > 0);
    unit.map_or_else(|| format!("{seconds}s"), |(size, word)| format!("{}{word}", seconds / size))
}

/// What may be written, in words.
fn wants(kind: Kind) -> String {
    let words = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Number(low, i64::MAX) => format!("number, at least {low}"),
        Kind::Number(low, high) => format!("number from {low} to {high}"),
        Kind::Time([]) => "time, like `12h`".to_owned(),
        Kind::Time(others) => format!("time, like `90s` or `5m`, or {}", words(others)),
        Kind::Size => "size, like `50GiB`".to_owned(),
        Kind::Word(list) => format!("one of {}", words(list)),
        Kind::Texts => "list of texts".to_owned(),
        Kind::Words(list) => format!("list of {}", words(list)),
        Kind::Globs => "list of patterns".to_owned(),
        Kind::Networks => "list of addresses or networks".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Address => "IP address and port".to_owned(),
        Kind::Url => "URL".to_owned(),
        Kind::Repository => "repository".to_owned(),
        Kind::SecretFile => "path of a secret's file".to_owned(),
        Kind::SecretEnv => "name of an environment variable".to_owned(),
    }
}

/// A starting file: every key, commented out, with its meaning.
pub fn starting_file() -> String {
    let mut out = String::from(
        "# Configuration of `orchestrator serve`. Every key is optional; what is commented out shows the default or an example.\n\
         # Changes are taken up while the daemon runs. Check this file by `orchestrator config check`.\n",
    );
    for (table, about) in TABLES {
        let off = if table.contains("<name>") { "# " } else { "" };
        let _ = write!(out, "\n# {about}\n{off}[{}]\n", table.replace("<name>", "my-name"));
        let group = table.strip_suffix(".<name>").unwrap_or(table);
        for key in of_table(group) {
            let word = key.path.strip_prefix(&format!("{table}.")).unwrap_or(key.path);
            let value = if key.default.is_empty() { example(key.kind) } else { key.default };
            let _ = writeln!(out, "# {}\n# {word} = {value}", key.doc);
        }
    }
    out
}

/// A value for a key without a default.
fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "false",
        Kind::Number(..) => "1",
        Kind::Time(_) => "\"5m\"",
        Kind::Size => "\"50GiB\"",
        Kind::Texts | Kind::Words(_) | Kind::Networks => "[]",
        Kind::Globs => "[\"*\"]",
        Kind::Address => "\"127.0.0.1:9464\"",
        Kind::Url => "\"https://ci.example.com\"",
        Kind::Repository => "\"https://github.com/owner/name\"",
        Kind::SecretEnv => "\"MY_SECRET\"",
        Kind::SecretFile => "\"/etc/orchestrator/secret\"",
        Kind::Word(_) | Kind::Text | Kind::Path => "\"…\"",
    }
}

/// `docs/configuration.md`.
pub fn page() -> String {
    let mut out = String::from(PAGE);
    let _ = writeln!(out, "| variable | goes before |\n|---|---|");
    for (variable, key) in ENVIRONMENT {
        let _ = writeln!(out, "| `{variable}` | `{key}` |");
    }
    let restart: Vec<String> = RESTART.iter().map(|key| format!("`{key}`")).collect();
    let _ = write!(out, "\nA change of {} waits for a restart; all else holds at once.\n", restart.join(", "));
    for (table, about) in TABLES {
        let _ = write!(out, "\n## `[{table}]`\n\n{about}\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
        let group = table.strip_suffix(".<name>").unwrap_or(table);
        for key in of_table(group) {
            let word = key.path.strip_prefix(&format!("{table}.")).unwrap_or(key.path);
            let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
            let _ = writeln!(out, "| `{word}` | {} | {default} | {} |", wants(key.kind), key.doc);
        }
    }
    out
}

const PAGE: &str = "# Configuration

<!-- Made from src/config/keys.rs. Renew it by: UPDATE_DOCS=1 cargo test --lib config:: -->

The daemon reads `orchestrator.toml`: the file named by `--config`, else by `$ORCHESTRATOR_CONFIG`, else the first that is
there of `./orchestrator.toml`, `$XDG_CONFIG_HOME/orchestrator/orchestrator.toml` and `/etc/orchestrator/orchestrator.toml`.
Without a file everything has its default.

- `orchestrator config init` writes a commented file, `config check` tells all that is wrong with one, `config show` prints what is in
  force and where each value comes from.
- `orchestrator project add`, `list`, `remove` and `check` keep the projects; comments in the file stay.
- The file is watched. A change holds within a second; a bad file changes nothing and is reported.
- **Secrets never stand in the file.** A key that ends in `_file` names a file that holds one secret, one that ends in `_env` an
  environment variable. Give one of the two.
- Relative paths begin at the folder of the file. Times are written like `30s`, `5m`, `12h`, `90d`, sizes like `50GiB`.

";
