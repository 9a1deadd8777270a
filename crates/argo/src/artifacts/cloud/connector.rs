//! The way of `object_store`'s requests to their servers: the HTTP client of all providers, with bounds.
//!
//! Every answer has a deadline; every answer but an object's content a greatest length; HTTP without TLS is for servers
//! whose URL the user wrote so, and for the metadata servers of machines. What a server says when it refuses is cut down to
//! its code and message, and a refusal that passes is an error of the network, which is tried again.

use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::invoke::Body;
use dhow_providers::http_client::HttpClient;
use dhow_providers::tls::Tls;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use object_store::client::{
    HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use std::error::Error;
use std::io;
use std::time::Duration;

/// A request has to be sent, and its answer has to begin, within this time.
const DEADLINE: Duration = Duration::from_secs(300);

/// Servers of machines' own credentials, which answer at once or, outside of a cloud, never.
const METADATA: [&str; 2] = ["metadata.google.internal", "169.254.169.254"];

/// Such a server has to answer within this time.
const METADATA_DEADLINE: Duration = Duration::from_secs(3);

/// Lists and tokens are shorter.
const MAX_ANSWER: usize = 16 << 20;

/// Parameters of requests for lists and tokens; others may be part of a signature.
const SHORT: [&str; 4] = ["audience=", "comp=", "list-type=", "resource="];

/// Characters of a server's message that are passed on.
const MAX_MESSAGE: usize = 300;

/// Makes clients.
#[derive(Debug)]
pub(super) struct Connector;

#[derive(Debug)]
struct Service {
    client: HttpClient,
    /// HTTP without TLS is allowed.
    is_plain: bool,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<object_store::client::HttpClient> {
        let is_plain =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|text| text == "true");
        let client = HttpClient::new(&Tls::default())
            .map_err(|error| object_store::Error::Generic { store: "TLS", source: error.into() })?;
        Ok(object_store::client::HttpClient::new(Service { client, is_plain }))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.uri().scheme_str() != Some("https") && !self.is_plain {
            let host = request.uri().host().unwrap_or_default();
            let what = format!("{host}: credentials are not sent without TLS; write http:// to allow it");
            return Err(HttpError::new(HttpErrorKind::Unknown, io::Error::other(what)));
        }
        let is_content = is_content(&request);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let deadline = if METADATA.contains(&host.as_str()) { METADATA_DEADLINE } else { DEADLINE };
        let late = || {
            let what = format!("no whole answer of {host} within {deadline:?}");
            HttpError::new(HttpErrorKind::Timeout, io::Error::other(what))
        };
        let sent = self.client.send(request.map(Body::stream));
        let answer = tokio::time::timeout(deadline, sent).await.map_err(|_| late())?;
        let answer = answer.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        let (head, body) = answer.into_parts();
        if is_content && head.status.is_success() {
            let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
            return Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)));
        }
        let whole = tokio::time::timeout(deadline, Limited::new(body, MAX_ANSWER).collect()).await;
        let whole = whole.map_err(|_| late())?.map_err(|error| {
            HttpError::new(HttpErrorKind::Interrupted, io::Error::other(error.to_string()))
        })?;
        let whole = whole.to_bytes();
        if head.status.is_success() {
            return Ok(HttpResponse::from_parts(head, whole.into()));
        }
        let said = said(&whole);
        if is_busy(head.status) {
            let what = format!("the server answers {}{said}", head.status);
            return Err(HttpError::new(HttpErrorKind::Request, io::Error::other(what)));
        }
        let said = said.trim_start_matches([':', ' ']).to_owned();
        Ok(HttpResponse::from_parts(head, said.into()))
    }
}

/// Whether an object's content is asked for, the one answer of any length.
fn is_content(request: &HttpRequest) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::GET
        && !query.split('&').any(|parameter| SHORT.iter().any(|name| parameter.starts_with(name)))
}

/// Another attempt may succeed.
fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// Whether it was the network, or a server that had too much to do.
pub(super) fn is_passing(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
            return matches!(error.kind(), Connect | Interrupted | Request | Timeout);
        }
        cause = error.source();
    }
    false
}

/// `: Code: message`, out of the XML of storage services or the JSON of those that give tokens; else nothing.
fn said(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
    };
    let json = || {
        let value: serde_json::Value = serde_json::from_slice(body).ok()?;
        let field = |pointer| value.pointer(pointer)?.as_str().map(str::to_owned);
        field("/error/message").or_else(|| field("/error_description")).or_else(|| field("/error"))
    };
    let parts = [element("Code"), element("Message").or_else(json)];
    let mut told = String::new();
    for part in parts.into_iter().flatten() {
        told.push_str(": ");
        // Azure goes on with the request's number and the time.
        told.extend(part.lines().next().unwrap_or_default().chars().take(MAX_MESSAGE));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say() {
        for (body, wanted) in [
            ("<Error><Code>AuthFailed</Code><Message>No.\nTime:1</Message></Error>", ": AuthFailed: No."),
            ("<Error><Code>Gone</Code></Error>", ": Gone"),
            (r#"{"error": {"code": 400, "message": "no such account"}}"#, ": no such account"),
            (r#"{"error": "invalid_grant", "error_description": "expired"}"#, ": expired"),
            (r#"{"error": "invalid_grant"}"#, ": invalid_grant"),
            ("<html>busy</html>", ""),
            ("<Code>", ""),
            ("", ""),
        ] {
            assert_eq!(said(&Bytes::from(body)), wanted, "{body}");
        }
    }
}
