//! Opening the database: folder, file, pragmas, schema.

use super::SqliteOptions;
use super::error::{Origin, explain_io, is_busy};
use super::statements::Statements;
use dhow_blocks::state::StateError;
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Page cache of one connection, in KiB.
const WRITER_CACHE_KIB: i64 = 8 * 1024;
const READER_CACHE_KIB: i64 = 8 * 1024;

/// The log is folded into the database when it has this many pages (16 MiB). Later than SQLite's own choice,
/// because a commit of many writers fills a thousand pages soon, and a page that was written again in the
/// meantime is folded in once.
const CHECKPOINT_PAGES: i64 = 4096;

/// The log is cut back to this many bytes after a burst of writes made it longer.
const LOG_BYTES: i64 = 64 * 1024 * 1024;

/// Between two attempts at a step for which SQLite does not wait by itself.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

const COLUMNS: [&str; 6] = ["key", "value", "is_binary", "etag", "expiration_time", "update_time"];

/// Opens the writing connection and makes sure that the table is there.
pub(super) fn open_writer(options: &SqliteOptions, origin: &Origin) -> Result<Connection, StateError> {
    if !is_identifier(&options.table) {
        let reason =
            format!("{:?} cannot be a table name: use letters, digits and underscores only", options.table);
        return Err(StateError::Failed { reason });
    }
    let mut connection = connect(options, origin)?;
    migrate(&mut connection, options, origin)?;
    Ok(connection)
}

/// Opens a connection that reads and writes, creating folder and file as needed; what the file holds is the
/// caller's.
pub(crate) fn connect(options: &SqliteOptions, origin: &Origin) -> Result<Connection, StateError> {
    create_file(&options.path)?;
    let connect = || -> Result<Connection, rusqlite::Error> {
        let connection = open(&options.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(options.busy_timeout)?;
        journal(&connection, options)?;
        // The log is flushed at every commit: an acknowledged write survives a power cut, too.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        if let Some(limit) = options.max_bytes {
            let page: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
            // SQLite answers with the limit in force, so this is a query. It keeps 32 bits of the count.
            let pages = (limit / u64::from(page.max(1))).clamp(1, u64::from(u32::MAX - 1));
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    connect().map_err(|error| origin.explain(&error))
}

/// Opens a reading connection; it never creates or changes anything.
pub(super) fn open_reader(path: &Path, busy_timeout: Duration) -> Result<Connection, rusqlite::Error> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    // First of all: even a pragma reads the file.
    connection.busy_timeout(busy_timeout)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

fn open(path: &Path, mode: OpenFlags) -> Result<Connection, rusqlite::Error> {
    // Each connection is used by one thread at a time. The path is no URI: `?` and `%` mean themselves.
    Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// Creates folder and file where they are absent, for this user's eyes only.
fn create_file(path: &Path) -> Result<(), StateError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(|error| explain_io(folder, "create the folder", &error))?;
    }
    let mut file = fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let reason = format!("{} is a folder: choose the path of a file inside it", path.display());
            Err(StateError::Unavailable { reason })
        }
        Err(error) => Err(explain_io(path, "create the database", &error)),
    }
}

/// Chooses the journal. SQLite does not wait by itself when another connection is about to do the same.
fn journal(connection: &Connection, options: &SqliteOptions) -> Result<(), rusqlite::Error> {
    let wanted = if options.disable_wal { "delete" } else { "wal" };
    let start = Instant::now();
    loop {
        let answer: Result<String, _> =
            connection.pragma_update_and_check(None, "journal_mode", wanted, |row| row.get(0));
        match answer {
            Ok(mode) => {
                if !mode.eq_ignore_ascii_case(wanted) {
                    let path = options.path.display();
                    tracing::warn!(%path, mode, wanted, "the file system does not take this journal; writes will be slower");
                }
                return Ok(());
            }
            Err(error) if is_busy(&error) && start.elapsed() < options.busy_timeout => {
                std::thread::sleep(RETRY_INTERVAL);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Creates the table, or checks that the one that is there can hold state.
fn migrate(connection: &mut Connection, options: &SqliteOptions, origin: &Origin) -> Result<(), StateError> {
    let explain = |error: rusqlite::Error| origin.explain(&error);
    let mut missing = missing_columns(connection, &options.table).map_err(explain)?;
    let indexed = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = ?1",
            [Statements::index_name(&options.table)],
            |row| row.get::<_, bool>(0),
        )
        .map_err(explain)?;
    if missing.len() == COLUMNS.len() || (missing.is_empty() && !indexed) {
        let create = || -> Result<Vec<&'static str>, rusqlite::Error> {
            let transaction =
                rusqlite::Transaction::new_unchecked(connection, rusqlite::TransactionBehavior::Immediate)?;
            transaction.execute_batch(&Statements::schema(&options.table))?;
            let missing = missing_columns(&transaction, &options.table)?;
            transaction.commit()?;
            Ok(missing)
        };
        missing = create().map_err(explain)?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "table {:?} of {} is not a state table (no column {}): choose another tableName",
        options.table,
        options.path.display(),
        missing.join(", ")
    );
    Err(StateError::Failed { reason })
}

/// The columns that the table lacks: all of them when there is no such table.
fn missing_columns(connection: &Connection, table: &str) -> Result<Vec<&'static str>, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    let present: Vec<String> = statement.query_map([table], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(COLUMNS.into_iter().filter(|column| !present.iter().any(|name| name == column)).collect())
}

fn is_identifier(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
