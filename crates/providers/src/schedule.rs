//! Schedules and times as Dapr's scheduler and its cron binding read them.
//!
//! A [`Schedule`] is a cron expression or an interval; [`moment`] reads the times and durations that go with
//! one. Everything here is a pure function of its arguments: nothing reads a clock.
//!
//! The cron dialect is that of robfig/cron, which Dapr uses. No crate for Rust has the same one (they add
//! `L`, `W` and `#`, number weekdays from 1, or combine the two day fields differently), so the fields are
//! read here; calendar and time zones are jiff's.
//!
//! | file | subject |
//! |---|---|
//! | `cron` | the fields, and the next time that fits them |
//! | `moment` | RFC 3339 times, Go's durations, ISO 8601 durations with repetition |

mod cron;
pub mod moment;

use cron::Fields;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::{Duration, SystemTime};

/// Longer expressions are a mistake or an attack: sixty numbers in each of six fields have less.
const MAX_LENGTH: usize = 1024;

/// What happens at an `@every` that is shorter than this.
const SHORTEST: Duration = Duration::from_millis(1);

/// When something happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Whenever the clock of the zone fits the fields.
    Cron { fields: Fields, zone: TimeZone },
    /// At this distance, in whole milliseconds.
    Every(Duration),
}

/// Why a text is no schedule, or no time.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ScheduleError(String);

// === impl Schedule ===

impl Schedule {
    /// A job's schedule: six fields (seconds first), or `@every 5s`, `@yearly`, `@annually`, `@monthly`,
    /// `@weekly`, `@daily`, `@midnight`, `@hourly`. In UTC, unless `TZ=Europe/Berlin` or `CRON_TZ=…` stands
    /// before it.
    pub fn parse(text: &str) -> Result<Schedule, ScheduleError> {
        read(text, &[6], TimeZone::UTC)
    }

    /// The schedule of `bindings.cron`: as [`Schedule::parse`], or five fields (minutes first), and in the
    /// time of `zone` unless it names one.
    pub fn parse_binding(text: &str, zone: TimeZone) -> Result<Schedule, ScheduleError> {
        read(text, &[5, 6], zone)
    }

    /// The first time after `after`; none if there is none within eight years (the longest time between two
    /// leap days), or beyond the year 9999.
    pub fn next(&self, after: SystemTime) -> Option<SystemTime> {
        match &self.0 {
            Kind::Cron { fields, zone } => {
                let next = fields.next(Timestamp::try_from(after).ok()?, zone)?;
                Some(next.into())
            }
            Kind::Every(interval) => {
                let next = Timestamp::try_from(after).ok()?.checked_add(*interval).ok()?;
                Timestamp::from_millisecond(next.as_millisecond()).ok().map(SystemTime::from)
            }
        }
    }

    /// The first time after `now`, of those that follow one another from `last` on: what was missed meanwhile
    /// is left out, and an interval keeps its beat.
    pub fn next_from(&self, last: SystemTime, now: SystemTime) -> Option<SystemTime> {
        let next = self.next(last)?;
        if next > now {
            return Some(next);
        }
        match &self.0 {
            Kind::Cron { .. } => self.next(now),
            Kind::Every(interval) => {
                let beyond = now.duration_since(next).ok()?.as_nanos() % interval.as_nanos();
                let beyond = Duration::from_nanos(u64::try_from(beyond).ok()?);
                now.checked_add(*interval - beyond)
            }
        }
    }
}

fn read(text: &str, fields: &[usize], zone: TimeZone) -> Result<Schedule, ScheduleError> {
    let error = |reason: String| Err(ScheduleError(reason));
    if text.len() > MAX_LENGTH {
        return error(format!("a schedule has at most {MAX_LENGTH} bytes"));
    }
    let (zone, text) = match text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
        None => (zone, text.trim()),
        Some(rest) => {
            let Some((name, rest)) = rest.split_once(char::is_whitespace) else {
                return error("a schedule follows the time zone: TZ=Europe/Berlin 0 0 8 * * *".to_owned());
            };
            match TimeZone::get(name) {
                Ok(zone) => (zone, rest.trim()),
                Err(_) => return error(format!("time zone {name:?} is not known on this machine")),
            }
        }
    };
    if let Some(word) = text.strip_prefix('@') {
        return descriptor(word, zone);
    }
    let given: Vec<&str> = text.split_whitespace().collect();
    if !fields.contains(&given.len()) {
        let expected: Vec<String> = fields.iter().map(usize::to_string).collect();
        let order = "second minute hour day-of-month month day-of-week";
        return error(format!(
            "expected {} fields ({order}) or a word such as @daily or @every 5s, found {} in {text:?}",
            expected.join(" or "),
            given.len()
        ));
    }
    Ok(Schedule(Kind::Cron { fields: Fields::parse(&given)?, zone }))
}

fn descriptor(word: &str, zone: TimeZone) -> Result<Schedule, ScheduleError> {
    if let Some(interval) = word.strip_prefix("every ") {
        let interval = moment::go_duration(interval.trim()).filter(|interval| *interval >= SHORTEST);
        let Some(interval) = interval else {
            return Err(ScheduleError(format!(
                "@{word}: expected a duration of 1ms or more, such as @every 5s or @every 1h30m"
            )));
        };
        let whole = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        return Ok(Schedule(Kind::Every(Duration::from_millis(whole))));
    }
    let fields = match word {
        "yearly" | "annually" => "0 0 0 1 1 *",
        "monthly" => "0 0 0 1 * *",
        "weekly" => "0 0 0 * * 0",
        "daily" | "midnight" => "0 0 0 * * *",
        "hourly" => "0 0 * * * *",
        _ => {
            return Err(ScheduleError(format!(
                "@{word} is not known; use @every DURATION, @hourly, @daily, @weekly, @monthly or @yearly"
            )));
        }
    };
    let fields = Fields::parse(&fields.split(' ').collect::<Vec<_>>())?;
    Ok(Schedule(Kind::Cron { fields, zone }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    /// Cases of robfig/cron's documentation and of Dapr's, and the edges between them.
    #[test]
    fn the_next_time() {
        for (schedule, after, expected) in [
            // Seconds, minutes, hours.
            ("* * * * * *", "2026-01-01T00:00:00Z", Some("2026-01-01T00:00:01Z")),
            ("* * * * * *", "2026-01-01T00:00:00.999Z", Some("2026-01-01T00:00:01Z")),
            ("*/15 * * * * *", "2026-01-01T00:00:46Z", Some("2026-01-01T00:01:00Z")),
            ("0 30 * * * *", "2026-01-01T00:30:00Z", Some("2026-01-01T01:30:00Z")),
            ("0 5,10,15 * * * *", "2026-01-01T00:10:00Z", Some("2026-01-01T00:15:00Z")),
            ("0 5/20 * * * *", "2026-01-01T00:26:00Z", Some("2026-01-01T00:45:00Z")),
            ("0 0-10/5 8-18 * * *", "2026-01-01T18:10:00Z", Some("2026-01-02T08:00:00Z")),
            ("59 59 23 31 12 *", "2026-12-31T23:59:59Z", Some("2027-12-31T23:59:59Z")),
            // Months and names.
            ("0 0 0 1 MAR,oct *", "2026-03-01T00:00:00Z", Some("2026-10-01T00:00:00Z")),
            ("0 0 0 1 Jan-Feb *", "2026-02-02T00:00:00Z", Some("2027-01-01T00:00:00Z")),
            // Days of week: Sunday is 0.
            ("0 0 0 * * MON-FRI", "2026-01-02T00:00:00Z", Some("2026-01-05T00:00:00Z")),
            ("0 0 0 ? * sun", "2026-01-02T00:00:00Z", Some("2026-01-04T00:00:00Z")),
            // Both day fields restricted: either is enough.
            ("0 0 0 15 * MON", "2026-01-01T00:00:00Z", Some("2026-01-05T00:00:00Z")),
            ("0 0 0 15 * MON", "2026-01-12T00:00:00Z", Some("2026-01-15T00:00:00Z")),
            // A star in one of them: both have to fit. A step above one takes the star away.
            ("0 0 0 */1 * MON", "2026-01-01T00:00:00Z", Some("2026-01-05T00:00:00Z")),
            ("0 0 0 */10 * MON", "2026-01-05T00:00:00Z", Some("2026-01-11T00:00:00Z")),
            ("0 0 0 15,* * MON", "2026-01-05T00:00:00Z", Some("2026-01-12T00:00:00Z")),
            // Rare and impossible dates.
            ("0 0 0 29 2 *", "2026-01-01T00:00:00Z", Some("2028-02-29T00:00:00Z")),
            ("0 0 0 29 2 *", "2096-03-01T00:00:00Z", Some("2104-02-29T00:00:00Z")),
            ("0 0 0 31 * *", "2026-01-31T00:00:00Z", Some("2026-03-31T00:00:00Z")),
            ("0 0 0 30 2 *", "2026-01-01T00:00:00Z", None),
            ("0 0 0 31 4,6,9,11 *", "2026-01-01T00:00:00Z", None),
            ("* * * * * *", "9999-12-30T22:00:00Z", None),
            // Words.
            ("@yearly", "2026-06-01T00:00:00Z", Some("2027-01-01T00:00:00Z")),
            ("@annually", "2026-06-01T00:00:00Z", Some("2027-01-01T00:00:00Z")),
            ("@monthly", "2026-06-01T00:00:00Z", Some("2026-07-01T00:00:00Z")),
            ("@weekly", "2026-01-01T00:00:00Z", Some("2026-01-04T00:00:00Z")),
            ("@daily", "2026-01-01T00:00:00Z", Some("2026-01-02T00:00:00Z")),
            ("@midnight", "2026-01-01T23:00:00Z", Some("2026-01-02T00:00:00Z")),
            ("@hourly", "2026-01-01T00:00:00Z", Some("2026-01-01T01:00:00Z")),
            ("@every 1h30m", "2026-01-01T00:00:00Z", Some("2026-01-01T01:30:00Z")),
            ("@every 1.5s", "2026-01-01T00:00:00.0004Z", Some("2026-01-01T00:00:01.5Z")),
            // Zones: an hour that the clock leaves out does not happen, one that it repeats happens twice.
            ("TZ=America/New_York 0 30 2 * * *", "2026-03-07T12:00:00Z", Some("2026-03-09T06:30:00Z")),
            ("CRON_TZ=America/New_York 0 30 1 * * *", "2026-11-01T05:30:00Z", Some("2026-11-01T06:30:00Z")),
            ("TZ=Asia/Tokyo @daily", "2026-01-01T00:00:00Z", Some("2026-01-01T15:00:00Z")),
            ("TZ=America/Sao_Paulo 0 0 0 * * *", "2018-11-03T12:00:00Z", Some("2018-11-05T02:00:00Z")),
        ] {
            let found = Schedule::parse(schedule).unwrap().next(time(after));
            assert_eq!(found, expected.map(time), "{schedule} after {after}");
        }
    }

    #[test]
    fn what_was_missed_happens_no_more() {
        for (schedule, last, now, expected) in [
            ("@every 10s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:10Z"),
            ("@every 10s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z"),
            ("@every 10s", "2026-01-01T00:00:00Z", "2026-03-01T00:00:07Z", "2026-03-01T00:00:10Z"),
            ("@every 1ms", "2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z", "2036-01-01T00:00:00.001Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T09:10:00Z", "2026-01-01T10:00:00Z"),
        ] {
            let found = Schedule::parse(schedule).unwrap().next_from(time(last), time(now));
            assert_eq!(found, Some(time(expected)), "{schedule}");
        }
    }

    #[test]
    fn five_fields_are_for_the_binding_only() {
        let zone = TimeZone::get("Asia/Tokyo").unwrap();
        for (schedule, expected) in [
            ("15 8 * * *", "2026-01-01T23:15:00Z"),
            ("0 15 8 * * *", "2026-01-01T23:15:00Z"),
            ("TZ=UTC 15 8 * * *", "2026-01-01T08:15:00Z"),
        ] {
            let found = Schedule::parse_binding(schedule, zone.clone()).unwrap();
            assert_eq!(found.next(time("2026-01-01T00:00:00Z")), Some(time(expected)), "{schedule}");
        }
        assert!(Schedule::parse("15 8 * * *").is_err());
    }

    #[test]
    fn what_is_no_schedule() {
        let long = "1,".repeat(1000);
        for text in [
            "",
            " ",
            "*",
            "* * * * *",
            "* * * * * * *",
            "60 * * * * *",
            "* 60 * * * *",
            "* * 24 * * *",
            "* * * 0 * *",
            "* * * 32 * *",
            "* * * * 0 *",
            "* * * * 13 *",
            "* * * * * 7",
            "-1 * * * * *",
            "5-1 * * * * *",
            "1-2-3 * * * * *",
            "1/2/3 * * * * *",
            "*/0 * * * * *",
            "*/-1 * * * * *",
            "*/99999999999999999999 * * * * *",
            "99999999999999999999 * * * * *",
            "*-5 * * * * *",
            ", * * * * *",
            "a * * * * *",
            "* * * * MON *",
            "* * * * * JAN",
            "+1 * * * * *",
            "@",
            "@never",
            "@every",
            "@every ",
            "@every 5",
            "@every -5s",
            "@every 0s",
            "@every 1ns",
            "@every 9999999999999999999h",
            "TZ=Europe/Berlin",
            "TZ=No/Where * * * * * *",
            "TZ=../../etc/passwd * * * * * *",
            "🐪 * * * * *",
            &long,
        ] {
            let error = Schedule::parse(text).expect_err(text);
            assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn times_at_the_edge_of_the_calendar() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 60);
        for schedule in ["* * * * * *", "@every 10000h"] {
            assert_eq!(Schedule::parse(schedule).unwrap().next(far), None, "{schedule}");
        }
    }
}
