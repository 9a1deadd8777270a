//! The blobs of a repository: those that were pushed to it, and those that it has from another one.
//!
//! Content is stored once; that a repository has it is a link. Whoever may read a repository reads what it links to, and
//! nothing else.

use super::blobs::lock;
use super::layout::{self, Room};
use super::name::Repository;
use super::refusal::Refusal;
use super::storage::{Content, StorageError};
use super::uploads::{RequestBody, Session, Staged};
use super::{Registry, Turn};
use crate::digest::Digest;
use std::sync::Arc;

/// Bytes of a link at most.
const MAX_LINK: u64 = 64;

// === impl Registry ===

impl Registry {
    /// Size of a blob that the repository has and that can be given out; `None` where it has to be pushed.
    pub(super) async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<u64>, StorageError> {
        match self.is_linked(repository, digest).await? {
            true => self.blobs.size(digest).await,
            false => Ok(None),
        }
    }

    /// The same for a client that goes on to count on it.
    pub(super) async fn find_blob(&self, repository: &Repository, digest: &Digest) -> Result<u64, Refusal> {
        let _referring = self.blobs.referring().await;
        match self.blob_size(repository, digest).await? {
            Some(size) => Ok(size),
            None if self.blobs.damage(digest).is_some() && self.is_linked(repository, digest).await? => {
                Err(Refusal::Damaged(digest.clone()))
            }
            None => Err(unknown(repository, digest)),
        }
    }

    /// The content of a blob that was found: whole, or so many bytes from an offset on.
    pub(super) async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        part: Option<(u64, u64)>,
    ) -> Result<Content, Refusal> {
        let content = match part {
            None => self.blobs.stream(digest, size).await?,
            Some((offset, length)) => self.blobs.part(digest, offset, length).await?,
        };
        match content {
            Some(content) => Ok(content),
            None if self.blobs.damage(digest).is_some() => Err(Refusal::Damaged(digest.clone())),
            None => Err(unknown(repository, digest)),
        }
    }

    async fn is_linked(&self, repository: &Repository, digest: &Digest) -> Result<bool, StorageError> {
        // Manifests are content as well, and some clients ask for them as such.
        for room in [Room::Blobs, Room::Manifests] {
            if self.storage.stat(&layout::link(repository, room, digest)).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Bytes that an upload of this repository may have.
    pub(super) async fn room_for(&self, session: &Session) -> Result<u64, Refusal> {
        let limit = self.options.max_blob;
        let Some(quota) = self.options.max_repository else { return Ok(limit) };
        let turn = self.turn(&session.repository).await;
        let used = self.usage(&turn, &session.repository).await? + self.uploads.bytes(&session.repository);
        let room = quota.saturating_sub(used.saturating_sub(session.length()));
        Ok(limit.min(room))
    }

    /// Appends a body to an upload. What arrived before an error stays, unless it is too much.
    pub(super) async fn append(
        &self,
        session: &Arc<Session>,
        at: Option<u64>,
        body: &mut RequestBody,
    ) -> Result<u64, Refusal> {
        let writer = session.writer().await?;
        let length = writer.length();
        if at.is_some_and(|at| at != length) {
            return Err(self.out_of_order(session, length));
        }
        let room = self.room_for(session).await?;
        match writer.append(body, room).await {
            Ok(writer) => Ok(writer.length()),
            Err((writer, Refusal::TooLarge { .. })) => {
                self.uploads.end(session, writer).await?;
                Err(self.too_large(&session.repository, room))
            }
            Err((_, refusal)) => Err(refusal),
        }
    }

    /// Ends an upload with its last bytes: it becomes a blob of its repository. Once they are there, it goes on to its end
    /// whether its client waits or not.
    pub(super) async fn finish(
        self: &Arc<Self>,
        session: &Arc<Session>,
        at: Option<u64>,
        body: &mut RequestBody,
        digest: &Digest,
    ) -> Result<(), Refusal> {
        let writer = session.writer().await?;
        let length = writer.length();
        if at.is_some_and(|at| at != length) {
            return Err(self.out_of_order(session, length));
        }
        let room = self.room_for(session).await?;
        let appended = writer.append(body, room).await;
        let finished = match appended {
            Ok(writer) => writer.finish(digest).await,
            Err(failed) => Err(failed),
        };
        let (writer, staged) = match finished {
            Ok(finished) => finished,
            Err((writer, Refusal::TooLarge { .. })) => {
                self.uploads.end(session, writer).await?;
                return Err(self.too_large(&session.repository, room));
            }
            // It will never have this digest.
            Err((writer, refusal @ Refusal::DigestMismatch { .. })) => {
                self.uploads.end(session, writer).await?;
                return Err(refusal);
            }
            Err((_, refusal)) => return Err(refusal),
        };
        let (registry, session, digest) = (Arc::clone(self), Arc::clone(session), digest.clone());
        self.complete(async move {
            let adopted = registry.adopt(&session.repository, &digest, &staged).await;
            // Where the storage gave up, the client may try again, as long as there is something to try with.
            let may_go_on = matches!(adopted, Err(Refusal::Storage(_) | Refusal::DiskFull));
            if !may_go_on || !staged.file.exists() {
                registry.uploads.end(&session, writer).await?;
            }
            adopted
        })
        .await
    }

    async fn adopt(&self, repository: &Repository, digest: &Digest, staged: &Staged) -> Result<(), Refusal> {
        let _referring = self.blobs.referring().await;
        self.blobs.adopt(digest, &staged.file).await?;
        self.link(repository, digest, staged.size).await?;
        self.counters.received.add(staged.size);
        Ok(())
    }

    /// Gives the repository a blob that another one has; whether that one has it.
    pub(super) async fn mount(
        &self,
        repository: &Repository,
        from: &Repository,
        digest: &Digest,
    ) -> Result<bool, Refusal> {
        let _referring = self.blobs.referring().await;
        let Some(size) = self.blob_size(from, digest).await? else { return Ok(false) };
        self.link(repository, digest, size).await?;
        Ok(true)
    }

    /// Takes a blob from the repository. The content goes with the next garbage collection.
    pub(super) async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Refusal> {
        let _turn = self.turn(repository).await;
        match self.unlink(repository, digest).await? {
            true => Ok(()),
            false => Err(unknown(repository, digest)),
        }
    }

    pub(super) async fn unlink(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        self.count_again(repository);
        self.storage.remove(&layout::link(repository, Room::Blobs, digest)).await
    }

    async fn link(&self, repository: &Repository, digest: &Digest, size: u64) -> Result<(), Refusal> {
        let key = layout::link(repository, Room::Blobs, digest);
        let turn = self.turn(repository).await;
        if self.storage.stat(&key).await?.is_none() {
            self.check_quota(&turn, repository, size).await?;
            self.storage.write(&key, size.to_string().into()).await?;
            self.count(repository, size);
        }
        Ok(())
    }

    /// Whether a repository may have so many bytes more. Nobody else adds any before the turn is over.
    pub(super) async fn check_quota(
        &self,
        turn: &Turn<'_>,
        repository: &Repository,
        size: u64,
    ) -> Result<(), Refusal> {
        let Some(limit) = self.options.max_repository else { return Ok(()) };
        match self.usage(turn, repository).await?.saturating_add(size) > limit {
            true => Err(Refusal::Quota { repository: repository.clone(), limit }),
            false => Ok(()),
        }
    }

    /// A repository has so many bytes more.
    pub(super) fn count(&self, repository: &Repository, size: u64) {
        if let Some(used) = lock(&self.usage).get_mut(repository) {
            *used = used.saturating_add(size);
        }
    }

    /// A repository has less than before; how much, is counted when somebody asks.
    pub(super) fn count_again(&self, repository: &Repository) {
        lock(&self.usage).remove(repository);
    }

    /// Bytes of all blobs and manifests of a repository.
    async fn usage(&self, _turn: &Turn<'_>, repository: &Repository) -> Result<u64, StorageError> {
        if let Some(known) = lock(&self.usage).get(repository).copied() {
            return Ok(known);
        }
        let mut bytes: u64 = 0;
        for algorithm in layout::ALGORITHMS {
            let folder = layout::links(repository, Room::Blobs, algorithm);
            for entry in self.storage.list(&folder).await? {
                let text = self.storage.read(&format!("{folder}/{}", entry.name), MAX_LINK).await?;
                let size = text.and_then(|text| std::str::from_utf8(&text).ok()?.parse::<u64>().ok());
                bytes = bytes.saturating_add(size.unwrap_or_default());
            }
            for entry in self.storage.list(&layout::links(repository, Room::Manifests, algorithm)).await? {
                let Ok(digest) = format!("{algorithm}:{}", entry.name).parse::<Digest>() else { continue };
                let stat = self.storage.stat(&layout::blob(&digest)).await?;
                bytes = bytes.saturating_add(stat.map_or(0, |stat| stat.size));
            }
        }
        lock(&self.usage).insert(repository.clone(), bytes);
        Ok(bytes)
    }

    fn out_of_order(&self, session: &Session, length: u64) -> Refusal {
        Refusal::OutOfOrder { repository: session.repository.clone(), upload: session.id.clone(), length }
    }

    fn too_large(&self, repository: &Repository, room: u64) -> Refusal {
        match self.options.max_repository {
            Some(limit) if room < self.options.max_blob => {
                Refusal::Quota { repository: repository.clone(), limit }
            }
            _ => Refusal::TooLarge { what: "the blob", limit: self.options.max_blob },
        }
    }
}

fn unknown(repository: &Repository, digest: &Digest) -> Refusal {
    Refusal::BlobUnknown { repository: repository.clone(), digest: digest.clone() }
}
