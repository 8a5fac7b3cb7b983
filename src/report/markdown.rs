//! Text of others inside GitHub's Markdown. Source: the GitHub Flavored Markdown specification, sections 2.4 (backslash
//! escapes) and 4.10 (tables); mentions and references are found by GitHub in the text that comes out, so a backslash does not
//! hold them back.

use std::fmt::Write;

/// Text as nothing but text: no HTML, no emphasis, no link, no cell of a table, no mention of a person, no reference.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // A space of no width, so that nobody is called and nothing is linked.
            '@' | '#' => {
                let _ = write!(out, "{c}\u{200b}");
            }
            '/' | '.' | ':' if ends_like_a_link(&out) => {
                let _ = write!(out, "{c}\u{200b}");
            }
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '!' | '|' | '~' | '$' => {
                let _ = write!(out, "\\{c}");
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// `http:` and `www.` at the end make what follows a link.
fn ends_like_a_link(so_far: &str) -> bool {
    let tail: String = so_far.chars().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect();
    let tail = tail.to_ascii_lowercase();
    tail.ends_with("www") || tail.ends_with("http") || tail.ends_with("https") || tail.ends_with("ftp")
}

/// Text in a code span, which may stand in a table.
pub fn code(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut html = String::with_capacity(clean.len() + 13);
    html.push_str("<code>");
    for c in clean.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            // Markdown goes on inside of inline HTML.
            c if c.is_ascii_punctuation() => {
                let _ = write!(html, "&#{};", c as u32);
            }
            c => html.push(c),
        }
    }
    html.push_str("</code>");
    html
}

/// A table. Cells are Markdown already; columns of numbers stand to the right.
pub fn table(head: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    let names: Vec<&str> = head.iter().map(|(name, _)| *name).collect();
    let lines: Vec<&str> = head.iter().map(|(_, side)| if *side == Side::Right { "---:" } else { "---" }).collect();
    let _ = writeln!(out, "| {} |\n| {} |", names.join(" | "), lines.join(" | "));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

/// To which side a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let check = |given: &str, expected: &str| assert_eq!(text(given), expected, "{given}");
        check("plain words, 3.5 %", "plain words, 3.5 %");
        check("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;");
        check("@admin fixes #12", "@\u{200b}admin fixes #\u{200b}12");
        check("a|b\nc", "a\\|b c");
        check("[x](http://e.example)", "\\[x\\]\\(http:\u{200b}//e.example\\)");
        check("www.e.example", "www.\u{200b}e.example");
        check("**`_~$", "\\*\\*\\`\\_\\~\\$");
    }

    #[test]
    fn code_holds_nothing_but_text() {
        assert_eq!(code("p95_ms|`</code>\n"), "<code>p95&#95;ms&#124;&#96;&lt;&#47;code&gt; </code>");
    }
}
