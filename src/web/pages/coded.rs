//! What messages name between backticks, set as code. PURE.

use std::fmt;

use askama::filters::HtmlSafe;

use crate::words::escape;

/// A text whose `names` are set as code.
#[derive(Debug, Clone, Copy)]
pub struct Coded<'a>(&'a str);

impl<'a> Coded<'a> {
    /// This text, so set.
    pub fn of(text: &'a str) -> Self {
        Self(text)
    }
}

impl fmt::Display for Coded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((before, behind)) = rest.split_once('`') {
            // A backtick that nothing closes, or around nothing, is just one.
            let Some((name, after)) = behind.split_once('`').filter(|(name, _)| !name.is_empty()) else { break };
            write!(f, "{}<code>{}</code>", escape(before), escape(name))?;
            rest = after;
        }
        write!(f, "{}", escape(rest))
    }
}

/// Every part is escaped.
impl HtmlSafe for Coded<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_code_and_nothing_is_markup() {
        let check = |text: &str, expected: &str| assert_eq!(Coded::of(text).to_string(), expected);
        check("stage `a` failed: `b`", "stage <code>a</code> failed: <code>b</code>");
        check("one ` alone", "one ` alone");
        check("``", "``");
        check("`<b>` & </code>", "<code>&lt;b&gt;</code> &amp; &lt;/code&gt;");
        check("", "");
    }
}
