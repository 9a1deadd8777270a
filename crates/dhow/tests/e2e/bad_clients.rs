//! Clients that send nonsense, too much, too slowly, or nothing at all.

use crate::support::{Setting, eventually, guest, http::Client};
use std::io::Write;
use std::net::TcpStream;

#[test]
fn what_is_not_http_is_refused_and_nobody_else_notices() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-hello"), &[]);
    let long = "x".repeat(100_000);
    let many: String = (0..2000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    // What is sent, and the statuses that are right; none means that the connection is just closed.
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("noise", (0..=255).cycle().take(4096).collect(), &[400]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400]),
        ("no version", b"GET /\r\n\r\n".to_vec(), &[400]),
        ("odd version", b"GET / HTTP/7.3\r\nhost: a\r\n\r\n".to_vec(), &[400, 505]),
        ("blank in a name", b"GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n".to_vec(), &[400]),
        ("control character", b"GET / HTTP/1.1\r\nhost: a\r\nx: \x01\x00\r\n\r\n".to_vec(), &[400]),
        ("long header", format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n").into_bytes(), &[431]),
        ("long name", format!("GET / HTTP/1.1\r\nhost: a\r\n{long}: x\r\n\r\n").into_bytes(), &[431]),
        ("many headers", format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n").into_bytes(), &[431]),
        ("long path", format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes(), &[414, 431]),
        ("no length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_vec(), &[400]),
        (
            "two lengths",
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx".to_vec(),
            &[400],
        ),
        ("negative length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n".to_vec(), &[400]),
        (
            "unknown coding",
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, rot13\r\n\r\n".to_vec(),
            &[400],
        ),
    ];
    for (name, bytes, statuses) in cases {
        let mut client = host.client();
        // It may have stopped reading before it has everything.
        let _ = client.write(&bytes);
        match client.response("GET") {
            Ok(answer) => {
                assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
                assert!(client.is_closed(), "{name}: the connection cannot go on");
            }
            Err(error) => assert!(statuses.contains(&431) || statuses.contains(&400), "{name}: {error}"),
        }
        assert_eq!(host.get("/").text(), "hello\n", "after {name}");
    }
    host.stop();
}

#[test]
fn the_end_of_a_request_is_no_matter_of_opinion() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-echo"), &[]);
    // Both framings: the length must not hide a second request.
    let mut client = host.client();
    client
        .write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /status/204 HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    let answer = client.response("POST").unwrap();
    assert!(answer.status == 400 || answer.text() == "abc", "{answer:?}");
    assert!(client.is_closed(), "what follows is not trusted");
    // Chunks that are none: the guest sees a broken body, the client a broken answer or an error.
    for chunk in ["zz\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "3\r\nabcdef\r\n"] {
        let mut client = host.client();
        client
            .write(
                format!("POST /count HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunk}")
                    .as_bytes(),
            )
            .unwrap();
        if let Ok(answer) = client.response("POST") {
            assert!(answer.status >= 400, "{chunk:?}: {answer:?}");
        }
    }
    // A body that is broken off.
    let mut client = host.client();
    client.write(b"POST /count HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nonly this").unwrap();
    drop(client);
    assert_eq!(host.get("/status/200").status, 200);
    host.stop();
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-echo"), &[]);
    let mut client = host.client();
    let row: String = (0..50).map(|n| format!("GET /n/{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    client.write(row.as_bytes()).unwrap();
    for n in 0..50 {
        assert_eq!(client.response("GET").unwrap().json()["path"], format!("/n/{n}"));
    }
    client.write(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(client.response("GET").unwrap().status, 200);
    assert!(client.is_closed(), "HTTP/1.0 keeps no connection");
    host.stop();
}

#[test]
fn slow_and_silent_clients_cost_little() {
    let setting = Setting::new();
    let host = setting.serve(&guest("http-hello"), &[]);
    assert_eq!(host.get("/").status, 200);
    let before = host.memory();
    let silent: Vec<TcpStream> = (0..500).map(|_| TcpStream::connect(host.addr).unwrap()).collect();
    let mut slow: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(host.addr).unwrap()).collect();
    let mut client = host.client();
    // Each round one more byte of each head, and a request of a client that behaves.
    for byte in b"GET / HTTP/1.1\r\nhost: a\r\nx: never-to-be-finished" {
        for stream in &mut slow {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(client.send("GET", "/", &[], b"").text(), "hello\n");
    }
    let more = host.memory().saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes for {} connections", silent.len() + slow.len());
    // They are dropped when the host goes, and do not hold it up.
    let since = std::time::Instant::now();
    host.stop();
    assert!(since.elapsed().as_secs() < 10, "stopping took {:?}", since.elapsed());
    drop((silent, slow));
}

#[test]
fn a_client_that_does_not_read_holds_up_only_itself() {
    let setting = Setting::with_manifest(
        "[apps.big]\nmodule = `misbehave`\nroutes = [\"/\"]\nlimits = { timeout = \"2s\" }\n[apps.good]\nmodule = `http-hello`\nroutes = [\"/good\"]\n",
    );
    let host = setting.up(&[]);
    let before = host.memory();
    let mut deaf: Vec<Client> = (0..20).map(|_| host.client()).collect();
    for client in &mut deaf {
        client.write(b"GET /big?bytes=60000000 HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    }
    eventually("all to run", || (host.metric("dhow_invocations_running", "big") == 20.0).then_some(()));
    for _ in 0..50 {
        assert_eq!(host.get("/good").text(), "hello\n");
    }
    let more = host.memory().saturating_sub(before);
    assert!(more < 200 << 20, "{more} bytes for {} clients", deaf.len());
    eventually("their deadline", || (host.metric("dhow_invocations_running", "big") == 0.0).then_some(()));
    host.stop();
}
