//! Waiting for a moment more exactly than to the millisecond.
//!
//! The runtime's timer wakes on whole milliseconds, which would add up to one to every latency that counts from the moment
//! a request was due. The kernel's timer descriptor wakes within some tens of microseconds, at no cost while waiting.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A precise timer.
pub struct Pacer {
    timer: AsyncFd<Timer>,
}

struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Pacer {
    /// Makes a timer; must be called within a runtime.
    ///
    /// # Errors
    /// If the kernel has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        #[expect(deprecated, reason = "its successor is unsafe; the descriptor is owned here and never changes")]
        let timer = AsyncFd::with_interest(Timer(timer), Interest::READABLE)?;
        Ok(Self { timer })
    }

    /// Waits until a moment; returns at once if it has passed.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(5) {
                return Ok(());
            }
            let after = Expiration::OneShot(TimeSpec::from_duration(left));
            self.timer.get_ref().0.set(after, TimerSetTimeFlags::empty())?;
            let mut guard = self.timer.readable().await?;
            // Reading takes the expiry off. If it is the one of an earlier setting, the loop waits again.
            guard.clear_ready();
        }
    }
}
