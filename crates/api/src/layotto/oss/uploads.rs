//! Objects in parts.

use super::objects::headers;
use super::{failed, limit, name, owner, refuse, seconds, store, version};
use crate::dapr::error::ApiError;
use crate::grpc::service::Answer;
use crate::layotto::Layotto;
use crate::layotto::stream::{body, first};
use crate::proto::layotto::s3::*;
use dhow_blocks::blob::{self, List, Put, Range};
use dhow_blocks::events::Metadata;
use dhow_blocks::scope::Scope;
use tonic::Streaming;

/// Most parts of an upload (S3's limit).
const MAX_PARTS: usize = 10_000;

pub(super) async fn create(
    scope: &Scope,
    input: CreateMultipartUploadInput,
) -> Result<CreateMultipartUploadOutput, ApiError> {
    refuse("sse_customer_key", !input.sse_customer_key.is_empty())?;
    refuse("object_lock_mode", !input.object_lock_mode.is_empty())?;
    let bound = store(scope, &input.store_name)?;
    let put = Put {
        content_type: Some(input.content_type).filter(|text| !text.is_empty()),
        headers: headers(&[
            ("cache-control", &input.cache_control),
            ("content-disposition", &input.content_disposition),
            ("content-encoding", &input.content_encoding),
            ("content-language", &input.content_language),
            ("x-amz-acl", &input.acl),
            ("x-amz-server-side-encryption", &input.server_side_encryption),
            ("x-amz-storage-class", &input.storage_class),
        ]),
        metadata: input.meta_data,
        tags: input.tagging,
        ..Put::default()
    };
    let name = name(&input.bucket, &input.key);
    let created = bound.once("create_upload", bound.provider.create_upload(&name, put)).await;
    let upload_id = created.map_err(|error| failed(bound, &error))?;
    let (bucket, key) = (input.bucket, input.key);
    Ok(CreateMultipartUploadOutput { bucket, key, upload_id, ..CreateMultipartUploadOutput::default() })
}

/// The number of a part, 1 to [`MAX_PARTS`].
fn number(number: i32) -> Result<u16, ApiError> {
    let legal = u16::try_from(number).ok().filter(|number| (1..=MAX_PARTS).contains(&usize::from(*number)));
    legal.ok_or_else(|| ApiError::malformed(format!("part_number {number}: expected 1 to {MAX_PARTS}")))
}

pub(super) async fn put(
    service: &Layotto,
    mut requests: Streaming<UploadPartInput>,
) -> Answer<UploadPartOutput> {
    let first = first(&mut requests).await?;
    let written = async {
        refuse("sse_customer_key", !first.sse_customer_key.is_empty())?;
        let bound = store(service.scope(), &first.store_name)?;
        let (name, number) = (name(&first.bucket, &first.key), number(first.part_number)?);
        let length = u64::try_from(first.content_length).ok().filter(|length| *length > 0);
        let content = body(first.body, requests, |message: UploadPartInput| message.body);
        let part = bound.provider.put_part(&name, &first.upload_id, number, length, content);
        let etag = bound.once("put_part", part).await.map_err(|error| failed(bound, &error))?;
        Ok(UploadPartOutput { etag, ..UploadPartOutput::default() })
    };
    service.answer(written.await)
}

pub(super) async fn copy(
    scope: &Scope,
    input: UploadPartCopyInput,
) -> Result<UploadPartCopyOutput, ApiError> {
    let source = input.copy_source.unwrap_or_default();
    let bound = store(scope, &input.store_name)?;
    let (number, provider) = (number(input.part_number)?, &bound.provider);
    let wrong =
        |_| ApiError::malformed("start_position and part_size: expected numbers that are not negative");
    let start = u64::try_from(input.start_position).map_err(wrong)?;
    let size = u64::try_from(input.part_size).map_err(wrong)?;
    let range = Range { start, end: size.checked_sub(1).map(|last| start.saturating_add(last)) };
    let from = version(&source.copy_source_bucket, &source.copy_source_key, &source.copy_source_version_id);
    let to = name(&input.bucket, &input.key);
    let copied = bound.once("copy_part", async {
        let part = provider.get(&from, range).await?;
        provider.put_part(&to, &input.upload_id, number, Some(part.length), part.body).await
    });
    let etag = copied.await.map_err(|error| failed(bound, &error))?;
    let copy_part_result =
        Some(CopyPartResult { etag, last_modified: seconds(Some(std::time::SystemTime::now())) });
    Ok(UploadPartCopyOutput { copy_part_result, ..UploadPartCopyOutput::default() })
}

pub(super) async fn complete(
    scope: &Scope,
    input: CompleteMultipartUploadInput,
) -> Result<CompleteMultipartUploadOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let parts = input.multipart_upload.unwrap_or_default().parts;
    if parts.is_empty() || parts.len() > MAX_PARTS {
        return Err(ApiError::malformed(format!("multipart_upload.parts: expected 1 to {MAX_PARTS}")));
    }
    let parts = parts.into_iter().map(|CompletedPart { etag, part_number }| {
        Ok(blob::Part { number: number(part_number)?, etag, ..blob::Part::default() })
    });
    let parts = parts.collect::<Result<Vec<_>, ApiError>>()?;
    let name = name(&input.bucket, &input.key);
    let completed = bound.provider.complete_upload(&name, &input.upload_id, &parts);
    let etag = bound.once("complete_upload", completed).await.map_err(|error| failed(bound, &error))?;
    let (bucket, key) = (input.bucket, input.key);
    Ok(CompleteMultipartUploadOutput { bucket, key, etag, ..CompleteMultipartUploadOutput::default() })
}

pub(super) async fn abort(
    scope: &Scope,
    input: AbortMultipartUploadInput,
) -> Result<AbortMultipartUploadOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let name = name(&input.bucket, &input.key);
    let aborted = bound.once("abort_upload", bound.provider.abort_upload(&name, &input.upload_id)).await;
    aborted.map_err(|error| failed(bound, &error))?;
    Ok(AbortMultipartUploadOutput::default())
}

pub(super) async fn list(
    scope: &Scope,
    input: ListMultipartUploadsInput,
) -> Result<ListMultipartUploadsOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let list = &List {
        bucket: input.bucket.clone(),
        prefix: input.prefix.clone(),
        delimiter: input.delimiter.clone(),
        after: input.key_marker.clone(),
        after_id: input.upload_id_marker.clone(),
        limit: limit(input.max_uploads),
    };
    let provider = &bound.provider;
    let page = bound.call("list_uploads", (), |()| provider.list_uploads(list)).await;
    let page = page.map_err(|error| failed(bound, &error))?;
    let is_truncated = page.next.is_some();
    let (next_key_marker, next_upload_id_marker) = page.next.unwrap_or_default();
    let uploads = page.entries.into_iter().map(|upload| MultipartUpload {
        initiated: seconds(upload.initiated),
        initiator: None,
        key: upload.key,
        owner: owner(upload.owner),
        storage_class: upload.storage_class,
        upload_id: upload.id,
    });
    Ok(ListMultipartUploadsOutput {
        bucket: input.bucket,
        common_prefixes: page.prefixes,
        delimiter: input.delimiter,
        encoding_type: input.encoding_type,
        is_truncated,
        key_marker: input.key_marker,
        max_uploads: i32::try_from(list.limit).unwrap_or(i32::MAX),
        next_key_marker,
        next_upload_id_marker,
        prefix: input.prefix,
        upload_id_marker: input.upload_id_marker,
        uploads: uploads.collect(),
        metadata: Metadata::new(),
    })
}

pub(super) async fn parts(scope: &Scope, input: ListPartsInput) -> Result<ListPartsOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let after = u16::try_from(input.part_number_marker)
        .map_err(|_| ApiError::malformed("part_number_marker: expected the number of a part"))?;
    let limit = limit(input.max_parts);
    let name = name(&input.bucket, &input.key);
    let found =
        bound.once("list_parts", bound.provider.list_parts(&name, &input.upload_id, after, limit)).await;
    let (found, is_truncated) = found.map_err(|error| failed(bound, &error))?;
    let last = found.last().filter(|_| is_truncated).map(|part| part.number.to_string());
    let parts = found.into_iter().map(|part| Part {
        etag: part.etag,
        last_modified: seconds(part.modified),
        part_number: part.number.into(),
        size: i64::try_from(part.size).unwrap_or(i64::MAX),
    });
    Ok(ListPartsOutput {
        parts: parts.collect(),
        next_part_number_marker: last.unwrap_or_default(),
        max_parts: i64::try_from(limit).unwrap_or(i64::MAX),
        is_truncated,
        bucket: input.bucket,
        key: input.key,
        upload_id: input.upload_id,
        metadata: Metadata::new(),
    })
}
