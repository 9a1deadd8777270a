//! `InvokeService`: an HTTP request to another app, in messages.
//!
//! The request goes to the path `message.method` with the header `id`, the name of the app; its body is the value of the
//! data, whatever type they are said to have. Headers of the answer come back as metadata.

use super::Layotto;
use crate::dapr::error::{ApiError, Grpc};
use crate::dapr::invoke::call;
use crate::grpc::caller::Caller;
use crate::grpc::invoke::{method_of, passed_on};
use crate::proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse};
use crate::proto::runtime::v1::InvokeServiceRequest;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use prost_types::Any;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// Layotto's own.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Another timeout, in milliseconds.
const TIMEOUT_HEADER: &str = "rpc_request_timeout";

/// The longest that may be asked for.
const LONGEST: Duration = Duration::from_secs(300);

pub(super) async fn invoke(
    service: &Layotto,
    request: Request<InvokeServiceRequest>,
) -> Result<Response<InvokeResponse>, Status> {
    let caller = Caller::of(&request);
    let (metadata, _, InvokeServiceRequest { id, message }) = request.into_parts();
    let refused = |error: ApiError| service.status(&error);
    if id.is_empty() {
        return Err(refused(ApiError::malformed("id is empty")));
    }
    let message = message.ok_or_else(|| refused(ApiError::malformed("message is missing")))?;
    let headers = metadata.into_headers();
    let timeout = timeout(&headers);
    let (path, request) = to_request(&id, message, headers).map_err(refused)?;
    let invocation = Invocation { request, trigger: Trigger::App, trace: caller.trace, depth: 0 };
    let exchange = async {
        let reply = call(service.scope(), &id, &path, invocation).await?;
        let (head, body) = reply.into_parts();
        let body = body.collect(service.inner.max_message).await;
        let body = body.map_err(|error| failed(&id, Grpc::Internal, &error.to_string()))?;
        if !head.status.is_success() {
            return Err(failed(&id, Grpc::Unavailable, &format!("it answered {}", head.status)));
        }
        Ok((head.headers, body))
    };
    let late = || failed(&id, Grpc::DeadlineExceeded, &format!("no answer within {timeout:?}"));
    let answer = tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| Err(late()));
    let (headers, body) = answer.map_err(refused)?;
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let data = Any { type_url: String::new(), value: body.into() };
    let mut response =
        Response::new(InvokeResponse { data: Some(data), content_type: content_type.to_owned() });
    *response.metadata_mut() = MetadataMap::from_headers(passed_on(headers));
    Ok(response)
}

fn failed(id: &str, grpc: Grpc, reason: &str) -> ApiError {
    let message = format!("failed to invoke, id: {id}, err: {reason}");
    ApiError::new(StatusCode::BAD_GATEWAY, grpc, "ERR_DIRECT_INVOKE", message)
}

fn timeout(headers: &HeaderMap) -> Duration {
    let asked = headers.get(TIMEOUT_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
    asked.map_or(TIMEOUT, Duration::from_millis).min(LONGEST)
}

fn to_request(
    id: &str,
    message: InvokeRequest,
    headers: HeaderMap,
) -> Result<(String, http::Request<Body>), ApiError> {
    let InvokeRequest { method: path, data, content_type, http_extension } = message;
    let HttpExtension { verb, querystring } = http_extension.unwrap_or_default();
    let mut path = format!("/{}", path.trim_start_matches('/'));
    if !querystring.is_empty() {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&querystring);
    }
    let mut request = http::Request::new(Body::from(data.unwrap_or_default().value));
    *request.method_mut() = method_of(verb).unwrap_or(Method::GET);
    let headers_of_request = request.headers_mut();
    *headers_of_request = passed_on(headers);
    let id = HeaderValue::try_from(id).map_err(|_| ApiError::malformed("id cannot be a header"))?;
    headers_of_request.insert(HeaderName::from_static("id"), id);
    if let (false, Ok(content_type)) = (content_type.is_empty(), HeaderValue::try_from(content_type)) {
        headers_of_request.insert(CONTENT_TYPE, content_type);
    }
    Ok((path, request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::common::v1::http_extension::Verb;

    #[test]
    fn messages_become_requests() {
        for (path, verb, query, expected_method, expected_path) in [
            ("/orders", Verb::None, "", Method::GET, "/orders"),
            ("orders", Verb::Post, "a=1", Method::POST, "/orders?a=1"),
            ("", Verb::Get, "", Method::GET, "/"),
        ] {
            let message = InvokeRequest {
                method: path.to_owned(),
                http_extension: Some(HttpExtension { verb: verb.into(), querystring: query.to_owned() }),
                ..InvokeRequest::default()
            };
            let (path, request) = to_request("id_1", message, HeaderMap::new()).unwrap();
            assert_eq!((request.method(), path.as_str()), (&expected_method, expected_path));
            assert_eq!(request.headers()["id"], "id_1");
        }
        assert!(to_request("a\nb", InvokeRequest::default(), HeaderMap::new()).is_err());
    }

    #[test]
    fn timeouts_are_bounded() {
        for (sent, expected) in [
            (None, 3000),
            (Some("50"), 50),
            (Some("x"), 3000),
            (Some("-1"), 3000),
            (Some("999999999"), 300_000),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(TIMEOUT_HEADER, sent.parse().unwrap());
            }
            assert_eq!(timeout(&headers), Duration::from_millis(expected), "{sent:?}");
        }
    }
}
