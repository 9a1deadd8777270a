//! What changes while a host runs, over HTTP: versions of apps, components, bindings. The control face has these routes for
//! the owner, the management face for whoever has its token.
//!
//! | route | answer |
//! |---|---|
//! | `POST /v1/apps/<id>/update?from=…&weight=…&header=…&window=…&max-errors=…&any-interface=1&any-signer=1` | the entry of the history; without `from` the body is the module |
//! | `POST /v1/apps/<id>/promote`, `POST /v1/apps/<id>/rollback?to=VERSION` | the entry |
//! | `GET /v1/apps/<id>/history?entry=N&wait=SECONDS` | all entries, or one once its outcome is certain |
//! | `GET /v1/apps/<id>/bindings` | what the app finds beside its grants |
//! | `POST /v1/apps/<id>/bind`, `/unbind` with `{"block", "names": {NAME: COMPONENT}}`, `{"block", "names": [NAME]}` | the same |
//! | `GET /v1/providers`, `POST /v1/providers?file=…&replace=1`, `DELETE /v1/providers/<name>` | the components; their names |
//! | `POST /liveupdate?app=<id>` | Waxosuit's: a module, alone or as a part of a form |
//!
//! Failures are `{"error"}` with 400, 404, 409 (not now), 422 (it does not work) or 500.

use crate::dapr::path::{Query, segments};
use crate::reply;
use bytes::Bytes;
use dhow_blocks::invoke::{Body, CollectError, Reply};
use dhow_host::binding::{Binding, Block};
use dhow_host::fleet::{Entry, FailureKind, NewModule, Update, Window};
use dhow_host::split::{Share, WHOLE};
use dhow_host::{Fleet, FleetError};
use dhow_resources::units::parse_duration;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Largest module that is sent, in bytes.
const MAX_MODULE: usize = 256 << 20;

/// Largest body of anything else.
const MAX_REQUEST: usize = 1 << 20;

/// Modules that are taken at once; each is held in memory.
const UPLOADS: usize = 2;

/// Longest wait for an outcome in one request.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Of the invocations of a version that is watched, so many may fail where nothing else is said.
const MAX_ERRORS: &str = "5%";

/// Changes the apps of a host for those who ask.
pub struct Live {
    fleet: Arc<Fleet>,
    uploads: Semaphore,
}

/// Who asks, and what they may name.
pub(crate) struct Asking<'a> {
    /// For the history.
    pub(crate) who: &'a str,
    /// Whether paths are theirs to name: those of the owner of this machine's files.
    pub(crate) is_owner: bool,
}

/// Why nothing was done.
struct Refused(StatusCode, String);

type Answer = Result<Value, Refused>;

// === impl Live ===

impl Live {
    /// For the apps of this fleet.
    pub fn new(fleet: Arc<Fleet>) -> Live {
        Live { fleet, uploads: Semaphore::new(UPLOADS) }
    }

    /// Whether a path is one of these routes.
    pub(crate) fn knows(path: &str) -> bool {
        match segments(path).iter().map(|segment| &**segment).collect::<Vec<_>>().as_slice() {
            ["v1", "apps", _, action] => {
                ["update", "promote", "rollback", "history", "bindings", "bind", "unbind"].contains(action)
            }
            ["v1", "providers"] | ["v1", "providers", _] | ["liveupdate"] => true,
            _ => false,
        }
    }

    /// Answers a request to one of these routes.
    pub(crate) async fn answer(&self, request: Request<Body>, asking: Asking<'_>) -> Reply {
        let (status, body) = match self.act(request, asking).await {
            Ok(body) => (StatusCode::OK, body),
            Err(Refused(status, message)) => (status, json!({ "error": message })),
        };
        reply(status, "application/json", body.to_string())
    }

    async fn act(&self, request: Request<Body>, asking: Asking<'_>) -> Answer {
        let (head, body) = request.into_parts();
        let query = Query::parse(head.uri.query());
        let path = segments(head.uri.path());
        let path: Vec<&str> = path.iter().map(|segment| &**segment).collect();
        match (&head.method, path.as_slice()) {
            (&Method::POST, ["v1", "apps", app_id, "update"]) => {
                let from = query.get("from").filter(|from| !from.is_empty());
                let module = match from {
                    None => NewModule::Bytes(self.module(&head.headers, body).await?),
                    Some("-") => {
                        return Err(invalid("from=-: the host has no input; send the module itself"));
                    }
                    Some(from) => NewModule::named(from),
                };
                if module.is_file() && !asking.is_owner {
                    let message = "a path would be one of the host's: send the module itself, or name a URL";
                    return Err(Refused(StatusCode::FORBIDDEN, message.to_owned()));
                }
                self.update(app_id, module, &query, asking.who).await
            }
            (&Method::POST, ["liveupdate"]) => {
                let apps = self.fleet.host().apps();
                let app_id = match (query.get("app"), apps.as_slice()) {
                    (Some(app_id), _) => app_id.to_owned(),
                    (None, [app]) => app.app_id.to_string(),
                    (None, _) => {
                        return Err(invalid("the host has several apps; name one: /liveupdate?app=…"));
                    }
                };
                let module = NewModule::Bytes(self.module(&head.headers, body).await?);
                self.update(&app_id, module, &query, asking.who).await
            }
            (&Method::POST, ["v1", "apps", app_id, "promote"]) => {
                known(&query, &[])?;
                Ok(json!(self.fleet.promote(app_id, asking.who).await?))
            }
            (&Method::POST, ["v1", "apps", app_id, "rollback"]) => {
                known(&query, &["to"])?;
                let to = query.get("to").map(|to| number("to", to)).transpose()?;
                Ok(json!(self.fleet.rollback(app_id, to, asking.who).await?))
            }
            (&Method::GET, ["v1", "apps", app_id, "history"]) => {
                known(&query, &["entry", "wait"])?;
                let Some(entry) = query.get("entry") else {
                    return Ok(json!({ "history": self.fleet.history(app_id).await? }));
                };
                let wait = query.get("wait").map_or(Ok(0), |wait| number("wait", wait))?;
                let wait = Duration::from_secs(wait).min(MAX_WAIT);
                Ok(json!(self.fleet.outcome(app_id, number("entry", entry)?, wait).await?))
            }
            (&Method::GET, ["v1", "apps", app_id, "bindings"]) => {
                Ok(bindings(&self.fleet.bindings(app_id).await?))
            }
            (&Method::POST, ["v1", "apps", app_id, "bind"]) => {
                let (block, capability, names) = wanted(&text(body).await?)?;
                let Value::Object(names) = names else {
                    return Err(invalid("names has to be an object: {NAME: COMPONENT}"));
                };
                let mut pairs = Vec::with_capacity(names.len());
                for (name, component) in names {
                    let Some(component) = component.as_str() else {
                        return Err(invalid(format!("names.{name} has to be the name of a component")));
                    };
                    pairs.push((name, component.to_owned()));
                }
                Ok(bindings(&self.fleet.bind(app_id, (block, capability), &pairs, asking.who).await?))
            }
            (&Method::POST, ["v1", "apps", app_id, "unbind"]) => {
                let (block, _, names) = wanted(&text(body).await?)?;
                let names: Vec<String> = serde_json::from_value(names)
                    .map_err(|_| invalid("names has to be a list of the names to take away"))?;
                Ok(bindings(&self.fleet.unbind(app_id, block, &names, asking.who).await?))
            }
            (&Method::GET, ["v1", "providers"]) => Ok(json!({ "providers": self.fleet.components().await })),
            (&Method::POST, ["v1", "providers"]) => {
                known(&query, &["file", "replace"])?;
                let file = query.get("file").filter(|file| !file.is_empty()).unwrap_or("request");
                let replace = query.get("replace") == Some("1");
                let text = text(body).await?;
                let names = self.fleet.add_components(&text, Path::new(file), replace).await?;
                Ok(json!({ "added": names }))
            }
            (&Method::DELETE, ["v1", "providers", name]) => {
                self.fleet.remove_component(name).await?;
                Ok(json!({ "removed": [name] }))
            }
            (method, _) => {
                let message = format!("{} is not for {method}", head.uri.path());
                Err(Refused(StatusCode::METHOD_NOT_ALLOWED, message))
            }
        }
    }

    async fn update(&self, app_id: &str, module: NewModule, query: &Query, who: &str) -> Answer {
        known(
            query,
            &["app", "from", "weight", "header", "window", "max-errors", "any-interface", "any-signer"],
        )?;
        let header = match query.get("header") {
            None => None,
            Some(text) => {
                let header = text
                    .split_once('=')
                    .and_then(|(name, value)| Some((name.trim().parse().ok()?, value.trim().parse().ok()?)));
                Some(header.ok_or_else(|| invalid(format!("header={text}: expected NAME=VALUE")))?)
            }
        };
        let weight = query.get("weight").map(|weight| percent("weight", weight)).transpose()?;
        let share = match (weight, &header) {
            (None, None) => None,
            (weight, _) => Some(Share { weight: weight.unwrap_or(0), header }),
        };
        let window = match (query.get("window"), query.get("max-errors")) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(invalid("max-errors is for a window: say how long the version is watched"));
            }
            (Some(window), errors) => Some(Window {
                length: parse_duration(window)
                    .map_err(|expected| invalid(format!("window={window}: {expected}")))?,
                max_errors: percent("max-errors", errors.unwrap_or(MAX_ERRORS))?,
            }),
        };
        let any_interface = query.get("any-interface") == Some("1");
        let any_signer = query.get("any-signer") == Some("1");
        let update = Update { module, who: who.to_owned(), share, window, any_interface, any_signer };
        // It goes on when whoever asked goes away: half an update there is not.
        let (fleet, app_id) = (Arc::clone(&self.fleet), app_id.to_owned());
        let updated = tokio::spawn(async move { fleet.update(&app_id, update).await }).await;
        let entry: Entry =
            updated.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
        Ok(json!(entry))
    }

    /// A module that was sent, alone or as a part of a form.
    async fn module(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Refused> {
        let Ok(_slot) = self.uploads.try_acquire() else {
            let message = format!("{UPLOADS} modules are being sent already");
            return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        let body = collect(body, MAX_MODULE).await?;
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let module = match boundary(content_type) {
            None => body,
            Some(boundary) => first_file(&body, &boundary)
                .ok_or_else(|| invalid("the form has no whole part with a file (RFC 7578)"))?,
        };
        if module.is_empty() {
            return Err(invalid("no module was sent: it is the body of the request, or named by from=…"));
        }
        Ok(module)
    }
}

fn bindings(bindings: &[Binding]) -> Value {
    json!({ "bindings": bindings })
}

/// The block, the capability if it is named by one, and what else a request about bindings says.
fn wanted(text: &str) -> Result<(Block, Option<&'static str>, Value), Refused> {
    let mut request: Value =
        serde_json::from_str(text).map_err(|error| invalid(format!("the request is no JSON: {error}")))?;
    let block = request["block"].as_str().ok_or_else(|| invalid("the request names no block"))?;
    let capability = Block::capability(block);
    let block = block.parse().map_err(FleetError::from)?;
    Ok((block, capability, request["names"].take()))
}

/// Parameters that are not known may be misspelt ones.
fn known(query: &Query, names: &[&str]) -> Result<(), Refused> {
    match query.names().find(|name| !names.contains(name)) {
        None => Ok(()),
        Some(strange) => {
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Err(invalid(format!("unknown parameter {strange:?}; there are: {there}")))
        }
    }
}

fn number(name: &str, text: &str) -> Result<u64, Refused> {
    text.parse().map_err(|_| invalid(format!("{name}={text}: expected a number")))
}

/// `10%` or `10`, as parts of [`WHOLE`].
fn percent(name: &str, text: &str) -> Result<u32, Refused> {
    let number = text.trim().trim_end_matches('%').trim().parse::<f64>().ok();
    let number = number.filter(|number| (0.0..=100.0).contains(number));
    let number = number.ok_or_else(|| invalid(format!("{name}={text}: expected 0% to 100%")))?;
    let parts = (number * f64::from(WHOLE) / 100.0).round() as u32;
    match parts {
        0 if number > 0.0 => {
            Err(invalid(format!("{name}={text}: the least is {}%", 100.0 / f64::from(WHOLE))))
        }
        parts => Ok(parts),
    }
}

async fn text(body: Body) -> Result<String, Refused> {
    let bytes = collect(body, MAX_REQUEST).await?;
    String::from_utf8(bytes.into()).map_err(|_| invalid("the request is not UTF-8"))
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Refused> {
    body.collect(limit).await.map_err(|error| match error {
        CollectError::TooLarge { .. } => Refused(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        CollectError::Broken(_) => invalid(error.to_string()),
    })
}

/// What stands between the parts of a form; none if it is no form (RFC 7578, RFC 2046 section 5.1.1).
fn boundary(content_type: &str) -> Option<String> {
    let mut parameters = content_type.split(';');
    let kind = parameters.next()?.trim();
    if !kind.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    });
    // An invalid one finds no part.
    Some(value.filter(|value| (1..=70).contains(&value.len())).unwrap_or_default())
}

/// The first part that is a file, or else the first part.
fn first_file(body: &Bytes, boundary: &str) -> Option<Bytes> {
    if boundary.is_empty() {
        return None;
    }
    let line = format!("--{boundary}");
    let end = format!("\r\n--{boundary}");
    let mut at = find(body, line.as_bytes())? + line.len();
    let mut first = None;
    // Two dashes stand behind the last one.
    while !body[at..].starts_with(b"--") {
        let head = at + find(&body[at..], b"\r\n")? + 2;
        // The first header may be missing, and its end of line is that of the boundary then.
        let content = head - 2 + find(&body[head - 2..], b"\r\n\r\n")? + 4;
        let length = find(&body[content..], end.as_bytes())?;
        let part = body.slice(content..content + length);
        let headers = String::from_utf8_lossy(&body[head..content.max(head)]).to_ascii_lowercase();
        if headers.contains("filename") {
            return Some(part);
        }
        first.get_or_insert(part);
        at = content + length + end.len();
    }
    first
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|window| window == what)
}

fn invalid(message: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, message.into())
}

impl From<FleetError> for Refused {
    fn from(error: FleetError) -> Refused {
        let status = match error.kind() {
            FailureKind::Missing => StatusCode::NOT_FOUND,
            FailureKind::Conflict => StatusCode::CONFLICT,
            FailureKind::Invalid => StatusCode::BAD_REQUEST,
            FailureKind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let unchanged = if error.kind() == FailureKind::Refused { "; nothing changed" } else { "" };
        Refused(status, format!("{error}{unchanged}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_in_a_form() {
        let form = |parts: &[(&str, &str)], end: &str| {
            let parts: String =
                parts.iter().map(|(head, body)| format!("--x\r\n{head}\r\n{body}\r\n")).collect();
            Bytes::from(format!("{parts}{end}"))
        };
        let field = "content-disposition: form-data; name=\"a\"\r\n";
        let file = "Content-Disposition: form-data; name=\"m\"; filename=\"m.wasm\"\r\n";
        for (parts, end, found) in [
            (&[(file, "wasm")][..], "--x--\r\n", Some("wasm")),
            (&[(field, "1"), (file, "wa\r\nsm")], "--x--", Some("wa\r\nsm")),
            (&[(field, "1"), (field, "2")], "--x--", Some("1")),
            (&[("", "bare")], "--x--", Some("bare")),
            (&[(file, "")], "--x--", Some("")),
            (&[], "--x--", None),
            (&[(file, "wasm")], "", None),
            (&[], "--x", None),
            (&[], "--x\r\nfilename", None),
            (&[], "", None),
        ] {
            let found_now = first_file(&form(parts, end), "x");
            assert_eq!(found_now.as_deref(), found.map(str::as_bytes), "{parts:?} {end:?}");
        }
        assert_eq!(boundary("multipart/form-data; charset=x; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("Multipart/Form-Data").as_deref(), Some(""));
        assert_eq!(boundary("application/wasm; boundary=x"), None);
    }

    #[test]
    fn shares_are_read_as_percentages() {
        for (text, parts) in
            [("10%", Some(1000)), ("0.5", Some(50)), (" 100 % ", Some(WHOLE)), ("0", Some(0))]
        {
            assert_eq!(percent("weight", text).ok(), parts, "{text}");
        }
        for text in ["", "-1%", "101%", "x", "NaN", "inf", "0.001%"] {
            assert!(percent("weight", text).is_err(), "{text}");
        }
    }
}
