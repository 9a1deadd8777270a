//! Sizes, durations and addresses as people write them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Reads a size: bytes as digits, or with `KB`, `MB`, `GB` (powers of 1000) or `KiB`, `MiB`, `GiB` (powers
/// of 1024). Fractions are allowed with a unit. The error says what was expected.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str =
        "expected bytes as a number, or a size such as \"64KiB\", \"256MiB\", \"2GiB\", \"10MB\"";
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return Err(EXPECTED),
    };
    let number = number.replace('_', "");
    scale(&number, factor.into())
        .and_then(|bytes| u64::try_from(bytes).ok())
        .filter(|_| factor > 1 || !number.contains('.'))
        .ok_or(EXPECTED)
}

/// Reads an address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`. The error says what was expected.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    let local = local.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    local.or_else(|| text.parse().ok()).ok_or_else(|| match text.trim_start_matches(':').parse::<u16>() {
        Ok(port) => format!("expected address and port, such as \"127.0.0.1:{port}\" or \"0.0.0.0:{port}\""),
        Err(_) => "expected address and port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
    })
}

/// Reads a duration: one or more numbers with the units `ns`, `us`, `ms`, `s`, `m`, `h`, largest first by
/// custom: `30s`, `1m30s`, `1.5h`, `.5s`. A number without a unit is refused. The error says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "expected a duration with its unit, such as \"500ms\", \"30s\", \"2m\", \"1h\"";
    let mut rest = text.trim();
    let mut total: u128 = 0;
    if rest.is_empty() {
        return Err(EXPECTED);
    }
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(EXPECTED)?;
        let (number, tail) = rest.split_at(split);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let nanoseconds: u128 = match unit.trim() {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60 * 1_000_000_000,
            "h" => 3600 * 1_000_000_000,
            _ => return Err(EXPECTED),
        };
        total = scale(number, nanoseconds).and_then(|part| total.checked_add(part)).ok_or(EXPECTED)?;
        rest = tail;
    }
    // 584 years of nanoseconds: more is a mistake, and less fits every timer.
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| EXPECTED)
}

/// Reads a duration as Dapr does: like [`parse_duration`], and a bare integer is milliseconds. The error says what
/// was expected. Source: Dapr's resiliency policies.
pub fn parse_dapr_duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str =
        "expected a duration such as \"500ms\", \"30s\", \"1m30s\", or milliseconds as a number";
    let text = text.strip_prefix('+').unwrap_or(text);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Duration::from_millis).map_err(|_| EXPECTED);
    }
    parse_duration(text).map_err(|_| EXPECTED)
}

/// Reads a quantity of bytes as Kubernetes and Dapr write it: `4Mi`, `512Ki` (powers of 1024), `4M`, `512k` (powers
/// of 1000) or digits. The error says what was expected.
pub fn parse_quantity(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected bytes as a number, or a quantity such as \"4Mi\", \"512Ki\", \"10M\"";
    let has_unit = text.ends_with(['i', 'k', 'K', 'M', 'G']);
    parse_size(&if has_unit { format!("{text}B") } else { text.to_owned() }).map_err(|_| EXPECTED)
}

/// A decimal number times a factor, without rounding surprises; `None` when it is not a number or too large.
fn scale(number: &str, factor: u128) -> Option<u128> {
    let (whole, fraction) = match number.split_once('.') {
        None => (number, "0"),
        // One side of the point may be left out, as Go's parser allows.
        Some(("", fraction)) => ("0", fraction),
        Some((whole, "")) => (whole, "0"),
        Some(sides) => sides,
    };
    let digits = |text: &str| -> Option<u128> {
        (!text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())?
    };
    let fraction = if fraction.len() > 12 { fraction.get(..12)? } else { fraction };
    let unit = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = digits(fraction)?.checked_mul(factor)? / unit;
    digits(whole)?.checked_mul(factor)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::{parse_dapr_duration, parse_duration, parse_quantity, parse_size};
    use std::time::Duration;

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("100_000", Some(100_000)),
            ("64KiB", Some(65_536)),
            ("64 kib", Some(65_536)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("10MB", Some(10_000_000)),
            ("1.5KiB", Some(1536)),
            ("1.5", None),
            ("", None),
            ("MiB", None),
            ("1 TiBit", None),
            ("-1", None),
            ("1..5KiB", None),
            ("99999999999999999999GiB", None),
            ("999999999999999999999999999999", None),
            ("1é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        let cases = [
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3600))),
            ("1m30s", Some(Duration::from_secs(90))),
            ("1.5h", Some(Duration::from_secs(5400))),
            (".5s", Some(Duration::from_millis(500))),
            ("2.s", Some(Duration::from_secs(2))),
            (".s", None),
            ("0s", Some(Duration::ZERO)),
            ("30", None),
            ("", None),
            ("s", None),
            ("30x", None),
            ("-1s", None),
            ("999999999999h", None),
            ("1.é5s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_of_dapr() {
        let cases = [
            ("5s", Some(5000)),
            ("+1m30s", Some(90_000)),
            ("250", Some(250)),
            ("0", Some(0)),
            ("-1s", None),
            ("-1", None),
            ("", None),
            ("+", None),
            ("5 potatoes", None),
            ("99999999999999999999", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(parse_dapr_duration(text).ok(), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn quantities() {
        let cases = [
            ("4Mi", Some(4 << 20)),
            ("512Ki", Some(512 << 10)),
            ("1.5Gi", Some(3 << 29)),
            ("10M", Some(10_000_000)),
            ("3k", Some(3000)),
            ("4096", Some(4096)),
            ("64KiB", Some(65_536)),
            ("", None),
            ("i", None),
            ("-1", None),
            ("4 é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_quantity(text).ok(), expected, "{text:?}");
        }
    }
}
