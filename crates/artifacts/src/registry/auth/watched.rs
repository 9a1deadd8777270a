//! A file that its owner may change while the registry runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Bytes of such a file at most.
const MAX_FILE: u64 = 8 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}{line}: {reason}", path = path.display(), line = line.map_or(String::new(), |line| format!(":{line}")))]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Where in it, from 1 on, where that is known.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// What can be read from a text.
pub(super) trait Content: Sized {
    /// The error is a line, where it is known, and a reason.
    fn read(text: &str) -> Result<Self, (Option<usize>, String)>;
}

/// The content of a file, as it is now.
pub(super) struct Watched<T> {
    path: PathBuf,
    state: Mutex<State<T>>,
}

struct State<T> {
    stamp: Option<Stamp>,
    content: Arc<T>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

// === impl Watched ===

impl<T: Content> Watched<T> {
    pub(super) fn open(path: &Path) -> Result<Watched<T>, FileError> {
        let stamp = Stamp::of(path);
        let content = Arc::new(load(path)?);
        Ok(Watched { path: path.to_owned(), state: Mutex::new(State { stamp, content }) })
    }

    /// The content, read again if the file changed. What cannot be read changes nothing, and is logged once.
    pub(super) fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::of(&self.path);
        if stamp != state.stamp {
            state.stamp = stamp;
            match load(&self.path) {
                Ok(content) => {
                    tracing::info!("{} was read again", self.path.display());
                    state.content = Arc::new(content);
                }
                Err(error) => tracing::error!("{error}; what it said before stays in force"),
            }
        }
        Arc::clone(&state.content)
    }
}

fn load<T: Content>(path: &Path) -> Result<T, FileError> {
    let error = |line, reason: String| FileError { path: path.to_owned(), line, reason };
    let size = std::fs::metadata(path).map_err(|wrong| error(None, wrong.to_string()))?.len();
    if size > MAX_FILE {
        return Err(error(None, format!("larger than {MAX_FILE} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|wrong| error(None, wrong.to_string()))?;
    T::read(&text).map_err(|(line, reason)| error(line, reason))
}

// === impl Stamp ===

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        Some(Stamp { modified: metadata.modified().ok()?, size: metadata.len(), inode })
    }
}
