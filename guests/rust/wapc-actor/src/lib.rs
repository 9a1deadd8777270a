//! An actor as waSCC and wasmCloud had them: the crate wapc-guest, MessagePack by name of field.
//!
//! | request | answer |
//! |---|---|
//! | `POST /call/NAMESPACE/OPERATION[/BINDING]` | calls the host with the body's JSON, and answers with JSON |
//! | `/count` | adds one to the key `count` |
//! | `/alive` | how often this instance was called |
//! | `/panic`, `/loop`, `/error` | fails in three ways |
//! | anything else | what came, as JSON |
//!
//! Messages are pushed to the list `messages`, chunks to the list `chunks`.

use rmpv::Value;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use wapc_guest::prelude::*;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: String,
    path: String,
    query_string: String,
    header: BTreeMap<String, String>,
    body: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status_code: u32,
    status: &'static str,
    header: BTreeMap<&'static str, String>,
    body: Value,
}

static CALLS: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
pub extern "C" fn wapc_init() {
    register_function("HandleRequest", handle_request);
    register_function("DeliverMessage", deliver_message);
    register_function("ReceiveChunk", receive_chunk);
    register_function("HealthRequest", |_| Ok(Vec::new()));
    register_function("shout", |text| Ok(text.to_ascii_uppercase()));
    register_function("refuse", |_| Err("it does not want to".into()));
    console_log("ready");
}

fn handle_request(payload: &[u8]) -> CallResult {
    let request: Request = rmp_serde::from_slice(payload)?;
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let body = match &request.body {
        Value::Binary(bytes) => bytes.clone(),
        other => return Err(format!("the body is no bytes: {other}").into()),
    };
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let answer = match segments.as_slice() {
        ["call", namespace, operation, rest @ ..] => {
            let payload: Json = if body.is_empty() { Json::Null } else { serde_json::from_slice(&body)? };
            let payload = if payload.is_null() { Vec::new() } else { rmp_serde::to_vec(&payload)? };
            match host_call(rest.first().unwrap_or(&""), namespace, operation, &payload) {
                Ok(answer) if answer.is_empty() => Json::Null,
                // Other apps answer in their own way.
                Ok(answer) => match rmp_serde::from_slice(&answer) {
                    Ok(value @ Value::Map(_)) => to_json(value),
                    _ => Json::from(String::from_utf8_lossy(&answer)),
                },
                Err(error) => json!({ "error": error.to_string() }),
            }
        }
        ["count"] => {
            let payload = rmp_serde::to_vec(&json!({ "key": "count", "value": 1 }))?;
            to_json(rmp_serde::from_slice(&host_call("default", "wascc:keyvalue", "Add", &payload)?)?)
        }
        ["alive"] => json!(calls),
        ["panic"] => panic!("told to"),
        ["loop"] => loop {
            std::hint::spin_loop();
        },
        ["error"] => return Err("told to fail".into()),
        ["teapot"] => return respond(418, "short and stout".to_owned()),
        _ => json!({
            "method": request.method,
            "path": request.path,
            "queryString": request.query_string,
            "header": request.header,
            "body": String::from_utf8_lossy(&body),
        }),
    };
    respond(200, answer.to_string())
}

fn respond(status_code: u32, body: String) -> CallResult {
    let header = [("content-type", "application/json".to_owned()), ("x-actor", "yes".to_owned())].into();
    Ok(rmp_serde::to_vec_named(&Response {
        status_code,
        status: "",
        header,
        body: Value::Binary(body.into()),
    })?)
}

fn deliver_message(payload: &[u8]) -> CallResult {
    let message = to_json(rmp_serde::from_slice(payload)?);
    if message["body"] == "refuse" {
        return Err("refused".into());
    }
    let text =
        format!("{} {}", message["subject"].as_str().unwrap_or("-"), message["body"].as_str().unwrap_or("-"));
    if let Some(reply_to) = message["replyTo"].as_str().filter(|reply_to| !reply_to.is_empty()) {
        let answer = json!({ "subject": reply_to, "replyTo": "", "body": text.as_bytes() });
        host_call("", "wasmcloud:messaging", "Publish", &rmp_serde::to_vec(&answer)?)?;
    }
    push("messages", &text)
}

fn receive_chunk(payload: &[u8]) -> CallResult {
    let chunk = to_json(rmp_serde::from_slice(payload)?);
    push("chunks", &format!("{}:{}", chunk["sequenceNo"], chunk["chunkBytes"].as_str().unwrap_or("-")))
}

fn push(key: &str, value: &str) -> CallResult {
    host_call("", "wascc:keyvalue", "Push", &rmp_serde::to_vec(&json!({ "key": key, "value": value }))?)
}

fn to_json(value: Value) -> Json {
    match value {
        Value::Binary(bytes) => Json::from(String::from_utf8_lossy(&bytes)),
        Value::String(text) => Json::from(text.as_str().unwrap_or_default()),
        Value::Array(values) => values.into_iter().map(to_json).collect(),
        Value::Map(entries) => {
            let entry = |(name, value): (Value, Value)| {
                (name.as_str().unwrap_or_default().to_owned(), to_json(value))
            };
            entries.into_iter().map(entry).collect()
        }
        other => serde_json::to_value(other).unwrap_or_default(),
    }
}
