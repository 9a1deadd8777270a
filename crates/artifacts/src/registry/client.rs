//! Asking a registry of this kind for modules.

use super::http::escape;
use super::search::Found;
use crate::proxy::Proxies;
use crate::tls;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The whole answer has to be there after this long.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer at most.
const MAX_ANSWER: usize = 64 << 20;

/// Whom to ask.
pub struct Server<'a> {
    /// `http://` or `https://`, host and perhaps port.
    pub url: &'a str,
    /// Name and password.
    pub credentials: Option<(&'a str, &'a str)>,
    /// Certificates (PEM) to trust besides the system's.
    pub ca: Option<&'a Path>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was given cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Nobody answers.
    #[error("no answer from {url}: {reason}; does the registry run, and is the address right?")]
    Connect {
        /// Whom.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The registry says no.
    #[error("{url} answers {status}: {message}")]
    Refused {
        /// Whom.
        url: String,
        /// The status.
        status: StatusCode,
        /// What it said.
        message: String,
    },
    /// It is something else.
    #[error("{url} is not a registry of dhow: {reason}")]
    Foreign {
        /// Whom.
        url: String,
        /// What it said.
        reason: String,
    },
}

/// Searches; each parameter is one of [`super::search::Query::read`].
pub async fn search(server: &Server<'_>, parameters: &[(&str, String)]) -> Result<Found, ClientError> {
    let query: Vec<String> =
        parameters.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect();
    let url = format!("{}/api/v1/search?{}", server.url.trim_end_matches('/'), query.join("&"));
    let shown = crate::url::without_secrets(server.url);
    let uri: Uri =
        url.parse().map_err(|error| ClientError::Invalid(format!("{shown} is no URL: {error}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(ClientError::Invalid(format!("{shown} is no URL that begins with http:// or https://")));
    }
    let is_https = uri.scheme_str() == Some("https");
    let failed = |reason: String| {
        let lower = reason.to_lowercase();
        let is_plain =
            is_https && (lower.contains("corrupt message") || lower.contains("invalidcontenttype"));
        let advice =
            if is_plain { "; it seems to speak plain HTTP: write http:// before its name" } else { "" };
        ClientError::Connect { url: shown.clone(), reason: format!("{reason}{advice}") }
    };
    let ours = server.ca.map(|file| {
        tls::certificates(file)
            .map_err(|reason| ClientError::Invalid(format!("{} cannot be used: {reason}", file.display())))
    });
    let proxies = Arc::new(Proxies::of_user());
    let connector =
        tls::connector(ours.transpose()?.unwrap_or_default(), &proxies).map_err(ClientError::Invalid)?;
    let through = proxies.authorization(&uri);
    let mut request = Request::get(uri)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("dhow/", env!("CARGO_PKG_VERSION")));
    if let Some((name, password)) = server.credentials {
        let credentials = BASE64_STANDARD.encode(format!("{name}:{password}"));
        request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
    }
    if let Some(who) = through {
        request = request.header(PROXY_AUTHORIZATION, who);
    }
    let request =
        request.body(Empty::<Bytes>::new()).map_err(|error| ClientError::Invalid(error.to_string()))?;
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let asked = async {
        let answer = client.request(request).await.map_err(|error| failed(crate::url::chain(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok::<_, ClientError>((status, body.map_err(|error| failed(error.to_string()))?.to_bytes()))
    };
    let (status, body) =
        tokio::time::timeout(DEADLINE, asked).await.map_err(|_| failed("time is up".to_owned()))??;
    if !status.is_success() {
        return Err(ClientError::Refused { url: shown.clone(), status, message: message(&body) });
    }
    serde_json::from_slice(&body)
        .map_err(|error| ClientError::Foreign { url: shown.clone(), reason: error.to_string() })
}

/// What an answer says in the specification's form, or its beginning.
fn message(body: &[u8]) -> String {
    let said: Option<String> = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|said| said.pointer("/errors/0/message")?.as_str().map(str::to_owned));
    said.unwrap_or_else(|| String::from_utf8_lossy(body).chars().take(200).collect())
}
