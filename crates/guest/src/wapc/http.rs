//! HTTP as modules see it: one message with everything in it.

use super::format::{Answer, Format};
use super::operations::Asked;
use super::payloads::{Request, Response};
use crate::failure::Failure;
use crate::outbound::Outbound;
use crate::proxy::unframed;
use crate::redirects;
use bytes::Bytes;
use dhow_blocks::invoke::{Body, Reply};
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use std::collections::HashMap;
use url::Url;

/// Operations of the HTTP client. `Request` is the later name.
pub(super) const OPERATIONS: [&str; 1] = ["PerformRequest"];
const LATER: &str = "Request";

/// A request that came, as the module takes it.
pub(super) fn request(format: Format, head: &Parts, body: &Bytes) -> Result<Bytes, String> {
    let mut header = map(&head.headers);
    // HTTP/2 has the host elsewhere.
    if let Some(authority) = head.uri.authority() {
        header.entry(HOST.as_str().to_owned()).or_insert_with(|| authority.to_string());
    }
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query_string: head.uri.query().unwrap_or_default().to_owned(),
        header,
        body: body.to_vec(),
    };
    format.write(&request).map(Bytes::from)
}

/// The response that a module gave.
pub(super) fn reply(format: Format, bytes: &[u8]) -> Result<Reply, Failure> {
    let response: Response = format.read(bytes).map_err(Failure::ErrorAnswer)?;
    let status = match response.status_code {
        0 => StatusCode::OK,
        code => u16::try_from(code)
            .ok()
            .filter(|code| *code >= 200)
            .and_then(|code| StatusCode::from_u16(code).ok())
            .ok_or_else(|| Failure::ErrorAnswer(format!("{code} is no status of an HTTP response")))?,
    };
    let mut reply = Reply::new(Body::from(response.body));
    *reply.status_mut() = status;
    *reply.headers_mut() = headers(&response.header).map_err(Failure::ErrorAnswer)?;
    unframed(reply.headers_mut());
    Ok(reply)
}

/// Sends a request of the module.
pub(super) async fn perform(
    outbound: &mut Outbound,
    asked: &Asked,
    payload: &[u8],
) -> Result<Answer, String> {
    if !OPERATIONS.contains(&asked.operation.as_str()) && asked.operation != LATER {
        return Err(asked.unknown(&OPERATIONS));
    }
    let Request { method, path, query_string, header, body } = asked.format.read(payload)?;
    let mut url = Url::parse(&path).ok().filter(redirects::is_http).ok_or_else(|| {
        format!("{path:?} is no URL: the path of a request to the outside is the whole URL, with http:// or https://")
    })?;
    if !query_string.is_empty() && url.query().is_none() {
        url.set_query(Some(&query_string));
    }
    let method = match method.as_str() {
        "" => Method::GET,
        method => {
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no HTTP method"))?
        }
    };
    let mut headers = headers(&header)?;
    unframed(&mut headers);
    headers.remove(HOST);
    let room = usize::try_from(outbound.setup.bounds.response_body).unwrap_or(usize::MAX);
    let request = redirects::Asked { url, method, headers, body: body.into() };
    let (status, headers, body) =
        redirects::send(outbound, request, room).await.map_err(|error| error.to_string())?;
    asked.answer(&Response {
        status_code: status.as_u16().into(),
        status: status.canonical_reason().unwrap_or_default().to_owned(),
        header: map(&headers),
        body: body.into(),
    })
}

/// Headers by name; several of one name are one, as RFC 9110 section 5.3 joins them.
fn map(headers: &HeaderMap) -> HashMap<String, String> {
    let values = |name: &HeaderName| {
        let between = if name == http::header::COOKIE { "; " } else { ", " };
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        values.collect::<Vec<_>>().join(between)
    };
    headers.keys().map(|name| (name.as_str().to_owned(), values(name))).collect()
}

fn headers(map: &HashMap<String, String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in map {
        let name: HeaderName =
            name.parse().map_err(|_| format!("{name:?} cannot be the name of a header"))?;
        let value = HeaderValue::try_from(value.as_str())
            .map_err(|_| format!("the value of header {name} has characters that it cannot have"))?;
        headers.try_append(name, value).map_err(|_| "there are more headers than are possible".to_owned())?;
    }
    Ok(headers)
}
