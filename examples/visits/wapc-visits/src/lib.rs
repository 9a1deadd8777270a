//! A waPC actor: each request is a visit of its path, which is counted and published; the last visits are kept.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use wapc_guest::prelude::*;

#[derive(Deserialize)]
struct Request {
    path: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    status_code: u32,
    header: BTreeMap<&'static str, &'static str>,
    body: ByteBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    subject: String,
    reply_to: String,
    body: ByteBuf,
}

#[derive(Serialize)]
struct Add<'a> {
    key: &'a str,
    value: i32,
}

#[derive(Deserialize)]
struct Sum {
    value: i32,
}

#[derive(Serialize)]
struct Push<'a> {
    key: &'a str,
    value: &'a str,
}

#[derive(Serialize)]
struct Range<'a> {
    key: &'a str,
    start: i32,
    stop: i32,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<String>,
}

#[unsafe(no_mangle)]
pub extern "C" fn wapc_init() {
    register_function("HandleRequest", visit);
    register_function("DeliverMessage", remember);
}

fn visit(payload: &[u8]) -> CallResult {
    let Request { path } = rmp_serde::from_slice(payload)?;
    let text = match path.as_str() {
        "/last" => {
            let last: Values = call("wascc:keyvalue", "Range", &Range { key: "last", start: 0, stop: 9 })?;
            last.values.join("\n")
        }
        path => {
            let sum: Sum = call("wascc:keyvalue", "Add", &Add { key: path, value: 1 })?;
            let body = ByteBuf::from(path);
            let message = Message { subject: "visits".to_owned(), reply_to: String::new(), body };
            host_call("", "wascc:messaging", "Publish", &rmp_serde::to_vec_named(&message)?)?;
            format!("{path} was visited {} times", sum.value)
        }
    };
    let header = [("content-type", "text/plain")].into();
    Ok(rmp_serde::to_vec_named(&Response { status_code: 200, header, body: ByteBuf::from(text + "\n") })?)
}

fn remember(payload: &[u8]) -> CallResult {
    let Message { body, .. } = rmp_serde::from_slice(payload)?;
    let value = &String::from_utf8_lossy(&body);
    host_call("", "wascc:keyvalue", "Push", &rmp_serde::to_vec_named(&Push { key: "last", value })?)
}

/// Asks the host, in the binding that is the usual one.
fn call<A: DeserializeOwned>(namespace: &str, operation: &str, request: &impl Serialize) -> HandlerResult<A> {
    let answer = host_call("", namespace, operation, &rmp_serde::to_vec_named(request)?)?;
    Ok(rmp_serde::from_slice(&answer)?)
}
