//! An actor of Waxosuit, made with its own crates: protobuf, and one name for capability and operation.
//!
//! Requests are `/OPERATION/KEY[/VALUE]` of the key-value store, `/publish/SUBJECT/TEXT`, and anything else, which comes
//! back. Messages are pushed to the list `messages`.

use waxosuit_codec::{core, http, messaging};
use waxosuit_guest::prelude::*;
use waxosuit_guest::{CapabilitiesContext, call_handler, protobytes};

call_handler!(handle_call);

pub fn handle_call(context: &CapabilitiesContext, operation: &str, payload: &[u8]) -> CallResult {
    match operation {
        http::OP_HANDLE_REQUEST => {
            let request: http::Request = payload.into();
            let mut response = http::Response::ok();
            response.header.insert("x-actor".to_owned(), "waxosuit".to_owned());
            response.body = match answer(context, &request) {
                Ok(text) => text.into_bytes(),
                Err(error) => format!("error: {error}").into_bytes(),
            };
            Ok(protobytes(response)?)
        }
        messaging::OP_DELIVER_MESSAGE => {
            let delivered: messaging::DeliverMessage = payload.into();
            let message = delivered.message.unwrap_or_default();
            let text = format!("{} {}", message.subject, String::from_utf8_lossy(&message.body));
            context.kv().list_add("messages", &text)?;
            Ok(Vec::new())
        }
        core::OP_HEALTH_REQUEST => Ok(Vec::new()),
        other => Err(format!("{other} is not known").into()),
    }
}

fn answer(context: &CapabilitiesContext, request: &http::Request) -> Result<String> {
    let kv = context.kv();
    let segments: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    Ok(match segments.as_slice() {
        ["get", key] => format!("{:?}", kv.get(key)?),
        ["set", key, value] => kv.set(key, value, None).map(|()| "done".to_owned())?,
        ["add", key, value] => kv.atomic_add(key, value.parse().unwrap_or_default())?.to_string(),
        ["del", key] => kv.del_key(key).map(|()| "done".to_owned())?,
        ["push", key, value] => kv.list_add(key, value)?.to_string(),
        ["range", key] => kv.list_range(key, 0, -1)?.join(","),
        ["remove", key, value] => kv.list_del_item(key, value)?.to_string(),
        ["clear", key] => kv.list_clear(key).map(|()| "done".to_owned())?,
        ["set-add", key, value] => kv.set_add(key, value)?.to_string(),
        ["set-remove", key, value] => kv.set_remove(key, value)?.to_string(),
        ["members", key] => kv.set_members(key)?.join(","),
        ["union", one, two] => kv.set_union(&[one, two])?.join(","),
        ["intersect", one, two] => kv.set_intersect(&[one, two])?.join(","),
        ["exists", key] => kv.exists(key)?.to_string(),
        ["publish", subject, text] => {
            context.msg().publish(subject, None, text.as_bytes()).map(|()| "done".to_owned())?
        }
        ["request", subject] => format!("{:?}", context.msg().request(subject, b"", 100)?),
        ["raw", operation] => format!("{:?}", context.raw().call(&operation.replace('~', "!"), b"")?),
        _ => format!(
            "{} {} {} {}",
            request.method,
            request.path,
            request.query_string,
            String::from_utf8_lossy(&request.body)
        ),
    })
}
