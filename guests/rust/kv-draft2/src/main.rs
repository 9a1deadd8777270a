//! Every function of wasi:keyvalue 0.2.0-draft2, and every version of wasi:config that `kv` does not speak, behind
//! an HTTP route of the same name.
//!
//! `store=` names the store (default `statestore`), `key=`, `keys=a,b`, `delta=` the arguments; `/set` and `/swap`
//! take the value as their body and `/set-many` a JSON object. A store's error becomes its name as JSON with status
//! 404 (no-such-store), 403 (access-denied) or 500.

use serde_json::{Map, Value, json};
use wstd::http::{Body, Request, Response};

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:kv-draft2;
            world kv {
                include wasi:keyvalue/imports@0.2.0-draft2;
                import wasi:config/store@0.2.0-draft-2024-09-27;
            }
        ",
        path: ["../../../wit/keyvalue-draft2", "../../../wit/config-draft-2024-09-27"],
        world: "test:kv-draft2/kv",
        generate_all,
    });
}

mod older {
    wit_bindgen::generate!({
        path: "../../../wit/config-draft",
        world: "wasi:config/imports",
        generate_all,
    });
}

use bindings::wasi::config::store as dated;
use bindings::wasi::keyvalue::atomics::{self, Cas, CasError};
use bindings::wasi::keyvalue::store::Error;
use bindings::wasi::keyvalue::{batch, store};
use older::wasi::config::{runtime, store as draft};

#[wstd::http_server]
async fn main(request: Request<Body>) -> wstd::http::Result<Response<Body>> {
    let (head, mut body) = request.into_parts();
    let body = body.contents().await?;
    let query = Query(head.uri.query().unwrap_or_default());
    let (status, answer) = match answer(head.uri.path(), query, body) {
        Ok(answer) => (200, answer),
        Err(Error::NoSuchStore) => (404, json!({"error": "no-such-store"})),
        Err(Error::AccessDenied) => (403, json!({"error": "access-denied"})),
        Err(Error::Other(text)) => (500, json!({"error": "other", "text": text})),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Body::from(answer.to_string()))?)
}

fn answer(path: &str, query: Query<'_>, body: &[u8]) -> Result<Value, Error> {
    let key = query.get("key");
    let other = |error: String| Error::Other(error);
    if path == "/config" {
        return Ok(json!({
            "draft": draft::get(key).map_err(|e| other(e.to_string()))?,
            "runtime": runtime::get(key).map_err(|e| other(e.to_string()))?,
            "dated": dated::get(key).map_err(|e| other(e.to_string()))?,
            "all": [
                draft::get_all().map_err(|e| other(e.to_string()))?,
                runtime::get_all().map_err(|e| other(e.to_string()))?,
                dated::get_all().map_err(|e| other(e.to_string()))?,
            ],
        }));
    }
    let bucket = store::open(match query.get("store") {
        "" => "statestore",
        name => name,
    })?;
    let keys: Vec<String> = query.get("keys").split(',').map(str::to_owned).collect();
    Ok(match path {
        "/open" => Value::Null,
        "/get" => bucket.get(key)?.map_or(Value::Null, |v| text(&v)),
        "/set" => json!(bucket.set(key, body)?),
        "/delete" => json!(bucket.delete(key)?),
        "/exists" => json!(bucket.exists(key)?),
        "/keys" => {
            let (mut all, mut cursor, mut pages) = (Vec::new(), None, 0);
            loop {
                let page = bucket.list_keys(cursor.as_deref())?;
                all.extend(page.keys);
                pages += 1;
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            all.sort();
            json!({"keys": all, "pages": pages})
        }
        "/increment" => json!(atomics::increment(&bucket, key, query.get("delta").parse().unwrap_or(1))?),
        "/swap" => {
            let cas = Cas::new(&bucket, key)?;
            let current = cas.current()?.map(|v| text(&v));
            // Somebody else comes between.
            if !query.get("between").is_empty() {
                bucket.set(key, query.get("between").as_bytes())?;
            }
            match atomics::swap(cas, body) {
                Ok(()) => json!({"current": current, "swapped": 1}),
                Err(CasError::StoreError(error)) => return Err(error),
                Err(CasError::CasFailed(cas)) => {
                    let newer = cas.current()?.map(|v| text(&v));
                    let again = atomics::swap(cas, body).is_ok();
                    json!({"current": current, "newer": newer, "swapped": if again { 2 } else { 0 }})
                }
            }
        }
        "/get-many" => Value::Array(
            batch::get_many(&bucket, &keys)?
                .into_iter()
                .map(|(key, value)| json!([key, value.map(|v| text(&v))]))
                .collect(),
        ),
        "/set-many" => {
            let pairs: Map<String, Value> =
                serde_json::from_slice(body).map_err(|e| Error::Other(format!("the body: {e}")))?;
            let pairs: Vec<(String, Vec<u8>)> = pairs
                .into_iter()
                .map(|(k, v)| (k, v.as_str().map_or_else(|| v.to_string(), str::to_owned).into_bytes()))
                .collect();
            json!(batch::set_many(&bucket, &pairs)?)
        }
        "/delete-many" => json!(batch::delete_many(&bucket, &keys)?),
        other => return Err(Error::Other(format!("no route {other}"))),
    })
}

fn text(value: &[u8]) -> Value {
    json!(String::from_utf8_lossy(value))
}

/// A query string whose values need no percent-decoding.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(self, name: &str) -> &'a str {
        let value = |pair: &'a str| pair.strip_prefix(name)?.strip_prefix('=');
        self.0.split('&').find_map(value).unwrap_or_default()
    }
}
