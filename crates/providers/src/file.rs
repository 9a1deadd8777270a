//! A small file that an operator edits while the host runs: read when it is needed, and again when it has
//! changed.
//!
//! A change that cannot be read (a slip of the pen, a file half written) does not take away what was there
//! before; it is logged once.

use dhow_blocks::error::BlockError;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Longer files are not meant to be read whole.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A file system's clock is coarse: of two changes within this time the second may leave no trace.
const COARSE: Duration = Duration::from_secs(1);

/// Reads the text of a file. The error says what is wrong, and nothing that may be secret.
pub(crate) type Parse<T> = Box<dyn Fn(&str) -> Result<T, String> + Send + Sync>;

/// What a file says.
pub(crate) struct Reloaded<T> {
    path: PathBuf,
    parse: Parse<T>,
    last: Arc<Mutex<Option<Last<T>>>>,
}

struct Last<T> {
    stamp: Stamp,
    content: Arc<T>,
}

/// Tells two versions of a file apart.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
    /// Old enough to be told from a later change.
    settled: bool,
}

// === impl Reloaded ===

impl<T> Reloaded<T> {
    pub(crate) fn new(
        path: PathBuf,
        parse: impl Fn(&str) -> Result<T, String> + Send + Sync + 'static,
    ) -> Reloaded<T> {
        Reloaded { path, parse: Box::new(parse), last: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says now; none if there is no file. Waits for the disk.
    pub(crate) fn read(&self) -> Result<Option<Arc<T>>, BlockError> {
        let mut last = self.last.lock();
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                *last = None;
                return Ok(None);
            }
            Err(error) => return Err(self.failed(&error)),
        };
        let stamp = Stamp::of(&file).map_err(|error| self.failed(&error))?;
        if let Some(Last { stamp: known, content }) = &*last
            && *known == stamp
            && stamp.settled
        {
            return Ok(Some(Arc::clone(content)));
        }
        let content = text(&mut file).map_err(|error| self.failed(&error)).and_then(|text| {
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            let failed = |reason| BlockError::failed(format!("{}: {reason}", self.path.display()));
            (self.parse)(text).map(Arc::new).map_err(failed)
        });
        let content = match (content, &mut *last) {
            (Ok(content), _) => content,
            (Err(error), Some(before)) => {
                if before.stamp != stamp {
                    tracing::warn!(%error, "a change of the file is not taken over; what it said before stays");
                }
                before.stamp = stamp;
                return Ok(Some(Arc::clone(&before.content)));
            }
            (Err(error), None) => return Err(error),
        };
        *last = Some(Last { stamp, content: Arc::clone(&content) });
        Ok(Some(content))
    }

    fn failed(&self, error: &io::Error) -> BlockError {
        BlockError::unavailable(format!("cannot read {}: {error}", self.path.display()))
    }
}

/// Reads on a thread that may wait for the disk.
pub(crate) async fn read<T: Send + Sync + 'static>(
    file: &Arc<Reloaded<T>>,
) -> Result<Option<Arc<T>>, BlockError> {
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || file.read());
    read.await.unwrap_or_else(|error| Err(BlockError::failed(format!("a file was not read: {error}"))))
}

fn text(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.by_ref().take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 16 MiB"));
    }
    Ok(text)
}

// === impl Stamp ===

impl Stamp {
    fn of(file: &File) -> io::Result<Stamp> {
        let metadata = file.metadata()?;
        let modified = metadata.modified().ok();
        let age = modified.and_then(|modified| modified.elapsed().ok());
        let settled = age.is_some_and(|age| age > COARSE);
        Ok(Stamp { modified, length: metadata.len(), inode: metadata.ino(), settled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn changes_are_seen_and_mistakes_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let parse = |text: &str| text.trim().parse::<u32>().map_err(|_| "no number".to_owned());
        let file = Reloaded::new(path.clone(), parse);
        let found = || file.read().map(|content| content.map(|number| *number));
        assert_eq!(found(), Ok(None));
        fs::write(&path, "x").unwrap();
        assert!(found().unwrap_err().to_string().ends_with("number: no number"));
        for (text, expected) in [("1", 1), ("2", 2), ("\u{feff}3\n", 3), ("x", 3), ("", 3), ("4", 4)] {
            fs::write(&path, text).unwrap();
            assert_eq!(found(), Ok(Some(expected)), "{text:?}");
            assert_eq!(found(), Ok(Some(expected)), "{text:?} again");
        }
        let new = folder.path().join("new");
        fs::write(&new, "5").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(found(), Ok(Some(5)));
        fs::remove_file(&path).unwrap();
        assert_eq!(found(), Ok(None));
        fs::write(&path, [0xff]).unwrap();
        assert!(found().is_err());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(found().is_err());
    }
}
