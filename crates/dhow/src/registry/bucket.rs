//! A bucket of S3 as the storage of a registry.
//!
//! An object is there whole or not at all, and durable when S3 has answered: what the registry asks of a storage. Uploads
//! under way stay on the local disk until they are whole and their digest is known.

use crate::error::Error;
use async_trait::async_trait;
use bytes::Bytes;
use clap::Args;
use dhow_artifacts::registry::storage::{Content, Entry, Stat, Storage, StorageError};
use dhow_blocks::blob::{BlobError, BlobStore, List, MAX_PAGE, Name, Object, Put, Range};
use dhow_blocks::invoke::Body;
use dhow_providers::blob::s3::S3;
use dhow_providers::s3::{Account, AccountOptions};
use http_body_util::{BodyDataStream, BodyExt, StreamBody};
use hyper::body::Frame;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::AsyncReadExt;

/// Files of at most this many bytes go in one request, larger ones in parts.
const WHOLE: u64 = 32 << 20;

/// Bytes that are read from a file at once.
const CHUNK: usize = 1 << 20;

/// Where the registry's content is, other than in its folder.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Storage")]
pub(super) struct StorageArgs {
    /// Bucket for all content, as s3://BUCKET/PREFIX; its keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "URL", env = "DHOW_REGISTRY_STORAGE")]
    storage: Option<String>,
    /// Server of the bucket [default: Amazon's]
    #[arg(long, value_name = "URL", env = "DHOW_REGISTRY_S3_ENDPOINT")]
    s3_endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1]
    #[arg(long, value_name = "REGION", env = "DHOW_REGISTRY_S3_REGION")]
    s3_region: Option<String>,
    /// Where URLs have the bucket's name [default: in the host for Amazon, else in the path]
    #[arg(long, value_name = "STYLE", value_parser = ["path", "virtual-hosted"])]
    s3_addressing_style: Option<String>,
    /// Make the bucket if it is not there
    #[arg(long)]
    s3_create_bucket: bool,
}

/// Entries as objects below a prefix.
struct Bucket {
    client: S3,
    /// With a slash at its end, or empty.
    prefix: String,
}

// === impl StorageArgs ===

impl StorageArgs {
    /// The storage and its name; none for the folder.
    pub(super) async fn open(&self) -> Result<Option<(String, Arc<dyn Storage>)>, Error> {
        let Some(url) = &self.storage else { return Ok(None) };
        let wrong = |what: &str| Error::usage(format!("--storage {url}: {what}"));
        let place = url.strip_prefix("s3://").ok_or_else(|| wrong("expected s3://BUCKET/PREFIX"))?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|word| matches!(word, "." | "..")) {
            return Err(wrong("the prefix leads elsewhere"));
        }
        let path_style = match self.s3_addressing_style.as_deref() {
            Some(style) => style == "path",
            None => self.s3_endpoint.as_ref().is_some_and(|endpoint| !endpoint.ends_with("amazonaws.com")),
        };
        let account = Account::open(AccountOptions {
            endpoint: self.s3_endpoint.clone().unwrap_or_default(),
            region: self.s3_region.clone().unwrap_or_default(),
            path_style,
            ..AccountOptions::default()
        });
        let client = account.and_then(|account| S3::new(account, bucket)).map_err(|error| wrong(&error))?;
        if self.s3_create_bucket {
            client.create_bucket().await.map_err(|error| wrong(&error.to_string()))?;
        }
        let name = format!("s3://{bucket}/{prefix}");
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Some((name, Arc::new(Bucket { client, prefix }))))
    }
}

// === impl Bucket ===

impl Bucket {
    fn name(&self, key: &str) -> Name {
        Name { key: format!("{}{key}", self.prefix), ..Name::default() }
    }

    async fn get(&self, key: &str, offset: u64) -> Result<Option<Object>, StorageError> {
        let range = Range { start: offset, end: None };
        found(key, self.client.get(&self.name(key), range).await)
    }

    async fn put(&self, key: &str, body: Body, length: Option<u64>) -> Result<(), StorageError> {
        let put = Put { length, ..Put::default() };
        match self.client.put(&self.name(key), body, put).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(key, &error)),
        }
    }
}

fn failed(key: &str, error: &dyn std::fmt::Display) -> StorageError {
    StorageError::new(key, io::Error::other(error.to_string()))
}

fn found<T>(key: &str, result: Result<T, BlobError>) -> Result<Option<T>, StorageError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(BlobError::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(key, &error)),
    }
}

/// A file as the body of a request.
fn content(file: tokio::fs::File) -> Body {
    let frames = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let length = file.read(&mut chunk).await?;
        chunk.truncate(length);
        Ok::<_, io::Error>((length > 0).then(|| (Frame::data(Bytes::from(chunk)), file)))
    });
    Body::stream(StreamBody::new(Box::pin(frames)))
}

#[async_trait]
impl Storage for Bucket {
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError> {
        let Some(object) = self.get(key, 0).await? else { return Ok(None) };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let bytes = object.body.collect(limit).await;
        bytes.map(Some).map_err(|error| failed(key, &error))
    }

    async fn open(&self, key: &str, offset: u64) -> Result<Option<Content>, StorageError> {
        if offset > 0 {
            // S3 has no parts without bytes.
            let Some(stat) = self.stat(key).await? else { return Ok(None) };
            if offset >= stat.size {
                return Ok(Some(Box::pin(futures::stream::empty())));
            }
        }
        let object = self.get(key, offset).await?;
        Ok(object.map(|object| -> Content {
            Box::pin(BodyDataStream::new(object.body.map_err(io::Error::other)))
        }))
    }

    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        let length = bytes.len() as u64;
        self.put(key, bytes.into(), Some(length)).await
    }

    async fn adopt(&self, key: &str, file: &Path) -> Result<(), StorageError> {
        let of_file = |error| StorageError::new(key, error);
        let opened = tokio::fs::File::open(file).await.map_err(of_file)?;
        let length = opened.metadata().await.map_err(of_file)?.len();
        self.put(key, content(opened), Some(length).filter(|length| *length <= WHOLE)).await?;
        tokio::fs::remove_file(file).await.map_err(of_file)
    }

    async fn remove(&self, key: &str) -> Result<bool, StorageError> {
        if self.stat(key).await?.is_none() {
            return Ok(false);
        }
        self.client.delete(&self.name(key)).await.map_err(|error| failed(key, &error))?;
        Ok(true)
    }

    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        let info = found(key, self.client.head(&self.name(key)).await)?;
        Ok(info
            .map(|info| Stat { size: info.size, modified: info.modified.unwrap_or(SystemTime::UNIX_EPOCH) }))
    }

    async fn list(&self, folder: &str) -> Result<Vec<Entry>, StorageError> {
        let prefix = format!("{}{folder}/", self.prefix);
        let mut list =
            List { prefix: prefix.clone(), delimiter: "/".to_owned(), limit: MAX_PAGE, ..List::default() };
        let mut entries = Vec::new();
        loop {
            let page = self.client.list(&list).await.map_err(|error| failed(folder, &error))?;
            let name =
                |key: &str| key.strip_prefix(&prefix).map(|name| name.trim_end_matches('/').to_owned());
            let files = page.objects.iter().map(|object| (&object.key, false));
            for (key, is_folder) in files.chain(page.prefixes.iter().map(|key| (key, true))) {
                if let Some(name) = name(key).filter(|name| !name.is_empty()) {
                    entries.push(Entry { name, is_folder });
                }
            }
            let Some(next) = page.next else { break };
            list.after = next;
        }
        entries.sort_unstable();
        Ok(entries)
    }
}
