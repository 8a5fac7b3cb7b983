//! Cuts a stream into lines, and overlong lines into pieces.
//!
//! PURE. Input comes in pieces of whole characters. A line of more than [`PIECE`] bytes is cut into pieces of that size
//! (a character is never cut), all but the last flagged as continued.
//!
//! The size of a piece is counted in bytes of the *source*: a U+FFFD counts as one, since it nearly always stands for one
//! invalid byte. An engine that keeps long lines in blocks tears the character on a block's border into such bytes, so a
//! border that falls into a short run of them is moved to the run's begin: there the whole character would have gone.

use memchr::{memchr, memmem};

use super::utf8::REPLACEMENT;

/// The most source bytes of one record: 64 KiB.
pub(super) const PIECE: usize = 64 * 1024;
/// A character's bytes before a border, at most.
const TORN: usize = 3;

/// How a piece of a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// By a newline.
    Newline,
    /// The line goes on in the next record, or the stream (or its step) ended here.
    Open,
}

/// Carries an unfinished line from chunk to chunk.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Vec<u8>,
    weight: usize,
}

impl Lines {
    /// Gives lines on, without their newline.
    pub(super) fn push(&mut self, mut input: &[u8], sink: &mut impl FnMut(&[u8], Ending)) {
        while let Some(at) = memchr(b'\n', input) {
            let line = &input[..at];
            if self.open.is_empty() && line.len() <= PIECE {
                sink(line, Ending::Newline);
            } else {
                self.part(line, sink);
                sink(&self.open, Ending::Newline);
                self.clear();
            }
            input = &input[at + 1..];
        }
        if !input.is_empty() {
            self.part(input, sink);
        }
    }

    /// Nothing more of this line will come.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(&[u8], Ending)) {
        if !self.open.is_empty() {
            sink(&self.open, Ending::Open);
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.open.clear();
        self.weight = 0;
    }

    fn part(&mut self, part: &[u8], sink: &mut impl FnMut(&[u8], Ending)) {
        self.open.extend_from_slice(part);
        self.weight += weight(part);
        while self.weight > PIECE {
            let cut = cut(&self.open);
            sink(&self.open[..cut], Ending::Open);
            self.open.drain(..cut);
            self.weight = weight(&self.open);
        }
    }
}

/// Source bytes behind this text.
fn weight(text: &[u8]) -> usize {
    text.len() - (REPLACEMENT.len() - 1) * memmem::find_iter(text, REPLACEMENT).count()
}

/// Where the first piece of a line of more than [`PIECE`] ends.
fn cut(line: &[u8]) -> usize {
    let (mut at, mut weight) = (0, 0);
    loop {
        let (bytes, counts) = character(&line[at..]);
        if weight + counts > PIECE {
            break;
        }
        at += bytes;
        weight += counts;
    }
    if line[at..].starts_with(REPLACEMENT) {
        for _ in 0..TORN {
            if line[..at].ends_with(REPLACEMENT) {
                at -= REPLACEMENT.len();
            }
        }
    }
    at
}

/// The first character's bytes, and what they count. The text is valid and not empty.
fn character(text: &[u8]) -> (usize, usize) {
    let bytes = match text[0] {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
    };
    if text.starts_with(REPLACEMENT) { (bytes, 1) } else { (bytes, bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[&str]) -> Vec<(String, Ending)> {
        let mut out = Vec::new();
        let mut lines = Lines::default();
        let mut sink = |text: &[u8], ending| out.push((String::from_utf8(text.to_vec()).expect("text"), ending));
        for chunk in chunks {
            lines.push(chunk.as_bytes(), &mut sink);
        }
        lines.finish(&mut sink);
        out
    }

    #[test]
    fn lines_and_the_last_partial_one() {
        let line = |t: &str| (t.to_owned(), Ending::Newline);
        let part = |t: &str| (t.to_owned(), Ending::Open);
        assert_eq!(run(&["a\n\nb", "c\nd"]), [line("a"), line(""), line("bc"), part("d")]);
        assert_eq!(run(&["a\n"]), [line("a")]);
        assert_eq!(run(&[]), []);
    }

    #[test]
    fn overlong_lines_are_cut_into_pieces() {
        let sizes = |text: &str| -> Vec<(usize, Ending)> { run(&[text]).iter().map(|(t, e)| (t.len(), *e)).collect() };
        let check = |text: String, expected: &[(usize, Ending)]| assert_eq!(sizes(&text), expected);
        check("x".repeat(PIECE) + "\n", &[(PIECE, Ending::Newline)]);
        check("x".repeat(PIECE + 1) + "\n", &[(PIECE, Ending::Open), (1, Ending::Newline)]);
        check("x".repeat(2 * PIECE), &[(PIECE, Ending::Open), (PIECE, Ending::Open)]);
        // A character is not cut, and a replaced byte counts as the one byte that it was.
        check("x".repeat(PIECE - 1) + "éz\n", &[(PIECE - 1, Ending::Open), (3, Ending::Newline)]);
        check("\u{fffd}".repeat(PIECE) + "\n", &[(3 * PIECE, Ending::Newline)]);
    }

    /// The engine keeps a long line in blocks, and replaces the bytes of a character that lies on a border.
    #[test]
    fn a_torn_character_does_not_move_the_border() {
        for before in 0..4 {
            let head = "x".repeat(PIECE - before);
            let (live, torn) = (format!("{head}😀tail\n"), format!("{head}{}tail\n", "\u{fffd}".repeat(4)));
            let (live, torn) = (run(&[&live]), run(&[&torn]));
            assert_eq!(live[0], torn[0], "{before}");
            assert_eq!(live.len(), torn.len());
        }
    }

    #[test]
    fn the_chunks_do_not_matter() {
        let text = format!("{}\u{fffd}é\n{}\nend", "ab\u{fffd}".repeat(40_000), "é".repeat(70_000));
        let whole = run(&[&text]);
        for size in [1, 7, 4096, 65_536] {
            let mut chunks = Vec::new();
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let at = (size..).find(|i| *i >= rest.len() || rest.is_char_boundary(*i)).unwrap_or(0).min(rest.len());
                chunks.push(&rest[..at]);
                rest = &rest[at..];
            }
            assert_eq!(run(&chunks), whole, "{size}");
        }
    }
}
