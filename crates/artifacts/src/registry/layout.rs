//! Where everything is in the storage. This is the format on disk; a change of it needs a migration.
//!
//! ```text
//! blobs/sha256/ab/abcd…                          content, manifests included, by its digest
//! damaged/sha256/abcd…                           a blob whose content is not what its name says (JSON)
//! repositories/NAME/_blobs/sha256/abcd…          this blob belongs to the repository; its size in digits
//! repositories/NAME/_manifests/sha256/abcd…      this blob is a manifest of the repository (JSON)
//! repositories/NAME/_referrers/sha256/SUBJECT/sha256-abcd…   a manifest that refers to a subject (JSON descriptor)
//! repositories/NAME/_tags/TAG                    a digest
//! ```
//!
//! Each entry is written whole or not at all. What is referred to is written before what refers to it.

use super::name::{Repository, Tag};
use crate::digest::{Algorithm, Digest};

/// Folder of all content.
pub(super) const BLOBS: &str = "blobs";
/// Folder of what is known to be damaged.
pub(super) const DAMAGED: &str = "damaged";
/// Folder of all repositories.
pub(super) const REPOSITORIES: &str = "repositories";
/// Folders of digests, by algorithm.
pub(super) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// A room of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Blobs,
    Manifests,
}

pub(super) fn blob(digest: &Digest) -> String {
    let begin = digest.hex().get(..2).unwrap_or_default();
    format!("{BLOBS}/{}/{begin}/{}", digest.algorithm(), digest.hex())
}

pub(super) fn damaged(digest: &Digest) -> String {
    format!("{DAMAGED}/{}/{}", digest.algorithm(), digest.hex())
}

pub(super) fn links(repository: &Repository, room: Room, algorithm: Algorithm) -> String {
    format!("{REPOSITORIES}/{repository}/{}/{algorithm}", room.folder())
}

pub(super) fn link(repository: &Repository, room: Room, digest: &Digest) -> String {
    format!("{}/{}", links(repository, room, digest.algorithm()), digest.hex())
}

pub(super) fn tags(repository: &Repository) -> String {
    format!("{REPOSITORIES}/{repository}/_tags")
}

pub(super) fn tag(repository: &Repository, tag: &Tag) -> String {
    format!("{}/{tag}", tags(repository))
}

pub(super) fn referrers(repository: &Repository, subject: &Digest) -> String {
    format!("{REPOSITORIES}/{repository}/_referrers/{}/{}", subject.algorithm(), subject.hex())
}

pub(super) fn referrer(repository: &Repository, subject: &Digest, manifest: &Digest) -> String {
    format!("{}/{}-{}", referrers(repository, subject), manifest.algorithm(), manifest.hex())
}

// === impl Room ===

impl Room {
    pub(super) fn folder(self) -> &'static str {
        match self {
            Room::Blobs => "_blobs",
            Room::Manifests => "_manifests",
        }
    }
}
