//! The values of a build's parameters.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::diagnostic::{did_you_mean, list, shown};
use super::types::{ParamKind, Pipeline};

/// All parameters of a build, in the order of the pipeline.
pub type Params = IndexMap<String, ParamValue>;

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParamValue {
    /// Text, also of a `choice`.
    String(String),
    /// Whole number.
    Integer(i64),
    /// Number.
    Number(f64),
    /// `true` or `false`.
    Boolean(bool),
}

impl ParamValue {
    /// As scripts see it in `PARAM_<NAME>`.
    pub fn text(&self) -> String {
        match self {
            ParamValue::String(text) => text.clone(),
            ParamValue::Integer(number) => number.to_string(),
            ParamValue::Number(number) => number.to_string(),
            ParamValue::Boolean(flag) => flag.to_string(),
        }
    }
}

/// The variables that scripts get: `PARAM_<NAME>` with the value as text.
pub fn variables(params: &Params) -> impl Iterator<Item = (String, String)> {
    params.iter().map(|(name, value)| (super::substitute::variable("PARAM", name), value.text()))
}

/// The parameters of a build: what is given, and the defaults for the rest.
///
/// # Errors
/// Everything that is wrong, one sentence each: unknown names, wrong types, values out of bounds, missing ones.
pub fn resolve(pipeline: &Pipeline, given: &[(String, String)]) -> Result<Params, Vec<String>> {
    let mut errors = Vec::new();
    let mut values: IndexMap<&str, &str> = IndexMap::new();
    for (name, text) in given {
        if !pipeline.params.contains_key(name) {
            errors.push(unknown(pipeline, name));
        } else if values.insert(name, text).is_some() {
            errors.push(format!("the parameter `{name}` is given twice"));
        }
    }
    let mut params = Params::new();
    for (name, param) in &pipeline.params {
        match values.get(name.as_str()) {
            Some(text) => match read(&param.kind, text) {
                Ok(value) => drop(params.insert(name.clone(), value)),
                Err(problem) => errors.push(format!("the parameter `{name}` {problem}")),
            },
            None => match default(&param.kind) {
                Some(value) => drop(params.insert(name.clone(), value)),
                None => errors.push(format!("the parameter `{name}` has no default and must be given")),
            },
        }
    }
    if errors.is_empty() { Ok(params) } else { Err(errors) }
}

fn unknown(pipeline: &Pipeline, name: &str) -> String {
    let known = pipeline.params.keys().map(String::as_str);
    let help = did_you_mean(name, known.clone()).unwrap_or_else(|| {
        if pipeline.params.is_empty() {
            "the pipeline has none".to_owned()
        } else {
            format!("parameters are {}", list(known, "and"))
        }
    });
    format!("there is no parameter `{}`: {help}", shown(name))
}

fn default(kind: &ParamKind) -> Option<ParamValue> {
    match kind {
        ParamKind::String { default } | ParamKind::Choice { default, .. } => default.clone().map(ParamValue::String),
        ParamKind::Integer { default, .. } => default.map(ParamValue::Integer),
        ParamKind::Number { default, .. } => default.map(ParamValue::Number),
        ParamKind::Boolean { default } => default.map(ParamValue::Boolean),
    }
}

/// Reads a text as a value of this kind.
///
/// # Errors
/// What is wrong, to follow the parameter's name: `must be a whole number, found ...`.
pub fn read(kind: &ParamKind, text: &str) -> Result<ParamValue, String> {
    let found = || format!("found `{}`", shown(text));
    match kind {
        ParamKind::String { .. } if text.contains('\0') => Err("holds a NUL character".to_owned()),
        ParamKind::String { .. } => Ok(ParamValue::String(text.to_owned())),
        ParamKind::Choice { choices, .. } if choices.iter().any(|choice| choice == text) => {
            Ok(ParamValue::String(text.to_owned()))
        }
        ParamKind::Choice { choices, .. } => {
            let help = did_you_mean(text, choices.iter().map(String::as_str))
                .map_or(String::new(), |help| format!("; {help}"));
            Err(format!("must be {}, {}{help}", list(choices.iter().map(String::as_str), "or"), found()))
        }
        ParamKind::Integer { min, max, .. } => {
            let number: i64 = text.trim().parse().map_err(|_| format!("must be a whole number, {}", found()))?;
            let low = min.is_some_and(|min| number < min);
            let high = max.is_some_and(|max| number > max);
            let bounds = || bounds(min.map(|n| n.to_string()), max.map(|n| n.to_string()));
            if low || high {
                Err(format!("must be {}, {}", bounds(), found()))
            } else {
                Ok(ParamValue::Integer(number))
            }
        }
        ParamKind::Number { min, max, .. } => {
            let number: Option<f64> = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
            let number = number.ok_or_else(|| format!("must be a number, {}", found()))?;
            let low = min.is_some_and(|min| number < min);
            let high = max.is_some_and(|max| number > max);
            let bounds = || bounds(min.map(|n| n.to_string()), max.map(|n| n.to_string()));
            if low || high { Err(format!("must be {}, {}", bounds(), found())) } else { Ok(ParamValue::Number(number)) }
        }
        ParamKind::Boolean { .. } => match text.trim() {
            "true" => Ok(ParamValue::Boolean(true)),
            "false" => Ok(ParamValue::Boolean(false)),
            _ => Err(format!("must be `true` or `false`, {}", found())),
        },
    }
}

fn bounds(min: Option<String>, max: Option<String>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("from {min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => "in range".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = b"
params:
  trees: { type: integer, default: 100, min: 1, max: 2000 }
  rate: { type: number, default: 0.5, min: 0 }
  kind: { type: choice, choices: [small, 3.10], default: small }
  dry-run: { type: boolean, default: false }
  note: { type: string }
stages: { a: { run: make } }
";

    fn check(given: &[(&str, &str)], expected: Result<&str, &[&str]>) {
        let pipeline = crate::pipeline::parse("p", FILE).expect("valid").pipeline;
        let given: Vec<(String, String)> = given.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = resolve(&pipeline, &given)
            .map(|params| variables(&params).map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "));
        let expected = expected.map(str::to_owned).map_err(|errors| errors.iter().map(|e| (*e).to_owned()).collect());
        assert_eq!(found, expected);
    }

    #[test]
    fn values() {
        check(
            &[("note", "$(rm -rf /)"), ("rate", "1e-3")],
            Ok("PARAM_TREES=100 PARAM_RATE=0.001 PARAM_KIND=small PARAM_DRY_RUN=false PARAM_NOTE=$(rm -rf /)"),
        );
        check(
            &[("kind", "3.10"), ("note", ""), ("dry-run", "true"), ("trees", "2000")],
            Ok("PARAM_TREES=2000 PARAM_RATE=0.5 PARAM_KIND=3.10 PARAM_DRY_RUN=true PARAM_NOTE="),
        );
    }

    #[test]
    fn all_that_is_wrong_at_once() {
        check(
            &[("tree", "1"), ("trees", "0"), ("rate", "NaN"), ("kind", "smal"), ("dry-run", "yes")],
            Err(&[
                "there is no parameter `tree`: did you mean `trees`?",
                "the parameter `trees` must be from 1 to 2000, found `0`",
                "the parameter `rate` must be a number, found `NaN`",
                "the parameter `kind` must be `small` or `3.10`, found `smal`; did you mean `small`?",
                "the parameter `dry-run` must be `true` or `false`, found `yes`",
                "the parameter `note` has no default and must be given",
            ]),
        );
        check(&[("note", "a"), ("note", "b")], Err(&["the parameter `note` is given twice"]));
        check(&[("note", "a\0")], Err(&["the parameter `note` holds a NUL character"]));
    }
}
