use serde_json::json;
use wstd::http::{Body, Client, Request, Response, Result, StatusCode};

/// The app's Dapr endpoint. Nothing listens there: the host answers in process.
const STATE: &str = "http://localhost:3500/v1.0/state/statestore";

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    match request.uri().path() {
        "/" => Ok(Response::new(Body::from("Hello from {{name}}!\n"))),
        "/visits" => visits().await,
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::from("not found\n"))?),
    }
}

/// Counts in the state store, so the number survives a restart.
async fn visits() -> Result<Response<Body>> {
    let client = Client::new();
    let mut stored = client.send(Request::get(format!("{STATE}/visits")).body(Body::empty())?).await?;
    let before = stored.body_mut().str_contents().await?.parse().unwrap_or(0_u64);
    let write = json!([{"key": "visits", "value": before + 1}]).to_string();
    let write = Request::post(STATE).header("content-type", "application/json").body(Body::from(write))?;
    let written = client.send(write).await?;
    if !written.status().is_success() {
        return Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(written.into_body())?);
    }
    Ok(Response::new(Body::from(format!("visit {}\n", before + 1))))
}
