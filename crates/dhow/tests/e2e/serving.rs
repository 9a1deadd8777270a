//! HTTP components: what reaches the guest, what comes back, over both protocols, from every language.

use crate::support::{Setting, guest};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

#[test]
fn components_of_every_language_answer() {
    let setting = Setting::with_manifest(
        r#"
        [apps.rust]
        module = `http-hello`
        routes = ["/rust"]
        [apps.p3]
        module = `p3-http`
        routes = ["/p3"]
        [apps.js]
        module = `js-hello`
        routes = ["/js", "/json"]
        [apps.py]
        module = `py-hello`
        routes = ["/py"]
        "#,
    );
    let host = setting.up(&[]);
    let cases = [
        ("GET", "/rust", "", "hello\n"),
        ("GET", "/p3", "", "hello from WASI 0.3, /p3\n"),
        ("GET", "/js", "", "hello from JavaScript\n"),
        ("POST", "/json", "text", r#"{"method":"POST","path":"/json","body":"text"}"#),
        ("GET", "/py", "", "hello from Python\n"),
    ];
    for (method, path, body, expected) in cases {
        let answer = host.send(method, path, &[], body.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{path}");
    }
    host.stop();
}

#[test]
fn the_guest_sees_the_request_as_it_was_sent() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-echo"), &[]);
    let mut client = host.client();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        let headers =
            [("host", "shop.example:81"), ("x-twice", "one"), ("x-twice", "two"), ("accept", "*/*")];
        // One connection for all: it has to be kept open.
        let seen = client.send(method, "/a%20b//c;d?x=1&y=%2F&", &headers, b"body!").json();
        let expected = json!({
            "method": method,
            "scheme": "http",
            "authority": "shop.example:81",
            "path": "/a%20b//c;d",
            "query": "x=1&y=%2F&",
            "bodyLength": 5,
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(seen[name], *value, "{method}: {name} of {seen}");
        }
        assert_eq!(seen["headers"]["x-twice"], json!(["one", "two"]), "{seen}");
        assert_eq!(seen["headers"]["accept"], json!(["*/*"]), "{seen}");
    }
    for status in [200_u16, 204, 301, 404, 418, 503] {
        let answer = client.send("GET", &format!("/status/{status}"), &[], b"");
        assert_eq!((answer.status, answer.body.len()), (status, 0));
    }
    let head = client.send("HEAD", "/", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    // After an answer without a body, the connection is still in step.
    assert_eq!(client.send("GET", "/", &[], b"").status, 200);
    host.stop();
}

#[test]
fn bodies_stream_both_ways_at_once() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-echo"), &[]);
    let mut client = host.client();
    client
        .write(
            b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-type: text/x\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .unwrap();
    client.write(b"5\r\nfirst\r\n").unwrap();
    // The answer begins before the request has ended.
    let head = client.head().unwrap();
    assert_eq!(
        (head.status, head.header("content-type"), head.header("x-echo")),
        (200, Some("text/x"), Some("yes"))
    );
    assert_eq!(client.chunk().unwrap().as_deref(), Some(&b"first"[..]));
    for round in 0..20 {
        let text = format!("round {round:2}");
        client.write(format!("8\r\n{text}\r\n").as_bytes()).unwrap();
        assert_eq!(client.chunk().unwrap().as_deref(), Some(text.as_bytes()));
    }
    client.write(b"0\r\n\r\n").unwrap();
    assert_eq!(client.chunk().unwrap(), None);

    // Large, and more than any buffer on the way.
    let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let answer = host.send("POST", "/echo", &[], &large);
    assert!(answer.status == 200 && answer.body == large, "{} bytes came back", answer.body.len());
    host.stop();
}

#[test]
fn bodies_of_any_size_arrive_whole() {
    let setting = Setting::new();
    let host = setting.serve(&guest("misbehave"), &[]);
    let mut client = host.client();
    for bytes in [0, 1, 4096, 65_535, 65_536, 65_537, 69_632, 131_072, 300_001, 1_048_576, 5_000_000] {
        let answer = client.send("GET", &format!("/big?bytes={bytes}"), &[], b"");
        assert_eq!((answer.status, answer.body.len()), (200, bytes));
    }
    host.stop();

    let host = setting.serve(&guest("http-chunky"), &[]);
    let mut client = host.client();
    for (pieces, bytes) in [(0, 0), (1, 1), (1, 200_000), (1000, 20), (7, 65_537), (3000, 300)] {
        let answer = client.send("GET", &format!("/?pieces={pieces}&bytes={bytes}"), &[], b"");
        assert_eq!((answer.status, answer.body.len()), (200, pieces * bytes), "{pieces} times {bytes}");
    }
    host.stop();
}

#[test]
fn http2_carries_many_streams_and_trailers() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-echo"), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(host.addr).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut asked = tokio::task::JoinSet::new();
        for number in 0..100 {
            let mut sender = sender.clone();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", number.into());
            let frames = [Frame::data(Bytes::from(format!("body {number}"))), Frame::trailers(trailers)];
            let body = Frames(frames.into());
            let request = http::Request::post(format!("http://{}/echo", host.addr)).body(body).unwrap();
            asked.spawn(async move {
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
                let whole = answer.into_body().collect().await.unwrap();
                let sum = whole.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
                assert_eq!(sum, Some(number.into()), "trailers of {number}");
                assert_eq!(whole.to_bytes(), format!("body {number}"));
            });
        }
        while let Some(result) = asked.join_next().await {
            result.unwrap();
        }
        drop(sender);
        connection.await.unwrap().unwrap();
    });
    host.stop();
}

#[test]
fn a_guest_waits_as_long_as_it_wants_to() {
    let setting = Setting::new();
    let host = setting.serve(&guest("outbound"), &["--allow-host", "127.0.0.1"]);
    // Takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = format!("/fetch?url=http://{}/", silent.local_addr().unwrap());
    let begun = std::time::Instant::now();
    let answer = host.client().send("GET", &path, &[("x-first-byte-ms", "200")], b"");
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.text().contains("HttpResponseTimeout"), "{}", answer.text());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    host.stop();
}

/// Reads the head of a request and what stands in its first line.
fn asked(stream: &mut std::net::TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
}

#[test]
fn a_connection_that_is_closed_meanwhile_costs_no_question() {
    let setting = Setting::new();
    let host = setting.serve(&guest("outbound"), &["--allow-host", "127.0.0.1"]);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let path = format!("/fetch?url=http://{}/", server.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        // Each answers one request, and is closed when the next one has come.
        let seen = (0..2).map(|_| {
            let (mut stream, _) = server.accept().unwrap();
            let first = asked(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes").unwrap();
            [first, asked(&mut stream)]
        });
        let seen = seen.collect::<Vec<_>>().concat();
        server.set_nonblocking(true).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(server.accept().is_err(), "nothing is sent once more that may have had an effect");
        seen
    });
    let expected = json!({"status": 200, "body": "yes"});
    assert_eq!(host.get(&path).json(), expected);
    assert_eq!(host.get(&path).json(), expected, "asked once more");
    let answer = host.send("POST", &path, &[], b"");
    assert_eq!(answer.status, 502);
    // Whether the end of the connection or its reset is seen is up to the system.
    let said = answer.text();
    assert!(said.contains("HttpProtocolError") || said.contains("ConnectionTerminated"), "{said}");
    let get = "GET / HTTP/1.1".to_owned();
    assert_eq!(serving.join().unwrap(), [get.clone(), get.clone(), get, "POST / HTTP/1.1".to_owned()]);
    host.stop();
}

#[test]
fn the_answer_to_head_has_no_body() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-hello"), &[]);
    let length = host.client().send("GET", "/", &[], b"").body.len().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(host.addr).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let request = http::Request::head(format!("http://{}/", host.addr));
            let request = request.body(http_body_util::Empty::<Bytes>::new()).unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 200);
            let told = answer.headers().get("content-length").map(|told| told.to_str().unwrap().to_owned());
            assert!(told.is_none_or(|told| told == length), "{length}");
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), 0);
        }
    });
    host.stop();
}

#[test]
fn requests_go_out_only_where_they_may() {
    let setting = Setting::new();
    let target = setting.serve(&guest("http-hello"), &[]);
    let port = target.addr.port();
    let url = format!("/fetch?url=http://127.0.0.1:{port}/");
    let exact = format!("http://127.0.0.1:{port}");
    // Flags, whether the request goes through.
    let cases: [(&[&str], bool); 8] = [
        (&[], false),
        (&["--allow-host", "*"], true),
        (&["--allow-host", "127.0.0.1"], true),
        (&["--allow-host", &exact], true),
        (&["--grant", &format!("http=127.0.0.1:{port}")], true),
        (&["--allow-host", "127.0.0.1:1"], false),
        (&["--allow-host", "https://127.0.0.1"], false),
        (&["--grant", "connect=127.0.0.1"], false),
    ];
    for (flags, passes) in cases {
        let host = setting.serve(&guest("outbound"), flags);
        let answer = host.get(&url);
        if passes {
            let expected = json!({"status": 200, "body": "hello\n"});
            assert_eq!((answer.status, answer.json()), (200, expected), "{flags:?}");
        } else {
            assert_eq!(answer.status, 502, "{flags:?}: {}", answer.text());
            let said = host.stop();
            assert!(said.contains(&format!("--grant http={exact}")), "{flags:?}: {said}");
        }
    }
    target.stop();
}

/// A body whose frames are all there.
struct Frames(VecDeque<Frame<Bytes>>);

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
