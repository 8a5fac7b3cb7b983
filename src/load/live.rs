//! A load test under way, as pages show it: its last seconds, in memory alone. What counts is in the report at its end.

use std::collections::VecDeque;

use super::collect::Tick;
use super::report::Step;

/// Seconds that are kept: a quarter of an hour.
const SECONDS: usize = 900;

/// What is known so far.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The last second; none before load began.
    pub tick: Option<Tick>,
    /// The last seconds, the oldest first.
    pub series: VecDeque<Step>,
}

impl Live {
    /// Takes in a second.
    pub fn push(&mut self, tick: &Tick) {
        if self.series.len() == SECONDS {
            self.series.pop_front();
        }
        self.series.push_back(tick.second.clone());
        self.tick = Some(tick.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::collect::Totals;
    use super::super::html_charts::under_way;
    use super::super::schedule::Phase;
    use super::*;

    fn second(at: f64) -> Tick {
        Tick {
            elapsed: Duration::from_secs(at as u64 + 1),
            length: Duration::from_secs(3000),
            phase: Phase::Counting,
            second: Step { at, seconds: 1.0, counted: true, good: 7, users: 3, ..Step::default() },
            total: Totals::default(),
        }
    }

    #[test]
    fn the_last_quarter_of_an_hour_is_kept_and_drawn() {
        let mut live = Live::default();
        assert!(under_way(&live).contains("tried first"));
        for at in 0..2000 {
            live.push(&second(f64::from(at)));
        }
        assert_eq!((live.series.len(), live.series[0].at), (900, 1100.0));
        let drawn = under_way(&live);
        assert!(drawn.contains("2000 of 3000 s") && drawn.contains("1200 s") && !drawn.contains("warm-up"), "{drawn}");
        assert!(drawn.len() < 100_000, "{}", drawn.len());
    }
}
