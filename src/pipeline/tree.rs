//! A file as a tree of values, each with its place: what [`mod@super::parse`] reads and everything after it looks at.

use super::diagnostic::Span;

/// A value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// From its first to its last byte.
    pub(crate) span: Span,
    /// Whether it begins and ends on one line.
    pub(crate) one_line: bool,
    /// What it is.
    pub(crate) content: Content,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Text, a number, `true`, nothing: as written. `plain` if without quotes, so that it may be something else than text.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: Key,
    /// Its value.
    pub(crate) value: Node,
}

/// A key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// As written, without quotes.
    pub(crate) text: String,
    /// Where.
    pub(crate) span: Span,
}

impl Node {
    /// Whether it is an empty value, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.content {
            Content::Scalar { text, plain } => *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            Content::List(_) | Content::Map(_) => false,
        }
    }

    /// The boolean that it is by YAML 1.2; `yes`, `no`, `on` and `off` are text.
    pub(crate) fn boolean(&self) -> Option<bool> {
        match &self.content {
            Content::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            Content::Scalar { .. } | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The number that it is.
    pub(crate) fn number(&self) -> Option<serde_json::Number> {
        match &self.content {
            Content::Scalar { text, plain: true } => number(text),
            Content::Scalar { .. } | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// What it is, for messages: ``the text `yes` ``, `a list`.
    pub(crate) fn what(&self) -> String {
        match &self.content {
            Content::List(_) => "a list".to_owned(),
            Content::Map(_) => "a mapping".to_owned(),
            Content::Scalar { text, .. } => {
                let shown = super::diagnostic::shown(text);
                if self.is_null() {
                    "nothing".to_owned()
                } else if self.boolean().is_some() {
                    format!("`{shown}`")
                } else if self.number().is_some() {
                    format!("the number `{shown}`")
                } else {
                    format!("the text `{shown}`")
                }
            }
        }
    }
}

/// A plain scalar as a JSON number: decimal, `0x`, `0o`. `.inf` and `.nan` are none: JSON has no such numbers.
pub(crate) fn number(text: &str) -> Option<serde_json::Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Into::into);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Into::into);
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let signed = text.strip_prefix('+').unwrap_or(text);
        if let Ok(whole) = signed.parse::<i64>() {
            return Some(whole.into());
        }
        if let Ok(whole) = signed.parse::<u64>() {
            return Some(whole.into());
        }
    }
    if digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
        return text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    }
    None
}

/// A place in the tree that may be absent: so that a check can go down without asking at each step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'t> {
    key: Option<&'t Key>,
    node: Option<&'t Node>,
    parent: Span,
}

impl<'t> At<'t> {
    /// The whole file.
    pub(crate) fn root(node: &'t Node) -> Self {
        Self { key: None, node: Some(node), parent: Span { len: 0, ..node.span } }
    }

    /// The value, if there is one.
    pub(crate) fn node(self) -> Option<&'t Node> {
        self.node
    }

    /// Whether something is written here.
    pub(crate) fn exists(self) -> bool {
        self.node.is_some()
    }

    /// The value of a key.
    pub(crate) fn get(self, key: &str) -> At<'t> {
        let entry = match self.node.map(|node| &node.content) {
            Some(Content::Map(entries)) => entries.iter().find(|entry| entry.key.text == key),
            Some(Content::Scalar { .. } | Content::List(_)) | None => None,
        };
        At { key: entry.map(|entry| &entry.key), node: entry.map(|entry| &entry.value), parent: self.key_span() }
    }

    /// An item of a list.
    pub(crate) fn item(self, index: usize) -> At<'t> {
        let node = match self.node.map(|node| &node.content) {
            Some(Content::List(items)) => items.get(index),
            Some(Content::Scalar { .. } | Content::Map(_)) | None => None,
        };
        At { key: None, node, parent: self.key_span() }
    }

    /// The entry of a mapping.
    pub(crate) fn entry(self, entry: &'t Entry) -> At<'t> {
        At { key: Some(&entry.key), node: Some(&entry.value), parent: self.key_span() }
    }

    /// All entries of a mapping.
    pub(crate) fn entries(self) -> impl Iterator<Item = (&'t str, At<'t>)> {
        let entries = match self.node.map(|node| &node.content) {
            Some(Content::Map(entries)) => entries.as_slice(),
            Some(Content::Scalar { .. } | Content::List(_)) | None => &[],
        };
        entries.iter().map(move |entry| (entry.key.text.as_str(), self.entry(entry)))
    }

    /// Where the key is; else where the value begins; else where it would have to be written.
    pub(crate) fn key_span(self) -> Span {
        match (self.key, self.node) {
            (Some(key), _) => key.span,
            (None, Some(_)) => self.span(),
            (None, None) => self.parent,
        }
    }

    /// Where the value is if that is a place one can point at, else its key.
    pub(crate) fn span(self) -> Span {
        match (self.node, self.key) {
            (Some(node), _) if node.one_line && node.span.len > 0 => node.span,
            (_, Some(key)) => key.span,
            (Some(node), None) => match &node.content {
                // Several lines without a key: an item of a list. Its first key says which one.
                Content::Map(entries) => entries.first().map_or(node.span, |entry| entry.key.span),
                Content::List(_) | Content::Scalar { .. } => Span { len: 1, ..node.span },
            },
            (None, None) => self.parent,
        }
    }

    /// Key and value together.
    pub(crate) fn whole(self) -> Span {
        let end = self.node.map_or(self.parent.end(), |node| node.span.end());
        let start = self.key.map_or(self.node.map_or(self.parent, |node| node.span), |key| key.span);
        Span { len: end.saturating_sub(start.offset).max(start.len), ..start }
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers() {
        for (text, expected) in [
            ("1", Some("1")),
            ("-3", Some("-3")),
            ("+3", Some("3")),
            ("3.10", Some("3.1")),
            ("1e-4", Some("0.0001")),
            ("0x10", Some("16")),
            ("18446744073709551615", Some("18446744073709551615")),
            (".5", Some("0.5")),
            ("1.2.3", None),
            ("10%", None),
            ("30s", None),
            (".inf", None),
            ("-", None),
            ("", None),
            ("inf", None),
            ("nan", None),
            ("1_000", None),
        ] {
            assert_eq!(number(text).map(|n| n.to_string()).as_deref(), expected, "{text}");
        }
    }
}
