//! How fast a receiver is written to.
//!
//! Source: GitHub, "Best practices for using the REST API": requests one after the other, and about one a second when many
//! change something; "Rate limits": at most 80 requests a minute that make content.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);
/// Requests in a window, so that others with the same token find room, too.
const MOST: usize = 60;

/// When requests were sent.
#[derive(Debug, Default)]
pub struct Pace(VecDeque<Instant>);

impl Pace {
    /// How long to wait before the next request; nothing if it may go, which is then counted.
    pub fn next(&mut self, now: Instant) -> Option<Duration> {
        while self.0.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            self.0.pop_front();
        }
        match self.0.front() {
            Some(first) if self.0.len() >= MOST => Some(WINDOW.saturating_sub(now.duration_since(*first))),
            _ => {
                self.0.push_back(now);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_for_each_that_is_a_minute_old() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for _ in 0..MOST {
            assert_eq!(pace.next(start), None);
        }
        assert_eq!(pace.next(start + Duration::from_secs(20)), Some(Duration::from_secs(40)));
        assert_eq!(pace.next(start + WINDOW), None);
        assert!(pace.0.len() <= MOST);
    }
}
