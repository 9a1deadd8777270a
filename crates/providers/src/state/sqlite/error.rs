//! What SQLite's errors mean to a caller, and what to do about them.

use super::SqliteOptions;
use dhow_blocks::state::StateError;
use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The database that an error is about.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(super) path: PathBuf,
    pub(super) busy_timeout: Duration,
    max_bytes: Option<u64>,
}

/// Whether another connection holds a lock that is in the way.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Why the file or its folder could not be created or opened.
pub(super) fn explain_io(path: &Path, what: &str, error: &io::Error) -> StateError {
    let advice = match error.kind() {
        io::ErrorKind::PermissionDenied => "give this user write permission to the folder",
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: choose a folder on a writable one"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a part of the path is a file: choose another path, or move that file away"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full: free some space",
        _ => "check the path",
    };
    StateError::Unavailable { reason: format!("cannot {what} {}: {error}; {advice}", path.display()) }
}

// === impl Origin ===

impl Origin {
    pub(crate) fn new(options: &SqliteOptions) -> Origin {
        Origin {
            path: options.path.clone(),
            busy_timeout: options.busy_timeout,
            max_bytes: options.max_bytes,
        }
    }

    /// Says what happened, to which file, and what to do.
    pub(crate) fn explain(&self, error: &rusqlite::Error) -> StateError {
        let path = self.path.display();
        let unavailable = |reason| StateError::Unavailable { reason };
        let failed = |reason| StateError::Failed { reason };
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed,
            ) => unavailable(format!(
                "{path} is locked by another program for longer than {:?}; end that program's transaction, \
                     or raise busyTimeout",
                self.busy_timeout
            )),
            Some(ErrorCode::DiskFull) => unavailable(match self.max_bytes {
                Some(limit) => format!(
                    "{path} is full: free disk space, raise its limit of {limit} bytes, or delete keys; \
                     nothing was written"
                ),
                None => format!("the disk of {path} is full: free some space; nothing was written"),
            }),
            Some(ErrorCode::ReadOnly) => unavailable(format!(
                "{path} is read-only: give this user write permission to the file and its folder"
            )),
            Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => unavailable(format!(
                "cannot open {path}: {error}; check that it is a file and that this user may read and write \
                 it and its folder"
            )),
            Some(ErrorCode::SystemIoFailure) => unavailable(format!(
                "reading or writing {path} failed: {error}; check the disk; nothing was written"
            )),
            Some(ErrorCode::OutOfMemory) => {
                unavailable(format!("no memory left for {path}; nothing was written"))
            }
            Some(ErrorCode::NotADatabase) => failed(format!(
                "{path} is not an SQLite database (or it is encrypted): choose another path, or move that \
                 file away"
            )),
            Some(ErrorCode::DatabaseCorrupt) => failed(format!(
                "{path} is damaged: {error}; stop all programs that use it and restore a backup, or save what \
                 `sqlite3 FILE .recover` can read"
            )),
            _ => failed(format!("{path}: {error}")),
        }
    }
}
