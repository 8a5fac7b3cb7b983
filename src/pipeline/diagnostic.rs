//! What is wrong with a file, where, and what to do: as values, as text for people, as JSON for programs.
//!
//! PURE: nothing is printed here. The text comes back as a string, with colour only if asked for.

use std::collections::HashSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Findings kept for one file; what is beyond is only counted.
const MAX_FINDINGS: usize = 100;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Span {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub col: usize,
    /// First byte.
    pub offset: usize,
    /// Length in bytes; 0 for a place between characters.
    pub len: usize,
}

impl Span {
    /// The byte after the last one.
    pub fn end(self) -> usize {
        self.offset.saturating_add(self.len)
    }

    /// Whether the other place begins inside this one.
    pub fn holds(self, other: Span) -> bool {
        self.offset <= other.offset && other.offset < self.end().max(self.offset + 1)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// It can be used, and does something other than is likely meant.
    Warning,
}

/// A second place that explains the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    pub span: Span,
    /// What is there.
    pub message: String,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// A stable word for programs and for searching, like `unknown-key`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The file's name as given by the caller.
    pub file: String,
    /// Where.
    pub span: Span,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Other places that explain it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

impl Diagnostic {
    /// An error; the file's name is filled in by the [`Sink`].
    pub(crate) fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            file: String::new(),
            span,
            help: None,
            related: Vec::new(),
        }
    }

    /// A warning.
    pub(crate) fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// Adds what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what to do about it, if anything is known.
    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Adds another place.
    pub(crate) fn related(mut self, span: Span, message: impl Into<String>) -> Self {
        self.related.push(Related { span, message: message.into() });
        self
    }
}

/// Gathers the findings of one file.
#[derive(Debug)]
pub(crate) struct Sink {
    file: String,
    found: Vec<Diagnostic>,
    seen: HashSet<(&'static str, usize, String)>,
    dropped: usize,
}

impl Sink {
    /// An empty one for this file.
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), found: Vec::new(), seen: HashSet::new(), dropped: 0 }
    }

    /// Takes a finding. The same one at the same place (an alias used twice) counts once.
    pub(crate) fn push(&mut self, mut diagnostic: Diagnostic) {
        if self.found.len() >= MAX_FINDINGS {
            self.dropped += 1;
            return;
        }
        if self.seen.insert((diagnostic.code, diagnostic.span.offset, diagnostic.message.clone())) {
            diagnostic.file.clone_from(&self.file);
            self.found.push(diagnostic);
        }
    }

    /// Whether further findings would only be counted, so that no work need go into their wording.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= MAX_FINDINGS
    }

    /// Whether an error was found inside this place, so that what follows from it need not be told.
    pub(crate) fn has_error_in(&self, span: Span) -> bool {
        self.dropped > 0 || self.found.iter().any(|d| d.severity == Severity::Error && span.holds(d.span))
    }

    /// The warnings if there is no error, else everything, in the order of the file.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.found.sort_by_key(|d| (d.span.offset, d.severity));
        if self.dropped > 0 {
            let last = self.found.last().map_or(Span::default(), |d| d.span);
            let mut more = Diagnostic::error("too-many-errors", last, format!("{} more are not shown", self.dropped))
                .help("mend these first, then check again");
            more.file.clone_from(&self.file);
            self.found.push(more);
        }
        if self.found.iter().any(|d| d.severity == Severity::Error) { Err(self.found) } else { Ok(self.found) }
    }
}

/// Whether text for people may hold terminal colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Never,
    /// ANSI colours.
    Always,
}

/// The findings as text for people: each with `file:line:col`, the lines in question, a caret, and help.
///
/// `text` is the file's text (lossy if it is not UTF-8); places outside it are shown without an excerpt.
pub fn render(diagnostics: &[Diagnostic], text: &str, colour: Colour) -> String {
    let renderer = match colour {
        Colour::Never => Renderer::plain(),
        Colour::Always => Renderer::styled(),
    };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(120);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&render_one(diagnostic, text, &renderer));
        out.push_str("\n\n");
    }
    out
}

/// One finding.
fn render_one(diagnostic: &Diagnostic, text: &str, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let file = diagnostic.file.as_str();
    let place = window(text, diagnostic.span);
    let mut first = excerpt(text, diagnostic.span, file).annotation(AnnotationKind::Primary.span(caret(
        text,
        diagnostic.span,
        place.0,
    )));
    let mut further = Vec::new();
    for related in &diagnostic.related {
        let start = window(text, related.span).0;
        let annotation = AnnotationKind::Context.span(caret(text, related.span, start)).label(related.message.as_str());
        if window(text, related.span) == place {
            first = first.annotation(annotation);
        } else {
            further.push(excerpt(text, related.span, file).annotation(annotation));
        }
    }
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    if is_cut(text, diagnostic.span) {
        let origin = Origin::path(file).line(diagnostic.span.line).char_column(diagnostic.span.col);
        group = group.element(origin);
    }
    group = group.element(first).elements(further);
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// The line in question as a snippet of its own: cost does not grow with the file.
fn excerpt<'a>(text: &'a str, span: Span, file: &'a str) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let (start, end) = window(text, span);
    let snippet = Snippet::source(&text[start..end]).line_start(span.line.max(1)).fold(false);
    if is_cut(text, span) { snippet } else { snippet.path(file) }
}

/// Longest piece of a line that is shown before and behind a place.
const MAX_EXCERPT: usize = 2048;

/// First byte and end of the line that a place begins in; cut on both sides if the line is absurdly long.
fn window(text: &str, span: Span) -> (usize, usize) {
    let at = floor(text, span.offset.min(text.len()));
    let low = floor(text, at.saturating_sub(MAX_EXCERPT));
    let high = floor(text, at.saturating_add(MAX_EXCERPT).min(text.len()));
    let start = text[low..at].rfind(['\n', '\r']).map_or(low, |newline| low + newline + 1);
    let end = text[at..high].find(['\n', '\r']).map_or(high, |newline| at + newline);
    (start, end)
}

/// Whether the shown piece of a line does not begin where the line does: then its columns must be given.
fn is_cut(text: &str, span: Span) -> bool {
    let (start, _) = window(text, span);
    start > 0 && !text[..start].ends_with(['\n', '\r'])
}

/// The bytes to underline, within the window: at least one character where there is one.
fn caret(text: &str, span: Span, start: usize) -> std::ops::Range<usize> {
    let line = &text[start..window(text, span).1];
    let from = floor(line, span.offset.saturating_sub(start).min(line.len()));
    let mut to = floor(line, span.end().saturating_sub(start).min(line.len())).max(from);
    if to < line.len() || to > from {
        let cut = line[from..to].trim_end().len();
        to = from + cut;
    }
    if to == from {
        to += line[from..].chars().next().map_or(0, char::len_utf8);
    }
    from..to
}

/// The nearest character boundary at or before.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The known word that was most likely meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
    let wanted = plain(word);
    let limit = (word.chars().count() / 3).max(1);
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .copied()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate);
    // A beginning is as good: `int` for `integer`.
    near.or_else(|| known.into_iter().find(|candidate| wanted.len() >= 3 && plain(candidate).starts_with(&wanted)))
}

/// ``did you mean `x`?``, if a known word is near.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, known).map(|near| format!("did you mean `{near}`?"))
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>, and: &str) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} {and} {last}", rest.join(", ")),
    }
}

/// A user's text for use inside a message: cut if it is long, on one line.
pub(crate) fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    let short: String = line.chars().take(60).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word() {
        let known = ["needs", "image", "test-api", "loadtest", "run"];
        for (word, expected) in [
            ("need", Some("needs")),
            ("test_api", Some("test-api")),
            ("Image", Some("image")),
            ("ima", Some("image")),
            ("im", None),
            ("load-test", Some("loadtest")),
            ("rnu", Some("run")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn render_survives_any_place() {
        let text = "a: ü\nb: \u{1f600}\n";
        for offset in 0..text.len() + 3 {
            for len in 0..text.len() {
                let span = Span { line: 1, col: 1, offset, len };
                let found = Diagnostic::error("x", span, "m").related(span, "r").help("h");
                assert!(render(&[found], text, Colour::Never).contains("error[x]: m"));
            }
        }
    }

    #[test]
    fn a_long_line_is_cut_and_keeps_its_column() {
        let text = format!("{}HERE{}", "x".repeat(100_000), "y".repeat(100_000));
        let span = Span { line: 1, col: 100_001, offset: 100_000, len: 4 };
        let found = Diagnostic { file: "f.yaml".to_owned(), ..Diagnostic::error("x", span, "m") };
        let shown = render(&[found], &text, Colour::Never);
        assert!(shown.contains("f.yaml:1:100001") && shown.contains("xHEREy") && shown.contains("^^^^"), "{shown}");
        assert!(shown.len() < 1000, "{}", shown.len());
    }

    #[test]
    fn findings_are_bounded() {
        let mut sink = Sink::new("f");
        for offset in 0..1000 {
            sink.push(Diagnostic::error("x", Span { offset, ..Span::default() }, "m"));
        }
        let found = sink.finish().expect_err("errors");
        assert_eq!(found.len(), MAX_FINDINGS + 1);
        assert_eq!(found.last().map(|d| d.message.as_str()), Some("900 more are not shown"));
    }
}
