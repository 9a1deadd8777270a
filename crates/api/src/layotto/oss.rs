//! `spec.proto.extension.v1.s3.ObjectStorageService`, each method one line or two.
//!
//! | file | subject |
//! |---|---|
//! | `objects` | objects as a whole |
//! | `aside` | tags, access lists and versions of objects; what is appended and restored |
//! | `uploads` | objects in parts |
//!
//! What a provider cannot do answers "unimplemented" with its name and the component's.

mod aside;
mod objects;
mod uploads;

use super::Layotto;
use super::stream;
use crate::dapr::error::{ApiError, Grpc};
use crate::grpc::service::{Answer, Messages};
use crate::proto::layotto::s3::object_storage_service_server::ObjectStorageService;
use crate::proto::layotto::s3::*;
use dhow_blocks::blob::{self, BlobError, BlobStore, MAX_PAGE, Name};
use dhow_blocks::error::BlockError;
use dhow_blocks::scope::{Bound, ComponentInfo, Scope};
use http::StatusCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::{Request, Streaming};

/// The store of a request.
fn store<'a>(scope: &'a Scope, name: &str) -> Result<&'a Bound<dyn BlobStore>, ApiError> {
    scope.blobs(name).map_err(|error| ApiError::scope(&error))
}

fn name(bucket: &str, key: &str) -> Name {
    Name { bucket: bucket.to_owned(), key: key.to_owned(), ..Name::default() }
}

/// One version of an object, or with an empty id the current one.
fn version(bucket: &str, key: &str, version_id: &str) -> Name {
    Name { version: version_id.to_owned(), ..name(bucket, key) }
}

/// A time in the messages: seconds of Unix time.
fn seconds(time: Option<SystemTime>) -> i64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// How much of a list is wanted at once: as much as there may be, unless the request says less.
fn limit(most: i64) -> usize {
    usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(MAX_PAGE).min(MAX_PAGE)
}

/// Whose something is, where the store tells.
fn owner(owner: blob::Owner) -> Option<Owner> {
    let blob::Owner { id, name } = owner;
    (!id.is_empty() || !name.is_empty()).then_some(Owner { id, display_name: name })
}

/// What the error of a component is called; one that cannot do it is named.
fn failed(bound: &Bound<dyn BlobStore>, error: &BlobError) -> ApiError {
    match error {
        BlobError::Block(BlockError::NotSupported { feature }) => absent(&bound.component, feature),
        error => stream::failed(error),
    }
}

fn absent(component: &ComponentInfo, feature: &str) -> ApiError {
    let ComponentInfo { name, component_type, .. } = component;
    let message = format!("component {name:?} of type {component_type} does not support {feature}");
    ApiError::new(StatusCode::NOT_IMPLEMENTED, Grpc::Unimplemented, "ERR_BLOB_NOT_SUPPORTED", message)
}

/// No provider here sits on the network's cards.
fn no_limit(scope: &Scope, input: &UpdateBandwidthRateLimitInput) -> Result<(), ApiError> {
    Err(absent(&store(scope, &input.store_name)?.component, "limits of bandwidth"))
}

/// A field that would change what a request means, and that no provider here knows.
fn refuse(field: &str, is_given: bool) -> Result<(), ApiError> {
    if !is_given {
        return Ok(());
    }
    let status = StatusCode::NOT_IMPLEMENTED;
    let message = format!("{field} is not supported by any provider of this version");
    Err(ApiError::new(status, Grpc::Unimplemented, "ERR_BLOB_NOT_SUPPORTED", message))
}

#[tonic::async_trait]
impl ObjectStorageService for Layotto {
    async fn put_object(&self, request: Request<Streaming<PutObjectInput>>) -> Answer<PutObjectOutput> {
        objects::put(self, request.into_inner()).await
    }

    async fn get_object(&self, request: Request<GetObjectInput>) -> Answer<Messages<GetObjectOutput>> {
        let found = objects::get(self.scope(), request.into_inner()).await;
        self.answer(found)
    }

    async fn delete_object(&self, request: Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        self.answer(objects::delete(self.scope(), request.into_inner()).await)
    }

    async fn copy_object(&self, request: Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        self.answer(objects::copy(self.scope(), request.into_inner()).await)
    }

    async fn delete_objects(&self, request: Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        self.answer(objects::delete_many(self.scope(), request.into_inner()).await)
    }

    async fn list_objects(&self, request: Request<ListObjectsInput>) -> Answer<ListObjectsOutput> {
        self.answer(objects::list(self.scope(), request.into_inner()).await)
    }

    async fn head_object(&self, request: Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.answer(objects::head(self.scope(), request.into_inner()).await)
    }

    async fn is_object_exist(&self, request: Request<IsObjectExistInput>) -> Answer<IsObjectExistOutput> {
        self.answer(objects::exists(self.scope(), request.into_inner()).await)
    }

    async fn sign_url(&self, request: Request<SignUrlInput>) -> Answer<SignUrlOutput> {
        self.answer(objects::sign(self.scope(), request.into_inner()).await)
    }

    async fn create_multipart_upload(
        &self,
        request: Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.answer(uploads::create(self.scope(), request.into_inner()).await)
    }

    async fn upload_part(&self, request: Request<Streaming<UploadPartInput>>) -> Answer<UploadPartOutput> {
        uploads::put(self, request.into_inner()).await
    }

    async fn upload_part_copy(&self, request: Request<UploadPartCopyInput>) -> Answer<UploadPartCopyOutput> {
        self.answer(uploads::copy(self.scope(), request.into_inner()).await)
    }

    async fn complete_multipart_upload(
        &self,
        request: Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        self.answer(uploads::complete(self.scope(), request.into_inner()).await)
    }

    async fn abort_multipart_upload(
        &self,
        request: Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        self.answer(uploads::abort(self.scope(), request.into_inner()).await)
    }

    async fn list_multipart_uploads(
        &self,
        request: Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        self.answer(uploads::list(self.scope(), request.into_inner()).await)
    }

    async fn list_parts(&self, request: Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.answer(uploads::parts(self.scope(), request.into_inner()).await)
    }

    async fn append_object(
        &self,
        request: Request<Streaming<AppendObjectInput>>,
    ) -> Answer<AppendObjectOutput> {
        aside::append(self, request.into_inner()).await
    }

    async fn put_object_tagging(
        &self,
        request: Request<PutObjectTaggingInput>,
    ) -> Answer<PutObjectTaggingOutput> {
        self.answer(aside::set_tags(self.scope(), request.into_inner()).await)
    }

    async fn delete_object_tagging(
        &self,
        request: Request<DeleteObjectTaggingInput>,
    ) -> Answer<DeleteObjectTaggingOutput> {
        self.answer(aside::delete_tags(self.scope(), request.into_inner()).await)
    }

    async fn get_object_tagging(
        &self,
        request: Request<GetObjectTaggingInput>,
    ) -> Answer<GetObjectTaggingOutput> {
        self.answer(aside::tags(self.scope(), request.into_inner()).await)
    }

    async fn get_object_canned_acl(
        &self,
        request: Request<GetObjectCannedAclInput>,
    ) -> Answer<GetObjectCannedAclOutput> {
        self.answer(aside::access(self.scope(), request.into_inner()).await)
    }

    async fn put_object_canned_acl(
        &self,
        request: Request<PutObjectCannedAclInput>,
    ) -> Answer<PutObjectCannedAclOutput> {
        self.answer(aside::set_access(self.scope(), request.into_inner()).await)
    }

    async fn list_object_versions(
        &self,
        request: Request<ListObjectVersionsInput>,
    ) -> Answer<ListObjectVersionsOutput> {
        self.answer(aside::versions(self.scope(), request.into_inner()).await)
    }

    async fn update_download_bandwidth_rate_limit(
        &self,
        request: Request<UpdateBandwidthRateLimitInput>,
    ) -> Answer<()> {
        self.answer(no_limit(self.scope(), &request.into_inner()))
    }

    async fn update_upload_bandwidth_rate_limit(
        &self,
        request: Request<UpdateBandwidthRateLimitInput>,
    ) -> Answer<()> {
        self.answer(no_limit(self.scope(), &request.into_inner()))
    }

    async fn restore_object(&self, request: Request<RestoreObjectInput>) -> Answer<RestoreObjectOutput> {
        self.answer(aside::restore(self.scope(), request.into_inner()).await)
    }
}
