//! `dhow:runtime/invoke`: requests to other apps.

use super::wit::invoke;
use super::{Error, Runtime};
use dhow_blocks::hops;
use dhow_blocks::invoke::{Body, CollectError, Invocation, Trigger};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Uri};

/// Most headers of a request.
const MAX_HEADERS: usize = 1000;

/// What the host sets itself, beside the headers of the connection.
const NOT_PASSED_ON: [HeaderName; 3] = [CONTENT_LENGTH, http::header::HOST, http::header::TE];

impl invoke::Host for Runtime<'_> {
    async fn call(&mut self, app_id: String, request: invoke::Request) -> Result<invoke::Response, Error> {
        let scope = &self.setup.scope;
        let request = http_request((&scope.app_id, &scope.namespace), &app_id, request)?;
        let (trace, depth) = (self.origin.trace.child(), self.origin.depth);
        let reply =
            scope.invoke(&app_id, Invocation { request, trigger: Trigger::App, trace, depth }).await?;
        let (head, body) = reply.into_parts();
        let limit = usize::try_from(self.setup.bounds.response_body).unwrap_or(usize::MAX);
        let body = body.collect(limit).await.map_err(|error| {
            let text = format!("the answer of app {app_id:?}: {error}");
            Error(match error {
                CollectError::TooLarge { .. } => invoke::Error::Failed(text),
                CollectError::Broken(_) => invoke::Error::Unavailable(text),
            })
        })?;
        let headers = head.headers.iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        Ok(invoke::Response { status: head.status.as_u16(), headers: headers.collect(), body: body.into() })
    }
}

fn http_request(
    (caller, namespace): (&str, &str),
    callee: &str,
    request: invoke::Request,
) -> Result<Request<Body>, Error> {
    let invoke::Request { method, path, headers, body } = request;
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("path {path:?} must begin with a slash")));
    }
    let uri: Uri = path.parse().map_err(|error| Error::invalid(format!("path {path:?}: {error}")))?;
    let method = Method::from_bytes(method.as_bytes());
    let method = method.map_err(|error| Error::invalid(format!("method: {error}")))?;
    if headers.len() > MAX_HEADERS {
        return Err(Error::invalid(format!("more than {MAX_HEADERS} headers")));
    }
    let mut http = Request::new(Body::from(body));
    *http.method_mut() = method;
    *http.uri_mut() = uri;
    for (name, value) in headers {
        append(http.headers_mut(), &name, &value)?;
    }
    hops::strip(http.headers_mut());
    for name in NOT_PASSED_ON {
        http.headers_mut().remove(name);
    }
    let names = [
        ("dapr-caller-app-id", caller),
        ("dapr-caller-namespace", namespace),
        ("dapr-callee-app-id", callee),
    ];
    for (name, value) in names {
        http.headers_mut().remove(name);
        append(http.headers_mut(), name, value.as_bytes())?;
    }
    Ok(http)
}

fn append(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), Error> {
    let invalid = |error: &dyn std::fmt::Display| Error::invalid(format!("header {name:?}: {error}"));
    let key = HeaderName::try_from(name).map_err(|error| invalid(&error))?;
    let value = HeaderValue::from_bytes(value).map_err(|error| invalid(&error))?;
    headers.try_append(key, value).map_err(|error| invalid(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::http_request;
    use super::invoke;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> invoke::Request {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let (method, path) = (method.to_owned(), path.to_owned());
        invoke::Request { method, path, headers: headers.collect(), body: Vec::new() }
    }

    #[test]
    fn a_callee_learns_who_calls_and_nothing_of_the_way() {
        let given = [
            ("X-One", "1"),
            ("x-one", "2"),
            ("Host", "evil"),
            ("content-length", "7"),
            ("dapr-caller-app-id", "somebody"),
        ];
        let http = http_request(("me", "default"), "you", request("PUT", "/a?b=c", &given)).unwrap();
        assert_eq!((http.method().as_str(), http.uri().to_string().as_str()), ("PUT", "/a?b=c"));
        let values = |name: &str| -> Vec<String> {
            http.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(values("x-one"), ["1", "2"]);
        assert_eq!(values("dapr-caller-app-id"), ["me"]);
        assert_eq!(values("dapr-callee-app-id"), ["you"]);
        assert!(values("host").is_empty() && values("content-length").is_empty());
    }

    #[test]
    fn what_is_no_request_is_invalid() {
        let many = vec![("a", "b"); 1001];
        for (method, path, headers) in [
            ("", "/", &[][..]),
            ("GET /", "/", &[]),
            ("GET", "", &[]),
            ("GET", "a", &[]),
            ("GET", "/a b", &[]),
            ("GET", "/", &[("a b", "c")]),
            ("GET", "/", &[("", "c")]),
            ("GET", "/", &[("a", "\n")]),
            ("GET", "/", &many),
        ] {
            let refused = http_request(("me", "default"), "you", request(method, path, headers));
            assert!(matches!(refused.unwrap_err().0, invoke::Error::Invalid(_)), "{method:?} {path:?}");
        }
    }
}
