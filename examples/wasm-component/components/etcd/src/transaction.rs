//! Several writes at once. etcd compares first and takes each key once, so what the steps of one key come to is worked
//! out here.

use crate::bindings::exports::dhow::provider::state::{Error, Operation, Removal, Write};
use crate::client::{CHANCE, Etcd, encoded, number};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use wstd::rand::get_random_bytes;

/// etcd makes every lease last at least so long, in seconds.
const SHORTEST: u64 = 2;

/// No value lives longer, in seconds: a hundred years.
const LONGEST: u64 = 100 * 365 * 24 * 3600;

/// The steps so far.
#[derive(Default)]
pub struct Transaction {
    /// By key: the revision that it must have, 0 for none.
    conditions: BTreeMap<String, u64>,
    /// By key: what is written at the end, or none.
    writes: BTreeMap<String, Option<Write>>,
}

impl Transaction {
    pub fn add(&mut self, operation: Operation) -> Result<(), Error> {
        match operation {
            Operation::Set(write) => {
                self.require(&write.key, write.etag.as_deref(), write.first_write)?;
                self.writes.insert(write.key.clone(), Some(write));
            }
            Operation::Delete(Removal { key, etag }) => {
                self.require(&key, etag.as_deref(), false)?;
                self.writes.insert(key, None);
            }
        }
        Ok(())
    }

    /// Notes a condition, or decides it if an earlier step has changed the key.
    fn require(&mut self, key: &str, etag: Option<&str>, absent: bool) -> Result<(), Error> {
        let revision = match etag {
            Some(etag) => Some(revision(etag)?),
            None => absent.then_some(0),
        };
        let Some(revision) = revision else { return Ok(()) };
        match self.writes.get(key) {
            None => {
                self.conditions.insert(key.to_owned(), revision);
                Ok(())
            }
            Some(None) if revision == 0 => Ok(()),
            Some(_) => Err(Error::EtagMismatch(key.to_owned())),
        }
    }

    pub fn commit(self, etcd: &Etcd) -> Result<(), Error> {
        if self.writes.is_empty() {
            return Ok(());
        }
        let mut leases = Vec::new();
        let mut steps = Vec::with_capacity(self.writes.len());
        for (key, write) in self.writes {
            steps.push(match write {
                None => json!({ "request_delete_range": { "key": etcd.key(&key) } }),
                Some(write) => {
                    let lease = write.ttl.map(|ttl| lease(etcd, ttl)).transpose()?.unwrap_or_default();
                    leases.extend((lease != 0).then_some(lease));
                    json!({ "request_put": {
                        "key": etcd.key(&key), "value": encoded(&write.value), "lease": lease.to_string(),
                    }})
                }
            });
        }
        let compare = self.conditions.iter().map(|(key, revision)| {
            json!({ "key": etcd.key(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision.to_string() })
        });
        let look = self
            .conditions
            .keys()
            .map(|key| json!({ "request_range": { "key": etcd.key(key), "keys_only": true } }));
        let answer = etcd.ask("/v3/kv/txn", &json!({
            "compare": compare.collect::<Vec<Value>>(), "success": steps, "failure": look.collect::<Vec<Value>>(),
        }));
        let refused = match answer {
            Ok(answer) if answer["succeeded"] == json!(true) => return Ok(()),
            Ok(answer) => {
                let is = |index: usize| {
                    number(&answer["responses"][index]["response_range"]["kvs"][0]["mod_revision"])
                };
                let mut conditions = self.conditions.iter().enumerate();
                let broken = conditions.find(|(index, (_, revision))| is(*index) != **revision);
                Error::EtagMismatch(broken.map(|(_, (key, _))| key.clone()).unwrap_or_default())
            }
            Err(error) => error,
        };
        for lease in leases {
            // Without its keys it is of no use; if it stays, it ends by itself.
            let _ = etcd.ask("/v3/lease/revoke", &json!({ "ID": lease.to_string() }));
        }
        Err(refused)
    }
}

/// The revision that an etag is.
fn revision(etag: &str) -> Result<u64, Error> {
    let revision: Option<u64> = etag.parse().ok();
    let revision = revision.filter(|revision| *revision > 0 && revision.to_string() == etag);
    revision.ok_or_else(|| Error::EtagInvalid(etag.to_owned()))
}

/// A lease of so many milliseconds, which etcd counts in seconds. Its number says when it ends.
fn lease(etcd: &Etcd, ttl: u64) -> Result<u64, Error> {
    let seconds = ttl.div_ceil(1000).clamp(SHORTEST, LONGEST);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1000;
    let mut chance = [0; 4];
    get_random_bytes(&mut chance);
    let chance = u64::from(u32::from_le_bytes(chance)) & ((1 << CHANCE) - 1);
    let id = ((now + seconds * 1000) << CHANCE) | chance;
    etcd.ask("/v3/lease/grant", &json!({ "TTL": seconds.to_string(), "ID": id.to_string() }))?;
    Ok(id)
}
