//! Uploads in parts: a folder for each, with the name of its object and a file for each part.

use super::{Local, OWN, Written, failed, info, open_file, path_of};
use crate::blob::page_of_uploads;
use cap_std::fs::Dir;
use dhow_blocks::blob::{self, BlobError, Entries, Info, List, Name, Part, Upload};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use std::io;
use std::path::{Path, PathBuf};

/// Most uploads at once.
const MAX_UPLOADS: usize = 10_000;

/// S3's limit.
const MAX_PARTS: u16 = 10_000;

/// The file in an upload's folder that holds the name of its object.
const NAME: &str = "name";

fn all() -> PathBuf {
    Path::new(OWN).join("uploads")
}

fn missing(upload: &str) -> BlobError {
    BlobError::NotFound { what: format!("upload {upload:?}") }
}

/// The upload's folder, if it is one of this object.
fn find(root: &Dir, name: &Name, upload: &str) -> Result<PathBuf, BlobError> {
    let is_id = !upload.is_empty() && upload.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let folder = all().join(upload);
    match is_id.then(|| root.read_to_string(folder.join(NAME))) {
        Some(Ok(found)) if found == text(name) => Ok(folder),
        _ => Err(missing(upload)),
    }
}

/// Buckets have no slash.
fn text(name: &Name) -> String {
    format!("{}/{}", name.bucket, name.key)
}

pub(super) async fn create(store: &Local, name: &Name) -> Result<String, BlobError> {
    path_of(name)?;
    let (id, text) = (crate::uuid::random(), text(name));
    let path = all().join(&id);
    let created = store.on_disk(move |root| {
        let create = || {
            root.create_dir_all(&path)?;
            if root.read_dir(all())?.count() > MAX_UPLOADS {
                root.remove_dir(&path)?;
                return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
            }
            root.write(path.join(NAME), text)
        };
        create().map_err(|error| failed("a new upload", &error))
    });
    created.await.map(|()| id)
}

pub(super) async fn put(
    store: &Local,
    name: &Name,
    upload: &str,
    number: u16,
    length: Option<u64>,
    body: Body,
) -> Result<String, BlobError> {
    if !(1..=MAX_PARTS).contains(&number) {
        return Err(BlockError::invalid(format!("part {number}: expected 1 to {MAX_PARTS}")).into());
    }
    let (of, id) = (name.clone(), upload.to_owned());
    let folder = store.on_disk(move |root| find(root, &of, &id)).await?;
    let written = store.receive(body, length).await?;
    let (new, id) = (written.path.clone().unwrap_or_default(), upload.to_owned());
    let placed = store.on_disk(move |root| {
        let part = folder.join(number.to_string());
        let moved = root.rename(&new, root, &part).and_then(|()| root.metadata(&part));
        moved.map(|metadata| info(String::new(), &metadata).etag).map_err(|_| missing(&id))
    });
    placed.await
}

pub(super) async fn complete(
    store: &Local,
    name: &Name,
    upload: &str,
    parts: &[Part],
) -> Result<String, BlobError> {
    if parts.is_empty() || !parts.is_sorted_by(|one, other| one.number < other.number) {
        return Err(BlockError::invalid("parts: expected at least one, in the order of their numbers").into());
    }
    let (of, id, parts) = (name.clone(), upload.to_owned(), parts.to_vec());
    let written =
        Written { store, path: Some(Path::new(OWN).join("new").join(crate::uuid::random())), bytes: 0 };
    let new = written.path.clone().unwrap_or_default();
    let joined = store.on_disk(move |root| {
        let folder = find(root, &of, &id)?;
        let io = |error: io::Error| failed("a new file", &error);
        root.create_dir_all(Path::new(OWN).join("new")).map_err(io)?;
        let mut file = root.create(&new).map_err(io)?;
        for Part { number, etag, .. } in parts {
            let wrong = || BlockError::invalid(format!("part {number} is not there, or has another etag"));
            let part = open_file(root, &folder.join(number.to_string()));
            let (mut part, metadata) = part.map_err(|_| wrong())?;
            let etag = etag.trim_matches('"');
            if !etag.is_empty() && info(String::new(), &metadata).etag != etag {
                return Err(wrong().into());
            }
            io::copy(&mut part, &mut file).map_err(io)?;
        }
        file.sync_all().map_err(io)
    });
    joined.await?;
    let etag = store.place(written, name, false).await?;
    abort(store, name, upload).await?;
    Ok(etag)
}

pub(super) async fn abort(store: &Local, name: &Name, upload: &str) -> Result<(), BlobError> {
    let (name, upload) = (name.clone(), upload.to_owned());
    let aborted = store.on_disk(move |root| {
        let folder = find(root, &name, &upload)?;
        root.remove_dir_all(folder).map_err(|error| failed(&upload, &error))
    });
    aborted.await
}

pub(super) async fn parts(
    store: &Local,
    name: &Name,
    upload: &str,
    after: u16,
    limit: usize,
) -> Result<(Vec<Part>, bool), BlobError> {
    let (name, upload) = (name.clone(), upload.to_owned());
    let listed = store.on_disk(move |root| {
        let folder = find(root, &name, &upload)?;
        let io = |error: io::Error| failed(&upload, &error);
        let mut parts = Vec::new();
        for entry in root.read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<u16>().ok());
            let number = number.filter(|number| *number > after);
            let (Some(number), Ok(metadata)) = (number, entry.metadata()) else { continue };
            let Info { etag, size, modified, .. } = info(String::new(), &metadata);
            parts.push(Part { number, etag, size, modified });
        }
        parts.sort_by_key(|part| part.number);
        let is_truncated = parts.len() > limit;
        parts.truncate(limit);
        Ok((parts, is_truncated))
    });
    listed.await
}

pub(super) async fn list(store: &Local, list: &List) -> Result<Entries<Upload>, BlobError> {
    if !list.delimiter.is_empty() {
        return Err(blob::missing("a delimiter in lists of uploads"));
    }
    let (start, cut, list) =
        (format!("{}/{}", list.bucket, list.prefix), list.bucket.len() + 1, list.clone());
    let listed = store.on_disk(move |root| {
        let uploads = match root.read_dir(all()) {
            Ok(uploads) => uploads,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::default()),
            Err(error) => return Err(failed("uploads", &error)),
        };
        let uploads = uploads.filter_map(|entry| {
            let id = entry.ok()?.file_name().into_string().ok()?;
            let path = all().join(&id).join(NAME);
            let text = root.read_to_string(&path).ok()?;
            let key = text.starts_with(&start).then(|| text[cut..].to_owned())?;
            let initiated = root.metadata(&path).ok()?.modified().ok().map(|time| time.into_std());
            Some(Upload { key, id, initiated, ..Upload::default() })
        });
        Ok(page_of_uploads(uploads, &list))
    });
    listed.await
}
