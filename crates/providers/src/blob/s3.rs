//! `blob.s3`: objects in buckets of S3, or of a server that speaks as S3 does; also under Layotto's names for it.
//!
//! Contents pass through: of known length in one request, else in parts of an upload, of which one is held at a time. A
//! component without a `bucket` takes the first part of a file's name for it, as Layotto does.
//!
//! | file | subject |
//! |---|---|
//! | `aside` | what is kept beside contents: tags, access, versions, archives, uploads |
//! | `content` | contents on their way |
//! | `xml` | what S3 says and is told in XML |

mod aside;
mod content;
mod xml;

use super::check_key;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::s3::{Account, DEADLINE, LONGEST_SIGNATURE, MAX_ANSWER, SIGNATURE, element, refusal};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use content::{content, held, measured};
use dhow_blocks::blob::{
    Access, BlobError, BlobStore, Entries, Info, List, MAX_PAGE, Method, Name, Object, Page, Part, Put,
    Range, Restore, Upload, Version, missing,
};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use md5::{Digest as _, Md5};
use rusty_s3::Bucket;
use rusty_s3::actions::{
    CompleteMultipartUploadResponse, CreateBucket, CreateMultipartUpload, ListObjectsV2, S3Action,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use url::Url;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "blob.s3",
    aliases: &[],
    versions: &["v1"],
    fields: &[
        "bucket",
        "region",
        "awsRegion",
        "endpoint",
        "accessKey",
        "awsAccessKey",
        "accessKeyID",
        "secretKey",
        "awsSecretKey",
        "accessKeySecret",
        "sessionToken",
        "awsSessionToken",
        "forcePathStyle",
        "disableSSL",
        "insecureSSL",
        "SSL",
        "storageClass",
    ],
    open: Open::Blob(|component, _| Box::pin(async move { open(&component) })),
};

/// The same under Layotto's names, and under a short one of its kind.
pub(crate) const FILES_AWS: Provider = Provider { component_type: "file.aws.s3", ..PROVIDER };
pub(crate) const FILES_MINIO: Provider = Provider { component_type: "file.minio", ..PROVIDER };
pub(crate) const OBJECTS_AWS: Provider = Provider { component_type: "oss.aws.oss", ..PROVIDER };
pub(crate) const OBJECTS_CEPH: Provider = Provider { component_type: "oss.ceph", ..PROVIDER };
pub(crate) const OBJECTS: Provider = Provider { component_type: "oss.s3", ..PROVIDER };

/// A part of a content whose length is not known. S3 takes 10,000 parts, so such a content has at most 78 GiB.
const PART: usize = 8 << 20;

/// Larger parts have to say their length before they come.
const MAX_HELD: usize = 64 << 20;

/// A content that comes or goes slower than this is given up.
const SLOWEST: u64 = 64 << 10;

/// What an answer says of an object besides what has a place in [`Info`].
const TOLD: [&str; 11] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-amz-delete-marker",
    "x-amz-expiration",
    "x-amz-mp-parts-count",
    "x-amz-restore",
    "x-amz-tagging-count",
    "x-amz-version-id",
];

/// The parameter that names a version.
const VERSION: &str = "versionId";

/// Stands behind every other character.
const LAST: char = '\u{10ffff}';

/// Objects in buckets.
pub struct S3 {
    account: Account,
    /// The bucket of names that have none.
    bucket: Option<String>,
    storage_class: Option<String>,
    /// What goes with every request for an object: a key of the customer's, with which the server encrypts.
    customer_key: Vec<(&'static str, String)>,
}

fn open(component: &ComponentSpec) -> Result<Arc<dyn BlobStore>, OpenError> {
    // Servers other than Amazon's seldom have a name for each bucket.
    let account = Account::read(component, component.field(&["endpoint"]).is_some())?;
    let bucket = component.field(&["bucket"]).map(str::to_owned);
    if let Some(bucket) = &bucket {
        account.bucket(bucket).map_err(|reason| component.backend(reason))?;
    }
    let storage_class = component.field(&["storageClass"]).map(str::to_owned);
    Ok(Arc::new(S3 { account, bucket, storage_class, customer_key: Vec::new() }))
}

fn unreadable(what: &str) -> BlobError {
    BlockError::failed(format!("the answer is not {what} as S3 gives it")).into()
}

fn unquoted(etag: &str) -> String {
    etag.replace("&quot;", "\"").trim_matches('"').to_owned()
}

fn time(text: &str) -> Option<SystemTime> {
    Some(text.parse::<jiff::Timestamp>().ok()?.into())
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What the headers of an answer say about an object.
fn info(key: &str, headers: &HeaderMap) -> Info {
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("x-amz-meta-")?;
        Some((name.to_owned(), value.to_str().ok()?.to_owned()))
    });
    let modified = jiff::fmt::rfc2822::parse(&text(headers, "last-modified")).ok();
    Info {
        key: key.to_owned(),
        size: text(headers, "content-length").parse().unwrap_or(0),
        modified: modified.map(|time| time.timestamp().into()),
        etag: unquoted(&text(headers, "etag")),
        content_type: text(headers, "content-type"),
        metadata: metadata.collect(),
        storage_class: text(headers, "x-amz-storage-class"),
        headers: TOLD
            .iter()
            .map(|name| ((*name).to_owned(), text(headers, name)))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    }
}

/// Asks for one version of an object.
fn versioned<'a>(action: &mut impl S3Action<'a>, name: &'a Name) {
    if !name.version.is_empty() {
        action.query_mut().insert(VERSION, name.version.as_str());
    }
}

/// Adds a header to a request and to what is signed.
fn header<'a>(
    action: &mut impl S3Action<'a>,
    headers: &mut HeaderMap,
    name: &str,
    value: &str,
) -> Result<(), BlobError> {
    let wrong = || BlockError::invalid(format!("{name}: cannot stand in a header"));
    let name = HeaderName::try_from(name.to_ascii_lowercase()).map_err(|_| wrong())?;
    headers.insert(name.clone(), HeaderValue::try_from(value).map_err(|_| wrong())?);
    action.headers_mut().insert(name.as_str().to_owned(), value.to_owned());
    Ok(())
}

// === impl S3 ===

impl S3 {
    /// Objects of one bucket of an account; the error says why it has no URL.
    pub fn new(account: Account, bucket: &str) -> Result<S3, String> {
        account.bucket(bucket)?;
        let bucket = Some(bucket.to_owned());
        Ok(S3 { account, bucket, storage_class: None, customer_key: Vec::new() })
    }

    /// The same, whose objects the server encrypts with this key, which it does not keep (SSE-C).
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/specifying-s3-c-encryption.html>
    pub fn with_customer_key(self, key: &[u8; 32]) -> S3 {
        let customer_key = vec![
            ("x-amz-server-side-encryption-customer-algorithm", "AES256".to_owned()),
            ("x-amz-server-side-encryption-customer-key", BASE64_STANDARD.encode(key)),
            ("x-amz-server-side-encryption-customer-key-md5", BASE64_STANDARD.encode(Md5::digest(key))),
        ];
        S3 { customer_key, ..self }
    }

    /// Adds the customer's key to a request for an object.
    fn with_key<'a>(&self, action: &mut impl S3Action<'a>) -> Result<HeaderMap, BlobError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.customer_key {
            header(action, &mut headers, name, value)?;
        }
        headers.values_mut().for_each(|value| value.set_sensitive(true));
        Ok(headers)
    }

    /// Makes the bucket, unless it is there.
    pub async fn create_bucket(&self) -> Result<(), BlobError> {
        let bucket = self.bucket("")?;
        let action = CreateBucket::new(&bucket, &self.account.credentials);
        // Says the region, where that is not the first one; some servers want to know the length of nothing, too.
        let body = action.body();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, body.len().into());
        let url = action.sign(SIGNATURE);
        match self.ask(http::Method::PUT, &url, headers, body.into(), bucket.name()).await {
            // 409: somebody has it. Whether that is this account shows when it is written to.
            Ok(_) | Err(BlobError::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The bucket of an object, and its key there.
    fn place<'a>(&self, name: &'a Name) -> Result<(Bucket, &'a str), BlobError> {
        let key = name.key.as_str();
        let (bucket, key) = match (&*name.bucket, &self.bucket) {
            ("", Some(bucket)) => (bucket.as_str(), key),
            ("", None) => key.trim_start_matches('/').split_once('/').ok_or_else(|| {
                let reason = format!(
                    "the component has no bucket, and {key:?} does not begin with one, as in bucket/name"
                );
                BlockError::invalid(reason)
            })?,
            (bucket, _) => (bucket, key),
        };
        check_key(key)?;
        if key.starts_with('/') {
            return Err(BlockError::invalid(format!("the name {key:?} begins with a slash")).into());
        }
        Ok((self.account.bucket(bucket).map_err(BlockError::invalid)?, key))
    }

    /// The bucket of a list.
    fn bucket(&self, name: &str) -> Result<Bucket, BlobError> {
        let name = if name.is_empty() { self.bucket.as_deref().unwrap_or_default() } else { name };
        Ok(self.account.bucket(name).map_err(BlockError::invalid)?)
    }

    /// Sends a request and reads the head of the answer, which has to be a success.
    async fn send(
        &self,
        method: http::Method,
        url: &Url,
        headers: HeaderMap,
        body: Body,
        deadline: Duration,
        what: &str,
    ) -> Result<Response<Incoming>, BlobError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let uri = url.as_str().parse();
        *request.uri_mut() = uri.map_err(|_| BlockError::invalid(format!("{what:?} makes no URL")))?;
        *request.headers_mut() = headers;
        let exchange = self.account.client.send(request);
        let answer = tokio::time::timeout(deadline, exchange).await;
        let response = answer.map_err(|_| crate::http_client::late(deadline))??;
        if response.status().is_success() {
            return Ok(response);
        }
        let refused = tokio::time::timeout(deadline, crate::http_client::read(response, MAX_ANSWER)).await;
        let response = refused.map_err(|_| crate::http_client::late(deadline))??;
        let code = element(response.body(), "Code").unwrap_or_default();
        Err(match response.status() {
            StatusCode::NOT_IMPLEMENTED => missing("this request to its server, which answers 501"),
            _ if code == "RestoreAlreadyInProgress" => refusal(response.status(), response.body()).into(),
            StatusCode::NOT_FOUND => BlobError::NotFound { what: format!("{what:?}") },
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                BlobError::Denied { reason: refusal(response.status(), response.body()).to_string() }
            }
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => {
                BlobError::Exists { key: what.to_owned() }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                BlockError::invalid(format!("the range is not in {what:?}")).into()
            }
            status => refusal(status, response.body()).into(),
        })
    }

    /// The same for an answer that is short.
    async fn ask(
        &self,
        method: http::Method,
        url: &Url,
        headers: HeaderMap,
        body: Body,
        what: &str,
    ) -> Result<Response<Bytes>, BlobError> {
        let response = self.send(method, url, headers, body, DEADLINE, what).await?;
        let answer = tokio::time::timeout(DEADLINE, crate::http_client::read(response, MAX_ANSWER)).await;
        Ok(answer.map_err(|_| crate::http_client::late(DEADLINE))??)
    }

    /// Writes a content of known length.
    async fn write(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        body: Body,
        length: u64,
        what: &str,
    ) -> Result<String, BlobError> {
        headers.insert(CONTENT_LENGTH, length.into());
        let deadline = DEADLINE + Duration::from_secs(length / SLOWEST);
        let (body, broken) = measured(body, length);
        tokio::select! {
            response = self.send(http::Method::PUT, url, headers, body, deadline, what) => {
                Ok(unquoted(&text(response?.headers(), "etag")))
            }
            error = broken => Err(error),
        }
    }

    /// The headers of a new object, signed.
    fn described<'a>(&self, action: &mut impl S3Action<'a>, put: &Put) -> Result<HeaderMap, BlobError> {
        let mut headers = self.with_key(action)?;
        if let Some(content_type) = &put.content_type {
            header(action, &mut headers, CONTENT_TYPE.as_str(), content_type)?;
        }
        if put.only_new {
            header(action, &mut headers, "if-none-match", "*")?;
        }
        if let Some(class) = &self.storage_class {
            header(action, &mut headers, "x-amz-storage-class", class)?;
        }
        for (name, value) in &put.headers {
            header(action, &mut headers, name, value)?;
        }
        for (name, value) in &put.metadata {
            header(action, &mut headers, &format!("x-amz-meta-{name}"), value)?;
        }
        if !put.tags.is_empty() {
            let tags = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&put.tags).finish();
            header(action, &mut headers, "x-amz-tagging", &tags.replace('+', "%20"))?;
        }
        Ok(headers)
    }

    /// Writes a content of unknown length: at once if it is short, else in parts.
    async fn write_unknown(&self, name: &Name, mut body: Body, put: Put) -> Result<String, BlobError> {
        let mut rest = Bytes::new();
        let first = held(&mut body, &mut rest, PART).await?;
        if first.len() < PART {
            let put = Put { length: Some(first.len() as u64), ..put };
            return self.put(name, first.into(), put).await;
        }
        let upload = self.create_upload(name, put).await?;
        let parts = async {
            let (mut parts, mut piece) = (Vec::new(), first);
            while !piece.is_empty() {
                let number = u16::try_from(parts.len() + 1).unwrap_or(u16::MAX);
                let length = Some(piece.len() as u64);
                let etag = self.put_part(name, &upload, number, length, piece.into()).await?;
                parts.push(Part { number, etag, ..Part::default() });
                piece = held(&mut body, &mut rest, PART).await?;
            }
            self.complete_upload(name, &upload, &parts).await
        };
        let written = parts.await;
        if written.is_err() {
            // What is left of it costs money.
            let _ = self.abort_upload(name, &upload).await;
        }
        written
    }
}

#[async_trait]
impl BlobStore for S3 {
    async fn get(&self, name: &Name, range: Range) -> Result<Object, BlobError> {
        let (bucket, key) = self.place(name)?;
        let mut action = bucket.get_object(Some(&self.account.credentials), key);
        versioned(&mut action, name);
        let mut headers = self.with_key(&mut action)?;
        let url = action.sign(SIGNATURE);
        if range != Range::default() {
            let Range { start, end } = range;
            let end = end.map(|end| end.to_string()).unwrap_or_default();
            if let Ok(value) = HeaderValue::try_from(format!("bytes={start}-{end}")) {
                headers.insert(RANGE, value);
            }
        }
        let response = self.send(http::Method::GET, &url, headers, Body::Empty, DEADLINE, key).await?;
        let (head, body) = response.into_parts();
        let mut info = info(&name.key, &head.headers);
        let length = info.size;
        // `bytes 0-9/100`
        if let Some((_, whole)) = text(&head.headers, "content-range").rsplit_once('/') {
            info.size = whole.parse().unwrap_or(length);
        }
        Ok(Object { info, length, body: content(body) })
    }

    async fn head(&self, name: &Name) -> Result<Info, BlobError> {
        let (bucket, key) = self.place(name)?;
        let mut action = bucket.head_object(Some(&self.account.credentials), key);
        versioned(&mut action, name);
        let headers = self.with_key(&mut action)?;
        let url = action.sign(SIGNATURE);
        let response = self.ask(http::Method::HEAD, &url, headers, Body::Empty, key).await?;
        Ok(info(&name.key, response.headers()))
    }

    async fn put(&self, name: &Name, body: Body, put: Put) -> Result<String, BlobError> {
        let Some(length) = put.length else { return self.write_unknown(name, body, put).await };
        let (bucket, key) = self.place(name)?;
        let mut action = bucket.put_object(Some(&self.account.credentials), key);
        let headers = self.described(&mut action, &put)?;
        self.write(&action.sign(SIGNATURE), headers, body, length, key).await
    }

    async fn delete(&self, name: &Name) -> Result<(), BlobError> {
        let (bucket, key) = self.place(name)?;
        let mut action = bucket.delete_object(Some(&self.account.credentials), key);
        versioned(&mut action, name);
        let url = action.sign(SIGNATURE);
        match self.ask(http::Method::DELETE, &url, HeaderMap::new(), Body::Empty, key).await {
            Ok(_) | Err(BlobError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, list: &List) -> Result<Page, BlobError> {
        let bucket = self.bucket(&list.bucket)?;
        let mut action = bucket.list_objects_v2(Some(&self.account.credentials));
        action.with_max_keys(list.limit.clamp(1, MAX_PAGE));
        // Keys as they are: servers do not agree on how to encode them.
        action.query_mut().remove("encoding-type");
        // Behind a beginning that counts as one is behind all names that begin so.
        let is_beginning = !list.delimiter.is_empty() && list.after.ends_with(&list.delimiter);
        let after = if is_beginning { format!("{}{LAST}", list.after) } else { list.after.clone() };
        for (name, text) in
            [("start-after", &after), ("prefix", &list.prefix), ("delimiter", &list.delimiter)]
        {
            if !text.is_empty() {
                action.query_mut().insert(name, text.clone());
            }
        }
        let url = action.sign(SIGNATURE);
        let response =
            self.ask(http::Method::GET, &url, HeaderMap::new(), Body::Empty, bucket.name()).await?;
        let text = std::str::from_utf8(response.body()).map_err(|_| unreadable("a list"))?;
        let found = ListObjectsV2::parse_response(text).map_err(|_| unreadable("a list"))?;
        let objects: Vec<Info> = found
            .contents
            .into_iter()
            .map(|object| Info {
                size: object.size.unwrap_or(0),
                modified: object.last_modified.as_deref().and_then(time),
                etag: unquoted(object.etag.as_deref().unwrap_or_default()),
                storage_class: object.storage_class.unwrap_or_default(),
                key: object.key,
                ..Info::default()
            })
            .collect();
        let prefixes: Vec<String> = found.common_prefixes.into_iter().map(|found| found.prefix).collect();
        let last = objects.iter().map(|object| &object.key).chain(&prefixes).max().cloned();
        let next = last.filter(|_| found.next_continuation_token.is_some());
        Ok(Page { objects, prefixes, next })
    }

    async fn copy(&self, from: &Name, to: &Name) -> Result<String, BlobError> {
        let ((source, source_key), (bucket, key)) = (self.place(from)?, self.place(to)?);
        let path = source.object_url(source_key);
        // The key as a URL has it, behind the bucket, which is in the path or in the host.
        let base = source.base_url().path();
        let encoded = path.path().strip_prefix(base).unwrap_or(path.path()).trim_start_matches('/');
        let mut action = bucket.put_object(Some(&self.account.credentials), key);
        let mut headers = HeaderMap::new();
        let mut path = format!("{}/{encoded}", source.name());
        if !from.version.is_empty() {
            let version = url::form_urlencoded::byte_serialize(from.version.as_bytes());
            path.extend(["?versionId="].into_iter().chain(version));
        }
        header(&mut action, &mut headers, "x-amz-copy-source", &path)?;
        headers.insert(CONTENT_LENGTH, 0.into());
        let url = action.sign(SIGNATURE);
        let response = self.ask(http::Method::PUT, &url, headers, Body::Empty, source_key).await?;
        // An error may come after the head of a success.
        match element(response.body(), "ETag") {
            Some(etag) => Ok(unquoted(&etag)),
            None => Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, response.body()).into()),
        }
    }

    async fn sign(&self, name: &Name, method: Method, valid: Duration) -> Result<String, BlobError> {
        if !(Duration::from_secs(1)..=LONGEST_SIGNATURE).contains(&valid) {
            return Err(BlockError::invalid("a URL is signed for 1 second to 7 days").into());
        }
        let ((bucket, key), credentials) = (self.place(name)?, Some(&self.account.credentials));
        let url = match method {
            Method::Get => bucket.get_object(credentials, key).sign(valid),
            Method::Put => bucket.put_object(credentials, key).sign(valid),
            Method::Head => bucket.head_object(credentials, key).sign(valid),
            Method::Delete => bucket.delete_object(credentials, key).sign(valid),
        };
        Ok(url.into())
    }

    async fn create_upload(&self, name: &Name, put: Put) -> Result<String, BlobError> {
        let (bucket, key) = self.place(name)?;
        let mut action = bucket.create_multipart_upload(Some(&self.account.credentials), key);
        let headers = self.described(&mut action, &Put { only_new: false, ..put })?;
        let url = action.sign(SIGNATURE);
        let response = self.ask(http::Method::POST, &url, headers, Body::Empty, key).await?;
        let text = std::str::from_utf8(response.body()).map_err(|_| unreadable("an upload"))?;
        let created = CreateMultipartUpload::parse_response(text).map_err(|_| unreadable("an upload"))?;
        Ok(created.upload_id().to_owned())
    }

    async fn put_part(
        &self,
        name: &Name,
        upload: &str,
        number: u16,
        length: Option<u64>,
        mut body: Body,
    ) -> Result<String, BlobError> {
        let (bucket, key) = self.place(name)?;
        let (body, length) = match length {
            Some(length) => (body, length),
            None => {
                let held = held(&mut body, &mut Bytes::new(), MAX_HELD + 1).await?;
                if held.len() > MAX_HELD {
                    let reason =
                        format!("a part of more than {MAX_HELD} bytes has to say its length before it comes");
                    return Err(BlockError::invalid(reason).into());
                }
                let length = held.len() as u64;
                (held.into(), length)
            }
        };
        let mut action = bucket.upload_part(Some(&self.account.credentials), key, number, upload);
        let headers = self.with_key(&mut action)?;
        self.write(&action.sign(SIGNATURE), headers, body, length, key).await
    }

    async fn complete_upload(&self, name: &Name, upload: &str, parts: &[Part]) -> Result<String, BlobError> {
        let (bucket, key) = self.place(name)?;
        let none = std::iter::empty::<&str>();
        let action = bucket.complete_multipart_upload(Some(&self.account.credentials), key, upload, none);
        let url = action.sign(SIGNATURE);
        let response =
            self.ask(http::Method::POST, &url, HeaderMap::new(), xml::listed(parts).into(), key).await?;
        let text = std::str::from_utf8(response.body()).map_err(|_| unreadable("an object"))?;
        match CompleteMultipartUploadResponse::parse(text) {
            Ok(completed) => Ok(unquoted(completed.etag())),
            // An error may come after the head of a success.
            Err(_) => Err(refusal(StatusCode::INTERNAL_SERVER_ERROR, response.body()).into()),
        }
    }

    async fn abort_upload(&self, name: &Name, upload: &str) -> Result<(), BlobError> {
        let (bucket, key) = self.place(name)?;
        let url = bucket.abort_multipart_upload(Some(&self.account.credentials), key, upload).sign(SIGNATURE);
        self.ask(http::Method::DELETE, &url, HeaderMap::new(), Body::Empty, upload).await.map(drop)
    }

    async fn list_parts(
        &self,
        name: &Name,
        upload: &str,
        after: u16,
        limit: usize,
    ) -> Result<(Vec<Part>, bool), BlobError> {
        let (bucket, key) = self.place(name)?;
        let mut action = bucket.list_parts(Some(&self.account.credentials), key, upload);
        action.set_max_parts(u16::try_from(limit.clamp(1, MAX_PAGE)).unwrap_or(1000));
        if after > 0 {
            action.set_part_number_marker(after);
        }
        let url = action.sign(SIGNATURE);
        let response = self.ask(http::Method::GET, &url, HeaderMap::new(), Body::Empty, upload).await?;
        let is_truncated = element(response.body(), "IsTruncated").is_some_and(|text| text == "true");
        Ok((xml::parts(response.body()).ok_or_else(|| unreadable("a list of parts"))?, is_truncated))
    }

    async fn list_uploads(&self, list: &List) -> Result<Entries<Upload>, BlobError> {
        aside::uploads(self, list).await
    }

    async fn tags(&self, name: &Name) -> Result<Metadata, BlobError> {
        aside::tags(self, name).await
    }

    async fn set_tags(&self, name: &Name, tags: &Metadata) -> Result<(), BlobError> {
        aside::set_tags(self, name, tags).await
    }

    async fn access(&self, name: &Name) -> Result<Access, BlobError> {
        aside::access(self, name).await
    }

    async fn set_access(&self, name: &Name, canned: &str) -> Result<(), BlobError> {
        aside::set_access(self, name, canned).await
    }

    async fn list_versions(&self, list: &List) -> Result<Entries<Version>, BlobError> {
        aside::versions(self, list).await
    }

    async fn restore(&self, name: &Name, restore: &Restore) -> Result<String, BlobError> {
        aside::restore(self, name, restore).await
    }
}
