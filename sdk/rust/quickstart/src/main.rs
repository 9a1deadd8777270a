//! Counts visits by name: `GET /ann`.

use dhow_sdk::{PubSub, State};
use serde_json::json;
use wstd::http::{Body, Request, Response, Result};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let name = request.uri().path().trim_start_matches('/');
    // Reads, changes and writes again, guarded by an etag: no visit is lost.
    let visits: u64 =
        State::open("statestore").update(&format!("visits/{name}"), |before| before.unwrap_or(0) + 1)?;
    if visits == 1 {
        PubSub::open("pubsub").publish("welcome", &json!({ "name": name }))?;
    }
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Body::from(json!({ "name": name, "visits": visits }).to_string()))?)
}
