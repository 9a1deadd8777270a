//! Reads one key many times inside one request and answers how long a read took.
//!
//! `/kv?store=NAME&n=N` reads through wasi:keyvalue; `/dapr?store=NAME&n=N` through the guest's own HTTP
//! client and Dapr's HTTP API. The loop is inside the guest so that nothing but the read is measured.

use std::time::Instant;

use wstd::http::{Body, Client, Request, Response, Result, StatusCode};

wit_bindgen::generate!({ path: "../../../../wit/keyvalue", world: "wasi:keyvalue/imports" });

use wasi::keyvalue::store;

const KEY: &str = "bench-key";
const VALUE: &[u8] = b"\"a value of a usual, short size: 48 bytes of it\"";
/// Reads between two looks at the clock: a look costs about as much as a fast read.
const BATCH: usize = 20;
const MOST_READS: usize = 1_000_000;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let query = request.uri().query().unwrap_or_default();
    let store = parameter(query, "store").unwrap_or("statestore");
    let reads = parameter(query, "n").and_then(|n| n.parse().ok()).unwrap_or(10_000).clamp(BATCH, MOST_READS);
    let timed = match request.uri().path() {
        "/kv" => key_value(store, reads),
        "/dapr" => dapr(store, reads).await,
        "/" => return Ok(Response::new(Body::from("ready\n"))),
        path => return answer(StatusCode::NOT_FOUND, format!("no such route: {path}\n")),
    };
    match timed {
        Ok(nanoseconds) => answer(StatusCode::OK, summary(nanoseconds)),
        Err(reason) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")),
    }
}

/// Nanoseconds a read, one figure a batch.
fn key_value(name: &str, reads: usize) -> std::result::Result<Vec<u64>, String> {
    let bucket = store::open(name).map_err(|e| format!("opening {name}: {e:?}"))?;
    bucket.set(KEY, VALUE).map_err(|e| format!("writing: {e:?}"))?;
    let mut batches = Vec::with_capacity(reads / BATCH);
    for _ in 0..reads / BATCH {
        let start = Instant::now();
        for _ in 0..BATCH {
            let value = bucket.get(KEY).map_err(|e| format!("reading: {e:?}"))?;
            if value.as_deref() != Some(VALUE) {
                return Err("read another value than was written".to_owned());
            }
        }
        batches.push(start.elapsed().as_nanos() as u64 / BATCH as u64);
    }
    Ok(batches)
}

/// Nanoseconds a read; the value is written through wasi:keyvalue, so both ways must meet at one key.
async fn dapr(name: &str, reads: usize) -> std::result::Result<Vec<u64>, String> {
    let bucket = store::open(name).map_err(|e| format!("opening {name}: {e:?}"))?;
    bucket.set(KEY, VALUE).map_err(|e| format!("writing: {e:?}"))?;
    let uri = format!("http://localhost:3500/v1.0/state/{name}/{KEY}");
    let client = Client::new();
    let mut times = Vec::with_capacity(reads);
    for _ in 0..reads {
        let start = Instant::now();
        let request = Request::get(&uri).body(Body::empty()).map_err(|e| e.to_string())?;
        let response = client.send(request).await.map_err(|e| format!("GET {uri}: {e}"))?;
        let status = response.status();
        let mut body = response.into_body();
        let value = body.contents().await.map_err(|e| format!("reading the body of {uri}: {e}"))?;
        if status != StatusCode::OK || value != VALUE {
            return Err(format!("GET {uri}: status {status}, {} bytes", value.len()));
        }
        times.push(start.elapsed().as_nanos() as u64);
    }
    Ok(times)
}

fn summary(mut nanoseconds: Vec<u64>) -> String {
    nanoseconds.sort_unstable();
    let at = |quantile: usize| nanoseconds.get(nanoseconds.len() * quantile / 100).copied().unwrap_or(0);
    format!("{{\"samples\":{},\"p50_ns\":{},\"p99_ns\":{}}}\n", nanoseconds.len(), at(50), at(99))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
}

fn answer(status: StatusCode, body: String) -> Result<Response<Body>> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    Ok(response)
}
