//! The smallest HTTP component: one line for every request.

use wstd::http::{Body, Request, Response, Result};

#[wstd::http_server]
async fn main(_request: Request<Body>) -> Result<Response<Body>> {
    Ok(Response::new(Body::from("hello\n")))
}
