//! Files and objects: a folder, buckets of S3.
//!
//! Each of them passes the suite in `dhow_blocks::conformance::blob`; `tests/blobs.rs` runs it.

pub mod local;
#[cfg(feature = "s3")]
pub mod s3;

use bytes::Bytes;
use dhow_blocks::blob::{BlobError, Entries, List, MAX_NAME, Upload};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use http_body_util::BodyExt;

/// Bytes that a reader is given at once.
pub(crate) const CHUNK: usize = 64 << 10;

/// One page out of all uploads that a list could be of, for those who have them all.
pub(crate) fn page_of_uploads(all: impl IntoIterator<Item = Upload>, list: &List) -> Entries<Upload> {
    let place = |upload: &Upload| (upload.key.clone(), upload.id.clone());
    // Without an id, what has the name itself is not behind it.
    let is_behind = |upload: &Upload| {
        upload.key > list.after
            || upload.key == list.after && !list.after_id.is_empty() && upload.id > list.after_id
    };
    let wanted = all.into_iter().filter(|upload| upload.key.starts_with(&list.prefix) && is_behind(upload));
    let mut entries: Vec<Upload> = wanted.collect();
    entries.sort_by_key(place);
    let is_truncated = entries.len() > list.limit;
    entries.truncate(list.limit);
    let next = entries.last().filter(|_| is_truncated).map(place);
    Entries { entries, prefixes: Vec::new(), next }
}

/// Refuses names that no store takes, or that would lead out of a folder or a URL.
pub(crate) fn check_key(key: &str) -> Result<(), BlobError> {
    let reason = if key.is_empty() {
        "it is empty"
    } else if key.len() > MAX_NAME {
        "it has more than 1024 bytes"
    } else if key.contains('\0') {
        "it has a zero byte"
    } else if key.split('/').any(|part| part == "." || part == "..") {
        "it has a part \".\" or \"..\""
    } else {
        return Ok(());
    };
    Err(BlockError::invalid(format!("the name {key:?} cannot be used: {reason}")).into())
}

/// The next bytes of a content; none at its end. A content that breaks off is an error.
pub(crate) async fn next(body: &mut Body) -> Result<Option<Bytes>, BlobError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| BlockError::invalid(format!("the content broke off: {error}")))?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
