//! Objects as a whole.

use super::{failed, limit, name, refuse, seconds, store, version};
use crate::dapr::error::ApiError;
use crate::grpc::service::{Answer, Messages};
use crate::layotto::Layotto;
use crate::layotto::file::size;
use crate::layotto::stream::{body, first, pieces};
use crate::proto::layotto::s3::*;
use dhow_blocks::blob::{BlobError, BlobStore, Info, List, Method, Name, Put, Range};
use dhow_blocks::events::Metadata;
use dhow_blocks::scope::{Bound, Scope};
use futures::StreamExt as _;
use futures::stream;
use std::time::Duration;
use tonic::Streaming;

/// Most objects that one request deletes (S3's limit).
const MAX_DELETED: usize = 1000;

pub(super) async fn put(
    service: &Layotto,
    mut requests: Streaming<PutObjectInput>,
) -> Answer<PutObjectOutput> {
    let first = first(&mut requests).await?;
    let written = async {
        let bound = store(service.scope(), &first.store_name)?;
        let (name, put) = (name(&first.bucket, &first.key), described(&first)?);
        let content = body(first.body, requests, |message: PutObjectInput| message.body);
        let written = bound.once("put", bound.provider.put(&name, content, put)).await;
        let etag = written.map_err(|error| failed(bound, &error))?;
        Ok(PutObjectOutput { etag, ..PutObjectOutput::default() })
    };
    service.answer(written.await)
}

fn described(input: &PutObjectInput) -> Result<Put, ApiError> {
    refuse("signed_url", !input.signed_url.is_empty())?;
    let length = u64::try_from(input.content_length).ok().filter(|length| *length > 0);
    Ok(Put {
        length,
        content_type: None,
        headers: headers(&[
            ("cache-control", &input.cache_control),
            ("content-disposition", &input.content_disposition),
            ("content-encoding", &input.content_encoding),
            ("x-amz-acl", &input.acl),
            ("x-amz-server-side-encryption", &input.server_side_encryption),
            ("x-amz-storage-class", &input.storage_class),
        ]),
        metadata: input.meta.clone(),
        tags: input.tagging.clone(),
        only_new: false,
    })
}

/// Those headers that have a value.
pub(super) fn headers(fields: &[(&str, &String)]) -> Metadata {
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect()
}

pub(super) async fn get(scope: &Scope, input: GetObjectInput) -> Result<Messages<GetObjectOutput>, ApiError> {
    refuse("signed_url", !input.signed_url.is_empty())?;
    refuse("part_number", input.part_number != 0)?;
    let number = |field: &str, number: i64| {
        let message = || format!("{field}: {number} is negative");
        u64::try_from(number).map_err(|_| ApiError::malformed(message()))
    };
    let start = number("start", input.start)?;
    // Both zero is the whole object: an end of zero stands for none.
    let end = Some(number("end", input.end)?).filter(|end| *end > 0);
    let bound = store(scope, &input.store_name)?;
    let (provider, name) = (&bound.provider, &version(&input.bucket, &input.key, &input.version_id));
    let object = bound.call("get", (), |()| provider.get(name, Range { start, end })).await;
    let object = object.map_err(|error| failed(bound, &error))?;
    for (condition, is_met) in [
        ("if_match", input.if_match.is_empty() || input.if_match.trim_matches('"') == object.info.etag),
        (
            "if_none_match",
            input.if_none_match.is_empty() || input.if_none_match.trim_matches('"') != object.info.etag,
        ),
    ] {
        if !is_met {
            let message = format!("{condition}: the object has the etag {:?}", object.info.etag);
            return Err(ApiError::new(
                http::StatusCode::PRECONDITION_FAILED,
                crate::dapr::error::Grpc::FailedPrecondition,
                "ERR_BLOB",
                message,
            ));
        }
    }
    let is_part = object.length != object.info.size;
    let Info { etag, content_type, metadata, storage_class, modified, size: whole, headers, .. } =
        object.info;
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let last = (start + object.length).saturating_sub(1);
    let head = GetObjectOutput {
        content_length: i64::try_from(object.length).unwrap_or(i64::MAX),
        content_range: if is_part { format!("bytes {start}-{last}/{whole}") } else { String::new() },
        content_type,
        etag,
        last_modified: seconds(modified),
        storage_class,
        metadata,
        cache_control: header("cache-control"),
        content_disposition: header("content-disposition"),
        content_encoding: header("content-encoding"),
        content_language: header("content-language"),
        delete_marker: header("x-amz-delete-marker") == "true",
        expiration: header("x-amz-expiration"),
        expires: header("expires"),
        parts_count: header("x-amz-mp-parts-count").parse().unwrap_or(0),
        tag_count: header("x-amz-tagging-count").parse().unwrap_or(0),
        version_id: header("x-amz-version-id"),
        body: bytes::Bytes::new(),
    };
    // What is known of the object is in the first message, which is there also for an empty one.
    let mut pieces = Box::pin(pieces(object.body));
    let first = match pieces.next().await {
        None => Ok(head),
        Some(piece) => piece.map(|body| GetObjectOutput { body, ..head }),
    };
    let rest = pieces.map(|piece| piece.map(|body| GetObjectOutput { body, ..GetObjectOutput::default() }));
    Ok(stream::iter([first]).chain(rest).boxed())
}

pub(super) async fn delete(scope: &Scope, input: DeleteObjectInput) -> Result<DeleteObjectOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let (provider, name) = (&bound.provider, &version(&input.bucket, &input.key, &input.version_id));
    let deleted = bound.call("delete", (), |()| provider.delete(name)).await;
    deleted.map_err(|error| failed(bound, &error))?;
    Ok(DeleteObjectOutput { version_id: input.version_id, ..DeleteObjectOutput::default() })
}

pub(super) async fn delete_many(
    scope: &Scope,
    input: DeleteObjectsInput,
) -> Result<DeleteObjectsOutput, ApiError> {
    let DeleteObjectsInput { store_name, bucket, delete, .. } = input;
    let Delete { objects, quiet } = delete.unwrap_or_default();
    if objects.is_empty() || objects.len() > MAX_DELETED {
        return Err(ApiError::malformed(format!("delete.objects: expected 1 to {MAX_DELETED}")));
    }
    let bound = store(scope, &store_name)?;
    let provider = &bound.provider;
    let mut deleted = Vec::new();
    for ObjectIdentifier { key, version_id } in objects {
        let name = &version(&bucket, &key, &version_id);
        bound.call("delete", (), |()| provider.delete(name)).await.map_err(|error| failed(bound, &error))?;
        if !quiet {
            deleted.push(DeletedObject { key, version_id, ..DeletedObject::default() });
        }
    }
    Ok(DeleteObjectsOutput { deleted, metadata: Metadata::new() })
}

pub(super) async fn copy(scope: &Scope, input: CopyObjectInput) -> Result<CopyObjectOutput, ApiError> {
    let source = input.copy_source.unwrap_or_default();
    refuse("tagging", !input.tagging.is_empty())?;
    refuse("metadata_directive REPLACE", input.metadata_directive.eq_ignore_ascii_case("REPLACE"))?;
    let bound = store(scope, &input.store_name)?;
    let from = &version(&source.copy_source_bucket, &source.copy_source_key, &source.copy_source_version_id);
    let (to, provider) = (&name(&input.bucket, &input.key), &bound.provider);
    let etag = bound.once("copy", provider.copy(from, to)).await.map_err(|error| failed(bound, &error))?;
    let info = bound.call("head", (), |()| provider.head(to)).await.map_err(|error| failed(bound, &error))?;
    let copy_object_result = Some(CopyObjectResult { etag, last_modified: seconds(info.modified) });
    Ok(CopyObjectOutput { copy_object_result, ..CopyObjectOutput::default() })
}

pub(super) async fn list(scope: &Scope, input: ListObjectsInput) -> Result<ListObjectsOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let ListObjectsInput { bucket, delimiter, encoding_type, marker, max_keys, prefix, .. } = input;
    let limit = limit(max_keys.into());
    let list = &List {
        bucket: bucket.clone(),
        prefix: prefix.clone(),
        delimiter: delimiter.clone(),
        after: marker.clone(),
        limit,
        ..List::default()
    };
    let provider = &bound.provider;
    let page =
        bound.call("list", (), |()| provider.list(list)).await.map_err(|error| failed(bound, &error))?;
    let contents = page.objects.into_iter().map(|info| Object {
        last_modified: seconds(info.modified),
        size: size(&info),
        etag: info.etag,
        key: info.key,
        storage_class: info.storage_class,
        ..Object::default()
    });
    Ok(ListObjectsOutput {
        common_prefixes: page.prefixes,
        contents: contents.collect(),
        delimiter,
        encoding_type,
        is_truncated: page.next.is_some(),
        marker,
        max_keys: i32::try_from(limit).unwrap_or(i32::MAX),
        name: bucket,
        next_marker: page.next.unwrap_or_default(),
        prefix,
        metadata: Metadata::new(),
    })
}

pub(super) async fn head(scope: &Scope, input: HeadObjectInput) -> Result<HeadObjectOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let info = look(bound, &version(&input.bucket, &input.key, &input.version_id))
        .await
        .map_err(|error| failed(bound, &error))?;
    // As headers of S3, which have dashes and, to Layotto, capitals.
    let mut metadata: Metadata =
        info.metadata.into_iter().map(|(name, value)| (format!("X-Amz-Meta-{name}"), value)).collect();
    metadata.extend(info.headers.into_iter().map(|(name, value)| (capitals(&name), value)));
    let modified = info.modified.map(|time| humantime::format_rfc3339_millis(time).to_string());
    for (name, value) in [
        ("ETag", info.etag),
        ("Content-Length", info.size.to_string()),
        ("Content-Type", info.content_type),
        ("Last-Modified", modified.unwrap_or_default()),
        ("Storage-Class", info.storage_class),
    ] {
        if !value.is_empty() {
            metadata.insert(name.to_owned(), value);
        }
    }
    Ok(HeadObjectOutput { result_metadata: metadata })
}

pub(super) async fn exists(
    scope: &Scope,
    input: IsObjectExistInput,
) -> Result<IsObjectExistOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let file_exist = match look(bound, &version(&input.bucket, &input.key, &input.version_id)).await {
        Ok(_) => true,
        Err(BlobError::NotFound { .. }) => false,
        Err(error) => return Err(failed(bound, &error)),
    };
    Ok(IsObjectExistOutput { file_exist, metadata: Metadata::new() })
}

/// `x-amz-version-id` as `X-Amz-Version-Id`.
fn capitals(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    });
    words.collect::<Vec<_>>().join("-")
}

async fn look(bound: &Bound<dyn BlobStore>, name: &Name) -> Result<Info, BlobError> {
    let provider = &bound.provider;
    bound.call("head", (), |()| provider.head(name)).await
}

pub(super) async fn sign(scope: &Scope, input: SignUrlInput) -> Result<SignUrlOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let method = match input.method.to_ascii_uppercase().as_str() {
        "" | "GET" => Method::Get,
        "PUT" => Method::Put,
        "HEAD" => Method::Head,
        "DELETE" => Method::Delete,
        other => {
            return Err(ApiError::malformed(format!("method {other:?}: expected GET, PUT, HEAD or DELETE")));
        }
    };
    let valid = Duration::from_secs(u64::try_from(input.expired_in_sec).unwrap_or(0));
    let name = name(&input.bucket, &input.key);
    let signed_url = bound.once("sign", bound.provider.sign(&name, method, valid)).await;
    Ok(SignUrlOutput { signed_url: signed_url.map_err(|error| failed(bound, &error))? })
}
