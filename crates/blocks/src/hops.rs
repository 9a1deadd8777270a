//! Headers that belong to one connection, and are not passed on to the next.

use http::header::{CONNECTION, HeaderMap, HeaderName};

/// Headers between two neighbours only (RFC 9110 section 7.6.1), and the token of the runtime's own API.
pub fn is_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "dapr-api-token"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Takes off what belongs to the last connection, also what its `Connection` header names.
pub fn strip(headers: &mut HeaderMap) {
    let named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named =
        named.flat_map(|list| list.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok());
    let named: Vec<HeaderName> = named.collect();
    let own: Vec<HeaderName> = headers.keys().filter(|name| is_hop(name.as_str())).cloned().collect();
    for name in named.iter().chain(&own) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_belongs_to_a_connection_is_taken_off() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-mine", "keep-alive", "transfer-encoding", "dapr-api-token", "proxy-connection", "x-other"]
        {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close, X-Mine"));
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-other"]);
    }
}
