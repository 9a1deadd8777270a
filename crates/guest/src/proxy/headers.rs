//! Header maps as a guest sees them: with the pseudo-headers of HTTP/2 in them, and as one run of bytes.
//!
//! The maps stay what they are for everybody else, heads of requests and responses: most guests look at two or three
//! headers, and nothing is translated for them.

use super::abi::Status;
use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri, request, response};
use std::borrow::Cow;

/// Most headers of a map.
const MAX_HEADERS: usize = 1000;

/// Bytes of one header's name and value.
const MAX_HEADER: usize = 64 << 10;

/// A map of headers or trailers.
pub(super) enum Map<'a> {
    Request(&'a mut request::Parts),
    Response(&'a mut response::Parts),
    Plain(&'a mut HeaderMap),
}

/// Names and values, in order.
pub(super) type Pairs<'a> = Vec<(&'a [u8], Cow<'a, [u8]>)>;

/// Names and values as a guest wrote them.
pub(super) type Parsed<'a> = Vec<(&'a [u8], &'a [u8])>;

// === impl Map ===

impl Map<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Map::Request(head) => {
                let host = usize::from(head.headers.contains_key(HOST));
                3 + usize::from(authority(head).is_some()) + head.headers.len() - host
            }
            Map::Response(head) => 1 + head.headers.len(),
            Map::Plain(headers) => headers.len(),
        }
    }

    /// The value of a header; of several ones, all in one line (RFC 9110 section 5.3).
    pub(super) fn get(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Map::Request(head) => match name {
                b":method" => return Some(head.method.as_str().as_bytes().into()),
                b":path" => return Some(path(head).as_bytes().into()),
                b":scheme" => return Some(scheme(head).as_bytes().into()),
                b":authority" => return authority(head).map(Cow::from),
                name if name.eq_ignore_ascii_case(b"host") => return authority(head).map(Cow::from),
                _ => {}
            },
            Map::Response(head) if name == b":status" => {
                return Some(head.status.as_str().as_bytes().into());
            }
            _ => {}
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let mut values = self.headers().get_all(&name).iter();
        let first = values.next()?;
        let mut line = Cow::Borrowed(first.as_bytes());
        for value in values {
            line.to_mut().extend_from_slice(if name == COOKIE { b"; " } else { b", " });
            line.to_mut().extend_from_slice(value.as_bytes());
        }
        Some(readable(line))
    }

    pub(super) fn pairs(&self) -> Pairs<'_> {
        let mut pairs: Pairs<'_> = Vec::with_capacity(self.len());
        let mut hidden = None;
        match self {
            Map::Request(head) => {
                pairs.push((b":method", head.method.as_str().as_bytes().into()));
                pairs.push((b":path", path(head).as_bytes().into()));
                if let Some(authority) = authority(head) {
                    pairs.push((b":authority", readable(authority.into())));
                }
                pairs.push((b":scheme", scheme(head).as_bytes().into()));
                hidden = Some(HOST);
            }
            Map::Response(head) => pairs.push((b":status", head.status.as_str().as_bytes().into())),
            Map::Plain(_) => {}
        }
        let headers = self.headers().iter().filter(|(name, _)| hidden.as_ref() != Some(name));
        pairs.extend(headers.map(|(name, value)| (name.as_ref(), readable(value.as_bytes().into()))));
        pairs
    }

    /// One more of that name; of a pseudo-header there is only one.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Status> {
        if self.set_special(name, value)? {
            return Ok(());
        }
        let (name, value) = header(name, value)?;
        let headers = self.headers_mut();
        if headers.len() >= MAX_HEADERS {
            return Err(Status::BadArgument);
        }
        headers.try_append(name, value).map(|_| ()).map_err(|_| Status::BadArgument)
    }

    /// The only one of that name.
    pub(super) fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), Status> {
        if self.set_special(name, value)? {
            return Ok(());
        }
        let (name, value) = header(name, value)?;
        let headers = self.headers_mut();
        if headers.len() >= MAX_HEADERS {
            return Err(Status::BadArgument);
        }
        headers.try_insert(name, value).map(|_| ()).map_err(|_| Status::BadArgument)
    }

    /// Pseudo-headers stay, under their older names, too.
    pub(super) fn remove(&mut self, name: &[u8]) {
        if matches!(self, Map::Request(_)) && name.eq_ignore_ascii_case(b"host") {
            return;
        }
        if let Ok(name) = HeaderName::from_bytes(name) {
            self.headers_mut().remove(name);
        }
    }

    /// All of them; pseudo-headers that are not named stay.
    pub(super) fn set(&mut self, pairs: &[(&[u8], &[u8])]) -> Result<(), Status> {
        let host = match self {
            Map::Request(head) => head.headers.remove(HOST),
            _ => None,
        };
        self.headers_mut().clear();
        if let Some(host) = host {
            self.headers_mut().insert(HOST, host);
        }
        pairs.iter().try_for_each(|(name, value)| self.add(name, value))
    }

    fn headers(&self) -> &HeaderMap {
        match self {
            Map::Request(head) => &head.headers,
            Map::Response(head) => &head.headers,
            Map::Plain(headers) => headers,
        }
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        match self {
            Map::Request(head) => &mut head.headers,
            Map::Response(head) => &mut head.headers,
            Map::Plain(headers) => headers,
        }
    }

    /// Sets what is no header for HTTP/1; `false` if the name is one.
    fn set_special(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Status> {
        match self {
            Map::Request(head) => match name {
                b":method" => head.method = Method::from_bytes(value).map_err(bad)?,
                b":path" => {
                    let path = PathAndQuery::try_from(value).map_err(bad)?;
                    set_uri(head, |parts| parts.path_and_query = Some(path))?;
                }
                b":scheme" => {
                    let scheme = Scheme::try_from(value).map_err(bad)?;
                    if head.uri.scheme().is_some() {
                        set_uri(head, |parts| parts.scheme = Some(scheme))?;
                    }
                }
                name if name == b":authority" || name.eq_ignore_ascii_case(b"host") => {
                    let authority = Authority::try_from(value).map_err(bad)?;
                    let host = HeaderValue::from_bytes(value).map_err(bad)?;
                    head.headers.insert(HOST, host);
                    if head.uri.authority().is_some() {
                        set_uri(head, |parts| parts.authority = Some(authority))?;
                    }
                }
                _ => return Ok(false),
            },
            Map::Response(head) if name == b":status" => {
                head.status = StatusCode::from_bytes(value).map_err(bad)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn bad<E>(_: E) -> Status {
    Status::BadArgument
}

/// A header as a guest writes it.
pub(super) fn header(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Status> {
    if name.len() + value.len() > MAX_HEADER {
        return Err(Status::BadArgument);
    }
    Ok((HeaderName::from_bytes(name).map_err(bad)?, HeaderValue::from_bytes(value).map_err(bad)?))
}

/// SDKs end the guest at a value that is not UTF-8.
fn readable(value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match std::str::from_utf8(&value) {
        Ok(_) => value,
        Err(_) => String::from_utf8_lossy(&value).into_owned().into_bytes().into(),
    }
}

pub(super) fn path(head: &request::Parts) -> &str {
    head.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

pub(super) fn scheme(head: &request::Parts) -> &str {
    head.uri.scheme_str().unwrap_or("http")
}

pub(super) fn authority(head: &request::Parts) -> Option<&[u8]> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str().as_bytes()),
        None => head.headers.get(HOST).map(HeaderValue::as_bytes),
    }
}

fn set_uri(head: &mut request::Parts, change: impl FnOnce(&mut http::uri::Parts)) -> Result<(), Status> {
    let mut parts = head.uri.clone().into_parts();
    change(&mut parts);
    head.uri = Uri::from_parts(parts).map_err(bad)?;
    Ok(())
}

/// A map as one run of bytes: the count, the lengths of each name and value, then these, each with a NUL behind.
pub(super) fn serialized(pairs: &[(&[u8], Cow<'_, [u8]>)]) -> Vec<u8> {
    if pairs.is_empty() {
        return Vec::new();
    }
    let size = serialized_size(pairs);
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&number(pairs.len()));
    for (name, value) in pairs {
        bytes.extend_from_slice(&number(name.len()));
        bytes.extend_from_slice(&number(value.len()));
    }
    for (name, value) in pairs {
        for piece in [name, &value[..]] {
            bytes.extend_from_slice(piece);
            bytes.push(0);
        }
    }
    bytes
}

/// How long [`serialized`] is.
pub(super) fn serialized_size(pairs: &[(&[u8], Cow<'_, [u8]>)]) -> usize {
    match pairs {
        [] => 0,
        pairs => pairs.iter().fold(4, |size, (name, value)| size + 10 + name.len() + value.len()),
    }
}

/// Reads what [`serialized`] writes. What stands in the place of the NULs does not matter.
pub(super) fn parsed(bytes: &[u8]) -> Result<Parsed<'_>, Status> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let number = |at: usize| -> Result<usize, Status> {
        let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        Ok(u32::from_le_bytes(bytes.ok_or(Status::BadArgument)?) as usize)
    };
    let count = number(0)?;
    if count > MAX_HEADERS {
        return Err(Status::BadArgument);
    }
    let mut at = 4 + count * 8;
    let mut piece = |length: usize| -> Result<&[u8], Status> {
        let end = at.checked_add(length).ok_or(Status::BadArgument)?;
        let piece = bytes.get(at..end).ok_or(Status::BadArgument)?;
        at = end + 1;
        Ok(piece)
    };
    (0..count).map(|index| Ok((piece(number(4 + index * 8)?)?, piece(number(8 + index * 8)?)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &[u8])]) -> request::Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_shows_its_pseudo_headers() {
        let headers: [(&str, &[u8]); 5] =
            [("host", b"a.b:1"), ("x", b"1"), ("X", b"2"), ("cookie", b"c=d"), ("bad", b"\xff!")];
        let mut head = request("/p?q=r", &headers);
        let map = Map::Request(&mut head);
        for (name, value) in [
            (":method", Some("GET")),
            (":path", Some("/p?q=r")),
            (":authority", Some("a.b:1")),
            ("Host", Some("a.b:1")),
            (":scheme", Some("http")),
            ("x", Some("1, 2")),
            ("bad", Some("\u{fffd}!")),
            ("none", None),
            (":status", None),
            ("no name", None),
            ("", None),
        ] {
            assert_eq!(map.get(name.as_bytes()).as_deref(), value.map(str::as_bytes), "{name}");
        }
        let pairs = map.pairs();
        assert_eq!((pairs.len(), map.len()), (8, 8));
        assert!(pairs.iter().all(|(name, value)| *name != b"host" && std::str::from_utf8(value).is_ok()));
        let bytes = serialized(&pairs);
        assert_eq!(bytes.len(), serialized_size(&pairs));
        let read: Vec<_> = pairs.iter().map(|(name, value)| (*name, &value[..])).collect();
        assert_eq!(parsed(&bytes).unwrap(), read);
    }

    #[test]
    fn headers_change_and_pseudo_headers_change_the_head() {
        for uri in ["/old", "http://old.host/old"] {
            let mut head = request(uri, &[("a", b"1")]);
            let mut map = Map::Request(&mut head);
            for (name, value) in
                [(":method", "PUT"), (":path", "/new?x"), (":authority", "new.host"), (":scheme", "https")]
            {
                map.replace(name.as_bytes(), value.as_bytes()).unwrap();
            }
            map.add(b"A", b"2").unwrap();
            assert_eq!(map.get(b"a").unwrap(), &b"1, 2"[..]);
            map.replace(b"a", b"3").unwrap();
            assert_eq!(map.get(b"a").unwrap(), &b"3"[..]);
            map.remove(b"a");
            map.remove(b":path");
            assert_eq!(map.get(b"a"), None);
            map.set(&[(b"b", b"1"), (b"b", b"2"), (b":path", b"/set")]).unwrap();
            assert_eq!((map.get(b"b").unwrap(), map.len()), (b"1, 2"[..].into(), 6));
            assert_eq!((head.method.as_str(), path(&head)), ("PUT", "/set"));
            assert_eq!(authority(&head), Some(&b"new.host"[..]));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = vec![b'x'; MAX_HEADER];
        for (name, value) in [
            (&b""[..], &b"v"[..]),
            (b"a b", b"v"),
            (b"a", b"\n"),
            (b"a", &long),
            (b":method", b""),
            (b":path", b"/\xff \x01"),
            (b":authority", b"a b"),
            (b":unknown", b"v"),
        ] {
            let mut head = request("/", &[]);
            assert_eq!(Map::Request(&mut head).add(name, value), Err(Status::BadArgument));
        }
        let mut headers = HeaderMap::new();
        let mut map = Map::Plain(&mut headers);
        for number in 0..MAX_HEADERS {
            map.add(format!("h{number}").as_bytes(), b"").unwrap();
        }
        assert_eq!(map.add(b"more", b""), Err(Status::BadArgument));
    }

    #[test]
    fn hostile_runs_of_bytes_are_refused() {
        let good = serialized(&[(b"ab", b"cd"[..].into())]);
        assert_eq!(parsed(&good).unwrap(), [(&b"ab"[..], &b"cd"[..])]);
        // The last NUL may be missing, as some encoders leave it out.
        for length in 1..good.len() - 1 {
            assert_eq!(parsed(&good[..length]), Err(Status::BadArgument), "{length}");
        }
        for bytes in [&[255; 12][..], &[1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 1]] {
            assert_eq!(parsed(bytes), Err(Status::BadArgument));
        }
        assert_eq!(parsed(&[]).unwrap().len() + parsed(&[0; 4]).unwrap().len(), 0);
    }
}
