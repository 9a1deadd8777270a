//! Compiled code on disk, shared by all processes of a user.
//!
//! An entry is named by what it was made from: the digest of the WebAssembly bytes and of everything in
//! the engine, and before it ([`crate::join`]), that has an influence on the code. It is written to a
//! temporary file and renamed, so that nobody ever sees half of one, and it ends in a checksum: compiled code
//! is trusted machine code, and a damaged entry must not run. Entries are used through a memory map, so
//! processes share the pages.
//!
//! ```text
//! <folder>/<blake3 of the wasm>-<blake3 of engine, flavor, version and joining>.cwasm
//!     compiled code, padded to 8 bytes | blake3 of all before (32 bytes) | MAGIC (8 bytes)
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"dhowcw01";
const FOOTER: usize = 32 + MAGIC.len();

/// Digest of the bytes of a WebAssembly file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digest(blake3::Hash);

/// A folder of compiled code.
#[derive(Clone, Debug)]
pub struct Cache {
    /// As people know it.
    name: PathBuf,
    /// The open folder, whatever its path leads to later.
    folder: PathBuf,
    max_bytes: u64,
    _held: Arc<File>,
}

/// Why the cache folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {folder} to keep compiled code: {reason}; set DHOW_CACHE_DIR to a folder of your own")]
pub struct CacheError {
    /// The folder.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

// === impl Digest ===

impl Digest {
    /// The digest of these bytes.
    pub fn of(wasm: &[u8]) -> Digest {
        Digest(blake3::hash(wasm))
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "blake3:{}", self.0.to_hex())
    }
}

// === impl Cache ===

impl Cache {
    /// Default bound of the folder's size: 4 GiB.
    pub const DEFAULT_MAX_BYTES: u64 = 4 << 30;

    /// Uses `folder`, making it if it is not there. Refuses one that other users may write to, since its content is run
    /// as machine code.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Cache, CacheError> {
        let error = |reason: String| CacheError { folder: folder.to_owned(), reason };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| error(e.to_string()))?;
        let held = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(folder);
        let held = held.map_err(|e| error(e.to_string()))?;
        let meta = held.metadata().map_err(|e| error(e.to_string()))?;
        if meta.uid() != user() {
            return Err(error(format!("it belongs to user {}, not to user {}", meta.uid(), user())));
        }
        if meta.mode() & 0o022 != 0 {
            return Err(error(format!("others may write to it (mode {:o})", meta.mode() & 0o7777)));
        }
        let name = folder.to_owned();
        // By its path, others could exchange it where they may write to a folder above.
        let folder = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        if !folder.is_dir() {
            return Err(error("it cannot be held open: /proc is not mounted".to_owned()));
        }
        Ok(Cache { name, folder, max_bytes, _held: Arc::new(held) })
    }

    /// The file of an entry, whether it is there or not.
    pub fn path(&self, digest: Digest, engine: &wasmtime::Engine) -> PathBuf {
        let mut compatibility = Fingerprint(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut compatibility);
        crate::join::VERSION.hash(&mut compatibility);
        let compatibility = compatibility.0.finalize().to_hex();
        self.folder.join(format!("{}-{}.cwasm", digest.0.to_hex(), &compatibility[..16]))
    }

    /// The entry's file if it is there and whole. A damaged one is removed.
    pub fn find(&self, digest: Digest, engine: &wasmtime::Engine) -> Option<PathBuf> {
        let path = self.path(digest, engine);
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).ok()?;
        match is_whole(&file) {
            Ok(true) => {
                // The time of last use, for eviction. Failing to note it is harmless.
                let _ = file.set_modified(SystemTime::now());
                Some(path)
            }
            Ok(false) => {
                tracing::warn!(
                    "compiled code in {} is damaged or not yours; compiling again",
                    self.named(&path)
                );
                let _ = fs::remove_file(&path);
                None
            }
            Err(error) => {
                tracing::warn!("cannot read {}: {error}; compiling again", self.named(&path));
                None
            }
        }
    }

    /// An entry, as people know it.
    fn named(&self, entry: &Path) -> String {
        self.name.join(entry.file_name().unwrap_or_default()).display().to_string()
    }

    /// Forgets an entry that the engine refused.
    pub fn remove(&self, path: &Path) {
        let _ = fs::remove_file(path);
    }

    /// Keeps compiled code; the answer is its file. Evicts the least recently used entries when the folder
    /// grows beyond its bound.
    pub fn store(&self, digest: Digest, engine: &wasmtime::Engine, code: &[u8]) -> io::Result<PathBuf> {
        let path = self.path(digest, engine);
        let temporary = self.folder.join(format!(".{}.{:016x}.tmp", std::process::id(), unique()));
        let written = self.write(&temporary, code).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.evict(&path);
        Ok(path)
    }

    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let padding = [0_u8; 8];
        let padding = &padding[..code.len().wrapping_neg() % 8];
        let mut hasher = blake3::Hasher::new();
        hasher.update(code).update(padding);
        file.write_all(code)?;
        file.write_all(padding)?;
        file.write_all(hasher.finalize().as_bytes())?;
        file.write_all(MAGIC)
    }

    fn evict(&self, keep: &Path) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let meta = entry.metadata().ok()?;
                meta.is_file()
                    .then(|| (meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()))
            })
            .collect();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (_, size, path) in files {
            if total <= self.max_bytes {
                break;
            }
            // Code that a process has mapped stays usable after its file is gone.
            if path != keep && fs::remove_file(&path).is_ok() {
                total -= size;
            }
        }
    }
}

fn user() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether an entry is this user's own, and nothing is missing. Reads without mapping, so that checking does not make
/// pages resident.
fn is_whole(mut file: &File) -> io::Result<bool> {
    let meta = file.metadata()?;
    let is_ours = meta.is_file() && meta.uid() == user() && meta.mode() & 0o022 == 0;
    let Some(mut left) = meta.len().checked_sub(FOOTER as u64).filter(|_| is_ours) else {
        return Ok(false);
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0_u8; 256 << 10];
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = file.read(&mut buffer[..most])?;
        if read == 0 {
            return Ok(false);
        }
        hasher.update(&buffer[..read]);
        left -= read as u64;
    }
    let mut footer = [0; FOOTER];
    file.read_exact(&mut footer)?;
    Ok(&footer[..32] == hasher.finalize().as_bytes() && &footer[32..] == MAGIC)
}

/// A name that no other thread or process picks; the file is opened with `create_new` besides.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    nanos ^ NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Feeds a [`Hash`] implementation into blake3, which gives the same answer in every process.
struct Fingerprint(blake3::Hasher);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
