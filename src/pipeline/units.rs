//! Numbers with units: durations, sizes, shares, rates, and the limits of a load test.

use std::time::Duration;

use super::diagnostic::{nearest, shown};
use super::types::{Comparison, LoadMetric, Threshold};

/// Why a text is no such number, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnitError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl UnitError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

const DURATION_UNITS: [(&str, f64); 6] =
    [("d", 86_400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)];
const DURATION_HELP: &str = "durations are written like `500ms`, `90s`, `30m`, `2h` or `1h30m`";
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

/// Reads `90s`, `30m`, `2h`, `1h30m`, `1.5h`, `500ms`, `2d`. At most 366 days.
///
/// # Errors
/// [`UnitError`] with the units that exist.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if let Ok(bare) = rest.parse::<f64>() {
        let message = format!("`{}` has no unit", shown(rest));
        let help = if bare >= 100.0 {
            format!("write `{bare}ms`, `{bare}s` or `{bare}m`")
        } else {
            format!("write `{bare}s`, `{bare}m` or `{bare}h`")
        };
        return Err(UnitError::new(message, help));
    }
    let mut seconds = 0.0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_len);
        let Some(value) = number else {
            return Err(UnitError::new(format!("`{}` is not a duration", shown(text)), DURATION_HELP));
        };
        let Some(position) = DURATION_UNITS.iter().position(|(name, _)| *name == unit.trim()) else {
            let message = match unit.trim() {
                "" => format!("`{}` has a number without a unit", shown(text)),
                unit => format!("`{}` is not a unit of time", shown(unit)),
            };
            return Err(UnitError::new(message, DURATION_HELP));
        };
        if position < next_unit {
            let message = format!("the units in `{}` are not in order, or one is there twice", shown(text));
            return Err(UnitError::new(message, DURATION_HELP));
        }
        next_unit = position + 1;
        seconds += value * DURATION_UNITS[position].1;
        rest = after.trim_start();
    }
    if next_unit == 0 {
        return Err(UnitError::new("a duration is missing", DURATION_HELP));
    }
    if seconds > LONGEST_SECONDS {
        return Err(UnitError::new(format!("`{}` is longer than 366 days", shown(text)), DURATION_HELP));
    }
    // Microseconds are fine enough, and keep `0.1s` free of floating dust.
    Ok(Duration::from_micros((seconds * 1e6).round() as u64))
}

const SIZE_UNITS: [(&str, f64); 10] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];
const SIZE_HELP: &str = "sizes are written like `512MiB` or `4GiB`; units are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB";

/// Reads `512MiB`, `4GiB`, `1.5GB`, in bytes.
///
/// # Errors
/// [`UnitError`] with the units that exist.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    let (number, unit) = split_number(text);
    let Some(value) = number else {
        return Err(UnitError::new(format!("`{}` is not a size", shown(text)), SIZE_HELP));
    };
    let unit = unit.trim();
    if unit.is_empty() {
        let message = format!("`{}` has no unit", shown(text));
        return Err(UnitError::new(message, format!("write `{value}MiB` or `{value}GiB`")));
    }
    let Some((_, factor)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        let message = format!("`{}` is not a unit of size", shown(unit));
        let wanted = match unit.to_ascii_lowercase().as_str() {
            "k" | "ki" => Some("KiB"),
            "m" | "mi" => Some("MiB"),
            "g" | "gi" => Some("GiB"),
            "t" | "ti" => Some("TiB"),
            _ => nearest(unit, SIZE_UNITS.iter().map(|(name, _)| *name)),
        };
        let help = wanted.map_or(SIZE_HELP.to_owned(), |wanted| format!("did you mean `{value}{wanted}`?"));
        return Err(UnitError::new(message, help));
    };
    let bytes = value * factor;
    if bytes >= 1e18 {
        return Err(UnitError::new(format!("`{}` is larger than any machine", shown(text)), SIZE_HELP));
    }
    Ok(bytes.round() as u64)
}

/// Reads `10%` as 0.1.
///
/// # Errors
/// [`UnitError`] if it is not a number with `%`.
pub fn percent(text: &str) -> Result<f64, UnitError> {
    let text = text.trim();
    let wrong =
        || UnitError::new(format!("`{}` is not a share", shown(text)), "shares are written like `1%` or `0.5%`");
    match split_number(text) {
        (Some(value), unit) if unit.trim() == "%" => Ok(value / 100.0),
        (Some(value), "") => {
            let help = format!("write `{value}%`");
            Err(UnitError::new(format!("`{}` has no unit", shown(text)), help))
        }
        (Some(_) | None, _) => Err(wrong()),
    }
}

/// Reads `200/s`, `600/m`, `3600/h`, in events a second.
///
/// # Errors
/// [`UnitError`] with the units that exist.
pub fn rate(text: &str) -> Result<f64, UnitError> {
    let text = text.trim();
    let help = "rates are written like `200/s`, `600/m` or `3600/h`";
    let (Some(value), unit) = split_number(text) else {
        return Err(UnitError::new(format!("`{}` is not a rate", shown(text)), help));
    };
    let seconds = match unit.trim() {
        "/s" => 1.0,
        "/m" => 60.0,
        "/h" => 3600.0,
        "" => {
            let message = format!("`{}` has no unit", shown(text));
            return Err(UnitError::new(message, format!("write `{value}/s`")));
        }
        _ => return Err(UnitError::new(format!("`{}` is not a rate", shown(text)), help)),
    };
    let per_second = value / seconds;
    if per_second <= 0.0 || per_second > 1e6 {
        return Err(UnitError::new(
            format!("`{}` is out of range", shown(text)),
            "a rate is more than 0 and at most 1000000/s",
        ));
    }
    Ok(per_second)
}

/// The metric of a load test that a key names: `failure_rate`, `rps`, `max`, `p50` to `p99.9`.
pub fn load_metric(key: &str) -> Option<LoadMetric> {
    match key {
        "failure_rate" => Some(LoadMetric::FailureRate),
        "max" => Some(LoadMetric::Max),
        "rps" => Some(LoadMetric::Rps),
        _ => {
            let digits = key.strip_prefix('p').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?;
            let percentile: f64 = digits.parse().ok()?;
            // Without the rounding `p99.9` would be a little more than 0.999, and match no percentile of a report.
            let quantile = (percentile * 1e6).round() / 1e8;
            (quantile > 0.0 && quantile < 1.0).then_some(LoadMetric::Quantile(quantile))
        }
    }
}

/// Reads a limit like `"< 200ms"`, `"> 100"`, `"< 1%"` for a metric.
///
/// # Errors
/// [`UnitError`] with what the metric wants.
pub fn threshold(metric: LoadMetric, text: &str) -> Result<Threshold, UnitError> {
    let trimmed = text.trim();
    let example = match metric {
        LoadMetric::FailureRate => "< 1%",
        LoadMetric::Quantile(_) | LoadMetric::Max => "< 200ms",
        LoadMetric::Rps => "> 100",
    };
    let signs = [("<=", Comparison::Le), (">=", Comparison::Ge), ("<", Comparison::Lt), (">", Comparison::Gt)];
    let Some((sign, comparison, value)) =
        signs.iter().find_map(|(sign, comparison)| Some((*sign, *comparison, trimmed.strip_prefix(sign)?.trim())))
    else {
        let message = format!("`{}` does not say which side is good", shown(text));
        return Err(UnitError::new(message, format!("begin with `<`, `<=`, `>` or `>=`, like `\"{example}\"`")));
    };
    let wrong = |error: UnitError| UnitError::new(error.message, format!("write it like `\"{example}\"`"));
    let limit = match metric {
        LoadMetric::FailureRate => percent(value).map_err(wrong)?,
        LoadMetric::Quantile(_) | LoadMetric::Max => duration(value).map_err(wrong)?.as_secs_f64(),
        LoadMetric::Rps => match split_number(value) {
            (Some(number), unit) if matches!(unit.trim(), "" | "/s") => number,
            (Some(_) | None, _) => {
                let message = format!("`{}` is not a number of requests a second", shown(value));
                return Err(wrong(UnitError { message, help: None }));
            }
        },
    };
    if metric == LoadMetric::FailureRate && limit > 1.0 {
        return Err(UnitError::new(format!("`{}` is more than all requests", shown(value)), "write at most `100%`"));
    }
    Ok(Threshold { metric, comparison, limit, text: format!("{sign} {value}") })
}

/// The number at the beginning, and what follows it.
fn split_number(text: &str) -> (Option<f64>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (text[..end].parse().ok().filter(|value: &f64| value.is_finite()), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Result<f64, &str>| {
            let found = duration(text).map(|d| d.as_secs_f64()).map_err(|e| e.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("90s", Ok(90.0));
        check("1h30m", Ok(5400.0));
        check("1h 30m", Ok(5400.0));
        check("1.5h", Ok(5400.0));
        check("500ms", Ok(0.5));
        check("50us", Ok(0.000_05));
        check("0s", Ok(0.0));
        check("2d", Ok(172_800.0));
        check("30", Err("`30` has no unit"));
        check("30min", Err("`min` is not a unit of time"));
        check("1h30", Err("`1h30` has a number without a unit"));
        check("30m1h", Err("the units in `30m1h` are not in order, or one is there twice"));
        check("soon", Err("`soon` is not a duration"));
        check("-5s", Err("`-5s` is not a duration"));
        check("", Err("a duration is missing"));
        check("9999999999h", Err("`9999999999h` is longer than 366 days"));
        check("1e3s", Err("`e` is not a unit of time"));
        check("..s", Err("`..s` is not a duration"));
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let found = size(text).map_err(|e| format!("{} / {}", e.message, e.help.unwrap_or_default()));
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("512MiB", Ok(512 << 20));
        check("4GiB", Ok(4 << 30));
        check("1.5 GB", Ok(1_500_000_000));
        check("0B", Ok(0));
        check("512", Err("`512` has no unit / write `512MiB` or `512GiB`"));
        check("4g", Err("`g` is not a unit of size / did you mean `4GiB`?"));
        check("4Gb", Err("`Gb` is not a unit of size / did you mean `4GB`?"));
        check("99999999TiB", Err(&format!("`99999999TiB` is larger than any machine / {SIZE_HELP}")));
        check("much", Err(&format!("`much` is not a size / {SIZE_HELP}")));
    }

    #[test]
    fn shares_and_rates() {
        assert_eq!(percent("10%"), Ok(0.1));
        assert_eq!(percent("0.5 %"), Ok(0.005));
        assert_eq!(percent("10").map_err(|e| e.help), Err(Some("write `10%`".to_owned())));
        assert!(percent("x%").is_err());
        assert_eq!(rate("200/s"), Ok(200.0));
        assert_eq!(rate("600/m"), Ok(10.0));
        assert!(rate("0/s").is_err());
        assert_eq!(rate("200").map_err(|e| e.help), Err(Some("write `200/s`".to_owned())));
    }

    #[test]
    fn thresholds() {
        let limit = |key: &str, text: &str| {
            let metric = load_metric(key).expect("metric");
            threshold(metric, text).map(|t| (t.comparison, t.limit)).map_err(|e| e.message)
        };
        assert_eq!(limit("p95", "< 200ms"), Ok((Comparison::Lt, 0.2)));
        assert_eq!(limit("p99.9", "<=1s"), Ok((Comparison::Le, 1.0)));
        assert_eq!(limit("rps", "> 100"), Ok((Comparison::Gt, 100.0)));
        assert_eq!(limit("rps", ">= 100/s"), Ok((Comparison::Ge, 100.0)));
        assert_eq!(limit("failure_rate", "< 1%"), Ok((Comparison::Lt, 0.01)));
        assert_eq!(limit("failure_rate", "< 0.01"), Err("`0.01` has no unit".to_owned()));
        assert_eq!(limit("p95", "200ms"), Err("`200ms` does not say which side is good".to_owned()));
        assert_eq!(limit("p95", "< 200"), Err("`200` has no unit".to_owned()));
        assert!(limit("failure_rate", "< 200%").is_err());
        assert_eq!(load_metric("p99.9"), Some(LoadMetric::Quantile(0.999)));
        for key in ["p0", "p100", "p", "pp", "p-1", "avg", "p1e9", "POST /predict"] {
            assert_eq!(load_metric(key), None, "{key}");
        }
    }
}
