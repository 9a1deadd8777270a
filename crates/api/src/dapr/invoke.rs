//! `/v1.0/invoke`, and any other path with a `dapr-app-id`.

use super::error::{ApiError, Grpc};
use super::path::decode;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use dhow_blocks::hops;
use dhow_blocks::invoke::{Invocation, Reply, Trigger};
use dhow_blocks::scope::Scope;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};

/// What of a request's headers was for this host, beside those of the connection.
const NOT_PASSED_ON: [&str; 3] = ["dapr-app-id", "host", "te"];

/// `/v1.0/invoke/<app-id>/method/<path>`
pub(super) async fn by_path(scope: &Scope, invocation: Invocation) -> Result<Reply, ApiError> {
    let uri = invocation.request.uri();
    // Taken from the raw path: the callee's part keeps its escapes and slashes.
    let path = uri.path().trim_start_matches('/');
    let Some((app_id, method)) = target(path) else { return by_header(scope, invocation).await };
    let path = if method.is_empty() { "/".to_owned() } else { method };
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    call(scope, &app_id, &path, invocation).await
}

/// The callee and its method in a path below `v1.0/invoke/`.
fn target(path: &str) -> Option<(String, String)> {
    let rest = path.strip_prefix("v1.0/")?.trim_start_matches('/').strip_prefix("invoke/")?;
    let rest = rest.trim_start_matches('/');
    // A URL may stand there as it is, with slashes of its own.
    let end = match rest.strip_prefix("http://").or_else(|| rest.strip_prefix("https://")) {
        Some(url) => {
            let mut ends = url.match_indices("/method").map(|(at, word)| (at, &url[at + word.len()..]));
            let (at, _) = ends.find(|(_, rest)| rest.is_empty() || rest.starts_with('/'))?;
            rest.len() - url.len() + at
        }
        None => rest.find('/')?,
    };
    let (app_id, rest) = rest.split_at(end);
    let method = rest.trim_start_matches('/').strip_prefix("method")?;
    (method.is_empty() || method.starts_with('/')).then(|| (decode(app_id), method.to_owned()))
}

/// A bare path, with the target in the header `dapr-app-id` or as the password of the user `dapr-app-id`.
pub(super) async fn by_header(scope: &Scope, invocation: Invocation) -> Result<Reply, ApiError> {
    let headers = invocation.request.headers();
    let named = headers.get("dapr-app-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let Some(app_id) = named.or_else(|| basic_auth(headers)).filter(|id| !id.is_empty()) else {
        return Err(no_target());
    };
    let path = invocation.request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    call(scope, &app_id, &path, invocation).await
}

/// Nobody to invoke is named. So are paths answered that are no API, or one that is switched off.
pub(super) fn no_target() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        Grpc::NotFound,
        "ERR_DIRECT_INVOKE",
        "failed getting app id either from the URL path or the header dapr-app-id",
    )
}

/// Invokes an app at this path with this query.
pub(crate) async fn call(
    scope: &Scope,
    app_id: &str,
    path: &str,
    mut invocation: Invocation,
) -> Result<Reply, ApiError> {
    let app_id = address(scope, app_id, path, &mut invocation)?;
    let answer = scope.invoke(&app_id, invocation).await;
    answer.map_err(|error| ApiError::invoke(&app_id, &error))
}

/// Makes an invocation ready for the way to another app: path, headers, trace. The answer is the app's id
/// without its namespace.
pub(crate) fn address(
    scope: &Scope,
    app_id: &str,
    path: &str,
    invocation: &mut Invocation,
) -> Result<String, ApiError> {
    // `orders.default` is the app `orders` in the namespace `default`; a host has one.
    let without_namespace = app_id.strip_suffix(&*scope.namespace).and_then(|id| id.strip_suffix('.'));
    let app_id = without_namespace.unwrap_or(app_id);
    let bad = |error: &dyn std::fmt::Display| {
        let message = format!("failed to invoke, id: {app_id}, err: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, Grpc::InvalidArgument, "ERR_DIRECT_INVOKE", message)
    };
    let uri = path.parse::<Uri>().map_err(|error| bad(&error))?;
    let forwarded_host = host_of(invocation);
    *invocation.request.uri_mut() = uri;
    let headers = invocation.request.headers_mut();
    hops::strip(headers);
    for name in NOT_PASSED_ON {
        headers.remove(name);
    }
    let names = [
        ("dapr-caller-app-id", &*scope.app_id),
        ("dapr-caller-namespace", &*scope.namespace),
        ("dapr-callee-app-id", app_id),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", &forwarded_host),
        ("forwarded", &format!("for=127.0.0.1;by=127.0.0.1;host={forwarded_host}")),
    ];
    for (name, value) in names {
        let value = HeaderValue::try_from(value).map_err(|error| bad(&error))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    invocation.trigger = Trigger::App;
    invocation.trace = invocation.trace.child();
    Ok(app_id.to_owned())
}

/// The host that the caller addressed, for the callee to see.
fn host_of(invocation: &Invocation) -> String {
    let authority = invocation.request.uri().authority().map(|authority| authority.as_str());
    let header = || invocation.request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    authority.or_else(header).unwrap_or("localhost").to_owned()
}

fn basic_auth(headers: &HeaderMap) -> Option<String> {
    let encoded = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.strip_prefix("dapr-app-id:").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::target;

    #[test]
    fn callees_are_names_or_urls() {
        for (path, expected) in [
            ("v1.0/invoke/app/method/a/b", Some(("app", "/a/b"))),
            ("v1.0//invoke//app//method", Some(("app", ""))),
            ("v1.0/invoke/http%3A%2F%2Fh:1/method/x", Some(("http://h:1", "/x"))),
            ("v1.0/invoke/http://h:1/method/x%2Fy", Some(("http://h:1", "/x%2Fy"))),
            ("v1.0/invoke/https://methods.example/a/method", Some(("https://methods.example/a", ""))),
            ("v1.0/invoke/http://h/methods/method/x", Some(("http://h/methods", "/x"))),
            ("v1.0/invoke/http://h/methods", None),
            ("v1.0/invoke/app/methods", None),
            ("v1.0/state/app/method/a", None),
        ] {
            let found = target(path);
            let found = found.as_ref().map(|(app_id, method)| (app_id.as_str(), method.as_str()));
            assert_eq!(found, expected, "{path}");
        }
    }
}
