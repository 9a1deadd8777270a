//! Other processes on the same file: what they publish, and what they leave when they die.
//!
//! Every process that subscribes has a file beside the database, and a lock on it that the operating system
//! lets go when the process ends, however it ends. Whoever can lock the file of another process knows that it
//! is dead, frees what it held, and removes the file.

use super::{LOOK_INTERVAL, Shared, millis, table};
use crate::backoff::Backoff;
use crate::shutdown::Alive;
use crate::task::Stop;
use dhow_blocks::error::BlockError;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often what nobody needs any more is removed.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// This process among those that use a file.
pub(super) struct Neighbours {
    database: PathBuf,
    /// The name of this process, and the locked file, once it subscribes.
    own: Mutex<Option<(String, File)>>,
}

// === impl Neighbours ===

impl Neighbours {
    pub(super) fn new(database: &Path) -> Neighbours {
        Neighbours { database: database.to_owned(), own: Mutex::new(None) }
    }

    /// Makes this process known; blocks on the disk. The name tells others where to look.
    pub(super) fn join(&self) -> Result<String, BlockError> {
        let mut own = self.own.lock();
        if let Some((name, _)) = &*own {
            return Ok(name.clone());
        }
        let name = format!("{:016x}", fastrand::u64(..));
        let path = self.path(&name);
        let explain = |error: std::io::Error| {
            let path = path.display();
            BlockError::unavailable(format!("cannot create {path}: {error}; check the folder and the disk"))
        };
        let file = create(&path).map_err(explain)?;
        // Where there are no locks, the lease alone tells.
        if let Err(error) = file.try_lock() {
            tracing::warn!(path = %path.display(), %error, "this file system has no locks: what a killed process leaves is delivered when its lease ends");
        }
        *own = Some((name.clone(), file));
        Ok(name)
    }

    /// Removes the file of this process.
    pub(super) fn leave(&self) {
        if let Some((name, file)) = self.own.lock().take() {
            // One that stays is removed by the next process that looks.
            let _ = std::fs::remove_file(self.path(&name));
            drop(file);
        }
    }

    fn is_own(&self, process: &str) -> bool {
        self.own.lock().as_ref().is_some_and(|(own, _)| own == process)
    }

    /// Whether that process has certainly ended.
    fn is_dead(&self, process: &str) -> bool {
        // What is in the table need not be a name of ours.
        if process.len() != 16 || !process.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        let path = self.path(process);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => return error.kind() == std::io::ErrorKind::NotFound,
        };
        match file.try_lock() {
            Ok(()) => {
                let _ = std::fs::remove_file(&path);
                true
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        }
    }

    fn path(&self, process: &str) -> PathBuf {
        let mut path = self.database.clone().into_os_string();
        path.push(format!("-{process}.alive"));
        path.into()
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.leave();
    }
}

fn create(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Looks after other processes until the queue is closed.
pub(super) async fn watch(shared: Arc<Shared>, mut stop: Stop, mut alive: Alive) {
    let mut backoff = Backoff::new();
    let mut version = None;
    // A process that begins finds what another one left when it was killed.
    let mut next = Instant::now();
    let mut next_tidy = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = alive.ended_or_stopped(&mut stop) => return,
            () = tokio::time::sleep_until(next) => {}
        }
        next = Instant::now() + LOOK_INTERVAL;
        if !shared.is_heard() {
            continue;
        }
        let mut look = async || {
            let seen = look(&shared).await?;
            if version.replace(seen) != Some(seen) {
                shared.tell_all();
            }
            if next_tidy <= Instant::now() {
                tidy(&shared).await?;
                next_tidy = Instant::now() + TIDY_INTERVAL;
            }
            Ok::<(), BlockError>(())
        };
        match look().await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%error, "the queue's file could not be looked at");
                next = Instant::now() + backoff.wait().max(LOOK_INTERVAL);
            }
        }
    }
}

/// Frees what the dead hold. Answers a number that changes when another process has written.
async fn look(shared: &Arc<Shared>) -> Result<i64, BlockError> {
    let neighbours = Arc::clone(shared);
    let now = millis(SystemTime::now());
    let (version, dead) = shared
        .database
        .look(move |connection| {
            let version =
                connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
            Ok((version, dead(connection, &neighbours.neighbours, now)?))
        })
        .await?;
    if !dead.is_empty() {
        tracing::info!(processes = dead.len(), "messages of a process that has ended are delivered again");
        shared.database.run(move |connection| bury(connection, &dead, now)).await?;
        shared.tell_all();
    }
    Ok(version)
}

/// The seats whose process is dead, or whose lease is over.
fn dead(connection: &Connection, neighbours: &Neighbours, now: i64) -> rusqlite::Result<Vec<i64>> {
    let mut statement =
        connection.prepare_cached("SELECT id, process, lease FROM queue_holder ORDER BY process")?;
    let mut rows = statement.query([])?;
    let mut dead = Vec::new();
    let mut last: Option<(String, bool)> = None;
    while let Some(row) = rows.next()? {
        let (id, process, lease): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        // A seat of one's own that is late is renewed by whoever sits there.
        if neighbours.is_own(&process) {
            continue;
        }
        let is_dead = match &last {
            Some((name, is_dead)) if *name == process => *is_dead,
            _ => neighbours.is_dead(&process),
        };
        last = Some((process, is_dead));
        if is_dead || lease < now {
            dead.push(id);
        }
    }
    Ok(dead)
}

fn bury(connection: &Connection, dead: &[i64], now: i64) -> rusqlite::Result<()> {
    for holder in dead {
        let free = "UPDATE queue_pending SET holder = NULL, due = ?2 WHERE holder = ?1";
        table::execute(connection, free, (holder, now))?;
        table::execute(connection, "DELETE FROM queue_holder WHERE id = ?1", [holder])?;
    }
    Ok(())
}

async fn tidy(shared: &Shared) -> Result<(), BlockError> {
    let limits = shared.options.limits();
    let consumer_retention = shared.options.consumer_retention;
    let now = millis(SystemTime::now());
    shared.database.run(move |connection| table::tidy(connection, &limits, consumer_retention, now)).await
}
