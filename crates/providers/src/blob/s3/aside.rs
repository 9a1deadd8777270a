//! What S3 keeps beside contents: tags, access lists, versions, archives and uploads that are not complete. Requests of
//! which rusty-s3 knows nothing; it signs them all the same.

use super::xml::{self, escaped};
use super::{S3, VERSION, unreadable};
use crate::blob::page_of_uploads;
use crate::s3::SIGNATURE;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use dhow_blocks::blob::{Access, BlobError, Entries, List, MAX_PAGE, Name, Restore, Upload, Version};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use md5::{Digest as _, Md5};

/// A request: what it is about (an object, or with an empty key a bucket), and what is asked of it.
struct Aside<'a> {
    method: Method,
    name: &'a Name,
    /// `tagging`, `acl` and the like.
    what: &'a str,
    /// Parameters besides.
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'static str, &'a str)>,
    body: Option<String>,
}

pub(super) async fn tags(store: &S3, name: &Name) -> Result<Metadata, BlobError> {
    let answer = Aside::new(Method::GET, name, "tagging").send(store).await?;
    let answer = xml::read(answer.body(), "tags")?;
    let tags = xml::elements(answer, "Tag");
    let tag = |tag| Some((xml::field(tag, "Key")?, xml::field(tag, "Value").unwrap_or_default()));
    tags.map(|text| tag(text).ok_or_else(|| unreadable("tags"))).collect()
}

pub(super) async fn set_tags(store: &S3, name: &Name, tags: &Metadata) -> Result<(), BlobError> {
    if tags.is_empty() {
        return Aside::new(Method::DELETE, name, "tagging").send(store).await.map(drop);
    }
    let tags = tags.iter().map(|(key, value)| {
        format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escaped(key), escaped(value))
    });
    let body = Some(format!("<Tagging><TagSet>{}</TagSet></Tagging>", tags.collect::<String>()));
    Aside { body, ..Aside::new(Method::PUT, name, "tagging") }.send(store).await.map(drop)
}

pub(super) async fn access(store: &S3, name: &Name) -> Result<Access, BlobError> {
    let answer = Aside::new(Method::GET, name, "acl").send(store).await?;
    let list = xml::read(answer.body(), "an access list")?;
    xml::access(list).ok_or_else(|| unreadable("an access list"))
}

pub(super) async fn set_access(store: &S3, name: &Name, canned: &str) -> Result<(), BlobError> {
    if canned.is_empty() || !canned.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        let reason = format!("the access list {canned:?} is no word of S3 such as private or public-read");
        return Err(BlockError::invalid(reason).into());
    }
    let (headers, body) = (vec![("x-amz-acl", canned)], Some(String::new()));
    Aside { headers, body, ..Aside::new(Method::PUT, name, "acl") }.send(store).await.map(drop)
}

pub(super) async fn restore(store: &S3, name: &Name, restore: &Restore) -> Result<String, BlobError> {
    let tier = match restore.tier.as_str() {
        "" => String::new(),
        tier => format!("<GlacierJobParameters><Tier>{}</Tier></GlacierJobParameters>", escaped(tier)),
    };
    let body = Some(format!("<RestoreRequest><Days>{}</Days>{tier}</RestoreRequest>", restore.days));
    let answer = Aside { body, ..Aside::new(Method::POST, name, "restore") }.send(store).await?;
    Ok(super::text(answer.headers(), "x-amz-restore-output-path"))
}

pub(super) async fn versions(store: &S3, list: &List) -> Result<Entries<Version>, BlobError> {
    let answer = page(store, list, "versions", ("max-keys", "version-id-marker")).await?;
    let answer = xml::read(answer.body(), "a list of versions")?;
    xml::versions(answer).ok_or_else(|| unreadable("a list of versions"))
}

pub(super) async fn uploads(store: &S3, list: &List) -> Result<Entries<Upload>, BlobError> {
    let answer = page(store, list, "uploads", ("max-uploads", "upload-id-marker")).await?;
    let answer = xml::read(answer.body(), "a list of uploads")?;
    let page = xml::uploads(answer).ok_or_else(|| unreadable("a list of uploads"))?;
    // Some servers know neither pages nor prefixes here, and tell of all uploads.
    let knows_pages = xml::field(answer, "KeyMarker").unwrap_or_default() == list.after
        && page.entries.len() <= list.limit
        && page.entries.iter().all(|upload| upload.key.starts_with(&list.prefix));
    Ok(if knows_pages { page } else { page_of_uploads(page.entries, list) })
}

/// A page of a list in which names come more than once.
async fn page(
    store: &S3,
    list: &List,
    what: &str,
    (most, id_marker): (&str, &str),
) -> Result<Response<Bytes>, BlobError> {
    let limit = list.limit.clamp(1, MAX_PAGE).to_string();
    // An id says nothing without its name.
    let id = if list.after.is_empty() { "" } else { list.after_id.as_str() };
    let query = [
        (most, limit.as_str()),
        ("delimiter", &list.delimiter),
        ("key-marker", &list.after),
        ("prefix", &list.prefix),
        (id_marker, id),
    ];
    let query = query.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    let bucket = Name { bucket: list.bucket.clone(), ..Name::default() };
    Aside { query, ..Aside::new(Method::GET, &bucket, what) }.send(store).await
}

// === impl Aside ===

impl<'a> Aside<'a> {
    fn new(method: Method, name: &'a Name, what: &'a str) -> Aside<'a> {
        Aside { method, name, what, query: Vec::new(), headers: Vec::new(), body: None }
    }

    /// Reads the answer, which has to be a success.
    async fn send(self, store: &S3) -> Result<Response<Bytes>, BlobError> {
        let Aside { method, name, what, mut query, headers: mut signed, body } = self;
        let is_list = matches!(what, "versions" | "uploads");
        let (url, object) = if is_list {
            (store.bucket(&name.bucket)?.base_url().clone(), name.bucket.as_str())
        } else {
            let (bucket, key) = store.place(name)?;
            (bucket.object_url(key), key)
        };
        query.push((what, ""));
        if !name.version.is_empty() {
            query.push((VERSION, &name.version));
        }
        query.sort_unstable();
        let body = body.map(Bytes::from);
        // Amazon takes no change of tags and access lists without it.
        let checksum = body.as_ref().map(|body| BASE64_STANDARD.encode(Md5::digest(body)));
        signed.extend(checksum.as_deref().map(|checksum| ("content-md5", checksum)));
        signed.sort_unstable();
        let signing = match method {
            Method::PUT => rusty_s3::Method::Put,
            Method::POST => rusty_s3::Method::Post,
            Method::DELETE => rusty_s3::Method::Delete,
            _ => rusty_s3::Method::Get,
        };
        let credentials = &store.account.credentials;
        let url = rusty_s3::signing::sign(
            &jiff::Timestamp::now(),
            signing,
            url,
            credentials.key(),
            credentials.secret(),
            credentials.token(),
            store.account.region(),
            SIGNATURE.as_secs(),
            query.iter().copied(),
            signed.iter().copied(),
        );
        let mut headers = HeaderMap::new();
        for (name, value) in signed {
            let value = HeaderValue::try_from(value);
            let value =
                value.map_err(|_| BlockError::invalid(format!("{name}: cannot stand in a header")))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        if let Some(body) = &body {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        store.ask(method, &url, headers, body.unwrap_or_default().into(), object).await
    }
}
