//! The blob block: files and objects, which come and go as streams and are never held whole.
//!
//! An object has a name within a bucket. A provider that has one bucket only, as a folder has, takes an empty bucket
//! for it. Providers are asked for what they may lack (uploads in parts, signed URLs, tags, versions) and answer
//! [`BlockError::NotSupported`].

use crate::error::BlockError;
use crate::events::Metadata;
use crate::invoke::Body;
use async_trait::async_trait;
use std::time::{Duration, SystemTime};

/// Longest name of an object, in bytes (S3's limit).
pub const MAX_NAME: usize = 1024;

/// Most objects of one page of a list.
pub const MAX_PAGE: usize = 1000;

/// Where an object is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// The bucket; empty: the component's own.
    pub bucket: String,
    /// The name within it.
    pub key: String,
    /// One of its versions; empty: the current one.
    pub version: String,
}

/// What is known of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Its name within the bucket.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: Option<SystemTime>,
    /// Changes with the content; without quotation marks.
    pub etag: String,
    /// Media type; empty where it is not known.
    pub content_type: String,
    /// What was stored with it.
    pub metadata: Metadata,
    /// The store's word for where it is kept; empty where there is none.
    pub storage_class: String,
    /// What else the store says of it, by the names of HTTP headers in lower case: `cache-control`,
    /// `x-amz-version-id` and the like. Lists have none of it.
    pub headers: Metadata,
}

/// An object that is being read.
#[derive(Debug)]
pub struct Object {
    /// The whole object's.
    pub info: Info,
    /// Bytes of this answer, which may be a part of the object.
    pub length: u64,
    /// The content, or the part that was asked for.
    pub body: Body,
}

/// A part of an object: bytes from `start`, to the end or to `end` inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: Option<u64>,
}

/// What goes with an object that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Bytes of the content, where they are known before it comes.
    pub length: Option<u64>,
    /// Media type.
    pub content_type: Option<String>,
    /// `Cache-Control`, `Content-Disposition` and `Content-Encoding`, `x-amz-storage-class` and the like.
    pub headers: Metadata,
    /// To be stored with it.
    pub metadata: Metadata,
    /// What it is tagged with.
    pub tags: Metadata,
    /// Refused where there is an object of that name.
    pub only_new: bool,
}

/// What a list is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The bucket; empty: the component's own.
    pub bucket: String,
    /// Only names that begin so.
    pub prefix: String,
    /// Names that have this behind the prefix count as one; empty: none do.
    pub delimiter: String,
    /// Only names behind this one in their order.
    pub after: String,
    /// Where versions or uploads are listed: also those of the name `after` that are behind this one.
    pub after_id: String,
    /// At most so many, 1 to [`MAX_PAGE`].
    pub limit: usize,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects, in the order of their names.
    pub objects: Vec<Info>,
    /// Beginnings of names that count as one.
    pub prefixes: Vec<String>,
    /// Where the next page goes on ([`List::after`]); none when this is the last.
    pub next: Option<String>,
}

/// A page of a list in which names come more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries<T> {
    /// In the order of their names.
    pub entries: Vec<T>,
    /// Beginnings of names that count as one.
    pub prefixes: Vec<String>,
    /// Where the next page goes on ([`List::after`], [`List::after_id`]); none when this is the last.
    pub next: Option<(String, String)>,
}

/// A version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// What is known of it.
    pub info: Info,
    /// What tells it from the others ([`Name::version`]).
    pub id: String,
    /// Whether it is the current one.
    pub is_latest: bool,
    /// Whether it only says that the object was deleted.
    pub is_deletion: bool,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose an object is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The store's id of the account.
    pub id: String,
    /// Its name; empty where the store tells none.
    pub name: String,
}

/// Who may do what with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// In one word of S3 (`private`, `public-read`, `public-read-write`, `authenticated-read`); empty where none says it.
    pub canned: String,
    /// Whose it is.
    pub owner: Owner,
}

/// For how long an archived object comes back, and how fast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Days.
    pub days: u32,
    /// The store's word for how fast; empty: its usual one.
    pub tier: String,
}

/// A part of an upload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u16,
    /// What the store called it.
    pub etag: String,
    /// Its size in bytes; 0 where it is not known.
    pub size: u64,
    /// When it was written.
    pub modified: Option<SystemTime>,
}

/// An upload in parts that is not complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// The name that its object will have.
    pub key: String,
    /// What tells it from others.
    pub id: String,
    /// When it began.
    pub initiated: Option<SystemTime>,
    /// Whose the object will be.
    pub owner: Owner,
    /// The store's word for where it will be kept; empty where there is none.
    pub storage_class: String,
}

/// What a signed URL allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To read.
    Get,
    /// To write.
    Put,
    /// To look whether it is there.
    Head,
    /// To delete.
    Delete,
}

/// Why a request for an object failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlobError {
    /// There is no such object, upload or bucket.
    #[error("{what} is not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// There is an object of that name.
    #[error("{key:?} exists already")]
    Exists {
        /// The name.
        key: String,
    },
    /// The store refuses the provider, or the provider the name.
    #[error("permission denied: {reason}")]
    Denied {
        /// Why.
        reason: String,
    },
    /// Anything else.
    #[error(transparent)]
    Block(#[from] BlockError),
}

/// A provider of files and objects. Deleting what is not there is no error.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Reads an object, or a part of it.
    async fn get(&self, name: &Name, range: Range) -> Result<Object, BlobError>;

    /// What is known of an object.
    async fn head(&self, name: &Name) -> Result<Info, BlobError>;

    /// Writes an object and returns its etag. Whoever reads meanwhile sees the one before or none; a content that
    /// breaks off leaves that as it was.
    async fn put(&self, name: &Name, body: Body, put: Put) -> Result<String, BlobError>;

    /// Deletes an object.
    async fn delete(&self, name: &Name) -> Result<(), BlobError>;

    /// One page of names.
    async fn list(&self, list: &List) -> Result<Page, BlobError>;

    /// Writes an object with the content of another one, and returns its etag.
    async fn copy(&self, from: &Name, to: &Name) -> Result<String, BlobError>;

    /// A URL by which whoever has it may do this for so long.
    async fn sign(&self, name: &Name, method: Method, valid: Duration) -> Result<String, BlobError> {
        let _ = (name, method, valid);
        Err(missing("signed URLs"))
    }

    /// Begins an upload in parts and returns its id.
    async fn create_upload(&self, name: &Name, put: Put) -> Result<String, BlobError> {
        let _ = (name, put);
        Err(missing(UPLOADS))
    }

    /// Writes one part and returns its etag.
    async fn put_part(
        &self,
        name: &Name,
        upload: &str,
        number: u16,
        length: Option<u64>,
        body: Body,
    ) -> Result<String, BlobError> {
        let _ = (name, upload, number, length, body);
        Err(missing(UPLOADS))
    }

    /// Makes the object out of these parts, in this order, and returns its etag.
    async fn complete_upload(&self, name: &Name, upload: &str, parts: &[Part]) -> Result<String, BlobError> {
        let _ = (name, upload, parts);
        Err(missing(UPLOADS))
    }

    /// Forgets an upload with its parts.
    async fn abort_upload(&self, name: &Name, upload: &str) -> Result<(), BlobError> {
        let _ = (name, upload);
        Err(missing(UPLOADS))
    }

    /// The parts of an upload behind this number, at most so many, and whether there are more.
    async fn list_parts(
        &self,
        name: &Name,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<(Vec<Part>, bool), BlobError> {
        let _ = (name, upload, after, limit);
        Err(missing(UPLOADS))
    }

    /// One page of uploads, in the order of their names.
    async fn list_uploads(&self, list: &List) -> Result<Entries<Upload>, BlobError> {
        let _ = list;
        Err(missing(UPLOADS))
    }

    /// Writes behind the end of an object, which begins with this if there is none, and returns how long it is then.
    /// A `position` that is not its end is [`BlockError::Invalid`]; none is wherever that is. A content that breaks
    /// off leaves the object as it was.
    async fn append(
        &self,
        name: &Name,
        position: Option<u64>,
        body: Body,
        put: Put,
    ) -> Result<u64, BlobError> {
        let _ = (name, position, body, put);
        Err(missing("appending to objects"))
    }

    /// What an object is tagged with.
    async fn tags(&self, name: &Name) -> Result<Metadata, BlobError> {
        let _ = name;
        Err(missing(TAGS))
    }

    /// Tags an object with these and no others.
    async fn set_tags(&self, name: &Name, tags: &Metadata) -> Result<(), BlobError> {
        let _ = (name, tags);
        Err(missing(TAGS))
    }

    /// Who may do what with an object.
    async fn access(&self, name: &Name) -> Result<Access, BlobError> {
        let _ = name;
        Err(missing(ACCESS))
    }

    /// Says in one word of S3 who may do what with an object.
    async fn set_access(&self, name: &Name, canned: &str) -> Result<(), BlobError> {
        let _ = (name, canned);
        Err(missing(ACCESS))
    }

    /// One page of versions, the latest of each name first.
    async fn list_versions(&self, list: &List) -> Result<Entries<Version>, BlobError> {
        let _ = list;
        Err(missing(VERSIONS))
    }

    /// Asks for an archived object to come back, and returns where it will be, if not in its place.
    async fn restore(&self, name: &Name, restore: &Restore) -> Result<String, BlobError> {
        let _ = (name, restore);
        Err(missing("archived objects"))
    }

    /// Lets go of files and connections.
    async fn close(&self) {}
}

// === impl Range ===

impl Range {
    /// The bytes of the part in an object of that size. A start behind its end is [`BlockError::Invalid`].
    pub fn length(self, size: u64) -> Result<u64, BlobError> {
        let Range { start, end } = self;
        if start > size || end.is_some_and(|end| end < start) {
            let reason = format!("the range from {start} to {end:?} is not in an object of {size} bytes");
            return Err(BlockError::invalid(reason).into());
        }
        Ok(end.map_or(size, |end| size.min(end.saturating_add(1))) - start)
    }
}

// === impl Entries ===

impl<T> Default for Entries<T> {
    fn default() -> Entries<T> {
        Entries { entries: Vec::new(), prefixes: Vec::new(), next: None }
    }
}

const UPLOADS: &str = "uploads in parts";

const TAGS: &str = "tags of objects";

const ACCESS: &str = "access lists of objects";

/// The feature of [`Name::version`] and [`BlobStore::list_versions`], for those who have none.
pub const VERSIONS: &str = "versions of objects";

/// What a store that cannot do something answers.
pub fn missing(feature: &'static str) -> BlobError {
    BlockError::NotSupported { feature }.into()
}
