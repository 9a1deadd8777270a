//! Files: streamed both ways, listed, deleted, looked at.

use super::Layotto;
use super::stream::{body, failed, first, pieces};
use crate::dapr::error::{ApiError, Grpc};
use crate::grpc::service::{Answer, Messages};
use crate::proto::layotto::runtime::{
    DelFileRequest, FileInfo, FileMeta, FileMetaValue, FileRequest, GetFileMetaRequest, GetFileMetaResponse,
    GetFileRequest, GetFileResponse, ListFileRequest, ListFileResp, PutFileRequest,
};
use dhow_blocks::blob::{BlobError, BlobStore, Info, List, MAX_PAGE, Name, Put, Range};
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::scope::{Bound, Scope, ScopeError};
use futures::StreamExt as _;
use humantime::format_rfc3339_millis;
use tonic::{Response, Streaming};

/// Flags of open(2) in `FileFlag`, as Linux numbers them.
const CREATE: u64 = 0o100;
const EXCLUSIVE: u64 = 0o200;
const APPEND: u64 = 0o2000;

/// To Layotto a store that is not there is a wrong name, also where there is none at all.
fn store<'a>(scope: &'a Scope, name: &str) -> Result<&'a Bound<dyn BlobStore>, ApiError> {
    scope.blobs(name).map_err(|error| match error {
        ScopeError::NotConfigured { .. } => {
            ApiError { grpc: Grpc::InvalidArgument, ..ApiError::scope(&error) }
        }
        error => ApiError::scope(&error),
    })
}

fn name(key: &str) -> Name {
    Name { key: key.to_owned(), ..Name::default() }
}

fn parts(request: Option<FileRequest>) -> Result<FileRequest, ApiError> {
    request.ok_or_else(|| ApiError::malformed("request is missing"))
}

pub(super) async fn get(service: &Layotto, request: GetFileRequest) -> Answer<Messages<GetFileResponse>> {
    let GetFileRequest { store_name, name: key, .. } = request;
    let found = async {
        let bound = store(service.scope(), &store_name)?;
        let (provider, name) = (&bound.provider, &name(&key));
        let found = bound.call("get", (), |()| provider.get(name, Range::default())).await;
        found.map_err(|error| failed(&error))
    };
    let object = found.await.map_err(|error| service.status(&error))?;
    let messages = pieces(object.body).map(|piece| piece.map(|data| GetFileResponse { data }));
    Ok(Response::new(messages.boxed()))
}

pub(super) async fn put(service: &Layotto, mut requests: Streaming<PutFileRequest>) -> Answer<()> {
    let PutFileRequest { store_name, name: key, data, metadata } = first(&mut requests).await?;
    let written = async {
        let bound = store(service.scope(), &store_name)?;
        let (put, is_more) = described(&metadata)?;
        let content = body(data, requests, |message: PutFileRequest| message.data);
        let (provider, name) = (&bound.provider, &name(&key));
        // Not under the policy's retries: a content comes once.
        let written = match is_more {
            true => bound.once("append", provider.append(name, None, content, put)).await.map(drop),
            false => bound.once("put", provider.put(name, content, put)).await.map(drop),
        };
        written.map_err(|error| failed(&error))
    };
    service.answer(written.await)
}

/// What Layotto's stores are told in metadata, and whether the content goes behind what is there. The mode of a file is
/// this store's own affair.
fn described(metadata: &Metadata) -> Result<(Put, bool), ApiError> {
    let (mut put, mut is_more) = (Put::default(), false);
    if let Some(flags) = value(metadata, "FileFlag") {
        let flags: u64 = flags
            .parse()
            .map_err(|_| ApiError::malformed("metadata FileFlag: expected a decimal number of open(2)"))?;
        put.only_new = flags & CREATE != 0 && flags & EXCLUSIVE != 0;
        is_more = flags & APPEND != 0 && !put.only_new;
    }
    put.length = value(metadata, "Content-Length").and_then(|length| length.parse().ok());
    put.content_type = value(metadata, "Content-Type").map(str::to_owned);
    Ok((put, is_more))
}

pub(super) async fn list(scope: &Scope, request: ListFileRequest) -> Result<ListFileResp, ApiError> {
    let ListFileRequest { request, page_size, marker } = request;
    let FileRequest { store_name, name: prefix, metadata } = parts(request)?;
    let bound = store(scope, &store_name)?;
    let limit = usize::try_from(page_size).ok().filter(|size| *size > 0).unwrap_or(MAX_PAGE).min(MAX_PAGE);
    // As a folder's name or, where metadata say so, as the beginning of names.
    let prefix = value(&metadata, "prefix").map_or(prefix, str::to_owned);
    let prefix = prefix.trim_start_matches('/').to_owned();
    let list = &List { prefix, after: marker, limit, ..List::default() };
    let provider = &bound.provider;
    let page = bound.call("list", (), |()| provider.list(list)).await.map_err(|error| failed(&error))?;
    let files = page.objects.into_iter().map(|info| FileInfo {
        size: size(&info),
        last_modified: modified(&info),
        file_name: info.key,
        metadata: info.metadata,
    });
    let is_truncated = page.next.is_some();
    Ok(ListFileResp { files: files.collect(), marker: page.next.unwrap_or_default(), is_truncated })
}

pub(super) async fn delete(scope: &Scope, request: DelFileRequest) -> Result<(), ApiError> {
    let FileRequest { store_name, name: key, .. } = parts(request.request)?;
    let bound = store(scope, &store_name)?;
    let (provider, name) = (&bound.provider, &name(&key));
    // In Layotto deleting what is not there is an error, unlike everywhere else.
    let deleted = async {
        bound.call("head", (), |()| provider.head(name)).await?;
        bound.call("delete", (), |()| provider.delete(name)).await
    };
    deleted.await.map_err(|error: BlobError| failed(&error))
}

pub(super) async fn meta(
    scope: &Scope,
    request: GetFileMetaRequest,
) -> Result<GetFileMetaResponse, ApiError> {
    let FileRequest { store_name, name: key, .. } = parts(request.request)?;
    let bound = store(scope, &store_name)?;
    let (provider, name) = (&bound.provider, &name(&key));
    let info = bound.call("head", (), |()| provider.head(name)).await.map_err(|error| failed(&error))?;
    let named = [("ETag", &info.etag), ("Content-Type", &info.content_type)];
    let named = named.into_iter().filter(|(_, value)| !value.is_empty());
    let own = info.metadata.iter().map(|(name, value)| (name.as_str(), value));
    let values = named.chain(own).map(|(name, value)| {
        let value = FileMetaValue { value: vec![value.clone()] };
        (name.to_owned(), value)
    });
    Ok(GetFileMetaResponse {
        size: size(&info),
        last_modified: modified(&info),
        response: Some(FileMeta { metadata: values.collect() }),
    })
}

pub(super) fn size(info: &Info) -> i64 {
    i64::try_from(info.size).unwrap_or(i64::MAX)
}

fn modified(info: &Info) -> String {
    info.modified.map(|time| format_rfc3339_millis(time).to_string()).unwrap_or_default()
}
