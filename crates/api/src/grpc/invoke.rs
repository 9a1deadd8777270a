//! `InvokeService`: invocation with messages instead of HTTP requests.
//!
//! An app that speaks HTTP gets a request with the method as its path; its status becomes a gRPC status, and
//! stands in the header `dapr-http-status`. An app that speaks gRPC gets `OnInvoke` (`crate::channel::grpc`).

use super::caller::Caller;
use super::{Service, status};
use crate::channel::{AppStatus, TypeUrl};
use crate::dapr::error::{ApiError, Grpc};
use crate::dapr::invoke::call;
use crate::proto::common::v1::http_extension::Verb;
use crate::proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse};
use crate::proto::runtime::v1::InvokeServiceRequest;
use dhow_blocks::hops;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use prost_types::Any;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

const HTTP_STATUS: HeaderName = HeaderName::from_static("dapr-http-status");

pub(super) async fn invoke(
    service: &Service,
    request: Request<InvokeServiceRequest>,
) -> Result<Response<InvokeResponse>, Status> {
    let caller = Caller::of(&request);
    let (metadata, _, InvokeServiceRequest { id: app_id, message }) = request.into_parts();
    let message = message.ok_or_else(|| service.status(&ApiError::malformed("message is missing")))?;
    let (path, request) = to_request(message, metadata.into_headers());
    let invocation = Invocation { request, trigger: Trigger::App, trace: caller.trace, depth: 0 };
    let reply = call(&service.scope, &app_id, &path, invocation).await;
    let (mut head, body) = reply.map_err(|error| service.status(&error))?.into_parts();
    let body = body.collect(service.max_message).await.map_err(|error| {
        let message = format!("failed to invoke, id: {app_id}, err: {error}");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        service.status(&ApiError::new(status, Grpc::Internal, "ERR_DIRECT_INVOKE", message))
    })?;
    let app_status = head.extensions.remove::<AppStatus>();
    let type_url = head.extensions.remove::<TypeUrl>();
    let spoke_grpc = app_status.is_some() || type_url.is_some();
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let mut headers = passed_on(head.headers);
    if !spoke_grpc {
        headers.insert(HTTP_STATUS, HeaderValue::from(head.status.as_u16()));
    }
    let failed = match app_status {
        Some(AppStatus(status)) => Some(status),
        None => status::of_http(head.status, &body),
    };
    let headers = MetadataMap::from_headers(headers);
    if let Some(mut status) = failed {
        status.metadata_mut().as_mut().extend(headers.into_headers());
        return Err(status);
    }
    let data = Any { type_url: type_url.map(|TypeUrl(url)| url).unwrap_or_default(), value: body.into() };
    let mut response = Response::new(InvokeResponse { data: Some(data), content_type });
    *response.metadata_mut() = headers;
    Ok(response)
}

fn to_request(message: InvokeRequest, headers: HeaderMap) -> (String, http::Request<Body>) {
    let InvokeRequest { method, data, content_type, http_extension } = message;
    let extension = http_extension.unwrap_or_default();
    let (verb, HttpExtension { querystring, .. }) = (extension.verb(), extension);
    let mut path = format!("/{}", method.trim_start_matches('/'));
    if !querystring.is_empty() {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(&querystring);
    }
    let Any { type_url, value } = data.unwrap_or_default();
    let mut request = http::Request::new(Body::from(value));
    *request.method_mut() = method_of(verb.into()).unwrap_or(Method::POST);
    *request.headers_mut() = passed_on(headers);
    let content_type = if content_type.is_empty() { "application/json" } else { &content_type };
    if let Ok(content_type) = HeaderValue::try_from(content_type) {
        request.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    // Kept for an app that speaks gRPC.
    request.extensions_mut().insert(TypeUrl(type_url));
    (path, request)
}

/// What a verb is called in HTTP; none where none is given.
pub(crate) fn method_of(verb: i32) -> Option<Method> {
    Some(match Verb::try_from(verb).unwrap_or_default() {
        Verb::None => return None,
        Verb::Get => Method::GET,
        Verb::Head => Method::HEAD,
        Verb::Post => Method::POST,
        Verb::Put => Method::PUT,
        Verb::Delete => Method::DELETE,
        Verb::Connect => Method::CONNECT,
        Verb::Options => Method::OPTIONS,
        Verb::Trace => Method::TRACE,
        Verb::Patch => Method::PATCH,
    })
}

/// Without what belongs to one connection or to the protocol of one side.
pub(crate) fn passed_on(mut headers: HeaderMap) -> HeaderMap {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            hops::is_hop(name) || name.starts_with("grpc-") || name == "te" || name == "host"
        })
        .cloned()
        .collect();
    for name in own.iter().chain([&CONTENT_TYPE, &CONTENT_LENGTH]) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_requests() {
        for (method, verb, query, expected_method, expected_path) in [
            ("orders", Verb::None, "", Method::POST, "/orders"),
            ("/orders/1", Verb::Get, "a=1&b=2", Method::GET, "/orders/1?a=1&b=2"),
            ("orders?a=1", Verb::Delete, "b=2", Method::DELETE, "/orders?a=1&b=2"),
            ("", Verb::Patch, "", Method::PATCH, "/"),
        ] {
            let message = InvokeRequest {
                method: method.to_owned(),
                http_extension: Some(HttpExtension { verb: verb.into(), querystring: query.to_owned() }),
                ..InvokeRequest::default()
            };
            let mut headers = HeaderMap::new();
            for name in ["te", "grpc-timeout", "content-type", "x-mine", "connection"] {
                headers.insert(name, HeaderValue::from_static("x"));
            }
            let (path, request) = to_request(message, headers);
            assert_eq!((request.method(), path.as_str()), (&expected_method, expected_path));
            let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
            assert_eq!(names.len(), 2, "{names:?}");
            assert_eq!(
                (&request.headers()["x-mine"], &request.headers()[CONTENT_TYPE]),
                (&"x".parse().unwrap(), &"application/json".parse().unwrap())
            );
        }
    }
}
