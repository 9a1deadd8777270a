//! Requests to etcd, and what its answers hold. Bytes are Base64 in its JSON, numbers of 64 bits are text.

use crate::bindings::exports::dhow::provider::state::{Error, Item};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use wstd::http::{Body, Client, Request};
use wstd::runtime::block_on;

/// Bits of a lease's number that are chance; those above are the time of its end, in milliseconds since 1970.
pub const CHANCE: u32 = 20;

/// An etcd server.
pub struct Etcd {
    pub endpoint: String,
    /// Before every key.
    pub prefix: String,
}

impl Etcd {
    /// Sends one request.
    pub fn ask(&self, path: &str, question: &Value) -> Result<Value, Error> {
        let url = format!("{}{path}", self.endpoint);
        let exchanged: Result<(u16, Vec<u8>), String> = block_on(async {
            let request = Request::post(&url).header("content-type", "application/json");
            let request =
                request.body(Body::from(question.to_string())).map_err(|error| error.to_string())?;
            let answer = Client::new().send(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            let mut body = answer.into_body();
            let bytes = body.contents().await.map_err(|error| error.to_string())?;
            Ok((status, bytes.to_vec()))
        });
        let (status, bytes) = exchanged.map_err(|error| Error::Unavailable(format!("{url}: {error}")))?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status == 200 && answer.is_object() {
            return Ok(answer);
        }
        let said = answer["message"].as_str().or(answer["error"].as_str()).unwrap_or("no JSON");
        let reason = format!("{url}: status {status}: {said}");
        Err(if status >= 500 { Error::Unavailable(reason) } else { Error::Failed(reason) })
    }

    /// A key as etcd has it.
    pub fn raw(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The same, as its JSON has it.
    pub fn key(&self, key: &str) -> String {
        encoded(&self.raw(key))
    }

    /// The other way round.
    pub fn name(&self, key: &Value) -> Result<String, Error> {
        let raw = String::from_utf8(decoded(key)?).ok();
        let name = raw.as_deref().and_then(|raw| raw.strip_prefix(&self.prefix));
        name.map(str::to_owned).ok_or_else(|| strange("a key that is not ours"))
    }
}

/// The value that a range found, if any.
pub fn found(range: &Value) -> Result<Option<Item>, Error> {
    let Some(pair) = range["kvs"].get(0) else { return Ok(None) };
    // Leases of others have other numbers; under our prefix there are none.
    let lease = number(&pair["lease"]);
    Ok(Some(Item {
        value: decoded(&pair["value"])?,
        etag: number(&pair["mod_revision"]).to_string(),
        expires_at: (lease != 0).then_some(lease >> CHANCE),
    }))
}

/// 0 where there is none.
pub fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).or(value.as_u64()).unwrap_or_default()
}

pub fn encoded(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn decoded(value: &Value) -> Result<Vec<u8>, Error> {
    BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|_| strange("no Base64"))
}

/// The first key that does not begin so; empty if there is none.
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn strange(what: &str) -> Error {
    Error::Failed(format!("etcd answered {what}"))
}
