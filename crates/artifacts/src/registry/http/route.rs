//! Which request it is, by its path. Names of repositories have any number of words, so the distribution API is read from
//! the end of the path.

use crate::digest::Digest;
use crate::registry::name::{Repository, Selector};
use crate::registry::refusal::Refusal;
use ::http::Method;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Ping,
    Token,
    Catalog,
    Tags(Repository),
    Referrers(Repository, Digest),
    Manifest(Repository, Selector),
    Blob(Repository, Digest),
    Uploads(Repository),
    Upload(Repository, String),
    Search,
    Modules(Repository),
    Damaged,
    Metrics,
    Health,
    Style,
    Page,
}

/// The parameters of a query or form, unescaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

/// Parameters of one query at most.
const MAX_PARAMETERS: usize = 100;

// === impl Route ===

impl Route {
    pub(super) fn read(path: &str) -> Result<Route, Refusal> {
        match path {
            "/" => return Ok(Route::Page),
            "/v2" | "/v2/" => return Ok(Route::Ping),
            "/token" => return Ok(Route::Token),
            "/v2/_catalog" => return Ok(Route::Catalog),
            "/api/v1/search" => return Ok(Route::Search),
            "/api/v1/damaged" => return Ok(Route::Damaged),
            "/metrics" => return Ok(Route::Metrics),
            "/healthz" => return Ok(Route::Health),
            "/style.css" => return Ok(Route::Style),
            _ => {}
        }
        if let Some(repository) = path.strip_prefix("/api/v1/modules/") {
            return Ok(Route::Modules(unescape(repository).parse()?));
        }
        let path = path.strip_prefix("/v2/").ok_or(Refusal::NoSuchRoute)?;
        let mut words = path.rsplitn(4, '/');
        let mut word = || words.next().unwrap_or_default();
        let (last, kind, before, rest) = (word(), word(), word(), word());
        // What stands before the last one, two or three words.
        let name = |words: usize| -> Result<Repository, Refusal> {
            let name = path.rsplitn(words + 1, '/').nth(words).ok_or(Refusal::NoSuchRoute)?;
            Ok(unescape(name).parse()?)
        };
        let digest = |text: &str| -> Result<Digest, Refusal> {
            let parsed: Result<Digest, _> = unescape(text).parse();
            parsed.map_err(|error| Refusal::DigestInvalid(error.to_string()))
        };
        match (before, kind, last) {
            ("blobs", "uploads", "") if !rest.is_empty() => Ok(Route::Uploads(name(3)?)),
            ("blobs", "uploads", id) if !rest.is_empty() => Ok(Route::Upload(name(3)?, id.to_owned())),
            (_, "blobs", "uploads") => Ok(Route::Uploads(name(2)?)),
            (_, "blobs", text) => Ok(Route::Blob(name(2)?, digest(text)?)),
            (_, "manifests", text) => Ok(Route::Manifest(name(2)?, unescape(text).parse()?)),
            (_, "referrers", text) => Ok(Route::Referrers(name(2)?, digest(text)?)),
            (_, "tags", "list") => Ok(Route::Tags(name(2)?)),
            _ => Err(Refusal::NoSuchRoute),
        }
    }

    /// Refuses a method that a route does not have.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), Refusal> {
        let allowed = match self {
            Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Route::Blob(..) => "GET, HEAD, DELETE",
            Route::Uploads(..) => "POST",
            Route::Upload(..) => "GET, HEAD, PATCH, PUT, DELETE",
            Route::Token => "GET, POST",
            _ => "GET, HEAD",
        };
        match allowed.split(", ").any(|allowed| allowed == method.as_str()) {
            true => Ok(()),
            false => Err(Refusal::Method { method: method.to_string(), allowed }),
        }
    }
}

// === impl Parameters ===

impl Parameters {
    pub(super) fn read(text: &str) -> Parameters {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).take(MAX_PARAMETERS);
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(&name.replace('+', " ")), unescape(&value.replace('+', " ")))
        });
        Parameters(pairs.collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.iter().filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Text with `%41` for `A`. What is no UTF-8 then becomes something that no name has.
pub(super) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text as the value of a parameter.
pub(in crate::registry) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{Parameters, Route, escape, unescape};

    #[test]
    fn paths_are_read_from_their_end() {
        let zeros = "0".repeat(64);
        let repository = |name: &str| name.parse().unwrap();
        let digest = || format!("sha256:{zeros}").parse().unwrap();
        let cases = [
            ("/v2/".to_owned(), Some(Route::Ping)),
            ("/v2/_catalog".to_owned(), Some(Route::Catalog)),
            ("/v2/a/tags/list".to_owned(), Some(Route::Tags(repository("a")))),
            ("/v2/a/b/tags/list".to_owned(), Some(Route::Tags(repository("a/b")))),
            ("/v2/tags/list/tags/list".to_owned(), Some(Route::Tags(repository("tags/list")))),
            ("/v2/a/manifests/v1".to_owned(), Some(Route::Manifest(repository("a"), "v1".parse().unwrap()))),
            (
                "/v2/blobs/uploads/manifests/v1".to_owned(),
                Some(Route::Manifest(repository("blobs/uploads"), "v1".parse().unwrap())),
            ),
            (format!("/v2/a/blobs/sha256:{zeros}"), Some(Route::Blob(repository("a"), digest()))),
            (format!("/v2/a/blobs/sha256%3A{zeros}"), Some(Route::Blob(repository("a"), digest()))),
            (format!("/v2/a/referrers/sha256:{zeros}"), Some(Route::Referrers(repository("a"), digest()))),
            ("/v2/a/b/blobs/uploads/".to_owned(), Some(Route::Uploads(repository("a/b")))),
            ("/v2/a/b/blobs/uploads".to_owned(), Some(Route::Uploads(repository("a/b")))),
            ("/v2/a/blobs/uploads/x-1".to_owned(), Some(Route::Upload(repository("a"), "x-1".to_owned()))),
            ("/api/v1/modules/a/b".to_owned(), Some(Route::Modules(repository("a/b")))),
            ("/v2/A/tags/list".to_owned(), None),
            ("/v2//tags/list".to_owned(), None),
            ("/v2/tags/list".to_owned(), None),
            ("/v2/../tags/list".to_owned(), None),
            ("/v2/%2e%2e/tags/list".to_owned(), None),
            ("/v2/a/blobs/sha256:00".to_owned(), None),
            ("/v2/a/blobs/".to_owned(), None),
            ("/v2/a/manifests/".to_owned(), None),
            ("/v2/blobs/uploads/".to_owned(), None),
            ("/v1/".to_owned(), None),
            ("".to_owned(), None),
        ];
        for (path, route) in cases {
            assert_eq!(Route::read(&path).ok(), route, "{path}");
        }
    }

    #[test]
    fn parameters_are_unescaped() {
        let parameters = Parameters::read("a=1&b=x%2Fy+z&a=2&c&=d&%");
        assert_eq!((parameters.get("a"), parameters.get("b")), (Some("1"), Some("x/y z")));
        assert_eq!((parameters.get("c"), parameters.get("d")), (Some(""), None));
        assert_eq!(parameters.all("a"), ["1", "2"]);
        for text in ["", "a b/c?d&e=f", "ü%", "%41"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert_eq!(unescape("%zz%4%%41%ff"), "%zz%4%A\u{fffd}");
    }
}
