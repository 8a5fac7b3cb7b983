//! When what is due: phases, the start of each user, the send time of each request.
//!
//! PURE. Every time is nanoseconds since load started. The phases follow each other:
//!
//! ```text
//! 0 ---- ramp-up ----> full load ---- warm-up ----> counting starts ---- duration ----> end
//! ```

use std::time::Duration;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The phases of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    /// Full load from here on.
    pub full: u64,
    /// Requests due from here on count.
    pub counted: u64,
    /// Nothing is due from here on.
    pub end: u64,
}

/// Where in a test a moment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Load grows.
    RampUp,
    /// Full load that does not count.
    WarmUp,
    /// What counts.
    Counting,
    /// Nothing new is sent; answers are awaited.
    Draining,
}

impl Phase {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Phase::RampUp => "ramp-up",
            Phase::WarmUp => "warm-up",
            Phase::Counting => "counting",
            Phase::Draining => "last answers",
        }
    }
}

impl Timeline {
    /// Out of the lengths of the phases.
    pub fn new(ramp_up: Duration, warmup: Duration, duration: Duration) -> Self {
        let full = nanos(ramp_up);
        let counted = full.saturating_add(nanos(warmup));
        Self { full, counted, end: counted.saturating_add(nanos(duration)) }
    }

    /// Whether a request due at this moment counts.
    pub fn counts(&self, due: u64) -> bool {
        (self.counted..self.end).contains(&due)
    }

    /// The phase at a moment.
    pub fn phase(&self, at: u64) -> Phase {
        match at {
            at if at < self.full => Phase::RampUp,
            at if at < self.counted => Phase::WarmUp,
            at if at < self.end => Phase::Counting,
            _ => Phase::Draining,
        }
    }

    /// When user `index` of `users` starts: the first at once, the others evenly over the ramp-up.
    pub fn user_start(&self, index: u32, users: u32) -> u64 {
        scale(self.full, u64::from(index), u64::from(users.max(1)))
    }
}

/// Nanoseconds of a duration, at most some 584 years.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `value * by / of` without overflow.
fn scale(value: u64, by: u64, of: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(of.max(1))).unwrap_or(u64::MAX)
}

/// The send times of the open model: number `n` is a function of `n` alone, so no error adds up and any thread can take
/// every k-th of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrivals {
    timeline: Timeline,
    per_second: f64,
    /// How many are due while load grows.
    ramp: u64,
    /// How many in all.
    total: u64,
}

impl Arrivals {
    /// Requests at `per_second` (more than 0), growing linearly from none over the ramp-up.
    pub fn new(timeline: Timeline, per_second: f64) -> Self {
        // The area under the growing rate: half of rate x time.
        let ramp = (per_second * timeline.full as f64 / SECOND as f64 / 2.0).floor() as u64;
        let steady_seconds = (timeline.end - timeline.full) as f64 / SECOND as f64;
        let steady = (per_second * steady_seconds - 1e-6).ceil().max(0.0) as u64;
        Self { timeline, per_second, ramp, total: ramp.saturating_add(steady) }
    }

    /// How many requests are due in all.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When request `n` is due; `None` beyond the end.
    pub fn due(&self, n: u64) -> Option<u64> {
        if n >= self.total {
            return None;
        }
        let at = if n < self.ramp {
            // N(t) = rate * t^2 / (2 * ramp) solved for t, in the middle of each request's share.
            let ramp_seconds = self.timeline.full as f64 / SECOND as f64;
            let seconds = (2.0 * ramp_seconds * (n as f64 + 0.5) / self.per_second).sqrt();
            ((seconds * SECOND as f64) as u64).min(self.timeline.full)
        } else {
            let since_full = (n - self.ramp) as f64 / self.per_second;
            self.timeline.full.saturating_add((since_full * SECOND as f64).round() as u64)
        };
        Some(at.min(self.timeline.end.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timeline(ramp: u64, warmup: u64, duration: u64) -> Timeline {
        Timeline::new(Duration::from_secs(ramp), Duration::from_secs(warmup), Duration::from_secs(duration))
    }

    #[test]
    fn phases_follow_each_other() {
        let timeline = timeline(10, 5, 30);
        let check = |seconds: u64, expected: Phase| assert_eq!(timeline.phase(seconds * SECOND), expected, "{seconds}");
        check(0, Phase::RampUp);
        check(10, Phase::WarmUp);
        check(15, Phase::Counting);
        check(44, Phase::Counting);
        check(45, Phase::Draining);
        assert!(!timeline.counts(15 * SECOND - 1) && timeline.counts(15 * SECOND) && !timeline.counts(45 * SECOND));
    }

    #[test]
    fn users_start_evenly_over_the_ramp() {
        let timeline = timeline(10, 0, 1);
        let starts: Vec<u64> = (0..5).map(|index| timeline.user_start(index, 5) / SECOND).collect();
        assert_eq!(starts, [0, 2, 4, 6, 8]);
        assert_eq!(super::tests::timeline(0, 0, 1).user_start(3, 5), 0);
    }

    #[test]
    fn the_rate_is_exact() {
        let check = |per_second: f64, ramp: u64, warmup: u64, duration: u64, ramped: u64, counted: u64| {
            let timeline = timeline(ramp, warmup, duration);
            let arrivals = Arrivals::new(timeline, per_second);
            let all: Vec<u64> = (0..).map_while(|n| arrivals.due(n)).collect();
            assert_eq!(all.len() as u64, arrivals.total());
            let before_full = all.iter().filter(|due| **due < timeline.full).count() as u64;
            assert_eq!(before_full, ramped, "in the ramp of {per_second}/s over {ramp} s");
            let counting = all.iter().filter(|due| timeline.counts(**due)).count() as u64;
            assert_eq!(counting, counted, "counted at {per_second}/s for {duration} s");
        };
        check(200.0, 0, 0, 30, 0, 6000);
        check(200.0, 0, 5, 30, 0, 6000);
        check(200.0, 10, 5, 30, 1000, 6000);
        check(0.5, 0, 0, 10, 0, 5);
        check(3.0, 0, 1, 7, 0, 21);
        check(333.0, 3, 0, 3, 499, 999);
        check(1e5, 0, 0, 1, 0, 100_000);
    }

    #[test]
    fn a_ramp_is_the_integral_of_its_rate() {
        let timeline = timeline(10, 0, 1);
        let arrivals = Arrivals::new(timeline, 100.0);
        let by = |seconds: u64| (0..).map_while(|n| arrivals.due(n)).filter(|due| *due < seconds * SECOND).count();
        for (seconds, expected) in [(1, 5), (2, 20), (5, 125), (10, 500)] {
            assert!(by(seconds).abs_diff(expected) <= 1, "{seconds}: {}", by(seconds));
        }
    }

    proptest! {
        #[test]
        fn send_times_never_go_back(per_second in 0.1f64..5000.0, ramp in 0u64..4, warmup in 0u64..2, duration in 1u64..4) {
            let timeline = timeline(ramp, warmup, duration);
            let arrivals = Arrivals::new(timeline, per_second);
            let mut last = 0;
            for due in (0..).map_while(|n| arrivals.due(n)) {
                prop_assert!(due >= last && due < timeline.end);
                last = due;
            }
            let expected = per_second * duration as f64;
            let counted = (0..).map_while(|n| arrivals.due(n)).filter(|due| timeline.counts(*due)).count() as f64;
            prop_assert!((counted - expected).abs() <= 1.0, "{counted} of {expected}");
        }
    }
}
