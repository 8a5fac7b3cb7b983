//! Whether a generator thread has time to spare: what it did with the counted time, as the kernel saw it.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::load::schedule::Timeline;

/// What a thread did with its time, as the kernel saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ThreadTime {
    /// On a processor.
    pub ran: Duration,
    /// Able to run, but without a processor.
    pub waited: Duration,
}

impl ThreadTime {
    /// Of the calling thread so far.
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        Self::parse(&text).unwrap_or_else(Self::of_usage)
    }

    /// Two numbers of nanoseconds: ran, waited.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_ascii_whitespace().map_while(|word| word.parse().ok()).map(Duration::from_nanos);
        Some(Self { ran: numbers.next()?, waited: numbers.next()? })
    }

    /// Kernels without scheduler statistics tell at least the first.
    fn of_usage() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Self::default() };
        let part = |time: nix::sys::time::TimeVal| {
            let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
            Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
        };
        Self { ran: part(usage.user_time()) + part(usage.system_time()), waited: Duration::ZERO }
    }

    fn since(self, earlier: Self) -> Self {
        Self { ran: self.ran.saturating_sub(earlier.ran), waited: self.waited.saturating_sub(earlier.waited) }
    }
}

/// A thread's time over the counted time, and how long that was.
#[derive(Default)]
pub(super) struct Usage {
    first: Option<(u64, ThreadTime)>,
    last: Option<(u64, ThreadTime)>,
}

impl Usage {
    /// Notes the beginning and the end of the counted time as they pass.
    pub(super) fn look(&mut self, now: u64, timeline: Timeline) {
        if self.first.is_none() && now >= timeline.counted {
            self.first = Some((now, ThreadTime::now()));
        }
        if self.last.is_none() && now >= timeline.end {
            self.last = Some((now, ThreadTime::now()));
        }
    }

    /// Shares of the time between both looks: ran, and ran or waited.
    pub(super) fn shares(&self, now: u64) -> Shares {
        let Some((from, first)) = self.first else { return Shares::default() };
        let (to, last) = self.last.unwrap_or_else(|| (now, ThreadTime::now()));
        let length = Duration::from_nanos(to.saturating_sub(from)).as_secs_f64();
        let used = last.since(first);
        if length <= 0.0 {
            return Shares::default();
        }
        Shares { cpu: used.ran.as_secs_f64() / length, busy: (used.ran + used.waited).as_secs_f64() / length }
    }
}

/// Shares of the counted time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Shares {
    /// Ran.
    pub cpu: f64,
    /// Ran or waited for a processor.
    pub busy: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scheduler_statistics_are_read() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            let parsed =
                ThreadTime::parse(text).map(|time| (time.ran.as_nanos() as u64, time.waited.as_nanos() as u64));
            assert_eq!(parsed, expected, "{text:?}");
        };
        check("1500 20 3\n", Some((1500, 20)));
        check("0 0 0\n", Some((0, 0)));
        check("", None);
        check("5", None);
        check("a b c", None);
    }
}
