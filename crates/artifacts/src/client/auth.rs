//! Who asks: basic authentication, and tokens of a token server
//! (<https://distribution.github.io/distribution/spec/auth/token/>, and `oauth` beside it).
//!
//! Nobody is told who asks before the registry wants to know.

use super::error::{RegistryError, harmless};
use super::transport::{Ask, Transport, is_same_place, read};
use crate::credentials::{self, Credentials, Secret};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Uri};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::{Mutex, OnceCell};

/// The largest answer of a token server.
const MAX_TOKEN: u64 = 256 << 10;

/// Challenges of one answer that are looked at.
const MAX_CHALLENGES: usize = 8;

/// What one registry is told about who asks.
pub(super) struct Auth {
    registry: String,
    place: Uri,
    /// Files that may know the registry.
    files: Vec<PathBuf>,
    /// Read when the registry first wants to know who asks.
    credentials: OnceCell<Option<Credentials>>,
    /// The header that last worked, by what it was for.
    headers: Mutex<BTreeMap<String, HeaderValue>>,
}

/// What a registry wants (RFC 9110, section 11.6.1).
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

// === impl Auth ===

impl Auth {
    pub(super) fn new(registry: &str, place: Uri, files: Vec<PathBuf>) -> Auth {
        Auth {
            registry: registry.to_owned(),
            place,
            files,
            credentials: OnceCell::new(),
            headers: Mutex::default(),
        }
    }

    /// With these credentials and no others.
    pub(super) fn with_credentials(registry: &str, place: Uri, credentials: Credentials) -> Auth {
        Auth {
            credentials: OnceCell::new_with(Some(Some(credentials))),
            ..Auth::new(registry, place, Vec::new())
        }
    }

    /// What the registry was told last for this scope.
    pub(super) async fn header(&self, scope: &str) -> Option<HeaderValue> {
        self.headers.lock().await.get(scope).cloned()
    }

    /// Answers a refusal (401): the header to ask again with; none if there is nothing better to say than `before`.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        repository: &str,
        scope: &str,
        refusal: &HeaderMap,
        before: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let credentials = self.credentials(repository).await?;
        let challenges = challenges(refusal);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let header = match (bearer, credentials) {
            (Some((realm, service, theirs)), credentials) => {
                // What a registry asks for goes first: some have scopes of their own.
                let scope = theirs.as_deref().unwrap_or(scope);
                let token = self.token(transport, realm, service.as_deref(), scope, credentials).await?;
                header("Bearer", &token)
            }
            (None, Some(Credentials::Password { user, password }))
                if challenges.contains(&Challenge::Basic) =>
            {
                header("Basic", &Secret::new(STANDARD.encode(format!("{user}:{}", password.expose()))))
            }
            _ => return Ok(None),
        };
        let header = header.ok_or_else(|| RegistryError::Malformed {
            what: format!("the token of {}", self.registry),
            reason: "it has characters that no header may have".to_owned(),
        })?;
        if before == Some(&header) {
            return Ok(None);
        }
        self.headers.lock().await.insert(scope.to_owned(), header.clone());
        Ok(Some(header))
    }

    /// The error for a refusal that nothing could be done about.
    pub(super) async fn refused(&self, message: &str) -> RegistryError {
        let known = matches!(self.credentials.get(), Some(Some(_)));
        RegistryError::Unauthorized { registry: self.registry.clone(), known, message: harmless(message) }
    }

    async fn credentials(&self, repository: &str) -> Result<Option<&Credentials>, RegistryError> {
        let read = || credentials::find(&self.files, &self.registry, repository);
        Ok(self.credentials.get_or_try_init(read).await?.as_ref())
    }

    async fn token(
        &self,
        transport: &Transport,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Secret, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<Secret>,
            access_token: Option<Secret>,
        }
        let mut query = Vec::new();
        query.extend(service.map(|service| ("service", service)));
        if !scope.is_empty() {
            // Several scopes in one are several parameters.
            query.extend(scope.split(' ').map(|scope| ("scope", scope)));
        }
        let (ask, header) = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                query.extend([("grant_type", "refresh_token"), ("client_id", "dhow")]);
                let body = format!("{}&refresh_token={}", form(&query), escaped(token.expose()));
                let ask = Ask::new(Method::POST, realm)?;
                let ask = ask.header(CONTENT_TYPE, "application/x-www-form-urlencoded")?;
                (ask.body(Bytes::from(body)), None)
            }
            Some(Credentials::Password { user, password }) => {
                query.push(("account", user));
                let secret = Secret::new(STANDARD.encode(format!("{user}:{}", password.expose())));
                (Ask::get(&with_query(realm, &query))?, header("Basic", &secret))
            }
            None => (Ask::get(&with_query(realm, &query))?, None),
        };
        self.check_realm(&ask.uri)?;
        let response = transport.send(&ask, header.as_ref()).await?;
        let (status, what) = (response.status(), ask.shown());
        let body = read(response, &what, MAX_TOKEN).await?;
        if !status.is_success() {
            let message = super::message(&body);
            return Err(match status.as_u16() {
                400..=403 => self.refused(&message).await,
                _ => RegistryError::Status { url: what, status, message },
            });
        }
        let answer: Answer = serde_json::from_slice(&body)
            // The error of the parser could show the token.
            .map_err(|_| RegistryError::Malformed {
                what: what.clone(),
                reason: "it is no token".to_owned(),
            })?;
        answer
            .token
            .or(answer.access_token)
            .ok_or_else(|| RegistryError::Malformed { what, reason: "the answer holds no token".to_owned() })
    }

    /// Whether the place that gives tokens may be told who asks. A registry over HTTPS cannot send anybody to HTTP; one
    /// over plain HTTP, which the user allowed, can only send to itself.
    fn check_realm(&self, realm: &Uri) -> Result<(), RegistryError> {
        let is_fine = realm.scheme_str() == Some("https")
            || (self.place.scheme_str() == Some("http") && is_same_host(&self.place, realm));
        if is_fine || is_same_place(&self.place, realm) {
            return Ok(());
        }
        Err(RegistryError::Redirect {
            url: self.registry.clone(),
            reason: "it wants the credentials to be sent over plain HTTP to another place".to_owned(),
        })
    }
}

fn is_same_host(one: &Uri, other: &Uri) -> bool {
    one.host().is_some_and(|host| other.host().is_some_and(|other| host.eq_ignore_ascii_case(other)))
}

fn header(scheme: &str, secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{scheme} {}", secret.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn with_query(url: &str, query: &[(&str, &str)]) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    if query.is_empty() { url.to_owned() } else { format!("{url}{separator}{}", form(query)) }
}

fn form(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b'/' | b',' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What a registry wants, of all its headers; schemes that nobody here speaks are left out.
fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    texts.take(MAX_CHALLENGES).filter_map(challenge).collect()
}

fn challenge(text: &str) -> Option<Challenge> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = parameters(rest);
    Some(Challenge::Bearer {
        realm: parameters.remove("realm")?,
        service: parameters.remove("service"),
        scope: parameters.remove("scope"),
    })
}

/// `name="value", name=value`; a comma inside quotes belongs to the value.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let value = match after.strip_prefix('"') {
            Some(quoted) => {
                let Some((value, after)) = quoted.split_once('"') else { break };
                rest = after;
                value
            }
            None => {
                let (value, after) = after.split_once(',').unwrap_or((after, ""));
                rest = after;
                value.trim()
            }
        };
        found.insert(name, value.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Challenge, challenge, with_query};

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        let cases = [
            (r#"Basic realm="x""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://a.io/token",service="r.io",scope="repository:a/b:pull,push""#,
                bearer("https://a.io/token", Some("r.io"), Some("repository:a/b:pull,push")),
            ),
            (r#"bearer service=r.io, realm=https://a.io/t"#, bearer("https://a.io/t", Some("r.io"), None)),
            (r#"Bearer realm="unfinished"#, None),
            ("Bearer", None),
            ("Negotiate", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(challenge(text), expected, "{text}");
        }
    }

    #[test]
    fn queries_are_escaped() {
        let query = [("service", "a b&c"), ("scope", "repository:a/b:pull,push")];
        assert_eq!(
            with_query("https://a.io/t?x=1", &query),
            "https://a.io/t?x=1&service=a%20b%26c&scope=repository:a/b:pull,push"
        );
        assert_eq!(with_query("https://a.io/t", &[]), "https://a.io/t");
    }
}
