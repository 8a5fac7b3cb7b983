//! Lines of a log, whose colours are escape codes, as pieces with classes. What is no colour is left out: a page shows what a
//! program said, and obeys nothing of it. PURE.

use std::fmt;

use askama::filters::HtmlSafe;

use crate::logs::codes::{self, Code};
use crate::words::{escape, turns_or_hides};

/// A part of a line that looks the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    look: Look,
    text: String,
}

/// How text looks. Colours are numbers of a fixed palette.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Look {
    found: bool,
    colour: Option<u8>,
    ground: Option<u8>,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
}

/// A line ready for a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

/// Parts of a line that look different, at most; what follows looks as the last one.
const PIECES: usize = 100;

impl Text {
    /// Reads a line. Of one that was written over again and again, as progress bars are, the last state is shown.
    pub fn of(line: &str) -> Self {
        let (over, last) = line.trim_end_matches('\r').rsplit_once('\r').unwrap_or(("", line.trim_end_matches('\r')));
        let mut pieces: Vec<Piece> = Vec::new();
        // Colours last beyond what was written over.
        let mut look = over
            .match_indices('\u{1b}')
            .filter_map(|(at, _)| escape_code(&over[at..])?.0)
            .fold(Look::default(), Look::after);
        let mut rest = last;
        while let Some(c) = rest.chars().next() {
            if let Some((codes, behind)) = Some(rest).filter(|_| c == '\u{1b}').and_then(escape_code) {
                look = codes.map_or(look, |codes| look.after(codes));
                rest = behind;
                continue;
            }
            rest = &rest[c.len_utf8()..];
            let shown = match c {
                '\t' => '\t',
                c if c.is_control() || matches!(c, '\u{200c}' | '\u{200d}') || turns_or_hides(c) => '\u{fffd}',
                c => c,
            };
            let is_full = pieces.len() >= PIECES;
            match pieces.last_mut() {
                Some(piece) if piece.look == look => piece.text.push(shown),
                Some(piece) if is_full => piece.text.push(shown),
                _ => pieces.push(Piece { look, text: shown.to_string() }),
            }
        }
        Self(pieces)
    }
}

impl Text {
    /// A line without its colours, with what was looked for marked.
    pub fn marked(line: &str, wanted: &str) -> Self {
        let plain: String = Self::of(line).0.into_iter().map(|piece| piece.text).collect();
        let mut pieces = Vec::new();
        let mut rest = plain.as_str();
        while let Some(at) = rest.find(wanted).filter(|_| !wanted.is_empty() && pieces.len() < PIECES) {
            let (before, found) = rest.split_at(at);
            let (found, after) = found.split_at(wanted.len());
            pieces.push(Piece { look: Look::default(), text: before.to_owned() });
            pieces.push(Piece { look: Look { found: true, ..Look::default() }, text: found.to_owned() });
            rest = after;
        }
        pieces.push(Piece { look: Look::default(), text: rest.to_owned() });
        Self(pieces)
    }
}

/// The numbers of a colour code that a text begins with, and the text behind it; of other codes only the text behind. `None` if
/// it begins with no code.
fn escape_code(text: &str) -> Option<(Option<&str>, &str)> {
    match codes::begun(text.as_bytes()) {
        Code::Whole(length) => {
            let (code, behind) = text.split_at(length);
            Some((code.strip_prefix("\u{1b}[").and_then(|code| code.strip_suffix('m')), behind))
        }
        // The line ends within it.
        Code::Open => Some((None, "")),
        Code::None => None,
    }
}

impl Look {
    fn after(mut self, codes: &str) -> Self {
        let mut numbers = codes.split([';', ':']).map(|number| number.parse::<u16>().unwrap_or(0));
        while let Some(number) = numbers.next() {
            match number {
                0 => self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underline = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                30..=37 => self.colour = u8::try_from(number - 30).ok(),
                90..=97 => self.colour = u8::try_from(number - 82).ok(),
                39 => self.colour = None,
                40..=47 => self.ground = u8::try_from(number - 40).ok(),
                100..=107 => self.ground = u8::try_from(number - 92).ok(),
                49 => self.ground = None,
                38 | 48 => {
                    let colour = extended(&mut numbers);
                    if number == 38 { self.colour = colour } else { self.ground = colour }
                }
                _ => {}
            }
        }
        self
    }
}

/// A colour of 256, or of three parts, as the nearest of the sixteen.
fn extended(numbers: &mut impl Iterator<Item = u16>) -> Option<u8> {
    let (red, green, blue) = match numbers.next()? {
        5 => match numbers.next()? {
            number @ 0..=15 => return u8::try_from(number).ok(),
            number @ 16..=231 => {
                let level = |part: u16| (part % 6) * 51;
                let cube = number - 16;
                (level(cube / 36), level(cube / 6), level(cube))
            }
            number => {
                let grey = (number.min(255) - 232) * 10 + 8;
                (grey, grey, grey)
            }
        },
        2 => (numbers.next()?, numbers.next()?, numbers.next()?),
        _ => return None,
    };
    let high = red.max(green).max(blue);
    let bit = |part: u16| u8::from(u32::from(part) * 2 > u32::from(high));
    let hue = bit(red) | bit(green) << 1 | bit(blue) << 2;
    match high {
        0..=60 => Some(0),
        61..=170 if hue == 7 => Some(8),
        61..=170 => Some(hue),
        _ => Some(hue + 8),
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Piece { look, text } in &self.0 {
            if *look == Look::default() {
                f.write_str(&escape(text))?;
                continue;
            }
            if look.found {
                write!(f, "<mark>{}</mark>", escape(text))?;
                continue;
            }
            f.write_str("<span class=\"")?;
            if let Some(colour) = look.colour {
                write!(f, "c{colour} ")?;
            }
            if let Some(ground) = look.ground {
                write!(f, "g{ground} ")?;
            }
            for (on, class) in [(look.bold, "b "), (look.dim, "d "), (look.italic, "i "), (look.underline, "u ")] {
                f.write_str(if on { class } else { "" })?;
            }
            write!(f, "\">{}</span>", escape(text))?;
        }
        Ok(())
    }
}

/// Every text in it is escaped, and every class is one of ours.
impl HtmlSafe for Text {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_become_classes_and_the_rest_is_harmless() {
        let check = |line: &str, expected: &str| assert_eq!(Text::of(line).to_string(), expected, "{line:?}");
        check("plain <b>", "plain &lt;b&gt;");
        check("\u{1b}[32mok\u{1b}[0m done", "<span class=\"c2 \">ok</span> done");
        check("\u{1b}[1;31mbad\u{1b}[22m still", "<span class=\"c1 b \">bad</span><span class=\"c1 \"> still</span>");
        check("\u{1b}[38;5;196mred\u{1b}[39m.", "<span class=\"c9 \">red</span>.");
        check("\u{1b}[38;2;0;0;255mblue\u{1b}[m.", "<span class=\"c12 \">blue</span>.");
        check("\u{1b}[2Jcleared\u{1b}[10;10H", "cleared");
        check("\u{1b}]0;title\u{7}after", "after");
        check("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link");
        check("\u{1b}]0;never ends", "");
        check("\u{1b}[31", "");
        check("h\u{1b}(Bi", "hi");
        check("\u{1b}\u{1b}[31mred", "<span class=\"c1 \">red</span>");
        check("a\tbc\u{7}", "a\tbc\u{fffd}");
        check("\u{1b}]0;cut off\u{1b}[31mred", "<span class=\"c1 \">red</span>");
        check("\u{202e}gpj.exe", "\u{fffd}gpj.exe");
    }

    #[test]
    fn of_a_line_that_is_written_over_the_last_state_is_shown() {
        let check = |line: &str, expected: &str| assert_eq!(Text::of(line).to_string(), expected, "{line:?}");
        check("10 %\r50 %\r100 %\r", "100 %");
        check("\u{1b}[32m10 %\r50 %", "<span class=\"c2 \">50 %</span>");
        check("from windows\r", "from windows");
        check("\r\r", "");
    }

    #[test]
    fn a_line_of_colours_or_of_hits_stays_small() {
        let colourful: String = (0..4000).map(|at| format!("\u{1b}[3{}mx", at % 8)).collect();
        let shown = Text::of(&colourful).to_string();
        assert!(shown.matches("<span").count() <= PIECES && shown.matches('x').count() == 4000, "{}", shown.len());
        let marked = Text::marked(&"a".repeat(4000), "a").to_string();
        assert!(marked.matches("<mark>").count() <= PIECES && marked.matches('a').count() > 4000 - PIECES);
    }

    #[test]
    fn what_was_found_is_marked() {
        let marked = Text::marked("\u{1b}[31ma<b>\u{1b}[0m and a<b>", "<b>").to_string();
        assert_eq!(marked, "a<mark>&lt;b&gt;</mark> and a<mark>&lt;b&gt;</mark>");
    }

    proptest! {
        #[test]
        fn nothing_of_a_line_becomes_markup(line in any::<String>()) {
            let shown = Text::of(&line).to_string();
            let bare = shown.replace("</span>", "");
            let bare = bare.split("<span class=\"").map(|part| part.split_once("\">").map_or(part, |(_, text)| text));
            for text in bare.skip(1) {
                prop_assert!(!text.contains('<'), "{shown}");
            }
            let escape = '\u{1b}';
            prop_assert!(!shown.contains(escape));
            prop_assert!(!shown.contains("<script"));
        }
    }
}
