//! Makes any bytes valid UTF-8, the same whatever the chunks.
//!
//! PURE. Each byte that is not part of a character becomes one U+FFFD: the rule by which a Docker engine writes its own
//! log file, so that a log taken from there after a crash is the same as the one taken live.

use std::str;

/// What an invalid byte becomes.
pub(super) const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Carries an unfinished character from chunk to chunk.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    carry: Vec<u8>,
}

impl Utf8 {
    /// Gives whole characters on.
    pub(super) fn push(&mut self, mut input: &[u8], sink: &mut impl FnMut(&[u8])) {
        while let (false, Some((first, rest))) = (self.carry.is_empty(), input.split_first()) {
            self.carry.push(*first);
            match str::from_utf8(&self.carry) {
                Ok(_) => sink(&self.carry),
                Err(e) if e.error_len().is_none() => {
                    input = rest;
                    continue;
                }
                // The new byte does not belong to the character that was begun, and is looked at again.
                Err(_) => {
                    self.carry.pop();
                    replace(self.carry.len(), sink);
                    self.carry.clear();
                    continue;
                }
            }
            input = rest;
            self.carry.clear();
        }
        while !input.is_empty() {
            let Err(error) = str::from_utf8(input) else { return sink(input) };
            let (valid, rest) = input.split_at(error.valid_up_to());
            if !valid.is_empty() {
                sink(valid);
            }
            let Some(bad) = error.error_len() else {
                self.carry.extend_from_slice(rest);
                return;
            };
            replace(bad, sink);
            input = &rest[bad..];
        }
    }

    /// The source has ended: what was begun is invalid.
    pub(super) fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        replace(self.carry.len(), sink);
        self.carry.clear();
    }
}

fn replace(count: usize, sink: &mut impl FnMut(&[u8])) {
    for _ in 0..count {
        sink(REPLACEMENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn run(chunks: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut utf8 = Utf8::default();
        for chunk in chunks {
            utf8.push(chunk, &mut |b| out.extend_from_slice(b));
        }
        utf8.finish(&mut |b| out.extend_from_slice(b));
        String::from_utf8(out).expect("valid")
    }

    #[test]
    fn one_replacement_per_invalid_byte() {
        let check = |input: &[u8], expected: &str| assert_eq!(run(&[input]), expected, "{input:?}");
        check(b"abc", "abc");
        check(b"a\xffb", "a\u{fffd}b");
        check(b"\xe2\x82A", "\u{fffd}\u{fffd}A");
        check(b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}");
        check(b"\xf0\x9f\x98", "\u{fffd}\u{fffd}\u{fffd}");
        check("é😀".as_bytes(), "é😀");
    }

    proptest! {
        #[test]
        fn the_chunks_do_not_matter(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("é".as_bytes().to_vec()),
                    Just("😀".as_bytes().to_vec()),
                    prop::collection::vec(any::<u8>(), 1..4),
                    prop::collection::vec(prop::sample::select(vec![0xe2u8, 0x82, 0xf0, 0x9f, 0xed, 0xa0]), 1..5),
                ],
                0..20,
            ),
            size in 1usize..6,
        ) {
            let bytes = parts.concat();
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            let whole = run(&[&bytes]);
            prop_assert_eq!(&run(&chunks), &whole);
            // Every invalid byte is one replacement: lengths agree.
            let expected: usize = bytes.utf8_chunks().map(|c| c.valid().len() + 3 * c.invalid().len()).sum();
            prop_assert_eq!(whole.len(), expected);
        }
    }
}
