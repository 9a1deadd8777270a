//! The work of the rows `filter` and `inventory`, without a sandbox: a server on one thread at the address in LISTEN.
//!
//! With REDIS set, `?name=book1` is answered with the sentence of the inventory example, from one read of that Redis; else
//! every answer is a greeting. With MARK set, each answer has one header more.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use redis::aio::MultiplexedConnection;
use std::convert::Infallible;
use std::env::var;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind(var("LISTEN")?).await?;
    let redis = match var("REDIS") {
        Ok(address) => Some(redis::Client::open(address)?.get_multiplexed_async_connection().await?),
        Err(_) => None,
    };
    let marks = var("MARK").is_ok();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let redis = redis.clone();
        tokio::spawn(async move {
            let answered = |request| {
                let redis = redis.clone();
                async move { Ok::<_, Infallible>(answer(request, redis, marks).await) }
            };
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answered)).await
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    redis: Option<MultiplexedConnection>,
    marks: bool,
) -> Response<Full<Bytes>> {
    let mut response = match redis {
        Some(redis) => inventory(request.uri().query().unwrap_or_default(), redis).await,
        None => Response::new(Full::from("Hello, world!\n")),
    };
    if marks {
        response.headers_mut().insert("x-marked", HeaderValue::from_static("1"));
    }
    response
}

async fn inventory(query: &str, mut redis: MultiplexedConnection) -> Response<Full<Bytes>> {
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name="));
    let count = match name {
        Some(name) => redis::cmd("GET").arg(name).query_async::<String>(&mut redis).await,
        None => Ok("no".to_owned()),
    };
    match count {
        Ok(count) => Response::new(Full::from(format!(
            "There are {count} inventories for {}.",
            name.unwrap_or_default()
        ))),
        Err(error) => {
            let mut response = Response::new(Full::from(error.to_string()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}
