//! Why a request is refused. What clients see of it (status, code) stands in one table, [`super::http::answer`].

use super::name::{NameError, Repository};
use super::storage::StorageError;
use crate::digest::Digest;

/// A request that is not done as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is nothing at this address; the API is at /v2/, and people look at /")]
    NoSuchRoute,
    #[error("{method} is not possible here; possible: {allowed}")]
    Method { method: String, allowed: &'static str },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("there is no repository {0}")]
    RepositoryUnknown(Repository),
    #[error("{repository} has no blob {digest}")]
    BlobUnknown { repository: Repository, digest: Digest },
    #[error("the stored copy of {0} is damaged and not given out; push it again, which repairs it")]
    Damaged(Digest),
    #[error("the stored copy of {0} is damaged and not given out; push it again, which repairs it")]
    DamagedManifest(Digest),
    #[error("there is no such upload in {0}: it ended, or expired; begin again with POST")]
    UploadUnknown(Repository),
    #[error("another request writes to this upload; try again when it ended")]
    UploadBusy,
    #[error("the upload goes on at byte {length}, and not where the request says")]
    OutOfOrder { repository: Repository, upload: String, length: u64 },
    #[error("{0}")]
    RangeInvalid(String),
    #[error("{range:?} is outside of the blob, which has {size} bytes")]
    RangeOutside { range: String, size: u64 },
    #[error("the digest is wrong: the content has {found}, and the request says {said}")]
    DigestMismatch { said: Digest, found: Digest },
    #[error("{0}")]
    DigestInvalid(String),
    #[error("{what} is larger than this registry takes, {limit} bytes")]
    TooLarge { what: &'static str, limit: u64 },
    #[error(
        "{repository} would have more than its {limit} bytes; delete something, or ask for more (--max-repository)"
    )]
    Quota { repository: Repository, limit: u64 },
    #[error("{repository} has no manifest {selector}")]
    ManifestUnknown { repository: Repository, selector: String },
    #[error("the manifest cannot be read: {0}")]
    ManifestInvalid(String),
    #[error("the manifest refers to {0}, which the repository does not have; push that first")]
    ReferenceUnknown(Digest),
    #[error("the manifest says that {digest} has {said} bytes; it has {found}")]
    ReferenceSize { digest: Digest, said: u64, found: u64 },
    #[error("{0}")]
    Untrusted(String),
    #[error("the tag {tag} is {found} now, and not what the request expects")]
    Precondition { tag: String, found: String },
    #[error(
        "this registry is for this machine only, and is asked for as {0:?}; name that with --external-url if it is its name"
    )]
    Elsewhere(String),
    #[error("log in to do this")]
    Unauthenticated(Challenge),
    #[error("user name or password is wrong")]
    WrongPassword,
    #[error("{who} may not {action} {what}")]
    Denied { who: String, action: &'static str, what: String },
    #[error("too much at once; try again a little later")]
    TooMany,
    #[error("{0}")]
    Query(String),
    #[error("the request's body broke off")]
    BodyBroken,
    #[error("the registry's disk is full")]
    DiskFull,
    #[error("the registry's storage does not work; its log says more")]
    Storage(#[source] StorageError),
}

/// What a client has to log in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token for this scope, as in `repository:orders:pull`; empty for none.
    Token(String),
    /// Name and password, which a browser asks its user for.
    Password,
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Refusal {
        match error.source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Refusal::DiskFull,
            _ => Refusal::Storage(error),
        }
    }
}
