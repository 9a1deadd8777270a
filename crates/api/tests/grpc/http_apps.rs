//! Apps outside that speak HTTP: plain, with prior knowledge of HTTP/2, and behind TLS.

use crate::app::Echo;
use crate::apps::{call, collect, endpoint};
use crate::support::{header, serve, within};
use bytes::Bytes;
use dhow_api::channel::Endpoint;
use dhow_api::channel::http::HttpChannel;
use dhow_blocks::invoke::{Body, Channel, Invocation, InvokeError, Trigger};
use futures::StreamExt as _;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

#[tokio::test]
async fn requests_are_forwarded_as_they_are() {
    let plain = serve(Echo).await;
    let tls = serve_tls().await;
    for (what, address, tls, http2) in [
        ("http", plain, false, false),
        ("h2c", plain, false, true),
        ("https", tls, true, false),
        ("https, only HTTP/2", tls, true, true),
    ] {
        let channel = HttpChannel::new(Endpoint { tls, ..endpoint(address) }, http2).unwrap();
        for (method, path, body, status) in [
            (Method::POST, "/a%2Fb?c=d", "hello", StatusCode::OK),
            (Method::GET, "/", "", StatusCode::OK),
            (Method::DELETE, "/teapot", "", StatusCode::IM_A_TEAPOT),
        ] {
            let reply =
                call(&channel, Trigger::App, method.clone(), path, "text/x", body.to_owned()).await.unwrap();
            assert_eq!(reply.status(), status, "{what} {path}");
            let headers = reply.headers().clone();
            let found = (header(&headers, "x-path"), header(&headers, "x-method"));
            assert_eq!(found, (path, method.as_str()), "{what}");
            let found = (header(&headers, "content-type"), header(&headers, "x-token"));
            assert_eq!(found, ("text/x", "for the app"), "{what}");
            assert!(headers.contains_key("x-trace"), "{what}");
            assert_eq!(&collect(reply).await[..], body.as_bytes(), "{what} {path}");
        }
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let address = serve(Echo).await;
    for http2 in [false, true] {
        let channel = HttpChannel::new(endpoint(address), http2).unwrap();
        let (up, received) = mpsc::channel::<Bytes>(1);
        let frames = futures::stream::unfold(received, |mut received| async {
            received.recv().await.map(|data| (data, received))
        });
        let frames = frames.map(|data| Ok::<_, std::io::Error>(Frame::data(data)));
        let request = http::Request::post("/talk").body(Body::stream(StreamBody::new(frames))).unwrap();
        let reply = within("the head", channel.invoke(Invocation::new(request, Trigger::App))).await.unwrap();
        let mut body = reply.into_body();
        for text in ["one", "two"] {
            up.send(Bytes::from_static(text.as_bytes())).await.unwrap();
            let frame = within("an echo", body.frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), text, "HTTP/2: {http2}");
        }
        drop(up);
        let end = within("the end", body.frame()).await.transpose().unwrap();
        assert!(end.is_none_or(|frame| frame.is_trailers()), "HTTP/2: {http2}");
    }
}

#[tokio::test]
async fn an_app_that_is_away_or_hangs_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = listener.local_addr().unwrap();
    drop(listener);
    let channel = HttpChannel::new(endpoint(away), false).unwrap();
    let error = call(&channel, Trigger::App, Method::GET, "/", "", String::new()).await.unwrap_err();
    assert!(matches!(error, InvokeError::Unreachable { .. }), "{error}");
    let hanging = Endpoint { deadline: Duration::from_millis(100), ..endpoint(serve(Echo).await) };
    let channel = HttpChannel::new(hanging, false).unwrap();
    let error = call(&channel, Trigger::App, Method::GET, "/hang", "", String::new()).await.unwrap_err();
    assert!(matches!(error, InvokeError::DeadlineExceeded { .. }), "{error}");
    let error =
        HttpChannel::new(Endpoint { host: "no host".to_owned(), ..endpoint(away) }, false).err().unwrap();
    assert!(error.contains("no host"), "{error}");
}

/// Serves [`Echo`] behind TLS, with a certificate that nobody signed.
async fn serve_tls() -> SocketAddr {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=somebody", "-keyout", "key.pem", "-out", "certificate.pem"])
        .current_dir(&folder)
        .output()
        .expect("the program openssl makes the certificate of this test: install the package openssl");
    assert!(made.status.success(), "{made:?}");
    let certificate = CertificateDer::from_pem_file(folder.path().join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.path().join("key.pem")).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
                    use dhow_api::server::Face as _;
                    Ok::<_, std::convert::Infallible>(Arc::new(Echo).answer(request.map(Body::stream)).await)
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}
