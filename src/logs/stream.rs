//! One stream's way from bytes to records.
//!
//! PURE. What comes out is a function of all the bytes so far, blind to chunks; this is what makes a log continue exactly
//! after a crash (see [`Place`]).

use super::lines::{Ending, Lines};
use super::marks::{Marks, Piece, StepEvent, StepMark};
use super::mask::{Mask, MaskStream};
use super::utf8::Utf8;

/// How far a stream has got in the file: whole lines, and pieces after the last of them.
///
/// Lines count rather than bytes or records: the number of lines before a place is the same even where an engine has
/// changed a few bytes of an overlong line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub lines: u64,
    pub pieces: u64,
}

impl Place {
    /// Counts a record that is in the file.
    pub(super) fn count(&mut self, continued: bool) {
        if continued {
            self.pieces += 1;
        } else {
            *self = Self { lines: self.lines + 1, pieces: 0 };
        }
    }

    /// Whether a record of the replayed source is in the file already; it is taken off.
    fn drop_one(&mut self, ending: Ending) -> bool {
        match ending {
            Ending::Newline if self.lines > 0 => self.lines -= 1,
            Ending::Open if self.lines > 0 => {}
            Ending::Open if self.pieces > 0 => self.pieces -= 1,
            // A log that was finished before its source had ended: rather a piece twice than a line lost.
            Ending::Newline => {
                self.pieces = 0;
                return false;
            }
            Ending::Open => return false,
        }
        true
    }
}

/// A record to be written.
pub(super) struct Out<'a> {
    pub step: Option<u32>,
    pub continued: bool,
    pub text: &'a [u8],
}

/// One stream.
#[derive(Debug)]
pub(super) struct StreamState {
    utf8: Utf8,
    marks: Marks,
    rest: AfterMarks,
}

#[derive(Debug)]
struct AfterMarks {
    mask: MaskStream,
    lines: Lines,
    step: Option<u32>,
    /// What the file has of the replayed source.
    skip: Place,
}

impl StreamState {
    /// A stream whose first records, up to `skip`, are in the file.
    pub(super) fn new(mask: &Mask, nonce: Option<&str>, skip: Place) -> Self {
        let rest = AfterMarks { mask: mask.stream(), lines: Lines::default(), step: None, skip };
        Self { utf8: Utf8::default(), marks: Marks::new(nonce), rest }
    }

    /// Takes bytes; gives records to `sink` and marks to `found`.
    pub(super) fn push(&mut self, bytes: &[u8], found: &mut Vec<StepMark>, sink: &mut impl FnMut(Out<'_>)) {
        let Self { utf8, marks, rest } = self;
        utf8.push(bytes, &mut |text| marks.push(text, &mut |piece| rest.piece(piece, found, sink)));
    }

    /// The source has ended.
    pub(super) fn finish(&mut self, found: &mut Vec<StepMark>, sink: &mut impl FnMut(Out<'_>)) {
        let Self { utf8, marks, rest } = self;
        utf8.finish(&mut |text| marks.push(text, &mut |piece| rest.piece(piece, found, sink)));
        marks.finish(&mut |piece| rest.piece(piece, found, sink));
        rest.end_of_part(sink);
    }
}

impl AfterMarks {
    fn piece(&mut self, piece: Piece<'_>, found: &mut Vec<StepMark>, sink: &mut impl FnMut(Out<'_>)) {
        match piece {
            Piece::Text(text) => {
                let Self { mask, lines, step, skip } = self;
                mask.push(text, &mut |clean| lines.push(clean, &mut |text, end| give(*step, skip, text, end, sink)));
            }
            Piece::Mark(mark) => {
                self.end_of_part(sink);
                self.step = match mark.event {
                    StepEvent::Begin => Some(mark.step),
                    StepEvent::End { .. } => None,
                };
                found.push(mark);
            }
        }
    }

    /// A mark, or the end: what is unfinished gets a record of its own.
    fn end_of_part(&mut self, sink: &mut impl FnMut(Out<'_>)) {
        let Self { mask, lines, step, skip } = self;
        mask.finish(&mut |clean| lines.push(clean, &mut |text, end| give(*step, skip, text, end, sink)));
        lines.finish(&mut |text, end| give(*step, skip, text, end, sink));
    }
}

fn give(step: Option<u32>, skip: &mut Place, text: &[u8], ending: Ending, sink: &mut impl FnMut(Out<'_>)) {
    if !skip.drop_one(ending) {
        sink(Out { step, continued: ending == Ending::Open, text });
    }
}
