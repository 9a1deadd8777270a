//! Artifacts on web servers: GET to load, PUT to save, as Argo does.
//!
//! Redirections of a GET are followed; names and passwords go to the first server only.

use super::config::Secrets;
use super::interest;
use super::place::{Basic, ClientCert, Http, OAuth2, SecretRef};
use super::repository::ArtifactError;
use super::store::{Fill, Store, Visit};
use super::stream::{Download, upload};
use base64::Engine;
use dhow_blocks::invoke::Body;
use dhow_providers::http_client::HttpClient;
use dhow_providers::tls::Tls;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::io::Read;
use std::time::Duration;
use tokio::runtime::Handle;
use url::Url;

/// Redirections of one request.
const MAX_REDIRECTIONS: usize = 10;

/// Until the head of an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest answer that holds a token, in bytes.
const MAX_TOKEN: u64 = 1 << 20;

/// Makes the request for a token.
type AsksForToken = Box<dyn Fn() -> Result<Request<Body>, ArtifactError> + Send + Sync>;

/// One file on a web server.
pub(super) struct Site {
    client: HttpClient,
    runtime: Handle,
    url: Url,
    headers: HeaderMap,
    oauth2: Option<AsksForToken>,
}

// === impl Site ===

impl Site {
    /// Reads who asks from the Secrets; asks nobody yet.
    pub(super) fn open(place: &Http, secrets: &Secrets) -> Result<Site, ArtifactError> {
        let url = parse(&place.url)?;
        let mut headers = HeaderMap::new();
        for header in &place.headers {
            let wrong = || ArtifactError::Unsupported(format!("{:?} cannot be a header", header.name));
            let name = HeaderName::try_from(&header.name).map_err(|_| wrong())?;
            headers.append(name, HeaderValue::try_from(&header.value).map_err(|_| wrong())?);
        }
        if let Some(Basic { username_secret, password_secret }) = &place.auth.basic_auth {
            let (name, password) = (wanted(secrets, username_secret)?, wanted(secrets, password_secret)?);
            headers.insert(AUTHORIZATION, basic(&name, &password)?);
        }
        let identity = match &place.auth.client_cert {
            Some(ClientCert { client_cert_secret, client_key_secret }) => Some((
                wanted(secrets, client_cert_secret)?.into_bytes(),
                wanted(secrets, client_key_secret)?.into_bytes(),
            )),
            None => None,
        };
        let failed = |error: String| ArtifactError::Refused(format!("{}: {error}", shown(&url)));
        let client = HttpClient::new(&Tls { identity, ..Tls::default() }).map_err(failed)?;
        let runtime = Handle::try_current().map_err(|error| failed(error.to_string()))?;
        let oauth2 = match &place.auth.oauth2 {
            Some(oauth2) => Some(token_request(oauth2, secrets)?),
            None => None,
        };
        Ok(Site { client, runtime, url, headers, oauth2 })
    }

    /// Its URL, for messages.
    pub(super) fn name(&self) -> String {
        shown(&self.url)
    }

    /// The headers of a request, with a fresh token where one is needed.
    fn headers(&self) -> Result<HeaderMap, ArtifactError> {
        let mut headers = self.headers.clone();
        if let Some(request) = &self.oauth2 {
            let exchange = self.client.exchange(request()?, MAX_TOKEN, PATIENCE);
            let answer = interest::wait(&self.runtime, exchange)?;
            let answer = answer.map_err(|error| ArtifactError::Unavailable(format!("the token: {error}")))?;
            let token = serde_json::from_slice::<serde_json::Value>(answer.body()).ok();
            let token = token.and_then(|token| Some(token.get("access_token")?.as_str()?.to_owned()));
            let none = || {
                ArtifactError::Refused(format!("the token's server answers {} without one", answer.status()))
            };
            let value = HeaderValue::try_from(format!("Bearer {}", token.ok_or_else(none)?));
            let mut value = value.map_err(|_| ArtifactError::Refused("the token is no header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

fn parse(url: &str) -> Result<Url, ArtifactError> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    parsed.ok_or_else(|| ArtifactError::Unsupported(format!("{url:?} is no URL of HTTP")))
}

/// A URL for messages: without name, password and query, which may be secrets.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn wanted(secrets: &Secrets, secret: &Option<SecretRef>) -> Result<String, ArtifactError> {
    match secret {
        Some(secret) => Ok(secrets.text(secret)?.unwrap_or_default()),
        None => Err(ArtifactError::Unsupported("`http.auth` lacks the name of a Secret".to_owned())),
    }
}

fn basic(name: &str, password: &str) -> Result<HeaderValue, ArtifactError> {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    let value = HeaderValue::try_from(format!("Basic {text}"));
    let mut value = value.map_err(|_| ArtifactError::Refused("the password is no header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Makes requests for a token (RFC 6749, 4.4.2).
#[allow(clippy::type_complexity, reason = "used once")]
fn token_request(
    oauth2: &OAuth2,
    secrets: &Secrets,
) -> Result<Box<dyn Fn() -> Result<Request<Body>, ArtifactError> + Send + Sync>, ArtifactError> {
    let url = parse(&wanted(secrets, &oauth2.token_url_secret)?)?;
    let id = wanted(secrets, &oauth2.client_id_secret)?;
    let authorization = basic(&id, &wanted(secrets, &oauth2.client_secret_secret)?)?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !oauth2.scopes.is_empty() {
        form.append_pair("scope", &oauth2.scopes.join(" "));
    }
    for parameter in &oauth2.endpoint_params {
        form.append_pair(&parameter.key, &parameter.value);
    }
    let form = form.finish();
    Ok(Box::new(move || {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        request(Method::POST, &url, headers, form.clone().into())
    }))
}

fn request(
    method: Method,
    url: &Url,
    headers: HeaderMap,
    body: Body,
) -> Result<Request<Body>, ArtifactError> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = url
        .as_str()
        .parse()
        .map_err(|_| ArtifactError::Unsupported(format!("{} is no URL of HTTP", shown(url))))?;
    *request.headers_mut() = headers;
    Ok(request)
}

async fn head(
    client: &HttpClient,
    request: Request<Body>,
    patience: Option<Duration>,
) -> Result<Response<Incoming>, ArtifactError> {
    let sent = client.send(request);
    let answer = match patience {
        Some(patience) => tokio::time::timeout(patience, sent).await.map_err(|_| {
            ArtifactError::Unavailable(format!("the server does not answer within {patience:?}"))
        })?,
        None => sent.await,
    };
    answer.map_err(|error| ArtifactError::Unavailable(error.to_string()))
}

fn refused(url: &Url, status: StatusCode) -> ArtifactError {
    let what = format!("{} answers {status}", shown(url));
    match status.as_u16() {
        408 | 429 | 500.. => ArtifactError::Unavailable(what),
        _ => ArtifactError::Refused(what),
    }
}

async fn get(client: &HttpClient, url: &Url, headers: HeaderMap) -> Result<Option<Body>, ArtifactError> {
    let (mut url, mut headers) = (url.clone(), headers);
    for _ in 0..=MAX_REDIRECTIONS {
        let request = request(Method::GET, &url, headers.clone(), Body::Empty)?;
        let response = head(client, request, Some(PATIENCE)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if status.is_success() => return Ok(Some(Body::stream(response.into_body()))),
            status if status.is_redirection() => {
                let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                let next = to.and_then(|to| url.join(to).ok());
                let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
                let next = next.ok_or_else(|| refused(&url, status))?;
                if next.origin() != url.origin() {
                    headers.remove(AUTHORIZATION);
                    headers.remove(COOKIE);
                }
                url = next;
            }
            status => return Err(refused(&url, status)),
        }
    }
    Err(ArtifactError::Refused(format!("{}: more than {MAX_REDIRECTIONS} redirections", shown(&url))))
}

impl Store for Site {
    fn put(&self, _: &str, fill: &mut Fill<'_>) -> Result<(), ArtifactError> {
        let (client, url, headers) = (self.client.clone(), self.url.clone(), self.headers()?);
        let send = move |body| async move {
            let request = request(Method::PUT, &url, headers, body)?;
            let response = head(&client, request, None).await?;
            if response.status().is_success() { Ok(()) } else { Err(refused(&url, response.status())) }
        };
        upload(&self.runtime, send, fill)
    }

    fn put_folder(&self, _: &str, _: &cap_std::fs::Dir, path: &str) -> Result<(), ArtifactError> {
        let what =
            format!("{path:?} is a folder, and a URL takes one file: leave out `archive: {{none: {{}}}}`");
        Err(ArtifactError::Unsupported(what))
    }

    fn get(&self, _: &str) -> Result<Option<Box<dyn Read + Send>>, ArtifactError> {
        let headers = self.headers()?;
        let body = interest::wait(&self.runtime, get(&self.client, &self.url, headers))??;
        Ok(body.map(|body| -> Box<dyn Read + Send> { Box::new(Download::new(&self.runtime, body)) }))
    }

    fn list(&self, _: &str, _: &mut Visit<'_>) -> Result<bool, ArtifactError> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, shown};

    #[test]
    fn a_url_in_a_message_has_its_port_and_no_secrets() {
        let cases = [
            ("http://127.0.0.1:8765/a/b", "http://127.0.0.1:8765/a/b"),
            ("https://me:hunter2@Example.com:443/a?sig=hunter2#x", "https://example.com/a"),
            ("http://[::1]:80/", "http://[::1]/"),
        ];
        for (url, expected) in cases {
            assert_eq!(shown(&parse(url).unwrap()), expected);
        }
    }
}
