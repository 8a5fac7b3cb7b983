//! How much of a stream was delivered, counted so that reading can go on from another source.
//!
//! Attach and the engine's log give the same lines, but not always the same bytes: the log is JSON, in which each byte
//! that is not UTF-8 became U+FFFD (also a character cut where the engine splits lines, every 16 KiB). Newlines are
//! never touched by that, so whole lines are counted, and bytes only within the unfinished one.
//!
//! PURE.

use bytes::{Buf, Bytes};

use crate::runner::Stream;

/// A place in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// Whole lines.
    lines: u64,
    /// Bytes of the line after them.
    bytes: u64,
}

impl Position {
    fn advance(&mut self, bytes: &[u8]) {
        let newlines = bytes.iter().filter(|b| **b == b'\n').count();
        let tail = bytes.iter().rev().take_while(|b| **b != b'\n').count();
        self.bytes = if newlines == 0 { self.bytes + tail as u64 } else { tail as u64 };
        self.lines += newlines as u64;
    }

    /// What of the next `bytes` lies behind this place; the place is used up on the way.
    fn skip(&mut self, mut bytes: Bytes) -> Bytes {
        while self.lines > 0 {
            let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Bytes::new() };
            bytes.advance(end + 1);
            self.lines -= 1;
        }
        if self.bytes > 0 {
            let line = bytes.iter().position(|b| *b == b'\n');
            let wanted = usize::try_from(self.bytes).unwrap_or(usize::MAX);
            let cut = wanted.min(line.unwrap_or(bytes.len()));
            bytes.advance(cut);
            // A line that is shorter in the other source ends the skipping: its newline is still owed.
            self.bytes = if line.is_some() { 0 } else { self.bytes - cut as u64 };
        }
        bytes
    }
}

/// Places in both streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Positions {
    stdout: Position,
    stderr: Position,
}

impl Positions {
    fn of(&mut self, stream: Stream) -> &mut Position {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Notes that these bytes were delivered.
    pub(super) fn advance(&mut self, stream: Stream, bytes: &[u8]) {
        self.of(stream).advance(bytes);
    }

    /// What of the next bytes of a stream has not been delivered yet.
    pub(super) fn skip(&mut self, stream: Stream, bytes: Bytes) -> Bytes {
        self.of(stream).skip(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

    fn rest(delivered: &[u8], other: &[u8]) -> Vec<u8> {
        let mut position = Position::default();
        position.advance(delivered);
        position.skip(Bytes::copy_from_slice(other)).to_vec()
    }

    #[test]
    fn goes_on_where_it_was() {
        let check = |delivered: &str, other: &str, expected: &str| {
            assert_eq!(rest(delivered.as_bytes(), other.as_bytes()), expected.as_bytes(), "{delivered:?} {other:?}");
        };
        check("", "a\nb", "a\nb");
        check("a\n", "a\nb", "b");
        check("a\nb", "a\nb\nc", "\nc");
        check("a\nlonger", "a\nshort\nc", "\nc");
        check("a\nb", "a\nb", "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_cut_and_any_frames_give_the_whole(
            lines in prop::collection::vec("[a-z\u{e9}]{0,9}\n?", 0..12), cut in any::<usize>(), frame in 1usize..7,
        ) {
            let whole = lines.concat().into_bytes();
            let cut = cut % (whole.len() + 1);
            let mut position = Position::default();
            for piece in whole[..cut].chunks(3) {
                position.advance(piece);
            }
            let mut got = whole[..cut].to_vec();
            for piece in whole.chunks(frame) {
                got.extend_from_slice(&position.skip(Bytes::copy_from_slice(piece)));
            }
            prop_assert_eq!(got, whole);
        }
    }
}
