//! A folder of this machine that keeps artifacts.
//!
//! What is stored is written beside its place, flushed to the disk and renamed. As in a bucket, a folder that is stored
//! is one object for each file: it goes to its place as a whole where there is none yet; else each of its files is
//! renamed to its own place, and what others stored there stays.

use super::archive;
use super::interest;
use super::repository::ArtifactError;
use super::store::{Fill, Store, Visit};
use cap_std::fs::Dir;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where files are written before they have their name.
const TEMPORARY: &str = ".incomplete";

/// Deepest folder in a folder.
const MAX_DEPTH: usize = 256;

/// A folder.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    count: AtomicU64,
}

// === impl Folder ===

impl Folder {
    /// Uses a folder, making it if it is not there.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path.join(TEMPORARY))?;
        Ok(Folder { path: path.to_owned(), count: AtomicU64::new(0) })
    }

    /// Where what is not complete yet is.
    pub(super) fn temporaries(&self) -> PathBuf {
        self.path.join(TEMPORARY)
    }

    fn place(&self, key: &str) -> Result<PathBuf, ArtifactError> {
        let key = key.trim_end_matches('/');
        let is_bad =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.contains(['\0', '\\']);
        if key.len() > 1024 || key.split('/').any(is_bad) || key.starts_with(TEMPORARY) {
            return Err(ArtifactError::Key(key.to_owned()));
        }
        Ok(self.path.join(key))
    }

    /// Writes beside the place of a key, and renames.
    fn store(
        &self,
        key: &str,
        write: impl FnOnce(&Path) -> Result<(), ArtifactError>,
    ) -> Result<(), ArtifactError> {
        let place = self.place(key)?;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let temporary = self.temporaries().join(format!("{}-{count}", std::process::id()));
        let renamed = write(&temporary).and_then(|()| {
            // What became too late is not to be seen.
            if interest::is_lost() {
                return Err(interest::Lost.into());
            }
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            settle(&temporary, &place, key)
        });
        remove(&temporary);
        renamed
    }
}

impl Store for Folder {
    fn put(&self, key: &str, fill: &mut Fill<'_>) -> Result<(), ArtifactError> {
        self.store(key, |temporary| archive::flushed(temporary, |file| fill(file)))
    }

    /// Nothing of it is seen before all of it is written.
    fn put_folder(&self, key: &str, root: &Dir, path: &str) -> Result<(), ArtifactError> {
        self.store(key, |temporary| archive::plain(root, path, temporary))
    }

    fn get(&self, key: &str) -> Result<Option<Box<dyn Read + Send>>, ArtifactError> {
        let place = self.place(key)?;
        match fs::metadata(&place) {
            Ok(meta) if meta.is_file() => Ok(Some(Box::new(fs::File::open(place)?))),
            _ => Ok(None),
        }
    }

    fn list(&self, key: &str, visit: &mut Visit<'_>) -> Result<bool, ArtifactError> {
        let place = self.place(key)?;
        if !place.is_dir() {
            return Ok(false);
        }
        walk(&place, "", visit, 0)?;
        Ok(true)
    }
}

/// Renames a file, or a folder with all that is in it, to its place.
fn settle(from: &Path, to: &Path, key: &str) -> Result<(), ArtifactError> {
    let Err(error) = fs::rename(from, to) else { return Ok(()) };
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    match (is_folder(from), is_folder(to)) {
        (true, true) => fs::read_dir(from)?.try_for_each(|entry| {
            let name = entry?.file_name();
            settle(&from.join(&name), &to.join(&name), &format!("{key}/{}", name.to_string_lossy()))
        }),
        (true, false) | (false, true) if fs::symlink_metadata(to).is_ok() => {
            Err(ArtifactError::Unsupported(format!(
                "under the key {key:?} is a file already where this is a folder, or the other way round; choose \
                 another key"
            )))
        }
        _ => Err(error.into()),
    }
}

fn walk(folder: &Path, prefix: &str, visit: &mut Visit<'_>, depth: usize) -> Result<(), ArtifactError> {
    if depth > MAX_DEPTH {
        return Err(ArtifactError::Hostile(format!("{prefix:?} is nested deeper than {MAX_DEPTH} folders")));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let name =
            name.map_err(|name| ArtifactError::Unsupported(format!("the name {name:?} is no UTF-8")))?;
        let name = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let below = format!("{name}/");
            visit(&below)?;
            walk(&entry.path(), &below, visit, depth + 1)?;
        } else if kind.is_file() {
            visit(&name)?;
        } else {
            return Err(ArtifactError::Hostile(format!("{name:?} is neither a file nor a folder")));
        }
    }
    Ok(())
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

fn remove(path: &Path) {
    if fs::remove_dir_all(path).is_err() {
        let _ = fs::remove_file(path);
    }
}
