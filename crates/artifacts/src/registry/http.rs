//! The registry on the wire: the distribution API, its additions, and the page for people.
//!
//! Each request is read into a [`route::Route`], its client identified, what it may do looked up once, and then handed to
//! the file of its subject.
//!
//! | file | subject |
//! |---|---|
//! | `route` | which request it is |
//! | `answer` | answers, and the table of errors |
//! | `blobs`, `manifests`, `lists` | the distribution API |
//! | `modules` | searching; the page |
//! | `metrics` | what is counted |

use super::Registry;
use super::auth::{Action, Identity};
use super::name::Repository;
use super::refusal::{Challenge, Refusal};
use super::uploads::{BodyError, RequestBody};
use ::http::{HeaderMap, Method, Request, Response, StatusCode};
use answer::{Answer, full};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
pub(super) use route::escape;
use route::{Parameters, Route};
use std::sync::Arc;
use std::time::Duration;

pub(super) mod answer;
mod blobs;
mod lists;
mod manifests;
mod metrics;
mod modules;
mod page;
mod route;

/// The body of a request or an answer.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A small body has to be there after this long.
const SMALL_BODY: Duration = Duration::from_secs(60);

/// Bytes of a refused request's body that are taken, and for how long.
const DRAINED: usize = 16 << 20;
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Bytes of a form.
const MAX_FORM: usize = 64 << 10;

/// Answers requests.
#[derive(Clone)]
pub struct Face {
    registry: Arc<Registry>,
    /// How clients reach the registry, where it cannot be told from their requests.
    external_url: Option<String>,
    is_tls: bool,
    /// Whoever asks for it by another name than this machine's is a web page.
    only_here: bool,
}

/// A request that was read, and who sends it.
struct Asked<'a> {
    face: &'a Face,
    method: Method,
    headers: HeaderMap,
    parameters: Parameters,
    identity: Identity,
}

// === impl Face ===

impl Face {
    /// For connections with or without TLS. `external_url` is how clients reach the registry, where that is not what
    /// they say in their requests.
    pub fn new(registry: Arc<Registry>, external_url: Option<String>, is_tls: bool) -> Face {
        Face { registry, external_url, is_tls, only_here: false }
    }

    /// Only for who asks for this machine or for the external URL: a registry where everybody may do everything is open to
    /// each web page whose name leads here, which a browser on this machine shows (DNS rebinding).
    pub fn for_this_machine(self) -> Face {
        Face { only_here: true, ..self }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, mut body) = request.into_parts();
        let is_head = head.method == Method::HEAD;
        let headers = head.headers.clone();
        let mut answer = match self.try_answer(head, &mut body).await {
            Ok(answer) => answer,
            Err(refusal) => {
                // Whoever waits to be told to go on has sent nothing.
                if !headers.contains_key(::http::header::EXPECT) {
                    drain(&mut body).await;
                }
                self.refused(&refusal, &headers)
            }
        };
        if is_head {
            *answer.body_mut() = full(Bytes::new());
        }
        let class = usize::from(answer.status().as_u16() / 100);
        if let Some(counter) = self.registry.counters.answers.get(class) {
            counter.add(1);
        }
        answer
    }

    async fn try_answer(
        &self,
        head: ::http::request::Parts,
        body: &mut RequestBody,
    ) -> Result<Answer, Refusal> {
        let route = Route::read(head.uri.path())?;
        route.check_method(&head.method)?;
        self.check_host(&head)?;
        let parameters = Parameters::read(head.uri.query().unwrap_or_default());
        let identity = match route {
            // They say nothing about anything.
            Route::Health | Route::Style | Route::Metrics => Identity::anonymous(),
            _ => self.registry.auth.identify(&head.headers, &self.registry.counters.logins_failed).await?,
        };
        let asked = Asked { face: self, method: head.method, headers: head.headers, parameters, identity };
        match &route {
            Route::Ping => asked.ping(),
            Route::Token => asked.token(body).await,
            Route::Catalog => asked.catalog(),
            Route::Tags(repository) => asked.tags(repository),
            Route::Referrers(repository, subject) => asked.referrers(repository, subject).await,
            Route::Manifest(repository, selector) => asked.manifest(repository, selector, body).await,
            Route::Blob(repository, digest) => asked.blob(repository, digest).await,
            Route::Uploads(repository) => asked.begin_upload(repository, body).await,
            Route::Upload(repository, id) => asked.upload(repository, id, body).await,
            Route::Search => asked.search(None),
            Route::Modules(repository) => asked.search(Some(repository)),
            Route::Damaged => asked.damaged(),
            Route::Metrics => Ok(metrics::answer(&self.registry)),
            Route::Health => Ok(answer::text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")),
            Route::Style => Ok(answer::text(StatusCode::OK, "text/css; charset=utf-8", page::STYLE)),
            Route::Page => asked.page(),
        }
    }

    /// Whether a request is for this machine, and from no page of another one.
    fn check_host(&self, head: &::http::request::Parts) -> Result<(), Refusal> {
        if !self.only_here {
            return Ok(());
        }
        let header =
            |name| head.headers.get(name).map(|value: &::http::HeaderValue| value.to_str().unwrap_or("?"));
        let host = head.uri.authority().map(|authority| authority.as_str());
        let host = host.or_else(|| header(::http::header::HOST));
        let page = header(::http::header::ORIGIN)
            .map(|origin| origin.split_once("://").map_or("?", |(_, host)| host));
        let outside =
            self.external_url.as_deref().and_then(|url| url.split_once("://")).map(|(_, host)| host);
        let foreign =
            [host, page].into_iter().flatten().find(|name| !is_here(name) && Some(*name) != outside);
        foreign.map_or(Ok(()), |name| Err(Refusal::Elsewhere(name.chars().take(100).collect())))
    }

    /// How the client reaches the registry.
    fn url(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.external_url {
            return url.trim_end_matches('/').to_owned();
        }
        let host = headers.get(::http::header::HOST).and_then(|host| host.to_str().ok());
        let is_plain = |host: &&str| {
            host.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'))
        };
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}", host.filter(is_plain).unwrap_or("localhost"))
    }
}

// === impl Asked ===

impl Asked<'_> {
    fn registry(&self) -> &Arc<Registry> {
        &self.face.registry
    }

    /// The one place where a request is allowed what it wants.
    fn allow(&self, repository: &Repository, action: Action) -> Result<(), Refusal> {
        let only_reads = self.method == Method::GET;
        self.registry().auth.allow(&self.identity, repository, action, only_reads)
    }

    /// Whether the client may see that a repository is there.
    fn may_see(&self, repository: &Repository) -> bool {
        self.registry().auth.is_allowed(self.identity.user.as_deref(), repository, Action::Pull)
    }

    /// Lists show what the client may see; one who can see nothing before it logs in is asked to.
    fn may_list(&self, challenge: Challenge) -> Result<(), Refusal> {
        let auth = &self.registry().auth;
        let is_nobody = self.identity.user.is_none() && auth.has_users() && !auth.is_open();
        match is_nobody || !self.identity.may_list() {
            true => Err(Refusal::Unauthenticated(challenge)),
            false => Ok(()),
        }
    }

    fn ping(&self) -> Result<Answer, Refusal> {
        // Clients decide by this answer whether they have to log in.
        let has_said = || self.headers.contains_key(::http::header::AUTHORIZATION);
        if self.identity.user.is_none() && self.registry().auth.has_users() && !has_said() {
            return Err(Refusal::Unauthenticated(Challenge::Token(String::new())));
        }
        let mut answer = answer::json(StatusCode::OK, &serde_json::json!({}));
        answer::set(&mut answer, "docker-distribution-api-version", "registry/2.0");
        Ok(answer)
    }

    /// `GET` with the credentials in the head, or `POST` with a form (OAuth 2).
    async fn token(&self, body: &mut RequestBody) -> Result<Answer, Refusal> {
        let auth = &self.registry().auth;
        let (identity, scopes) = match self.method == Method::POST {
            // A token is for what it says, until it ends: it gives no other one.
            false if self.identity.has_token() => return Err(Refusal::Unauthenticated(Challenge::Password)),
            false => (self.identity.clone(), self.parameters.all("scope")),
            true => {
                let form = read_small(body, MAX_FORM, "the form").await?;
                let form = Parameters::read(&String::from_utf8_lossy(&form));
                if form.get("grant_type") != Some("password") {
                    return Ok(answer::json(
                        StatusCode::BAD_REQUEST,
                        &serde_json::json!({"error": "unsupported_grant_type"}),
                    ));
                }
                let (name, password) =
                    (form.get("username").unwrap_or_default(), form.get("password").unwrap_or_default());
                let Some(identity) = auth.log_in(name, password).await? else {
                    self.registry().counters.logins_failed.add(1);
                    return Err(Refusal::WrongPassword);
                };
                (identity, form.all("scope"))
            }
        };
        let token = auth.token(&identity, &scopes);
        let seconds = super::auth::TOKEN_LIFE.as_secs();
        let mut answer = answer::json(
            StatusCode::OK,
            &serde_json::json!({"token": token, "access_token": token, "expires_in": seconds}),
        );
        answer::set(&mut answer, "cache-control", "no-store");
        Ok(answer)
    }
}

/// Whether `HOST[:PORT]` names the machine itself.
fn is_here(host: &str) -> bool {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => host,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let name = host.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Takes what a client still sends of a request that is refused: it reads the answer when it has sent all. A client with
/// very much to send loses its connection.
async fn drain(body: &mut RequestBody) {
    let taken = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_DEADLINE, taken).await;
}

/// Reads a small body whole.
async fn read_small(body: &mut RequestBody, limit: usize, what: &'static str) -> Result<Bytes, Refusal> {
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                return Err(Refusal::TooLarge { what, limit: limit as u64 });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(SMALL_BODY, read).await.unwrap_or(Err(Refusal::BodyBroken))
}

#[cfg(test)]
mod tests;
