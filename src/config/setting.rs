//! One value of the file, checked against the kind of its key.
//!
//! PURE.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use globset::GlobBuilder;
use toml_edit::Value;

use super::keys::Kind;
use super::repository::Repository;
use super::types::Network;
use crate::pipeline::diagnostic::{did_you_mean, list, shown};
use crate::pipeline::units::{self, UnitError};

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// Text, a word, a URL, a path.
    Text(String),
    /// A switch.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A time.
    Time(Duration),
    /// Bytes.
    Size(u64),
    /// Texts, words, patterns.
    Texts(Vec<String>),
    /// Networks.
    Networks(Vec<Network>),
    /// Address and port.
    Address(SocketAddr),
    /// A repository.
    Repository(Repository),
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) struct Wrong {
    /// A stable word.
    pub(super) code: &'static str,
    /// What is wrong.
    pub(super) message: String,
    /// What to do.
    pub(super) help: Option<String>,
    /// The part of the file in question, if not all of the value.
    pub(super) part: Option<Range<usize>>,
}

impl Wrong {
    fn new(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: Some(help.into()), part: None }
    }
}

impl From<UnitError> for Wrong {
    fn from(error: UnitError) -> Self {
        Self { code: "bad-value", message: error.message, help: error.help, part: None }
    }
}

/// Checks a value.
pub(super) fn setting(kind: Kind, value: &Value) -> Result<Setting, Wrong> {
    match kind {
        Kind::Flag => match value.as_bool() {
            Some(flag) => Ok(Setting::Flag(flag)),
            None => Err(wrong_type("`true` or `false`, without quotes", value)),
        },
        Kind::Number(low, high) => number(low, high, value),
        Kind::Texts | Kind::Words(_) | Kind::Globs | Kind::Networks => several(kind, value),
        Kind::Text
        | Kind::Time(_)
        | Kind::Size
        | Kind::Word(_)
        | Kind::Path
        | Kind::Address
        | Kind::Url
        | Kind::Repository
        | Kind::SecretFile
        | Kind::SecretEnv => match value.as_str() {
            Some(text) => single(kind, text),
            None => Err(wrong_type("text in quotes", value)),
        },
    }
}

fn wrong_type(wanted: &str, value: &Value) -> Wrong {
    let is = match value.type_name() {
        "string" => "text",
        "integer" | "float" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "inline table" => "a table",
        _ => "a date",
    };
    Wrong::new("wrong-type", format!("this is {is}"), format!("write {wanted}"))
}

fn number(low: i64, high: i64, value: &Value) -> Result<Setting, Wrong> {
    let Some(number) = value.as_integer() else {
        return Err(wrong_type("a whole number, without quotes", value));
    };
    if (low..=high).contains(&number) {
        return Ok(Setting::Number(number));
    }
    let help =
        if high == i64::MAX { format!("write at least {low}") } else { format!("write a number from {low} to {high}") };
    Err(Wrong::new("bad-value", format!("{number} is not possible here"), help))
}

fn several(kind: Kind, value: &Value) -> Result<Setting, Wrong> {
    let values: Vec<&Value> = match value {
        Value::Array(array) => array.iter().collect(),
        single => vec![single],
    };
    let mut texts = Vec::new();
    for value in values {
        let checked = match value.as_str() {
            Some(text) => one_of_several(kind, text),
            None => Err(wrong_type("texts in quotes, like `[\"a\", \"b\"]`", value)),
        };
        texts.push(checked.map_err(|wrong| Wrong { part: wrong.part.or_else(|| value.span()), ..wrong })?);
    }
    if kind == Kind::Networks {
        return Ok(Setting::Networks(texts.iter().filter_map(|text| Network::parse(text)).collect()));
    }
    Ok(Setting::Texts(texts))
}

fn one_of_several(kind: Kind, text: &str) -> Result<String, Wrong> {
    match kind {
        Kind::Words(words) => word(words, text)?,
        Kind::Networks if Network::parse(text).is_none() => {
            let message = format!("`{}` is no IP address and no network", shown(text));
            return Err(Wrong::new("bad-value", message, "write it like `10.0.0.0/8` or `192.168.1.5`"));
        }
        Kind::Globs => {
            if text.is_empty() || text.starts_with('/') {
                return Err(Wrong::new("bad-value", format!("`{}` matches nothing", shown(text)), "take it out"));
            }
            if let Err(error) = GlobBuilder::new(text).build() {
                let message = format!("`{}` is not a pattern: {}", shown(text), error.kind());
                return Err(Wrong::new("bad-value", message, "`*` stands for anything, `?` for one character"));
            }
        }
        _ => not_empty(text)?,
    }
    Ok(text.to_owned())
}

fn not_empty(text: &str) -> Result<(), Wrong> {
    if text.trim().is_empty() {
        return Err(Wrong::new("bad-value", "this is empty", "give a value, or take the line out"));
    }
    if text.chars().any(char::is_control) {
        return Err(Wrong::new("bad-value", "this holds control characters", "take them out"));
    }
    Ok(())
}

fn word(words: &[&str], text: &str) -> Result<(), Wrong> {
    if words.contains(&text) {
        return Ok(());
    }
    let help = did_you_mean(text, words.iter().copied());
    let help = help.unwrap_or_else(|| format!("write {}", list(words.iter().copied(), "or")));
    Err(Wrong::new("bad-value", format!("`{}` is not possible here", shown(text)), help))
}

fn single(kind: Kind, text: &str) -> Result<Setting, Wrong> {
    not_empty(text)?;
    let same = || Setting::Text(text.to_owned());
    match kind {
        Kind::Word(words) => word(words, text).map(|()| same()),
        Kind::Time(words) if words.contains(&text) => Ok(same()),
        Kind::Time(words) => {
            let time = units::duration(text).map_err(|error| {
                let near = did_you_mean(text, words.iter().copied());
                Wrong { help: near.or(error.help.clone()), ..Wrong::from(error) }
            })?;
            if time < Duration::from_secs(1) {
                return Err(Wrong::new("bad-value", format!("`{}` is too short", shown(text)), "write at least `1s`"));
            }
            Ok(Setting::Time(time))
        }
        Kind::Size => Ok(Setting::Size(units::size(text)?)),
        Kind::Address => address(text),
        Kind::Url => web_url(text),
        Kind::Repository => match Repository::parse(text) {
            Ok(repository) => Ok(Setting::Repository(repository)),
            Err((message, help)) => Err(Wrong::new("bad-repository", message, help)),
        },
        Kind::SecretEnv => {
            let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !text.starts_with(|c: char| c.is_ascii_digit());
            // What stands here may be the secret itself: it is not repeated.
            let help = "write the name alone, without `$`, like `WEBHOOK_SECRET`";
            if good { Ok(same()) } else { Err(Wrong::new("bad-value", "this is no environment variable's name", help)) }
        }
        _ => Ok(same()),
    }
}

fn address(text: &str) -> Result<Setting, Wrong> {
    if let Ok(address) = text.parse() {
        return Ok(Setting::Address(address));
    }
    let help = match text.rsplit_once(':') {
        Some(("localhost", port)) => format!("write `127.0.0.1:{port}`"),
        Some(("", port)) => format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all addresses"),
        Some(_) | None => "write it like `127.0.0.1:8484`, or `[::1]:8484`".to_owned(),
    };
    Err(Wrong::new("bad-value", format!("`{}` is not an IP address with a port", shown(text)), help))
}

/// A URL without a slash at its end, so that paths can be added.
fn web_url(text: &str) -> Result<Setting, Wrong> {
    let help = "write it like `https://ci.example.com`";
    let url = match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        Ok(_) | Err(_) => return Err(Wrong::new("bad-value", "this is not an `http://` or `https://` URL", help)),
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("bad-value", "the URL holds more than an address: a user, a `?` or a `#`", help));
    }
    Ok(Setting::Text(text.trim_end_matches('/').to_owned()))
}
