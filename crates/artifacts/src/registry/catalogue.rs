//! What is in memory of the storage: repositories, their tags, and what their modules are. All of it follows from the
//! storage and is read again at each start.

use super::examine::Examination;
use super::manifests::Record;
use super::name::{Repository, Tag};
use crate::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Repositories by name.
#[derive(Debug, Default)]
pub(super) struct Catalogue(RwLock<BTreeMap<Repository, Names>>);

/// One repository. It is there as long as it has a manifest.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) tags: BTreeMap<String, Digest>,
    pub(super) manifests: BTreeMap<Digest, Known>,
}

/// What is known of a manifest.
#[derive(Debug)]
pub(super) struct Known {
    /// Seconds since 1970.
    pub(super) pushed: u64,
    pub(super) children: Vec<Digest>,
    pub(super) module: Option<Arc<Examination>>,
}

// === impl Catalogue ===

impl Catalogue {
    /// A manifest is there, and a tag may name it.
    pub(super) fn pushed(
        &self,
        repository: &Repository,
        digest: &Digest,
        record: &Record,
        tag: Option<&Tag>,
    ) {
        let known =
            Known { pushed: record.pushed, children: record.children.clone(), module: record.module.clone() };
        let mut all = self.write();
        let names = all.entry(repository.clone()).or_default();
        names.manifests.insert(digest.clone(), known);
        if let Some(tag) = tag {
            names.tags.insert(tag.to_string(), digest.clone());
        }
    }

    /// A tag names a manifest that is there.
    pub(super) fn tagged(&self, repository: &Repository, tag: &Tag, digest: &Digest) {
        if let Some(names) = self.write().get_mut(repository)
            && names.manifests.contains_key(digest)
        {
            names.tags.insert(tag.to_string(), digest.clone());
        }
    }

    pub(super) fn untagged(&self, repository: &Repository, tag: &Tag) {
        if let Some(names) = self.write().get_mut(repository) {
            names.tags.remove(tag.as_str());
        }
    }

    pub(super) fn removed(&self, repository: &Repository, digest: &Digest) {
        let mut all = self.write();
        let Some(names) = all.get_mut(repository) else { return };
        names.manifests.remove(digest);
        names.tags.retain(|_, named| named != digest);
        if names.manifests.is_empty() {
            all.remove(repository);
        }
    }

    /// Tags of a repository, sorted by [`Tag::order`]; `None` where there is no such repository.
    pub(super) fn tags(&self, repository: &Repository) -> Option<Vec<String>> {
        let mut tags: Vec<String> = self.read().get(repository)?.tags.keys().cloned().collect();
        tags.sort_by(|one, other| Tag::order(one, other));
        Some(tags)
    }

    /// Tags that name this manifest.
    pub(super) fn tags_of(&self, repository: &Repository, digest: &Digest) -> Vec<String> {
        let all = self.read();
        let tags = all.get(repository).into_iter().flat_map(|names| &names.tags);
        tags.filter(|(_, named)| *named == digest).map(|(tag, _)| tag.clone()).collect()
    }

    /// A manifest, and those that it leads to as an index of indexes.
    pub(super) fn below(&self, repository: &Repository, digest: &Digest) -> BTreeSet<Digest> {
        let all = self.read();
        let mut found = BTreeSet::new();
        let mut open = vec![digest];
        while let Some(digest) = open.pop() {
            if found.insert(digest.clone()) {
                let names = all.get(repository);
                open.extend(
                    names
                        .and_then(|names| names.manifests.get(digest))
                        .into_iter()
                        .flat_map(|known| &known.children),
                );
            }
        }
        found
    }

    /// Up to `limit` repositories behind this one, and whether there are more.
    pub(super) fn repositories(
        &self,
        after: Option<&Repository>,
        limit: usize,
        may_see: impl Fn(&Repository) -> bool,
    ) -> (Vec<Repository>, bool) {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.read();
        let mut seen = all.range::<Repository, _>((begin, Bound::Unbounded)).map(|(name, _)| name);
        let mut seen = seen.by_ref().filter(|name| may_see(name));
        let page: Vec<Repository> = seen.by_ref().take(limit).cloned().collect();
        let has_more = seen.next().is_some();
        (page, has_more)
    }

    pub(super) fn all_manifests(&self) -> Vec<(Repository, Digest)> {
        let all = self.read();
        let manifests = all.iter().flat_map(|(name, names)| names.manifests.keys().map(move |d| (name, d)));
        manifests.map(|(name, digest)| (name.clone(), digest.clone())).collect()
    }

    /// Repositories, manifests and modules.
    pub(super) fn counts(&self) -> [u64; 3] {
        let all = self.read();
        let manifests = all.values().map(|names| names.manifests.len() as u64).sum();
        let is_module = |known: &&Known| known.module.is_some();
        let modules =
            all.values().map(|names| names.manifests.values().filter(is_module).count() as u64).sum();
        [all.len() as u64, manifests, modules]
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Repository, Names>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Repository, Names>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Names ===

impl Names {
    /// Tags that lead to a manifest, also through an index.
    pub(super) fn tags_to(&self, digest: &Digest) -> Vec<String> {
        let leads = |named: &Digest| {
            let through = || self.manifests.get(named).is_some_and(|index| index.children.contains(digest));
            named == digest || through()
        };
        self.tags.iter().filter(|(_, named)| leads(named)).map(|(tag, _)| tag.clone()).collect()
    }
}
