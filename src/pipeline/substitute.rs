//! `${matrix.x}`, `${params.x}`, and in a concurrency group `${branch}` and `${event}`. `$${` stands for `${`.
//!
//! Values are put into a fixed list of texts that are arguments of an API, never into a script.

/// The variable that a script has for a parameter (`PARAM_MAX_DEPTH`) or a matrix value (`MATRIX_PYTHON`).
pub fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// One `${...}` in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    /// First byte of `${`.
    pub(crate) start: usize,
    /// Byte after `}`; the text's end if it is not closed.
    pub(crate) end: usize,
    /// What is between the braces; `None` if they are not closed.
    pub(crate) name: Option<&'a str>,
}

/// All `${...}` of a text that are not escaped.
pub(crate) fn references(text: &str) -> impl Iterator<Item = Reference<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(found) = text[at..].find("${") {
            let start = at + found;
            if text[..start].ends_with('$') {
                at = start + 2;
                continue;
            }
            let inner = start + 2;
            let (name, end) = match text[inner..].find('}') {
                Some(close) => (Some(&text[inner..inner + close]), inner + close + 1),
                None => (None, text.len()),
            };
            at = end;
            return Some(Reference { start, end, name });
        }
        None
    })
}

/// Puts values in. What `value` does not know stays as it is.
pub(crate) fn replace(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for reference in references(text) {
        let Some(found) = reference.name.and_then(|name| value(name.trim())) else { continue };
        out.push_str(&text[done..reference.start].replace("$${", "${"));
        out.push_str(&found);
        done = reference.end;
    }
    out.push_str(&text[done..].replace("$${", "${"));
    out
}

/// The first `${matrix.x}` or `${params.x}` in a text where nothing is put in.
pub(crate) fn ours(text: &str) -> Option<&str> {
    let ours = |name: &str| name.trim_start().starts_with("matrix.") || name.trim_start().starts_with("params.");
    references(text).find(|found| found.name.is_some_and(ours)).map(|found| &text[found.start..found.end])
}

/// The variable to use instead of `${matrix.x}` or `${params.x}`.
pub(crate) fn variable_of(reference: &str) -> String {
    let inner = reference.trim_start_matches("${").trim_end_matches('}').trim();
    match inner.split_once('.') {
        Some(("matrix", name)) => variable("MATRIX", name),
        Some((_, name)) => variable("PARAM", name),
        None => inner.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing() {
        let check = |text: &str, expected: &str| {
            let value = |name: &str| (name == "matrix.a").then(|| "1${matrix.a}".to_owned());
            assert_eq!(replace(text, value), expected, "{text}");
        };
        check("plain $HOME", "plain $HOME");
        check("x${matrix.a}y", "x1${matrix.a}y");
        check("${ matrix.a }", "1${matrix.a}");
        check("$${matrix.a}", "${matrix.a}");
        check("${matrix.b}", "${matrix.b}");
        check("${matrix.a", "${matrix.a");
        check("$", "$");
        check("ü${matrix.a}ü", "ü1${matrix.a}ü");
    }

    #[test]
    fn names_of_variables() {
        assert_eq!(ours("echo ${HOME} ${params.max-depth}"), Some("${params.max-depth}"));
        assert_eq!(ours("echo $${params.x} ${matrixx}"), None);
        assert_eq!(variable_of("${params.max-depth}"), "PARAM_MAX_DEPTH");
        assert_eq!(variable_of("${matrix.python}"), "MATRIX_PYTHON");
    }
}
