//! Modules from files and from a real HTTP server on loopback.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use bytes::Bytes;
use dhow_artifacts::error::FetchError;
use dhow_artifacts::sniff::FileKind;
use dhow_artifacts::{DEFAULT_LIMIT, Source, read_module};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const MODULE: &[u8] = b"\0asm\x01\0\0\0";

async fn read(text: &str, limit: u64) -> Result<Bytes, FetchError> {
    read_module(&Source::parse(text), limit, |_, _| {}).await
}

/// A server that knows a few files and redirections.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(
                async move { builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await },
            );
        }
    });
    addr
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let to = |status: u16, location: &str| {
        Response::builder().status(status).header("location", location).body(Full::default()).unwrap()
    };
    let path = request.uri().path();
    Ok(match path {
        "/a.wasm" => Response::new(Full::from(MODULE)),
        "/a.wat" => Response::new(Full::from("(module)")),
        "/page" => Response::new(Full::from("<!doctype html>")),
        "/empty" => Response::new(Full::default()),
        "/big" => Response::new(Full::from(vec![0; 100_000])),
        "/agent" if request.headers()["user-agent"].to_str().unwrap().starts_with("dhow/") => {
            Response::new(Full::from(MODULE))
        }
        "/relative" => to(302, "a.wasm"),
        "/absolute" => to(307, "/a.wasm"),
        "/loop" => to(301, "/loop"),
        "/nowhere" => to(303, "ftp://x/y"),
        "/bare" => Response::builder().status(302).body(Full::default()).unwrap(),
        _ => match path.strip_prefix("/hops/").map(|hops| hops.parse::<u8>().unwrap()) {
            Some(0) => to(302, "/a.wasm"),
            Some(hops) => to(308, &(hops - 1).to_string()),
            None => Response::builder().status(StatusCode::NOT_FOUND).body(Full::default()).unwrap(),
        },
    })
}

#[tokio::test]
async fn urls() {
    let addr = serve().await;
    for path in ["a.wasm", "a.wasm?token=x#part", "absolute", "relative", "hops/4", "agent"] {
        let bytes = read(&format!("http://{addr}/{path}"), DEFAULT_LIMIT).await;
        assert_eq!(bytes.unwrap_or_else(|error| panic!("{path}: {error}")), MODULE);
    }
    assert_eq!(read(&format!("http://{addr}/a.wat"), 8).await.unwrap(), "(module)");
    let cases = [
        ("missing?token=hunter2", "404 Not Found; check the URL"),
        ("page", "looks like an HTML page; the URL probably names a page"),
        ("empty", "looks like an empty file"),
        ("big", "larger than the limit of 50000 bytes"),
        ("loop", "more than 5 redirections"),
        ("hops/5", "more than 5 redirections"),
        ("nowhere", "only http:// and https://"),
        ("bare", "names no place"),
    ];
    for (path, part) in cases {
        let error = read(&format!("http://{addr}/{path}"), 50_000).await.unwrap_err().to_string();
        assert!(error.contains(part), "{path}: {error}");
        assert!(error.contains(&addr.to_string()) && !error.contains("hunter2"), "{path}: {error}");
    }
    for (url, part) in [
        ("http://u:hunter2@127.0.0.1/a.wasm", "are not sent"),
        ("http://", "cannot be fetched"),
        ("http://a b/", "cannot be fetched"),
        ("https://", "cannot be fetched"),
    ] {
        let error = read(url, 10).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{url}: {error}");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_the_cause() {
    // A port that was free a moment ago, and whose listener is gone.
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = read(&format!("http://{addr}/a.wasm"), 10).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    // TLS against a server that speaks plain HTTP.
    let addr = serve().await;
    let error = read(&format!("https://{addr}/a.wasm"), 10).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_broken_or_endless_answer_is_an_error() {
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000));
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n\0asm", "broke off after 4 bytes"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n\0asm", "larger than"),
        (endless.as_str(), "larger than the limit of 1000 bytes"),
        ("220 smtp ready\r\n", "no answer for"),
        ("", "no answer for"),
    ];
    for (answer, part) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a.wasm", listener.local_addr().unwrap());
        let send = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            // The client may hang up as soon as it has seen enough.
            let _ = stream.write_all(answer.as_bytes()).await;
        };
        let (result, ()) = tokio::join!(read(&url, 1000), send);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn files() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let big = [MODULE, &vec![7; 1_000_000]].concat();
    for (name, bytes) in
        [("front.wasm", MODULE), ("big.wasm", &big), ("native", b"\x7fELF"), ("x.gz", b"\x1f\x8b")]
    {
        std::fs::write(path(name), bytes).unwrap();
    }
    assert_eq!(read(&path("front.wasm"), 8).await.unwrap(), MODULE);

    let mut seen = Vec::new();
    let source = Source::parse(&path("big.wasm"));
    let bytes = read_module(&source, DEFAULT_LIMIT, |read, total| seen.push((read, total))).await.unwrap();
    let length = big.len() as u64;
    assert_eq!(bytes, big);
    assert_eq!(seen.last(), Some(&(length, Some(length))));
    assert!(seen.is_sorted_by_key(|(read, _)| *read));

    let error = read(&path("fornt.wasm"), 8).await.unwrap_err();
    assert!(
        matches!(&error, FetchError::NotFound { nearest: Some(name), .. } if name == "front.wasm"),
        "{error}"
    );
    assert!(error.to_string().contains("fornt.wasm does not exist; did you mean \"front.wasm\""), "{error}");
    let error = read(&path("nothing-like-it"), 8).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { nearest: None, .. }), "{error}");
    assert!(matches!(read(&path(""), 8).await.unwrap_err(), FetchError::IsDirectory { .. }));
    assert!(matches!(read(&path("front.wasm/x"), 8).await.unwrap_err(), FetchError::Unreadable { .. }));
    assert!(matches!(read("a\0b", 8).await.unwrap_err(), FetchError::Unreadable { .. }));
    let error = read(&path("big.wasm"), 999).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { limit: 999, .. }), "{error}");
    for (name, kind) in [("native", FileKind::Elf), ("x.gz", FileKind::Gzip)] {
        let error = read(&path(name), 999).await.unwrap_err();
        assert!(matches!(error, FetchError::NotWasm { kind: found, .. } if found == kind), "{error}");
    }
}
