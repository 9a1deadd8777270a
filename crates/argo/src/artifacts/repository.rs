//! The folder that a workflow's artifacts are kept in.
//!
//! What is stored is there whole or not at all: it is written beside its place, flushed to the disk and renamed. A step
//! that is run again after a crash replaces what it stored the first time.

use super::{Artifact, Location, Packing, archive, unpack};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How much one artifact may be once it is unpacked.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes.
    pub bytes: u64,
    /// Files and folders.
    pub entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { bytes: 64 << 30, entries: 1_000_000 }
    }
}

/// Artifacts by their keys.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    bounds: Bounds,
    count: AtomicU64,
}

/// Why an artifact cannot be stored or had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// There is nothing there.
    #[error("there is nothing under the key {0:?}")]
    Missing(String),
    /// The key leads out of the repository.
    #[error("{0:?} is no key: expected names with slashes between them, none of them `..`")]
    Key(String),
    /// The archive does what no archive of ours does.
    #[error("{0}")]
    Hostile(String),
    /// It is packed in a way that is not known here.
    #[error("{0}")]
    Unsupported(String),
    /// The system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
}

// === impl Repository ===

impl Repository {
    /// Uses a folder, making it if it is not there.
    pub fn open(folder: &Path, bounds: Bounds) -> io::Result<Repository> {
        fs::create_dir_all(folder.join(TEMPORARY))?;
        Ok(Repository { folder: folder.to_owned(), bounds, count: AtomicU64::new(0) })
    }

    /// Where the repository is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn place(&self, key: &str) -> Result<PathBuf, ArtifactError> {
        let key = key.trim_end_matches('/');
        let is_bad =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\0', '\\']);
        if key.len() > 1024 || key.split('/').any(is_bad) || key.starts_with(TEMPORARY) {
            return Err(ArtifactError::Key(key.to_owned()));
        }
        Ok(self.folder.join(key))
    }

    /// A name in the folder of what is not complete yet.
    fn temporary(&self) -> PathBuf {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        self.folder.join(TEMPORARY).join(format!("{}-{count}", std::process::id()))
    }

    /// Stores what a step left at `path` inside `root`. Blocks.
    pub fn save(
        &self,
        root: &cap_std::fs::Dir,
        path: &str,
        artifact: &Artifact,
        key: &str,
    ) -> Result<(), ArtifactError> {
        let place = self.place(key)?;
        let temporary = self.temporary();
        let written = match artifact.packing() {
            Packing::Tar(level) => archive::tar(root, path, level, &temporary),
            Packing::None => archive::plain(root, path, &temporary),
            Packing::Zip => {
                Err(ArtifactError::Unsupported("zip is not part of this version of dhow".to_owned()))
            }
        };
        let renamed = written.and_then(|()| {
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            if fs::symlink_metadata(&place).is_ok_and(|meta| meta.is_dir()) {
                // A folder cannot be replaced by renaming; this one is of a step that is run again.
                fs::remove_dir_all(&place)?;
            }
            fs::rename(&temporary, &place)?;
            Ok(())
        });
        if renamed.is_err() {
            remove(&temporary);
        }
        renamed
    }

    /// Puts what is stored under `key` at `path` inside `root`, whose parent folder is there. Blocks.
    pub fn load(
        &self,
        key: &str,
        root: &cap_std::fs::Dir,
        path: &str,
        artifact: &Artifact,
    ) -> Result<(), ArtifactError> {
        let key = match artifact.sub_path.trim_matches('/') {
            "" => key.to_owned(),
            part => format!("{}/{part}", key.trim_end_matches('/')),
        };
        let place = self.place(&key)?;
        let Ok(meta) = fs::metadata(&place) else { return Err(ArtifactError::Missing(key)) };
        if meta.is_dir() {
            let from = cap_std::fs::Dir::open_ambient_dir(&place, cap_std::ambient_authority())?;
            return unpack::folder(&from, root, path, self.bounds);
        }
        unpack::file(fs::File::open(&place)?, root, path, artifact, self.bounds)
    }

    /// Stores a file or folder of this machine, as it is. Blocks.
    pub fn keep(&self, folder: &Path, name: &str, key: &str) -> Result<(), ArtifactError> {
        let root = cap_std::fs::Dir::open_ambient_dir(folder, cap_std::ambient_authority())?;
        let archive = Some(super::Archive { none: Some(serde_json::json!({})), ..Default::default() });
        self.save(&root, name, &Artifact { archive, ..Artifact::default() }, key)
    }

    /// Puts an artifact into a folder of this machine, under the last part of its path; what was there goes. Blocks.
    pub fn fetch(&self, artifact: &Artifact, folder: &Path) -> Result<PathBuf, ArtifactError> {
        let Location::Key(key) = artifact.location() else {
            return Err(ArtifactError::Missing(artifact.name.clone()));
        };
        let root = cap_std::fs::Dir::open_ambient_dir(folder, cap_std::ambient_authority())?;
        let name = artifact.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() { &artifact.name } else { name };
        if root.remove_file(name).is_err() {
            let _ = root.remove_dir_all(name);
        }
        self.load(&key, &root, name, artifact)?;
        Ok(folder.join(name))
    }

    /// Stores bytes. Blocks.
    pub fn put(&self, bytes: &[u8], key: &str) -> Result<(), ArtifactError> {
        let place = self.place(key)?;
        let temporary = self.temporary();
        let written = archive::flushed(&temporary, |file| io::Write::write_all(file, bytes)).and_then(|()| {
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(&temporary, &place)
        });
        if written.is_err() {
            remove(&temporary);
        }
        Ok(written?)
    }

    /// Takes away what a process left that was killed while it wrote.
    pub fn sweep(&self) {
        sweep(&self.folder.join(TEMPORARY));
    }
}

/// Takes away files and folders whose names begin with the id of a process that is gone.
pub(crate) fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let owner =
            entry.file_name().to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        let is_alive = owner.is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
        if !is_alive {
            remove(&entry.path());
        }
    }
}

const TEMPORARY: &str = ".incomplete";

fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        let _ = fs::remove_file(path);
    }
}
