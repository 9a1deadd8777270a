//! Moments, and Go's way to write them: an example of 2006-01-02 15:04:05 -0700, <https://pkg.go.dev/time#Layout>.
//!
//! A moment is text as RFC 3339 has it, so that it may go through parameters; seconds since 1970 are one, too. Without a
//! zone it is in UTC, as in Argo's controller.

use super::evaluate::integer;
use super::functions::to_integer;
use dhow_resources::error::quote;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::Value;

/// Parts of Go's example and what strftime calls them; where one begins like another, the longer one is first.
const PARTS: [(&str, &str); 27] = [
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "%Z"),
    ("2006", "%Y"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("Z07:00", "%:z"),
    ("Z0700", "%z"),
    (".000000000", ".%9f"),
    (".000000", ".%6f"),
    (".000", ".%3f"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("PM", "%p"),
    ("_2", "%e"),
    ("1", "%-m"),
    ("2", "%-d"),
    ("3", "%-I"),
    ("%", "%%"),
];

/// This moment.
pub(super) fn now() -> Value {
    shown(&Timestamp::now().to_zoned(TimeZone::UTC))
}

/// A moment, or a day, as text.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let local = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok();
    moment(&text.into()).ok().or_else(local).map(|zoned| shown(&zoned)).ok_or_else(|| unknown(text))
}

/// A moment by Go's example.
pub(super) fn format(layout: &str, value: &Value, zone: &str) -> Result<Value, String> {
    let moment = moment(value)?.with_time_zone(zone_of(zone)?);
    // `Z07:00` is `Z` in UTC.
    let layout = match moment.offset().is_zero() {
        true => layout.replace("Z07:00", "Z").replace("Z0700", "Z"),
        false => layout.to_owned(),
    };
    let text = jiff::fmt::strtime::format(strftime(&layout), &moment);
    text.map(Value::from).map_err(|error| format!("the layout {}: {error}", quote(&layout)))
}

fn zone_of(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" | "Local" => Ok(TimeZone::UTC),
        name => TimeZone::get(name).map_err(|_| format!("there is no time zone {}", quote(name))),
    }
}

/// The name of a time zone, if there is one; an empty one is UTC.
pub(crate) fn timezone(name: &str) -> Result<Value, String> {
    zone_of(name).map(|_| name.into())
}

/// Seconds as Go writes a duration: `1h1m5s`.
pub(super) fn duration(value: &Value) -> Result<Value, String> {
    let seconds = to_integer(value).and_then(|seconds| integer(&seconds))?;
    let (sign, seconds) = (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs());
    Ok(match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{sign}{seconds}s"),
        (0, minutes, seconds) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
    .into())
}

/// The time since a moment, as Go writes a duration.
pub(super) fn ago(value: &Value) -> Result<Value, String> {
    let seconds = Timestamp::now().as_second().saturating_sub(moment(value)?.timestamp().as_second());
    duration(&seconds.into())
}

/// The moment that a text says, by Go's example.
pub(super) fn parse(layout: &str, text: &str) -> Result<Value, String> {
    let wrong =
        |error: jiff::Error| format!("{} is not written like {}: {error}", quote(text), quote(layout));
    let broken = jiff::fmt::strtime::parse(strftime(layout), text).map_err(wrong)?;
    let moment = match broken.offset() {
        Some(_) => broken.to_zoned(),
        None => broken
            .to_datetime()
            .or_else(|_| broken.to_date().map(|date| date.at(0, 0, 0, 0)))
            .and_then(|time| time.to_zoned(TimeZone::UTC)),
    };
    moment.map(|moment| shown(&moment)).map_err(wrong)
}

/// A moment some time later; earlier, if the duration begins with `-`.
pub(super) fn modify(duration: &str, value: &Value) -> Result<Value, String> {
    let (is_back, plain) = match duration.strip_prefix('-') {
        Some(plain) => (true, plain),
        None => (false, duration.strip_prefix('+').unwrap_or(duration)),
    };
    let length =
        SignedDuration::try_from(crate::controller::duration(plain)?).map_err(|error| error.to_string())?;
    let (from, zone) = (moment(value)?, if is_back { -length } else { length });
    from.checked_add(zone).map(|moment| shown(&moment)).map_err(|error| error.to_string())
}

/// Seconds since 1970.
pub(super) fn seconds(value: &Value) -> Result<Value, String> {
    Ok(moment(value)?.timestamp().as_second().into())
}

fn moment(value: &Value) -> Result<Zoned, String> {
    if let Some(seconds) = value.as_i64() {
        let moment = Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
        return Ok(moment.to_zoned(TimeZone::UTC));
    }
    let text = value.as_str().unwrap_or_default();
    let pieces = jiff::fmt::temporal::Pieces::parse(text).map_err(|_| unknown(text))?;
    let moment: Timestamp = text.parse().map_err(|_| unknown(text))?;
    let zone = pieces.to_numeric_offset().map_or(TimeZone::UTC, TimeZone::fixed);
    Ok(moment.to_zoned(zone))
}

fn unknown(text: &str) -> String {
    format!("{} is no moment such as 2026-11-22T05:00:00Z", quote(text))
}

fn shown(moment: &Zoned) -> Value {
    let zone = if moment.offset().is_zero() { "Z" } else { "%:z" };
    moment.strftime(&format!("%Y-%m-%dT%H:%M:%S{zone}")).to_string().into()
}

fn strftime(layout: &str) -> String {
    let mut format = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        let found = PARTS.iter().find_map(|(part, letter)| Some((rest.strip_prefix(part)?, letter)));
        if let Some((behind, letter)) = found {
            format.push_str(letter);
            rest = behind;
        } else {
            format.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    format
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn moments_are_written_as_go_writes_them() {
        let moment = json!("2026-03-04T15:06:07Z");
        for (layout, zone, expected) in [
            ("2006-01-02", "", "2026-03-04"),
            ("20060102-150405", "", "20260304-150607"),
            ("Mon, 02 Jan 2006 15:04:05 MST", "", "Wed, 04 Mar 2026 15:06:07 UTC"),
            ("Monday January 2 3:04 PM 06 _2 1", "", "Wednesday March 4 3:06 PM 26  4 3"),
            ("2006-01-02T15:04:05Z07:00", "", "2026-03-04T15:06:07Z"),
            ("2006-01-02T15:04:05Z07:00", "Asia/Tokyo", "2026-03-05T00:06:07+09:00"),
            ("15:04:05.000 -0700 002 100%", "", "15:06:07.000 +0000 063 300%"),
        ] {
            assert_eq!(format(layout, &moment, zone), Ok(expected.into()), "{layout}");
        }
        assert_eq!(format("2006", &json!(0), ""), Ok("1970".into()));
        assert_eq!(parse("02.01.2006", "04.03.2026"), Ok("2026-03-04T00:00:00Z".into()));
        assert_eq!(
            parse("2006-01-02 15:04 -0700", "2026-03-04 15:06 +0100"),
            Ok("2026-03-04T15:06:00+01:00".into())
        );
        assert_eq!(read("2026-03-04"), Ok("2026-03-04T00:00:00Z".into()));
        assert_eq!(modify("-1h30m", &moment), Ok("2026-03-04T13:36:07Z".into()));
        assert_eq!(modify("+1s", &moment), Ok("2026-03-04T15:06:08Z".into()));
        assert_eq!(seconds(&moment), Ok(json!(1_772_636_767)));
        for (seconds, expected) in [(0, "0s"), (95, "1m35s"), (3600, "1h0m0s"), (-61, "-1m1s")] {
            assert_eq!(duration(&json!(seconds)), Ok(expected.into()));
        }
        assert!(timezone("Asia/Tokyo").is_ok() && timezone("No/Where").is_err());
        for wrong in ["", "x", "2026-13-01", "now"] {
            assert!(read(wrong).is_err() && seconds(&wrong.into()).is_err(), "{wrong}");
        }
        assert!(parse("2006", "x").is_err() && modify("x", &moment).is_err());
        assert!(format("2006", &moment, "No/Where").is_err());
    }
}
