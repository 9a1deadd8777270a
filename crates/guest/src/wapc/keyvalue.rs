//! Keys and values, lists and sets, over the state block.
//!
//! A plain value is the text that the module gives, byte for byte, as everybody else who uses the store sees it; `Add`
//! counts in decimal. Lists and sets are JSON arrays of strings under their key, the newest item of a list first, as
//! Redis has it. They are changed by reading and writing the etag that was read, so no change of anybody is lost, and
//! they are written whole, so they are for hundreds of items and not for millions.

use super::Room;
use super::format::{Answer, Payload};
use super::operations::Asked;
use super::payloads::*;
use dhow_blocks::scope::{DEFAULT_STATE_STORE, State};
use dhow_blocks::state::{Concurrency, Delete, Item, Set, StateError, Ttl};
use std::time::{Duration, SystemTime};

/// Its operations.
pub(super) const OPERATIONS: [&str; 14] = [
    "Add",
    "Clear",
    "Del",
    "Get",
    "KeyExists",
    "ListItemDelete",
    "Push",
    "Range",
    "Set",
    "SetAdd",
    "SetIntersection",
    "SetQuery",
    "SetRemove",
    "SetUnion",
];

/// Attempts to change a value that others change as well, and the longest pause between two of them.
const ATTEMPTS: u32 = 200;
const LONGEST_PAUSE: u64 = 20;

/// Largest list or set, in bytes: each change reads and writes all of it.
const MAX_BYTES: usize = 16 << 20;

/// Keys of one union or intersection.
const MAX_KEYS: usize = 1000;

pub(super) async fn perform(room: &Room, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    if !OPERATIONS.contains(&asked.operation.as_str()) {
        return Err(asked.unknown(&OPERATIONS));
    }
    let target = room.bindings.find("keyvalue", &asked.binding, || Some(DEFAULT_STATE_STORE))?;
    let state = room.setup.scope.state(target.component).map_err(|error| error.to_string())?;
    let state = &state;
    match asked.operation.as_str() {
        "Add" => {
            let AddRequest { key, value } = read(asked, payload)?;
            let sum = state.increment(&key, value.into()).await.map_err(told)?;
            let value = i32::try_from(sum).map_err(|_| {
                format!("the value of key {key:?} is {sum} now, which does not fit in 32 bits")
            })?;
            asked.answer(&AddResponse { value })
        }
        "Get" => {
            let GetRequest { key } = read(asked, payload)?;
            let item = state.get(&key).await.map_err(told)?;
            let exists = item.is_some();
            let value = match item {
                Some(item) => String::from_utf8(item.value.into())
                    .map_err(|_| format!("the value of key {key:?} is not UTF-8"))?,
                None => String::new(),
            };
            asked.answer(&GetResponse { value, exists })
        }
        "KeyExists" => {
            let KeyExistsQuery { key } = read(asked, payload)?;
            let exists = state.get(&key).await.map_err(told)?.is_some();
            asked.answer(&GetResponse { value: String::new(), exists })
        }
        "Set" => {
            let SetRequest { key, value, expires_s } = read(asked, payload)?;
            let ttl = match u64::try_from(expires_s) {
                Ok(0) | Err(_) => Ttl::Forever,
                Ok(seconds) => Ttl::After(Duration::from_secs(seconds)),
            };
            let set = Set { key, value: value.clone().into(), ttl, ..Set::default() };
            state.set(set).await.map_err(told)?;
            asked.answer(&SetResponse { value })
        }
        "Del" => {
            let DelRequest { key } = read(asked, payload)?;
            state.delete(Delete { key: key.clone(), etag: None }).await.map_err(told)?;
            asked.answer(&DelResponse { key })
        }
        "Clear" => {
            let ListClearRequest { key } = read(asked, payload)?;
            state.delete(Delete { key, etag: None }).await.map_err(told)?;
            asked.answer(&ListResponse { new_count: 0 })
        }
        "Push" => {
            let ListPushRequest { key, value } = read(asked, payload)?;
            let new_count = change(state, &key, |items| {
                items.insert(0, value.clone());
                items.len()
            })
            .await?;
            asked.answer(&ListResponse { new_count: count(new_count) })
        }
        "ListItemDelete" => {
            let ListDelItemRequest { key, value } = read(asked, payload)?;
            let removed = change(state, &key, |items| remove(items, &value)).await?;
            asked.answer(&ListResponse { new_count: count(removed) })
        }
        "Range" => {
            let ListRangeRequest { key, start, stop } = read(asked, payload)?;
            let items = collection(state, &key).await?;
            let values = range(items, start, stop);
            asked.answer(&ListRangeResponse { values })
        }
        "SetAdd" => {
            let SetAddRequest { key, value } = read(asked, payload)?;
            let added = change(state, &key, |items| {
                let is_new = !items.contains(&value);
                if is_new {
                    items.push(value.clone());
                }
                usize::from(is_new)
            })
            .await?;
            asked.answer(&SetOperationResponse { new_count: count(added) })
        }
        "SetRemove" => {
            let SetRemoveRequest { key, value } = read(asked, payload)?;
            let removed = change(state, &key, |items| remove(items, &value)).await?;
            asked.answer(&SetOperationResponse { new_count: count(removed) })
        }
        "SetQuery" => {
            let SetQueryRequest { key } = read(asked, payload)?;
            let values = collection(state, &key).await?;
            asked.answer(&SetQueryResponse { values })
        }
        "SetUnion" => {
            let SetUnionRequest { keys } = read(asked, payload)?;
            let sets = collections(state, &keys).await?;
            let mut seen = std::collections::HashSet::new();
            let values = sets.into_iter().flatten().filter(|item| seen.insert(item.clone())).collect();
            asked.answer(&SetQueryResponse { values })
        }
        _ => {
            let SetIntersectionRequest { keys } = read(asked, payload)?;
            let mut sets = collections(state, &keys).await?.into_iter();
            let mut values = sets.next().unwrap_or_default();
            for set in sets {
                let set: std::collections::HashSet<String> = set.into_iter().collect();
                values.retain(|item| set.contains(item));
            }
            asked.answer(&SetQueryResponse { values })
        }
    }
}

fn read<M: Payload>(asked: &Asked, payload: &[u8]) -> Result<M, String> {
    asked.format.read(payload)
}

fn told(error: StateError) -> String {
    error.to_string()
}

/// The ABI counts in 32 bits.
fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Takes an item out wherever it is, and says how often it was there.
fn remove(items: &mut Vec<String>, value: &str) -> usize {
    let before = items.len();
    items.retain(|item| item != value);
    before - items.len()
}

/// The items from `start` to `stop` inclusive; negative numbers count from the end.
fn range(items: Vec<String>, start: i32, stop: i32) -> Vec<String> {
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let from_start = |index: i32| match i64::from(index) {
        index if index < 0 => length + index,
        index => index,
    };
    let start = usize::try_from(from_start(start)).unwrap_or(0);
    let Ok(stop) = usize::try_from(from_start(stop)) else { return Vec::new() };
    items.into_iter().take(stop.saturating_add(1)).skip(start).collect()
}

/// The items of a list or set; none if there is no such key.
async fn collection(state: &State, key: &str) -> Result<Vec<String>, String> {
    items(key, state.get(key).await.map_err(told)?.as_ref())
}

async fn collections(state: &State, keys: &[String]) -> Result<Vec<Vec<String>>, String> {
    if keys.len() > MAX_KEYS {
        return Err(format!("{} keys at once; at most {MAX_KEYS} are possible", keys.len()));
    }
    let found = state.get_many(keys).await;
    keys.iter().zip(found).map(|(key, found)| items(key, found.map_err(told)?.as_ref())).collect()
}

fn items(key: &str, item: Option<&Item>) -> Result<Vec<String>, String> {
    let Some(item) = item else { return Ok(Vec::new()) };
    serde_json::from_slice(&item.value).map_err(|_| {
        format!("the value of key {key:?} is no list and no set: it is not a JSON array of strings")
    })
}

/// Changes a list or set, alone: whoever changes it at the same time is seen. An empty one is none; one that is left as
/// it was is not written.
async fn change<R>(state: &State, key: &str, change: impl Fn(&mut Vec<String>) -> R) -> Result<R, String> {
    for attempt in 0..ATTEMPTS {
        let item = state.get(key).await.map_err(told)?;
        let before = items(key, item.as_ref())?;
        let mut after = before.clone();
        let result = change(&mut after);
        if after == before {
            return Ok(result);
        }
        match write(state, key, item, &after).await {
            Ok(()) => return Ok(result),
            Err(StateError::EtagMismatch { .. }) => {
                let longest = 1 + u64::from(attempt).min(LONGEST_PAUSE);
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..longest))).await;
            }
            Err(error) => return Err(told(error)),
        }
    }
    Err(format!("key {key:?} is changed by too many others at once; try again"))
}

async fn write(state: &State, key: &str, item: Option<Item>, items: &[String]) -> Result<(), StateError> {
    let (etag, expires_at) = item.map(|item| (item.etag, item.expires_at)).unzip();
    let key = key.to_owned();
    if items.is_empty() {
        return state.delete(Delete { key, etag }).await;
    }
    let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or(Duration::from_secs(1));
    let value =
        serde_json::to_vec(items).map_err(|error| StateError::Failed { reason: error.to_string() })?;
    if value.len() > MAX_BYTES {
        return Err(StateError::TooLarge { what: "list or set", actual: value.len(), limit: MAX_BYTES });
    }
    let set = Set {
        key,
        value: value.into(),
        json: true,
        etag,
        concurrency: Concurrency::FirstWrite,
        ttl: expires_at.flatten().map_or(Ttl::Forever, |at| Ttl::After(left(at))),
    };
    state.set(set).await
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_are_those_of_redis() {
        let cases = [
            (0, -1, "abcd"),
            (0, 0, "a"),
            (1, 2, "bc"),
            (-2, -1, "cd"),
            (0, 100, "abcd"),
            (-100, 1, "ab"),
            (2, 1, ""),
            (4, 5, ""),
            (0, -5, ""),
            (i32::MIN, i32::MAX, "abcd"),
            (i32::MAX, i32::MIN, ""),
        ];
        for (start, stop, expected) in cases {
            let items = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
            assert_eq!(range(items, start, stop).concat(), expected, "{start} {stop}");
        }
        assert!(range(Vec::new(), 0, -1).is_empty());
    }
}
