//! Publishes many messages inside one request, `/?n=N`, and answers how long one took. The loop is inside the guest so
//! that nothing but the publishing is measured.

use std::time::Instant;

use wstd::http::{Body, Request, Response, Result, StatusCode};

wit_bindgen::generate!({ path: "../../../../wit/runtime", world: "dhow:runtime/imports", generate_all });

use dhow::runtime::pubsub::{self, Message};

const MOST: usize = 100_000;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let number = request.uri().query().and_then(|query| query.strip_prefix("n=")?.parse::<usize>().ok());
    let Some(number) = number else { return Ok(Response::new(Body::from("ready\n"))) };
    let mut times = Vec::new();
    for _ in 0..number.min(MOST) {
        let start = Instant::now();
        let message = Message {
            data: b"{}".to_vec(),
            content_type: Some("application/json".to_owned()),
            metadata: Vec::new(),
        };
        if let Err(error) = pubsub::publish("messages", "orders", &message) {
            let mut response = Response::new(Body::from(format!("{error:?}\n")));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(response);
        }
        times.push(start.elapsed().as_nanos());
    }
    times.sort_unstable();
    let at = |quantile: usize| times.get(times.len() * quantile / 100).copied().unwrap_or(0);
    Ok(Response::new(Body::from(format!("{{\"p50_ns\":{},\"p99_ns\":{}}}\n", at(50), at(99)))))
}
