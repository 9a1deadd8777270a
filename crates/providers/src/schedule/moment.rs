//! Times and durations as jobs, reminders and timers give them: RFC 3339 (`2026-11-21T08:00:00Z`), Go's
//! durations (`1h30m`), ISO 8601 durations (`P1DT2H`), with repetition where that makes sense (`R4/PT2S`).

use super::ScheduleError;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use std::time::{Duration, SystemTime};

/// A point in time, absolute or from a start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At this time.
    At(SystemTime),
    /// This long after the start.
    After(Length),
}

/// A length of time. Years, months and days are those of the calendar, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    years: u32,
    months: u32,
    days: u32,
    rest: Duration,
}

/// A length of time that may say how often it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    /// The time between two of them; nothing where only a number was given (`R5`).
    pub length: Length,
    /// How often it comes; none: without end.
    pub repetitions: Option<u32>,
}

// === impl Moment ===

impl Moment {
    /// Reads a time. A repetition has no place in one.
    pub fn parse(text: &str) -> Result<Moment, ScheduleError> {
        let error = |reason: &str| ScheduleError(format!("{}: {reason}", shown(text)));
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Moment::At(time.into()));
        }
        match parse_period(text) {
            Some(Period { length, repetitions: None }) => Ok(Moment::After(length)),
            Some(_) => Err(error("a repetition has no place here; use a schedule and repeats")),
            None => Err(error(
                "expected a time such as 2026-11-21T08:00:00Z, or a duration such as 30s, 1h30m or PT5M",
            )),
        }
    }

    /// The time that is meant if `start` is the start; none where the calendar does not go that far.
    pub fn from(self, start: SystemTime) -> Option<SystemTime> {
        match self {
            Moment::At(time) => Some(time),
            Moment::After(length) => length.after(start),
        }
    }
}

// === impl Length ===

impl Length {
    /// The time that is this long after `start`; none where the calendar does not go that far.
    pub fn after(self, start: SystemTime) -> Option<SystemTime> {
        let Length { years, months, days, rest } = self;
        if years == 0 && months == 0 && days == 0 {
            let end = start.checked_add(rest)?;
            return Timestamp::try_from(end).is_ok().then_some(end);
        }
        let span = Span::new().try_years(years).ok()?.try_months(months).ok()?.try_days(days).ok()?;
        let start = Timestamp::try_from(start).ok()?.to_zoned(TimeZone::UTC);
        Some(start.checked_add(span).ok()?.checked_add(rest).ok()?.timestamp().into())
    }

    /// Whether it is no time at all.
    pub fn is_zero(self) -> bool {
        self == Length::default()
    }
}

// === impl Period ===

impl Period {
    /// Reads a period: `5s`, `PT5S`, `R4/PT5S`, `R4`.
    pub fn parse(text: &str) -> Result<Period, ScheduleError> {
        parse_period(text).ok_or_else(|| {
            ScheduleError(format!("{}: expected a duration such as 30s, 1h30m, PT5M or R4/PT5M", shown(text)))
        })
    }
}

/// Go's duration format (`1h30m`, `1.5s`, `0`), without a sign.
pub fn go_duration(text: &str) -> Option<Duration> {
    let bare_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.trim() != text || (bare_number && text != "0") {
        return None;
    }
    crate::metadata::parse_duration(text)
}

fn parse_period(text: &str) -> Option<Period> {
    let (repetitions, length) = match text.strip_prefix('R') {
        None => (None, Some(text)),
        Some(rest) => match rest.split_once('/') {
            None => (Some(rest), None),
            Some((number, length)) => (Some(number), Some(length)),
        },
    };
    let repetitions = match repetitions {
        None => None,
        Some(number) => Some(digits(number)?),
    };
    let length = match length {
        None => Length::default(),
        Some(length) if length.starts_with('P') => iso(length)?,
        Some(_) if repetitions.is_some() => return None,
        Some(length) => Length { rest: go_duration(length)?, ..Length::default() },
    };
    Some(Period { length, repetitions })
}

/// `P1Y2M3W4DT5H6M7S`: whole numbers, each unit at most once, in this order.
fn iso(text: &str) -> Option<Length> {
    let text = text.strip_prefix('P')?;
    let (date, time) = match text.split_once('T') {
        None => (text, None),
        Some((date, time)) => (date, Some(time).filter(|time| !time.is_empty())),
    };
    if (date.is_empty() && time.is_none()) || text.ends_with('T') {
        return None;
    }
    let [years, months, weeks, days] = units(date, ['Y', 'M', 'W', 'D'])?;
    let [hours, minutes, seconds] = units(time.unwrap_or_default(), ['H', 'M', 'S'])?;
    let seconds = u64::from(hours) * 3600 + u64::from(minutes) * 60 + u64::from(seconds);
    let days = weeks.checked_mul(7)?.checked_add(days)?;
    Some(Length { years, months, days, rest: Duration::from_secs(seconds) })
}

/// The numbers before these units, of which any may be missing.
fn units<const N: usize>(mut text: &str, units: [char; N]) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    for (number, unit) in numbers.iter_mut().zip(units) {
        if let Some((before, rest)) = text.split_once(unit)
            && before.bytes().all(|byte| byte.is_ascii_digit())
        {
            *number = digits(before)?;
            text = rest;
        }
    }
    text.is_empty().then_some(numbers)
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The text in an error, not longer than a reader needs.
fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn moments() {
        for (text, expected) in [
            ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("2027-01-01T00:00:00.5+02:00", "2026-12-31T22:00:00.5Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
            ("0", "2026-01-31T00:00:00Z"),
            ("0s", "2026-01-31T00:00:00Z"),
            ("1h30m", "2026-01-31T01:30:00Z"),
            ("1.5s", "2026-01-31T00:00:01.5Z"),
            ("PT5M", "2026-01-31T00:05:00Z"),
            ("PT0S", "2026-01-31T00:00:00Z"),
            ("PT1H30M5S", "2026-01-31T01:30:05Z"),
            ("P1D", "2026-02-01T00:00:00Z"),
            ("P2W1D", "2026-02-15T00:00:00Z"),
            ("P1M", "2026-02-28T00:00:00Z"),
            ("P1Y1MT1S", "2027-02-28T00:00:01Z"),
        ] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.from(time("2026-01-31T00:00:00Z")), Some(time(expected)), "{text}");
        }
    }

    #[test]
    fn periods() {
        let seconds = |seconds| Length { rest: Duration::from_secs(seconds), ..Length::default() };
        for (text, length, repetitions) in [
            ("5s", seconds(5), None),
            ("PT2S", seconds(2), None),
            ("R4/PT2S", seconds(2), Some(4)),
            ("R0/PT2S", seconds(2), Some(0)),
            ("R5", Length::default(), Some(5)),
        ] {
            assert_eq!(Period::parse(text).unwrap(), Period { length, repetitions }, "{text}");
        }
        assert!(Moment::parse("R4/PT2S").unwrap_err().to_string().contains("repetition"));
    }

    #[test]
    fn what_is_no_time() {
        let long = "9".repeat(100_000);
        for text in [
            "",
            " ",
            "5",
            "-5s",
            "5x",
            "s",
            "P",
            "PT",
            "P1",
            "P1S",
            "PT1D",
            "P1DT",
            "PT1S1H",
            "P-1D",
            "P1.5D",
            "PT1S ",
            "R/PT1S",
            "R4/",
            "R4/5s",
            "R-1/PT1S",
            "R99999999999/PT1S",
            "P99999999999Y",
            "p1d",
            "tomorrow",
            "2026-01-31",
            "2026-01-31T00:00:00",
            "2026-02-30T00:00:00Z",
            "99999999999999999999h",
            "🐪",
            &long,
        ] {
            let error = Moment::parse(text).expect_err(text);
            assert!(error.to_string().len() < 400, "{error}");
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn beyond_the_calendar() {
        for text in ["P9000Y", "P4294967295M", "P4294967295D", "99999999h"] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.from(time("2026-01-31T00:00:00Z")), None, "{text}");
        }
    }
}
