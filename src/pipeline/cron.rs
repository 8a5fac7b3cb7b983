//! Cron expressions as every crontab understands them: five fields, of which the days' two have a rule of their own.
//!
//! What is read here is only which minutes, hours and days are meant; when that is, in which time zone, `trigger::schedule`
//! knows. The words are those of Vixie cron, which all systems' cron follows: Sunday is 0 and 7; if both the day of the
//! month and the day of the week are restricted, a day that matches *either* is meant; a field that begins with `*` (also
//! `*/2`) does not count as restricted.

use super::diagnostic::shown;

/// A checked expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// Minutes of the hour, 0 to 59.
    pub minutes: Numbers,
    /// Hours of the day, 0 to 23.
    pub hours: Numbers,
    /// Days of the month, 1 to 31.
    pub days: Numbers,
    /// Months, 1 to 12.
    pub months: Numbers,
    /// Days of the week, 0 (Sunday) to 6.
    pub weekdays: Numbers,
    /// A day that matches one of `days` and `weekdays` is enough; else it must match both.
    pub either_day: bool,
}

/// A set of small numbers, 0 to 63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers(u64);

impl Numbers {
    /// Whether the number is one of them.
    pub fn contains(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }

    /// All of them, rising.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..u64::BITS).filter(move |number| self.contains(*number))
    }

    /// How many they are.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }

    fn insert(&mut self, number: u32) {
        self.0 |= 1 << number;
    }
}

/// What one field may hold.
struct Rule {
    name: &'static str,
    min: u32,
    max: u32,
    words: &'static [&'static str],
}

const RULES: [Rule; 5] = [
    Rule { name: "minute", min: 0, max: 59, words: &[] },
    Rule { name: "hour", min: 0, max: 23, words: &[] },
    Rule { name: "day of month", min: 1, max: 31, words: &[] },
    Rule {
        name: "month",
        min: 1,
        max: 12,
        words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    Rule { name: "day of week", min: 0, max: 7, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

impl Cron {
    /// Reads the five fields: `*`, numbers, names of months and days, ranges, lists, steps.
    ///
    /// # Errors
    /// Which part is wrong and why, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().take(7).collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(match fields.len() {
                7.. => "a schedule has five fields, found more than six".to_owned(),
                found => format!("a schedule has five fields, found {found}"),
            });
        };
        let [minute, hour, day, month, weekday] = &RULES;
        let mut cron = Self {
            minutes: minute.field(minutes)?,
            hours: hour.field(hours)?,
            days: day.field(days)?,
            months: month.field(months)?,
            weekdays: weekday.field(weekdays)?,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        if cron.weekdays.contains(7) {
            cron.weekdays.0 = cron.weekdays.0 & !(1 << 7) | 1;
        }
        Ok(cron)
    }

    /// Whether it means every hour of the day.
    pub fn is_every_hour(&self) -> bool {
        self.hours.count() == 24
    }

    /// Whether some year has such a day; the 31st of February never comes. Each date falls on each day of the week at times,
    /// so the days of the week do not matter.
    pub fn comes(&self) -> bool {
        const LONGEST: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let lengths = (1..).zip(LONGEST);
        let first = self.days.iter().next().unwrap_or(u32::MAX);
        self.either_day || lengths.into_iter().any(|(month, days)| self.months.contains(month) && first <= days)
    }
}

impl Rule {
    fn field(&self, text: &str) -> Result<Numbers, String> {
        let mut numbers = Numbers::default();
        for part in text.split(',') {
            let problem = |problem: String| format!("{} `{}`: {problem}", self.name, shown(part));
            let (from, to, step) = self.part(part).map_err(problem)?;
            let step = usize::try_from(step).unwrap_or(1);
            (from..=to).step_by(step).for_each(|number| numbers.insert(number));
        }
        Ok(numbers)
    }

    /// First, last and step of one part of a list.
    fn part(&self, part: &str) -> Result<(u32, u32, u32), String> {
        let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
        let every = match step {
            None => 1,
            Some(step) => step.parse().map_err(|_| "the step after `/` is not a number".to_owned())?,
        };
        if every == 0 || every > self.max {
            return Err(format!("the step must be from 1 to {}", self.max));
        }
        if span == "*" {
            // Of the two numbers of Sunday, a star means the first.
            return Ok((self.min, self.max.min(if self.max == 7 { 6 } else { self.max }), every));
        }
        match span.split_once('-') {
            None => {
                let from = self.value(span)?;
                // `5/15` means from 5 on.
                Ok((from, if step.is_some() { self.max } else { from }, every))
            }
            Some((from, to)) => {
                // `fri-sun`: a range that ends with Sunday ends with 7.
                let sunday = self.max == 7 && to.eq_ignore_ascii_case("sun");
                let (from, to) = (self.value(from)?, if sunday { 7 } else { self.value(to)? });
                if from <= to { Ok((from, to, every)) } else { Err("the range runs backwards".to_owned()) }
            }
        }
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let word = self.words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let number = match word.and_then(|at| u32::try_from(at).ok()) {
            Some(at) => at + self.min,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| "not a number".to_owned())?
            }
            None => return Err("not a number".to_owned()),
        };
        if (self.min..=self.max).contains(&number) {
            Ok(number)
        } else {
            Err(format!("must be from {} to {}", self.min, self.max))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let check = |text: &str, pick: fn(&Cron) -> Numbers, expected: &[u32]| {
            let cron = Cron::parse(text).unwrap();
            assert_eq!(pick(&cron).iter().collect::<Vec<_>>(), expected, "{text}");
        };
        check("5 * * * *", |cron| cron.minutes, &[5]);
        check("*/20 * * * *", |cron| cron.minutes, &[0, 20, 40]);
        check("5/20 * * * *", |cron| cron.minutes, &[5, 25, 45]);
        check("10-20/5,59 * * * *", |cron| cron.minutes, &[10, 15, 20, 59]);
        check("0 0-6/3,18 * * *", |cron| cron.hours, &[0, 3, 6, 18]);
        check("0 0 1,15 * *", |cron| cron.days, &[1, 15]);
        check("0 0 1 JAN-mar,12 *", |cron| cron.months, &[1, 2, 3, 12]);
        check("0 0 * * 0", |cron| cron.weekdays, &[0]);
        check("0 0 * * 7", |cron| cron.weekdays, &[0]);
        check("0 0 * * sun", |cron| cron.weekdays, &[0]);
        check("0 0 * * 1", |cron| cron.weekdays, &[1]);
        check("0 0 * * MON-FRI", |cron| cron.weekdays, &[1, 2, 3, 4, 5]);
        check("0 0 * * 5-7", |cron| cron.weekdays, &[0, 5, 6]);
        check("0 0 * * fri-sun", |cron| cron.weekdays, &[0, 5, 6]);
        check("0 0 * * sun-tue", |cron| cron.weekdays, &[0, 1, 2]);
        check("0 0 * * */2", |cron| cron.weekdays, &[0, 2, 4, 6]);
        check("0 0 * * *", |cron| cron.weekdays, &[0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn one_of_both_days_is_enough_if_both_are_restricted() {
        let check = |text: &str, expected: bool| assert_eq!(Cron::parse(text).unwrap().either_day, expected, "{text}");
        check("0 0 * * *", false);
        check("0 0 13 * *", false);
        check("0 0 * * 5", false);
        check("0 0 13 * 5", true);
        check("0 0 1-31 * 5", true);
        check("0 0 */2 * 5", false);
        check("0 0 13 * */2", false);
    }

    #[test]
    fn good_and_bad_expressions() {
        for good in ["0 3 * * *", "*/5 0-6,18 1,15 jan-mar MON-FRI", "0 0 31 12 7", "0/15 * * * *", "0 0 29 2 *"] {
            assert!(Cron::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "a schedule has five fields, found 0"),
            ("0 3 * *", "a schedule has five fields, found 4"),
            ("0 0 3 * * *", "a schedule has five fields, found 6"),
            ("0 0 3 * * * * *", "a schedule has five fields, found more than six"),
            ("@daily", "a schedule has five fields, found 1"),
            ("60 3 * * *", "minute `60`: must be from 0 to 59"),
            ("0 24 * * *", "hour `24`: must be from 0 to 23"),
            ("0 3 0 * *", "day of month `0`: must be from 1 to 31"),
            ("0 3 * 13 *", "month `13`: must be from 1 to 12"),
            ("0 3 * * 8", "day of week `8`: must be from 0 to 7"),
            ("0 5-3 * * *", "hour `5-3`: the range runs backwards"),
            ("*/0 * * * *", "minute `*/0`: the step must be from 1 to 59"),
            ("*/60 * * * *", "minute `*/60`: the step must be from 1 to 59"),
            ("*/99999999999 * * * *", "minute `*/99999999999`: the step after `/` is not a number"),
            ("99999999999 * * * *", "minute `99999999999`: not a number"),
            ("0 3 * * funday", "day of week `funday`: not a number"),
            ("0 3, * * *", "hour ``: not a number"),
            ("+1 * * * *", "minute `+1`: not a number"),
            ("? * * * *", "minute `?`: not a number"),
        ] {
            assert_eq!(Cron::parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn days_that_never_come() {
        let check = |text: &str, expected: bool| assert_eq!(Cron::parse(text).unwrap().comes(), expected, "{text}");
        check("0 0 29 2 *", true);
        check("0 0 30 2 *", false);
        check("0 0 31 4,6,9,11 *", false);
        check("0 0 31 4-7 *", true);
        // Each Monday of February.
        check("0 0 31 2 1", true);
        check("0 0 31 2 */2", false);
    }
}
