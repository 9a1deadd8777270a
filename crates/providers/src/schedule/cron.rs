//! The fields of a cron expression, as robfig/cron reads them, and the next time that fits them.

use super::ScheduleError;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use std::time::Duration;

/// From one leap day to the next one there can be eight years: 2096 and 2104.
const LOOK_AHEAD_YEARS: i16 = 8;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Which seconds, minutes, … fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    second: Field,
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

/// The values that one field allows, one bit each, and whether it has a star of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Field {
    bits: u64,
    star: bool,
}

/// What a field can hold.
struct Range {
    name: &'static str,
    min: u8,
    max: u8,
    /// Names of the values from `min` on.
    names: &'static [&'static str],
}

const SECOND: Range = Range { name: "second", min: 0, max: 59, names: &[] };
const MINUTE: Range = Range { name: "minute", min: 0, max: 59, names: &[] };
const HOUR: Range = Range { name: "hour", min: 0, max: 23, names: &[] };
const DAY: Range = Range { name: "day of month", min: 1, max: 31, names: &[] };
const MONTH: Range = Range { name: "month", min: 1, max: 12, names: MONTHS };
const WEEKDAY: Range = Range { name: "day of week", min: 0, max: 6, names: WEEKDAYS };

// === impl Fields ===

impl Fields {
    /// Reads six fields, or five, which lack the seconds.
    pub(super) fn parse(fields: &[&str]) -> Result<Fields, ScheduleError> {
        let (second, rest) = match fields {
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            rest => ("0", rest),
        };
        let [minute, hour, day, month, weekday] = rest else {
            return Err(ScheduleError("expected five or six fields".to_owned()));
        };
        Ok(Fields {
            second: SECOND.parse(second)?,
            minute: MINUTE.parse(minute)?,
            hour: HOUR.parse(hour)?,
            day: DAY.parse(day)?,
            month: MONTH.parse(month)?,
            weekday: WEEKDAY.parse(weekday)?,
        })
    }

    /// The first whole second after `after` at which the zone's clock fits. Each step of the loop goes on to
    /// the next month, day, hour, minute or second, whichever is the largest that does not fit.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_second().checked_add(1)?).ok()?;
        let mut time = second.to_zoned(zone.clone());
        let last_year = time.year().checked_add(LOOK_AHEAD_YEARS)?;
        while time.year() <= last_year {
            let seconds = i64::from(time.second());
            time = if !self.month.has(time.month()) {
                let next = time.date().first_of_month().checked_add(1.month()).ok()?;
                next.to_zoned(zone.clone()).ok()?
            } else if !self.day_fits(&time) {
                time.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?
            } else if !self.hour.has(time.hour()) {
                // By the stopwatch and not by the clock: the clock may leave hours out, or repeat them.
                later(&time, 3600 - 60 * i64::from(time.minute()) - seconds)?
            } else if !self.minute.has(time.minute()) {
                later(&time, 60 - seconds)?
            } else if !self.second.has(time.second()) {
                later(&time, 1)?
            } else {
                return Some(time.timestamp());
            };
        }
        None
    }

    /// Both day fields have to fit if one of them has a star; either is enough if both are restricted.
    fn day_fits(&self, time: &Zoned) -> bool {
        let day = self.day.has(time.day());
        let weekday = self.weekday.has(time.weekday().to_sunday_zero_offset());
        if self.day.star || self.weekday.star { day && weekday } else { day || weekday }
    }
}

fn later(time: &Zoned, seconds: i64) -> Option<Zoned> {
    time.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?)).ok()
}

// === impl Field ===

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits.checked_shr(value).is_some_and(|bits| bits & 1 == 1))
    }
}

// === impl Range ===

impl Range {
    fn parse(&self, text: &str) -> Result<Field, ScheduleError> {
        let mut field = Field::default();
        // robfig/cron skips empty parts, too.
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let one = self.parse_part(part)?;
            field = Field { bits: field.bits | one.bits, star: field.star || one.star };
        }
        if field.bits == 0 {
            return Err(self.error(text, "is empty"));
        }
        Ok(field)
    }

    /// `*`, `5`, `5-10`, and each of them with `/STEP`; `5/10` goes to the end of the range.
    fn parse_part(&self, text: &str) -> Result<Field, ScheduleError> {
        let (range, step) = match text.split_once('/') {
            None => (text, None),
            Some((range, step)) => (range, Some(step)),
        };
        let (start, end, star) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.min, self.max, true),
            Some((start, end)) => (self.value(start, text)?, self.value(end, text)?, false),
            None => {
                let start = self.value(range, text)?;
                (start, if step.is_some() { self.max } else { start }, false)
            }
        };
        let step = match step {
            None => 1,
            Some(step) => number(step)
                .filter(|step| *step > 0)
                .ok_or_else(|| self.error(text, "has a step that is no positive number"))?,
        };
        if start > end {
            return Err(self.error(text, "ends before it starts"));
        }
        let values = (start..=end).step_by(step);
        let bits = values.fold(0, |bits, value| bits | 1 << value);
        Ok(Field { bits, star: star && step == 1 })
    }

    fn value(&self, text: &str, part: &str) -> Result<u8, ScheduleError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(index) => index.checked_add(usize::from(self.min)),
            None => number(text),
        };
        let value = value.and_then(|value| u8::try_from(value).ok());
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or_else(|| {
            let Range { min, max, names, .. } = self;
            let names = if names.is_empty() { String::new() } else { format!(" or {}", names.join(" ")) };
            self.error(part, &format!("is not of {min} to {max}{names}"))
        })
    }

    fn error(&self, text: &str, reason: &str) -> ScheduleError {
        ScheduleError(format!("field {}: {text:?} {reason}", self.name))
    }
}

/// Digits only: `usize` would take a plus.
fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
