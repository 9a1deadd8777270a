//! Answers how often this very instance was called: `1` for ever unless the host uses instances again.
//!
//! `/trap` counts and then executes `unreachable`: a host must not use that instance again.

use std::sync::atomic::{AtomicU32, Ordering};
use wstd::http::{Body, Request, Response, Result};

static CALLS: AtomicU32 = AtomicU32::new(0);

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    if request.uri().path() == "/trap" {
        core::arch::wasm32::unreachable();
    }
    Ok(Response::new(Body::from(format!("{calls}\n"))))
}
