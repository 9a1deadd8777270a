//! Manifests and tags of repositories: pushed whole, found by tag or digest, listed, deleted.
//!
//! All changes of one repository's names wait for each other; the last of two pushes of one tag wins, whole.

use super::examine::{Examination, Module, Trust, module};
use super::layout::{self, Room};
use super::manifest::{Descriptor, MAX_MANIFEST, Manifest};
use super::name::{Repository, Selector, Tag};
use super::refusal::Refusal;
use super::storage::StorageError;
use super::{Registry, SignedPolicy};
use crate::digest::{Algorithm, Digest};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of the entry of a manifest at most: what is known of a module with many imports.
pub(super) const MAX_RECORD: u64 = 8 << 20;

/// Bytes of the entry of a manifest that refers to another one, and of a page of them.
const MAX_REFERRER: usize = 1 << 20;
const MAX_REFERRERS: usize = 4 << 20;

/// Bytes of a tag's entry at most.
const MAX_TAG: u64 = 256;

/// What is known of a manifest, beside its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) media_type: String,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) pushed: u64,
    /// Manifests of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) children: Vec<Digest>,
    /// Of its module, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) module: Option<Arc<Examination>>,
}

/// A manifest as it is given out.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// What a client expects of a tag before it changes it (`If-Match`, `If-None-Match`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// It names one of these; empty for anything.
    pub(super) one_of: Vec<String>,
    /// It is not there yet.
    pub(super) absent: bool,
}

/// What was pushed.
pub(super) struct Pushed {
    pub(super) digest: Digest,
    pub(super) subject: Option<Digest>,
    /// What its client should know about its module.
    pub(super) warning: Option<String>,
}

/// A manifest that was examined, and what goes with it.
struct New {
    digest: Digest,
    bytes: Bytes,
    manifest: Manifest,
    record: Record,
    /// What it refers to, and its entry in the list of what does.
    about: Option<(Digest, Vec<u8>)>,
    tag: Option<Tag>,
}

// === impl Registry ===

impl Registry {
    /// Stores a manifest whose content is there already, and has the tag name it. It is examined first, which may take its
    /// time: nobody waits for that.
    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        repository: &Repository,
        selector: &Selector,
        bytes: Bytes,
        content_type: Option<&str>,
        expected: &Expected,
    ) -> Result<Pushed, Refusal> {
        let (manifest, media_type) = Manifest::read(&bytes, content_type)?;
        let algorithm = match selector {
            Selector::Digest(said) => said.algorithm(),
            Selector::Tag(_) => Algorithm::Sha256,
        };
        let mut hasher = algorithm.hasher();
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Selector::Digest(said) = selector
            && *said != digest
        {
            return Err(Refusal::DigestMismatch { said: said.clone(), found: digest });
        }
        let kind = manifest.kind().map(str::to_owned);
        let about = manifest.subject.as_ref().map(|subject| {
            let descriptor = Descriptor {
                media_type: media_type.clone(),
                digest: digest.clone(),
                size: bytes.len() as u64,
                artifact_type: kind,
                annotations: manifest.annotations.clone(),
            };
            (subject.digest.clone(), serde_json::to_vec(&descriptor).unwrap_or_default())
        });
        if about.as_ref().is_some_and(|(_, descriptor)| descriptor.len() > MAX_REFERRER) {
            return Err(Refusal::ManifestInvalid(format!(
                "its annotations are in the list of what refers to its subject, and have more than {MAX_REFERRER} bytes"
            )));
        }
        self.check_references(repository, &manifest).await?;
        let examination = self.examine(&manifest, &bytes).await?;
        let warning = self.judge(repository, selector, examination.as_ref())?;
        let record = Record {
            media_type,
            size: bytes.len() as u64,
            pushed: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            children: manifest.manifests.iter().map(|child| child.digest.clone()).collect(),
            module: examination.map(Arc::new),
        };
        let tag = match selector {
            Selector::Tag(tag) => Some(tag.clone()),
            Selector::Digest(_) => None,
        };
        let subject = about.as_ref().map(|(subject, _)| subject.clone());
        let pushed = Pushed { digest: digest.clone(), subject, warning };
        let new = New { digest, bytes, manifest, record, about, tag };
        let (registry, repository, expected) = (Arc::clone(self), repository.clone(), expected.clone());
        self.complete(async move { registry.store_manifest(&repository, new, &expected).await }).await?;
        Ok(pushed)
    }

    /// Stores a manifest that was examined.
    async fn store_manifest(
        &self,
        repository: &Repository,
        new: New,
        expected: &Expected,
    ) -> Result<(), Refusal> {
        let New { digest, bytes, manifest, record, about, tag } = new;
        let _referring = self.blobs.referring().await;
        let turn = self.turn(repository).await;
        // Again: since it was looked at, it may have been removed.
        self.check_references(repository, &manifest).await?;
        if let Some(tag) = &tag {
            self.check_expected(repository, tag, expected).await?;
        }
        let link = layout::link(repository, Room::Manifests, &digest);
        let is_new = self.storage.stat(&link).await?.is_none();
        if is_new {
            self.check_quota(&turn, repository, record.size).await?;
        }
        self.blobs.write(&digest, bytes).await?;
        let text =
            serde_json::to_vec(&record).map_err(|error| Refusal::ManifestInvalid(error.to_string()))?;
        self.storage.write(&link, text.into()).await?;
        if is_new {
            self.count(repository, record.size);
        }
        if let Some((subject, descriptor)) = about {
            self.storage.write(&layout::referrer(repository, &subject, &digest), descriptor.into()).await?;
        }
        if let Some(tag) = &tag {
            let text = digest.to_string();
            self.storage.write(&layout::tag(repository, tag), text.into()).await?;
        }
        self.catalogue.pushed(repository, &digest, &record, tag.as_ref());
        Ok(())
    }

    /// All that a manifest cannot do without has to be there, and as large as the manifest says.
    async fn check_references(&self, repository: &Repository, manifest: &Manifest) -> Result<(), Refusal> {
        for blob in manifest.blobs() {
            let Some(found) = self.blob_size(repository, &blob.digest).await? else {
                return Err(Refusal::ReferenceUnknown(blob.digest.clone()));
            };
            if found != blob.size {
                let digest = blob.digest.clone();
                return Err(Refusal::ReferenceSize { digest, said: blob.size, found });
            }
        }
        for child in &manifest.manifests {
            // The garbage collection spares it, and what it leads to, before it is looked at.
            for digest in self.catalogue.below(repository, &child.digest) {
                self.blobs.used(&digest);
            }
            if self.record(repository, &child.digest).await?.is_none() {
                return Err(Refusal::ReferenceUnknown(child.digest.clone()));
            }
        }
        Ok(())
    }

    /// What the manifest's module is, if it has one.
    async fn examine(&self, manifest: &Manifest, bytes: &[u8]) -> Result<Option<Examination>, Refusal> {
        let refused = |reason| Examination { trust: Trust::Refused, reason, ..Examination::default() };
        let (wasm, turn) = match module(&self.blobs, manifest, bytes, &self.examining).await? {
            Module::Bytes(wasm, turn) => (wasm, turn),
            Module::Opaque(reason) => return Ok(Some(refused(reason))),
            // Whoever takes only what somebody signed cannot take what may not be.
            Module::Unknown(reason) if self.options.signed == SignedPolicy::Refuse => {
                return Ok(Some(refused(format!("whether it holds a module cannot be told: {reason}"))));
            }
            Module::Unknown(_) | Module::None => return Ok(None),
        };
        let examiner = Arc::clone(&self.examiner);
        let examined = tokio::task::spawn_blocking(move || {
            let examined = examiner.examine(&wasm);
            // Few modules at a time are in memory, whether or not somebody waits for them.
            drop((wasm, turn));
            examined
        });
        let failed = |error| StorageError::new("examination", std::io::Error::other(error));
        Ok(Some(examined.await.map_err(failed)?))
    }

    /// What policy says to a module; the answer is what its client is told of one that is taken all the same.
    fn judge(
        &self,
        repository: &Repository,
        selector: &Selector,
        examination: Option<&Examination>,
    ) -> Result<Option<String>, Refusal> {
        let Some(examination) = examination.filter(|found| found.trust != Trust::Verified) else {
            return Ok(None);
        };
        let reason = &examination.reason;
        match self.options.signed {
            SignedPolicy::Accept => Ok(None),
            SignedPolicy::Mark => {
                tracing::warn!("{repository} {selector}: taken, and marked: {reason}");
                Ok(Some(format!("the module is marked: {reason}")))
            }
            SignedPolicy::Refuse => {
                self.counters.untrusted.add(1);
                tracing::warn!("{repository} {selector}: refused: {reason}");
                Err(Refusal::Untrusted(format!(
                    "this registry takes modules only whose token holds: {reason}"
                )))
            }
        }
    }

    async fn check_expected(
        &self,
        repository: &Repository,
        tag: &Tag,
        expected: &Expected,
    ) -> Result<(), Refusal> {
        if *expected == Expected::default() {
            return Ok(());
        }
        let found = self.tag(repository, tag).await?.map(|digest| digest.to_string());
        let matches = expected.one_of.is_empty()
            || found
                .as_ref()
                .is_some_and(|found| expected.one_of.iter().any(|one| one == "*" || one == found));
        match matches && !(expected.absent && found.is_some()) {
            true => Ok(()),
            false => {
                let found = found.unwrap_or_else(|| "not there".to_owned());
                Err(Refusal::Precondition { tag: tag.to_string(), found })
            }
        }
    }

    /// A manifest by tag or digest.
    pub(super) async fn manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
    ) -> Result<Found, Refusal> {
        let unknown =
            || Refusal::ManifestUnknown { repository: repository.clone(), selector: selector.to_string() };
        let digest = match selector {
            Selector::Digest(digest) => digest.clone(),
            Selector::Tag(tag) => self.tag(repository, tag).await?.ok_or_else(unknown)?,
        };
        let record = self.record(repository, &digest).await?.ok_or_else(unknown)?;
        match self.blobs.read(&digest, MAX_MANIFEST as u64).await? {
            Some(bytes) => Ok(Found { digest, media_type: record.media_type, bytes }),
            None if self.blobs.damage(&digest).is_some() => Err(Refusal::DamagedManifest(digest)),
            None => Err(unknown()),
        }
    }

    /// What a tag names.
    pub(super) async fn tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Digest>, StorageError> {
        let key = layout::tag(repository, tag);
        let text = self.storage.read(&key, MAX_TAG).await?;
        Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok()))
    }

    /// What is known of a manifest.
    pub(super) async fn record(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Record>, StorageError> {
        let key = layout::link(repository, Room::Manifests, digest);
        let Some(text) = self.storage.read(&key, MAX_RECORD).await? else { return Ok(None) };
        let invalid = |error| StorageError::new(&key, std::io::Error::other(error));
        serde_json::from_slice(&text).map(Some).map_err(invalid)
    }

    /// The tags of a repository, sorted.
    pub(super) fn tags(&self, repository: &Repository) -> Result<Vec<String>, Refusal> {
        let tags = self.catalogue.tags(repository);
        tags.ok_or_else(|| Refusal::RepositoryUnknown(repository.clone()))
    }

    /// Digests of what refers to a manifest, which need not be there; sorted.
    pub(super) async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Digest>, StorageError> {
        let entries = self.storage.list(&layout::referrers(repository, subject)).await?;
        let mut found: Vec<Digest> =
            entries.iter().filter_map(|entry| entry.name.replacen('-', ":", 1).parse().ok()).collect();
        found.sort_unstable_by_key(Digest::to_string);
        Ok(found)
    }

    /// A page of what refers to a manifest, behind a digest: at most `limit`, and no more than fits in memory. The digest
    /// to go on behind, where there may be more.
    pub(super) async fn referrers_page(
        &self,
        repository: &Repository,
        subject: &Digest,
        after: &str,
        limit: usize,
        is_wanted: impl Fn(&Descriptor) -> bool,
    ) -> Result<(Vec<Descriptor>, Option<Digest>), Refusal> {
        let (mut page, mut bytes, mut before) = (Vec::new(), 0, None);
        for manifest in self.referrers(repository, subject).await? {
            if manifest.to_string().as_str() <= after {
                continue;
            }
            if page.len() >= limit || bytes >= MAX_REFERRERS {
                return Ok((page, before));
            }
            let key = layout::referrer(repository, subject, &manifest);
            // Left behind by a deletion that a kill ended, or not.
            let link = layout::link(repository, Room::Manifests, &manifest);
            if self.storage.stat(&link).await?.is_some()
                && let Some(text) = self.storage.read(&key, MAX_MANIFEST as u64).await?
                && let Ok(found) = serde_json::from_slice::<Descriptor>(&text)
                && is_wanted(&found)
            {
                bytes += text.len();
                page.push(found);
            }
            before = Some(manifest);
        }
        Ok((page, None))
    }

    /// Removes a tag, or a manifest with all its tags. The content goes with the next garbage collection.
    pub(super) async fn delete_manifest(
        &self,
        repository: &Repository,
        selector: &Selector,
    ) -> Result<(), Refusal> {
        let unknown =
            || Refusal::ManifestUnknown { repository: repository.clone(), selector: selector.to_string() };
        let _turn = self.turn(repository).await;
        match selector {
            Selector::Tag(tag) => {
                if !self.storage.remove(&layout::tag(repository, tag)).await? {
                    return Err(unknown());
                }
                self.catalogue.untagged(repository, tag);
            }
            Selector::Digest(digest) => {
                if self.record(repository, digest).await?.is_none() {
                    return Err(unknown());
                }
                self.remove_manifest(repository, digest).await?;
            }
        }
        Ok(())
    }

    /// Removes a manifest, its tags first: what is referred to goes after what refers to it. The caller has the
    /// repository's turn.
    pub(super) async fn remove_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Refusal> {
        for name in self.catalogue.tags_of(repository, digest) {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            match self.tag(repository, &tag).await? {
                // What is in memory was behind what is stored.
                Some(named) if named != *digest => self.catalogue.tagged(repository, &tag, &named),
                _ => {
                    self.storage.remove(&layout::tag(repository, &tag)).await?;
                    self.catalogue.untagged(repository, &tag);
                }
            }
        }
        let content = self.blobs.read(digest, MAX_MANIFEST as u64).await?;
        let subject = content.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok()?.subject);
        self.storage.remove(&layout::link(repository, Room::Manifests, digest)).await?;
        if let Some(subject) = subject {
            self.storage.remove(&layout::referrer(repository, &subject.digest, digest)).await?;
        }
        self.catalogue.removed(repository, digest);
        self.count_again(repository);
        Ok(())
    }

    /// Reads the entries of all manifests and tags, and what is missing of modules: the catalogue as it follows from the
    /// storage.
    pub(super) async fn load(&self) -> Result<(), StorageError> {
        for repository in self.all_repositories().await? {
            for algorithm in layout::ALGORITHMS {
                let folder = layout::links(&repository, Room::Manifests, algorithm);
                for entry in self.storage.list(&folder).await? {
                    let Ok(digest) = format!("{algorithm}:{}", entry.name).parse::<Digest>() else {
                        continue;
                    };
                    match self.record(&repository, &digest).await {
                        Ok(Some(record)) => self.catalogue.pushed(&repository, &digest, &record, None),
                        Ok(None) => {}
                        Err(error) => tracing::error!("{error}; the manifest cannot be given out"),
                    }
                }
            }
            for entry in self.storage.list(&layout::tags(&repository)).await? {
                let Ok(tag) = entry.name.parse::<Tag>() else { continue };
                let digest = self.tag(&repository, &tag).await;
                if let Ok(Some(digest)) = digest {
                    self.catalogue.tagged(&repository, &tag, &digest);
                }
            }
        }
        Ok(())
    }

    /// Examines the modules of all manifests again, as after a change of whom to trust; how many.
    pub(super) async fn examine_again(&self) -> Result<usize, Refusal> {
        let mut examined = 0;
        for (repository, digest) in self.catalogue.all_manifests() {
            let Some(record) = self.record(&repository, &digest).await? else { continue };
            let Some(bytes) = self.blobs.read(&digest, MAX_MANIFEST as u64).await? else { continue };
            let (manifest, _) = Manifest::read(&bytes, Some(&record.media_type))?;
            // What is here stays, and says what is wrong with it.
            let module = self.examine(&manifest, &bytes).await?.map(Arc::new);
            let _turn = self.turn(&repository).await;
            let Some(mut record) = self.record(&repository, &digest).await? else { continue };
            record.module = module;
            examined += usize::from(record.module.is_some());
            let text = serde_json::to_vec(&record).unwrap_or_default();
            self.storage.write(&layout::link(&repository, Room::Manifests, &digest), text.into()).await?;
            self.catalogue.pushed(&repository, &digest, &record, None);
        }
        Ok(examined)
    }

    /// All repositories, by walking through the storage.
    pub(super) async fn all_repositories(&self) -> Result<Vec<Repository>, StorageError> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(name) = open.pop() {
            let folder = match name.is_empty() {
                true => layout::REPOSITORIES.to_owned(),
                false => format!("{}/{name}", layout::REPOSITORIES),
            };
            let mut is_repository = false;
            for entry in self.storage.list(&folder).await?.into_iter().filter(|entry| entry.is_folder) {
                if entry.name.starts_with('_') {
                    is_repository = true;
                } else {
                    open.push(match name.is_empty() {
                        true => entry.name,
                        false => format!("{name}/{}", entry.name),
                    });
                }
            }
            if is_repository && let Ok(repository) = name.parse() {
                found.push(repository);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
