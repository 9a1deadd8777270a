//! Artifacts as objects of S3, over the same client as the blob block's.
//!
//! An object becomes visible when its last part is there; folders are objects under a prefix, listed page by page.

use super::config::Secrets;
use super::interest::{self, Lost};
use super::place::{S3, SecretRef};
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
use std::time::{Duration, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::Mutex;

/// Hosts of which every bucket has a name of its own.
const VIRTUAL_HOSTED: [&str; 3] = ["amazonaws.com", "aliyuncs.com", "googleapis.com"];

/// Keys of a role that are good for less are not used any more.
const SPARE: Duration = Duration::from_secs(300);

/// A bucket.
pub(super) struct Bucket {
    user: Arc<User>,
    runtime: Handle,
    put: Put,
    /// The bucket is to be made if it is not there, and that was not done yet.
    is_missing: AtomicBool,
    /// For messages.
    name: String,
}

/// Who uses a bucket.
struct User {
    account: AccountOptions,
    bucket: String,
    customer_key: Option<[u8; 32]>,
    /// Whose keys are asked for with those of the environment, if it is no user with keys.
    role_arn: Option<String>,
    /// And until when it is good.
    client: Mutex<Option<(Arc<Client>, SystemTime)>>,
}

// === impl Bucket ===

impl Bucket {
    /// Reads who may use it from the Secrets; asks nobody yet.
    pub(super) fn open(place: &S3, secrets: &Secrets) -> Result<Bucket, ArtifactError> {
        let wrong = |what: String| ArtifactError::Unsupported(format!("bucket {:?}: {what}", place.bucket));
        let secret = |wanted: &Option<SecretRef>| match wanted {
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
        // As in Argo: keys of its own are used as they are.
        let role_arn = (keys.is_none() && !place.role_arn.is_empty()).then(|| place.role_arn.clone());
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
        let customer_key = customer_key(place, secrets)?;
        let region = place.region.clone();
        let account = AccountOptions { endpoint, region, path_style, keys, authorities };
        let (bucket, client) = (place.bucket.clone(), Mutex::default());
        let user = User { account, bucket, customer_key, role_arn, client };
        // What is wrong with it is said now.
        user.open(user.account.clone()).map_err(wrong)?;
        Ok(Bucket {
            user: Arc::new(user),
            runtime: Handle::try_current().map_err(|error| wrong(error.to_string()))?,
            put: Put { headers: encryption(place).map_err(wrong)?, ..Put::default() },
            is_missing: AtomicBool::new(place.create_bucket_if_not_present.is_some()),
            name: format!("{:?}{at}", place.bucket),
        })
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        interest::wait(&self.runtime, work)
    }

    fn client(&self, key: &str) -> Result<Arc<Client>, ArtifactError> {
        self.wait(self.user.client())?.map_err(|error| self.failed(key, error))
    }

    fn failed(&self, key: &str, error: BlobError) -> ArtifactError {
        failed(&self.name, key, error)
    }
}

// === impl User ===

impl User {
    fn open(&self, account: AccountOptions) -> Result<Client, String> {
        let client = Client::new(Account::open(account)?, &self.bucket)?;
        Ok(match &self.customer_key {
            Some(key) => client.with_customer_key(key),
            None => client,
        })
    }

    /// The client, with keys that are good for a while yet.
    async fn client(&self) -> Result<Arc<Client>, BlobError> {
        let mut current = self.client.lock().await;
        let soon = SystemTime::now() + SPARE;
        if let Some((client, until)) = &*current
            && (self.role_arn.is_none() || *until > soon)
        {
            return Ok(Arc::clone(client));
        }
        let mut account = self.account.clone();
        let mut until = soon;
        if let Some(role_arn) = &self.role_arn {
            let base = Account::open(account.clone()).map_err(BlockError::failed)?;
            let assumed = base.assume(role_arn).await?;
            (account.keys, until) = (Some(assumed.keys), assumed.until);
        }
        let client = Arc::new(self.open(account).map_err(BlockError::failed)?);
        *current = Some((Arc::clone(&client), until));
        Ok(client)
    }
}

/// The key that the server is to encrypt with, which it does not keep.
fn customer_key(place: &S3, secrets: &Secrets) -> Result<Option<[u8; 32]>, ArtifactError> {
    let options = place.encryption_options.as_ref().filter(|options| options.enable_encryption);
    let Some(wanted) = options.and_then(|options| options.server_side_customer_key_secret.as_ref()) else {
        return Ok(None);
    };
    let Some(mut key) = secrets.bytes(wanted)? else { return Ok(None) };
    // Files end with a line's end more often than keys do.
    if key.len() == 33 && key.ends_with(b"\n") {
        key.pop();
    }
    let length = key.len();
    key.try_into().map(Some).map_err(|_| {
        ArtifactError::Unsupported(format!(
            "bucket {:?}: serverSideCustomerKeySecret: expected a key of 32 bytes, found {length}",
            place.bucket
        ))
    })
}

/// What asks the server to encrypt with keys of its own.
fn encryption(place: &S3) -> Result<BTreeMap<String, String>, String> {
    let mut headers = BTreeMap::new();
    let Some(options) = place.encryption_options.as_ref().filter(|options| options.enable_encryption) else {
        return Ok(headers);
    };
    if options.server_side_customer_key_secret.is_some() {
        return match options.kms_key_id.as_str() {
            "" => Ok(headers),
            _ => {
                Err("encryptionOptions: kmsKeyId and serverSideCustomerKeySecret exclude each other"
                    .to_owned())
            }
        };
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
            let client = self.client(key)?;
            self.wait(client.create_bucket())?.map_err(|error| self.failed(key, error))?;
            self.is_missing.store(false, Ordering::Relaxed);
        }
        let (client, name, put, bucket) =
            (self.client(key)?, named(key), self.put.clone(), self.name.clone());
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
        let client = self.client(key)?;
        match self.wait(client.get(&named(key), Range::default()))? {
            Ok(object) => Ok(Some(Box::new(Download::new(&self.runtime, object.body)))),
            Err(BlobError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    fn list(&self, key: &str, visit: &mut Visit<'_>) -> Result<bool, ArtifactError> {
        let prefix = format!("{}/", key.trim_end_matches('/'));
        let mut list = List { prefix: prefix.clone(), limit: MAX_PAGE, ..List::default() };
        let client = self.client(key)?;
        let mut is_any = false;
        loop {
            let page = match self.wait(client.list(&list))? {
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
