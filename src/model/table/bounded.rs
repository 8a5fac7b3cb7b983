//! A text file, a piece at a time: one row may hold so much and no more. Without that, one quotation mark that is never closed
//! brings the rest of the file into memory as one value.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes of one row at most (a little more may be read before it is noticed).
pub(super) const LONGEST_ROW: u64 = 16 << 20;

/// Lines that one row may go over, by line ends within quotation marks.
pub(super) const MOST_ROW_LINES: u64 = 1000;

/// How much was read since a row began.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Rc<Cell<u64>>);

impl Meter {
    /// A row begins.
    pub(super) fn restart(&self) {
        self.0.set(0);
    }
}

/// Reads until a row is too long.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    meter: Meter,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.meter.0.get() > LONGEST_ROW {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let read = self.inner.read(buf)?;
        self.meter.0.set(self.meter.0.get() + read as u64);
        Ok(read)
    }
}
