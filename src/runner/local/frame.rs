//! The output file's format: frames, one after the other, each a header of 16 bytes and up to [`MAX_PAYLOAD`] bytes.
//!
//! ```text
//! | stream 1 | "of1" 3 | length u32 LE | microseconds i64 LE | bytes ... |
//! ```
//!
//! The file only grows. A frame that is not whole is the last thing that a killed shim did, and counts as never written.
//!
//! PURE.

use std::ops::Range;

use crate::ids::Micros;
use crate::runner::Stream;

/// Bytes of a header.
pub const HEADER: usize = 16;
/// Most bytes that a frame carries.
pub const MAX_PAYLOAD: usize = 128 * 1024;

const MAGIC: &[u8; 3] = b"of1";

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which stream.
    pub stream: Stream,
    /// When it was read from the process.
    pub at: Micros,
    /// Bytes that follow; 1 to [`MAX_PAYLOAD`].
    pub length: usize,
}

impl Header {
    /// The header as it stands in the file.
    pub fn encode(self) -> [u8; HEADER] {
        debug_assert!((1..=MAX_PAYLOAD).contains(&self.length));
        let mut bytes = [0; HEADER];
        bytes[0] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        };
        bytes[1..4].copy_from_slice(MAGIC);
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..].copy_from_slice(&self.at.0.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let stream = match bytes[0] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let (length, at) = bytes[4..].split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let at = Micros(i64::from_le_bytes(*at.first_chunk::<8>()?));
        let good = &bytes[1..4] == MAGIC && (1..=MAX_PAYLOAD).contains(&length);
        good.then_some(Self { stream, at, length })
    }
}

/// What stands at the front of some bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// A whole frame, with where its payload lies in the bytes.
    Frame(Header, Range<usize>),
    /// The beginning of one.
    Incomplete,
    /// Nothing that this format knows: the machine went down while the file was written.
    Damaged,
}

/// Reads the frame at the front.
pub fn front(bytes: &[u8]) -> Front {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Front::Incomplete };
    let Some(header) = Header::decode(header) else { return Front::Damaged };
    let payload = HEADER..HEADER + header.length;
    if payload.end > bytes.len() { Front::Incomplete } else { Front::Frame(header, payload) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn frames_round_trip_and_every_cut_is_incomplete(
            stderr in any::<bool>(), at in any::<i64>(), payload in proptest::collection::vec(any::<u8>(), 1..400), cut in any::<usize>(),
        ) {
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let header = Header { stream, at: Micros(at), length: payload.len() };
            let mut bytes = header.encode().to_vec();
            bytes.extend(&payload);
            prop_assert_eq!(front(&bytes), Front::Frame(header, HEADER..bytes.len()));
            prop_assert_eq!(front(&bytes[..cut % bytes.len()]), Front::Incomplete);
        }

        #[test]
        fn anything_can_be_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Front::Frame(_, payload) = front(&bytes) {
                prop_assert!(payload.end <= bytes.len());
            }
        }
    }

    #[test]
    fn zeros_and_huge_lengths_are_damage() {
        assert_eq!(front(&[0; 64]), Front::Damaged);
        let mut huge = Header { stream: Stream::Stdout, at: Micros(0), length: 1 }.encode();
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(front(&huge), Front::Damaged);
    }
}
