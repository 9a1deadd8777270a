//! Texts for people: sizes, times, tables, and what others wrote made harmless.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// `09:56:33.123Z`: the time of day in UTC, which is the same in all logs of a cluster.
pub(crate) fn time_of_day(time: SystemTime) -> String {
    let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let seconds = millis / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60, millis % 1000)
}

/// `3d4h`, `5h12m`, `7m`, `42s`.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// `1.5 MiB`; bytes below a KiB as they are.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// The text without anything that a terminal would obey; lines after the first are indented.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\n    "),
            '\t' => shown.push('\t'),
            c if c.is_control() => drop(write!(shown, "{}", c.escape_default())),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// `/a, /b for shop.test, *.shop.test`: what an app serves, or nothing if it serves no requests from outside.
pub(crate) fn routes(routes: &[String], hosts: &[String]) -> Option<String> {
    match (routes, hosts) {
        ([], _) => None,
        (routes, []) => Some(routes.join(", ")),
        (routes, hosts) => Some(format!("{} for {}", routes.join(", "), hosts.join(", "))),
    }
}

/// The text as one word of a command line for `sh`, in quotes if it needs them.
pub(crate) fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

/// Columns as wide as their widest cell, two spaces apart.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{duration, printable, routes, shell_word, size, table, time_of_day};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn people_can_read_it() {
        let cases = [
            (size(0), "0 bytes"),
            (size(1023), "1023 bytes"),
            (size(1536), "1.5 KiB"),
            (size(64 << 20), "64.0 MiB"),
            (size(u64::MAX), "16777216.0 TiB"),
            (duration(0), "0s"),
            (duration(59), "59s"),
            (duration(61), "1m"),
            (duration(3661), "1h1m"),
            (duration(90_000), "1d1h"),
            (time_of_day(UNIX_EPOCH + Duration::from_millis(86_400_000 + 3_723_004)), "01:02:03.004Z"),
            (printable("plain ü").into_owned(), "plain ü"),
            (printable("\x1b[2J\r\u{9b}x").into_owned(), "\\u{1b}[2J\\r\\u{9b}x"),
            (printable("a\nb\tc").into_owned(), "a\n    b\tc"),
            (shell_word("apps/my-app_1.2").into_owned(), "apps/my-app_1.2"),
            (shell_word("my app").into_owned(), "'my app'"),
            (shell_word("it's $HOME").into_owned(), r"'it'\''s $HOME'"),
            (shell_word("").into_owned(), "''"),
            (table(&[["A".into(), "BB".into()], ["ccc".into(), String::new()]]), "A    BB\nccc\n"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn routes_are_told_with_the_names_that_they_belong_to() {
        let cases: [(&[&str], &[&str], Option<&str>); 4] = [
            (&[], &[], None),
            (&["/"], &[], Some("/")),
            (&["/a", "/b"], &[], Some("/a, /b")),
            (&["/"], &["shop.test", "*.shop.test"], Some("/ for shop.test, *.shop.test")),
        ];
        for (paths, names, expected) in cases {
            let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(routes(&strings(paths), &strings(names)).as_deref(), expected);
        }
    }
}
