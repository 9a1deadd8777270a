//! Content by its digest. Nothing leaves it that is not what its digest says.
//!
//! A small blob is hashed before its first byte is sent. Of a larger one the last part is held back until all before it
//! was hashed: what is damaged is never whole at the client, and is not given out again. Parts of a blob are sent only
//! if the whole was hashed lately.

use super::layout;
use super::storage::{CHUNK, Content, Stat, Storage, StorageError};
use crate::digest::Digest;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore};

/// Blobs of up to this many bytes are hashed before anything of them is sent.
const SMALL: u64 = 4 << 20;

/// That a blob was found sound is believed for this long.
const BELIEVED: Duration = Duration::from_secs(600);

/// Blobs that were found sound; more are hashed again.
const REMEMBERED: usize = 10_000;

/// Blobs that are hashed at once for parts of them.
const HASHED_AT_ONCE: usize = 2;

/// All content.
pub(super) struct Blobs {
    storage: Arc<dyn Storage>,
    damaged: Mutex<BTreeMap<Digest, Damage>>,
    /// What was found sound, and when.
    sound: Mutex<HashMap<Digest, (Stat, Instant)>>,
    /// What a client asked for or pushed, and when: the garbage collection spares it.
    used: Mutex<HashMap<Digest, Instant>>,
    /// Held for reading by whoever makes something refer to content, for writing by whoever removes content.
    sweep: RwLock<()>,
    hashing: Semaphore,
}

/// Content that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// What the content's digest is; `None` where it cannot be read.
    pub found: Option<Digest>,
    /// Bytes that are there.
    pub size: u64,
    /// When it was found, in seconds since 1970.
    pub since: u64,
}

/// What a look at a blob showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Sound,
    Damaged(Damage),
    Gone,
}

// === impl Damage ===

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.found {
            Some(found) => write!(f, "its {} bytes have the digest {found}", self.size),
            None => f.write_str("it cannot be read"),
        }
    }
}

// === impl Blobs ===

impl Blobs {
    /// Reads what is known to be damaged.
    pub(super) async fn open(storage: Arc<dyn Storage>) -> Result<Blobs, StorageError> {
        let mut damaged = BTreeMap::new();
        for algorithm in layout::ALGORITHMS {
            for entry in storage.list(&format!("{}/{algorithm}", layout::DAMAGED)).await? {
                let Ok(digest) = format!("{algorithm}:{}", entry.name).parse::<Digest>() else { continue };
                let text = storage.read(&layout::damaged(&digest), 4096).await?.unwrap_or_default();
                let unknown = || Damage { found: None, size: 0, since: 0 };
                damaged.insert(digest.clone(), serde_json::from_slice(&text).unwrap_or_else(|_| unknown()));
            }
        }
        Ok(Blobs {
            storage,
            damaged: Mutex::new(damaged),
            sound: Mutex::default(),
            used: Mutex::default(),
            sweep: RwLock::new(()),
            hashing: Semaphore::new(HASHED_AT_ONCE),
        })
    }

    /// Size of a blob that can be given out. Whoever goes on to count on it holds [`Blobs::referring`].
    pub(super) async fn size(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        if self.damage(digest).is_some() {
            return Ok(None);
        }
        let stat = self.storage.stat(&layout::blob(digest)).await?;
        if stat.is_some() {
            self.used(digest);
        }
        Ok(stat.map(|stat| stat.size))
    }

    /// A small blob whole, and sound; `None` also where it is damaged.
    pub(super) async fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, StorageError> {
        if self.damage(digest).is_some() {
            return Ok(None);
        }
        let key = layout::blob(digest);
        let bytes = match self.storage.read(&key, limit).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => {
                // What was taken in was not that large; what has grown since is damaged.
                let has_grown = self.storage.stat(&key).await?.is_some_and(|stat| stat.size > limit);
                return match has_grown && matches!(self.check(digest, None).await?, Health::Damaged(_)) {
                    true => Ok(None),
                    false => Err(error),
                };
            }
        };
        let mut hasher = digest.algorithm().hasher();
        hasher.update(&bytes);
        let found = hasher.finish();
        if found == *digest {
            return Ok(Some(bytes));
        }
        self.mark(digest, Some(found), bytes.len() as u64).await;
        Ok(None)
    }

    /// The first bytes of a blob, at most a megabyte, which nobody has verified.
    pub(super) async fn begin(&self, digest: &Digest) -> Result<Option<Bytes>, StorageError> {
        let key = layout::blob(digest);
        let Some(mut content) = self.storage.open(&key, 0).await? else { return Ok(None) };
        content.next().await.transpose().map_err(|error| StorageError::new(&key, error))
    }

    /// The blob whole, as a stream that fails before its end if the blob is damaged. `None` where it is not there or
    /// known to be damaged.
    pub(super) async fn stream(
        self: &Arc<Self>,
        digest: &Digest,
        size: u64,
    ) -> Result<Option<Content>, StorageError> {
        if size <= SMALL {
            let bytes = self.read(digest, SMALL).await?;
            return Ok(bytes.map(|bytes| -> Content { Box::pin(stream::iter([Ok(bytes)])) }));
        }
        let Some(content) = self.storage.open(&layout::blob(digest), 0).await? else { return Ok(None) };
        let checked = Checked {
            blobs: Arc::clone(self),
            digest: digest.clone(),
            hasher: Some(digest.algorithm().hasher()),
            content,
            held: None,
            size: 0,
        };
        Ok(Some(Box::pin(stream::try_unfold(checked, Checked::next))))
    }

    /// `length` bytes of the blob from `offset` on, after the whole was found sound.
    pub(super) async fn part(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Option<Content>, StorageError> {
        if self.is_sound(digest).await? != Health::Sound {
            return Ok(None);
        }
        let Some(content) = self.storage.open(&layout::blob(digest), offset).await? else { return Ok(None) };
        let part = stream::try_unfold((content, length), |(mut content, left)| async move {
            if left == 0 {
                return Ok(None);
            }
            match content.next().await.transpose()? {
                None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Some(mut chunk) => {
                    chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - chunk.len() as u64;
                    Ok(Some((chunk, (content, left))))
                }
            }
        });
        Ok(Some(Box::pin(part)))
    }

    /// Whether the blob is sound, perhaps by what was found lately.
    async fn is_sound(&self, digest: &Digest) -> Result<Health, StorageError> {
        let Some(stat) = self.storage.stat(&layout::blob(digest)).await? else { return Ok(Health::Gone) };
        let is_known = || {
            let known = lock(&self.sound).get(digest).copied();
            known.is_some_and(|(then, when)| then == stat && when.elapsed() < BELIEVED)
        };
        if is_known() {
            return Ok(Health::Sound);
        }
        let _turn = self.hashing.acquire().await;
        // Another request may have had it hashed meanwhile.
        match is_known() {
            true => Ok(Health::Sound),
            false => self.check(digest, None).await,
        }
    }

    /// Reads and hashes the blob, at most so many bytes a second. What is damaged is marked.
    pub(super) async fn check(&self, digest: &Digest, pace: Option<u64>) -> Result<Health, StorageError> {
        let key = layout::blob(digest);
        let stat = self.storage.stat(&key).await?;
        let content = self.storage.open(&key, 0).await?;
        let (Some(stat), Some(mut content)) = (stat, content) else { return Ok(Health::Gone) };
        let mut hasher = digest.algorithm().hasher();
        let mut size = 0;
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| StorageError::new(&key, error))?;
            size += chunk.len() as u64;
            let begun = Instant::now();
            let length = chunk.len();
            hasher = hashed(hasher, chunk).await.map_err(|error| StorageError::new(&key, error))?;
            if let Some(pace) = pace {
                let due = Duration::from_secs_f64(length as f64 / pace.max(1) as f64);
                tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
            }
        }
        let found = hasher.finish();
        if found != *digest {
            return Ok(Health::Damaged(self.mark(digest, Some(found), size).await));
        }
        self.found_sound(digest, stat);
        if self.damage(digest).is_some() {
            self.repaired(digest).await?;
        }
        Ok(Health::Sound)
    }

    /// Makes a staged and durable file, whose digest was computed, the content of that digest.
    pub(super) async fn adopt(&self, digest: &Digest, file: &Path) -> Result<(), StorageError> {
        self.used(digest);
        self.storage.adopt(&layout::blob(digest), file).await?;
        self.repaired(digest).await
    }

    /// The same for bytes, whose digest was computed.
    pub(super) async fn write(&self, digest: &Digest, bytes: Bytes) -> Result<(), StorageError> {
        self.used(digest);
        self.storage.write(&layout::blob(digest), bytes).await?;
        self.repaired(digest).await
    }

    /// Keeps the garbage collection away while something is made to refer to content.
    pub(super) async fn referring(&self) -> RwLockReadGuard<'_, ()> {
        self.sweep.read().await
    }

    /// Keeps all away who refer to content, while some is removed.
    pub(super) async fn sweeping(&self) -> RwLockWriteGuard<'_, ()> {
        self.sweep.write().await
    }

    /// Somebody counts on this content.
    pub(super) fn used(&self, digest: &Digest) {
        lock(&self.used).insert(digest.clone(), Instant::now());
    }

    /// Whether somebody counted on it since then.
    pub(super) fn is_used_since(&self, digest: &Digest, since: Instant) -> bool {
        lock(&self.used).get(digest).is_some_and(|used| *used >= since)
    }

    /// Forgets who counted on what before then.
    pub(super) fn forget_before(&self, then: Instant) {
        lock(&self.used).retain(|_, used| *used >= then);
    }

    /// Removes content; whether it was there. Only under [`Blobs::sweeping`].
    pub(super) async fn remove(&self, digest: &Digest) -> Result<bool, StorageError> {
        let removed = self.storage.remove(&layout::blob(digest)).await?;
        self.repaired(digest).await?;
        Ok(removed)
    }

    /// What is known to be damaged.
    pub(super) fn all_damaged(&self) -> BTreeMap<Digest, Damage> {
        lock(&self.damaged).clone()
    }

    /// What is wrong with a blob, if it is known to be damaged.
    pub(super) fn damage(&self, digest: &Digest) -> Option<Damage> {
        lock(&self.damaged).get(digest).cloned()
    }

    /// Marks content that the disk cannot give.
    pub(super) async fn mark_unreadable(&self, digest: &Digest) {
        self.mark(digest, None, 0).await;
    }

    async fn mark(&self, digest: &Digest, found: Option<Digest>, size: u64) -> Damage {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let damage = Damage { found, size, since };
        let is_new = lock(&self.damaged).insert(digest.clone(), damage.clone()).is_none();
        lock(&self.sound).remove(digest);
        if is_new {
            tracing::error!(
                "blob {digest} is damaged: {damage}; it is not given out until somebody pushes it again"
            );
            let text = serde_json::to_vec(&damage).unwrap_or_default();
            if let Err(error) = self.storage.write(&layout::damaged(digest), text.into()).await {
                tracing::error!("the damage is known until the next start only: {error}");
            }
        }
        damage
    }

    async fn repaired(&self, digest: &Digest) -> Result<(), StorageError> {
        if lock(&self.damaged).remove(digest).is_some() {
            self.storage.remove(&layout::damaged(digest)).await?;
        }
        Ok(())
    }

    fn found_sound(&self, digest: &Digest, stat: Stat) {
        let mut sound = lock(&self.sound);
        if sound.len() >= REMEMBERED {
            sound.retain(|_, (_, when)| when.elapsed() < BELIEVED);
        }
        if sound.len() < REMEMBERED {
            sound.insert(digest.clone(), (stat, Instant::now()));
        }
    }
}

/// A blob on its way out.
struct Checked {
    blobs: Arc<Blobs>,
    digest: Digest,
    hasher: Option<crate::digest::Hasher>,
    content: Content,
    /// Hashed, and not sent before what follows was hashed, too.
    held: Option<Bytes>,
    size: u64,
}

// === impl Checked ===

impl Checked {
    async fn next(mut self) -> io::Result<Option<(Bytes, Checked)>> {
        loop {
            let Some(hasher) = self.hasher.take() else { return Ok(None) };
            match self.content.next().await.transpose()? {
                Some(chunk) => {
                    self.size += chunk.len() as u64;
                    self.hasher = Some(hashed(hasher, chunk.clone()).await?);
                    if let Some(before) = self.held.replace(chunk) {
                        return Ok(Some((before, self)));
                    }
                }
                None => {
                    let found = hasher.finish();
                    if found != self.digest {
                        self.blobs.mark(&self.digest, Some(found), self.size).await;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "the stored blob is damaged"));
                    }
                    return Ok(self.held.take().map(|last| (last, self)));
                }
            }
        }
    }
}

/// Hashes where it may take its time.
async fn hashed(mut hasher: crate::digest::Hasher, chunk: Bytes) -> io::Result<crate::digest::Hasher> {
    if chunk.len() < CHUNK / 16 {
        hasher.update(&chunk);
        return Ok(hasher);
    }
    let hashed = tokio::task::spawn_blocking(move || {
        hasher.update(&chunk);
        hasher
    });
    hashed.await.map_err(io::Error::other)
}

/// No lock of the registry is held while something may panic, so a poisoned one is as good as any.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
