//! How much may come, and how long it may take.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::MirrorError;
use super::Session;

/// Bytes of a ref in a list, at most and on average.
const REF: u64 = 160;
/// Time for a list of refs.
const LISTING: Duration = Duration::from_secs(600);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The list of refs.
    Refs,
    /// What is agreed upon, and the pack.
    Pack,
}

/// Counts what comes from a remote.
pub(super) struct Meter {
    session: Arc<Session>,
    part: Part,
    left: u64,
    began: Instant,
}

impl Meter {
    pub(super) fn new(session: &Arc<Session>, part: Part) -> Self {
        let limits = &session.limits;
        let left = match part {
            Part::Refs => (limits.heads as u64).saturating_mul(REF).saturating_add(1 << 16),
            // libgit2 counts too, and stops first; this is for what is no pack.
            Part::Pack => limits.transfer.saturating_add(1 << 20),
        };
        Self { session: Arc::clone(session), part, left, began: Instant::now() }
    }

    /// How long the next bytes may take.
    pub(super) fn patience(&self) -> Result<Duration, MirrorError> {
        let whole = self.whole();
        let left = whole.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            let detail = format!("it sends too slowly, and was not done after {}", crate::words::duration(whole));
            return Err(self.session.unreachable(detail));
        }
        Ok(left.min(self.session.limits.stall))
    }

    fn whole(&self) -> Duration {
        match self.part {
            Part::Refs => LISTING.min(self.session.limits.time),
            Part::Pack => self.session.limits.time,
        }
    }

    /// Counts so many bytes.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), MirrorError> {
        let (remote, limits) = (&self.session.remote.url, &self.session.limits);
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(|| {
            MirrorError::TooLarge(match self.part {
                Part::Refs => format!("{remote} has more than {} refs, or sends no end of them", limits.heads),
                Part::Pack => format!("{remote} sends more than {} at once", crate::words::size(limits.transfer)),
            })
        })?;
        Ok(())
    }
}
