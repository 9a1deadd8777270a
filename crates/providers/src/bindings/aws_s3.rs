//! `bindings.aws.s3`: objects in a bucket of S3, or of a server that speaks as S3 does.
//!
//! Keys that a URL cannot hold (`a/../b`) are refused: they would name another object, or another bucket. Dapr's
//! `filePath`, by which an app uploads a file of the host, is refused. How S3 is reached: `crate::s3`.

use super::{unknown_operation, unquoted};
use crate::http_client::HttpClient;
use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::s3::{Account, DEADLINE, LONGEST_SIGNATURE, MAX_ANSWER, SIGNATURE, refusal};
use crate::schedule::moment::go_duration;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::invoke::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use rusty_s3::actions::{ListObjectsV2, ListObjectsV2Response, S3Action};
use rusty_s3::{Bucket, Credentials};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.aws.s3",
    aliases: &[],
    versions: &["v1"],
    fields: &[
        "bucket",
        "region",
        "awsRegion",
        "endpoint",
        "accessKey",
        "awsAccessKey",
        "secretKey",
        "awsSecretKey",
        "sessionToken",
        "awsSessionToken",
        "forcePathStyle",
        "decodeBase64",
        "encodeBase64",
        "disableSSL",
        "insecureSSL",
        "storageClass",
        "presignTTL",
    ],
    open: Open::Binding(|component, _| Box::pin(async move { open(&component) })),
};

const OPERATIONS: &[&str] = &["create", "get", "delete", "list", "presign"];

/// Larger objects are not read whole into memory.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// What S3 lists at most, and without being asked.
const MAX_RESULTS: u16 = 1000;

/// S3's own limit.
const MAX_KEY: usize = 1024;

/// A bucket.
pub struct S3 {
    client: HttpClient,
    bucket: Bucket,
    credentials: Credentials,
    defaults: Options,
}

/// What a component sets for all requests and a request for itself.
#[derive(Clone, Debug, Default)]
struct Options {
    decode_base64: bool,
    encode_base64: bool,
    storage_class: Option<String>,
    presign_ttl: Option<String>,
}

/// Data of the operation `list`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ListRequest {
    marker: String,
    prefix: String,
    max_results: i64,
    delimiter: String,
}

fn open(component: &ComponentSpec) -> Result<Arc<dyn Binding>, OpenError> {
    let Some(name) = component.field(&["bucket"]) else {
        return Err(component.invalid(&["bucket"], "given: the name of a bucket"));
    };
    let account = Account::read(component, false)?;
    let bucket = account.bucket(name).map_err(|reason| component.backend(reason))?;
    let Account { client, credentials, .. } = account;
    let defaults = Options {
        decode_base64: component.truthy(&["decodeBase64"]),
        encode_base64: component.truthy(&["encodeBase64"]),
        storage_class: component.field(&["storageClass"]).map(str::to_owned),
        presign_ttl: component.field(&["presignTTL"]).map(str::to_owned),
    };
    Ok(Arc::new(S3 { client, bucket, credentials, defaults }))
}

/// The key that a request names.
fn key(metadata: &Metadata) -> Result<&str, BlockError> {
    let key = value(metadata, "key").unwrap_or_default();
    let reason = if key.is_empty() {
        "is missing"
    } else if key.len() > MAX_KEY {
        "has more than 1024 bytes"
    } else if key.starts_with('/') || key.split('/').any(|part| part == "." || part == "..") {
        "cannot stand in a URL: no part may be \".\" or \"..\", and none may be empty at the start"
    } else {
        return Ok(key);
    };
    Err(BlockError::invalid(format!("metadata key: {reason}")))
}

// === impl Options ===

impl Options {
    fn with(&self, metadata: &Metadata) -> Options {
        let given = |name: &str| value(metadata, name).filter(|value| !value.is_empty());
        let truthy = |name: &str, default| given(name).map_or(default, crate::metadata::is_truthy);
        let text = |name: &str, default: &Option<String>| given(name).map(str::to_owned).or(default.clone());
        Options {
            decode_base64: truthy("decodeBase64", self.decode_base64),
            encode_base64: truthy("encodeBase64", self.encode_base64),
            storage_class: text("storageClass", &self.storage_class),
            presign_ttl: text("presignTTL", &self.presign_ttl),
        }
    }
}

// === impl S3 ===

impl S3 {
    async fn create(&self, data: Bytes, metadata: &Metadata) -> Result<BindingResponse, BlockError> {
        let options = self.defaults.with(metadata);
        if value(metadata, "filePath").is_some_and(|path| !path.is_empty()) {
            return Err(BlockError::invalid("filePath: files of the host are not read; send the data"));
        }
        let key = match value(metadata, "key").is_none_or(str::is_empty) {
            true => crate::uuid::random(),
            false => key(metadata)?.to_owned(),
        };
        // Before anything is written.
        let presigned = match &options.presign_ttl {
            None => None,
            Some(ttl) => Some(self.presigned(&key, ttl)?),
        };
        let mut body = unquoted(data);
        if options.decode_base64 {
            let decoded = STANDARD.decode(&body).map_err(|_| BlockError::invalid("data: is not base64"))?;
            body = decoded.into();
        }
        let mut action = self.bucket.put_object(Some(&self.credentials), &key);
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, value: &str| {
            let value_text = value.to_owned();
            let value = HeaderValue::from_str(value)
                .map_err(|_| BlockError::invalid(format!("{name}: cannot stand in a header")))?;
            headers.insert(HeaderName::from_static(name), value);
            action.headers_mut().insert(name, value_text);
            Ok::<_, BlockError>(())
        };
        if let Some(content_type) =
            value(metadata, "Content-Type").map(str::trim).filter(|text| !text.is_empty())
        {
            add("content-type", content_type)?;
        }
        if let Some(class) = &options.storage_class {
            add("x-amz-storage-class", class)?;
        }
        if let Some(tags) = value(metadata, "tags") {
            add("x-amz-tagging", &tagging(tags)?)?;
        }
        let url = action.sign(SIGNATURE);
        let response = self.request(Method::PUT, &url, headers, body, MAX_ANSWER).await?;
        let version = response.headers().get("x-amz-version-id").and_then(|version| version.to_str().ok());
        let location = self.bucket.object_url(&key);
        let mut answer = json!({ "location": location.as_str(), "versionID": version });
        if let (Some(url), Some(answer)) = (presigned, answer.as_object_mut()) {
            answer.insert("presignURL".to_owned(), url.into());
        }
        let metadata = Metadata::from([("key".to_owned(), key)]);
        Ok(BindingResponse { data: Some(answer.to_string().into()), metadata })
    }

    async fn get(&self, metadata: &Metadata) -> Result<BindingResponse, BlockError> {
        let url = self.bucket.get_object(Some(&self.credentials), key(metadata)?).sign(SIGNATURE);
        let response = self.request(Method::GET, &url, HeaderMap::new(), Bytes::new(), MAX_BYTES).await?;
        let data = match self.defaults.with(metadata).encode_base64 {
            true => STANDARD.encode(response.body()).into(),
            false => response.into_body(),
        };
        Ok(BindingResponse { data: Some(data), metadata: Metadata::new() })
    }

    async fn delete(&self, metadata: &Metadata) -> Result<BindingResponse, BlockError> {
        let url = self.bucket.delete_object(Some(&self.credentials), key(metadata)?).sign(SIGNATURE);
        self.request(Method::DELETE, &url, HeaderMap::new(), Bytes::new(), MAX_ANSWER).await?;
        Ok(BindingResponse::default())
    }

    async fn list(&self, data: Bytes) -> Result<BindingResponse, BlockError> {
        let asked: ListRequest = if data.iter().all(u8::is_ascii_whitespace) || &data[..] == b"null" {
            ListRequest::default()
        } else {
            serde_json::from_slice(&unquoted(data))
                .map_err(|error| BlockError::invalid(format!("data: {error}")))?
        };
        let max = u16::try_from(asked.max_results).unwrap_or(MAX_RESULTS).min(MAX_RESULTS);
        let max = if max == 0 { MAX_RESULTS } else { max };
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_max_keys(max.into());
        // Keys as they are, which Dapr asks for, too: servers do not agree on how to encode them.
        action.query_mut().remove("encoding-type");
        for (text, name) in
            [(&asked.marker, "start-after"), (&asked.prefix, "prefix"), (&asked.delimiter, "delimiter")]
        {
            if !text.is_empty() {
                action.query_mut().insert(name, text.clone());
            }
        }
        let url = action.sign(SIGNATURE);
        let response = self.request(Method::GET, &url, HeaderMap::new(), Bytes::new(), MAX_ANSWER).await?;
        let unreadable = || BlockError::failed("the answer is not a list as S3 gives it");
        let text = std::str::from_utf8(response.body()).map_err(|_| unreadable())?;
        let found = ListObjectsV2::parse_response(text).map_err(|_| unreadable())?;
        let answer = listed(&found, &asked, max, self.bucket.name());
        Ok(BindingResponse { data: Some(answer.to_string().into()), metadata: Metadata::new() })
    }

    fn presign(&self, metadata: &Metadata) -> Result<BindingResponse, BlockError> {
        let ttl = self.defaults.with(metadata).presign_ttl;
        let ttl = ttl.ok_or_else(|| BlockError::invalid("metadata presignTTL: is missing, such as 15m"))?;
        let answer = json!({ "presignURL": self.presigned(key(metadata)?, &ttl)? });
        Ok(BindingResponse { data: Some(answer.to_string().into()), metadata: Metadata::new() })
    }

    fn presigned(&self, key: &str, ttl: &str) -> Result<String, BlockError> {
        let range = Duration::from_secs(1)..=LONGEST_SIGNATURE;
        let ttl = go_duration(ttl).filter(|ttl| range.contains(ttl)).ok_or_else(|| {
            BlockError::invalid("metadata presignTTL: expected a duration from 1s to 168h, such as 15m")
        })?;
        Ok(self.bucket.get_object(Some(&self.credentials), key).sign(ttl).into())
    }

    async fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        limit: u64,
    ) -> Result<Response<Bytes>, BlockError> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| BlockError::invalid("metadata key: makes no URL"))?;
        *request.headers_mut() = headers;
        let response = self.client.exchange(request, limit, DEADLINE).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response.status(), response.body()))
    }
}

/// `k=v,k2=v2` as the header wants it.
fn tagging(tags: &str) -> Result<String, BlockError> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for tag in tags.split(',') {
        match tag.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => query.append_pair(name, value),
            _ => return Err(BlockError::invalid("metadata tags: expected name=value,name=value")),
        };
    }
    Ok(query.finish())
}

/// The answer of `list`, as Dapr gives it: the fields of the AWS library for Go.
fn listed(found: &ListObjectsV2Response, asked: &ListRequest, max: u16, bucket: &str) -> Value {
    let contents: Vec<Value> = found
        .contents
        .iter()
        .map(|object| {
            json!({
                "ChecksumAlgorithm": null,
                "ETag": object.etag,
                "Key": object.key,
                "LastModified": object.last_modified,
                "Owner": object.owner.as_ref().map(|owner| {
                    json!({ "DisplayName": owner.display_name, "ID": owner.id })
                }),
                "RestoreStatus": null,
                "Size": object.size,
                "StorageClass": object.storage_class.as_deref().unwrap_or("STANDARD"),
            })
        })
        .collect();
    let prefixes: Vec<Value> =
        found.common_prefixes.iter().map(|prefix| json!({ "Prefix": prefix.prefix })).collect();
    let truncated = found.next_continuation_token.is_some();
    let last_key = found.contents.iter().map(|object| object.key.as_str());
    let last = last_key.chain(found.common_prefixes.iter().map(|prefix| prefix.prefix.as_str())).max();
    json!({
        "CommonPrefixes": prefixes,
        "Contents": contents,
        "Delimiter": asked.delimiter,
        "EncodingType": "",
        "IsTruncated": truncated,
        "Marker": asked.marker,
        "MaxKeys": max,
        "Name": bucket,
        "NextMarker": last.filter(|_| truncated),
        "Prefix": asked.prefix,
        "RequestCharged": "",
    })
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("bucket", &self.bucket.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Binding for S3 {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, data, metadata } = request;
        match operation.as_str() {
            "create" => self.create(data, &metadata).await,
            "get" => self.get(&metadata).await,
            "delete" => self.delete(&metadata).await,
            "list" => self.list(data).await,
            "presign" => self.presign(&metadata),
            _ => Err(unknown_operation(&operation, OPERATIONS)),
        }
    }

    async fn ping(&self) -> Result<(), BlockError> {
        let url = self.bucket.head_bucket(Some(&self.credentials)).sign(SIGNATURE);
        self.request(Method::HEAD, &url, HeaderMap::new(), Bytes::new(), MAX_ANSWER).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let long = "k".repeat(1025);
        for (key_text, is_good) in [
            ("a", true),
            ("a/b c/ü?&#%🐪", true),
            ("a//b", true),
            ("...", true),
            ("", false),
            ("/a", false),
            ("..", false),
            ("a/../b", false),
            ("./a", false),
            ("a/.", false),
            (&long, false),
        ] {
            let metadata = Metadata::from([("key".to_owned(), key_text.to_owned())]);
            assert_eq!(key(&metadata).is_ok(), is_good, "{key_text}");
        }
    }

    #[test]
    fn tags() {
        assert_eq!(tagging("a=b, c = d e&f").unwrap(), "a=b&c=d+e%26f");
        for text in ["", "a", "a=", "=b", "a=b,"] {
            assert!(tagging(text).is_err(), "{text}");
        }
    }
}
