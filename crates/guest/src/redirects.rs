//! HTTP requests of modules whose ABI has whole responses: behind redirects, and read to their end.
//!
//! Which hosts may be asked is decided where it is for all guests ([`Outbound`]), and again for each redirect.

use crate::outbound::Outbound;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dhow_blocks::invoke::Body;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, LOCATION,
    PROXY_AUTHORIZATION,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use percent_encoding::percent_decode_str;
use url::Url;
use wasmtime_wasi_http::{Error, WasiHttpHooks};

/// Redirects that one request follows.
const MAX_REDIRECTS: usize = 10;

/// Headers that speak of a body, and those that are not for another server.
const OF_BODY: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];
const OF_SERVER: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// A request as a module made it.
pub(crate) struct Asked {
    pub(crate) url: Url,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("the URL cannot be asked")]
    InvalidUrl,
    #[error("the app has no grant for this host; add it to `http` under its grants")]
    Denied,
    #[error("as many requests are under way as the app may have at once")]
    TooMany,
    #[error("request to {host} failed: {reason}")]
    Failed { host: String, reason: String },
}

/// Sends a request and reads the whole response, of at most `room` bytes, behind redirects if there are.
pub(crate) async fn send(
    outbound: &mut Outbound,
    mut asked: Asked,
    room: usize,
) -> Result<(StatusCode, HeaderMap, Bytes), Unanswered> {
    for _ in 0..=MAX_REDIRECTS {
        asked.authorize();
        let body = Full::new(asked.body.clone()).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::new(body);
        *request.method_mut() = asked.method.clone();
        // Not all that a URL may hold is allowed in a request.
        *request.uri_mut() = Uri::try_from(asked.url.as_str()).map_err(|_| Unanswered::InvalidUrl)?;
        *request.headers_mut() = asked.headers.clone();
        // What becomes of the request's body is told by the response.
        let sent = outbound.send_request(request, None, Box::new(std::future::ready(Ok(()))));
        let (response, _) = Box::into_pin(sent).await.map_err(|error| match error {
            Error::HttpRequestDenied => Unanswered::Denied,
            Error::ConnectionLimitReached => Unanswered::TooMany,
            error => asked.failed(&error),
        })?;
        let (head, body) = response.into_parts();
        if let Some(location) = asked.redirect(head.status, &head.headers) {
            asked.follow(head.status, location.map_err(|error| asked.failed(&error))?);
            continue;
        }
        let body = Body::stream(body).collect(room).await.map_err(|error| asked.failed(&error))?;
        return Ok((head.status, head.headers, body));
    }
    Err(asked.failed(&"more redirects than are followed"))
}

// === impl Asked ===

impl Asked {
    fn failed(&self, reason: &dyn std::fmt::Display) -> Unanswered {
        let host = self.url.host_str().unwrap_or_default().to_owned();
        Unanswered::Failed { host, reason: reason.to_string() }
    }

    /// Sends name and password of the URL, if it has them, as other clients do: in a header, unless there is one.
    fn authorize(&mut self) {
        let url = &self.url;
        if url.username().is_empty() && url.password().is_none() {
            return;
        }
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let pair =
            [&decoded(url.username())[..], b":", &decoded(url.password().unwrap_or_default())].concat();
        if let Ok(mut value) = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))) {
            value.set_sensitive(true);
            self.headers.entry(AUTHORIZATION).or_insert(value);
        }
        // Fails for URLs without a host, which are no URLs of HTTP.
        let _ = self.url.set_username("");
        let _ = self.url.set_password(None);
    }

    /// Where a response leads to, if it is a redirect.
    fn redirect(&self, status: StatusCode, headers: &HeaderMap) -> Option<Result<Url, &'static str>> {
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = headers.get(LOCATION).filter(|_| is_redirect)?;
        let location = location.to_str().ok().and_then(|location| self.url.join(location).ok());
        Some(location.filter(is_http).ok_or("it redirects to what is no URL"))
    }

    /// Turns to another place, as browsers and other clients do.
    fn follow(&mut self, status: StatusCode, location: Url) {
        let keeps_method = matches!(status.as_u16(), 307 | 308);
        if !keeps_method && self.method != Method::GET && self.method != Method::HEAD {
            self.method = Method::GET;
            self.body = Bytes::new();
            OF_BODY.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        if self.url.origin() != location.origin() {
            OF_SERVER.iter().for_each(|name| drop(self.headers.remove(name)));
        }
        self.url = location;
    }
}

pub(crate) fn is_http(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::header_map;

    fn asked(method: Method) -> Asked {
        let headers = header_map(b"content-type: a/b\nauthorization: secret\nx-one: 1").unwrap();
        Asked { url: Url::parse("http://a.test/x/y").unwrap(), method, headers, body: "body".into() }
    }

    #[test]
    fn redirects_are_followed_as_other_clients_do() {
        // Status, location, then method, URL, length of the body, names of headers.
        let cases = [
            (301, "/z", Method::GET, "http://a.test/z", 0, "authorization x-one"),
            (303, "z", Method::GET, "http://a.test/x/z", 0, "authorization x-one"),
            (302, "http://b.test/", Method::GET, "http://b.test/", 0, "x-one"),
            (307, "z", Method::POST, "http://a.test/x/z", 4, "authorization content-type x-one"),
            (308, "https://a.test/", Method::POST, "https://a.test/", 4, "content-type x-one"),
        ];
        for (status, location, method, url, body, names) in cases {
            let mut asked = asked(Method::POST);
            let status = StatusCode::from_u16(status).unwrap();
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            let next = asked.redirect(status, &headers).unwrap().unwrap();
            asked.follow(status, next);
            let mut found: Vec<&str> = asked.headers.keys().map(HeaderName::as_str).collect();
            found.sort_unstable();
            assert_eq!((asked.method, asked.url.as_str(), asked.body.len()), (method, url, body), "{status}");
            assert_eq!(found.join(" "), names, "{status} {location}");
        }
    }

    #[test]
    fn name_and_password_of_a_url_are_sent_as_a_header() {
        // The URL, the program's own header, what is sent, and the URL that is asked.
        for (url, own, sent, asks) in [
            ("http://anna:s%40fe@a.test/x", None, "Basic YW5uYTpzQGZl", "http://a.test/x"),
            ("http://anna@a.test/", None, "Basic YW5uYTo=", "http://a.test/"),
            ("http://anna:x@a.test/", Some("Bearer y"), "Bearer y", "http://a.test/"),
            ("http://a.test/", None, "", "http://a.test/"),
        ] {
            let headers = own.map(|own| (AUTHORIZATION, own.parse().unwrap()));
            let mut asked = Asked {
                url: Url::parse(url).unwrap(),
                method: Method::GET,
                headers: headers.into_iter().collect(),
                body: Bytes::new(),
            };
            asked.authorize();
            let header = asked.headers.get(AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
            assert_eq!((header, asked.url.as_str()), (sent, asks), "{url}");
        }
    }

    #[test]
    fn what_is_no_redirect_is_an_answer() {
        let to = |location: &str| HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
        let asked = asked(Method::GET);
        assert!(asked.redirect(StatusCode::CREATED, &to("/z")).is_none());
        assert!(asked.redirect(StatusCode::FOUND, &HeaderMap::new()).is_none());
        assert!(asked.redirect(StatusCode::NOT_MODIFIED, &to("/z")).is_none());
        for bad in ["file:///etc/passwd", "http://"] {
            assert!(asked.redirect(StatusCode::FOUND, &to(bad)).unwrap().is_err(), "{bad}");
        }
    }
}
