//! Whether a request comes from someone who may change the host: not from a web page, and with the host's token.

use crate::dapr::same;
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, StatusCode};

/// Lets a request pass that bears this token; without a token, any but those of web pages. The error is what to answer.
pub(crate) fn check(headers: &HeaderMap, token: Option<&str>) -> Result<(), (StatusCode, &'static str)> {
    // Browsers send it, programs do not: a page from anywhere must not change anything on this machine.
    if headers.contains_key(ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "requests from web pages are not answered"));
    }
    let Some(token) = token else { return Ok(()) };
    let sent = headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    match sent.split_at_checked(7) {
        Some((scheme, sent)) if scheme.eq_ignore_ascii_case(b"bearer ") && same(sent, token.as_bytes()) => {
            Ok(())
        }
        _ => {
            let message = "send the token of this host in the header `authorization: Bearer …`";
            Err((StatusCode::UNAUTHORIZED, message))
        }
    }
}
