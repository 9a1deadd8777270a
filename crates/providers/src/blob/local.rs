//! `blob.local`, `file.local`: files below one folder. A bucket is a folder in it.
//!
//! No name leads out of the folder: `..` is refused, and so is a symbolic link that leads outside (checked by
//! cap-std at each step of the path, so that nobody can change the path between check and use). A file is written beside
//! its place and moved there when it is whole; what is appended is received whole before. What is stored with objects elsewhere, media type and metadata, has no
//! place in a file.

mod append;
mod list;
mod uploads;

use super::{CHUNK, check_key, next};
use crate::bindings::local_storage::open_root;
use crate::registry::{ComponentSpec, Open, OpenContext, OpenError, Provider};
use crate::shutdown::closed;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use cap_std::fs::{Dir, File, Metadata as FileMetadata};
use dhow_blocks::blob::{
    self, BlobError, BlobStore, Entries, Info, List, Name, Object, Page, Part, Put, Range, Upload,
};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use http_body::Frame;
use http_body_util::StreamBody;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "blob.local",
    aliases: &[],
    versions: &["v1"],
    fields: &["rootPath"],
    open: Open::Blob(|component, context| {
        Box::pin(async move {
            let name = component.name.clone();
            let opened = tokio::task::spawn_blocking(move || open(&component, &context)).await;
            opened.unwrap_or_else(|error| {
                Err(OpenError::Backend { component: name, reason: error.to_string() })
            })
        })
    }),
};

/// The same under Layotto's name for files.
pub(crate) const FILES: Provider = Provider { component_type: "file.local", ..PROVIDER };

/// Where files are while they are written, and the parts of uploads; no object is there.
const OWN: &str = ".dhow-blobs";

/// A file that nobody wrote to for so long is not written any more.
const UNFINISHED: Duration = Duration::from_secs(24 * 3600);

/// Files below a folder.
#[derive(Debug)]
pub struct Local {
    root: Arc<Dir>,
    is_closed: AtomicBool,
}

fn open(component: &ComponentSpec, context: &OpenContext) -> Result<Arc<dyn BlobStore>, OpenError> {
    const FIELD: &[&str] = &["rootPath"];
    let path = match component.field(FIELD) {
        Some(path) => PathBuf::from(path),
        None => {
            let name = component.name.as_str();
            let is_plain = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
            if !is_plain {
                return Err(component.invalid(FIELD, "given: the path of a folder"));
            }
            context.data_dir.join("files").join(name)
        }
    };
    let (_, root) = open_root(component, FIELD, &path)?;
    forget_unfinished(&root);
    Ok(Arc::new(Local { root: Arc::new(root), is_closed: AtomicBool::new(false) }))
}

/// Removes what a process that died did not finish. Others that share the folder may be writing, so only what is old
/// goes; uploads stay until they are given up.
fn forget_unfinished(root: &Dir) {
    let new = Path::new(OWN).join("new");
    let Ok(entries) = root.read_dir(&new) else { return };
    for entry in entries.flatten() {
        let modified = entry.metadata().ok().and_then(|metadata| metadata.modified().ok());
        let age = modified.and_then(|modified| modified.into_std().elapsed().ok());
        if age.is_some_and(|age| age > UNFINISHED) {
            let _ = root.remove_file(new.join(entry.file_name()));
        }
    }
}

/// The path of an object below the root.
fn path_of(name: &Name) -> Result<PathBuf, BlobError> {
    if !name.version.is_empty() {
        return Err(blob::missing(blob::VERSIONS));
    }
    let mut path = folder_of(&name.bucket)?;
    // As in paths, a leading slash and doubled ones mean nothing.
    check_key(&name.key)?;
    let parts = name.key.split('/').filter(|part| !part.is_empty());
    path.extend(parts);
    if name.key.ends_with('/') || path.as_os_str().is_empty() {
        return Err(BlockError::invalid(format!("the name {:?} is that of a folder", name.key)).into());
    }
    if path.starts_with(OWN) {
        return Err(BlobError::Denied { reason: format!("{OWN} is the store's own folder") });
    }
    Ok(path)
}

/// The folder of a bucket below the root.
fn folder_of(bucket: &str) -> Result<PathBuf, BlobError> {
    if bucket.is_empty() {
        return Ok(PathBuf::new());
    }
    check_key(bucket)?;
    if bucket.contains('/') || bucket == OWN {
        return Err(
            BlockError::invalid(format!("the bucket {bucket:?} cannot be the name of a folder")).into()
        );
    }
    Ok(PathBuf::from(bucket))
}

fn failed(what: &str, error: &io::Error) -> BlobError {
    match error.kind() {
        io::ErrorKind::NotFound => BlobError::NotFound { what: format!("{what:?}") },
        io::ErrorKind::AlreadyExists => BlobError::Exists { key: what.to_owned() },
        io::ErrorKind::PermissionDenied => BlobError::Denied { reason: format!("{what:?}: {error}") },
        io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput => {
            BlockError::invalid(format!("{what:?}: {error}")).into()
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ResourceBusy => {
            BlockError::unavailable(format!("{what:?}: {error}")).into()
        }
        _ => BlockError::failed(format!("{what:?}: {error}")).into(),
    }
}

fn info(key: String, metadata: &FileMetadata) -> Info {
    let modified = metadata.modified().ok().map(|time| time.into_std());
    let stamp = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Info {
        key,
        size: metadata.len(),
        modified,
        etag: format!("{:x}-{:x}", stamp.as_nanos(), metadata.len()),
        ..Info::default()
    }
}

/// Opens a regular file; a pipe would be waited for.
fn open_file(root: &Dir, path: &Path) -> io::Result<(File, FileMetadata)> {
    if !root.metadata(path)?.is_file() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let file = root.open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

// === impl Local ===

impl Local {
    /// Does something with the folder on a thread that may wait for the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Dir) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(closed().into());
        }
        let root = Arc::clone(&self.root);
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        done.unwrap_or_else(
            |error| Err(BlockError::failed(format!("a file was not reached: {error}")).into()),
        )
    }

    /// Writes a content into a new file of the store's own, and returns its path.
    async fn receive(&self, mut body: Body, length: Option<u64>) -> Result<Written<'_>, BlobError> {
        let path = Path::new(OWN).join("new").join(crate::uuid::random());
        let new = path.clone();
        let file = self
            .on_disk(move |root| {
                let create = || {
                    root.create_dir_all(Path::new(OWN).join("new"))?;
                    root.create(&new)
                };
                create().map_err(|error| failed("a new file", &error))
            })
            .await?;
        let mut written = Written { store: self, path: Some(path), bytes: 0 };
        let mut file = tokio::fs::File::from_std(file.into_std());
        while let Some(data) = next(&mut body).await? {
            written.bytes += data.len() as u64;
            file.write_all(&data).await.map_err(|error| failed("a new file", &error))?;
        }
        if length.is_some_and(|length| length != written.bytes) {
            let reason = format!("{} bytes came where {length:?} were announced", written.bytes);
            return Err(BlockError::invalid(reason).into());
        }
        file.sync_all().await.map_err(|error| failed("a new file", &error))?;
        Ok(written)
    }

    /// Puts a finished file to its place.
    async fn place(&self, written: Written<'_>, name: &Name, only_new: bool) -> Result<String, BlobError> {
        let (path, key) = (path_of(name)?, name.key.clone());
        let Some(new) = written.path.clone() else { return Err(closed().into()) };
        let etag = self.on_disk(move |root| {
            let placed = || {
                if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                    // A file where the folder should be "exists already", but the object does not.
                    root.create_dir_all(folder).map_err(|error| match error.kind() {
                        io::ErrorKind::AlreadyExists => io::Error::from(io::ErrorKind::NotADirectory),
                        _ => error,
                    })?;
                }
                if root.metadata(&path).is_ok_and(|found| found.is_dir()) {
                    return Err(io::Error::from(io::ErrorKind::IsADirectory));
                }
                match only_new {
                    // Unlike a move it does not replace.
                    true => root.hard_link(&new, root, &path)?,
                    false => root.rename(&new, root, &path)?,
                }
                root.metadata(&path)
            };
            placed().map(|metadata| info(String::new(), &metadata).etag).map_err(|error| failed(&key, &error))
        });
        etag.await
    }
}

/// A file that is not at its place yet; removed if it never gets there.
struct Written<'a> {
    store: &'a Local,
    path: Option<PathBuf>,
    bytes: u64,
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        let Some(path) = self.path.take() else { return };
        let root = Arc::clone(&self.store.root);
        // There is none any more if it was moved.
        let remove = move || drop(root.remove_file(path));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// The next `left` bytes of a file, in pieces.
fn content(file: tokio::fs::File, left: u64) -> Body {
    let frames = futures::stream::unfold((file, left), |(mut file, left)| async move {
        if left == 0 {
            return None;
        }
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut piece = BytesMut::zeroed(wanted);
        match file.read(&mut piece).await {
            Ok(0) => Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), (file, 0))),
            Ok(count) => {
                piece.truncate(count);
                Some((Ok(Frame::data(Bytes::from(piece))), (file, left - count as u64)))
            }
            Err(error) => Some((Err(error), (file, 0))),
        }
    });
    Body::stream(StreamBody::new(frames))
}

#[async_trait]
impl BlobStore for Local {
    async fn get(&self, name: &Name, range: Range) -> Result<Object, BlobError> {
        let (path, key) = (path_of(name)?, name.key.clone());
        let found = self.on_disk(move |root| {
            let (file, metadata) = open_file(root, &path).map_err(|error| failed(&key, &error))?;
            Ok((file, info(key, &metadata)))
        });
        let (file, info) = found.await?;
        let length = range.length(info.size)?;
        let mut file = tokio::fs::File::from_std(file.into_std());
        let sought = file.seek(SeekFrom::Start(range.start)).await;
        sought.map_err(|error| failed(&name.key, &error))?;
        Ok(Object { info, length, body: content(file, length) })
    }

    async fn head(&self, name: &Name) -> Result<Info, BlobError> {
        let (path, key) = (path_of(name)?, name.key.clone());
        let found = self.on_disk(move |root| match root.metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(info(key, &metadata)),
            Ok(_) => Err(BlobError::NotFound { what: format!("{key:?}") }),
            Err(error) => Err(failed(&key, &error)),
        });
        found.await
    }

    async fn put(&self, name: &Name, body: Body, put: Put) -> Result<String, BlobError> {
        path_of(name)?;
        refuse_metadata(&put)?;
        let written = self.receive(body, put.length).await?;
        self.place(written, name, put.only_new).await
    }

    async fn delete(&self, name: &Name) -> Result<(), BlobError> {
        let (path, key) = (path_of(name)?, name.key.clone());
        let deleted = self.on_disk(move |root| match root.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&key, &error)),
            _ => Ok(()),
        });
        deleted.await
    }

    async fn list(&self, list: &List) -> Result<Page, BlobError> {
        let (folder, list) = (folder_of(&list.bucket)?, list.clone());
        self.on_disk(move |root| list::page(root, &folder, &list)).await
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<String, BlobError> {
        path_of(to)?;
        let Object { body, length, .. } = self.get(from, Range::default()).await?;
        let written = self.receive(body, Some(length)).await?;
        self.place(written, to, false).await
    }

    async fn create_upload(&self, name: &Name, put: Put) -> Result<String, BlobError> {
        refuse_metadata(&put)?;
        uploads::create(self, name).await
    }

    async fn put_part(
        &self,
        name: &Name,
        upload: &str,
        number: u16,
        length: Option<u64>,
        body: Body,
    ) -> Result<String, BlobError> {
        uploads::put(self, name, upload, number, length, body).await
    }

    async fn complete_upload(&self, name: &Name, upload: &str, parts: &[Part]) -> Result<String, BlobError> {
        uploads::complete(self, name, upload, parts).await
    }

    async fn abort_upload(&self, name: &Name, upload: &str) -> Result<(), BlobError> {
        uploads::abort(self, name, upload).await
    }

    async fn list_parts(
        &self,
        name: &Name,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<(Vec<Part>, bool), BlobError> {
        uploads::parts(self, name, upload, after, limit).await
    }

    async fn list_uploads(&self, list: &List) -> Result<Entries<Upload>, BlobError> {
        uploads::list(self, list).await
    }

    async fn append(
        &self,
        name: &Name,
        position: Option<u64>,
        body: Body,
        put: Put,
    ) -> Result<u64, BlobError> {
        refuse_metadata(&put)?;
        append::append(self, name, position, body, put.length).await
    }

    async fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}

fn refuse_metadata(put: &Put) -> Result<(), BlobError> {
    if !put.metadata.is_empty() {
        return Err(blob::missing("metadata of objects"));
    }
    match put.tags.is_empty() {
        true => Ok(()),
        false => Err(blob::missing("tags of objects")),
    }
}
