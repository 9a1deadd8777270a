//! Containers and objects, over the blob block. A container is a bucket there.
//!
//! Uploads come in chunks, in one call of the module or in several, perhaps into several instances; what came of them is
//! kept with the app until the last byte is there. Chunks of a download go to the module as calls of `ReceiveChunk`,
//! after the call that asked for them has ended.

use super::Room;
use super::bindings::only_blobs;
use super::format::Answer;
use super::operations::Asked;
use super::payloads::{Blob, BlobList, Container, FileChunk, StreamRequest};
use super::state::WapcState;
use bytes::Bytes;
use dhow_blocks::blob::{BlobError, BlobStore, Info, List, MAX_PAGE, Name, Put, Range};
use dhow_blocks::invoke::Body;
use dhow_blocks::scope::{Bound, MAX_INVOKE_DEPTH};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Its operations.
pub(super) const OPERATIONS: [&str; 8] = [
    "CreateContainer",
    "GetObjectInfo",
    "ListObjects",
    "RemoveContainer",
    "RemoveObject",
    "StartDownload",
    "StartUpload",
    "UploadChunk",
];

/// Uploads that an app may have open at once, and bytes of all of them.
const MAX_UPLOADS: usize = 64;
const MAX_UPLOADED: usize = 64 << 20;

/// An upload that is not continued for so long is forgotten.
const PATIENCE: Duration = Duration::from_secs(600);

/// Objects of one list, and of one removal of a container.
const MAX_OBJECTS: usize = 100_000;

/// Downloads of an app at once.
pub(super) const MAX_DOWNLOADS: usize = 16;

/// Bytes of a chunk where the module does not say, and at most.
const USUAL_CHUNK: u64 = 256 << 10;
const MAX_CHUNK: u64 = 4 << 20;

/// The uploads of an app.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<(String, String, String), Upload>>);

struct Upload {
    bytes: Vec<u8>,
    total: usize,
    touched: Instant,
}

pub(super) async fn perform(state: &mut WapcState, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    if !OPERATIONS.contains(&asked.operation.as_str()) {
        return Err(asked.unknown(&OPERATIONS));
    }
    let room = Arc::clone(&state.room);
    let (name, store) = store(&room, &asked.binding)?;
    match asked.operation.as_str() {
        // Containers come and go with their objects.
        "CreateContainer" => {
            let container: Container = asked.format.read(payload)?;
            if container.id.is_empty() {
                return Err("the container has no id".to_owned());
            }
            asked.answer(&container)
        }
        "RemoveContainer" => {
            let Container { id } = asked.format.read(payload)?;
            for info in list(store, &id).await? {
                let name = Name { bucket: id.clone(), key: info.key, ..Name::default() };
                store.provider.delete(&name).await.map_err(told)?;
            }
            Ok(Answer::default())
        }
        "RemoveObject" => {
            let Blob { id, container, .. } = asked.format.read(payload)?;
            store
                .provider
                .delete(&Name { bucket: container, key: id, ..Name::default() })
                .await
                .map_err(told)?;
            Ok(Answer::default())
        }
        "ListObjects" => {
            let Container { id } = asked.format.read(payload)?;
            let blobs = list(store, &id).await?.into_iter();
            let blobs = blobs
                .map(|info| Blob { id: info.key, container: id.clone(), byte_size: info.size })
                .collect();
            asked.answer(&BlobList { blobs })
        }
        "GetObjectInfo" => {
            let Blob { id, container, .. } = asked.format.read(payload)?;
            let name = Name { bucket: container, key: id, ..Name::default() };
            // What is not there has no bytes: the ABI has no other word for it.
            let byte_size = match store.provider.head(&name).await {
                Ok(info) => info.size,
                Err(BlobError::NotFound { .. }) => 0,
                Err(error) => return Err(told(error)),
            };
            asked.answer(&Blob { id: name.key, container: name.bucket, byte_size })
        }
        "StartDownload" => {
            let request: StreamRequest = asked.format.read(payload)?;
            let object =
                Name { bucket: request.container.clone(), key: request.id.clone(), ..Name::default() };
            store.provider.head(&object).await.map_err(told)?;
            if state.outbound.origin.depth >= MAX_INVOKE_DEPTH {
                return Err(
                    "downloads begin in chunks of downloads, one within the other, too often".to_owned()
                );
            }
            let permit = Arc::clone(&room.downloads).try_acquire_owned();
            let permit = permit.map_err(|_| {
                format!("this app has as many downloads under way as it may: {MAX_DOWNLOADS}")
            })?;
            state.downloads.push(Wanted { component: name.to_owned(), request, permit });
            Ok(Answer::default())
        }
        operation => {
            let chunk: FileChunk = asked.format.read(payload)?;
            let object = Name { bucket: chunk.container.clone(), key: chunk.id.clone(), ..Name::default() };
            if let Some(bytes) = room.uploads.take(name, operation == "StartUpload", chunk)? {
                let put = Put { length: Some(bytes.len() as u64), ..Put::default() };
                store.provider.put(&object, Body::from(bytes), put).await.map_err(told)?;
            }
            Ok(Answer::default())
        }
    }
}

/// A download that a module asked for.
pub(super) struct Wanted {
    pub(super) component: String,
    pub(super) request: StreamRequest,
    /// Given back when it has ended.
    pub(super) permit: OwnedSemaphorePermit,
}

/// The chunks of an object, one after the other.
pub(super) struct Download {
    store: Bound<dyn BlobStore>,
    request: StreamRequest,
    size: u64,
    sent: u64,
    number: u64,
}

impl Download {
    pub(super) async fn begin(
        room: &Room,
        component: &str,
        request: StreamRequest,
    ) -> Result<Download, String> {
        let store = room.setup.scope.blobs(component).map_err(|error| error.to_string())?.clone();
        let name = Name { bucket: request.container.clone(), key: request.id.clone(), ..Name::default() };
        let size = store.provider.head(&name).await.map_err(told)?.size;
        Ok(Download { store, request, size, sent: 0, number: 0 })
    }

    /// The next chunk; none behind the last. An empty object has one, with nothing in it.
    pub(super) async fn next(&mut self) -> Result<Option<FileChunk>, String> {
        if self.sent >= self.size && self.number > 0 {
            return Ok(None);
        }
        let StreamRequest { id, container, chunk_size, context } = self.request.clone();
        let chunk_size = if chunk_size == 0 { USUAL_CHUNK } else { chunk_size.min(MAX_CHUNK) };
        let mut chunk_bytes = Vec::new();
        if self.size > 0 {
            let end = (self.sent + chunk_size).min(self.size) - 1;
            let name = Name { bucket: container.clone(), key: id.clone(), ..Name::default() };
            let range = Range { start: self.sent, end: Some(end) };
            let object = self.store.provider.get(&name, range).await.map_err(told)?;
            let most = usize::try_from(chunk_size).unwrap_or(usize::MAX);
            let body = object.body.collect(most).await.map_err(|error| error.to_string())?;
            if body.is_empty() {
                return Err(format!("object {id:?} became shorter while it was read"));
            }
            chunk_bytes = body.into();
        }
        let sequence_no = self.number;
        self.number += 1;
        self.sent += chunk_bytes.len() as u64;
        Ok(Some(FileChunk {
            sequence_no,
            container,
            id,
            total_bytes: self.size,
            chunk_size,
            context,
            chunk_bytes,
        }))
    }
}

/// The store that a binding leads to, and its name.
fn store<'a>(room: &'a Room, binding: &str) -> Result<(&'a str, &'a Bound<dyn BlobStore>), String> {
    let scope = &room.setup.scope;
    let name = room.bindings.find("blobstore", binding, || only_blobs(&scope.components))?.component;
    Ok((name, scope.blobs(name).map_err(|error| error.to_string())?))
}

async fn list(store: &Bound<dyn BlobStore>, container: &str) -> Result<Vec<Info>, String> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let list = List { bucket: container.to_owned(), after, limit: MAX_PAGE, ..List::default() };
        let page = match store.provider.list(&list).await {
            Err(BlobError::NotFound { .. }) => return Ok(found),
            page => page.map_err(told)?,
        };
        found.extend(page.objects);
        if found.len() > MAX_OBJECTS {
            return Err(format!("container {container:?} has more than {MAX_OBJECTS} objects"));
        }
        match page.next {
            Some(next) => after = next,
            None => return Ok(found),
        }
    }
}

fn told(error: BlobError) -> String {
    error.to_string()
}

// === impl Uploads ===

impl Uploads {
    /// Takes a chunk, and returns the whole when it is there. A chunk has its place by its number, which counts from 0
    /// or from 1, or else comes behind the one before.
    fn take(&self, component: &str, begins: bool, chunk: FileChunk) -> Result<Option<Bytes>, String> {
        let FileChunk { container, id, total_bytes, chunk_bytes, .. } = chunk;
        if container.is_empty() || id.is_empty() {
            return Err("an upload needs the id of its container and its own".to_owned());
        }
        let total =
            usize::try_from(total_bytes).ok().filter(|total| *total <= MAX_UPLOADED).ok_or_else(|| {
                format!("{total_bytes} bytes are more than an upload may have, which is {MAX_UPLOADED}")
            })?;
        let mut uploads = self.0.lock();
        uploads.retain(|_, upload| upload.touched.elapsed() < PATIENCE);
        let key = (component.to_owned(), container, id);
        if begins {
            uploads.remove(&key);
        } else if !uploads.contains_key(&key) {
            return Err(format!("there is no upload of {:?}: begin it with StartUpload", key.2));
        }
        let held: usize = uploads.values().map(|upload| upload.bytes.len()).sum();
        if uploads.len() >= MAX_UPLOADS && begins || held + chunk_bytes.len() > MAX_UPLOADED {
            return Err(format!(
                "this app has as many uploads open as it may: {MAX_UPLOADS}, or {MAX_UPLOADED} bytes of them"
            ));
        }
        let upload = uploads.entry(key.clone()).or_insert_with(|| Upload {
            bytes: Vec::new(),
            total,
            touched: Instant::now(),
        });
        if upload.bytes.len() + chunk_bytes.len() > upload.total {
            let (id, total) = (key.2.clone(), upload.total);
            uploads.remove(&key);
            return Err(format!("the upload of {id:?} has more than the {total} bytes that it said"));
        }
        upload.bytes.extend_from_slice(&chunk_bytes);
        upload.touched = Instant::now();
        if upload.bytes.len() < upload.total {
            return Ok(None);
        }
        Ok(uploads.remove(&key).map(|upload| upload.bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(id: &str, total: u64, bytes: &[u8]) -> FileChunk {
        let (container, id) = ("c".to_owned(), id.to_owned());
        FileChunk { container, id, total_bytes: total, chunk_bytes: bytes.to_vec(), ..FileChunk::default() }
    }

    #[test]
    fn an_upload_is_whole_with_its_last_byte_and_no_longer_than_it_said() {
        let uploads = Uploads::default();
        assert!(uploads.take("s", false, chunk("a", 4, b"ab")).unwrap_err().contains("StartUpload"));
        assert_eq!(uploads.take("s", true, chunk("a", 4, b"")).unwrap(), None);
        assert_eq!(uploads.take("s", false, chunk("a", 4, b"ab")).unwrap(), None);
        assert_eq!(uploads.take("s", false, chunk("a", 4, b"cd")).unwrap().unwrap(), "abcd");
        assert!(uploads.take("s", false, chunk("a", 4, b"e")).is_err());
        assert_eq!(uploads.take("s", true, chunk("empty", 0, b"")).unwrap().unwrap(), "");
        uploads.take("s", true, chunk("b", 2, b"")).unwrap();
        assert!(uploads.take("s", false, chunk("b", 2, b"abc")).unwrap_err().contains("more than the 2"));
        assert!(uploads.take("s", true, chunk("b", u64::MAX, b"")).is_err());
        for number in 0..MAX_UPLOADS {
            uploads.take("s", true, chunk(&number.to_string(), 1, b"")).unwrap();
        }
        assert!(uploads.take("s", true, chunk("more", 1, b"")).is_err());
        assert!(uploads.take("s", false, chunk("0", 1, b"x")).unwrap().is_some());
    }
}
