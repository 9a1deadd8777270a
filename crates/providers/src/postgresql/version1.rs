//! `state.postgresql/v1`: values as `jsonb`, the row's `xmin` as etag.
//!
//! Source of the table's form: components-contrib, `state/postgresql/v1/migrations.go`. As in Dapr a JSON
//! document is stored as such, so that it can be searched, and comes back in the server's spelling; any other
//! value is a JSON string of base64, marked by `isbinary`.

use super::state::{Statements, Stored};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use std::str;

/// Steps that made the table what it is.
pub(super) fn steps(table: &str) -> Vec<String> {
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (
                key text NOT NULL PRIMARY KEY,
                value jsonb NOT NULL,
                isbinary boolean NOT NULL,
                insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
                updatedate TIMESTAMP WITH TIME ZONE NULL
            )"
        ),
        format!("ALTER TABLE {table} ADD expiredate TIMESTAMP WITH TIME ZONE"),
    ]
}

pub(super) fn statements(table: &str) -> Statements {
    let columns =
        "key, value::text, isbinary, xmin::text, (extract(epoch FROM expiredate) * 1000000)::bigint";
    let live = "(expiredate IS NULL OR expiredate > now())";
    let expiry = "now() + $4::bigint * interval '1 microsecond'";
    let insert = format!(
        "INSERT INTO {table} AS t (key, value, isbinary, expiredate) VALUES ($1, $2::jsonb, $3, {expiry})
         ON CONFLICT (key)"
    );
    let update = "value = excluded.value, isbinary = excluded.isbinary, updatedate = now(), \
                  expiredate = excluded.expiredate";
    Statements {
        get: format!("SELECT {columns} FROM {table} WHERE key = $1 AND {live}"),
        get_many: format!("SELECT {columns} FROM {table} WHERE key = ANY($1) AND {live}"),
        set: format!("{insert} DO UPDATE SET {update}"),
        set_first: format!("{insert} DO UPDATE SET {update} WHERE t.expiredate <= now()"),
        set_if: format!(
            "UPDATE {table} SET value = $2::jsonb, isbinary = $3, updatedate = now(), expiredate = {expiry}
             WHERE key = $1 AND xmin::text = $5 AND {live}"
        ),
        insert: format!("{insert} DO NOTHING"),
        lock: format!("SELECT {columns}, {live} FROM {table} WHERE key = $1 FOR UPDATE"),
        keep: format!(
            "UPDATE {table} SET value = $2::jsonb, isbinary = $3, updatedate = now() WHERE key = $1"
        ),
        delete: format!("DELETE FROM {table} WHERE key = $1"),
        delete_if: format!("DELETE FROM {table} WHERE key = $1 AND xmin::text = $2 AND {live}"),
        list: list(table, live),
        search: format!("SELECT {columns} FROM {table} WHERE {live}"),
        clean: format!("DELETE FROM {table} WHERE expiredate IS NOT NULL AND expiredate < now()"),
    }
}

/// Keys from `$1` on, before `$2`, after `$3`, at most `$4`. An index over `key COLLATE "C"`, if somebody made
/// one, is used.
pub(super) fn list(table: &str, live: &str) -> String {
    format!(
        "SELECT key FROM {table} WHERE key COLLATE \"C\" >= $1 AND ($2::text IS NULL OR key COLLATE \"C\" < $2)
         AND ($3::text IS NULL OR key COLLATE \"C\" > $3) AND {live} ORDER BY key COLLATE \"C\" LIMIT $4"
    )
}

/// The columns `value` and `isbinary`.
pub(super) fn encode(value: &Bytes, json: bool) -> (Stored, bool) {
    match document(value).filter(|_| json) {
        Some(document) => (Stored::Text(document.to_owned()), false),
        None => (Stored::Text(format!("\"{}\"", STANDARD.encode(value))), true),
    }
}

/// The value in these columns; none if it is not what `isbinary` says.
pub(super) fn decode(value: String, is_binary: bool) -> Option<Bytes> {
    if !is_binary {
        return Some(value.into());
    }
    let base64: String = serde_json::from_str(&value).ok()?;
    Some(STANDARD.decode(base64).ok()?.into())
}

/// Etags are transaction numbers.
pub(super) fn is_etag(etag: &str) -> bool {
    etag.parse::<u32>().is_ok_and(|number| number.to_string() == etag)
}

/// A JSON document that the server takes: it knows neither zeros nor halves of pairs in a text.
fn document(value: &[u8]) -> Option<&str> {
    let text = serde_json::from_slice::<&RawValue>(value).ok()?.get();
    let escapes = text.contains("\\u");
    (!escapes || (!text.contains("\\u0000") && serde_json::from_str::<Value>(text).is_ok())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_stored_as_such() {
        for (value, json, text, is_binary) in [
            (&b"{\"a\": 1}"[..], true, "{\"a\": 1}", false),
            (b" 1e5 ", true, "1e5", false),
            (b"\"\\u00e9\"", true, "\"\\u00e9\"", false),
            (b"{\"a\": 1}", false, "\"eyJhIjogMX0=\"", true),
            (b"hello", true, "\"aGVsbG8=\"", true),
            (b"", true, "\"\"", true),
            (b"\"\\u0000\"", true, "\"Ilx1MDAwMCI=\"", true),
            (b"\"\\ud800\"", true, "\"Ilx1ZDgwMCI=\"", true),
            (b"\"\xff\"", true, "\"Iv8i\"", true),
        ] {
            let value = Bytes::copy_from_slice(value);
            let (stored, binary) = encode(&value, json);
            assert_eq!((&stored, binary), (&Stored::Text(text.to_owned()), is_binary), "{value:?}");
            if binary {
                assert_eq!(decode(text.to_owned(), true), Some(value));
            }
        }
        for broken in ["1", "{}", "\"%\""] {
            assert_eq!(decode(broken.to_owned(), true), None, "{broken}");
        }
    }

    #[test]
    fn etags() {
        for (etag, expected) in [
            ("7", true),
            ("4294967295", true),
            ("4294967296", false),
            ("07", false),
            (" 7", false),
            ("+7", false),
            ("", false),
        ] {
            assert_eq!(is_etag(etag), expected, "{etag:?}");
        }
    }
}
