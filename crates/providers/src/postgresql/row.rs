//! Rows of any type as JSON, as Dapr's binding shows them.
//!
//! Source of the types' binary forms: PostgreSQL, the `_send` functions of `src/backend/utils/adt`.

use crate::sql;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::error::Error;
use std::fmt::Write;
use std::str;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Kind, Type};

/// Between 1970-01-01, from which others count, and 2000-01-01, from which PostgreSQL does.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROSECONDS: i64 = EPOCH_DAYS * 86_400_000_000;

/// Arrays have at most this many dimensions (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;

/// A column's bytes.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw<'a>, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Adds a row, as an array of its values. The error names the column that is of no known type.
pub(super) fn push(json: &mut String, row: &Row) -> Result<(), String> {
    json.push('[');
    for (number, column) in row.columns().iter().enumerate() {
        if number > 0 {
            json.push(',');
        }
        let value: Option<Raw<'_>> = row.try_get(number).map_err(|error| error.to_string())?;
        let written = match value {
            None => {
                json.push_str("null");
                Some(())
            }
            Some(Raw(bytes)) => push_value(json, column.type_(), bytes),
        };
        written.ok_or_else(|| {
            let name = column.name();
            format!(
                "column {name:?} is of type {}, which has no form in JSON; select {name}::text",
                column.type_()
            )
        })?;
    }
    json.push(']');
    Ok(())
}

/// None: the type is not known here, or the bytes are none of it.
fn push_value(json: &mut String, of: &Type, bytes: &[u8]) -> Option<()> {
    match of.kind() {
        Kind::Array(member) => return push_array(json, member, bytes),
        Kind::Domain(of) => return push_value(json, of, bytes),
        Kind::Enum(_) => {
            sql::push_string(json, str::from_utf8(bytes).ok()?);
            return Some(());
        }
        _ => {}
    }
    let integer = |bytes: &[u8]| {
        Some(match bytes.len() {
            1 => i64::from(i8::from_be_bytes(bytes.try_into().ok()?)),
            2 => i64::from(i16::from_be_bytes(bytes.try_into().ok()?)),
            4 => i64::from(i32::from_be_bytes(bytes.try_into().ok()?)),
            8 => i64::from_be_bytes(bytes.try_into().ok()?),
            _ => return None,
        })
    };
    match *of {
        Type::BOOL => json.push_str(if bytes == [0] { "false" } else { "true" }),
        Type::INT2 | Type::INT4 | Type::INT8 => json.push_str(&integer(bytes)?.to_string()),
        Type::OID | Type::XID | Type::CID => {
            json.push_str(&u32::from_be_bytes(bytes.try_into().ok()?).to_string());
        }
        Type::FLOAT4 => push_float(json, f32::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::FLOAT8 => push_float(json, f64::from_be_bytes(bytes.try_into().ok()?).to_string()),
        Type::NUMERIC => push_float(json, numeric(bytes)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML | Type::CHAR => {
            sql::push_string(json, str::from_utf8(bytes).ok()?);
        }
        Type::JSON => json.push_str(str::from_utf8(bytes).ok()?),
        // A version comes first.
        Type::JSONB => json.push_str(str::from_utf8(bytes.strip_prefix(&[1])?).ok()?),
        Type::BYTEA => sql::push_string(json, &STANDARD.encode(bytes)),
        Type::UUID => sql::push_string(json, &uuid(bytes)?),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => sql::push_string(json, &timestamp(integer(bytes)?)),
        Type::DATE => sql::push_string(
            json,
            &match integer(bytes)? {
                day if day == i64::from(i32::MAX) => "infinity".to_owned(),
                day if day == i64::from(i32::MIN) => "-infinity".to_owned(),
                day => format!("{}T00:00:00Z", sql::date(day + EPOCH_DAYS)),
            },
        ),
        Type::TIME => sql::push_string(json, &sql::time(integer(bytes)?)),
        Type::VOID => json.push_str("\"\""),
        // Extensions' types, whose numbers differ from server to server.
        _ if ["citext", "ltree", "lquery"].contains(&of.name()) => {
            let text = bytes.strip_prefix(&[1]).filter(|_| of.name() != "citext").unwrap_or(bytes);
            sql::push_string(json, str::from_utf8(text).ok()?);
        }
        _ => return None,
    }
    Some(())
}

/// JSON has no infinity.
fn push_float(json: &mut String, number: String) {
    match number.as_str() {
        "inf" => json.push_str("\"Infinity\""),
        "-inf" => json.push_str("\"-Infinity\""),
        "NaN" => json.push_str("\"NaN\""),
        number => json.push_str(number),
    }
}

fn timestamp(microseconds: i64) -> String {
    match microseconds {
        i64::MAX => "infinity".to_owned(),
        i64::MIN => "-infinity".to_owned(),
        microseconds => sql::rfc3339(microseconds.saturating_add(EPOCH_MICROSECONDS)),
    }
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let bits = u128::from_be_bytes(bytes.try_into().ok()?);
    let hex = format!("{bits:032x}");
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// Digits of four decimals each, a weight, a sign, and how many decimals to show behind the point.
fn numeric(bytes: &[u8]) -> Option<String> {
    let (head, digits) = bytes.split_at_checked(8)?;
    let field =
        |number: usize| Some(u16::from_be_bytes(head.get(number * 2..number * 2 + 2)?.try_into().ok()?));
    let (weight, sign, scale) = (i32::from(field(1)?.cast_signed()), field(2)?, usize::from(field(3)?));
    let mut text = match sign {
        0x0000 => String::new(),
        0x4000 => "-".to_owned(),
        0xd000 => return Some("inf".to_owned()),
        0xf000 => return Some("-inf".to_owned()),
        _ => return Some("NaN".to_owned()),
    };
    let digit = |place: i32| {
        let start = usize::try_from(weight - place).ok().and_then(|number| number.checked_mul(2));
        let digit = start.and_then(|start| digits.get(start..start + 2));
        digit.map_or(0, |digit| u16::from(digit[0]) << 8 | u16::from(digit[1]))
    };
    if weight < 0 {
        text.push('0');
    }
    for place in (0..=weight).rev() {
        // Writing to a string does not fail.
        let _ = if place == weight {
            write!(text, "{}", digit(place))
        } else {
            write!(text, "{:04}", digit(place))
        };
    }
    if scale > 0 {
        let mut fraction = String::with_capacity(scale + 4);
        for place in (1..).take(scale.div_ceil(4)) {
            let _ = write!(fraction, "{:04}", digit(-place));
        }
        fraction.truncate(scale);
        let _ = write!(text, ".{fraction}");
    }
    Some(text)
}

fn push_array(json: &mut String, member: &Type, bytes: &[u8]) -> Option<()> {
    let mut bytes = bytes;
    let dimensions = usize::try_from(take(&mut bytes)?).ok().filter(|number| *number <= MAX_DIMENSIONS)?;
    // Whether there are nulls, and the type of the members.
    take(&mut bytes)?;
    take(&mut bytes)?;
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lengths.push(take(&mut bytes)?);
        // Where the numbers of its members begin.
        take(&mut bytes)?;
    }
    if lengths.is_empty() {
        json.push_str("[]");
        return Some(());
    }
    push_dimension(json, member, &lengths, &mut bytes)
}

fn push_dimension(json: &mut String, member: &Type, lengths: &[i32], bytes: &mut &[u8]) -> Option<()> {
    let Some((length, inner)) = lengths.split_first() else {
        let Ok(length) = usize::try_from(take(bytes)?) else {
            json.push_str("null");
            return Some(());
        };
        let (value, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        return push_value(json, member, value);
    };
    json.push('[');
    for number in 0..*length {
        if number > 0 {
            json.push(',');
        }
        push_dimension(json, member, inner, bytes)?;
    }
    json.push(']');
    Some(())
}

fn take(bytes: &mut &[u8]) -> Option<i32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_bytes_are_none() {
        let int8_array = Type::INT8_ARRAY;
        for (of, bytes) in [
            (Type::INT4, &[1, 2, 3][..]),
            (Type::UUID, &[0; 15]),
            (Type::NUMERIC, &[0; 7]),
            (Type::JSONB, b"{}"),
            (Type::TEXT, b"\xff"),
            (Type::POINT, &[0; 16]),
            (int8_array.clone(), &[0, 0, 0, 1]),
            (int8_array.clone(), &[0xff; 20]),
            (
                int8_array,
                &[
                    0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 20, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x7f, 0xff,
                    0xff, 0xff,
                ],
            ),
        ] {
            assert_eq!(push_value(&mut String::new(), &of, bytes), None, "{of} {bytes:?}");
        }
    }
}
