//! A client of the OCI distribution protocol
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>), for one registry.
//!
//! | file | subject |
//! |---|---|
//! | `transport` | requests and answers: deadlines, bounds, redirections |
//! | `auth` | who asks |
//! | `download` | content, resumed where it broke off |
//! | `upload` | content and manifests to the registry |
//! | [`error`] | what can go wrong |

mod auth;
pub(crate) mod download;
pub mod error;
pub(crate) mod transport;
mod upload;

use crate::access::Access;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::manifest::{Index, MAX_MANIFEST};
use crate::media_type;
use auth::Auth;
use bytes::Bytes;
use error::{RegistryError, harmless};
use http::header::{ACCEPT, HeaderName, LINK, RETRY_AFTER};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use std::time::Duration;
use transport::{Ask, Transport, read};

/// Answers that are read only for what the registry says went wrong.
const MAX_ERROR: u64 = 64 << 10;

/// Pages of a list of tags, and tags of all of them.
const MAX_PAGES: usize = 1000;
const MAX_TAGS: usize = 200_000;

/// How often a request is sent that a registry is too busy for, or whose connection breaks.
const ATTEMPTS: u32 = 4;

/// The longest pause that a registry can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// Who waits so long is told why.
const TOLD_PAUSE: Duration = Duration::from_secs(1);

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A client of one registry.
pub struct Client {
    /// As the user calls it.
    registry: String,
    /// `https://host:port`
    base: String,
    transport: Transport,
    auth: Auth,
}

/// A manifest or index as it came.
#[derive(Clone, Debug)]
pub struct RawManifest {
    /// Its bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
}

/// What may be done in a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Right {
    Pull,
    Push,
}

// === impl Client ===

impl Client {
    /// A client of this registry, which asks in the name of whoever the files with credentials say.
    pub fn new(registry: &str, access: &Access) -> Result<Client, RegistryError> {
        let files = access.places().credentials;
        Client::with(registry, access, |place| Auth::new(registry, place, files))
    }

    /// A client that asks with these credentials.
    pub fn with_credentials(
        registry: &str,
        access: &Access,
        credentials: Credentials,
    ) -> Result<Client, RegistryError> {
        Client::with(registry, access, |place| Auth::with_credentials(registry, place, credentials))
    }

    fn with(
        registry: &str,
        access: &Access,
        auth: impl FnOnce(http::Uri) -> Auth,
    ) -> Result<Client, RegistryError> {
        // Docker's registry does not answer under the name that everybody calls it by.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let scheme = if access.is_insecure(registry) { "http" } else { "https" };
        let base = format!("{scheme}://{host}");
        let place = Ask::get(&base)?.uri;
        Ok(Client {
            registry: registry.to_owned(),
            transport: Transport::new(access)?,
            auth: auth(place),
            base,
        })
    }

    /// Asks the registry whether it knows us; the answer is whether it wanted to.
    pub async fn check(&self) -> Result<bool, RegistryError> {
        let ask = Ask::get(&format!("{}/v2/", self.base))?;
        let response = self.send(&ask, "", "").await?;
        if !response.status().is_success() {
            return Err(self.failed(&ask, response).await);
        }
        Ok(self.auth.header("").await.is_some())
    }

    /// The digest that a tag leads to, if the registry says it without being asked for the manifest.
    pub async fn digest_of(&self, repository: &str, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let ask = self.manifest_ask(Method::HEAD, repository, tag)?;
        let response = self.send_patiently(&ask, repository, Right::Pull).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Err(self.not_found(self.named(repository, tag), response).await),
            status if status.is_success() => content_digest(response.headers(), &ask.shown()),
            // Some registries know no HEAD; a GET says the rest.
            _ => Ok(None),
        }
    }

    /// A manifest or index by tag or digest.
    pub async fn manifest(&self, repository: &str, name: &str) -> Result<RawManifest, RegistryError> {
        let ask = self.manifest_ask(Method::GET, repository, name)?;
        let response = self.send_patiently(&ask, repository, Right::Pull).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(self.not_found(self.named(repository, name), response).await);
        }
        if !response.status().is_success() {
            return Err(self.failed(&ask, response).await);
        }
        let said = content_digest(response.headers(), &ask.shown())?;
        let what = format!("the manifest {}", self.named(repository, name));
        let bytes = read(response, &what, MAX_MANIFEST).await?;
        let expected = name.parse::<Digest>().ok().or(said);
        let digest = match expected {
            Some(expected) if expected.is_of(&bytes) => expected,
            Some(expected) => {
                let found = Digest::sha256(&bytes).to_string();
                return Err(RegistryError::Digest { what, expected, found });
            }
            None => Digest::sha256(&bytes),
        };
        Ok(RawManifest { bytes, digest })
    }

    /// All tags of a repository.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let mut tags = Vec::new();
        let mut ask = Ask::get(&format!("{}/v2/{repository}/tags/list", self.base))?;
        for _ in 0..MAX_PAGES {
            let response = self.send_patiently(&ask, repository, Right::Pull).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Err(self.not_found(format!("{}/{repository}", self.registry), response).await);
            }
            if !response.status().is_success() {
                return Err(self.failed(&ask, response).await);
            }
            let next = response.headers().get(LINK).and_then(|link| next_page(link.to_str().ok()?));
            let what = format!("the list of tags of {}/{repository}", self.registry);
            let body = read(response, &what, MAX_MANIFEST).await?;
            let malformed = |reason: String| RegistryError::Malformed { what: what.clone(), reason };
            let page: Page = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
            tags.extend(page.tags.into_iter().flatten().filter(|tag| crate::reference::is_tag(tag)));
            if tags.len() > MAX_TAGS {
                return Err(RegistryError::Limit { what, limit: format!("{MAX_TAGS} tags") });
            }
            let Some(next) = next else { return Ok(tags) };
            let uri = crate::url::resolve(&ask.uri, &next).map_err(&malformed)?;
            if !transport::is_same_place(&uri, &ask.uri) {
                return Err(malformed("its next page is on another host".to_owned()));
            }
            ask = Ask::get(&uri.to_string())?;
        }
        let what = format!("the list of tags of {}/{repository}", self.registry);
        Err(RegistryError::Limit { what, limit: format!("{MAX_PAGES} pages") })
    }

    /// What was attached to a manifest (`GET /v2/<name>/referrers/<digest>`); none if the registry does not know
    /// that.
    pub async fn referrers(&self, repository: &str, digest: &Digest) -> Result<Option<Index>, RegistryError> {
        let ask = Ask::get(&format!("{}/v2/{repository}/referrers/{digest}", self.base))?;
        let ask = ask.header(ACCEPT, media_type::OCI_INDEX)?;
        let response = self.send_patiently(&ask, repository, Right::Pull).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let what = format!("the list of what is attached to {digest}");
        let body = read(response, &what, MAX_MANIFEST).await?;
        // Registries of before answer this path with anything.
        Ok(serde_json::from_slice(&body).ok())
    }

    fn manifest_ask(&self, method: Method, repository: &str, name: &str) -> Result<Ask, RegistryError> {
        let ask = Ask::new(method, &format!("{}/v2/{repository}/manifests/{name}", self.base))?;
        ask.header(ACCEPT, &media_type::MANIFESTS.join(", "))
    }

    /// Sends a request, and once more when the registry has asked who we are and there is something to say.
    async fn send(
        &self,
        ask: &Ask,
        repository: &str,
        scope: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let known = self.auth.header(scope).await;
        let response = self.transport.send(ask, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let headers = response.headers();
        let answer = self.auth.answer(&self.transport, repository, scope, headers, known.as_ref()).await?;
        let response = match answer {
            Some(header) => self.transport.send(ask, Some(&header)).await?,
            None => response,
        };
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.failed(ask, response).await);
        }
        Ok(response)
    }

    /// The same, again after a while when the registry is too busy.
    async fn send_patiently(
        &self,
        ask: &Ask,
        repository: &str,
        right: Right,
    ) -> Result<Response<Incoming>, RegistryError> {
        let scope = right.scope(repository);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let response = self.send(ask, repository, &scope).await?;
            let is_busy = matches!(response.status().as_u16(), 429 | 500 | 502 | 503 | 504);
            if !is_busy || attempt == ATTEMPTS {
                return Ok(response);
            }
            let asked =
                response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let pause = pause(attempt, asked.map(Duration::from_secs));
            if pause >= TOLD_PAUSE {
                let registry = &self.registry;
                match asked {
                    Some(_) => tracing::info!("{registry} asks to wait; trying again in {pause:.0?}"),
                    None => tracing::info!("{registry} is busy; trying again in {pause:.0?}"),
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn failed(&self, ask: &Ask, response: Response<Incoming>) -> RegistryError {
        let (url, status) = (ask.shown(), response.status());
        let body = read(response, &url, MAX_ERROR).await.unwrap_or_default();
        let message = message(&body);
        match status {
            // Who asks is known, and why it is not done is said.
            StatusCode::FORBIDDEN if !message.is_empty() => {
                RegistryError::Denied { registry: self.registry.clone(), message }
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.auth.refused(&message).await,
            _ => RegistryError::Status { url, status, message },
        }
    }

    async fn not_found(&self, name: String, response: Response<Incoming>) -> RegistryError {
        let reference = format!("oci://{name}");
        let body = read(response, &reference, MAX_ERROR).await.unwrap_or_default();
        RegistryError::NotFound { reference, message: message(&body) }
    }

    fn named(&self, repository: &str, name: &str) -> String {
        let separator = if name.contains(':') { '@' } else { ':' };
        format!("{}/{repository}{separator}{name}", self.registry)
    }
}

// === impl Right ===

impl Right {
    fn scope(self, repository: &str) -> String {
        match self {
            Right::Pull => format!("repository:{repository}:pull"),
            Right::Push => format!("repository:{repository}:pull,push"),
        }
    }
}

/// Before the next attempt: twice as long each time, somewhere between the half and the whole, so that clients which
/// failed together do not come back together.
fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    let longest = Duration::from_millis(250) * 2_u32.saturating_pow(attempt.min(8));
    let ours = longest.mul_f64(0.5 + fastrand::f64() / 2.0);
    asked.unwrap_or(ours).max(ours).min(LONGEST_PAUSE)
}

/// What a registry says went wrong (`{"errors": [{"code", "message"}]}`), or its words if they are few.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(default)]
        errors: Vec<Error>,
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { errors, details }) => {
            let said = |error: Error| format!("{}: {}", error.code, error.message);
            let errors: Vec<String> = errors.into_iter().take(3).map(said).collect();
            if errors.is_empty() { details.unwrap_or_default() } else { errors.join("; ") }
        }
        Err(_) => match std::str::from_utf8(body) {
            Ok(text) if !text.trim_start().starts_with('<') => text.to_owned(),
            _ => String::new(),
        },
    };
    harmless(&text)
}

/// The digest that a registry says its answer has.
fn content_digest(headers: &HeaderMap, what: &str) -> Result<Option<Digest>, RegistryError> {
    let Some(value) = headers.get(CONTENT_DIGEST) else { return Ok(None) };
    let digest = value.to_str().unwrap_or_default().parse::<Digest>();
    digest
        .map(Some)
        .map_err(|error| RegistryError::Malformed { what: what.to_owned(), reason: error.to_string() })
}

/// Where the next page of a list is (RFC 8288).
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|link| {
        let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|part| {
            part.trim()
                .strip_prefix("rel=")
                .is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
        });
        is_next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_PAUSE, message, next_page, pause};
    use std::time::Duration;

    #[test]
    fn what_a_registry_says_is_made_harmless() {
        let long = "x".repeat(5000);
        let cases = [
            (r#"{"errors":[{"code":"DENIED","message":"no\u001b[2J"}]}"#, "DENIED: no [2J"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("<html>", ""),
            ("plain\n", "plain"),
            (&long, &long[..300]),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body.as_bytes()), expected);
        }
    }

    #[test]
    fn pages_follow_one_another() {
        let link = "</v2/a/tags/list?last=x&n=2>; rel=\"next\"";
        assert_eq!(next_page(link).as_deref(), Some("/v2/a/tags/list?last=x&n=2"));
        assert_eq!(next_page("</x>; rel=\"prev\""), None);
        assert_eq!(next_page("nonsense"), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        assert!(pause(1, None) < pause(4, None));
        assert!(pause(100, Some(Duration::from_secs(9999))) <= LONGEST_PAUSE);
    }
}
