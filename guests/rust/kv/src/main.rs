//! Every function of wasi:keyvalue, wasi:config and wasi:logging behind an HTTP route of the same name.
//!
//! `store=` names the store (default `statestore`), `key=`, `keys=a,b`, `delta=`, `level=`, `message=` the
//! arguments; `/set` takes the value as its body and `/set-many` a JSON object. A store's error becomes its
//! name as JSON with status 404 (no-such-store), 403 (access-denied) or 500.

use serde_json::{Map, Value, json};
use wstd::http::{Body, Request, Response};

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:kv;
            world kv {
                include wasi:keyvalue/imports@0.2.0-draft;
                include wasi:config/imports@0.2.0-rc.1;
                include wasi:logging/imports@0.1.0-draft;
            }
        ",
        path: ["../../../wit/keyvalue", "../../../wit/config", "../../../wit/logging"],
        world: "test:kv/kv",
        generate_all,
    });
}

use bindings::wasi::config::store as config;
use bindings::wasi::keyvalue::store::Error;
use bindings::wasi::keyvalue::{atomics, batch, store};
use bindings::wasi::logging::logging::{Level, log};

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
    match path {
        "/config" => return config_answer(config::get(query.get("key")).map(|v| json!(v))),
        "/config-all" => {
            return config_answer(
                config::get_all()
                    .map(|all| json!(Map::from_iter(all.into_iter().map(|(k, v)| (k, json!(v)))))),
            );
        }
        "/log" => {
            log(level(query.get("level")), "kv", query.get("message"));
            return Ok(Value::Null);
        }
        _ => {}
    }
    let bucket = store::open(match query.get("store") {
        "" => "statestore",
        name => name,
    })?;
    let key = query.get("key");
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
                let page = bucket.list_keys(cursor)?;
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
        "/get-many" => Value::Array(
            batch::get_many(&bucket, &keys)?
                .into_iter()
                .map(|pair| pair.map_or(Value::Null, |(k, v)| json!([k, text(&v)])))
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

fn config_answer(answer: Result<Value, config::Error>) -> Result<Value, Error> {
    answer.map_err(|e| Error::Other(format!("{e:?}")))
}

fn text(value: &[u8]) -> Value {
    json!(String::from_utf8_lossy(value))
}

fn level(name: &str) -> Level {
    match name {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        _ => Level::Info,
    }
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
