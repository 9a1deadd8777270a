//! `spec.proto.extension.v1.s3.ObjectStorageService`, each method one line or two.
//!
//! | file | subject |
//! |---|---|
//! | `objects` | objects as a whole |
//! | `uploads` | objects in parts |
//!
//! What no provider here can do answers "unimplemented" with the name of the method.

mod objects;
mod uploads;

use super::Layotto;
use super::stream::failed;
use crate::dapr::error::{ApiError, Grpc};
use crate::grpc::service::{Answer, Messages};
use crate::proto::layotto::s3::object_storage_service_server::ObjectStorageService;
use crate::proto::layotto::s3::*;
use dhow_blocks::blob::{BlobStore, Name};
use dhow_blocks::scope::{Bound, Scope};
use http::StatusCode;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::{Request, Streaming};

/// The store of a request.
fn store<'a>(scope: &'a Scope, name: &str) -> Result<&'a Bound<dyn BlobStore>, ApiError> {
    scope.blobs(name).map_err(|error| ApiError::scope(&error))
}

fn name(bucket: &str, key: &str) -> Name {
    Name { bucket: bucket.to_owned(), key: key.to_owned() }
}

/// A time in the messages: seconds of Unix time.
fn seconds(time: Option<SystemTime>) -> i64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A method that no provider has.
fn absent(scope: &Scope, store: &str, method: &str) -> ApiError {
    let component = match self::store(scope, store) {
        Ok(bound) => &bound.component,
        Err(error) => return error,
    };
    let message =
        format!("component {store:?} of type {} does not support {method}", component.component_type);
    let status = StatusCode::NOT_IMPLEMENTED;
    ApiError::new(status, Grpc::Unimplemented, "ERR_BLOB_NOT_SUPPORTED", message)
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

/// Methods that only say that they are not there.
macro_rules! absent {
    ($($method:ident: $request:ident => $response:ty as $word:literal,)+) => {
        /// Answers of methods that no provider has.
        impl Layotto {
            $(fn $method(&self, request: Request<$request>) -> Answer<$response> {
                self.answer(Err(absent(self.scope(), &request.into_inner().store_name, $word)))
            })+
        }
    };
}

absent! {
    no_tags: PutObjectTaggingInput => PutObjectTaggingOutput as "PutObjectTagging",
    no_tags_to_delete: DeleteObjectTaggingInput => DeleteObjectTaggingOutput as "DeleteObjectTagging",
    no_tags_to_get: GetObjectTaggingInput => GetObjectTaggingOutput as "GetObjectTagging",
    no_acl_to_get: GetObjectCannedAclInput => GetObjectCannedAclOutput as "GetObjectCannedAcl",
    no_acl: PutObjectCannedAclInput => PutObjectCannedAclOutput as "PutObjectCannedAcl",
    no_versions: ListObjectVersionsInput => ListObjectVersionsOutput as "ListObjectVersions",
    no_download_limit: UpdateBandwidthRateLimitInput => () as "UpdateDownloadBandwidthRateLimit",
    no_upload_limit: UpdateBandwidthRateLimitInput => () as "UpdateUploadBandwidthRateLimit",
    no_restore: RestoreObjectInput => RestoreObjectOutput as "RestoreObject",
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
        let first = super::stream::first(&mut request.into_inner()).await?;
        self.answer(Err(absent(self.scope(), &first.store_name, "AppendObject")))
    }

    async fn put_object_tagging(
        &self,
        request: Request<PutObjectTaggingInput>,
    ) -> Answer<PutObjectTaggingOutput> {
        self.no_tags(request)
    }

    async fn delete_object_tagging(
        &self,
        request: Request<DeleteObjectTaggingInput>,
    ) -> Answer<DeleteObjectTaggingOutput> {
        self.no_tags_to_delete(request)
    }

    async fn get_object_tagging(
        &self,
        request: Request<GetObjectTaggingInput>,
    ) -> Answer<GetObjectTaggingOutput> {
        self.no_tags_to_get(request)
    }

    async fn get_object_canned_acl(
        &self,
        request: Request<GetObjectCannedAclInput>,
    ) -> Answer<GetObjectCannedAclOutput> {
        self.no_acl_to_get(request)
    }

    async fn put_object_canned_acl(
        &self,
        request: Request<PutObjectCannedAclInput>,
    ) -> Answer<PutObjectCannedAclOutput> {
        self.no_acl(request)
    }

    async fn list_object_versions(
        &self,
        request: Request<ListObjectVersionsInput>,
    ) -> Answer<ListObjectVersionsOutput> {
        self.no_versions(request)
    }

    async fn update_download_bandwidth_rate_limit(
        &self,
        request: Request<UpdateBandwidthRateLimitInput>,
    ) -> Answer<()> {
        self.no_download_limit(request)
    }

    async fn update_upload_bandwidth_rate_limit(
        &self,
        request: Request<UpdateBandwidthRateLimitInput>,
    ) -> Answer<()> {
        self.no_upload_limit(request)
    }

    async fn restore_object(&self, request: Request<RestoreObjectInput>) -> Answer<RestoreObjectOutput> {
        self.no_restore(request)
    }
}
