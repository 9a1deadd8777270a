//! The SQL of the state store.

/// The statements of one table. Parameters have names: `id`, `value`, `isbinary`, `etag` (the new one), `ttl` in
/// microseconds, `old` (the etag of a condition); of lists `low`, `high`, `after`, `rows`.
pub(super) struct Statements {
    pub(super) get: String,
    /// Before the keys in parentheses.
    pub(super) get_many: (String, String),
    pub(super) set: String,
    /// Writes if there is no such row, or it has expired.
    pub(super) set_first: String,
    pub(super) set_if: String,
    /// Writes if there is no such row.
    pub(super) insert: String,
    /// Reads, also what has expired, and holds the row; says also whether it is live.
    pub(super) lock: String,
    /// Writes, and keeps the time of expiry.
    pub(super) keep: String,
    pub(super) delete: String,
    pub(super) delete_if: String,
    pub(super) list: String,
    pub(super) clean: String,
    /// Notes that somebody cleans, unless somebody did within `patience` milliseconds.
    pub(super) claim: String,
}

impl Statements {
    /// `exact`: the table compares keys byte by byte.
    pub(super) fn new(table: &str, metadata_table: &str, exact: bool) -> Statements {
        let columns = "id, value, isbinary, eTag, CAST(UNIX_TIMESTAMP(expiredate) AS SIGNED)";
        let live = "(expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)";
        // The table may take two keys for one. Then it keeps the first, and the second is never shown the first.
        let bytes = "CAST(CONVERT(id USING utf8mb4) AS BINARY)";
        let same = format!("{bytes} = CAST(:id AS BINARY)");
        // Whole seconds, after the time to live; what ends after the type's last moment does not end.
        let end = "CEIL(UNIX_TIMESTAMP(NOW(6)) + :ttl / 1000000)";
        let expiry = format!("IF(:ttl IS NULL OR {end} > 2147483647, NULL, FROM_UNIXTIME({end}))");
        let old = "CAST(eTag AS BINARY) = CAST(:old AS BINARY)";
        let insert = format!(
            "INTO `{table}` (id, value, isbinary, eTag, expiredate) VALUES (:id, :value, :isbinary, :etag, {expiry})"
        );
        // Assignments see what those before them assigned: the time of expiry comes last.
        let replace = |condition: &str| {
            let assign = |column: &str| format!("{column} = IF({condition}, VALUES({column}), {column})");
            let columns = ["value", "isbinary", "eTag", "expiredate"].map(assign).join(", ");
            format!("INSERT {insert} ON DUPLICATE KEY UPDATE {columns}")
        };
        // An index knows the order of bytes only where that is the order of keys.
        let key = if exact { "id" } else { bytes };
        let [low, high, after] = ["low", "high", "after"].map(|name| match exact {
            true => format!(":{name}"),
            false => format!("CAST(:{name} AS BINARY)"),
        });
        Statements {
            get: format!("SELECT {columns} FROM `{table}` WHERE id = :id AND {same} AND {live}"),
            get_many: (format!("SELECT {columns} FROM `{table}` WHERE id IN ("), format!(") AND {live}")),
            set: replace(&same),
            set_first: replace(&format!("{same} AND expiredate <= CURRENT_TIMESTAMP")),
            set_if: format!(
                "UPDATE `{table}` SET value = :value, isbinary = :isbinary, eTag = :etag, expiredate = {expiry}
                 WHERE id = :id AND {same} AND {old} AND {live}"
            ),
            insert: format!("INSERT {insert} ON DUPLICATE KEY UPDATE id = id"),
            lock: format!("SELECT {columns}, {live} FROM `{table}` WHERE id = :id AND {same} FOR UPDATE"),
            keep: format!(
                "UPDATE `{table}` SET value = :value, isbinary = :isbinary, eTag = :etag
                 WHERE id = :id AND {same}"
            ),
            delete: format!("DELETE FROM `{table}` WHERE id = :id AND {same}"),
            delete_if: format!("DELETE FROM `{table}` WHERE id = :id AND {same} AND {old} AND {live}"),
            list: format!(
                "SELECT id FROM `{table}` WHERE {key} >= {low} AND (:high IS NULL OR {key} < {high})
                 AND (:after IS NULL OR {key} > {after}) AND {live} ORDER BY {key} LIMIT :rows"
            ),
            clean: format!("DELETE FROM `{table}` WHERE expiredate IS NOT NULL AND expiredate <= CURRENT_TIMESTAMP"),
            claim: format!(
                "INSERT INTO `{metadata_table}` (id, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP)
                 ON DUPLICATE KEY UPDATE value = IF(CURRENT_TIMESTAMP > DATE_ADD(value, INTERVAL :patience * 1000
                 MICROSECOND), CURRENT_TIMESTAMP, value)"
            ),
        }
    }
}
