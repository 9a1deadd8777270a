//! What is kept beside the contents of objects: tags, access lists, versions; and objects that grow or come back from an
//! archive.

use super::objects::headers;
use super::{failed, limit, name, owner, refuse, seconds, store, version};
use crate::dapr::error::ApiError;
use crate::grpc::service::Answer;
use crate::layotto::Layotto;
use crate::layotto::file::size;
use crate::layotto::stream::{body, first};
use crate::proto::layotto::s3::*;
use dhow_blocks::blob::{List, Name, Put, Restore};
use dhow_blocks::events::Metadata;
use dhow_blocks::scope::Scope;
use tonic::Streaming;

pub(super) async fn tags(
    scope: &Scope,
    input: GetObjectTaggingInput,
) -> Result<GetObjectTaggingOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let (provider, name) = (&bound.provider, &version(&input.bucket, &input.key, &input.version_id));
    let tags = bound.call("tags", (), |()| provider.tags(name)).await;
    let tags = tags.map_err(|error| failed(bound, &error))?;
    Ok(GetObjectTaggingOutput { tags, version_id: input.version_id, result_metadata: Metadata::new() })
}

pub(super) async fn set_tags(
    scope: &Scope,
    input: PutObjectTaggingInput,
) -> Result<PutObjectTaggingOutput, ApiError> {
    let PutObjectTaggingInput { store_name, bucket, key, tags, version_id } = input;
    tag(scope, &store_name, &version(&bucket, &key, &version_id), &tags).await?;
    Ok(PutObjectTaggingOutput { version_id, result_metadata: Metadata::new() })
}

pub(super) async fn delete_tags(
    scope: &Scope,
    input: DeleteObjectTaggingInput,
) -> Result<DeleteObjectTaggingOutput, ApiError> {
    let DeleteObjectTaggingInput { store_name, bucket, key, version_id, .. } = input;
    tag(scope, &store_name, &version(&bucket, &key, &version_id), &Metadata::new()).await?;
    Ok(DeleteObjectTaggingOutput { version_id, result_metadata: Metadata::new() })
}

async fn tag(scope: &Scope, store_name: &str, name: &Name, tags: &Metadata) -> Result<(), ApiError> {
    let bound = store(scope, store_name)?;
    let provider = &bound.provider;
    let tagged = bound.call("set_tags", (), |()| provider.set_tags(name, tags)).await;
    tagged.map_err(|error| failed(bound, &error))
}

pub(super) async fn access(
    scope: &Scope,
    input: GetObjectCannedAclInput,
) -> Result<GetObjectCannedAclOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let (provider, name) = (&bound.provider, &version(&input.bucket, &input.key, &input.version_id));
    let access = bound.call("access", (), |()| provider.access(name)).await;
    let access = access.map_err(|error| failed(bound, &error))?;
    Ok(GetObjectCannedAclOutput {
        canned_acl: access.canned,
        owner: owner(access.owner),
        ..GetObjectCannedAclOutput::default()
    })
}

pub(super) async fn set_access(
    scope: &Scope,
    input: PutObjectCannedAclInput,
) -> Result<PutObjectCannedAclOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let (provider, name) = (&bound.provider, &version(&input.bucket, &input.key, &input.version_id));
    let set = bound.call("set_access", (), |()| provider.set_access(name, &input.acl)).await;
    set.map_err(|error| failed(bound, &error))?;
    Ok(PutObjectCannedAclOutput::default())
}

pub(super) async fn versions(
    scope: &Scope,
    input: ListObjectVersionsInput,
) -> Result<ListObjectVersionsOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let list = &List {
        bucket: input.bucket.clone(),
        prefix: input.prefix.clone(),
        delimiter: input.delimiter.clone(),
        after: input.key_marker.clone(),
        after_id: input.version_id_marker.clone(),
        limit: limit(input.max_keys),
    };
    let provider = &bound.provider;
    let page = bound.call("list_versions", (), |()| provider.list_versions(list)).await;
    let page = page.map_err(|error| failed(bound, &error))?;
    let (mut versions, mut delete_markers) = (Vec::new(), Vec::new());
    for found in page.entries {
        let (size, info) = (size(&found.info), found.info);
        let (owner, last_modified) = (owner(found.owner), seconds(info.modified));
        if found.is_deletion {
            delete_markers.push(DeleteMarkerEntry {
                is_latest: found.is_latest,
                key: info.key,
                last_modified,
                owner,
                version_id: found.id,
            });
        } else {
            versions.push(ObjectVersion {
                etag: info.etag,
                is_latest: found.is_latest,
                key: info.key,
                last_modified,
                owner,
                size,
                storage_class: info.storage_class,
                version_id: found.id,
            });
        }
    }
    let is_truncated = page.next.is_some();
    let (next_key_marker, next_version_id_marker) = page.next.unwrap_or_default();
    Ok(ListObjectVersionsOutput {
        common_prefixes: page.prefixes,
        delete_markers,
        delimiter: input.delimiter,
        encoding_type: input.encoding_type,
        is_truncated,
        key_marker: input.key_marker,
        max_keys: i64::try_from(list.limit).unwrap_or(i64::MAX),
        name: input.bucket,
        next_key_marker,
        next_version_id_marker,
        prefix: input.prefix,
        version_id_marker: input.version_id_marker,
        versions,
        metadata: Metadata::new(),
    })
}

pub(super) async fn append(
    service: &Layotto,
    mut requests: Streaming<AppendObjectInput>,
) -> Answer<AppendObjectOutput> {
    let first = first(&mut requests).await?;
    let appended = async {
        let position = u64::try_from(first.position)
            .map_err(|_| ApiError::malformed(format!("position: {} is negative", first.position)))?;
        refuse("meta", !first.meta.is_empty())?;
        let put = Put {
            headers: headers(&[
                ("cache-control", &first.cache_control),
                ("content-disposition", &first.content_disposition),
                ("content-encoding", &first.content_encoding),
                ("x-amz-acl", &first.acl),
                ("x-amz-server-side-encryption", &first.server_side_encryption),
                ("x-amz-storage-class", &first.storage_class),
            ]),
            tags: first.tags,
            ..Put::default()
        };
        let bound = store(service.scope(), &first.store_name)?;
        let name = name(&first.bucket, &first.key);
        let content = body(first.body, requests, |message: AppendObjectInput| message.body);
        let end = bound.once("append", bound.provider.append(&name, Some(position), content, put)).await;
        let end = end.map_err(|error| failed(bound, &error))?;
        let append_position = i64::try_from(end).unwrap_or(i64::MAX);
        Ok(AppendObjectOutput { append_position, metadata: Metadata::new() })
    };
    service.answer(appended.await)
}

pub(super) async fn restore(
    scope: &Scope,
    input: RestoreObjectInput,
) -> Result<RestoreObjectOutput, ApiError> {
    let bound = store(scope, &input.store_name)?;
    let request = input.restore_request.unwrap_or_default();
    // Queries over an archive, which is another thing under the same name.
    refuse("restore_request.select_parameters", request.select_parameters.is_some())?;
    refuse("restore_request.output_location", request.output_location.is_some())?;
    refuse("restore_request.type", !request.r#type.is_empty())?;
    let days = u32::try_from(request.days).ok().filter(|days| *days > 0);
    let days = days.ok_or_else(|| ApiError::malformed("restore_request.days: expected a number of days"))?;
    let tier = request.glacier_job_parameters.map(|parameters| parameters.tier).unwrap_or(request.tier);
    let (restore, provider) = (&Restore { days, tier }, &bound.provider);
    let name = &version(&input.bucket, &input.key, &input.version_id);
    let restored = bound.call("restore", (), |()| provider.restore(name, restore)).await;
    let restore_output_path = restored.map_err(|error| failed(bound, &error))?;
    Ok(RestoreObjectOutput { restore_output_path, ..RestoreObjectOutput::default() })
}
