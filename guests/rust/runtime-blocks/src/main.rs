//! Every function of dhow:runtime behind one HTTP route, and all its handlers.
//!
//! A request's path names the function (`/state/get`), its body is a JSON object with the arguments. The answer is
//! `{"ok": …}` or `{"error": "denied", "text": …}`, always with status 200. The handlers write what they got to the
//! store `shared`, under `topic:<id>`, `job:<name>` and `binding:<name>`, with how often they were called; `do` in
//! the data says what they answer: nothing (success), `retry-once`, `fail-once`, `drop` or `trap`.

use serde_json::{Map, Value, json};
use wstd::http::{Body, Request, Response};

mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit/runtime",
        world: "dhow:runtime/app",
        generate_all,
    });
}

use bindings::dhow::runtime::jobs::{FailurePolicy, Job, Retries};
use bindings::dhow::runtime::pubsub::Message;
use bindings::dhow::runtime::state::{Concurrency, Item, Operation, SetOptions};
use bindings::dhow::runtime::types::Error;
use bindings::dhow::runtime::{binding, configuration, invoke, jobs, lock, pubsub, secrets, state};
use bindings::exports::dhow::runtime::{binding_handler, job_handler, topic_handler};

#[wstd::http_server]
async fn main(request: Request<Body>) -> wstd::http::Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let arguments: Value = serde_json::from_slice(body.contents().await?).unwrap_or_default();
    let caller = head.headers.get("dapr-caller-app-id").and_then(|id| id.to_str().ok());
    // What it subscribes to stands in resources.
    if head.uri.path() == "/dapr/subscribe" {
        return Ok(Response::builder().status(404).body(Body::empty())?);
    }
    let answer = match head.uri.path() {
        // For the app that invokes this one.
        "/echo" => json!({ "method": head.method.as_str(), "caller": caller, "body": arguments }),
        path => match answer(path, &Arguments(arguments)) {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => failure(error),
        },
    };
    let response = Response::builder().header("content-type", "application/json");
    Ok(response.body(Body::from(answer.to_string()))?)
}

fn answer(path: &str, a: &Arguments) -> Result<Value, Error> {
    let store = a.text("store");
    let (key, keys) = (a.text("key"), a.texts("keys"));
    Ok(match path {
        "/state/get" => state::get(&store, &key)?.map_or(Value::Null, item),
        "/state/get-many" => {
            let items = state::get_many(&store, &keys)?.into_iter();
            items.map(|found| found.map_or_else(failure, |found| found.map_or(Value::Null, item))).collect()
        }
        "/state/set" => json!(state::set(&store, &key, a.text("value").as_bytes(), &a.set_options())?),
        "/state/delete" => json!(state::delete(&store, &key, a.option("etag").as_deref())?),
        "/state/transact" => {
            let operations = a.list("operations").into_iter().map(|step| match step.option("value") {
                Some(value) => Operation::Set((step.text("key"), value.into_bytes(), step.set_options())),
                None => Operation::Delete((step.text("key"), step.option("etag"))),
            });
            json!(state::transact(&store, &operations.collect::<Vec<_>>())?)
        }
        "/state/list-keys" => {
            let limit = u32::try_from(a.number("limit")).unwrap_or_default();
            let page = state::list_keys(&store, &a.text("prefix"), a.option("after").as_deref(), limit)?;
            json!({ "keys": page.keys, "more": page.more })
        }
        "/state/increment" => json!(state::increment(&store, &key, a.number("delta"))?),
        "/state/query" => {
            let page = state::query(&store, &a.text("query"))?;
            let found: Vec<Value> =
                page.results.iter().map(|found| json!([found.key, text(&found.value)])).collect();
            json!({ "results": found, "token": page.token })
        }
        "/pubsub/publish" => json!(pubsub::publish(&a.text("pubsub"), &a.text("topic"), &a.message())?),
        "/pubsub/publish-many" => {
            let messages: Vec<Message> = a.list("messages").iter().map(Arguments::message).collect();
            let answers = pubsub::publish_many(&a.text("pubsub"), &a.text("topic"), &messages)?;
            answers.into_iter().map(|answer| answer.map_or_else(failure, |()| Value::Null)).collect()
        }
        "/invoke/call" => {
            let headers: Vec<_> = a.pairs("headers").into_iter().map(|(n, v)| (n, v.into_bytes())).collect();
            let (method, path, body) = (a.text("method"), a.text("path"), a.text("body").into_bytes());
            let response = invoke::call(&a.text("app"), &invoke::Request { method, path, headers, body })?;
            let body = text(&response.body);
            json!({ "status": response.status, "headers": response.headers.len(), "body": body })
        }
        "/lock/try-lock" => {
            let expiry = u32::try_from(a.number("expiry")).unwrap_or_default();
            json!(lock::try_lock(&store, &a.text("resource"), &a.text("owner"), expiry)?)
        }
        "/lock/unlock" => {
            json!(format!("{:?}", lock::unlock(&store, &a.text("resource"), &a.text("owner"))?))
        }
        "/secrets/get" => json!(secrets::get(&store, &a.text("name"), &a.pairs("metadata"))?),
        "/secrets/get-all" => json!(secrets::get_all(&store, &a.pairs("metadata"))?),
        "/configuration/get" => {
            let items = configuration::get(&store, &keys, &a.pairs("metadata"))?;
            items.into_iter().map(|item| json!([item.key, item.value, item.version])).collect()
        }
        "/binding/invoke" => {
            let (name, operation, data) = (a.text("name"), a.text("operation"), a.text("data"));
            let response = binding::invoke(&name, &operation, data.as_bytes(), &a.pairs("metadata"))?;
            json!({ "data": response.data.map(|data| text(&data)), "metadata": response.metadata })
        }
        "/jobs/schedule" => json!(jobs::schedule(&a.job(), a.is("overwrite"))?),
        "/jobs/get" => {
            let job = jobs::get(&a.text("name"))?;
            let policy = job.failure_policy.map(|policy| match policy {
                FailurePolicy::Drop => json!("drop"),
                FailurePolicy::Constant(retries) => json!([retries.interval_ms, retries.max_retries]),
            });
            json!({
                "name": job.name, "schedule": job.schedule, "due-time": job.due_time, "repeats": job.repeats,
                "ttl": job.ttl, "data": job.data, "failure-policy": policy,
            })
        }
        "/jobs/delete" => json!(jobs::delete(&a.text("name"))?),
        other => return Err(Error::Invalid(format!("no route {other}"))),
    })
}

fn failure(error: Error) -> Value {
    let (kind, text) = match error {
        Error::Denied(text) => ("denied", text),
        Error::NotFound(text) => ("not-found", text),
        Error::Conflict(text) => ("conflict", text),
        Error::Invalid(text) => ("invalid", text),
        Error::Unsupported(text) => ("unsupported", text),
        Error::Unavailable(text) => ("unavailable", text),
        Error::Failed(text) => ("failed", text),
    };
    json!({ "error": kind, "text": text })
}

fn item(item: Item) -> Value {
    json!({ "value": text(&item.value), "etag": item.etag, "expires": item.expires_at.is_some() })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A JSON object.
struct Arguments(Value);

// === impl Arguments ===

impl Arguments {
    fn option(&self, name: &str) -> Option<String> {
        self.0.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn text(&self, name: &str) -> String {
        self.option(name).unwrap_or_default()
    }

    fn number(&self, name: &str) -> i64 {
        self.0.get(name).and_then(Value::as_i64).unwrap_or_default()
    }

    fn is(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }

    fn list(&self, name: &str) -> Vec<Arguments> {
        let list = self.0.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        list.into_iter().map(Arguments).collect()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        self.list(name).iter().filter_map(|text| text.0.as_str().map(str::to_owned)).collect()
    }

    fn pairs(&self, name: &str) -> Vec<(String, String)> {
        let pairs = self.0.get(name).and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        pairs.into_iter().map(|(name, value)| (name, value.as_str().unwrap_or_default().to_owned())).collect()
    }

    fn set_options(&self) -> SetOptions {
        let concurrency =
            if self.is("first-write") { Concurrency::FirstWrite } else { Concurrency::LastWrite };
        let ttl_seconds = self.0.get("ttl").and_then(Value::as_u64);
        let json = self.0.get("json").and_then(Value::as_bool).unwrap_or_default();
        SetOptions { etag: self.option("etag"), concurrency, ttl_seconds, json }
    }

    fn message(&self) -> Message {
        let (data, content_type) = (self.text("data").into_bytes(), self.option("content-type"));
        Message { data, content_type, metadata: self.pairs("metadata") }
    }

    fn job(&self) -> Job {
        let failure_policy = match self.0.get("retries").and_then(Value::as_u64) {
            None => None,
            Some(0) => Some(FailurePolicy::Drop),
            Some(retries) => {
                let max_retries = u32::try_from(retries).ok();
                Some(FailurePolicy::Constant(Retries { interval_ms: 10, max_retries }))
            }
        };
        Job {
            name: self.text("name"),
            schedule: self.option("schedule"),
            due_time: self.option("due-time"),
            repeats: self.0.get("repeats").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()),
            ttl: self.option("ttl"),
            data: self.option("data"),
            failure_policy,
        }
    }
}

struct Events;

bindings::export!(Events with_types_in bindings);

impl topic_handler::Guest for Events {
    fn handle(event: topic_handler::Event) -> Result<(), topic_handler::Outcome> {
        let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
        let count = record(
            &format!("topic:{}", event.id),
            json!({
                "type": event.type_, "source": event.source, "pubsub": event.pubsub, "topic": event.topic,
                "path": event.path, "content-type": event.content_type, "data": text(&event.data),
                "attributes": event.attributes.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
            }),
        );
        match data["do"].as_str() {
            Some("retry-once") if count == 1 => Err(topic_handler::Outcome::Retry("not yet".to_owned())),
            Some("drop") => Err(topic_handler::Outcome::Drop("never".to_owned())),
            Some("trap") if count == 1 => panic!("as told"),
            _ => Ok(()),
        }
    }
}

impl job_handler::Guest for Events {
    fn handle(due: job_handler::Due) -> Result<(), String> {
        let data: Value = serde_json::from_slice(&due.data).unwrap_or_default();
        let got = json!({ "data": text(&due.data), "content-type": due.content_type });
        let count = record(&format!("job:{}", due.name), got);
        match data["do"].as_str() {
            Some("fail-once") if count == 1 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    }
}

impl binding_handler::Guest for Events {
    fn handle(event: binding_handler::Event) -> Result<(), String> {
        let got = json!({ "data": text(&event.data), "content-type": event.content_type });
        record(&format!("binding:{}", event.name), got);
        Ok(())
    }
}

/// Writes what came, with how often it came; the answer is how often.
fn record(key: &str, mut got: Value) -> i64 {
    let count = state::increment("shared", &format!("{key}:count"), 1).expect("counting in shared");
    got["count"] = count.into();
    let options =
        SetOptions { etag: None, concurrency: Concurrency::LastWrite, ttl_seconds: None, json: false };
    state::set("shared", key, got.to_string().as_bytes(), &options).expect("writing to shared");
    count
}
