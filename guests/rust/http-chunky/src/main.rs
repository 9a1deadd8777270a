//! Writes its body in many small pieces, each flushed: what a streaming guest costs a host.
//!
//! `?pieces=N&bytes=M`; without a query 1000 pieces of 20 bytes.

use futures_lite::stream;
use wstd::http::{Body, Request, Response, Result};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let pieces = number(query, "pieces").unwrap_or(1000);
    let bytes = number(query, "bytes").unwrap_or(20);
    let piece = "x".repeat(bytes);
    Ok(Response::new(Body::from_stream(stream::iter((0..pieces).map(move |_| piece.clone())))))
}

fn number(query: &str, name: &str) -> Option<usize> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
