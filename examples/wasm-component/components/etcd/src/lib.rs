//! State in etcd (3.4 or later), over the JSON form of its API, by HTTP requests that `grants.http` has to allow.
//!
//! Metadata: `endpoint` (`http://127.0.0.1:2379`), `prefix` (what stands before every key; `dhow/`).
//!
//! | here | in etcd |
//! |---|---|
//! | etag | the revision of the key's last change |
//! | transaction, condition | a transaction that compares first |
//! | time to live | a lease, whose number says when it ends |
//!
//! Source: etcd documentation, "Why gRPC gateway" (`/v3/kv/…`, `/v3/lease/…`).

mod client;
mod transaction;

mod bindings {
    wit_bindgen::generate!({
        path: "../../../../wit/provider",
        world: "dhow:provider/state-provider",
    });
}

use bindings::exports::dhow::provider::state::{
    Error, FeatureSet, Guest, Item, KeyPage, Metadata, Operation, Removal, Write,
};
use client::{Etcd, encoded, found, number};
use serde_json::{Value, json};
use std::sync::OnceLock;
use transaction::Transaction;

/// Where etcd is; set by `init`.
static ETCD: OnceLock<Etcd> = OnceLock::new();

/// What etcd takes in one transaction, unless it is told otherwise.
const MAX_OPERATIONS: usize = 128;

/// Tries of an increment between which somebody else was quicker.
const TRIES: usize = 100;

struct Store;

bindings::export!(Store with_types_in bindings);

impl Guest for Store {
    fn init(metadata: Metadata) -> Result<(), Error> {
        let field = |name: &str| metadata.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((_, endpoint)) = field("endpoint") else {
            return Err(Error::Failed(
                "metadata field endpoint is missing: such as http://127.0.0.1:2379".to_owned(),
            ));
        };
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let prefix = field("prefix").map_or("dhow/", |(_, prefix)| prefix).to_owned();
        ETCD.get_or_init(|| Etcd { endpoint, prefix });
        Store::ping()
    }

    fn features() -> FeatureSet {
        FeatureSet::ETAG | FeatureSet::TRANSACTIONAL | FeatureSet::TTL
    }

    fn get(key: String) -> Result<Option<Item>, Error> {
        let etcd = etcd()?;
        found(&etcd.ask("/v3/kv/range", &json!({ "key": etcd.key(&key) }))?)
    }

    fn get_many(keys: Vec<String>) -> Result<Vec<Option<Item>>, Error> {
        let etcd = etcd()?;
        let mut items = Vec::with_capacity(keys.len());
        for keys in keys.chunks(MAX_OPERATIONS) {
            let ranges = keys.iter().map(|key| json!({ "request_range": { "key": etcd.key(key) } }));
            let answer = etcd.ask("/v3/kv/txn", &json!({ "success": ranges.collect::<Vec<_>>() }))?;
            for index in 0..keys.len() {
                items.push(found(&answer["responses"][index]["response_range"])?);
            }
        }
        Ok(items)
    }

    fn set(write: Write) -> Result<(), Error> {
        Store::transact(vec![Operation::Set(write)])
    }

    fn delete(removal: Removal) -> Result<(), Error> {
        Store::transact(vec![Operation::Delete(removal)])
    }

    fn transact(operations: Vec<Operation>) -> Result<(), Error> {
        let mut transaction = Transaction::default();
        for operation in operations {
            transaction.add(operation)?;
        }
        transaction.commit(etcd()?)
    }

    fn list_keys(prefix: String, after: Option<String>, limit: u32) -> Result<KeyPage, Error> {
        let etcd = etcd()?;
        let first = etcd.raw(&prefix);
        let end = client::end_of(&first);
        let mut from = first;
        if let Some(after) = after {
            let mut next = etcd.raw(&after);
            next.push(0);
            from = from.max(next);
        }
        if !end.is_empty() && from >= end {
            return Ok(KeyPage { keys: Vec::new(), more: false });
        }
        let end = if end.is_empty() { vec![0] } else { end };
        // To etcd a limit of 0 is none.
        let range = json!({
            "key": encoded(&from), "range_end": encoded(&end), "keys_only": true, "limit": limit.max(1),
        });
        let answer = etcd.ask("/v3/kv/range", &range)?;
        let pairs = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        if limit == 0 {
            return Ok(KeyPage { keys: Vec::new(), more: !pairs.is_empty() });
        }
        let keys = pairs.iter().map(|pair| etcd.name(&pair["key"])).collect::<Result<_, _>>()?;
        Ok(KeyPage { keys, more: answer["more"] == json!(true) })
    }

    fn increment(key: String, delta: i64) -> Result<i64, Error> {
        let etcd = etcd()?;
        let name = etcd.key(&key);
        for _ in 0..TRIES {
            let answer = etcd.ask("/v3/kv/range", &json!({ "key": name }))?;
            let old = found(&answer)?;
            let stands = match &old {
                None => 0,
                Some(item) => {
                    let text = std::str::from_utf8(&item.value).ok();
                    text.and_then(|text| text.parse().ok()).ok_or(Error::NotANumber)?
                }
            };
            let sum: i64 = i64::checked_add(stands, delta).ok_or(Error::Overflow)?;
            let revision = number(&answer["kvs"][0]["mod_revision"]).to_string();
            // A key that is there keeps its lease.
            let put = json!({
                "key": name, "value": encoded(sum.to_string().as_bytes()), "ignore_lease": old.is_some(),
            });
            let answer = etcd.ask("/v3/kv/txn", &json!({
                "compare": [{ "key": name, "target": "MOD", "result": "EQUAL", "mod_revision": revision }],
                "success": [{ "request_put": put }],
            }))?;
            if answer["succeeded"] == json!(true) {
                return Ok(sum);
            }
        }
        Err(Error::Unavailable(format!("others changed the number {TRIES} times in a row")))
    }

    fn ping() -> Result<(), Error> {
        let etcd = etcd()?;
        etcd.ask("/v3/kv/range", &json!({ "key": etcd.key(""), "count_only": true })).map(|_: Value| ())
    }
}

fn etcd() -> Result<&'static Etcd, Error> {
    ETCD.get().ok_or_else(|| Error::Failed("init was not called".to_owned()))
}
