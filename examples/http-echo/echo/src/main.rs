//! An HTTP server with an accept loop of its own: it answers with what it was sent, as it came or reversed.

use hyper::server::conn::Http;
use hyper::service::service_fn;
use hyper::{Body, Method, Request, Response, StatusCode};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "0.0.0.0:8080".to_owned());
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
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(Response::new("POST something to /echo or /echo/reversed\n".into())),
        (&Method::POST, "/echo") => Ok(Response::new(request.into_body())),
        (&Method::POST, "/echo/reversed") => {
            let mut body = hyper::body::to_bytes(request.into_body()).await?.to_vec();
            body.reverse();
            Ok(Response::new(body.into()))
        }
        _ => {
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            Ok(nothing)
        }
    }
}
