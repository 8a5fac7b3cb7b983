//! When a schedule is due.
//!
//! A *slot* is a moment at which an expression is fulfilled. Slots are found in the calendar without a time zone, and then
//! brought to the zone's clock by a rule of our own, for the two nights a year when that clock jumps:
//!
//! ```text
//! forward, 02:00 -> 03:00   slots in the missing hour are one slot, at 03:00
//! back,    03:00 -> 02:00   02:30 is the first of both; an expression for every hour of the day goes on through both
//! ```
//!
//! So `30 2 * * *` runs once in each night, and `*/5 * * * *` every five minutes of time that passes. Each slot is computed
//! from the one before and never from the present: nothing drifts. PURE: the present is handed in.

use chrono::{DateTime, Utc};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::ids::Micros;
use crate::pipeline::cron::{Cron, Numbers};
use crate::pipeline::types::Schedule;

/// A slot that is decided no later than this after its time was not missed. In microseconds: five minutes, which a busy
/// machine may need, and a machine that was off does not.
pub const ON_TIME: i64 = 5 * 60 * SECOND;

/// Missed slots are counted up to here; a clock that jumps ahead by years costs no more than that.
pub const MISSED_MAX: u32 = 1000;

const SECOND: i64 = 1_000_000;

/// Why a schedule cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleProblem {
    /// The expression is wrong. A checked pipeline has none of these.
    #[error("the schedule `{cron}` is no cron expression: {problem}")]
    Cron {
        /// The expression.
        cron: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such time zone in the data base that was handed in.
    #[error("the time zone `{0}` is not known here")]
    Zone(String),
}

/// What becomes of slots that passed while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissedPolicy {
    /// One build for all of them together.
    #[default]
    RunOnce,
    /// None; the next slot is the next build.
    Skip,
}

/// What to do about a schedule now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing until `next`; nothing for ever if there is none.
    Nothing {
        /// The next slot.
        next: Option<Micros>,
    },
    /// Start one build, and keep `slot` as the last one.
    Run {
        /// The newest slot that has passed: the build is this one's.
        slot: Micros,
        /// So many older ones passed unseen and start nothing; at most [`MISSED_MAX`] are counted.
        missed: u32,
    },
    /// Start nothing, and keep `slot` as the last one.
    Skipped {
        /// The newest slot that has passed.
        slot: Micros,
        /// How many passed, this one included; at most [`MISSED_MAX`] are counted.
        missed: u32,
    },
    /// The clock stands before the last slot: it was put back. Nothing runs until it has passed that slot again, since each
    /// slot runs once.
    ClockBehind {
        /// The next slot.
        next: Option<Micros>,
    },
}

/// A schedule, ready for questions. Made once for a pipeline and asked often.
#[derive(Debug, Clone)]
pub struct Timetable {
    /// A slot of any of these is a slot; two where one of both days is enough.
    calendars: Vec<cron::Schedule>,
    every_hour: bool,
    zone: TimeZone,
}

impl Timetable {
    /// Reads a schedule. `zones` is `jiff::tz::db()`, the system's list, or the one in this program.
    ///
    /// # Errors
    /// [`ScheduleProblem`], to be shown at the project.
    pub fn new(schedule: &Schedule, zones: &TimeZoneDatabase) -> Result<Self, ScheduleProblem> {
        let problem = |problem: String| ScheduleProblem::Cron { cron: schedule.cron.clone(), problem };
        let cron = Cron::parse(&schedule.cron).map_err(problem)?;
        let zone = zones.get(&schedule.timezone).map_err(|_| ScheduleProblem::Zone(schedule.timezone.clone()))?;
        let calendars: Result<Vec<_>, _> = expressions(&cron).iter().map(|text| text.parse()).collect();
        let calendars = calendars.map_err(|error: cron::error::Error| problem(error.to_string()))?;
        Ok(Self { calendars, every_hour: cron.is_every_hour(), zone })
    }

    /// The first slot after a moment. `None` if none comes before the year 2101.
    pub fn next_after(&self, after: Micros) -> Option<Micros> {
        self.next_second(after.0.div_euclid(SECOND)).map(|second| Micros(second * SECOND))
    }

    /// What to do now. `last` is the last slot that was decided about or, before there is one, the moment from which on the
    /// schedule counts.
    pub fn due(&self, last: Micros, now: Micros, policy: MissedPolicy) -> Due {
        let next = self.next_after(last);
        if now < last {
            return Due::ClockBehind { next };
        }
        let Some(first) = next.filter(|first| *first <= now) else {
            return Due::Nothing { next };
        };
        let slot = self.newest(first, now);
        let mut missed = 0;
        let mut passed = first;
        while passed < slot && missed < MISSED_MAX {
            missed += 1;
            passed = self.next_after(passed).unwrap_or(slot);
        }
        match policy {
            MissedPolicy::Skip if now.0.saturating_sub(slot.0) > ON_TIME => {
                Due::Skipped { slot, missed: (missed + 1).min(MISSED_MAX) }
            }
            MissedPolicy::Skip | MissedPolicy::RunOnce => Due::Run { slot, missed },
        }
    }

    /// The newest slot up to `now`, from a slot on. Halves the time between, so that a year of minutes takes no longer.
    fn newest(&self, slot: Micros, now: Micros) -> Micros {
        let (mut newest, mut until) = (slot, now);
        while newest < until {
            let middle = Micros(newest.0 + until.0.saturating_sub(newest.0) / 2);
            match self.next_after(middle).filter(|slot| *slot <= now) {
                Some(later) => newest = later,
                // None in (middle, now]; perhaps one in (newest, middle].
                None => until = middle,
            }
        }
        newest
    }

    /// The first slot after a second of the Unix epoch.
    fn next_second(&self, after: i64) -> Option<i64> {
        // The calendar begins in 1970, in the east of Greenwich some hours earlier.
        let mut at = after.max(-86_400);
        let mut from = at.checked_add(self.offset(at))?;
        // From one change of the offset to the next. The calendar's end ends it: at most some hundred rounds.
        loop {
            // What ran in the first of two equal hours does not run in the second.
            let floor = if self.every_hour { from } else { from.max(self.reached(at) - 1) };
            let slot = self.calendars.iter().filter_map(|calendar| next_in(calendar, floor)).min()?;
            let second = slot - self.offset(at);
            let Some(change) = self.change_after(at).filter(|change| *change <= second) else {
                return Some(second);
            };
            let goes_on = change + self.offset(change);
            if slot <= goes_on {
                return Some(change);
            }
            at = change;
            from = goes_on - 1;
        }
    }

    /// Seconds that the zone's clock is ahead of UTC.
    fn offset(&self, second: i64) -> i64 {
        timestamp(second).map_or(0, |stamp| i64::from(self.zone.to_offset(stamp).seconds()))
    }

    fn change_after(&self, second: i64) -> Option<i64> {
        self.zone.following(timestamp(second)?).next().map(|change| change.timestamp().as_second())
    }

    /// What the zone's clock showed, in seconds, when its offset last changed.
    fn reached(&self, second: i64) -> i64 {
        let change = timestamp(second.saturating_add(1)).and_then(|stamp| self.zone.preceding(stamp).next());
        change.map_or(i64::MIN / 2, |change| {
            let change = change.timestamp().as_second();
            change + self.offset(change - 1)
        })
    }
}

fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

/// The first moment of the zoneless calendar after another, both as seconds since 1970.
fn next_in(calendar: &cron::Schedule, after: i64) -> Option<i64> {
    let after: DateTime<Utc> = DateTime::from_timestamp(after.max(-1), 0)?;
    calendar.after(&after).next().map(|slot| slot.timestamp())
}

/// The expression in the words of the crate `cron`: a field of seconds in front, Sunday is 1, and both days must match. Where
/// one of both is enough, these are two expressions.
fn expressions(cron: &Cron) -> Vec<String> {
    let list = |numbers: Numbers, add: u32| {
        let numbers: Vec<String> = numbers.iter().map(|number| (number + add).to_string()).collect();
        numbers.join(",")
    };
    let [minutes, hours, months] = [cron.minutes, cron.hours, cron.months].map(|numbers| list(numbers, 0));
    let (days, weekdays) = (list(cron.days, 0), list(cron.weekdays, 1));
    let with = |days: &str, weekdays: &str| format!("0 {minutes} {hours} {days} {months} {weekdays}");
    if cron.either_day { vec![with(&days, "*"), with("*", &weekdays)] } else { vec![with(&days, &weekdays)] }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::civil;
    use proptest::prelude::*;

    use super::*;

    const BERLIN: &str = "Europe/Berlin";
    const NEW_YORK: &str = "America/New_York";
    /// Half an hour of daylight saving.
    const LORD_HOWE: &str = "Australia/Lord_Howe";
    const SEOUL: &str = "Asia/Seoul";

    fn timetable(cron: &str, timezone: &str) -> Timetable {
        let schedule = Schedule { cron: cron.into(), timezone: timezone.into(), branch: None };
        Timetable::new(&schedule, &TimeZoneDatabase::bundled()).unwrap()
    }

    fn micros(stamp: &str) -> Micros {
        Micros(stamp.parse::<Timestamp>().unwrap().as_microsecond())
    }

    /// A moment as the zone's clock shows it, with its offset.
    fn shown(at: Micros, zone: &TimeZone) -> String {
        let stamp = Timestamp::from_microsecond(at.0).unwrap();
        stamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %:z").to_string()
    }

    /// The slots after a moment, on the zone's clock.
    fn check(cron: &str, timezone: &str, after: &str, expected: &[&str]) {
        let timetable = timetable(cron, timezone);
        let mut at = micros(after);
        let slots = expected.iter().map(|_| {
            at = timetable.next_after(at).unwrap();
            shown(at, &timetable.zone)
        });
        assert_eq!(slots.collect::<Vec<_>>(), expected, "{cron} in {timezone}");
    }

    #[test]
    fn plain_days() {
        check("0 3 * * *", "UTC", "2026-01-01T03:00:00Z", &["2026-01-02 03:00 +00:00", "2026-01-03 03:00 +00:00"]);
        check("0 3 * * *", "UTC", "2026-01-01T02:59:59.999999Z", &["2026-01-01 03:00 +00:00"]);
        check("0 3 * * *", SEOUL, "2026-01-01T00:00:00Z", &["2026-01-02 03:00 +09:00", "2026-01-03 03:00 +09:00"]);
        check("*/20 * * * *", SEOUL, "2026-01-01T00:10:00Z", &["2026-01-01 09:20 +09:00", "2026-01-01 09:40 +09:00"]);
        check("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", &["2028-02-29 00:00 +00:00", "2032-02-29 00:00 +00:00"]);
        // Monday the 5th, Friday the 9th, Tuesday the 13th.
        check(
            "0 0 13 * 1,5",
            "UTC",
            "2026-01-04T00:00:00Z",
            &[
                "2026-01-05 00:00 +00:00",
                "2026-01-09 00:00 +00:00",
                "2026-01-12 00:00 +00:00",
                "2026-01-13 00:00 +00:00",
            ],
        );
        check("0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", &["2026-01-04 00:00 +00:00", "2026-01-11 00:00 +00:00"]);
    }

    #[test]
    fn the_missing_hour() {
        check(
            "30 2 * * *",
            BERLIN,
            "2026-03-28T00:00:00Z",
            &["2026-03-28 02:30 +01:00", "2026-03-29 03:00 +02:00", "2026-03-30 02:30 +02:00"],
        );
        // At 03:00 it would run anyway: once.
        check(
            "*/30 2-3 * * *",
            BERLIN,
            "2026-03-29T00:00:00Z",
            &["2026-03-29 03:00 +02:00", "2026-03-29 03:30 +02:00"],
        );
        check(
            "*/15 * * * *",
            BERLIN,
            "2026-03-29T00:30:00Z",
            &["2026-03-29 01:45 +01:00", "2026-03-29 03:00 +02:00", "2026-03-29 03:15 +02:00"],
        );
        check("30 2 * * *", NEW_YORK, "2026-03-08T05:00:00Z", &["2026-03-08 03:00 -04:00", "2026-03-09 02:30 -04:00"]);
        check("10 2 * * *", LORD_HOWE, "2026-10-03T12:00:00Z", &["2026-10-04 02:30 +11:00", "2026-10-05 02:10 +11:00"]);
        // Asked in the very second before the change, and in it.
        check("30 2 * * *", BERLIN, "2026-03-29T00:59:59Z", &["2026-03-29 03:00 +02:00"]);
        check("30 2 * * *", BERLIN, "2026-03-29T01:00:00Z", &["2026-03-30 02:30 +02:00"]);
    }

    #[test]
    fn the_hour_that_comes_twice() {
        check("30 2 * * *", BERLIN, "2026-10-24T00:30:00Z", &["2026-10-25 02:30 +02:00", "2026-10-26 02:30 +01:00"]);
        check("0 2,3 * * *", BERLIN, "2026-10-24T22:00:00Z", &["2026-10-25 02:00 +02:00", "2026-10-25 03:00 +01:00"]);
        check(
            "*/30 * * * *",
            BERLIN,
            "2026-10-25T00:00:00Z",
            &[
                "2026-10-25 02:30 +02:00",
                "2026-10-25 02:00 +01:00",
                "2026-10-25 02:30 +01:00",
                "2026-10-25 03:00 +01:00",
            ],
        );
        check("30 1 * * *", NEW_YORK, "2026-11-01T00:00:00Z", &["2026-11-01 01:30 -04:00", "2026-11-02 01:30 -05:00"]);
        check("45 1 * * *", LORD_HOWE, "2026-04-04T00:00:00Z", &["2026-04-05 01:45 +11:00", "2026-04-06 01:45 +10:30"]);
        check(
            "*/15 * * * *",
            LORD_HOWE,
            "2026-04-04T14:30:00Z",
            &[
                "2026-04-05 01:45 +11:00",
                "2026-04-05 01:30 +10:30",
                "2026-04-05 01:45 +10:30",
                "2026-04-05 02:00 +10:30",
            ],
        );
    }

    #[test]
    fn what_never_comes_and_what_lies_beyond_the_calendar() {
        let never = timetable("0 0 31 2 *", BERLIN);
        assert_eq!(never.next_after(micros("2026-01-01T00:00:00Z")), None);
        assert_eq!(
            never.due(Micros(0), micros("2026-01-01T00:00:00Z"), MissedPolicy::RunOnce),
            Due::Nothing { next: None }
        );
        let often = timetable("* * * * *", BERLIN);
        assert_eq!(often.next_after(Micros(i64::MAX)), None);
        assert!(often.next_after(Micros(i64::MIN)).is_some());
        let all = often.due(Micros(i64::MIN), Micros(i64::MAX), MissedPolicy::RunOnce);
        assert_eq!(all, Due::Run { slot: micros("2100-12-31T22:59:00Z"), missed: MISSED_MAX });
    }

    #[test]
    fn wrong_schedules() {
        let check = |cron: &str, timezone: &str, expected: &str| {
            let schedule = Schedule { cron: cron.into(), timezone: timezone.into(), branch: None };
            let problem = Timetable::new(&schedule, &TimeZoneDatabase::bundled()).unwrap_err();
            assert_eq!(problem.to_string(), expected);
        };
        check("0 3 * *", "UTC", "the schedule `0 3 * *` is no cron expression: a schedule has five fields, found 4");
        check("0 3 * * *", "Mars/Olympus", "the time zone `Mars/Olympus` is not known here");
    }

    #[test]
    fn due_and_missed() {
        let nightly = timetable("0 3 * * *", "UTC");
        let check = |last: &str, now: &str, policy: MissedPolicy, expected: Due| {
            assert_eq!(nightly.due(micros(last), micros(now), policy), expected, "{last} {now} {policy:?}");
        };
        let last = "2026-01-01T03:00:00Z";
        let next = Some(micros("2026-01-02T03:00:00Z"));
        let both = [MissedPolicy::RunOnce, MissedPolicy::Skip];
        for policy in both {
            check(last, last, policy, Due::Nothing { next });
            check(last, "2026-01-02T02:59:59.999999Z", policy, Due::Nothing { next });
            let slot = micros("2026-01-02T03:00:00Z");
            check(last, "2026-01-02T03:00:00Z", policy, Due::Run { slot, missed: 0 });
            check(last, "2026-01-02T03:05:00Z", policy, Due::Run { slot, missed: 0 });
            // Off for days, back in time for the newest.
            let slot = micros("2026-01-05T03:00:00Z");
            check(last, "2026-01-05T03:01:00Z", policy, Due::Run { slot, missed: 3 });
            // The clock was put back by a minute, and by a year.
            check(last, "2026-01-01T02:59:00Z", policy, Due::ClockBehind { next });
            check(last, "2025-01-01T03:00:00Z", policy, Due::ClockBehind { next });
        }
        let slot = micros("2026-01-05T03:00:00Z");
        check(last, "2026-01-05T12:00:00Z", MissedPolicy::RunOnce, Due::Run { slot, missed: 3 });
        check(last, "2026-01-05T12:00:00Z", MissedPolicy::Skip, Due::Skipped { slot, missed: 4 });
        check(
            last,
            "2026-01-02T03:05:00.000001Z",
            MissedPolicy::Skip,
            Due::Skipped { slot: micros("2026-01-02T03:00:00Z"), missed: 1 },
        );
    }

    /// The clock goes back and forth; each slot is run once, in its order.
    #[test]
    fn a_clock_that_jumps_runs_no_slot_twice() {
        let quarterly = timetable("*/15 * * * *", BERLIN);
        let mut last = micros("2026-10-24T23:00:00Z");
        let mut ran = Vec::new();
        for minute in [0, 14, 15, 16, 10, 0, 15, 31, 29, 31, 60, 45, 61, 75, -600, 76] {
            let now = Micros(micros("2026-10-24T23:00:00Z").0 + minute * 60 * SECOND);
            match quarterly.due(last, now, MissedPolicy::RunOnce) {
                Due::Run { slot, .. } | Due::Skipped { slot, .. } => {
                    assert!(slot > last && slot <= now);
                    last = slot;
                    ran.push(shown(slot, &quarterly.zone));
                }
                Due::Nothing { .. } | Due::ClockBehind { .. } => {}
            }
        }
        assert_eq!(
            ran,
            [
                "2026-10-25 01:15 +02:00",
                "2026-10-25 01:30 +02:00",
                "2026-10-25 02:00 +02:00",
                "2026-10-25 02:15 +02:00"
            ]
        );
    }

    /// One field, read as plainly as can be: the numbers of a range from which the text leaves none out.
    fn model_field(text: &str, min: u32, max: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        for part in text.split(',') {
            let (span, step) = part.split_once('/').unwrap_or((part, "1"));
            let (from, to) = match span.split_once('-') {
                Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
                None if span == "*" => (min, max),
                None => (span.parse().unwrap(), if part.contains('/') { max } else { span.parse().unwrap() }),
            };
            found.extend((from..=to).filter(|number| (number - from) % step.parse::<u32>().unwrap() == 0));
        }
        found
    }

    /// Vixie cron's rule for one minute of the calendar.
    struct Model {
        fields: [BTreeSet<u32>; 5],
        either_day: bool,
    }

    impl Model {
        fn new(cron: &str) -> Self {
            let text: Vec<&str> = cron.split(' ').collect();
            let bounds = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
            let fields = std::array::from_fn(|at| model_field(text[at], bounds[at].0, bounds[at].1));
            Self { fields, either_day: !text[2].starts_with('*') && !text[4].starts_with('*') }
        }

        fn fulfilled(&self, at: civil::DateTime) -> bool {
            let [minutes, hours, days, months, weekdays] = &self.fields;
            let number = |number: i8| u32::try_from(number).unwrap();
            let weekday = number(at.weekday().to_sunday_zero_offset());
            let weekday = weekdays.contains(&weekday) || (weekday == 0 && weekdays.contains(&7));
            let day = days.contains(&number(at.day()));
            minutes.contains(&number(at.minute()))
                && hours.contains(&number(at.hour()))
                && months.contains(&number(at.month()))
                && if self.either_day { day || weekday } else { day && weekday }
        }

        /// All slots after one minute and up to another, by looking at each: a minute that the clock shows for the first time
        /// stands for all that it left out, one that it shows again counts where every hour is meant.
        fn slots(&self, zone: &TimeZone, after: i64, until: i64) -> Vec<i64> {
            let minute = jiff::Span::new().minutes(1);
            let mut reached = zone.to_datetime(timestamp(after - 86_400).unwrap());
            let mut slots = Vec::new();
            for second in (after - 86_340..=until).step_by(60) {
                let shows = zone.to_datetime(timestamp(second).unwrap());
                let mut runs = shows <= reached && self.fields[1].len() == 24 && self.fulfilled(shows);
                while reached < shows {
                    reached = reached.checked_add(minute).unwrap();
                    runs |= self.fulfilled(reached);
                }
                if runs && second > after {
                    slots.push(second);
                }
            }
            slots
        }
    }

    fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
        let part = (min..=max, min..=max, 1..=max, 0..5).prop_map(move |(a, b, step, form)| match form {
            0 => a.to_string(),
            1 => format!("{}-{}", a.min(b), a.max(b)),
            2 => format!("{}-{}/{step}", a.min(b), a.max(b)),
            3 => format!("{a}/{step}"),
            _ => format!("*/{step}"),
        });
        prop_oneof![2 => Just("*".to_owned()), 3 => proptest::collection::vec(part, 1..3).prop_map(|parts| parts.join(","))]
    }

    prop_compose! {
        fn expression()(
            minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), weekday in field(0, 7),
        ) -> String {
            format!("{minute} {hour} {day} {month} {weekday}")
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        /// Against the model, around a night in which the clock is changed or at any other time.
        #[test]
        fn slots_are_those_of_the_model(
            cron in expression(),
            zone in prop::sample::select(vec![BERLIN, NEW_YORK, LORD_HOWE, SEOUL, "Africa/Casablanca", "UTC"]),
            start in 1_577_836_800_i64..1_893_456_000,
            at_change in any::<bool>(),
        ) {
            let timetable = timetable(&cron, zone);
            let start = timetable.change_after(start).filter(|_| at_change).map_or(start, |change| change - 100_000);
            let after = start - start.rem_euclid(60);
            let until = after + 4 * 86_400;
            let mut found = Vec::new();
            let mut at = after;
            while let Some(slot) = timetable.next_second(at).filter(|slot| *slot <= until) {
                prop_assert!(slot > at);
                found.push(slot);
                at = slot;
            }
            prop_assert_eq!(&found, &Model::new(&cron).slots(&timetable.zone, after, until), "{} in {}", cron, zone);
            // Any jump of the clock ends at the newest slot.
            let due = timetable.due(Micros(after * SECOND), Micros(until * SECOND), MissedPolicy::RunOnce);
            let missed = u32::try_from(found.len().saturating_sub(1)).unwrap().min(MISSED_MAX);
            match found.last() {
                Some(slot) => prop_assert_eq!(due, Due::Run { slot: Micros(slot * SECOND), missed }),
                None => prop_assert_eq!(due, Due::Nothing { next: timetable.next_after(Micros(after * SECOND)) }),
            }
        }

        /// From any moment on: later, on a full second, and the same one if asked again shortly before.
        #[test]
        fn slots_rise(cron in expression(), after in any::<i64>()) {
            let timetable = timetable(&cron, BERLIN);
            if let Some(slot) = timetable.next_after(Micros(after)) {
                prop_assert!(slot.0 > after && slot.0 % SECOND == 0);
                prop_assert_eq!(timetable.next_after(Micros(slot.0 - 1)), Some(slot));
            }
        }
    }
}
