//! Errors as gRPC statuses: code, message, and details of the google.rpc kind in `grpc-status-details-bin`.
//!
//! The codes of Dapr's own errors stand beside their HTTP statuses in `crate::dapr::error`. Here are the details,
//! and how the statuses of HTTP and gRPC translate to each other where an app speaks one and its caller the
//! other (Dapr's tables, after
//! <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md> and grpc-gateway).

use crate::dapr::error::ApiError;
use dhow_blocks::invoke::InvokeError;
use http::StatusCode;
use std::collections::HashMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of all of Dapr's reasons.
const DOMAIN: &str = "dapr.io";

/// An app's error text is repeated in a status up to this many bytes.
const MAX_DETAIL: usize = 63;

/// An error of the API.
pub(crate) fn status(error: &ApiError, app_id: &str) -> Status {
    let mut details = ErrorDetails::new();
    let reason = error.details.as_ref().map_or(error.code, |details| details.reason);
    details.set_error_info(reason, DOMAIN, HashMap::from([("appID".to_owned(), app_id.to_owned())]));
    if let Some(found) = &error.details {
        if let Some((kind, name)) = &found.resource {
            details.set_resource_info(*kind, name, app_id, "");
        }
        if let Some((field, description)) = &found.violation {
            details.add_bad_request_violation(field, description);
        }
    }
    Status::with_error_details(Code::from_i32(error.grpc as i32), &error.message, details)
}

/// Why a request was not proxied to an app, or has no answer.
pub(crate) fn proxied(app_id: &str, error: &InvokeError) -> Status {
    let code = match error {
        InvokeError::UnknownApp { .. } => Code::NotFound,
        InvokeError::Denied { .. } | InvokeError::Forbidden { .. } | InvokeError::Refused { .. } => {
            Code::PermissionDenied
        }
        InvokeError::Overloaded { .. }
        | InvokeError::HostFull { .. }
        | InvokeError::RequestTooLarge { .. } => Code::ResourceExhausted,
        InvokeError::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        InvokeError::TooDeep { .. } => Code::FailedPrecondition,
        InvokeError::CircuitOpen { .. } | InvokeError::Unreachable { .. } | InvokeError::ShuttingDown => {
            Code::Unavailable
        }
        InvokeError::NotLoadable { .. } | InvokeError::GuestFailed { .. } => Code::Internal,
    };
    Status::new(code, format!("failed to invoke, id: {app_id}, err: {error}"))
}

/// What an HTTP app answered, for a caller that speaks gRPC; `None` for a success.
pub(crate) fn of_http(status: StatusCode, body: &[u8]) -> Option<Status> {
    let code = match status.as_u16() {
        200..300 => return None,
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 => Code::Cancelled,
        409 => Code::AlreadyExists,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Unknown,
    };
    let text = status.canonical_reason().unwrap_or_default();
    let body = String::from_utf8_lossy(body);
    let metadata = HashMap::from([
        ("http.code".to_owned(), status.as_u16().to_string()),
        ("http.error_message".to_owned(), body[..body.floor_char_boundary(MAX_DETAIL)].to_owned()),
    ]);
    Some(Status::with_error_details(code, text, ErrorDetails::with_error_info(text, DOMAIN, metadata)))
}

/// What a gRPC app answered, for a caller that speaks HTTP.
pub(crate) fn to_http(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_details_of_its_error() {
        let error = ApiError::illegal_key("a||b");
        let status = status(&error, "shop");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DAPR_STATE_ILLEGAL_KEY", "dapr.io"));
        assert_eq!(info.metadata["appID"], "shop");
        assert_eq!(details.resource_info().unwrap().resource_type, "state");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "a||b");
        let plain = super::status(&ApiError::malformed("no"), "shop");
        assert_eq!(plain.get_error_details().error_info().unwrap().reason, "ERR_MALFORMED_REQUEST");
        assert!(plain.get_error_details().resource_info().is_none());
    }

    #[test]
    fn statuses_of_http_become_codes() {
        for (http, code) in
            [(400, Code::Internal), (404, Code::NotFound), (500, Code::Unknown), (418, Code::Unknown)]
        {
            let body = "é".repeat(100);
            let status = of_http(StatusCode::from_u16(http).unwrap(), body.as_bytes()).unwrap();
            assert_eq!(status.code(), code, "{http}");
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(info.metadata["http.code"], http.to_string());
            assert_eq!(info.metadata["http.error_message"], "é".repeat(31));
        }
        assert!(of_http(StatusCode::NO_CONTENT, b"").is_none());
    }
}
