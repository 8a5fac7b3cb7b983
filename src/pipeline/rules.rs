//! The rules of texts that have a meaning of their own (`x-format` in the schema).

use std::fmt::Display;

use super::diagnostic::shown;
use super::{substitute, units};
use crate::ids::is_name;

/// Largest script.
const MAX_SCRIPT_BYTES: usize = 100 * 1024;

/// Code, message, and help.
type Broken = (&'static str, String, Option<String>);

/// Applies the rule of an `x-format`.
pub(super) fn rule(format: &str, text: &str, label: &dyn Display) -> Result<(), Broken> {
    let unit = |result: Result<(), units::UnitError>| {
        result.map_err(|error| ("bad-unit", format!("{label}: {}", error.message), error.help))
    };
    let broken = |code, message: String, help: &str| Err((code, message, Some(help.to_owned())));
    match format {
        "duration" => unit(units::duration(text).map(|_| ())),
        "size" => unit(units::size(text).map(|_| ())),
        "percent" => unit(units::percent(text).map(|_| ())),
        "rate" => unit(units::rate(text).map(|_| ())),
        "name" if !is_name(text) => {
            let help = "names have lower-case letters, digits and `-`, at most 63, and do not begin with `-`";
            let better = tidy_name(text).map(|name| format!("{help}; `{name}` would do"));
            Err((
                "bad-name",
                format!("{label}: `{}` is not a valid name", shown(text)),
                better.or(Some(help.to_owned())),
            ))
        }
        "variable" if !is_variable(text) => broken(
            "bad-name",
            format!("{label}: `{}` is not a valid name of a variable", shown(text)),
            "variables have letters, digits and `_`, and do not begin with a digit",
        ),
        "variable-part" if !is_variable_part(text) => broken(
            "bad-name",
            format!("{label}: `{}` is not a valid name", shown(text)),
            "these names have lower-case letters, digits, `_` and `-`, at most 63, and begin with a letter: they become \
             part of a variable's name",
        ),
        "glob" => globset::Glob::new(text).map(|_| ()).map_err(|error| {
            ("bad-glob", format!("{label}: `{}` is not a valid glob: {}", shown(text), error.kind()), None)
        }),
        "path" => path(text).map_err(|(problem, help)| {
            ("bad-path", format!("{label}: `{}` {problem}", shown(text)), Some(help.to_owned()))
        }),
        "script" => script(text, label),
        _ => Ok(()),
    }
}

fn script(text: &str, label: &dyn Display) -> Result<(), Broken> {
    if text.trim().is_empty() {
        return Err(("empty-script", format!("{label} holds no command"), None));
    }
    if text.len() > MAX_SCRIPT_BYTES {
        let message = format!("{label}: the script has {} bytes, more than 100 KiB", text.len());
        let help = "put it into a file of the repository and run that".to_owned();
        return Err(("script-too-large", message, Some(help)));
    }
    if let Some(found) = substitute::ours(text) {
        let variable = substitute::variable_of(found);
        let message = format!("{label}: `{found}` is not put into scripts");
        let help =
            format!("use the variable: `\"${variable}\"`. Pasting values into a shell line lets them run as code");
        return Err(("substitution-in-script", message, Some(help)));
    }
    Ok(())
}

/// Whether a path stays inside the workspace.
fn path(text: &str) -> Result<(), (&'static str, &'static str)> {
    let help = "paths are relative to the workspace, like `models/model.joblib`";
    if text.is_empty() {
        return Err(("is empty", help));
    }
    if text.starts_with('/') || text.starts_with('~') || text.contains('\\') {
        return Err(("is not a path inside the workspace", help));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(("leads out of the workspace", help));
    }
    if text.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(("is the whole workspace", "name the files or folders that are meant"));
    }
    if text.chars().any(char::is_control) || text.len() > 1024 {
        return Err(("is not a sensible path", help));
    }
    match globset::Glob::new(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(("is not a valid glob", "write `[[]` for a bracket that is part of a name")),
    }
}

fn is_variable(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.len() <= 255 && text.bytes().all(ok) && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn is_variable_part(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(ok) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// The nearest valid name.
fn tidy_name(text: &str) -> Option<String> {
    let mapped: String =
        text.chars().take(63).map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let trimmed = mapped.trim_matches('-');
    is_name(trimmed).then(|| trimmed.to_owned())
}
