//! Entries as files below a folder.
//!
//! A new file is written beside the others, forced to the disk, renamed to its place, and the folder that now names it
//! is forced to the disk as well. A kill at any moment leaves the old state or the new one, and perhaps a file in `tmp`
//! that the next start removes.

use super::{CHUNK, Content, Entry, Stat, Storage, StorageError};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where files are written before they have their name.
const TEMPORARY: &str = "tmp";

/// A folder.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Folder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Numbers temporary files.
    next: AtomicU64,
}

// === impl Folder ===

impl Folder {
    /// Opens or makes the folder, and removes what a kill has left half-written. Nobody else may have it open.
    pub(in crate::registry) fn open(root: &Path) -> io::Result<Folder> {
        let temporary = root.join(TEMPORARY);
        match fs::remove_dir_all(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => make_folder(&temporary)?,
        }
        Ok(Folder(Arc::new(Inner { root: root.to_owned(), next: AtomicU64::new(0) })))
    }

    /// Runs a step where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        key: &str,
        step: impl FnOnce(&Inner, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let inner = Arc::clone(&self.0);
        let owned = key.to_owned();
        let done = tokio::task::spawn_blocking(move || {
            let path = inner.path(&owned)?;
            step(&inner, &path)
        });
        let done = done.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|source| StorageError::new(key, source))
    }
}

#[async_trait]
impl Storage for Folder {
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError> {
        let read = move |_: &Inner, path: &Path| {
            let Some(file) = found(File::open(path))? else { return Ok(None) };
            let mut bytes = Vec::new();
            file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
            }
            Ok(Some(Bytes::from(bytes)))
        };
        self.blocking(key, read).await
    }

    async fn open(&self, key: &str, offset: u64) -> Result<Option<Content>, StorageError> {
        let file = self.blocking(key, |_, path| found(File::open(path))).await?;
        let Some(file) = file else { return Ok(None) };
        let chunks = futures::stream::try_unfold((file, offset), |(file, offset)| async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK];
                let length = read_full_at(&file, &mut chunk, offset)?;
                chunk.truncate(length);
                Ok::<_, io::Error>((file, chunk))
            });
            let (file, chunk) = read.await.map_err(io::Error::other)??;
            let offset = offset + chunk.len() as u64;
            Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), (file, offset))))
        });
        Ok(Some(Box::pin(chunks)))
    }

    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        let write = move |inner: &Inner, path: &Path| {
            let temporary = inner.temporary();
            let written = write_durably(&temporary, &bytes).and_then(|()| place(&temporary, path));
            if written.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            written
        };
        self.blocking(key, write).await
    }

    async fn adopt(&self, key: &str, file: &Path) -> Result<(), StorageError> {
        let file = file.to_owned();
        self.blocking(key, move |_, path| place(&file, path)).await
    }

    async fn remove(&self, key: &str) -> Result<bool, StorageError> {
        let remove = |_: &Inner, path: &Path| {
            let removed = found(fs::remove_file(path))?.is_some();
            if removed && let Some(folder) = path.parent() {
                force_folder(folder)?;
            }
            Ok(removed)
        };
        self.blocking(key, remove).await
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        let stat = |_: &Inner, path: &Path| {
            let Some(metadata) = found(fs::metadata(path))? else { return Ok(None) };
            Ok(Some(Stat { size: metadata.len(), modified: metadata.modified()? }))
        };
        self.blocking(key, stat).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        let list = |_: &Inner, path: &Path| {
            let mut entries = Vec::new();
            for entry in found(fs::read_dir(path))?.into_iter().flatten() {
                let entry = entry?;
                // Names that are no text are not ours.
                let Ok(name) = entry.file_name().into_string() else { continue };
                entries.push(Entry { name, is_folder: entry.file_type()?.is_dir() });
            }
            entries.sort_unstable();
            Ok(entries)
        };
        self.blocking(folder, list).await
    }
}

// === impl Inner ===

impl Inner {
    /// Keys are made of names that were checked; a key that would lead elsewhere is refused all the same.
    fn path(&self, key: &str) -> io::Result<PathBuf> {
        let is_safe = |word: &str| !matches!(word, "" | "." | "..") && !word.contains('\0');
        match key.split('/').all(is_safe) {
            true => Ok(self.root.join(key)),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "no legal key")),
        }
    }

    fn temporary(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.root.join(TEMPORARY).join(number.to_string())
    }
}

/// Makes a folder for this user only, with those above it, durably.
pub(in crate::registry) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_folder(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else of this process was quicker.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => force_folder(parent.unwrap_or(Path::new("."))),
    }
}

/// Writes a new file that nobody else can read, and forces it to the disk.
pub(in crate::registry) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives a durable file its name, durably.
pub(in crate::registry) fn place(file: &Path, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    match fs::rename(file, path) {
        // No entry is a folder; one that a repair of the disk left is empty.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fs::remove_dir(path)?;
            fs::rename(file, path)?;
        }
        renamed => renamed?,
    }
    force_folder(folder)
}

/// Forces a folder's names to the disk.
pub(in crate::registry) fn force_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Reads until the buffer is full or the file at its end.
fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
