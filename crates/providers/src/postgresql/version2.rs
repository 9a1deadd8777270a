//! `state.postgresql/v2`: values as bytes, a random UUID as etag.
//!
//! Source of the table's form: components-contrib, `state/postgresql/v2/postgresql.go`.

use super::state::Statements;
use super::version1::list;

/// The step that made the table what it is.
pub(super) fn steps(table: &str) -> Vec<String> {
    vec![format!(
        "CREATE TABLE {table} (
            key text NOT NULL PRIMARY KEY,
            value bytea NOT NULL,
            etag uuid NOT NULL DEFAULT gen_random_uuid(),
            created_at timestamp with time zone NOT NULL DEFAULT now(),
            updated_at timestamp with time zone,
            expires_at timestamp with time zone
        );
        CREATE INDEX ON {table} (expires_at);"
    )]
}

/// `$3`, which says whether a value is binary, has no column here.
pub(super) fn statements(table: &str) -> Statements {
    let columns = "key, value, true, etag::text, (extract(epoch FROM expires_at) * 1000000)::bigint";
    let live = "(expires_at IS NULL OR expires_at > now())";
    let expiry = "now() + $4::bigint * interval '1 microsecond'";
    let insert = format!(
        "INSERT INTO {table} AS t (key, value, etag, expires_at) VALUES ($1, $2, gen_random_uuid(), {expiry})
         ON CONFLICT (key)"
    );
    let update = "value = excluded.value, etag = excluded.etag, updated_at = now(), \
                  expires_at = excluded.expires_at";
    Statements {
        get: format!("SELECT {columns} FROM {table} WHERE key = $1 AND {live}"),
        get_many: format!("SELECT {columns} FROM {table} WHERE key = ANY($1) AND {live}"),
        set: format!("{insert} DO UPDATE SET {update}"),
        set_first: format!("{insert} DO UPDATE SET {update} WHERE t.expires_at <= now()"),
        set_if: format!(
            "UPDATE {table} SET value = $2, updated_at = now(), etag = gen_random_uuid(), expires_at = {expiry}
             WHERE key = $1 AND etag::text = $5 AND {live}"
        ),
        insert: format!("{insert} DO NOTHING"),
        lock: format!("SELECT {columns}, {live} FROM {table} WHERE key = $1 FOR UPDATE"),
        keep: format!(
            "UPDATE {table} SET value = $2, updated_at = now(), etag = gen_random_uuid() WHERE key = $1"
        ),
        delete: format!("DELETE FROM {table} WHERE key = $1"),
        delete_if: format!("DELETE FROM {table} WHERE key = $1 AND etag::text = $2 AND {live}"),
        list: list(table, live),
        search: String::new(),
        clean: format!("DELETE FROM {table} WHERE expires_at IS NOT NULL AND expires_at < now()"),
    }
}

/// Etags are UUIDs, in the server's spelling.
pub(super) fn is_etag(etag: &str) -> bool {
    etag.len() == 36
        && etag.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}
