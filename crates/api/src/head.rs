//! What the head of a request must be, on every face; hyper has looked at its syntax.

use crate::text;
use dhow_blocks::invoke::Reply;
use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode, Version};

/// Headers of a request at most; over HTTP/1 hyper counts them.
const MOST_HEADERS: usize = 100;

/// What HTTP/2 counts for a header beside its name and value (RFC 9113 section 6.5.2).
const HEADER: usize = 32;

/// The answer to a request that must not be looked at: whom it is for is in doubt, or its head has more than `max_head`
/// bytes.
pub(crate) fn refusal<B>(request: &Request<B>, max_head: usize) -> Option<Reply> {
    let headers = request.headers();
    if request.version() == Version::HTTP_2 {
        let what = too_large(headers, max_head)?;
        return Some(text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what));
    }
    bad_target(request).map(|what| text(StatusCode::BAD_REQUEST, what))
}

fn too_large(headers: &HeaderMap, max_head: usize) -> Option<String> {
    if headers.len() > MOST_HEADERS {
        return Some(format!("the request has more than {MOST_HEADERS} headers"));
    }
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER);
    (sizes.sum::<usize>() > max_head).then(|| format!("the headers have more than {max_head} bytes"))
}

/// RFC 9112 section 3.2.
fn bad_target<B>(request: &Request<B>) -> Option<&'static str> {
    let uri = request.uri();
    if uri.scheme().is_none() && uri.authority().is_some() && request.method() != Method::CONNECT {
        return Some("the request's target is neither a path nor a URL");
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_11 => Some("the request has no header Host"),
        (_, Some(_)) => Some("the request has more than one header Host"),
        (Some(host), None) if !host.as_bytes().iter().copied().all(is_of_host) => {
            Some("the header Host names no host")
        }
        _ => None,
    }
}

/// Whether a name or an address with its port may have it (RFC 3986 section 3.2.2).
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::refusal;
    use http::{Request, Version};

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().version(version).uri(uri);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn requests_say_whom_they_are_for() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let many: Vec<(&str, &str)> = vec![("x-many", "y"); 101];
        let long = "y".repeat(64 << 10);
        for (version, uri, headers, status) in [
            (one, "/", &[("host", "a.example:80")][..], None),
            (one, "/", &[("host", "[::1]:80")], None),
            (one, "/", &[("host", "")], None),
            (one, "http://b/", &[("host", "a")], None),
            (Version::HTTP_10, "/", &[], None),
            (two, "/", &[], None),
            (one, "/", &[], Some(400)),
            (one, "/", &[("host", "a"), ("host", "a")], Some(400)),
            (one, "/", &[("host", "a b")], Some(400)),
            (one, "/", &[("host", "a@b")], Some(400)),
            (one, "/", &[("host", "a/b")], Some(400)),
            (one, "info", &[("host", "a")], Some(400)),
            (two, "/", &many[1..], None),
            (two, "/", &many, Some(431)),
            (two, "/", &[("x-long", &long)], Some(431)),
        ] {
            let refused = refusal(&request(version, uri, headers), 64 << 10);
            let status = status.map(|status| http::StatusCode::from_u16(status).unwrap());
            assert_eq!(refused.map(|reply| reply.status()), status, "{version:?} {uri} {:.60?}", headers);
        }
    }
}
