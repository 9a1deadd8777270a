//! Sends HTTP requests of its own.
//!
//! `/fetch?url=URL` (to the end of the query, not encoded): sends method, body and content type of its own
//! request there and answers JSON of status and body, or of the error with status 502.
//! The header `x-first-byte-ms` says how many milliseconds it waits for an answer at most.
//! `/dapr/<path>`: the same request to `http://localhost:3500/<path>`; the answer comes back unchanged.

use serde_json::json;
use wstd::http::{Body, Client, Request, Response, Result};
use wstd::time::Duration;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let target = request.uri().path_and_query().map(|p| p.as_str()).unwrap_or_default();
    if let Some(path) = target.strip_prefix("/dapr") {
        let url = format!("http://localhost:3500{path}");
        return send(request, &url).await;
    }
    let Some(url) = target.strip_prefix("/fetch?url=").map(str::to_owned) else {
        return Ok(Response::builder()
            .status(404)
            .body(Body::from("try /fetch?url=URL or /dapr/<path>\n"))?);
    };
    let (status, answer) = match send(request, &url).await {
        Ok(response) => {
            let (head, mut body) = response.into_parts();
            (
                200,
                json!({"status": head.status.as_u16(), "body": String::from_utf8_lossy(body.contents().await?)}),
            )
        }
        Err(error) => (502, json!({"error": format!("{error:#}")})),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Body::from(answer.to_string()))?)
}

async fn send(request: Request<Body>, url: &str) -> Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let mut outgoing = Request::builder().method(head.method).uri(url);
    for name in ["content-type", "if-match", "traceparent"] {
        if let Some(value) = head.headers.get(name) {
            outgoing = outgoing.header(name, value);
        }
    }
    let body = body.bytes_contents().await?;
    let mut client = Client::new();
    if let Some(limit) = head.headers.get("x-first-byte-ms") {
        client.set_first_byte_timeout(Duration::from_millis(limit.to_str()?.parse()?));
    }
    client.send(outgoing.body(Body::from(body))?).await
}
