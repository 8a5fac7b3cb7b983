//! How a log lies in its file.
//!
//! PURE. A record is one line of UTF-8 text; its first 23 bytes are fixed, so the file can be read, cut and searched with
//! any tool:
//!
//! ```text
//! 1795419810123456 o003  epoch 3: loss 0.21
//! |                ||  | |
//! |                ||  | the text, as it came, secrets masked; to the newline
//! |                ||  ' ' a whole line; '+' it did not end here: a piece of an overlong line, or no newline came
//! |                |step, counted from 0 (999: that or more); `---` between steps
//! |                stream: o stdout, e stderr, s the orchestrator's own notes
//! microseconds since 1970, 16 digits
//! ```
//!
//! The text that a program printed is the texts of one stream's records, with a newline after each that is a whole line.

use std::ops::Range;

use serde::Serialize;

use crate::ids::Micros;

/// Bytes before the text.
pub const PREFIX: usize = 23;
/// The most bytes of a record: a piece of 64 Ki source bytes, each of which may be replaced by three.
pub const LONGEST_RECORD: usize = PREFIX + 3 * super::lines::PIECE + 1;

const TIME: Range<usize> = 0..16;
const STEP: Range<usize> = 18..21;
const LAST_STEP: u32 = 999;

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The orchestrator's own.
    Note,
}

impl Stream {
    /// Each of them, in the order of [`Stream::index`].
    pub(super) const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Note];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Note => 2,
        }
    }

    fn letter(self) -> u8 {
        match self {
            Self::Stdout => b'o',
            Self::Stderr => b'e',
            Self::Note => b's',
        }
    }
}

/// One record of a log, as readers get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Counted from 0 over all streams.
    pub number: u64,
    /// When it was written.
    pub at: Micros,
    /// Whose it is.
    pub stream: Stream,
    /// The step it belongs to, if any.
    pub step: Option<u32>,
    /// Without the newline.
    pub text: String,
    /// No newline came: the stream's next record goes on with this line, unless its step ended here.
    pub continued: bool,
}

/// A record's parts, still in the reader's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub at: Micros,
    pub stream: Stream,
    pub step: Option<u32>,
    pub continued: bool,
    pub text: &'a [u8],
}

/// The first bytes of a record.
pub(super) fn prefix(at: Micros, stream: Stream, step: Option<u32>, continued: bool) -> [u8; PREFIX] {
    let mut out = [b' '; PREFIX];
    decimal(&mut out[TIME], u64::try_from(at.0).unwrap_or(0));
    out[17] = stream.letter();
    match step {
        Some(step) => decimal(&mut out[STEP], u64::from(step.min(LAST_STEP))),
        None => out[STEP].fill(b'-'),
    }
    out[21] = if continued { b'+' } else { b' ' };
    out
}

fn decimal(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

/// Reads a record, given without its newline. `None` if it is not one.
pub(super) fn parse(line: &[u8]) -> Option<Record<'_>> {
    let (head, text) = line.split_at_checked(PREFIX)?;
    let number = |digits: &[u8]| -> Option<u64> {
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(digits).ok()?.parse().ok()
    };
    let stream = Stream::ALL.into_iter().find(|s| s.letter() == head[17])?;
    let step = match &head[STEP] {
        b"---" => None,
        digits => Some(u32::try_from(number(digits)?).ok()?),
    };
    let continued = match head[21] {
        b' ' => false,
        b'+' => true,
        _ => return None,
    };
    let at = Micros(i64::try_from(number(&head[TIME])?).ok()?);
    (head[16] == b' ' && head[22] == b' ').then_some(Record { at, stream, step, continued, text })
}

impl Record<'_> {
    pub(super) fn to_line(self, number: u64) -> Line {
        let Self { at, stream, step, continued, text } = self;
        Line { number, at, stream, step, text: String::from_utf8_lossy(text).into_owned(), continued }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip() {
        let check = |at, stream, step, continued, expected: &str| {
            let prefix = prefix(Micros(at), stream, step, continued);
            assert_eq!(std::str::from_utf8(&prefix).expect("ascii"), expected);
            let line = [&prefix[..], b"text"].concat();
            let record = parse(&line).expect("a record");
            assert_eq!(record, Record { at: Micros(at), stream, step, continued, text: b"text" });
        };
        check(1_795_419_810_123_456, Stream::Stdout, Some(3), false, "1795419810123456 o003  ");
        check(1, Stream::Stderr, None, true, "0000000000000001 e---+ ");
        check(0, Stream::Note, Some(999), false, "0000000000000000 s999  ");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in ["", "short", "1795419810123456 x003  t", "179541981012345a o003  t", "1795419810123456 o0-3  t"] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"1795419810123456 o003. t"), None);
    }
}
