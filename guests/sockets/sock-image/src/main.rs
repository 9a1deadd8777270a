//! Turns images grey, over HTTP, and tells others through Dapr's API what it did.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Method, Request, Response, StatusCode};
use serde_json::json;
use std::error::Error;
use std::io::Cursor;
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0:9005".to_owned());
    let listener = TcpListener::bind(address.as_str()).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = Http::new().serve_connection(stream, service_fn(answer)).await {
                eprintln!("a connection ended early: {error}");
            }
        });
    }
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = hyper::body::to_bytes(body).await?;
    let answer = match (&head.method, head.uri.path()) {
        (&Method::POST, "/grayscale") => grayscale(&body).await,
        (&Method::GET, "/healthz") => dapr("healthz", None).await,
        _ => {
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            return Ok(nothing);
        }
    };
    Ok(answer.map(|text| Response::new(text.into())).unwrap_or_else(|error| {
        let mut failed = Response::new(error.to_string().into());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    }))
}

/// The image as a grey PNG in Base64.
async fn grayscale(image: &[u8]) -> Result<String, Box<dyn Error>> {
    let secret = dapr("secrets/local-store/API_KEY", None).await?;
    let grey = image::load_from_memory(image)?.grayscale();
    let mut png = Cursor::new(Vec::new());
    grey.write_to(&mut png, image::ImageFormat::Png)?;
    let event = json!({ "op_type": "grayscale", "input_size": image.len(), "secret": secret });
    dapr("invoke/events/method/create_event", Some(event.to_string())).await?;
    let state = json!([{ "key": "last", "value": { "input_size": image.len() } }]);
    dapr("state/statestore", Some(state.to_string())).await?;
    Ok(BASE64.encode(png.into_inner()))
}

/// What Dapr's API answers; posts a body if there is one.
async fn dapr(path: &str, body: Option<String>) -> Result<String, Box<dyn Error>> {
    let port = std::env::var("DAPR_HTTP_PORT")?;
    let url = format!("http://localhost:{port}/v1.0/{path}");
    let client = reqwest::Client::new();
    let request = match body {
        Some(body) => client.post(url).header("content-type", "application/json").body(body),
        None => client.get(url),
    };
    let response = request.send().await?;
    let (status, text) = (response.status(), response.text().await?);
    if status.is_success() { Ok(text) } else { Err(format!("{path}: {status} {text}").into()) }
}
