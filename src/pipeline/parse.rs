//! Bytes in, a tree with places out. The only user of the YAML crate.
//!
//! The tree is built from the crate's event stream and not through serde, because a message needs what serde drops: the
//! place of each key, both places of a key that is there twice, and whether a value had quotes (`"8000"` is text).
//! The input is hostile: size, depth and the cost of what aliases and merge keys copy are capped before anything grows.

use std::collections::HashMap;

use serde_yaml::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span as Range, StrInput, Tag};

use super::diagnostic::{Diagnostic, Span, shown};
use super::tree::{Content, Entry, Key, Node};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting.
const MAX_DEPTH: usize = 48;
/// What all values may cost together, copies by aliases included: each counts its bytes and this.
const NODE_COST: usize = 32;
/// See [`NODE_COST`].
const MAX_COST: usize = 8 << 20;

/// Reads a file. Nothing of it is kept on an error, since YAML cannot be read on after one.
pub(crate) fn tree(bytes: &[u8]) -> Result<Node, Vec<Diagnostic>> {
    let text = text(bytes).map_err(|error| vec![*error])?;
    let mut builder =
        Builder { text, open: Vec::new(), anchors: HashMap::new(), root: None, cost: 0, found: Vec::new() };
    let parser = Parser::new(StrInput::new(text));
    for event in parser {
        let step = event
            .map_err(|error| Box::new(syntax(text, &error)))
            .and_then(|(event, range)| builder.event(event, range));
        if let Err(error) = step {
            builder.found.push(*error);
            return Err(builder.found);
        }
    }
    if !builder.found.is_empty() {
        return Err(builder.found);
    }
    match builder.root {
        Some(root) if !root.is_null() => Ok(root),
        Some(_) | None => Err(vec![
            Diagnostic::error("empty-file", Span { line: 1, col: 1, ..Span::default() }, "the file holds nothing")
                .help("`orchestrator init` writes a pipeline to start from"),
        ]),
    }
}

/// Reads any document as a value: for files that scripts write, where no place is needed.
pub(crate) fn document(bytes: &[u8]) -> Result<serde_json::Value, String> {
    let text = text(bytes).map_err(|error| error.message)?;
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

/// An error after which the file cannot be read on.
fn stop<T>(diagnostic: Diagnostic) -> Result<T, Box<Diagnostic>> {
    Err(Box::new(diagnostic))
}

/// The bytes as text, if they can be that.
fn text(bytes: &[u8]) -> Result<&str, Box<Diagnostic>> {
    if bytes.len() > MAX_BYTES {
        return stop(
            Diagnostic::error("file-too-large", place(b"", 0), "the file is larger than 1 MiB")
                .help("keep data out of the pipeline; put long scripts into files of their own"),
        );
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return stop(
            Diagnostic::error("not-utf8", place(b"", 0), "the file is UTF-16, not UTF-8").help("save it as UTF-8"),
        );
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let message = format!("the byte 0x{:02x} is not valid UTF-8", bytes[at]);
        Box::new(Diagnostic::error("not-utf8", place(bytes, at), message).help("save the file as UTF-8"))
    })?;
    let bad = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    if let Some(at) = text.find(bad) {
        let code = text[at..].chars().next().map_or(0, u32::from);
        let message = format!("the character U+{code:04X} is not allowed in YAML");
        return stop(
            Diagnostic::error("control-character", place(bytes, at), message)
                .help("remove it, or write it as an escape in double quotes"),
        );
    }
    Ok(text)
}

/// The place of a byte; the bytes before it are valid UTF-8.
fn place(bytes: &[u8], offset: usize) -> Span {
    let before = String::from_utf8_lossy(&bytes[..offset]);
    let line = before.matches('\n').count() + 1;
    let col = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Span { line, col, offset, len: 0 }
}

/// A mapping or list that is not closed yet.
struct Open {
    start: Range,
    anchor: usize,
    cost: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: HashMap<String, usize>, key: Option<Key>, merge: Vec<Entry> },
}

struct Builder<'a> {
    text: &'a str,
    open: Vec<Open>,
    /// Finished values that have an anchor, with their cost; `None` while still open.
    anchors: HashMap<usize, Option<(Node, usize)>>,
    root: Option<Node>,
    cost: usize,
    /// Errors after which reading can go on.
    found: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, range: Range) -> Result<(), Box<Diagnostic>> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.no_tag(tag.as_deref(), range);
                let cost = NODE_COST + text.len();
                let content = Content::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let node = self.node(range, range, content);
                if matches!(style, ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted) {
                    self.close(node, anchor, cost)
                } else {
                    self.close(Node { one_line: false, ..node }, anchor, cost)
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_tag(tag.as_deref(), range);
                self.begin(range, anchor, OpenKind::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_tag(tag.as_deref(), range);
                let kind = OpenKind::Map { entries: Vec::new(), keys: HashMap::new(), key: None, merge: Vec::new() };
                self.begin(range, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(range),
            Event::Alias(anchor) => self.alias(anchor, range),
            Event::DocumentStart(..) if self.root.is_some() => stop(
                Diagnostic::error("several-documents", self.span(range, range), "a second document begins here")
                    .help("a pipeline is one document: put the other one into a file of its own, or remove the `---`"),
            ),
            // Stream and document marks; comments and other events only come if asked for.
            _ => Ok(()),
        }
    }

    /// Opens a mapping or list.
    fn begin(&mut self, start: Range, anchor: usize, kind: OpenKind) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= MAX_DEPTH {
            return stop(self.too_deep(start));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        self.open.push(Open { start, anchor, cost: NODE_COST, kind });
        self.spend(NODE_COST, start)
    }

    /// Closes the innermost mapping or list.
    fn end(&mut self, range: Range) -> Result<(), Box<Diagnostic>> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let content = match open.kind {
            OpenKind::List(items) => Content::List(items),
            OpenKind::Map { mut entries, keys, merge, .. } => {
                for entry in merge {
                    if !keys.contains_key(&entry.key.text) {
                        entries.push(entry);
                    }
                }
                Content::Map(entries)
            }
        };
        let node = self.node(open.start, range, content);
        // A container's own cost and its children's are spent already.
        self.place(node, open.anchor, open.cost)
    }

    /// A finished scalar.
    fn close(&mut self, node: Node, anchor: usize, cost: usize) -> Result<(), Box<Diagnostic>> {
        let span = node.span;
        self.place(node, anchor, cost)?;
        self.spend_at(cost, span)
    }

    /// A copy of an earlier value.
    fn alias(&mut self, anchor: usize, range: Range) -> Result<(), Box<Diagnostic>> {
        let span = self.span(range, range);
        let Some(Some((node, cost))) = self.anchors.get(&anchor) else {
            let message = format!("`{}` stands inside the value that it repeats", self.slice(span));
            return stop(Diagnostic::error("alias-of-itself", span, message));
        };
        let cost = *cost;
        if self.open.len() + depth(node) > MAX_DEPTH {
            return stop(self.too_deep(range));
        }
        // Spent before the copy is made.
        let node = if self.cost + cost > MAX_COST { None } else { Some(node.clone()) };
        self.spend_at(cost, span)?;
        // Keys inside keep their own places; the value as a whole is where it is used.
        let node = node.map(|node| Node { span, one_line: true, ..node });
        node.map_or(Ok(()), |node| self.place(node, 0, cost))
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Node, anchor: usize, cost: usize) -> Result<(), Box<Diagnostic>> {
        if anchor != 0 {
            self.spend_at(cost, node.span)?;
            self.anchors.insert(anchor, Some((node.clone(), cost)));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.cost += cost;
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, keys, key, merge } => match key.take() {
                None => *key = Some(as_key(node)?),
                Some(found) if found.text == "<<" => merged(merge, node)?,
                Some(found) => {
                    if let Some(first) = keys.get(&found.text) {
                        let first = entries[*first].key.span;
                        let message = format!("the key `{}` is there twice", shown(&found.text));
                        self.found.push(
                            Diagnostic::error("duplicate-key", found.span, message)
                                .related(first, "first here")
                                .help("keep one of them: there is no rule which one would count"),
                        );
                    } else {
                        keys.insert(found.text.clone(), entries.len());
                        entries.push(Entry { key: found, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    fn no_tag(&mut self, tag: Option<&Tag>, range: Range) {
        if let Some(tag) = tag {
            let message = format!("tags like `{}` are not part of the language", shown(&tag.original()));
            let span = self.span(range, range);
            self.found.push(Diagnostic::error("yaml-tag", span, message).help("write the value without it"));
        }
    }

    fn spend(&mut self, cost: usize, range: Range) -> Result<(), Box<Diagnostic>> {
        let span = self.span(range, range);
        self.spend_at(cost, span)
    }

    fn spend_at(&mut self, cost: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost <= MAX_COST {
            return Ok(());
        }
        stop(
            Diagnostic::error("too-much-content", span, "the file grows too large here, copies by aliases counted in")
                .help("a pipeline holds some hundreds of values; use fewer aliases, or keep data in files of its own"),
        )
    }

    fn too_deep(&self, range: Range) -> Diagnostic {
        let message = format!("values are nested more than {MAX_DEPTH} deep");
        Diagnostic::error("nested-too-deep", self.span(range, range), message)
            .help("the language itself needs fewer than 10 levels")
    }

    fn node(&self, start: Range, end: Range, content: Content) -> Node {
        let span = self.span(start, end);
        let one_line = !self.slice(span).contains('\n');
        Node { span, one_line, content }
    }

    fn span(&self, start: Range, end: Range) -> Span {
        span_between(self.text, start, end)
    }

    fn slice(&self, span: Span) -> &str {
        self.text.get(span.offset..span.end()).unwrap_or("")
    }
}

/// From the beginning of one range to the end of another, without blanks and line ends behind.
fn span_between(text: &str, start: Range, end: Range) -> Span {
    let from = start.start.byte_offset().unwrap_or(0).min(text.len());
    let to = end.end.byte_offset().unwrap_or(from).clamp(from, text.len());
    let len = text.get(from..to).map_or(0, |piece| piece.trim_end().len());
    Span { line: start.start.line(), col: start.start.col() + 1, offset: from, len }
}

/// How many levels a value has.
fn depth(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 0,
        Content::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Content::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}

/// A value in the place of a key.
fn as_key(node: Node) -> Result<Key, Box<Diagnostic>> {
    let what = node.what();
    match node.content {
        Content::Scalar { text, plain } if !(plain && text.is_empty()) => Ok(Key { text, span: node.span }),
        Content::Scalar { .. } => stop(Diagnostic::error("bad-key", node.span, "a key is missing before the `:`")),
        Content::List(_) | Content::Map(_) => stop(
            Diagnostic::error("bad-key", node.span, format!("a key must be text, found {what}"))
                .help("a value that begins with `{` or `[` needs quotes if it is meant as text"),
        ),
    }
}

/// The entries that `<<` brings: those of a mapping, or of several, where the first counts.
fn merged(into: &mut Vec<Entry>, node: Node) -> Result<(), Box<Diagnostic>> {
    let error = |span| {
        Diagnostic::error("bad-merge", span, "`<<` needs a mapping, or a list of mappings")
            .help("write `<<: *name` with the anchor of a mapping")
    };
    let maps = match node.content {
        Content::Map(_) => vec![node],
        Content::List(items) => items,
        Content::Scalar { .. } => return stop(error(node.span)),
    };
    for map in maps {
        let Content::Map(entries) = map.content else { return stop(error(map.span)) };
        let known: std::collections::HashSet<String> = into.iter().map(|entry| entry.key.text.clone()).collect();
        into.extend(entries.into_iter().filter(|entry| !known.contains(&entry.key.text)));
    }
    Ok(())
}

/// An error of the YAML reader in our words.
fn syntax(text: &str, error: &ScanError) -> Diagnostic {
    let at = Range::empty(*error.marker());
    let span = span_between(text, at, at);
    let invalid = format!("this is not valid YAML: {}", error.info());
    let (code, message, help) = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => {
            ("tab", "a tab stands where YAML wants spaces".to_owned(), "indent by spaces")
        }
        ErrorKind::UnknownAnchor => {
            let rest = text.get(span.offset..).unwrap_or("");
            let name = rest.trim_start_matches('*').split(|c: char| c.is_whitespace() || ",]}".contains(c)).next();
            let message = format!("there is no anchor `&{}` before this", shown(name.unwrap_or("")));
            ("unknown-alias", message, "`*name` repeats a value that was marked by `&name`")
        }
        ErrorKind::RecursionLimitExceeded => {
            let message = format!("values are nested more than {MAX_DEPTH} deep");
            ("nested-too-deep", message, "the language itself needs fewer than 10 levels")
        }
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => {
            ("yaml", invalid, "a bracket before this place is not closed, or a `,` is missing")
        }
        ErrorKind::UnclosedQuotedScalar => ("yaml", invalid, "close the quotes that were opened"),
        ErrorKind::UnexpectedCharacter { character: '@' | '`' | '%' } => {
            ("yaml", invalid, "a value that begins with this character needs quotes")
        }
        ErrorKind::MappingValueNotAllowed => {
            let help = "if the value holds a `: `, put it in quotes; else look at the indentation";
            ("yaml", "this is not valid YAML: there is a second `:` here".to_owned(), help)
        }
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey => {
            ("yaml", invalid, "keys of one mapping begin in the same column; lists and mappings cannot be mixed")
        }
        ErrorKind::InvalidSimpleKey | ErrorKind::SimpleKeyExpected => {
            ("yaml", invalid, "look for a missing `:` after a key, and for lines that are indented wrongly")
        }
        _ => return Diagnostic::error("yaml", span, invalid),
    };
    Diagnostic::error(code, span, message).help(help)
}
