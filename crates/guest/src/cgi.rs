//! HTTP requests to programs that only know stdin and stdout: the Common Gateway Interface (RFC 3875).
//!
//! The request's head is in the environment (`REQUEST_METHOD`, `PATH_INFO`, `QUERY_STRING`, `HTTP_*`), its
//! body on stdin; what the program prints is the response: header lines, an empty line, a body. Output that
//! does not begin with a CGI header block is the body of a `text/plain` response.

use crate::command::Command;
use crate::counted::whole;
use crate::failure::Failure;
use crate::output::LineStream;
use crate::setup::{Setup, Stream};
use crate::sockets::Ports;
use crate::store::{Origin, system};
use bytes::Bytes;
use dhow_blocks::invoke::{Body, Invocation, Reply};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};

/// Header lines of a response, all together.
const MAX_HEAD: usize = 64 << 10;

/// Answers one request by running the program.
pub(crate) async fn invoke(command: &Arc<Command>, invocation: Invocation) -> Result<Reply, Failure> {
    let setup = &command.setup;
    let origin = Origin { trace: invocation.trace, depth: invocation.depth };
    let (head, body) = invocation.request.into_parts();
    let body = whole(&head.headers, body, setup.bounds.request_body).await?;
    let ports = Ports::new();
    let mut builder = system(setup, &setup.args, &environment(&head, body.len(), setup), &ports)
        .map_err(|error| Failure::Host(format!("{error:#}")))?;
    let room = usize::try_from(setup.bounds.response_body).unwrap_or(usize::MAX);
    // One more, to tell what is too much from what just fits.
    let stdout = MemoryOutputPipe::new(room.saturating_add(1));
    builder.stdin(MemoryInputPipe::new(body)).stdout(stdout.clone());
    builder.stderr(LineStream::new(setup, Stream::Stderr));
    let code = command.execute(builder, origin, setup.bounds.deadline, ports).await;
    let output = stdout.contents();
    match code {
        _ if output.len() > room => Err(Failure::ResponseTooLarge(setup.bounds.response_body)),
        Ok(0) => response(output),
        Ok(code) => Err(Failure::Exit(code)),
        Err(failure) => Err(failure),
    }
}

/// The meta-variables of RFC 3875 section 4.1.
fn environment(head: &http::request::Parts, length: usize, setup: &Setup) -> Vec<(String, String)> {
    let mut env = vec![
        ("GATEWAY_INTERFACE".to_owned(), "CGI/1.1".to_owned()),
        ("SERVER_SOFTWARE".to_owned(), concat!("dhow/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("SERVER_PROTOCOL".to_owned(), format!("{:?}", head.version)),
        ("SERVER_PORT".to_owned(), port(head)),
        ("SERVER_NAME".to_owned(), host(head).unwrap_or(&setup.scope.app_id).to_owned()),
        ("REQUEST_METHOD".to_owned(), head.method.to_string()),
        ("SCRIPT_NAME".to_owned(), String::new()),
        ("PATH_INFO".to_owned(), decoded(head.uri.path())),
        ("QUERY_STRING".to_owned(), head.uri.query().unwrap_or_default().to_owned()),
        ("CONTENT_LENGTH".to_owned(), length.to_string()),
    ];
    let mut names: Vec<&HeaderName> = head.headers.keys().collect();
    names.sort_by_key(|name| name.as_str());
    for name in names {
        // `Proxy` would become HTTP_PROXY, which many programs obey. The body is whole, with its length.
        if ["proxy", "content-length", "transfer-encoding"].contains(&name.as_str()) {
            continue;
        }
        let values: Vec<_> = head
            .headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let variable = match name {
            &CONTENT_TYPE => "CONTENT_TYPE".to_owned(),
            name => format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_")),
        };
        env.push((variable, values.join(if name == "cookie" { "; " } else { ", " })));
    }
    env
}

/// A path without percent signs (RFC 3875 section 4.1.5); as it came if it would be no text, or end in the middle.
fn decoded(path: &str) -> String {
    match percent_decode_str(path).decode_utf8() {
        Ok(text) if !text.contains('\0') => text.into_owned(),
        _ => path.to_owned(),
    }
}

/// What the client thinks it speaks with.
fn port(head: &http::request::Parts) -> String {
    let host = head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok());
    let named = host.and_then(|host| host.parse::<http::uri::Authority>().ok()?.port_u16());
    head.uri.port_u16().or(named).unwrap_or(80).to_string()
}

fn host(head: &http::request::Parts) -> Option<&str> {
    let host = match head.uri.host() {
        Some(host) => host,
        None => head.headers.get(http::header::HOST)?.to_str().ok()?,
    };
    host.split(':').next().filter(|host| !host.is_empty())
}

/// Reads the program's output: a header block and a body, or only a body.
fn response(output: Bytes) -> Result<Reply, Failure> {
    let Some((head, body_at)) = header_block(&output) else {
        let mut reply = Response::new(Body::from(output));
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        return Ok(reply);
    };
    let bad = |what: String| Failure::ErrorAnswer(format!("its CGI response has {what}"));
    let mut reply = Response::new(Body::from(output.slice(body_at..)));
    for line in head.lines() {
        let Some((name, value)) = line.split_once(':') else { return Err(bad(format!("the line {line:?}"))) };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("status") {
            let code =
                value.split_whitespace().next().and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
            *reply.status_mut() = code.ok_or_else(|| bad(format!("the status {value:?}")))?;
            continue;
        }
        let name = HeaderName::try_from(name).map_err(|_| bad(format!("the header name {name:?}")))?;
        let value = HeaderValue::try_from(value).map_err(|_| bad(format!("a bad value of header {name}")))?;
        if name == http::header::LOCATION && reply.status() == StatusCode::OK {
            *reply.status_mut() = StatusCode::FOUND;
        }
        // The body decides the framing.
        if name != "content-length" && name != "transfer-encoding" && name != "connection" {
            reply.headers_mut().append(name, value);
        }
    }
    Ok(reply)
}

/// The header block and where the body begins, if the output has one: every line up to the first empty one
/// looks like a header, and one of them is of those that RFC 3875 section 6.3 requires.
fn header_block(output: &[u8]) -> Option<(&str, usize)> {
    let searched = &output[..output.len().min(MAX_HEAD)];
    let mut at = 0;
    let mut required = false;
    for line in searched.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?.trim_end_matches('\r');
        if text.is_empty() {
            return (required && at > 0)
                .then(|| std::str::from_utf8(&output[..at]).ok().map(|head| (head, at + line.len())))?;
        }
        let (name, _) = text.split_once(':')?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return None;
        }
        required |=
            ["content-type", "status", "location"].iter().any(|known| name.eq_ignore_ascii_case(known));
        at += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded() {
        for (path, expected) in [
            ("/a%20b/%C3%A9", "/a b/é"),
            ("/a+b", "/a+b"),
            ("/%ff", "/%ff"),
            ("/a%00b", "/a%00b"),
            ("/%zz", "/%zz"),
        ] {
            assert_eq!(decoded(path), expected);
        }
    }

    #[tokio::test]
    async fn output_becomes_a_response() {
        let cases: [(&str, u16, &str, &str); 8] = [
            ("hello\n", 200, "text/plain; charset=utf-8", "hello\n"),
            ("", 200, "text/plain; charset=utf-8", ""),
            ("Content-Type: a/b\n\nbody", 200, "a/b", "body"),
            ("content-type: a/b\r\nStatus: 404 Not Found\r\n\r\nno\r\n", 404, "a/b", "no\r\n"),
            ("Status: 204\n\n", 204, "", ""),
            // No required header, so it is text that happens to have a colon.
            ("note: this\n\nis text", 200, "text/plain; charset=utf-8", "note: this\n\nis text"),
            ("Content-Type: a/b\nno end", 200, "text/plain; charset=utf-8", "Content-Type: a/b\nno end"),
            ("\n\nempty lines first", 200, "text/plain; charset=utf-8", "\n\nempty lines first"),
        ];
        for (output, status, content_type, body) in cases {
            let reply = response(Bytes::from(output)).unwrap();
            assert_eq!(reply.status(), status, "{output:?}");
            let found = reply.headers().get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
            assert_eq!(found, content_type, "{output:?}");
            assert_eq!(reply.into_body().collect(1000).await.unwrap(), body, "{output:?}");
        }
        let redirect = response(Bytes::from("Location: /x\n\n")).unwrap();
        assert_eq!(redirect.status(), 302);
        for bad in ["Status: abc\n\n", "Content-Type: a\u{1}\n\n"] {
            assert!(matches!(response(Bytes::from(bad)), Err(Failure::ErrorAnswer(_))), "{bad:?}");
        }
    }
}
