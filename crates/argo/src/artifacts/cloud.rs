//! Artifacts as objects of Google Cloud Storage and as blobs of Azure.
//!
//! Both through one client, `object_store`, which knows their requests and credentials, and has neither sockets nor
//! cryptography of its own here: what it sends goes through [`connector`], over the HTTP client of all providers, and what
//! it signs through [`crypto`]. A content of more than a part is an upload in parts, which becomes visible when it is
//! completed; folders are objects under a prefix.
//!
//! Whose credentials: the Secret that the location names, else the machine's, as Google's and Microsoft's own clients
//! look for them: variables of the environment, the file that they name, the metadata server.

mod connector;
mod crypto;

use super::config::Secrets;
use super::interest::{self, Lost};
use super::place::{Azure, Gcs, SecretRef};
use super::repository::ArtifactError;
use super::store::{Fill, Store, Visit};
use super::stream::{Download, upload};
use connector::Connector;
use crypto::Ring;
use dhow_blocks::invoke::Body;
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    Attribute, BackoffConfig, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig,
};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Of a content that is longer: Google takes 10,000 parts, so 78 GiB at most; Azure takes 50,000.
const PART: usize = 8 << 20;

/// Of one request; whoever stores or loads an artifact repeats the whole of it as well.
const RETRIES: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
    },
    max_retries: 2,
    retry_timeout: Duration::from_secs(30),
};

/// What a folder of a hierarchical Azure account says of itself where it is asked for as a blob.
const IS_FOLDER: &str = "hdi_isfolder";

/// Azure's variables of whoever uses a machine, and what they are here; those of storage accounts are not among them.
const AZURE_IDENTITY: [(&str, AzureConfigKey); 6] = [
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
    ("IDENTITY_ENDPOINT", AzureConfigKey::MsiEndpoint),
];

/// A bucket of Google's or a container of Azure's.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    /// For messages.
    name: String,
}

/// Opens a bucket of Google's; asks nobody yet.
pub(super) fn gcs(place: &Gcs, secrets: &Secrets) -> Result<Objects, ArtifactError> {
    let name = format!("gcs bucket {:?}", place.bucket);
    // Google's own clients ask the server that this variable names; credentials it may do without.
    let emulator = variable("STORAGE_EMULATOR_HOST")
        .map(|host| if host.contains("://") { host } else { format!("http://{host}") });
    let is_plain = emulator.as_ref().is_some_and(|url| url.starts_with("http://"));
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&place.bucket)
        .with_retry(RETRIES)
        .with_client_options(ClientOptions::new().with_allow_http(is_plain))
        .with_crypto_provider(Arc::new(Ring))
        .with_http_connector(Connector);
    let file = variable("GOOGLE_APPLICATION_CREDENTIALS");
    match (text(&place.service_account_key_secret, secrets)?, file) {
        (Some(key), _) => {
            let refused =
                |what| ArtifactError::Unsupported(format!("{name}: serviceAccountKeySecret {what}"));
            check_key(&key).map_err(refused)?;
            builder = builder.with_service_account_key(key);
        }
        (None, Some(file)) => builder = builder.with_application_credentials(file),
        (None, None) if emulator.is_some() => builder = builder.with_bearer_token("emulator"),
        (None, None) => {}
    }
    if let Some(url) = &emulator {
        builder = builder.with_base_url(url.trim_end_matches('/'));
    }
    let store = builder.build().map_err(|error| wrong(&name, &error))?;
    Objects::new(Arc::new(store), name)
}

/// Whether something is a service account's key. The error shows nothing of it, as that of a parser might.
fn check_key(key: &str) -> Result<(), String> {
    let value: serde_json::Value =
        serde_json::from_str(key).map_err(|_| "is no JSON; expected a service account's key".to_owned())?;
    match value.get("type").and_then(|kind| kind.as_str()) {
        None | Some("service_account") => {}
        Some(other) => return Err(format!("is of type {other:?}; expected \"service_account\"")),
    }
    for field in ["client_email", "private_key", "private_key_id"] {
        if !value.get(field).is_some_and(serde_json::Value::is_string) {
            return Err(format!("has no {field}; expected a service account's key"));
        }
    }
    Ok(())
}

/// Opens a container of Azure's; asks nobody yet.
pub(super) fn azure(place: &Azure, secrets: &Secrets) -> Result<Objects, ArtifactError> {
    let name = format!("azure container {:?}", place.container);
    let refused = |what: String| ArtifactError::Unsupported(format!("{name}: {what}"));
    let endpoint = place.endpoint.trim_end_matches('/');
    let account = account(endpoint).ok_or_else(|| {
        refused(format!("endpoint {endpoint:?}: expected https://ACCOUNT.blob.core.windows.net"))
    })?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(&place.container)
        .with_endpoint(endpoint.to_owned())
        .with_allow_http(endpoint.starts_with("http://"))
        .with_retry(RETRIES)
        .with_crypto_provider(Arc::new(Ring))
        .with_http_connector(Connector);
    let key = match place.is_from_command_line {
        true => variable("AZURE_STORAGE_KEY").or_else(|| variable("AZURE_STORAGE_SAS_TOKEN")),
        false if place.use_sdk_creds => None,
        false => text(&place.account_key_secret, secrets)?,
    };
    builder = match key {
        // Argo takes a shared access signature in the place of the key, too.
        Some(key) if key.contains(['?', '&']) => builder.with_config(AzureConfigKey::SasKey, key),
        Some(key) => builder.with_access_key(key),
        None if place.use_sdk_creds || place.is_from_command_line => {
            let known = AZURE_IDENTITY.into_iter().filter_map(|(name, key)| Some((key, variable(name)?)));
            known.fold(builder, |builder, (key, value)| builder.with_config(key, value))
        }
        None => return Err(refused("accountKeySecret or useSDKCreds: true is missing".to_owned())),
    };
    let store = builder.build().map_err(|error| wrong(&name, &error))?;
    Objects::new(Arc::new(store), name)
}

/// Argo's rule: the first label of the host, or on this machine (Azurite) the first part of the path.
fn account(endpoint: &str) -> Option<String> {
    let url = url::Url::parse(endpoint).ok()?;
    let host = url.host_str()?;
    let account = match host {
        "127.0.0.1" | "localhost" => url.path_segments()?.next()?,
        host => host.split('.').next()?,
    };
    (!account.is_empty()).then(|| account.to_owned())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn text(wanted: &Option<SecretRef>, secrets: &Secrets) -> Result<Option<String>, ArtifactError> {
    match wanted {
        Some(wanted) if !wanted.name.is_empty() => secrets.text(wanted),
        _ => Ok(None),
    }
}

/// Why something cannot be opened. Its causes name fields of a Secret, and show none of its values.
fn wrong(name: &str, error: &Error) -> ArtifactError {
    ArtifactError::Unsupported(format!("{name}: {}", reason(error)))
}

/// The last cause, which says what happened; those before it repeat it with URLs.
fn reason(error: &Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// What a failed request means.
fn failed(name: &str, key: &str, error: &Error) -> ArtifactError {
    let what = format!("{name}, key {key:?}: {}", reason(error));
    if connector::is_passing(error) { ArtifactError::Unavailable(what) } else { ArtifactError::Refused(what) }
}

/// Sends a content: at once if it is a part at most, else in parts, of which one is held at a time.
async fn send(store: Arc<dyn ObjectStore>, path: &Path, mut body: Body) -> Result<(), Error> {
    let (first, mut is_last) = part(&mut body).await?;
    if is_last {
        return store.put(path, first).await.map(drop);
    }
    let mut parts = store.put_multipart(path).await?;
    let sent = async {
        parts.put_part(first).await?;
        while !is_last {
            let (next, is_end) = part(&mut body).await?;
            is_last = is_end;
            if next.content_length() > 0 {
                parts.put_part(next).await?;
            }
        }
        parts.complete().await.map(drop)
    };
    let sent = sent.await;
    if sent.is_err() {
        // What is left of it costs money.
        let _ = parts.abort().await;
    }
    sent
}

/// The next part, and whether it is the last one. A content that breaks off is an error.
async fn part(body: &mut Body) -> Result<(PutPayload, bool), Error> {
    let (mut pieces, mut length) = (Vec::new(), 0);
    let Body::Stream(stream) = body else {
        let whole = std::mem::take(body).collect(PART).await.map_err(broken)?;
        return Ok((whole.into(), true));
    };
    while length < PART {
        match stream.frame().await {
            Some(frame) => {
                if let Ok(data) = frame.map_err(broken)?.into_data() {
                    length += data.len();
                    pieces.push(data);
                }
            }
            None => return Ok((pieces.into_iter().collect(), true)),
        }
    }
    Ok((pieces.into_iter().collect(), false))
}

fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "the content", source: error.into() }
}

// === impl Objects ===

impl Objects {
    fn new(store: Arc<dyn ObjectStore>, name: String) -> Result<Objects, ArtifactError> {
        let runtime =
            Handle::try_current().map_err(|error| ArtifactError::Unsupported(format!("{name}: {error}")))?;
        Ok(Objects { store, runtime, name })
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        interest::wait(&self.runtime, work)
    }

    /// A key as it is: none of it is escaped.
    fn path(&self, key: &str) -> Result<Path, ArtifactError> {
        Path::parse(key).map_err(|_| ArtifactError::Key(key.to_owned()))
    }
}

impl Store for Objects {
    fn put(&self, key: &str, fill: &mut Fill<'_>) -> Result<(), ArtifactError> {
        let path = self.path(key)?;
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        let send = move |body| async move {
            match send(store, &path, body).await {
                Ok(()) => Ok(()),
                Err(Error::NotFound { .. }) => {
                    Err(ArtifactError::Refused(format!("there is no {name}; make it first")))
                }
                Err(error) => Err(failed(&name, path.as_ref(), &error)),
            }
        };
        upload(&self.runtime, send, fill)
    }

    fn get(&self, key: &str) -> Result<Option<Box<dyn Read + Send>>, ArtifactError> {
        if key.ends_with('/') {
            return Ok(None);
        }
        let path = self.path(key)?;
        let found = match self.wait(self.store.get_opts(&path, GetOptions::default()))? {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(&self.name, key, &error)),
        };
        let says = found.attributes.get(&Attribute::Metadata(IS_FOLDER.into()));
        if says.is_some_and(|says| says.as_ref() == "true") {
            return Ok(None);
        }
        let frames = found.into_stream().map_ok(Frame::data).map_err(|error| reason(&error));
        Ok(Some(Box::new(Download::new(&self.runtime, Body::stream(StreamBody::new(frames))))))
    }

    fn list(&self, key: &str, visit: &mut Visit<'_>) -> Result<bool, ArtifactError> {
        let path = self.path(key)?;
        let prefix = format!("{}/", path.as_ref());
        let mut found = self.store.list(Some(&path));
        let mut is_any = false;
        while let Some(object) = self.wait(found.next())? {
            let object = match object {
                Ok(object) => object,
                Err(Error::NotFound { .. }) => return Ok(is_any),
                Err(error) => return Err(failed(&self.name, key, &error)),
            };
            if let Some(name) = object.location.as_ref().strip_prefix(&prefix) {
                is_any = true;
                visit(name)?;
            }
        }
        Ok(is_any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_endpoints() {
        for (endpoint, wanted) in [
            ("https://mine.blob.core.windows.net", Some("mine")),
            ("https://mine.blob.core.chinacloudapi.cn", Some("mine")),
            ("http://127.0.0.1:10000/devstoreaccount1", Some("devstoreaccount1")),
            ("http://localhost:10000/one", Some("one")),
            ("http://localhost:10000", None),
            ("mine.blob.core.windows.net", None),
            ("", None),
        ] {
            assert_eq!(account(endpoint).as_deref(), wanted, "{endpoint}");
        }
    }
}
