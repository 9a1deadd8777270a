//! Rows of any type as JSON, as Dapr's binding shows them: objects, in which what is NULL is left out.

use crate::sql;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mysql_async::consts::ColumnType;
use mysql_async::{Column, Row, Value};
use serde_json::value::RawValue;
use std::fmt::Write;
use std::str;

/// The character set of bytes that are no text.
const BINARY: u16 = 63;

/// Adds a row.
pub(super) fn push(json: &mut String, row: Row) {
    json.push('{');
    let columns = row.columns();
    let mut first = true;
    for (column, value) in columns.iter().zip(row.unwrap()) {
        if value == Value::NULL {
            continue;
        }
        if !first {
            json.push(',');
        }
        first = false;
        sql::push_string(json, &column.name_str());
        json.push(':');
        push_value(json, column, value);
    }
    json.push('}');
}

fn push_value(json: &mut String, column: &Column, value: Value) {
    // Writing to a string does not fail.
    let _ = match value {
        Value::NULL => write!(json, "null"),
        Value::Int(number) => write!(json, "{number}"),
        Value::UInt(number) => write!(json, "{number}"),
        Value::Float(number) => write!(json, "{number}"),
        Value::Double(number) => write!(json, "{number}"),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
            let time = sql::time(seconds * 1_000_000 + i64::from(micros));
            write!(json, "\"{year:04}-{month:02}-{day:02}T{time}Z\"")
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => {
            let hours = i64::from(days) * 24 + i64::from(hours);
            let seconds = hours * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
            let time = sql::time(seconds * 1_000_000 + i64::from(micros));
            write!(json, "\"{}{time}\"", if negative { "-" } else { "" })
        }
        Value::Bytes(bytes) => {
            push_bytes(json, column, &bytes);
            Ok(())
        }
    };
}

/// A value as text, as the server sends all of them for a statement without parameters.
fn push_bytes(json: &mut String, column: &Column, bytes: &[u8]) {
    use ColumnType::{
        MYSQL_TYPE_DATE, MYSQL_TYPE_DATETIME, MYSQL_TYPE_DOUBLE, MYSQL_TYPE_FLOAT, MYSQL_TYPE_INT24,
        MYSQL_TYPE_JSON, MYSQL_TYPE_LONG, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_SHORT, MYSQL_TYPE_TIMESTAMP,
        MYSQL_TYPE_TINY, MYSQL_TYPE_YEAR,
    };
    let text = str::from_utf8(bytes).ok();
    match (column.column_type(), text) {
        (
            MYSQL_TYPE_TINY | MYSQL_TYPE_SHORT | MYSQL_TYPE_INT24 | MYSQL_TYPE_LONG | MYSQL_TYPE_LONGLONG
            | MYSQL_TYPE_YEAR | MYSQL_TYPE_FLOAT | MYSQL_TYPE_DOUBLE | MYSQL_TYPE_JSON,
            Some(text),
        ) if serde_json::from_str::<&RawValue>(text).is_ok() => json.push_str(text),
        (MYSQL_TYPE_DATE | MYSQL_TYPE_DATETIME | MYSQL_TYPE_TIMESTAMP, Some(text)) => {
            let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
            // No more digits than there are.
            let time =
                if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.') } else { time };
            sql::push_string(json, &format!("{date}T{time}Z"));
        }
        (of, Some(text)) if column.character_set() != BINARY || !is_bytes(of) => sql::push_string(json, text),
        _ => sql::push_string(json, &STANDARD.encode(bytes)),
    }
}

/// Columns of this type hold text or bytes, as their character set says; others are sent as text in any case.
fn is_bytes(of: ColumnType) -> bool {
    use ColumnType::{
        MYSQL_TYPE_BIT, MYSQL_TYPE_BLOB, MYSQL_TYPE_GEOMETRY, MYSQL_TYPE_LONG_BLOB, MYSQL_TYPE_MEDIUM_BLOB,
        MYSQL_TYPE_STRING, MYSQL_TYPE_TINY_BLOB, MYSQL_TYPE_VAR_STRING, MYSQL_TYPE_VARCHAR,
    };
    [
        MYSQL_TYPE_BIT,
        MYSQL_TYPE_BLOB,
        MYSQL_TYPE_GEOMETRY,
        MYSQL_TYPE_LONG_BLOB,
        MYSQL_TYPE_MEDIUM_BLOB,
        MYSQL_TYPE_STRING,
        MYSQL_TYPE_TINY_BLOB,
        MYSQL_TYPE_VAR_STRING,
        MYSQL_TYPE_VARCHAR,
    ]
    .contains(&of)
}
