//! Escape codes of terminals: where one ends. They are not seen, so that what stands on both sides of one is seen as one text.
//!
//! PURE. Read as terminals read them, by the mask and by our pages: colours and the like (`ESC [`), titles and links (`ESC ]`), others of a character
//! or two.

/// What every code begins with.
pub(super) const ESCAPE: u8 = 0x1b;
/// The most bytes of a code: a link to the longest address that terminals take. What goes on for longer is none.
pub(super) const LONGEST: usize = 2200;

/// What an escape character begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A code of so many bytes.
    Whole(usize),
    /// It depends on what comes next.
    Open,
    /// No code.
    None,
}

/// What the escape character at the begin of this text begins.
pub fn begun(text: &[u8]) -> Code {
    match text.get(1) {
        None => Code::Open,
        Some(b'[') => up_to(text, 2, |byte| matches!(byte, b' '..=b'?')),
        Some(b']') => command(text),
        // The first is lost on a terminal, and the second begins anew.
        Some(&ESCAPE) => Code::Whole(1),
        Some(_) => up_to(text, 1, |byte| matches!(byte, b' '..=b'/')),
    }
}

/// A code that ends with the first character that is not `within` it.
fn up_to(text: &[u8], from: usize, within: impl Fn(u8) -> bool) -> Code {
    let known = &text[..text.len().min(LONGEST)];
    let Some(last) = (from..known.len()).find(|&at| !within(known[at])) else {
        return if text.len() < LONGEST { Code::Open } else { Code::None };
    };
    let length = match text[last] {
        // A line ends all that it holds.
        b'\n' | ESCAPE => return Code::None,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
        _ => 1,
    };
    if last + length <= text.len() { Code::Whole(last + length) } else { Code::Open }
}

/// Commands end with BEL, or ESC and a backslash. Any other ESC cuts them off, and begins anew.
fn command(text: &[u8]) -> Code {
    for at in 2..text.len().min(LONGEST) {
        match (text[at], text.get(at + 1)) {
            (b'\n', _) => return Code::None,
            (0x07, _) => return Code::Whole(at + 1),
            (ESCAPE, Some(b'\\')) => return Code::Whole(at + 2),
            (ESCAPE, None) => return Code::Open,
            (ESCAPE, Some(_)) => return Code::Whole(at),
            _ => {}
        }
    }
    if text.len() < LONGEST { Code::Open } else { Code::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_end_where_a_terminal_says() {
        let check = |text: &str, expected: Code| assert_eq!(begun(text.as_bytes()), expected, "{text:?}");
        check("\u{1b}[31mred", Code::Whole(5));
        check("\u{1b}[mred", Code::Whole(3));
        check("\u{1b}[1;38:5:202mred", Code::Whole(13));
        check("\u{1b}[?25l", Code::Whole(6));
        check("\u{1b}[3é", Code::Whole(5));
        check("\u{1b}]0;title\u{7}x", Code::Whole(10));
        check("\u{1b}]8;;https://a.example/\u{1b}\\link", Code::Whole(25));
        check("\u{1b}]0;cut off\u{1b}[31mred", Code::Whole(11));
        check("\u{1b}(Bx", Code::Whole(3));
        check("\u{1b}7x", Code::Whole(2));
        check("\u{1b}\u{1b}[0m", Code::Whole(1));
        for open in ["\u{1b}", "\u{1b}[", "\u{1b}[31;", "\u{1b}]8;;x", "\u{1b}]8;;x\u{1b}", "\u{1b}("] {
            check(open, Code::Open);
        }
        for none in ["\u{1b}[31\nm", "\u{1b}[31\u{1b}[m", "\u{1b}]8;;x\ny\u{7}", "\u{1b}\n"] {
            check(none, Code::None);
        }
        let long = |end: &str, length: usize| format!("\u{1b}]8;;{}{end}", "x".repeat(length));
        check(&long("\u{7}", LONGEST - 6), Code::Whole(LONGEST));
        check(&long("\u{7}", LONGEST - 5), Code::None);
        check(&long("", LONGEST - 6), Code::Open);
        check(&format!("\u{1b}[{}m", "1".repeat(LONGEST)), Code::None);
    }

    #[test]
    fn what_is_decided_stays_so_whatever_follows() {
        for text in
            ["\u{1b}[31mä", "\u{1b}]8;;x\u{1b}y\u{1b}\\", "\u{1b}]0;\u{7}", "\u{1b}( Bx", "\u{1b}[é", "\u{1b}]0;\n"]
        {
            let whole = begun(text.as_bytes());
            for cut in 1..text.len() {
                let early = begun(&text.as_bytes()[..cut]);
                assert!(early == Code::Open || early == whole, "{text:?} up to {cut}: {early:?}, then {whole:?}");
            }
        }
    }
}
