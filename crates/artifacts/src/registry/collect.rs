//! Garbage collection: what nobody refers to any more is removed, beside pushes that go on.
//!
//! Marked is what manifests refer to; swept is the rest, if it is older than a grace period and nobody asked for it or
//! pushed it since. A push takes what it counts on into use before it looks whether it is there, and neither happens
//! while something is removed: so either the push finds it gone and its client sends it again, or it stays.

use super::Registry;
use super::layout::{self, Room};
use super::manifest::{MAX_MANIFEST, Manifest};
use super::name::{Repository, Tag};
use super::refusal::Refusal;
use super::storage::StorageError;
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant, SystemTime};

/// How a collection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectOptions {
    /// What is younger stays: a push brings its blobs before the manifest that refers to them.
    pub grace: Duration,
    /// Manifests that no tag leads to go as well.
    pub untagged: bool,
    /// Nothing is removed; the answer says what would be.
    pub dry_run: bool,
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Manifests without a tag.
    pub manifests: u64,
    /// Blobs that no manifest of their repository refers to.
    pub links: u64,
    /// Content that no repository has.
    pub blobs: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Uploads that expired.
    pub uploads: u64,
}

// === impl Registry ===

impl Registry {
    /// Removes what nobody refers to.
    pub async fn collect(&self, options: CollectOptions) -> io::Result<Collected> {
        let collected = self.try_collect(options).await.map_err(io::Error::other)?;
        self.counters.collected.add(collected.blobs);
        Ok(collected)
    }

    async fn try_collect(&self, options: CollectOptions) -> Result<Collected, Refusal> {
        // Pushes that are under way end first: what they refer to is seen below. Those that begin later take into use what
        // they count on.
        let begun = {
            let _sweeping = self.blobs.sweeping().await;
            Instant::now()
        };
        // What was used before this process began is judged by the age of files alone.
        let since = begun.checked_sub(options.grace).unwrap_or(self.opened).max(self.opened);
        let sweep = Sweep { registry: self, options, since };
        let mut collected = Collected::default();
        if !options.dry_run {
            collected.uploads = self.expire_uploads().await as u64;
        }
        let repositories = self.all_repositories().await?;
        if options.untagged {
            for repository in &repositories {
                collected.manifests += sweep.untagged(repository).await?;
            }
        }
        let mut kept = HashSet::new();
        for repository in &repositories {
            collected.links += sweep.links(repository, &mut kept).await?;
        }
        sweep.blobs(&kept, &mut collected).await?;
        self.blobs.forget_before(since);
        Ok(collected)
    }
}

struct Sweep<'a> {
    registry: &'a Registry,
    options: CollectOptions,
    /// What was used since then stays.
    since: Instant,
}

// === impl Sweep ===

impl Sweep<'_> {
    /// Removes manifests that no tag leads to: not by name, not through an index, not as what refers to such a one.
    async fn untagged(&self, repository: &Repository) -> Result<u64, Refusal> {
        let registry = self.registry;
        let mut live = HashSet::new();
        let mut open: Vec<Digest> = match registry.catalogue.read().get(repository) {
            Some(names) => names.tags.values().cloned().collect(),
            None => return Ok(0),
        };
        // What is stored counts as well as what is in memory.
        for entry in registry.storage.list(&layout::tags(repository)).await? {
            if let Ok(tag) = entry.name.parse::<Tag>() {
                open.extend(registry.tag(repository, &tag).await?);
            }
        }
        while let Some(digest) = open.pop() {
            if !live.insert(digest.clone()) {
                continue;
            }
            if let Some(names) = registry.catalogue.read().get(repository) {
                open.extend(
                    names.manifests.get(&digest).into_iter().flat_map(|known| known.children.clone()),
                );
            }
            open.extend(registry.referrers(repository, &digest).await?);
        }
        let all: Vec<Digest> = match registry.catalogue.read().get(repository) {
            Some(names) => names.manifests.keys().cloned().collect(),
            None => return Ok(0),
        };
        let mut removed = 0;
        for digest in all.into_iter().filter(|digest| !live.contains(digest)) {
            let _turn = registry.turn(repository).await;
            let key = layout::link(repository, Room::Manifests, &digest);
            // A push may have named it meanwhile.
            let is_named = !registry.catalogue.tags_of(repository, &digest).is_empty();
            if is_named || !self.is_old(&key).await? || registry.blobs.is_used_since(&digest, self.since) {
                continue;
            }
            removed += 1;
            if !self.options.dry_run {
                registry.remove_manifest(repository, &digest).await?;
            }
        }
        Ok(removed)
    }

    /// Takes from a repository the blobs that none of its manifests refers to; `kept` gets those that stay.
    async fn links(&self, repository: &Repository, kept: &mut HashSet<Digest>) -> Result<u64, Refusal> {
        let registry = self.registry;
        let mut referred = HashSet::new();
        for algorithm in layout::ALGORITHMS {
            let folder = layout::links(repository, Room::Manifests, algorithm);
            for entry in registry.storage.list(&folder).await? {
                let Ok(digest) = format!("{algorithm}:{}", entry.name).parse::<Digest>() else { continue };
                let manifest = registry.blobs.read(&digest, MAX_MANIFEST as u64).await?;
                let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
                kept.insert(digest.clone());
                let Some(manifest) = manifest else {
                    // What it refers to is not known, so all that its repository has stays.
                    tracing::warn!("{repository}: {digest} cannot be read; its repository is not collected");
                    return self.keep_all(repository, kept).await.map(|()| 0);
                };
                referred.extend(manifest.blobs().map(|blob| blob.digest.clone()));
            }
        }
        let mut removed = 0;
        for algorithm in layout::ALGORITHMS {
            let folder = layout::links(repository, Room::Blobs, algorithm);
            for entry in registry.storage.list(&folder).await? {
                let Ok(digest) = format!("{algorithm}:{}", entry.name).parse::<Digest>() else { continue };
                if referred.contains(&digest) || !self.may_remove_link(repository, &digest).await? {
                    kept.insert(digest);
                    continue;
                }
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn keep_all(&self, repository: &Repository, kept: &mut HashSet<Digest>) -> Result<(), Refusal> {
        for room in [Room::Blobs, Room::Manifests] {
            for algorithm in layout::ALGORITHMS {
                let folder = layout::links(repository, room, algorithm);
                let entries = self.registry.storage.list(&folder).await?;
                kept.extend(
                    entries.iter().filter_map(|entry| format!("{algorithm}:{}", entry.name).parse().ok()),
                );
            }
        }
        Ok(())
    }

    /// Removes a link unless it is young or in use; whether it did, or would.
    async fn may_remove_link(&self, repository: &Repository, digest: &Digest) -> Result<bool, Refusal> {
        let registry = self.registry;
        let key = layout::link(repository, Room::Blobs, digest);
        if !self.is_old(&key).await? {
            return Ok(false);
        }
        let _sweeping = registry.blobs.sweeping().await;
        if registry.blobs.is_used_since(digest, self.since) {
            return Ok(false);
        }
        if !self.options.dry_run {
            registry.unlink(repository, digest).await?;
        }
        Ok(true)
    }

    /// Removes content that no repository has.
    async fn blobs(&self, kept: &HashSet<Digest>, collected: &mut Collected) -> Result<(), Refusal> {
        let registry = self.registry;
        for digest in registry.all_blobs().await? {
            let key = layout::blob(&digest);
            if kept.contains(&digest) || !self.is_old(&key).await? {
                continue;
            }
            let _sweeping = registry.blobs.sweeping().await;
            if registry.blobs.is_used_since(&digest, self.since) {
                continue;
            }
            let Some(stat) = registry.storage.stat(&key).await? else { continue };
            collected.blobs += 1;
            collected.bytes += stat.size;
            if !self.options.dry_run {
                registry.blobs.remove(&digest).await?;
            }
        }
        Ok(())
    }

    async fn is_old(&self, key: &str) -> Result<bool, StorageError> {
        let stat = self.registry.storage.stat(key).await?;
        let age = stat.and_then(|stat| SystemTime::now().duration_since(stat.modified).ok());
        Ok(age.is_some_and(|age| age >= self.options.grace))
    }
}
