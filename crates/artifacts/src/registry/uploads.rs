//! Uploads under way. Each is a file that grows, hashed while it does, and becomes a blob only when it is whole, has the
//! digest that its client says, and is durable.
//!
//! An upload outlives its requests and the process: a client asks how far it came and goes on there. One that nobody
//! goes on with expires. Staged files are on a local disk whatever the storage is.

use super::blobs::lock;
use super::name::Repository;
use super::refusal::Refusal;
use super::storage::folder::{make_folder, write_durably};
use super::storage::{CHUNK, StorageError};
use crate::digest::{Algorithm, Digest, Hasher};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use ring::rand::SecureRandom;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::OwnedMutexGuard;

/// The body of a request.
pub(super) type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body ends early.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A client that sends nothing for this long is given up; its upload stays where it is.
const SILENCE: Duration = Duration::from_secs(60);

/// A request waits this long for one before it that has not ended yet, as where a client connects again.
const BUSY: Duration = Duration::from_secs(10);

/// An upload that has no byte yet expires this soon.
const EMPTY_EXPIRY: Duration = Duration::from_secs(600);

/// Of the uploads at once, one user may have half, and one repository; of few ones all.
const SHARE: usize = 2;
const FEW: usize = 16;

/// Ends the name of the file that says which repository an upload is for.
const OWNER: &str = ".repository";

/// All uploads under way.
pub(super) struct Uploads {
    folder: PathBuf,
    /// Uploads at once.
    limit: usize,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// One upload.
pub(super) struct Session {
    pub(super) id: String,
    pub(super) repository: Repository,
    /// Who began it; `None` for one that did not log in, and after a start.
    user: Option<String>,
    length: Arc<AtomicU64>,
    state: Arc<tokio::sync::Mutex<State>>,
}

struct State {
    file: PathBuf,
    /// Bytes that are there; the file may have more after a write that failed.
    length: Arc<AtomicU64>,
    /// SHA-256 of those bytes, unless they were written by a process before this one.
    hasher: Option<Hasher>,
    /// It became a blob, or was given up.
    ended: bool,
}

/// The right to write to an upload.
pub(super) struct Writer(OwnedMutexGuard<State>);

/// A file that is whole, durable, and has this digest.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) file: PathBuf,
    pub(super) size: u64,
}

// === impl Uploads ===

impl Uploads {
    /// Takes up the uploads that an earlier process left.
    pub(super) fn open(folder: &Path, limit: usize) -> io::Result<Uploads> {
        make_folder(folder)?;
        let mut sessions = HashMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(id) = name.strip_suffix(OWNER) else {
                // Without its owner it never began, or ended.
                if !owner(folder, name).is_file() {
                    fs::remove_file(&path)?;
                }
                continue;
            };
            let file = folder.join(id);
            let repository = fs::read_to_string(&path)?.parse::<Repository>();
            match (repository, fs::metadata(&file)) {
                (Ok(repository), Ok(metadata)) => {
                    let session = Session::new(id, repository, None, file, metadata.len(), None);
                    sessions.insert(id.to_owned(), Arc::new(session));
                }
                _ => fs::remove_file(&path)?,
            }
        }
        Ok(Uploads { folder: folder.to_owned(), limit, sessions: Mutex::new(sessions) })
    }

    /// Begins an upload. Neither a user nor a repository takes the places of all others.
    pub(super) async fn begin(
        &self,
        repository: &Repository,
        user: Option<&str>,
    ) -> Result<Arc<Session>, Refusal> {
        if !self.has_room(repository, user) {
            // What was never written to, or is gone, makes room.
            self.expire(Duration::MAX).await;
            if !self.has_room(repository, user) {
                return Err(Refusal::TooMany);
            }
        }
        let id = random_id().map_err(|error| StorageError::new("a random number", error))?;
        let (file, owner) = (self.folder.join(&id), owner(&self.folder, &id));
        let session =
            Session::new(&id, repository.clone(), user, file.clone(), 0, Some(Algorithm::Sha256.hasher()));
        let text = repository.to_string();
        blocking(&id, move || {
            File::options().write(true).create_new(true).mode(0o600).open(file)?;
            write_durably(&owner, text.as_bytes())
        })
        .await?;
        let session = Arc::new(session);
        lock(&self.sessions).insert(id, Arc::clone(&session));
        Ok(session)
    }

    fn has_room(&self, repository: &Repository, user: Option<&str>) -> bool {
        let sessions = lock(&self.sessions);
        let share = self.limit.div_ceil(SHARE).max(FEW);
        let of_repository = sessions.values().filter(|session| session.repository == *repository).count();
        let of_user = sessions.values().filter(|session| session.user.as_deref() == user).count();
        sessions.len() < self.limit && of_repository < share && (user.is_none() || of_user < share)
    }

    /// The upload of this id, in this repository.
    pub(super) fn get(&self, repository: &Repository, id: &str) -> Result<Arc<Session>, Refusal> {
        let found = lock(&self.sessions).get(id).cloned();
        let found = found.filter(|session| session.repository == *repository);
        found.ok_or_else(|| Refusal::UploadUnknown(repository.clone()))
    }

    /// Forgets an upload, and removes what is left of it.
    pub(super) async fn end(&self, session: &Session, mut writer: Writer) -> Result<(), Refusal> {
        writer.0.ended = true;
        let (file, owner) = (writer.0.file.clone(), owner(&self.folder, &session.id));
        // The file goes last: what a kill leaves of an upload without owner, the next start removes.
        let removed = blocking(&session.id, move || remove(&owner).and_then(|()| remove(&file))).await;
        lock(&self.sessions).remove(&session.id);
        Ok(removed?)
    }

    /// Ends the uploads that nobody wrote to for so long, earlier where there is nothing of them, and at once where their
    /// file is gone; how many.
    pub(super) async fn expire(&self, age: Duration) -> usize {
        let sessions: Vec<Arc<Session>> = lock(&self.sessions).values().cloned().collect();
        let mut ended = 0;
        for session in sessions {
            let Ok(state) = Arc::clone(&session.state).try_lock_owned() else { continue };
            let age = if session.length() == 0 { age.min(EMPTY_EXPIRY) } else { age };
            let has_expired = match fs::metadata(&state.file).and_then(|metadata| metadata.modified()) {
                Ok(then) => SystemTime::now().duration_since(then).is_ok_and(|idle| idle >= age),
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            };
            if !has_expired {
                continue;
            }
            match self.end(&session, Writer(state)).await {
                Ok(()) => ended += 1,
                Err(error) => tracing::warn!("an upload that expired cannot be removed: {error}"),
            }
        }
        ended
    }

    /// Uploads under way.
    pub(super) fn count(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Bytes of all uploads of a repository.
    pub(super) fn bytes(&self, repository: &Repository) -> u64 {
        let sessions = lock(&self.sessions);
        sessions
            .values()
            .filter(|session| session.repository == *repository)
            .map(|session| session.length())
            .sum()
    }
}

fn owner(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}{OWNER}"))
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// In the form of a UUID, which some clients take it for.
fn random_id() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("none to be had"))?;
    let mut id = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        id.push_str(&format!("{byte:02x}"));
    }
    Ok(id)
}

// === impl Session ===

impl Session {
    fn new(
        id: &str,
        repository: Repository,
        user: Option<&str>,
        file: PathBuf,
        length: u64,
        hasher: Option<Hasher>,
    ) -> Session {
        let length = Arc::new(AtomicU64::new(length));
        let state = State { file, length: Arc::clone(&length), hasher, ended: false };
        let (id, user) = (id.to_owned(), user.map(str::to_owned));
        Session { id, repository, user, length, state: Arc::new(tokio::sync::Mutex::new(state)) }
    }

    /// Bytes that are there.
    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Waits for its turn to write.
    pub(super) async fn writer(&self) -> Result<Writer, Refusal> {
        let turn = tokio::time::timeout(BUSY, Arc::clone(&self.state).lock_owned()).await;
        match turn {
            Err(_) => Err(Refusal::UploadBusy),
            Ok(state) if state.ended => Err(Refusal::UploadUnknown(self.repository.clone())),
            Ok(state) => Ok(Writer(state)),
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Appends a body, as long as the whole has at most `limit` bytes. What arrived before an error stays.
    pub(super) async fn append(
        mut self,
        body: &mut RequestBody,
        limit: u64,
    ) -> Result<Writer, (Writer, Refusal)> {
        let mut buffer = BytesMut::new();
        loop {
            let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) | Err(_) => {
                    return Err(match self.write(buffer.freeze()).await {
                        Ok(writer) => (writer, Refusal::BodyBroken),
                        Err(failed) => failed,
                    });
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            let length = self.length() + buffer.len() as u64 + data.len() as u64;
            if length > limit {
                return Err((self, Refusal::TooLarge { what: "the blob", limit }));
            }
            buffer.extend_from_slice(&data);
            if buffer.len() >= CHUNK {
                self = self.write(buffer.split().freeze()).await?;
            }
        }
        self.write(buffer.freeze()).await
    }

    pub(super) fn length(&self) -> u64 {
        self.0.length.load(Ordering::Acquire)
    }

    /// Writes and hashes where it may block. The right to write goes along: should this request be dropped meanwhile,
    /// nobody else writes before it is done.
    async fn write(self, bytes: Bytes) -> Result<Writer, (Writer, Refusal)> {
        if bytes.is_empty() {
            return Ok(self);
        }
        let Writer(mut state) = self;
        let shared = Arc::clone(OwnedMutexGuard::mutex(&state));
        let written = tokio::task::spawn_blocking(move || {
            let written = state.write(&bytes);
            (Writer(state), written)
        });
        match written.await {
            Ok((writer, Ok(()))) => Ok(writer),
            Ok((writer, Err(error))) => Err((writer, StorageError::new("upload", error).into())),
            // The process is going down.
            Err(error) => {
                let writer = Writer(shared.lock_owned().await);
                Err((writer, StorageError::new("upload", io::Error::other(error)).into()))
            }
        }
    }

    /// Makes the file durable, and computes its digest. The file may be removed or adopted afterwards.
    pub(super) async fn finish(self, said: &Digest) -> Result<(Writer, Staged), (Writer, Refusal)> {
        let Writer(mut state) = self;
        let shared = Arc::clone(OwnedMutexGuard::mutex(&state));
        let algorithm = said.algorithm();
        let finished = tokio::task::spawn_blocking(move || {
            let finished = state.finish(algorithm);
            (Writer(state), finished)
        });
        let failed = |error| StorageError::new("upload", error).into();
        match finished.await {
            Err(error) => Err((Writer(shared.lock_owned().await), failed(io::Error::other(error)))),
            Ok((writer, Err(error))) => Err((writer, failed(error))),
            Ok((writer, Ok(found))) if found != *said => {
                Err((writer, Refusal::DigestMismatch { said: said.clone(), found }))
            }
            Ok((writer, Ok(_))) => {
                let staged = Staged { file: writer.0.file.clone(), size: writer.length() };
                Ok((writer, staged))
            }
        }
    }
}

// === impl State ===

impl State {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = self.length.load(Ordering::Acquire);
        let file = File::options().write(true).open(&self.file)?;
        file.write_all_at(bytes, length)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.length.store(length + bytes.len() as u64, Ordering::Release);
        Ok(())
    }

    fn finish(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        let length = self.length.load(Ordering::Acquire);
        let mut file = File::options().read(true).write(true).open(&self.file)?;
        file.set_len(length)?;
        file.sync_all()?;
        if algorithm == Algorithm::Sha256
            && let Some(hasher) = self.hasher.take()
        {
            return Ok(hasher.finish());
        }
        let mut hasher = algorithm.hasher();
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(read) => hasher.update(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    what: &str,
    step: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StorageError> {
    let done = tokio::task::spawn_blocking(step).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    done.map_err(|error| StorageError::new(what, error))
}

#[cfg(test)]
mod tests {
    use super::{FEW, Uploads};
    use crate::registry::refusal::Refusal;
    use std::time::Duration;

    #[tokio::test]
    async fn an_upload_whose_file_is_gone_takes_no_place() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(folder.path(), 1).unwrap();
        let repository = "a/b".parse().unwrap();
        let session = uploads.begin(&repository, None).await.unwrap();
        assert!(matches!(uploads.begin(&repository, None).await, Err(Refusal::TooMany)));
        std::fs::remove_file(folder.path().join(&session.id)).unwrap();
        assert_eq!(uploads.expire(Duration::MAX).await, 1);
        uploads.begin(&repository, None).await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn nobody_takes_the_places_of_all_others() {
        let folder = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(folder.path(), 2 * FEW).unwrap();
        for number in 0..FEW {
            let repository = format!("a/{number}").parse().unwrap();
            uploads.begin(&repository, Some("alice")).await.unwrap();
        }
        let other = "a/other".parse().unwrap();
        assert!(matches!(uploads.begin(&other, Some("alice")).await, Err(Refusal::TooMany)));
        uploads.begin(&other, Some("bob")).await.unwrap();
    }
}
