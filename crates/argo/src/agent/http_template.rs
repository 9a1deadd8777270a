//! `http` templates: a request, and what its answer means. Argo's own agent runs them where it is there.
//!
//! Fields: <https://argo-workflows.readthedocs.io/en/latest/fields/#http>. As there, what goes wrong is `Failed`, the
//! answer's body is the result, redirections are followed, and `successCondition` is an expression over `request` and
//! `response`.

use crate::controller::duration;
use crate::expression::{Expression, Language};
use crate::kubernetes::{Cluster, chain, connector};
use crate::model::{Template, scalar_text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dhow_providers::tls::Tls;
use http::header::{AUTHORIZATION, COOKIE, HOST, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use url::Url;

/// A request may take so long when nothing says otherwise.
const UNSTATED: Duration = Duration::from_secs(3600);

/// Largest answer, in bytes: it has to fit into an object of Kubernetes.
const MAX_ANSWER: usize = 1 << 20;

/// Redirections that are followed, as many as by Argo's own agent.
const MAX_REDIRECTS: usize = 10;

/// Requests at the same time.
const MAX_REQUESTS: usize = 128;

type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends the requests of templates.
pub(super) struct HttpTemplates {
    client: HttpsClient,
    /// For `insecureSkipVerify`.
    unverified: HttpsClient,
    /// Where secrets are.
    cluster: Arc<Cluster>,
    turns: Semaphore,
}

/// The template's field `http`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    method: String,
    url: String,
    headers: Vec<Header>,
    timeout_seconds: Value,
    success_condition: String,
    body: String,
    body_from: Option<BodyFrom>,
    insecure_skip_verify: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Header {
    name: String,
    value: String,
    value_from: Option<ValueFrom>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom {
    secret_key_ref: Option<SecretKey>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SecretKey {
    name: String,
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BodyFrom {
    /// In base64.
    bytes: String,
}

/// An answer as a whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

// === impl HttpTemplates ===

impl HttpTemplates {
    pub(super) fn new(cluster: Arc<Cluster>) -> Result<HttpTemplates, String> {
        let client = |insecure: bool| -> Result<HttpsClient, String> {
            let mut client = Client::builder(TokioExecutor::new());
            client.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
            Ok(client.build(connector::connect_with(&Tls { insecure, ..Tls::default() })?))
        };
        Ok(HttpTemplates {
            client: client(false)?,
            unverified: client(true)?,
            cluster,
            turns: Semaphore::new(MAX_REQUESTS),
        })
    }

    /// What becomes of a node with such a template: a `NodeResult`.
    pub(super) async fn execute(&self, namespace: &str, template: &Template, fields: &Value) -> Value {
        match self.try_execute(namespace, template, fields).await {
            Ok(result) => result,
            Err(message) => json!({"phase": "Failed", "message": message}),
        }
    }

    async fn try_execute(
        &self,
        namespace: &str,
        template: &Template,
        fields: &Value,
    ) -> Result<Value, String> {
        let fields: Fields =
            serde_json::from_value(fields.clone()).map_err(|error| format!("http: {error}"))?;
        // It is closed with the agent only.
        let _turn = self.turns.acquire().await;
        let (limit, of) = limit(template, &fields)?;
        let answer = tokio::time::timeout(limit, self.send(namespace, &fields)).await;
        let answer = answer.map_err(|_| format!("no answer within {} s ({of})", limit.as_secs_f64()))??;
        let (is_success, message) = judge(&fields, &answer)?;
        Ok(json!({
            "phase": if is_success { "Succeeded" } else { "Failed" },
            "message": message,
            "outputs": {"result": answer.body},
        }))
    }

    async fn send(&self, namespace: &str, fields: &Fields) -> Result<Answer, String> {
        let mut url: Url =
            fields.url.parse().map_err(|error| format!("http.url {:?}: {error}", fields.url))?;
        let mut method = match fields.method.as_str() {
            "" => Method::GET,
            name => {
                Method::from_bytes(name.as_bytes()).map_err(|_| format!("http.method {name:?} is none"))?
            }
        };
        let mut body = match &fields.body_from {
            Some(from) => {
                let decoded = STANDARD.decode(from.bytes.trim());
                Bytes::from(decoded.map_err(|_| "http.bodyFrom.bytes is no base64".to_owned())?)
            }
            None => Bytes::from(fields.body.clone()),
        };
        let mut headers = self.headers(namespace, &fields.headers).await?;
        let client = if fields.insecure_skip_verify { &self.unverified } else { &self.client };
        for _ in 0..=MAX_REDIRECTS {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(format!("{}: expected http or https", shown(&url)));
            }
            let failed = |error: &dyn std::fmt::Display| format!("{method} {}: {error}", shown(&url));
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = url.as_str().parse().map_err(|error| failed(&error))?;
            *request.headers_mut() = headers.clone();
            let response = client.request(request).await.map_err(|error| failed(&chain(&error)))?;
            let status = response.status();
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status.as_u16(), location) {
                let next = url.join(location).map_err(|error| failed(&error))?;
                if next.origin() != url.origin() {
                    // They were meant for the first place only.
                    for name in [AUTHORIZATION, COOKIE, WWW_AUTHENTICATE, HOST] {
                        headers.remove(name);
                    }
                }
                if status.as_u16() < 307 && method != Method::HEAD {
                    method = Method::GET;
                    body = Bytes::new();
                }
                url = next;
                continue;
            }
            let (parts, incoming) = response.into_parts();
            let body =
                Limited::new(incoming, MAX_ANSWER).collect().await.map_err(|error| match error
                    .is::<LengthLimitError>(
                ) {
                    true => failed(&format!("the answer has more than {MAX_ANSWER} bytes")),
                    false => failed(&format!("the answer broke off: {error}")),
                })?;
            let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            return Ok(Answer { status, headers: parts.headers, body });
        }
        Err(format!("{}: more than {MAX_REDIRECTS} redirections", shown(&url)))
    }

    async fn headers(&self, namespace: &str, given: &[Header]) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for header in given {
            let wrong = |what: &str| format!("http.headers: {:?} has {what}", header.name);
            let name =
                HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong("no name of a header"))?;
            let secret = header.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
            let mut value = match secret {
                Some(secret) => {
                    let bytes = self.cluster.secret(namespace, &secret.name, &secret.key).await;
                    let bytes = bytes.map_err(|error| error.to_string())?;
                    HeaderValue::from_bytes(&bytes).map_err(|_| wrong("a value that no header may have"))?
                }
                None => HeaderValue::from_str(&header.value)
                    .map_err(|_| wrong("a value that no header may have"))?,
            };
            value.set_sensitive(secret.is_some());
            headers.append(name, value);
        }
        Ok(headers)
    }
}

/// How long it may take, and which field says so.
fn limit(template: &Template, fields: &Fields) -> Result<(Duration, &'static str), String> {
    let stated = [
        ("http.timeoutSeconds", scalar_text(&fields.timeout_seconds)),
        ("timeout", template.timeout.clone()),
        ("activeDeadlineSeconds", template.active_deadline_seconds.clone().unwrap_or_default()),
    ];
    let mut shortest = (UNSTATED, "the agent's own limit");
    for (field, text) in stated {
        if text.is_empty() {
            continue;
        }
        let limit = duration(&text).map_err(|error| format!("{field}: {error}"))?;
        if limit < shortest.0 {
            shortest = (limit, field);
        }
    }
    Ok(shortest)
}

/// Whether it is what was wanted, and why not.
fn judge(fields: &Fields, answer: &Answer) -> Result<(bool, String), String> {
    let condition = fields.success_condition.as_str();
    if condition.is_empty() {
        let message = format!("received non-2xx response code: {}", answer.status.as_u16());
        return Ok((
            answer.status.is_success(),
            if answer.status.is_success() { String::new() } else { message },
        ));
    }
    let mut sent = Map::new();
    // Secrets are not shown to an expression, whose value may become public.
    for header in fields.headers.iter().filter(|header| header.value_from.is_none()) {
        sent.insert(header.name.clone(), json!([header.value]));
    }
    let mut received = Map::new();
    for name in answer.headers.keys() {
        let values = answer.headers.get_all(name).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        received.insert(canonical(name.as_str()), json!(values));
    }
    let variables = json!({
        "request": {
            "method": fields.method, "url": fields.url, "body": fields.body, "headers": sent,
        },
        "response": {
            "statusCode": answer.status.as_u16(), "body": answer.body, "headers": received,
        },
    });
    let is_success = Expression::parse(condition, Language::Expr)
        .and_then(|expression| expression.is_true(&variables))
        .map_err(|error| format!("successCondition: {error}"))?;
    let message = format!("successCondition '{condition}' evaluated false");
    Ok((is_success, if is_success { String::new() } else { message }))
}

/// A header's name as Argo's conditions have it: `content-type` is `Content-Type`.
fn canonical(name: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// A URL for messages: what is behind a `?` or before an `@` may be a secret.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means() {
        let answer = |status: u16, body: &str| {
            let mut headers = HeaderMap::new();
            headers.append("x-request-id", HeaderValue::from_static("7"));
            Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned() }
        };
        let cases = [
            ("", 204, "", Ok(true)),
            ("", 302, "", Ok(false)),
            ("", 404, "", Ok(false)),
            ("response.statusCode == 404", 404, "", Ok(true)),
            ("response.body contains \"google\"", 200, "google", Ok(true)),
            ("response.headers['X-Request-Id'][0] == '7'", 200, "", Ok(true)),
            ("request.headers['A'][0] == 'b' && request.method == 'PUT'", 200, "", Ok(true)),
            ("jsonpath(response.body, '$.ok')", 500, r#"{"ok": true}"#, Ok(true)),
            ("response.body", 200, "text", Err(())),
            ("response.nothing.more == 1", 200, "", Err(())),
        ];
        let header = |name: &str, secret: bool| Header {
            name: name.to_owned(),
            value: "b".to_owned(),
            value_from: secret.then(ValueFrom::default),
        };
        for (condition, status, body, expected) in cases {
            let fields = Fields {
                method: "PUT".to_owned(),
                headers: vec![header("A", false), header("Secret", true)],
                success_condition: condition.to_owned(),
                ..Fields::default()
            };
            let judged = judge(&fields, &answer(status, body));
            assert_eq!(
                judged.as_ref().map(|(is, _)| *is).map_err(|_| ()),
                expected,
                "{condition}: {judged:?}"
            );
            if let Ok((false, message)) = judged {
                assert!(!message.is_empty(), "{condition}");
            }
        }
    }

    #[test]
    fn the_shortest_limit_counts() {
        let template = |timeout: &str, deadline: Option<&str>| Template {
            timeout: timeout.to_owned(),
            active_deadline_seconds: deadline.map(str::to_owned),
            ..Template::default()
        };
        let fields = |seconds: Value| Fields { timeout_seconds: seconds, ..Fields::default() };
        for (template, fields, expected) in [
            (template("", None), fields(Value::Null), UNSTATED),
            (template("5s", None), fields(json!(20)), Duration::from_secs(5)),
            (template("5m", Some("30")), fields(json!("20")), Duration::from_secs(20)),
        ] {
            assert_eq!(limit(&template, &fields).unwrap().0, expected);
        }
        assert!(limit(&template("soon", None), &fields(Value::Null)).is_err());
    }
}
