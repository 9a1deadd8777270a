//! Files and folders in the stream: chunks under the digest of the whole, and keys that mean one of them.
//!
//! A chunk is never changed: the same content has the same chunks. That all of them are there is said last, so nobody
//! finds half of something. What is read is checked against its digest.

use super::connection::{CONTENTS_KEPT, Connection, Tries};
use super::message::Content;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes of a chunk, where a message may have so many: a quarter of what NATS allows unless it is told otherwise.
const CHUNK: usize = 256 << 10;

/// Chunks under way at once.
const AHEAD: usize = 4;

/// Largest file or folder.
const MAX_SIZE: u64 = 64 << 30;

impl Connection {
    /// Stores a file or folder, unless it is there. `scratch` is a folder for an archive of it.
    pub(super) async fn store(&self, path: &Path, scratch: &Path) -> Result<Content, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let is_folder = tokio::fs::metadata(path).await.map_err(failed)?.is_dir();
        let packed = if is_folder { Some(pack(path, scratch).await.map_err(failed)?) } else { None };
        let file = packed.as_ref().map_or(path, |packed| packed.as_ref());
        let (digest, size) = digest(file).await.map_err(failed)?;
        if size > MAX_SIZE {
            return Err(format!("{} has {size} bytes; at most {MAX_SIZE} go to workers", path.display()));
        }
        let chunk = u32::try_from(CHUNK.min(self.max_payload())).unwrap_or(u32::MAX);
        let content = Content { digest, size, chunk, is_folder };
        match self.stored(&content).await? {
            Some(stored) => Ok(Content { is_folder, ..stored }),
            None => {
                self.send(file, &content).await?;
                Ok(content)
            }
        }
    }

    /// The content of that digest, if it is there and will be for a while.
    async fn stored(&self, content: &Content) -> Result<Option<Content>, String> {
        let mut tries = Tries::new();
        let message = loop {
            match self.last(&self.contents, &content.whole_subject()).await {
                Ok(message) => break message,
                Err(error) => tries.again(error).await?,
            }
        };
        let Some(message) = message else { return Ok(None) };
        let age = SystemTime::now().duration_since(SystemTime::from(message.time)).unwrap_or_default();
        if age > CONTENTS_KEPT / 2 {
            return Ok(None);
        }
        let stored: Option<Content> = serde_json::from_slice(&message.payload).ok();
        Ok(stored.filter(|stored| stored.digest == content.digest && stored.size == content.size))
    }

    async fn send(&self, file: &Path, content: &Content) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        let mut reader = tokio::fs::File::open(file).await.map_err(failed)?;
        let mut under_way: VecDeque<(u64, Bytes, PublishAckFuture)> = VecDeque::new();
        for index in 0..content.chunks() {
            let mut bytes = Vec::new();
            let mut part = (&mut reader).take(u64::from(content.chunk));
            part.read_to_end(&mut bytes).await.map_err(failed)?;
            let bytes = Bytes::from(bytes);
            if under_way.len() >= AHEAD
                && let Some(oldest) = under_way.pop_front()
            {
                self.confirmed(content, oldest).await?;
            }
            let message = PublishMessage::build().payload(bytes.clone());
            match self.context.send_publish(content.chunk_subject(index), message).await {
                Ok(answer) => under_way.push_back((index, bytes, answer)),
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Err(error.to_string());
                }
                Err(_) => self.insist(content.chunk_subject(index), bytes).await?,
            }
        }
        for sent in under_way {
            self.confirmed(content, sent).await?;
        }
        let whole = serde_json::to_vec(content).map_err(|error| error.to_string())?;
        self.insist(content.whole_subject(), whole.into()).await
    }

    async fn confirmed(
        &self,
        content: &Content,
        (index, bytes, answer): (u64, Bytes, PublishAckFuture),
    ) -> Result<(), String> {
        match answer.await {
            Ok(_) => Ok(()),
            // Sending a chunk twice changes nothing.
            Err(_) => self.insist(content.chunk_subject(index), bytes).await,
        }
    }

    /// Publishes, however often it takes.
    async fn insist(&self, subject: String, payload: Bytes) -> Result<(), String> {
        let mut tries = Tries::new();
        while let Err(error) = self.publish(subject.clone(), payload.clone()).await {
            tries.again(error).await?;
        }
        Ok(())
    }

    /// Says what a key means.
    pub(super) async fn name(&self, key: &str, content: &Content) -> Result<(), String> {
        let payload = serde_json::to_vec(content).map_err(|error| error.to_string())?;
        self.insist(key_subject(key), payload.into()).await
    }

    /// What a key means.
    pub(super) async fn named(&self, key: &str) -> Result<Option<Content>, String> {
        let mut tries = Tries::new();
        loop {
            match self.last(&self.contents, &key_subject(key)).await {
                Ok(None) => return Ok(None),
                Ok(Some(message)) => {
                    let content = serde_json::from_slice(&message.payload);
                    return content
                        .map(Some)
                        .map_err(|error| format!("what {key:?} means is of no use: {error}"));
                }
                Err(error) => tries.again(error).await?,
            }
        }
    }

    /// Puts a content at `place`, whole or not at all. `scratch` is a folder of the same file system.
    pub(super) async fn fetch(&self, content: &Content, place: &Path, scratch: &Path) -> Result<(), String> {
        if content.size > MAX_SIZE || content.chunk == 0 {
            return Err(format!("{content:?} is no content"));
        }
        let temporary = temporary(scratch);
        let fetched = self.fetch_to(content, &temporary).await;
        let failed = |error: std::io::Error| format!("{}: {error}", place.display());
        let put = match fetched {
            Err(error) => Err(error),
            Ok(()) if content.is_folder => unpack(&temporary, place, scratch).await.map_err(failed),
            Ok(()) => match tokio::fs::rename(&temporary, place).await {
                Ok(()) => return Ok(()),
                Err(error) => Err(failed(error)),
            },
        };
        let _ = tokio::fs::remove_file(&temporary).await;
        put
    }

    async fn fetch_to(&self, content: &Content, file: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        let mut writer = tokio::fs::File::create(file).await.map_err(failed)?;
        let mut hasher = blake3::Hasher::new();
        let mut chunks = futures::stream::iter(0..content.chunks())
            .map(|index| self.chunk(content, index))
            .buffered(AHEAD);
        let mut left = content.size;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            left = left.checked_sub(chunk.len() as u64).ok_or("a content is larger than it says")?;
            hasher.update(&chunk);
            writer.write_all(&chunk).await.map_err(failed)?;
        }
        if left != 0 || hasher.finalize().to_hex().as_str() != content.digest {
            return Err(format!("the content {} is not what its digest says", content.digest));
        }
        writer.flush().await.map_err(failed)
    }

    async fn chunk(&self, content: &Content, index: u64) -> Result<Bytes, String> {
        let subject = content.chunk_subject(index);
        let mut tries = Tries::new();
        loop {
            // Any server that has it answers; the leader knows better.
            if let Ok(message) = self.contents.direct_get_last_for_subject(subject.clone()).await {
                return Ok(message.payload);
            }
            match self.last(&self.contents, &subject).await {
                Ok(Some(message)) => return Ok(message.payload),
                Ok(None) => {
                    return Err(format!(
                        "chunk {index} of the content {} is gone: the stream DHOW_ARTIFACTS lets go what is old",
                        content.digest
                    ));
                }
                Err(error) => tries.again(error).await?,
            }
        }
    }
}

fn key_subject(key: &str) -> String {
    // Keys may have any characters; subjects may not.
    format!("dhow.artifacts.key.{}", blake3::hash(key.as_bytes()).to_hex())
}

/// A file's name in a folder, of this process alone.
fn temporary(scratch: &Path) -> PathBuf {
    scratch.join(format!("{}-{:016x}", std::process::id(), fastrand::u64(..)))
}

async fn digest(file: &Path) -> std::io::Result<(String, u64)> {
    let file = file.to_owned();
    blocking(move || {
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut std::fs::File::open(&file)?, &mut hasher)?;
        Ok((hasher.finalize().to_hex().to_string(), hasher.count()))
    })
    .await
}

/// Puts a folder into a tar archive, which is gone when it is dropped. The same folder makes the same archive.
async fn pack(folder: &Path, scratch: &Path) -> std::io::Result<tempfile::TempPath> {
    let (folder, scratch) = (folder.to_owned(), scratch.to_owned());
    blocking(move || {
        let prefix = format!("{}-", std::process::id());
        let file = tempfile::Builder::new().prefix(&prefix).tempfile_in(scratch)?;
        let (file, path) = file.into_parts();
        let mut builder = tar::Builder::new(std::io::BufWriter::new(file));
        builder.follow_symlinks(false);
        builder.mode(tar::HeaderMode::Deterministic);
        append(&mut builder, &folder, Path::new(""))?;
        std::io::Write::flush(&mut builder.into_inner()?)?;
        Ok(path)
    })
    .await
}

/// Entries in the order of their names: the system's own order is any.
fn append<W: std::io::Write>(
    builder: &mut tar::Builder<W>,
    folder: &Path,
    name: &Path,
) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            builder.append_dir(&name, &path)?;
            append(builder, &path, &name)?;
        } else {
            builder.append_path_with_name(&path, &name)?;
        }
    }
    Ok(())
}

/// Makes a folder of an archive. Nothing leaves the folder: the archive may come from anybody who may use the server.
async fn unpack(archive: &Path, place: &Path, scratch: &Path) -> std::io::Result<()> {
    let (archive, place, folder) = (archive.to_owned(), place.to_owned(), temporary(scratch));
    blocking(move || {
        std::fs::create_dir(&folder)?;
        let file = std::io::BufReader::new(std::fs::File::open(&archive)?);
        let mut archive = tar::Archive::new(file);
        archive.set_preserve_mtime(false);
        let unpacked = archive.unpack(&folder).and_then(|()| std::fs::rename(&folder, &place));
        if unpacked.is_err() {
            let _ = std::fs::remove_dir_all(&folder);
        }
        unpacked
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panicked| Err(std::io::Error::other(panicked.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_comes_back_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let (from, scratch, to) =
            (home.path().join("from"), home.path().join("scratch"), home.path().join("to"));
        std::fs::create_dir_all(from.join("deep/empty")).unwrap();
        std::fs::create_dir(&scratch).unwrap();
        std::fs::write(from.join("deep/b"), "b").unwrap();
        std::fs::write(from.join("a"), "a").unwrap();
        std::os::unix::fs::symlink("a", from.join("link")).unwrap();
        let packed = pack(&from, &scratch).await.unwrap();
        let again = pack(&from, &scratch).await.unwrap();
        assert_eq!(std::fs::read(&packed).unwrap(), std::fs::read(&again).unwrap());
        unpack(&packed, &to, &scratch).await.unwrap();
        assert_eq!(std::fs::read_to_string(to.join("deep/b")).unwrap(), "b");
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("a"));
        assert!(to.join("deep/empty").is_dir());
        drop((packed, again));
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_archive_does_not_leave_its_folder() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        let archive = home.path().join("archive");
        let mut builder = tar::Builder::new(std::fs::File::create(&archive).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", home.path()).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, "link/outside", &b"x"[..]).unwrap();
        builder.into_inner().unwrap();
        let unpacked = unpack(&archive, &home.path().join("to"), home.path()).await;
        assert!(unpacked.is_err() && !outside.exists(), "{unpacked:?}");
    }
}
