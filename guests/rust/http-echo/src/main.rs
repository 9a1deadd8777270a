//! Answers with what it was asked, so that a test sees what reached the guest.
//!
//! `/echo`: the body comes back as it streams in, then its trailers; the content type is kept.
//! `/status/<code>`: that status and no body.
//! Everything else: JSON of method, path, query, headers and the body's length.

use serde_json::{Map, Value, json};
use wstd::http::{Body, Request, Response, Result};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    if path == "/echo" {
        let mut response = Response::builder().header("x-echo", "yes");
        if let Some(kind) = head.headers.get("content-type") {
            response = response.header("content-type", kind);
        }
        return Ok(response.body(body)?);
    }
    if let Some(code) = path.strip_prefix("/status/") {
        return Ok(Response::builder().status(code.parse::<u16>().unwrap_or(400)).body(Body::empty())?);
    }
    // A name that comes several times becomes one entry with several values.
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let values = headers.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Value::Array(list) = values {
            list.push(json!(String::from_utf8_lossy(value.as_bytes())));
        }
    }
    let seen = json!({
        "method": head.method.as_str(),
        "scheme": head.uri.scheme_str(),
        "authority": head.uri.authority().map(|a| a.as_str()),
        "path": path,
        "query": head.uri.query(),
        "headers": headers,
        "bodyLength": body.contents().await?.len(),
    });
    Ok(Response::builder().header("content-type", "application/json").body(Body::from(seen.to_string()))?)
}
