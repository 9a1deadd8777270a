//! An HTTP server of the standard library alone, as a component: an accept loop over wasi:sockets, one connection after
//! the other, one request each.
//!
//! `POST /echo` sends back what came, `GET /state` what the state store has under `greeting` (through a socket of its own
//! to the Dapr endpoint), `GET /connect` whether it may connect elsewhere, and `GET /end` ends the program.

use std::env;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::{TcpListener, TcpStream};

fn main() -> Result<(), Error> {
    let address = env::var("LISTEN").unwrap_or("127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("bound to {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        match serve(stream) {
            Ok(path) if path == "/end" => return Ok(()),
            Ok(_) => {}
            Err(error) => eprintln!("a connection failed: {error}"),
        }
    }
}

/// Answers one request; the answer is its path.
fn serve(stream: TcpStream) -> Result<String, Error> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, answer) = match (method, path) {
        ("GET", "/" | "/end") => ("200 OK", b"a component\n".to_vec()),
        ("POST", "/echo") => ("200 OK", body),
        ("GET", "/state") => match state() {
            Ok(answer) => ("200 OK", answer.into_bytes()),
            Err(error) => ("502 Bad Gateway", error.to_string().into_bytes()),
        },
        ("GET", "/connect") => match TcpStream::connect(env::var("ELSEWHERE").unwrap_or_default()) {
            Ok(_) => ("200 OK", b"connected".to_vec()),
            Err(error) => ("502 Bad Gateway", format!("{:?}", error.kind()).into_bytes()),
        },
        _ => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(&answer)?;
    Ok(path.to_owned())
}

/// Two requests over one connection to the Dapr endpoint: one that writes, and one that reads.
fn state() -> Result<String, Error> {
    let port = env::var("DAPR_HTTP_PORT").unwrap_or("3500".to_owned());
    let stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    assert_eq!(stream.peer_addr()?.port().to_string(), port);
    let mut reader = BufReader::new(&stream);
    let body = r#"[{"key":"greeting","value":"hello from a socket"}]"#;
    let mut answer = String::new();
    for request in [
        format!(
            "POST /v1.0/state/statestore HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ),
        "GET /v1.0/state/statestore/greeting HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
    ] {
        (&stream).write_all(request.as_bytes())?;
        let mut length = 0;
        let mut status = String::new();
        reader.read_line(&mut status)?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let status = status.split_whitespace().nth(1).unwrap_or_default().to_owned();
        answer = format!("{status} {}", String::from_utf8_lossy(&body));
    }
    Ok(answer)
}
