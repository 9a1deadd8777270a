//! What was downloaded, kept on disk and shared by all processes of a user.
//!
//! Content is filed under its digest, which is verified when it is written and again whenever it is read; what tags
//! led to is remembered for work without a network. Files are written elsewhere and renamed, so that nobody ever sees
//! half of one. A download that broke off stays as it is, and the next one goes on from there; the lock on its file
//! says whether somebody is at it.
//!
//! ```text
//! <folder>/blobs/sha256/<hex>         content
//! <folder>/partial/sha256-<hex>       content that is not complete
//! <folder>/tags/<sha256 of the name>  what a tag or a range led to, as JSON
//! ```

use crate::client::error::RegistryError;
use crate::digest::{Digest, Hasher};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Default bound of the folder's size: 4 GiB.
pub const DEFAULT_MAX_BYTES: u64 = 4 << 30;

/// A file that is not complete and that nobody has touched for so long is not waited for.
const ABANDONED: Duration = Duration::from_secs(7 * 24 * 3600);

/// The folder of downloads.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    max_bytes: u64,
}

/// What a tag or a range led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The tag.
    pub tag: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
}

/// Content that is being downloaded.
pub struct Partial {
    path: PathBuf,
    target: PathBuf,
    digest: Digest,
    file: File,
    hasher: Hasher,
    length: u64,
    /// Worth keeping when the download breaks off.
    resumable: bool,
    done: bool,
}

// === impl Store ===

impl Store {
    /// Uses `folder`, making it if it is not there. Refuses one that other users may write to: they could make tags
    /// lead elsewhere.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Store, RegistryError> {
        let store = Store { folder: folder.to_owned(), max_bytes };
        for folder in
            [folder.to_owned(), store.blobs("sha256"), store.blobs("sha512"), store.partials(), store.tags()]
        {
            make_private(&folder).map_err(|reason| RegistryError::Store { path: folder, reason })?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Content, if it is here; the error is the file, if it is damaged.
    pub fn read(&self, digest: &Digest) -> Result<Option<Bytes>, PathBuf> {
        let path = self.path(digest);
        let read = File::open(&path).and_then(|mut file| {
            let length = file.metadata()?.len();
            let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
            // Not more than was there: somebody else may be writing to it.
            Read::by_ref(&mut file).take(length).read_to_end(&mut bytes)?;
            Ok((file, bytes))
        });
        let Ok((file, bytes)) = read else { return Ok(None) };
        if !digest.is_of(&bytes) {
            return Err(path);
        }
        // The time of last use, for eviction. Failing to note it is harmless.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(bytes.into()))
    }

    /// Removes a damaged file, so that it is downloaded again.
    pub fn discard(&self, damaged: &Path) {
        let _ = fs::remove_file(damaged);
    }

    /// Keeps content whose digest was verified.
    pub fn write(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let mut partial = self.temporary(digest)?;
        partial.append(bytes)?;
        partial.finish()
    }

    /// Begins a download, or goes on with one that broke off.
    pub fn partial(&self, digest: &Digest, size: u64) -> Result<Partial, RegistryError> {
        let path = self.partials().join(format!("{}-{}", digest.algorithm(), digest.hex()));
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = opened.map_err(|error| failed(&path, &error))?;
        // Whoever holds the lock is at it; then this is a download of its own.
        if file.try_lock().is_err() || !is_at(&file, &path) {
            return self.temporary(digest);
        }
        let mut partial = self.with(digest, path, file, true);
        match partial.read_again() {
            Ok(()) if partial.length <= size => Ok(partial),
            _ => partial.restart().map(|()| partial),
        }
    }

    /// What a tag or a range led to last.
    pub fn recall(&self, name: &str) -> Option<Remembered> {
        serde_json::from_slice(&fs::read(self.tag(name)).ok()?).ok()
    }

    /// Remembers what a tag or a range led to.
    pub fn remember(&self, name: &str, what: &Remembered) -> Result<(), RegistryError> {
        if self.recall(name).as_ref() == Some(what) {
            return Ok(());
        }
        let (path, temporary) = (self.tag(name), self.partials().join(unique("tag")));
        let text = serde_json::to_vec(what).unwrap_or_default();
        let written = create(&temporary)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&temporary, &path));
        written.map_err(|error| {
            let _ = fs::remove_file(&temporary);
            failed(&path, &error)
        })
    }

    /// Removes what was not used for longest until the folder is within its bound, and downloads that nobody goes on
    /// with.
    pub fn evict(&self) {
        for (modified, _, path) in files(&self.partials()) {
            if SystemTime::now().duration_since(modified).is_ok_and(|age| age > ABANDONED) {
                let _ = fs::remove_file(path);
            }
        }
        let mut found = [files(&self.blobs("sha256")), files(&self.blobs("sha512"))].concat();
        let mut total: u64 = found.iter().map(|(_, size, _)| size).sum();
        found.sort();
        for (_, size, path) in found {
            if total <= self.max_bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                total -= size;
            }
        }
    }

    fn temporary(&self, digest: &Digest) -> Result<Partial, RegistryError> {
        let path = self.partials().join(unique("once"));
        let file = create(&path).map_err(|error| failed(&path, &error))?;
        Ok(self.with(digest, path, file, false))
    }

    fn with(&self, digest: &Digest, path: PathBuf, file: File, resumable: bool) -> Partial {
        Partial {
            path,
            target: self.path(digest),
            digest: digest.clone(),
            file,
            hasher: digest.algorithm().hasher(),
            length: 0,
            resumable,
            done: false,
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs(&digest.algorithm().to_string()).join(digest.hex())
    }

    fn blobs(&self, algorithm: &str) -> PathBuf {
        self.folder.join("blobs").join(algorithm)
    }

    fn partials(&self) -> PathBuf {
        self.folder.join("partial")
    }

    fn tags(&self) -> PathBuf {
        self.folder.join("tags")
    }

    fn tag(&self, name: &str) -> PathBuf {
        self.tags().join(Digest::sha256(name.as_bytes()).hex())
    }
}

// === impl Partial ===

impl Partial {
    /// Bytes that are here.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What comes next.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.file.write_all(bytes).map_err(|error| failed(&self.path, &error))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets everything that came.
    pub fn restart(&mut self) -> Result<(), RegistryError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| failed(&self.path, &error))?;
        self.hasher = self.digest.algorithm().hasher();
        self.length = 0;
        Ok(())
    }

    /// Files the content if its digest is the right one. If not, everything that came is removed.
    pub fn finish(mut self) -> Result<(), RegistryError> {
        self.done = true;
        let hasher = std::mem::replace(&mut self.hasher, self.digest.algorithm().hasher());
        let found = hasher.finish();
        if found != self.digest {
            let _ = fs::remove_file(&self.path);
            let (what, expected) = (format!("the content {}", self.digest), self.digest.clone());
            return Err(RegistryError::Digest { what, expected, found: found.to_string() });
        }
        fs::rename(&self.path, &self.target).map_err(|error| failed(&self.target, &error))
    }

    /// Forgets the download: what came is not what was promised.
    pub fn discard(mut self) {
        self.resumable = false;
    }

    /// What is here from before.
    fn read_again(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 256 << 10];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..read]);
            self.length += read as u64;
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done && (!self.resumable || self.length == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn failed(path: &Path, error: &io::Error) -> RegistryError {
    RegistryError::Store { path: path.to_owned(), reason: error.to_string() }
}

/// Whether the file is still the one under this name: between opening and locking, somebody may have finished.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |one: fs::Metadata, other: fs::Metadata| (one.dev(), one.ino()) == (other.dev(), other.ino());
    file.metadata().is_ok_and(|one| fs::metadata(path).is_ok_and(|other| same(one, other)))
}

/// A name that no other thread or process picks; the file is opened with `create_new` besides.
fn unique(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{kind}.{}.{number}.{:016x}", std::process::id(), fastrand::u64(..))
}

fn files(folder: &Path) -> Vec<(SystemTime, u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let known = entries.filter_map(|entry| {
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()))
    });
    known.collect()
}

fn make_private(folder: &Path) -> Result<(), String> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| error.to_string())?;
    let meta = fs::metadata(folder).map_err(|error| error.to_string())?;
    let user = fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
    if meta.uid() != user {
        return Err(format!("it belongs to user {}, not to user {user}", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!("others may write to it (mode {:o})", meta.mode() & 0o7777));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Remembered, Store};
    use crate::digest::Digest;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    #[test]
    fn content_is_verified_when_it_is_written_and_when_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a"), 100).unwrap();
        let digest = Digest::sha256(b"content");
        assert_eq!(store.read(&digest), Ok(None));
        assert!(store.write(&digest, b"other").unwrap_err().to_string().contains("its digest is"));
        assert_eq!(store.read(&digest), Ok(None));
        store.write(&digest, b"content").unwrap();
        assert_eq!(store.read(&digest).unwrap().as_deref(), Some(&b"content"[..]));
        std::fs::write(store.path(&digest), b"c0ntent").unwrap();
        let damaged = store.read(&digest).unwrap_err();
        assert_eq!(damaged, store.path(&digest));
        store.discard(&damaged);
        assert_eq!(store.read(&digest), Ok(None));
        assert_eq!(std::fs::read_dir(store.partials()).unwrap().count(), 0);
    }

    #[test]
    fn a_download_goes_on_where_it_broke_off_and_two_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 100).unwrap();
        let digest = Digest::sha256(b"content");
        let mut first = store.partial(&digest, 7).unwrap();
        first.append(b"con").unwrap();
        let second = store.partial(&digest, 7).unwrap();
        assert_eq!(second.length(), 0);
        drop((first, second));
        let mut third = store.partial(&digest, 7).unwrap();
        assert_eq!(third.length(), 3);
        third.append(b"tent").unwrap();
        third.finish().unwrap();
        assert_eq!(store.read(&digest).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(std::fs::read_dir(store.partials()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_used_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 10).unwrap();
        let contents = [&b"aaaa"[..], b"bbbb", b"cccc"];
        for (age, content) in contents.iter().enumerate() {
            let digest = Digest::sha256(content);
            store.write(&digest, content).unwrap();
            let file = std::fs::File::open(store.path(&digest)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(100 - age as u64)).unwrap();
        }
        assert!(store.read(&Digest::sha256(b"aaaa")).unwrap().is_some());
        store.evict();
        let left = contents.map(|content| store.read(&Digest::sha256(content)).unwrap().is_some());
        assert_eq!(left, [true, false, true]);
    }

    #[test]
    fn tags_are_remembered_and_a_shared_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), 10).unwrap();
        let known = Remembered { tag: "1".into(), digest: Digest::sha256(b"") };
        assert_eq!(store.recall("r.io/a:1"), None);
        store.remember("r.io/a:1", &known).unwrap();
        assert_eq!(store.recall("r.io/a:1"), Some(known));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = Store::open(dir.path(), 10).unwrap_err().to_string();
        assert!(error.contains("others may write to it"), "{error}");
    }
}
