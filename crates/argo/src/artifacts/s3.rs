//! Artifacts as objects of S3, over the same client as the blob block's.
//!
//! An object becomes visible when its last part is there; folders are objects under a prefix, listed page by page.

use super::config::Secrets;
use super::interest::{self, Lost};
use super::place::S3;
use super::repository::ArtifactError;
use super::store::{Fill, Store, Visit};
use super::stream::{Download, upload};
use dhow_blocks::blob::{BlobError, BlobStore, List, MAX_PAGE, Name, Put, Range};
use dhow_blocks::error::BlockError;
use dhow_providers::blob::s3::S3 as Client;
use dhow_providers::s3::{Account, AccountOptions};
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// Hosts of which every bucket has a name of its own.
const VIRTUAL_HOSTED: [&str; 3] = ["amazonaws.com", "aliyuncs.com", "googleapis.com"];

/// A bucket.
pub(super) struct Bucket {
    client: Arc<Client>,
    runtime: Handle,
    put: Put,
    /// The bucket is to be made if it is not there, and that was not done yet.
    is_missing: AtomicBool,
    /// For messages.
    name: String,
}

// === impl Bucket ===

impl Bucket {
    /// Reads who may use it from the Secrets; asks nobody yet.
    pub(super) fn open(place: &S3, secrets: &Secrets) -> Result<Bucket, ArtifactError> {
        let wrong = |what: String| ArtifactError::Unsupported(format!("bucket {:?}: {what}", place.bucket));
        if !place.role_arn.is_empty() {
            return Err(wrong(
                "roleARN is not part of this version of dhow; give it keys of the role".to_owned(),
            ));
        }
        let secret = |wanted: &Option<super::place::SecretRef>| match wanted {
            Some(wanted) if !wanted.name.is_empty() => secrets.text(wanted),
            _ => Ok(None),
        };
        let (key, secret_key) = (secret(&place.access_key_secret)?, secret(&place.secret_key_secret)?);
        let token = secret(&place.session_token_secret)?;
        let keys = match (key, secret_key) {
            (Some(key), Some(secret)) if !place.use_sdk_creds => Some((key, secret, token)),
            (None, None) => None,
            _ if place.use_sdk_creds => None,
            _ => return Err(wrong("accessKeySecret and secretKeySecret belong together".to_owned())),
        };
        let scheme = if place.insecure { "http" } else { "https" };
        let endpoint = place.endpoint.trim_end_matches('/');
        let endpoint = match endpoint {
            "" => String::new(),
            endpoint if endpoint.contains("://") => endpoint.to_owned(),
            host => format!("{scheme}://{host}"),
        };
        let path_style = match place.addressing_style.as_str() {
            "path" => true,
            "virtual-hosted" => false,
            "" => !place.endpoint.is_empty() && !VIRTUAL_HOSTED.iter().any(|host| endpoint.ends_with(host)),
            other => {
                return Err(wrong(format!("addressingStyle {other:?}: expected path or virtual-hosted")));
            }
        };
        let origin = url::Url::parse(&endpoint).map(|url| url.origin().ascii_serialization());
        let at = origin.map(|origin| format!(" at {origin}")).unwrap_or_default();
        let authorities = secret(&place.ca_secret)?.map(String::into_bytes);
        let region = place.region.clone();
        let account = Account::open(AccountOptions { endpoint, region, path_style, keys, authorities });
        let client = account.and_then(|account| Client::new(account, &place.bucket)).map_err(wrong)?;
        Ok(Bucket {
            client: Arc::new(client),
            runtime: Handle::try_current().map_err(|error| wrong(error.to_string()))?,
            put: Put { headers: encryption(place).map_err(wrong)?, ..Put::default() },
            is_missing: AtomicBool::new(place.create_bucket_if_not_present.is_some()),
            name: format!("{:?}{at}", place.bucket),
        })
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        interest::wait(&self.runtime, work)
    }

    fn failed(&self, key: &str, error: BlobError) -> ArtifactError {
        failed(&self.name, key, error)
    }
}

/// What asks the server to encrypt.
fn encryption(place: &S3) -> Result<BTreeMap<String, String>, String> {
    let mut headers = BTreeMap::new();
    let Some(options) = place.encryption_options.as_ref().filter(|options| options.enable_encryption) else {
        return Ok(headers);
    };
    if options.server_side_customer_key_secret.is_some() {
        return Err("serverSideCustomerKeySecret is not part of this version of dhow".to_owned());
    }
    const PREFIX: &str = "x-amz-server-side-encryption";
    let method = if options.kms_key_id.is_empty() { "AES256" } else { "aws:kms" };
    headers.insert(PREFIX.to_owned(), method.to_owned());
    if !options.kms_key_id.is_empty() {
        headers.insert(format!("{PREFIX}-aws-kms-key-id"), options.kms_key_id.clone());
    }
    if !options.kms_encryption_context.is_empty() {
        use base64::Engine;
        let context = base64::engine::general_purpose::STANDARD.encode(&options.kms_encryption_context);
        headers.insert(format!("{PREFIX}-context"), context);
    }
    Ok(headers)
}

fn failed(bucket: &str, key: &str, error: BlobError) -> ArtifactError {
    let what = format!("bucket {bucket}, key {key:?}: {error}");
    match error {
        BlobError::Block(BlockError::Unavailable { .. }) => ArtifactError::Unavailable(what),
        _ => ArtifactError::Refused(what),
    }
}

fn named(key: &str) -> Name {
    Name { key: key.to_owned(), ..Name::default() }
}

impl Store for Bucket {
    fn put(&self, key: &str, fill: &mut Fill<'_>) -> Result<(), ArtifactError> {
        if self.is_missing.load(Ordering::Relaxed) {
            self.wait(self.client.create_bucket())?.map_err(|error| self.failed(key, error))?;
            self.is_missing.store(false, Ordering::Relaxed);
        }
        let (client, name, put, bucket) =
            (Arc::clone(&self.client), named(key), self.put.clone(), self.name.clone());
        let send = move |body| async move {
            match client.put(&name, body, put).await {
                Ok(_) => Ok(()),
                Err(BlobError::NotFound { .. }) => Err(ArtifactError::Refused(format!(
                    "there is no bucket {bucket}; make it, or say createBucketIfNotPresent"
                ))),
                Err(error) => Err(failed(&bucket, &name.key, error)),
            }
        };
        upload(&self.runtime, send, fill)
    }

    fn get(&self, key: &str) -> Result<Option<Box<dyn Read + Send>>, ArtifactError> {
        if key.ends_with('/') {
            return Ok(None);
        }
        match self.wait(self.client.get(&named(key), Range::default()))? {
            Ok(object) => Ok(Some(Box::new(Download::new(&self.runtime, object.body)))),
            Err(BlobError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    fn list(&self, key: &str, visit: &mut Visit<'_>) -> Result<bool, ArtifactError> {
        let prefix = format!("{}/", key.trim_end_matches('/'));
        let mut list = List { prefix: prefix.clone(), limit: MAX_PAGE, ..List::default() };
        let mut is_any = false;
        loop {
            let page = match self.wait(self.client.list(&list))? {
                Ok(page) => page,
                Err(BlobError::NotFound { .. }) => return Ok(is_any),
                Err(error) => return Err(self.failed(key, error)),
            };
            for object in page.objects {
                is_any = true;
                let name = object.key.strip_prefix(&prefix).unwrap_or_default();
                // The folder itself, as some programs make it.
                if !name.is_empty() {
                    visit(name)?;
                }
            }
            let Some(next) = page.next else { return Ok(is_any) };
            list.after = next;
        }
    }
}
