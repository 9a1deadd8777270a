//! Answers, and what refusals are on the wire
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes>).

use super::{Body, Face};
use crate::digest::Digest;
use crate::registry::refusal::{Challenge, Refusal};
use ::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::json;

pub(in crate::registry) type Answer = Response<Body>;

/// What registries of Docker call themselves in `WWW-Authenticate`.
const SERVICE: &str = "dhow-registry";

/// What a browser asks its user for.
const BASIC: &str = "Basic realm=\"dhow registry\", charset=\"UTF-8\"";

/// No body.
pub(super) fn empty(status: StatusCode) -> Answer {
    respond(status, Bytes::new())
}

/// A document.
pub(in crate::registry) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut answer = respond(status, text.into());
    set(&mut answer, CONTENT_TYPE.as_str(), "application/json; charset=utf-8");
    answer
}

/// A text of this type.
pub(super) fn text(status: StatusCode, content_type: &str, text: impl Into<String>) -> Answer {
    let mut answer = respond(status, Bytes::from(text.into()));
    set(&mut answer, CONTENT_TYPE.as_str(), content_type);
    answer
}

/// These bytes, and how many they are, also where they are left out.
pub(super) fn respond(status: StatusCode, bytes: Bytes) -> Answer {
    let length = bytes.len();
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = status;
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    answer
}

/// Sets a header; what cannot stand in one is left out.
pub(super) fn set(answer: &mut Answer, name: &'static str, value: impl AsRef<str>) {
    if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
        answer.headers_mut().insert(HeaderName::from_static(name), value);
    }
}

/// Says which content is meant: its digest is its entity tag.
pub(super) fn identify(answer: &mut Answer, digest: &Digest) {
    set(answer, "docker-content-digest", digest.to_string());
    set(answer, "etag", format!("\"{digest}\""));
}

/// To whoever has this content.
pub(super) fn not_modified(digest: &Digest) -> Answer {
    let mut answer = empty(StatusCode::NOT_MODIFIED);
    identify(&mut answer, digest);
    answer
}

pub(super) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

// === impl Refusal ===

impl Refusal {
    /// The one table of statuses and codes.
    fn on_the_wire(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Refusal::NoSuchRoute => (S::NOT_FOUND, "UNSUPPORTED"),
            Refusal::Method { .. } => (S::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Refusal::Name(_) => (S::BAD_REQUEST, "NAME_INVALID"),
            Refusal::RepositoryUnknown(_) => (S::NOT_FOUND, "NAME_UNKNOWN"),
            Refusal::BlobUnknown { .. } | Refusal::Damaged(_) => (S::NOT_FOUND, "BLOB_UNKNOWN"),
            Refusal::UploadUnknown(_) => (S::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Refusal::UploadBusy => (S::CONFLICT, "BLOB_UPLOAD_INVALID"),
            Refusal::BodyBroken => (S::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Refusal::OutOfOrder { .. } | Refusal::RangeInvalid(_) => {
                (S::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID")
            }
            Refusal::RangeOutside { .. } => (S::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Refusal::DigestMismatch { .. } | Refusal::DigestInvalid(_) => (S::BAD_REQUEST, "DIGEST_INVALID"),
            Refusal::TooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Refusal::Quota { .. } => (S::FORBIDDEN, "DENIED"),
            Refusal::ManifestUnknown { .. } | Refusal::DamagedManifest(_) => {
                (S::NOT_FOUND, "MANIFEST_UNKNOWN")
            }
            Refusal::ManifestInvalid(_) => (S::BAD_REQUEST, "MANIFEST_INVALID"),
            Refusal::ReferenceUnknown(_) => (S::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN"),
            Refusal::ReferenceSize { .. } => (S::BAD_REQUEST, "SIZE_INVALID"),
            Refusal::Untrusted(_) => (S::FORBIDDEN, "DENIED"),
            Refusal::Precondition { .. } => (S::PRECONDITION_FAILED, "DENIED"),
            Refusal::Unauthenticated(_) | Refusal::WrongPassword => (S::UNAUTHORIZED, "UNAUTHORIZED"),
            Refusal::Denied { .. } | Refusal::Elsewhere(_) => (S::FORBIDDEN, "DENIED"),
            Refusal::TooMany => (S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Refusal::Query(_) => (S::BAD_REQUEST, "PAGINATION_NUMBER_INVALID"),
            Refusal::DiskFull => (S::INSUFFICIENT_STORAGE, "UNKNOWN"),
            Refusal::Storage(_) => (S::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

// === impl Face ===

impl Face {
    /// The answer to a request that is refused.
    pub(super) fn refused(&self, refusal: &Refusal, headers: &HeaderMap) -> Answer {
        let (status, code) = refusal.on_the_wire();
        if let Refusal::Storage(error) = refusal {
            tracing::error!("{error}");
        } else if status.is_server_error() {
            tracing::error!("{refusal}");
        }
        let body = json!({"errors": [{"code": code, "message": refusal.to_string()}]});
        let mut answer = json(status, &body);
        match refusal {
            Refusal::Unauthenticated(challenge) => self.challenge(&mut answer, challenge, headers),
            Refusal::WrongPassword => {
                self.challenge(&mut answer, &Challenge::Token(String::new()), headers);
                let basic = HeaderValue::from_static(BASIC);
                answer.headers_mut().append(::http::header::WWW_AUTHENTICATE, basic);
            }
            Refusal::OutOfOrder { repository, upload, length } => {
                set(&mut answer, "location", format!("/v2/{repository}/blobs/uploads/{upload}"));
                set(&mut answer, "range", range(*length));
            }
            Refusal::RangeOutside { size, .. } => {
                set(&mut answer, "content-range", format!("bytes */{size}"))
            }
            Refusal::Method { allowed, .. } => set(&mut answer, "allow", allowed),
            Refusal::TooMany => set(&mut answer, "retry-after", "1"),
            _ => {}
        }
        answer
    }

    fn challenge(&self, answer: &mut Answer, challenge: &Challenge, headers: &HeaderMap) {
        let value = match challenge {
            Challenge::Password => BASIC.to_owned(),
            Challenge::Token(scope) => {
                let scope = match scope.as_str() {
                    "" => String::new(),
                    scope => format!(",scope=\"{scope}\""),
                };
                format!("Bearer realm=\"{}/token\",service=\"{SERVICE}\"{scope}", self.url(headers))
            }
        };
        set(answer, "www-authenticate", value);
        set(answer, "docker-distribution-api-version", "registry/2.0");
    }
}

/// The bytes of an upload that are there, as the specification writes them: the last one counts in.
pub(super) fn range(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}
