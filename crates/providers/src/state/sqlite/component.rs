//! `state.sqlite`: from Dapr's metadata fields to [`SqliteOptions`].

use super::{CAPABILITIES, Sqlite, SqliteOptions};
use crate::lazy::Lazy;
use crate::metadata::percent_decode;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::state::in_memory::InMemory;
use dhow_blocks::state::StateStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "state.sqlite",
    aliases: &[],
    versions: &["v1"],
    fields: FIELDS,
    open: Open::State(|component, context| {
        Box::pin(async move {
            let name = component.name.clone();
            // Opening waits for the disk.
            let opened = tokio::task::spawn_blocking(move || open(&component, &context.data_dir));
            opened.await.unwrap_or_else(|error| {
                Err(OpenError::Backend { component: name, reason: error.to_string() })
            })
        })
    }),
};

/// The file of the embedded state store, in the host's data folder.
const EMBEDDED_FILE: &str = "state.db";

const FIELDS: &[&str] = &[
    "connectionString",
    "url",
    "timeout",
    "timeoutInSeconds",
    "busyTimeout",
    "disableWAL",
    "tableName",
    "metadataTableName",
    "cleanupInterval",
    "cleanupIntervalInSeconds",
];

const CONNECTION_STRING: &[&str] = &["connectionString", "url"];

/// Where a connection string says that the database is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A database that lives as long as the process.
    Memory,
    File(PathBuf),
}

/// The store that an app has without any configuration: SQLite in the data folder, opened on first use.
pub fn embedded(data_dir: &Path) -> Arc<dyn StateStore> {
    let options = SqliteOptions::new(data_dir.join(EMBEDDED_FILE));
    Arc::new(Lazy::new(CAPABILITIES, move || Ok(Arc::new(Sqlite::open(options.clone())?))))
}

fn open(component: &ComponentSpec, data_dir: &Path) -> Result<Arc<dyn StateStore>, OpenError> {
    let path = match component.field(CONNECTION_STRING) {
        Some(text) => match location(text) {
            // Nobody can see the difference, and this one is faster.
            Ok(Location::Memory) => return Ok(Arc::new(InMemory::new())),
            Ok(Location::File(path)) => path,
            Err(expected) => return Err(component.invalid(CONNECTION_STRING, expected)),
        },
        None => default_file(&component.name, data_dir)
            .ok_or_else(|| component.invalid(CONNECTION_STRING, "given: the path of the database file"))?,
    };
    let mut options = SqliteOptions::new(path);
    if let Some(table) = component.field(&["tableName"]) {
        options.table = table.to_owned();
    }
    if let Some(timeout) = component.duration(&["timeout", "timeoutInSeconds"])? {
        if timeout < Duration::from_secs(1) {
            return Err(component.invalid(&["timeout"], "at least 1s"));
        }
        options.timeout = timeout;
    }
    if let Some(timeout) = component.duration(&["busyTimeout"])? {
        options.busy_timeout = timeout;
    }
    if let Some(interval) = component.duration(&["cleanupInterval", "cleanupIntervalInSeconds"])? {
        options.cleanup_interval = Some(interval).filter(|interval| !interval.is_zero());
    }
    options.disable_wal = component.truthy(&["disableWAL"]);
    match Sqlite::open(options) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => {
            Err(OpenError::Backend { component: component.name.clone(), reason: error.to_string() })
        }
    }
}

/// Reads a path, or a `file:` URI (<https://www.sqlite.org/uri.html>). What the query asks for is not
/// supported where it would change the meaning of the store, and ignored where it only tunes it.
pub(crate) fn location(text: &str) -> Result<Location, &'static str> {
    if text.eq_ignore_ascii_case(":memory:") {
        return Ok(Location::Memory);
    }
    // Dapr cuts the query off a plain path, too.
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    for parameter in query.split('&') {
        match parameter {
            "mode=memory" => return Ok(Location::Memory),
            "mode=ro" | "immutable=1" | "immutable=true" => {
                return Err("a database that may be written: remove mode=ro and immutable");
            }
            "" | "mode=rw" | "mode=rwc" => {}
            parameter => {
                let name = parameter.split('=').next().unwrap_or_default();
                tracing::warn!(parameter = name, "the connection string's parameter is ignored");
            }
        }
    }
    let path = match path.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("file:") => {
            let path = &path[5..];
            let path = match path.strip_prefix("//") {
                Some(rest) => {
                    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
                    if !rest.starts_with('/') {
                        return Err(
                            "a file: URI without a host, such as file:state.db or file:///data/state.db",
                        );
                    }
                    rest
                }
                None => path,
            };
            percent_decode(path).ok_or("a file: URI in which % is followed by two hexadecimal digits")?
        }
        _ => path.to_owned(),
    };
    match path.as_str() {
        "" => Err("given: the path of the database file"),
        ":memory:" => Ok(Location::Memory),
        path if path.contains('\0') => Err("a path without a zero byte"),
        path => Ok(Location::File(PathBuf::from(path))),
    }
}

/// The file of a component that names none; only for names that are harmless as file names.
pub(crate) fn default_file(name: &str, data_dir: &Path) -> Option<PathBuf> {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (!name.is_empty() && !name.starts_with('.') && name.bytes().all(harmless))
        .then(|| data_dir.join(format!("{name}.db")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings() {
        let file = |path: &str| Ok(Location::File(PathBuf::from(path)));
        for (text, expected) in [
            ("data.db", file("data.db")),
            ("/var/lib/app/data.db", file("/var/lib/app/data.db")),
            ("data.db?_pragma=foo(1)", file("data.db")),
            ("file:data.db", file("data.db")),
            ("FILE:data.db?cache=shared", file("data.db")),
            ("file:///var/a%20b%3F.db", file("/var/a b?.db")),
            ("file://localhost/var/a.db", file("/var/a.db")),
            ("a%20b.db", file("a%20b.db")),
            ("é🐪.db", file("é🐪.db")),
            (":memory:", Ok(Location::Memory)),
            ("file::memory:", Ok(Location::Memory)),
            ("file:x?mode=memory&cache=shared", Ok(Location::Memory)),
        ] {
            assert_eq!(location(text), expected, "{text}");
        }
        for text in
            ["file:", "?", "file://host/a.db", "file:%zz", "file:%2", "file:%ff", "file:%00", "a.db?mode=ro"]
        {
            assert!(location(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_component_name_never_leaves_the_data_folder() {
        let folder = Path::new("data");
        assert_eq!(default_file("my-store_2.x", folder), Some(folder.join("my-store_2.x.db")));
        for name in ["", ".", "..", "../x", "a/b", "a\\b", "a\0", ".hidden", "ä"] {
            assert_eq!(default_file(name, folder), None, "{name:?}");
        }
    }
}
