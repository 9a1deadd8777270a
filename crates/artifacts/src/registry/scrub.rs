//! The scrubber: reads and hashes every stored blob, and looks whether all that repositories refer to is there.

use super::Registry;
use super::blobs::Health;
use super::layout::{self, Room};
use super::storage::StorageError;
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::io;

/// Findings that a report names one by one; all are counted.
const NAMED: usize = 1000;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scrubbed {
    /// Blobs that were read.
    pub blobs: u64,
    /// Blobs that are damaged, those known before included.
    pub damaged: u64,
    /// References to content that is not there.
    pub missing: u64,
    /// Each of both, with its repository where it is missing; at most 1000.
    pub findings: Vec<String>,
}

// === impl Scrubbed ===

impl Scrubbed {
    /// Everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.missing == 0
    }

    fn finding(&mut self, text: String) {
        if self.findings.len() < NAMED {
            self.findings.push(text);
        }
    }
}

/// Whether it is the disk that cannot give a file: EIO, EACCES, EISDIR, ENODATA, EBADMSG and EUCLEAN of Linux.
fn is_of_the_disk(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| [5, 13, 21, 61, 74, 117].contains(&code))
}

// === impl Registry ===

impl Registry {
    /// Verifies every blob, reading at most so many bytes a second.
    pub async fn scrub(&self, pace: Option<u64>) -> io::Result<Scrubbed> {
        self.try_scrub(pace).await.map_err(io::Error::other)
    }

    async fn try_scrub(&self, pace: Option<u64>) -> Result<Scrubbed, StorageError> {
        let mut report = Scrubbed::default();
        for digest in self.all_blobs().await? {
            match self.blobs.check(&digest, pace).await {
                // Removed meanwhile.
                Ok(Health::Gone) => continue,
                Ok(Health::Sound) => {}
                Ok(Health::Damaged(damage)) => {
                    report.damaged += 1;
                    report.finding(format!("damaged: {digest}: {damage}"));
                }
                Err(error) => {
                    tracing::error!("{error}");
                    report.damaged += 1;
                    report.finding(format!("damaged: {digest}: it cannot be read: {}", error.source));
                    // Of a storage that nobody reaches just now, nothing is known to be damaged.
                    if is_of_the_disk(&error.source) {
                        self.blobs.mark_unreadable(&digest).await;
                    }
                }
            }
            report.blobs += 1;
            self.counters.scrubbed.add(1);
        }
        for repository in self.all_repositories().await? {
            for room in [Room::Blobs, Room::Manifests] {
                for algorithm in layout::ALGORITHMS {
                    for entry in self.storage.list(&layout::links(&repository, room, algorithm)).await? {
                        let Ok(digest) = format!("{algorithm}:{}", entry.name).parse::<Digest>() else {
                            continue;
                        };
                        let is_there = self.storage.stat(&layout::blob(&digest)).await?.is_some();
                        let is_linked = self.storage.stat(&layout::link(&repository, room, &digest)).await?;
                        if !is_there && is_linked.is_some() {
                            report.missing += 1;
                            tracing::error!("{repository} refers to {digest}, which is not there");
                            report.finding(format!("missing: {digest} of {repository}"));
                        }
                    }
                }
            }
        }
        Ok(report)
    }

    /// The digests of all stored content.
    pub(super) async fn all_blobs(&self) -> Result<Vec<Digest>, StorageError> {
        let mut found = Vec::new();
        for algorithm in layout::ALGORITHMS {
            let folder = format!("{}/{algorithm}", layout::BLOBS);
            for begin in self.storage.list(&folder).await?.into_iter().filter(|entry| entry.is_folder) {
                for entry in self.storage.list(&format!("{folder}/{}", begin.name)).await? {
                    found.extend(format!("{algorithm}:{}", entry.name).parse::<Digest>().ok());
                }
            }
        }
        Ok(found)
    }
}
