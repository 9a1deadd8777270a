//! Modules from HTTP and HTTPS servers.
//!
//! The server is not trusted: its redirections are few and never lead from HTTPS to HTTP, its body is
//! bounded, and it may not be silent for long.

use crate::Received;
use crate::error::FetchError;
use crate::proxy::Proxies;
use crate::tls;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to be connected and to begin its answer, and how long it may be silent later.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const MAX_REDIRECTS: usize = 5;

/// Fetches a file.
pub(crate) async fn read(
    url: &str,
    limit: u64,
    deadline: Duration,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<Bytes, FetchError> {
    let proxies = Arc::new(Proxies::of_user());
    let client = client(url, &proxies)?;
    let mut uri = parse(url)?;
    for _ in 0..=MAX_REDIRECTS {
        let shown = without_secrets(&uri.to_string());
        let timeout =
            |received| FetchError::Timeout { url: shown.clone(), received, seconds: deadline.as_secs_f32() };
        let mut request = Request::get(&uri)
            .header(ACCEPT, "application/wasm, */*;q=0.5")
            .header(USER_AGENT, concat!("dhow/", env!("CARGO_PKG_VERSION")));
        if let Some(who) = proxies.authorization(&uri) {
            request = request.header(PROXY_AUTHORIZATION, who);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| FetchError::BadUrl { url: shown.clone(), reason: error.to_string() })?;
        let response = tokio::time::timeout(deadline, client.request(request))
            .await
            .map_err(|_| timeout(0))?
            .map_err(|error| FetchError::Connect { url: shown.clone(), reason: chain(&error) })?;
        let status = response.status();
        if status.is_success() {
            return body(response, &shown, limit, deadline, progress).await;
        }
        if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(FetchError::Status { url: shown, status });
        }
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let next = location
            .ok_or("it names no place that can be read".to_owned())
            .and_then(|location| resolve(&uri, location));
        uri = next.map_err(|reason| FetchError::Redirect { url: shown, reason })?;
    }
    let reason = format!("more than {MAX_REDIRECTS} redirections follow one another");
    Err(FetchError::Redirect { url: without_secrets(url), reason })
}

async fn body(
    response: Response<Incoming>,
    shown: &str,
    limit: u64,
    deadline: Duration,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<Bytes, FetchError> {
    let total = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let mut received = Received::new(shown, limit, total)?;
    let mut body = response.into_body();
    loop {
        let so_far = received.bytes.len() as u64;
        let frame = tokio::time::timeout(deadline, body.frame()).await.map_err(|_| FetchError::Timeout {
            url: shown.to_owned(),
            received: so_far,
            seconds: deadline.as_secs_f32(),
        })?;
        let interrupted = |error: hyper::Error| FetchError::Interrupted {
            url: shown.to_owned(),
            received: so_far,
            reason: chain(&error),
        };
        match frame.transpose().map_err(interrupted)? {
            None => return Ok(received.bytes.freeze()),
            Some(frame) => {
                if let Ok(data) = frame.into_data() {
                    received.bytes.extend_from_slice(&data);
                    received.arrived(progress)?;
                }
            }
        }
    }
}

fn client(url: &str, proxies: &Arc<Proxies>) -> Result<Client<tls::Connector, Empty<Bytes>>, FetchError> {
    let failed = |reason| FetchError::Connect { url: without_secrets(url), reason };
    let connector = tls::connector(Vec::new(), proxies).map_err(failed)?;
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn parse(url: &str) -> Result<Uri, FetchError> {
    let bad = |reason: String| FetchError::BadUrl { url: without_secrets(url), reason };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
    check(&uri).map_err(bad)?;
    Ok(uri)
}

fn check(uri: &Uri) -> Result<(), String> {
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("only http:// and https:// can be fetched".to_owned());
    }
    let authority =
        uri.authority().filter(|authority| !authority.host().is_empty()).ok_or("it has no host")?;
    if authority.as_str().contains('@') {
        return Err(
            "user name and password in a URL are not sent; download the file and name the path".to_owned()
        );
    }
    Ok(())
}

/// Where a `Location` leads from here (RFC 9110, section 10.2.2; RFC 3986, section 5.2).
pub(crate) fn resolve(from: &Uri, location: &str) -> Result<Uri, String> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let absolute = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') || location.is_empty() {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    let uri: Uri = absolute.parse().map_err(|error| format!("its place is not a URL: {error}"))?;
    check(&uri)?;
    if scheme == "https" && uri.scheme_str() == Some("http") {
        return Err("it leads from HTTPS to HTTP, where anybody could change the file".to_owned());
    }
    Ok(uri)
}

fn has_scheme(location: &str) -> bool {
    location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// A URL for messages: user name, password and query may be secrets.
pub(crate) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// An error with its causes, which hyper keeps apart.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{read, resolve};
    use crate::error::FetchError;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn redirections_resolve_and_never_leave_https() {
        let cases = [
            ("https://a.org/x/y?q", "/z", Some("https://a.org/z")),
            ("https://a.org/x/y?q", "z.wasm", Some("https://a.org/x/z.wasm")),
            ("https://a.org/x/y?q", "?r", Some("https://a.org/x/y?r")),
            ("https://a.org/x", "//b.org/z#part", Some("https://b.org/z")),
            ("https://a.org/x", "https://b.org/z", Some("https://b.org/z")),
            ("http://a.org/x", "https://b.org/z", Some("https://b.org/z")),
            ("http://a.org/x", "HTTP://b.org/z", Some("http://b.org/z")),
            ("https://a.org/x", "http://a.org/z", None),
            ("https://a.org/x", "HTTP://a.org/z", None),
            ("https://a.org/x", "ftp://a.org/z", None),
            ("https://a.org/x", "file:///etc/passwd", None),
            ("https://a.org/x", "https://u:p@b.org/", None),
            ("https://a.org/x", "https://", None),
            ("https://a.org/x", "/a b", None),
        ];
        for (from, location, to) in cases {
            let result = resolve(&from.parse().unwrap(), location);
            assert_eq!(
                result.as_ref().map(ToString::to_string).ok().as_deref(),
                to,
                "{from} {location}: {result:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_left_before_and_inside_its_answer() {
        let cases = [("", 0), ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\0asm", 4)];
        for (answer, expected) in cases {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/a.wasm?secret", listener.local_addr().unwrap());
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
                // Held open until the client goes.
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
            });
            let error = read(&url, 100, Duration::from_millis(200), &mut |_, _| {}).await.unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
            let FetchError::Timeout { received, .. } = error else { panic!("{error}") };
            assert_eq!(received, expected);
            server.await.unwrap();
        }
    }
}
