//! `/v1.0/state`.

use super::error::{ApiError, Grpc};
use super::path::Query as Parameters;
use crate::{empty, reply};
use bytes::Bytes;
use dhow_blocks::invoke::Reply;
use dhow_blocks::scope::{Scope, State, Step};
use dhow_blocks::state::{
    self, Capability, Concurrency, Delete, Item, Query, QueryPage, Set, StateError, Ttl,
};
use dhow_blocks::trace::TraceContext;
use futures::future::try_join_all;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use http::{Response, StatusCode};
use humantime::format_rfc3339_millis;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

type Metadata = BTreeMap<String, String>;

/// One entry of a save, or the request of an upsert or delete.
#[derive(Deserialize)]
struct Entry {
    key: Option<String>,
    #[serde(default)]
    value: Option<Value>,
    etag: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Default, Deserialize)]
struct Options {
    concurrency: Option<String>,
    consistency: Option<String>,
}

#[derive(Deserialize)]
struct BulkGet {
    #[serde(default)]
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    operations: Vec<Operation>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Operation {
    operation: String,
    request: Entry,
}

pub(super) async fn save(
    scope: &Scope,
    store: &str,
    query: &Parameters,
    body: Bytes,
) -> Result<Reply, ApiError> {
    let state = open(scope, store)?;
    let entries: Vec<Entry> = parse(&body)?;
    let what = format!("failed saving state in state store {store}");
    let sets = entries
        .into_iter()
        .map(|entry| set(entry, None, query, (&what, "ERR_STATE_SAVE")))
        .collect::<Result<Vec<_>, _>>()?;
    // All at once: the store commits them together if it can.
    let saved = try_join_all(sets.into_iter().map(|set| state.set(set))).await;
    saved.map_err(|error| ApiError::state("ERR_STATE_SAVE", &what, &error))?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn get(scope: &Scope, store: &str, key: &str) -> Result<Reply, ApiError> {
    let state = open(scope, store)?;
    legal(key)?;
    let found = state.get(key).await;
    let found = found.map_err(|error| {
        ApiError::state("ERR_STATE_GET", &format!("fail to get {key} from state store {store}"), &error)
    })?;
    let Some(item) = found else { return Ok(empty(StatusCode::NO_CONTENT)) };
    let mut reply = Response::new(item.value.into());
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(etag) = HeaderValue::try_from(item.etag) {
        headers.insert(ETAG, etag);
    }
    if let Some(time) =
        item.expires_at.and_then(|time| HeaderValue::try_from(format_rfc3339_millis(time).to_string()).ok())
    {
        headers.insert(HeaderName::from_static("metadata.ttlexpiretime"), time);
    }
    Ok(reply)
}

pub(super) async fn delete(
    scope: &Scope,
    store: &str,
    key: &str,
    query: &Parameters,
    headers: &HeaderMap,
) -> Result<Reply, ApiError> {
    let state = open(scope, store)?;
    legal(key)?;
    let what = format!("failed deleting state with key {key}");
    let option = |name| query.get(name).map(str::to_owned);
    let options = Options { concurrency: option("concurrency"), consistency: option("consistency") };
    options.concurrency((&what, "ERR_STATE_DELETE"))?;
    let etag = headers.get(IF_MATCH).and_then(|etag| etag.to_str().ok()).filter(|etag| !etag.is_empty());
    let delete = Delete { key: key.to_owned(), etag: etag.map(str::to_owned) };
    let deleted = state.delete(delete).await;
    deleted.map_err(|error| ApiError::state("ERR_STATE_DELETE", &what, &error))?;
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(super) async fn bulk(scope: &Scope, store: &str, body: Bytes) -> Result<Reply, ApiError> {
    let state = open(scope, store)?;
    let BulkGet { keys } = parse(&body)?;
    keys.iter().try_for_each(|key| legal(key))?;
    let items = state.get_many(&keys).await;
    let answers = keys.into_iter().zip(items).map(|(key, item)| bulk_item(key, item));
    Ok(reply(StatusCode::OK, "application/json", Value::Array(answers.collect()).to_string()))
}

pub(super) async fn transaction(
    scope: &Scope,
    store: &str,
    query: &Parameters,
    (headers, trace): (&HeaderMap, TraceContext),
    body: Bytes,
) -> Result<Reply, ApiError> {
    let state = open(scope, store)?;
    if !state.can(Capability::Transactional) {
        return Err(ApiError::state_not_supported(
            store,
            "transactions",
            "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED",
        ));
    }
    let Transaction { operations, metadata } = parse(&body)?;
    let what = "error while executing state transaction";
    let steps = operations.into_iter().map(|Operation { operation, request }| {
        let own = request.metadata.clone().unwrap_or_default();
        let operation = match operation.as_str() {
            "upsert" => state::Operation::Set(set(
                request,
                metadata.as_ref(),
                query,
                (what, "ERR_STATE_TRANSACTION"),
            )?),
            "delete" => {
                request.options.unwrap_or_default().concurrency((what, "ERR_STATE_TRANSACTION"))?;
                state::Operation::Delete(Delete { key: key(request.key)?, etag: etag(request.etag) })
            }
            other => {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    Grpc::Unimplemented,
                    "ERR_NOT_SUPPORTED_STATE_OPERATION",
                    format!("operation type {other} not supported"),
                ));
            }
        };
        Ok(Step { operation, metadata: own.into_iter().collect() })
    });
    let steps = steps.collect::<Result<_, _>>()?;
    let done = state.transact_steps(steps, trace, super::trace_state(headers)).await;
    done.map_err(|error| ApiError::internal("ERR_STATE_TRANSACTION", format!("{what}: {error}")))?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `/v1.0-alpha1/state/<store>/query`
pub(super) async fn query(scope: &Scope, store: &str, body: Bytes) -> Result<Reply, ApiError> {
    let page = find(scope, store, &body).await?;
    if page.results.is_empty() {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let results = page
        .results
        .into_iter()
        .map(|found| serde_json::json!({ "key": found.key, "data": data(&found.value), "etag": found.etag }));
    let mut body = serde_json::json!({ "results": results.collect::<Vec<_>>() });
    if !page.token.is_empty() {
        body["token"] = page.token.into();
    }
    Ok(reply(StatusCode::OK, "application/json", body.to_string()))
}

/// Searches a store.
pub(crate) async fn find(scope: &Scope, store: &str, query: &[u8]) -> Result<QueryPage, ApiError> {
    let state = open(scope, store)?;
    if !state.can(Capability::Query) {
        let reason = "DAPR_STATE_QUERYING_NOT_SUPPORTED";
        return Err(ApiError::state_not_supported(store, "querying", reason));
    }
    let query = Query::parse(query)
        .map_err(|reason| ApiError::malformed(format!("failed to parse query: {reason}")))?;
    state.query(query).await.map_err(|error| ApiError::state_query(store, &error.to_string()))
}

pub(crate) fn open(scope: &Scope, store: &str) -> Result<State, ApiError> {
    scope.state(store).map_err(|error| ApiError::scope(&error))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("failed deserializing HTTP body: {error}")))
}

fn key(key: Option<String>) -> Result<String, ApiError> {
    let key = key
        .filter(|key| !key.is_empty())
        .ok_or_else(|| ApiError::malformed("\"key\" is a required field"))?;
    legal(&key)?;
    Ok(key)
}

/// Dapr keeps `||` for itself, between the prefix and the key.
pub(crate) fn legal(key: &str) -> Result<(), ApiError> {
    if key.contains("||") { Err(ApiError::illegal_key(key)) } else { Ok(()) }
}

fn etag(etag: Option<String>) -> Option<String> {
    etag.filter(|etag| !etag.is_empty())
}

/// `query` overrides the entry's own metadata, which overrides that of the whole request.
fn set(
    entry: Entry,
    common: Option<&Metadata>,
    query: &Parameters,
    (what, code): (&str, &'static str),
) -> Result<Set, ApiError> {
    let concurrency = entry.options.unwrap_or_default().concurrency((what, code))?;
    let own = entry.metadata.as_ref();
    let ttl = query
        .metadata()
        .find(|(name, _)| name.eq_ignore_ascii_case("ttlInSeconds"))
        .map(|(_, value)| value)
        .or_else(|| own.and_then(ttl_of))
        .or_else(|| common.and_then(ttl_of));
    let value = entry.value.unwrap_or(Value::Null);
    Ok(Set {
        key: key(entry.key)?,
        // Stored as JSON, also a plain string: with its quotes.
        value: stored(&value),
        json: true,
        etag: etag(entry.etag),
        concurrency,
        ttl: match ttl {
            None => Ttl::Forever,
            Some(text) => time_to_live(text, what, code)?,
        },
    })
}

impl Options {
    /// Who wins where two write at once. Consistency makes no difference here, but has to be one that there is.
    fn concurrency(&self, (what, code): (&str, &'static str)) -> Result<Concurrency, ApiError> {
        let unknown = |name: &str, value: &str| {
            Err(ApiError::internal(code, format!("{what}: unrecognized {name} value '{value}'")))
        };
        match self.consistency.as_deref() {
            None | Some("" | "strong" | "eventual") => {}
            Some(other) => return unknown("consistency", other),
        }
        match self.concurrency.as_deref() {
            Some("first-write") => Ok(Concurrency::FirstWrite),
            None | Some("" | "last-write") => Ok(Concurrency::LastWrite),
            Some(other) => unknown("concurrency", other),
        }
    }
}

/// JSON as Dapr writes it: numbers that were read as floating-point ones and are whole have no fraction.
fn stored(value: &Value) -> Bytes {
    let mut text = Vec::with_capacity(64);
    // Writing to memory, of what has no keys that are not text, does not fail.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, WholeNumbers));
    text.into()
}

struct WholeNumbers;

impl serde_json::ser::Formatter for WholeNumbers {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        match value.fract() == 0.0 && value.abs() < 1e21 {
            true => write!(writer, "{value:.0}"),
            false => serde_json::ser::CompactFormatter.write_f64(writer, value),
        }
    }
}

pub(crate) fn ttl_of(metadata: &Metadata) -> Option<&str> {
    metadata
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("ttlInSeconds"))
        .map(|(_, value)| value.as_str())
}

pub(crate) fn time_to_live(text: &str, what: &str, code: &'static str) -> Result<Ttl, ApiError> {
    match text.trim().parse::<i64>() {
        Ok(-1) => Ok(Ttl::Forever),
        Ok(seconds) if seconds > 0 => Ok(Ttl::After(Duration::from_secs(seconds.unsigned_abs()))),
        _ => Err(ApiError::internal(
            code,
            format!(
                "{what}: ttlInSeconds must be a positive number of seconds, or -1 for none; found {text:?}"
            ),
        )),
    }
}

/// An absent key is an object with only the key.
fn bulk_item(key: String, item: Result<Option<Item>, StateError>) -> Value {
    let mut answer = Map::new();
    answer.insert("key".to_owned(), key.into());
    match item {
        Ok(None) => {}
        Ok(Some(item)) => {
            answer.insert("data".to_owned(), data(&item.value));
            answer.insert("etag".to_owned(), item.etag.into());
            if let Some(time) = item.expires_at {
                answer.insert(
                    "metadata".to_owned(),
                    serde_json::json!({ "ttlExpireTime": format_rfc3339_millis(time).to_string() }),
                );
            }
        }
        Err(error) => {
            answer.insert("error".to_owned(), error.to_string().into());
        }
    }
    Value::Object(answer)
}

/// JSON as it is; what is not JSON (written through another interface) as a string.
fn data(value: &[u8]) -> Value {
    match serde_json::from_slice::<&RawValue>(value).ok().and_then(|raw| serde_json::from_str(raw.get()).ok())
    {
        Some(value) => value,
        None => String::from_utf8_lossy(value).into_owned().into(),
    }
}
