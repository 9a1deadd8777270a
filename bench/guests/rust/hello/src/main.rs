//! The smallest useful answer: what one request costs when the guest does nearly nothing.

use wstd::http::{Body, Request, Response, Result};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>> {
    Ok(Response::new(Body::from("Hello, world!\n")))
}
