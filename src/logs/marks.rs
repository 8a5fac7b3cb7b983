//! Takes the marks of steps out of a stream.
//!
//! PURE. A mark is `\x1e<nonce> <begin|end> <step> <code>\x1e\n`; it may follow text on its line. Anything else that
//! begins like one is text. A mark that is cut by chunks is waited for; one is never longer than [`LONGEST`].

use memchr::memchr;

const MARK: u8 = 0x1e;
/// Room for the nonce and the numbers; what is longer is text.
const LONGEST: usize = 256;

/// A step began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepMark {
    /// Counted from 0.
    pub step: u32,
    /// Which of the two.
    pub event: StepEvent,
}

/// What a mark says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEvent {
    /// The step begins.
    Begin,
    /// The step has ended.
    End {
        /// Its exit code.
        code: i64,
    },
}

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text, cut anywhere between characters.
    Text(&'a [u8]),
    /// A mark, with the newline that ended it.
    Mark(StepMark),
}

/// Finds marks with this nonce.
#[derive(Debug)]
pub(super) struct Marks {
    /// `\x1e<nonce> `; `None`: there are no marks.
    lead: Option<Vec<u8>>,
    held: Vec<u8>,
}

enum Parse {
    Mark(usize, StepMark),
    Incomplete,
    Text,
}

impl Marks {
    pub(super) fn new(nonce: Option<&str>) -> Self {
        Self { lead: nonce.map(|n| format!("\x1e{n} ").into_bytes()), held: Vec::new() }
    }

    /// Gives text and marks on.
    pub(super) fn push(&mut self, input: &[u8], sink: &mut impl FnMut(Piece<'_>)) {
        let Some(lead) = &self.lead else { return sink(Piece::Text(input)) };
        if self.held.is_empty() {
            let from = scan(lead, input, sink);
            self.held.extend_from_slice(&input[from..]);
        } else {
            self.held.extend_from_slice(input);
            let work = std::mem::take(&mut self.held);
            let from = scan(lead, &work, sink);
            self.held.extend_from_slice(&work[from..]);
        }
    }

    /// The source has ended: a mark that was begun is text.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(Piece<'_>)) {
        if !self.held.is_empty() {
            sink(Piece::Text(&self.held));
            self.held.clear();
        }
    }
}

/// Gives on all that is decided, and says where the undecided begins.
fn scan(lead: &[u8], input: &[u8], sink: &mut impl FnMut(Piece<'_>)) -> usize {
    let (mut text, mut at) = (0, 0);
    let give = |from: usize, to: usize, sink: &mut dyn FnMut(Piece<'_>)| {
        if from < to {
            sink(Piece::Text(&input[from..to]));
        }
    };
    while let Some(found) = memchr(MARK, &input[at..]) {
        at += found;
        match parse(lead, &input[at..]) {
            Parse::Text => at += 1,
            Parse::Incomplete => {
                give(text, at, sink);
                return at;
            }
            Parse::Mark(length, mark) => {
                give(text, at, sink);
                sink(Piece::Mark(mark));
                at += length;
                text = at;
            }
        }
    }
    give(text, input.len(), sink);
    input.len()
}

fn parse(lead: &[u8], input: &[u8]) -> Parse {
    let common = lead.len().min(input.len());
    if lead[..common] != input[..common] {
        return Parse::Text;
    }
    let body = &input[common..];
    let Some(end) = memchr(MARK, &body[..body.len().min(LONGEST)]) else {
        let possible = body.len() < LONGEST && !body.contains(&b'\n');
        return if possible { Parse::Incomplete } else { Parse::Text };
    };
    let Some(mark) = body_of_mark(&body[..end]) else { return Parse::Text };
    match body.get(end + 1) {
        None => Parse::Incomplete,
        Some(b'\n') => Parse::Mark(common + end + 2, mark),
        Some(_) => Parse::Text,
    }
}

fn body_of_mark(body: &[u8]) -> Option<StepMark> {
    let mut words = std::str::from_utf8(body).ok()?.split(' ');
    let (word, step, code) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let event = match word {
        "begin" => StepEvent::Begin,
        "end" => StepEvent::End { code },
        _ => return None,
    };
    words.next().is_none().then_some(StepMark { step, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    /// Text and marks as one text, marks as `<begin 0>`.
    fn run(chunks: &[&[u8]]) -> String {
        let mut out = String::new();
        let mut marks = Marks::new(Some("n0nce"));
        let mut sink = |piece: Piece<'_>| match piece {
            Piece::Text(text) => out.push_str(std::str::from_utf8(text).expect("text")),
            Piece::Mark(StepMark { step, event: StepEvent::Begin }) => out.push_str(&format!("<begin {step}>")),
            Piece::Mark(StepMark { step, event: StepEvent::End { code } }) => {
                out.push_str(&format!("<end {step} {code}>"));
            }
        };
        for chunk in chunks {
            marks.push(chunk, &mut sink);
        }
        marks.finish(&mut sink);
        out
    }

    #[test]
    fn marks_are_found_and_all_else_is_text() {
        let check = |input: &str, expected: &str| {
            assert_eq!(run(&[input.as_bytes()]), expected, "{input:?}");
            let bytes: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
            assert_eq!(run(&bytes), expected, "{input:?} byte by byte");
        };
        check("a\n\x1en0nce begin 0 0\x1e\nb", "a\n<begin 0>b");
        check("text\x1en0nce end 12 137\x1e\n", "text<end 12 137>");
        check("\x1en0nce end 0 -1\x1e\n\x1en0nce begin 1 0\x1e\n", "<end 0 -1><begin 1>");
        check("\x1eother begin 0 0\x1e\n", "\x1eother begin 0 0\x1e\n");
        check("\x1en0nce begin 0 0\x1e no newline", "\x1en0nce begin 0 0\x1e no newline");
        check("\x1en0nce begin x 0\x1e\n", "\x1en0nce begin x 0\x1e\n");
        check("\x1en0nce begin 0 0 0\x1e\n", "\x1en0nce begin 0 0 0\x1e\n");
        check("\x1e\x1en0nce begin 0 0\x1e\n", "\x1e<begin 0>");
        check("\x1en0nce begin 0", "\x1en0nce begin 0");
        check("\x1en0nce begin\n0 0\x1e\n", "\x1en0nce begin\n0 0\x1e\n");
        let long = format!("\x1en0nce {}", "9".repeat(1000));
        check(&long, &long);
    }

    proptest! {
        #[test]
        fn the_chunks_do_not_matter(
            parts in prop::collection::vec(
                prop::sample::select(vec!["\x1e", "n0nce", " ", "begin", "end", "0", "1", "\n", "x", "\x1en0nce end 1 2\x1e\n"]),
                0..40,
            ),
            size in 1usize..9,
        ) {
            let text = parts.concat();
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(run(&chunks), run(&[text.as_bytes()]));
        }
    }
}
