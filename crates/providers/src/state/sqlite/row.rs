//! Values, times and etags as columns.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dhow_blocks::state::{Item, Ttl};
use rusqlite::Row;
use rusqlite::types::Type;
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last instant that the column can hold, in milliseconds of Unix time: 9999-12-31 23:59:59.999.
const LAST_MILLISECOND: u128 = 253_402_300_799_999;

const DAY: u64 = 24 * 3600;

/// The `value` and `is_binary` columns of some bytes.
pub(super) fn encode(value: &[u8]) -> (Cow<'_, str>, bool) {
    match std::str::from_utf8(value) {
        // Tools that take text for a C string would cut it at the zero.
        Ok(text) if !value.contains(&0) => (Cow::Borrowed(text), false),
        _ => (Cow::Owned(STANDARD.encode(value)), true),
    }
}

/// The bytes of a row whose columns at `value` and `value + 1` are `value` and `is_binary`.
fn decode(row: &Row<'_>, value: usize) -> rusqlite::Result<Bytes> {
    let stored = row.get_ref(value)?.as_bytes().map_err(|error| conversion(value, Type::Text, error))?;
    if row.get::<_, bool>(value + 1)? {
        let bytes = STANDARD.decode(stored).map_err(|error| conversion(value, Type::Text, error))?;
        Ok(bytes.into())
    } else {
        Ok(Bytes::copy_from_slice(stored))
    }
}

/// The item in a row of `value, is_binary, etag, expiration_time`; `None` when it has expired. The clock is
/// read only when the row can expire.
pub(super) fn item(row: &Row<'_>, now: impl FnOnce() -> SystemTime) -> rusqlite::Result<Option<Item>> {
    let expiration = row.get_ref(3)?.as_str_or_null().map_err(|error| conversion(3, Type::Text, error))?;
    if expiration.is_some_and(|expiration| expiration <= format_time(now()).as_str()) {
        return Ok(None);
    }
    let expires_at = expiration.and_then(parse_time);
    Ok(Some(Item { value: decode(row, 0)?, etag: row.get(2)?, expires_at }))
}

/// A fresh etag: a random UUID, as Dapr writes it.
pub(super) fn new_etag() -> String {
    crate::uuid::random()
}

/// The `expiration_time` column of a write; `None` also for a time beyond the year 9999.
pub(super) fn expiration(ttl: Ttl, now: SystemTime) -> Option<String> {
    match ttl {
        Ttl::Forever => None,
        Ttl::After(duration) => {
            let since_epoch = since_epoch(now).checked_add(duration)?;
            (since_epoch.as_millis() <= LAST_MILLISECOND).then(|| format_since_epoch(since_epoch))
        }
    }
}

/// An instant as the column holds it: `YYYY-MM-DD HH:MM:SS.mmm`, UTC. Earlier text sorts before later text,
/// also beside Dapr's own, which has no milliseconds.
pub(super) fn format_time(time: SystemTime) -> String {
    format_since_epoch(since_epoch(time))
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

fn format_since_epoch(time: Duration) -> String {
    let (seconds, milliseconds) = (time.as_secs(), time.subsec_millis());
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{milliseconds:03}",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Reads `YYYY-MM-DD HH:MM:SS` with an optional fraction, `T` for the space and `Z` at the end.
fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (date, time) = whole.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let mut time = time.splitn(3, ':').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let in_range = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds = digits.parse::<u32>().ok()?;
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// Year, month and day of a day counted from 1970-01-01 (proleptic Gregorian calendar).
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last of a year and each 400 years are alike.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// The inverse of [`date`], for years from 1970.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn conversion(
    column: usize,
    kind: Type,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_as_sqlite_does() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let mut day = 0;
        while day < 2_932_896 {
            let time = UNIX_EPOCH + Duration::from_millis(day * DAY * 1000 + day * 7919 % 86_400_000);
            let theirs: String = connection
                .query_row(
                    "SELECT strftime('%Y-%m-%d %H:%M:%f', ?1 / 1000.0, 'unixepoch')",
                    [i64::try_from(since_epoch(time).as_millis()).unwrap()],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(format_time(time), theirs);
            assert_eq!(parse_time(&theirs), Some(time), "{theirs}");
            day += 97;
        }
    }

    #[test]
    fn times_of_other_writers_are_read() {
        let expected = Some(UNIX_EPOCH + Duration::from_secs(951_827_696));
        for text in ["2000-02-29 12:34:56", "2000-02-29T12:34:56Z", "2000-02-29 12:34:56.000"] {
            assert_eq!(parse_time(text), expected, "{text}");
        }
        for text in
            ["", "soon", "2000-02-29", "2000-13-01 00:00:00", "1-1-1 1:1:1", "2000-02-29 12:34:56.x", "🐪 🐪"]
        {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn etags_are_random_uuids() {
        let (one, other) = (new_etag(), new_etag());
        assert_ne!(one, other);
        for etag in [one, other] {
            let lengths: Vec<usize> = etag.split('-').map(str::len).collect();
            assert_eq!(lengths, [8, 4, 4, 4, 12], "{etag}");
            assert_eq!(&etag[14..15], "4", "{etag}");
            assert!("89ab".contains(&etag[19..20]), "{etag}");
        }
    }

    #[test]
    fn only_text_is_stored_as_text() {
        let cases: [(&[u8], &str, bool); 5] = [
            (b"", "", false),
            (b"{\"a\": 1}", "{\"a\": 1}", false),
            ("Grüße".as_bytes(), "Grüße", false),
            (b"\xff", "/w==", true),
            (b"a\0b", "YQBi", true),
        ];
        for (value, text, is_binary) in cases {
            assert_eq!(encode(value), (Cow::Borrowed(text), is_binary));
        }
    }
}
