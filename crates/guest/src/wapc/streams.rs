//! Streams of events, over the state block: each event is a key of its own, in the order of time.
//!
//! An event's id is the millisecond of its writing and a number within the app's streams, as Redis has them; the id that
//! the module gives is not used, as with waSCC. Keys are `eventstreams/STREAM/ID`, with leading zeros.

use super::Room;
use super::format::Answer;
use super::operations::Asked;
use super::payloads::{Event, StreamQuery, StreamResults, WriteResponse};
use dhow_blocks::scope::DEFAULT_STATE_STORE;
use dhow_blocks::state::{Concurrency, Set, StateError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Its operations.
pub(super) const OPERATIONS: [&str; 2] = ["QueryStream", "WriteEvent"];

/// Most events of one answer.
const MAX_EVENTS: u64 = 10_000;

/// Events that are read at once.
const PAGE: usize = 500;

/// Attempts to find a number that nobody else has taken in the same millisecond.
const ATTEMPTS: u32 = 100;

pub(super) async fn perform(room: &Room, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    if !OPERATIONS.contains(&asked.operation.as_str()) {
        return Err(asked.unknown(&OPERATIONS));
    }
    let target = room.bindings.find("eventstreams", &asked.binding, || Some(DEFAULT_STATE_STORE))?;
    let state = room.setup.scope.state(target.component).map_err(|error| error.to_string())?;
    if asked.operation == "WriteEvent" {
        let event: Event = asked.format.read(payload)?;
        let prefix = prefix(&event.stream)?;
        for number in 0..ATTEMPTS {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let event_id = format!("{now}-{number}");
            let value = serde_json::to_vec(&Event { event_id: event_id.clone(), ..event.clone() });
            let set = Set {
                key: format!("{prefix}{now:020}-{number:010}"),
                value: value.map_err(|error| error.to_string())?.into(),
                json: true,
                concurrency: Concurrency::FirstWrite,
                ..Set::default()
            };
            match state.set(set).await {
                Ok(()) => return asked.answer(&WriteResponse { event_id }),
                Err(StateError::EtagMismatch { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        return Err(format!("stream {:?} is written by too many others at once; try again", event.stream));
    }
    let StreamQuery { stream_id, range, count } = asked.format.read(payload)?;
    let prefix = prefix(&stream_id)?;
    let most = if count == 0 { MAX_EVENTS } else { count.min(MAX_EVENTS) };
    let most = usize::try_from(most).unwrap_or(PAGE);
    let (from, to) = range.map_or((0, u64::MAX), |range| (range.min_time, range.max_time));
    // Nothing stands between this and the first event of that millisecond.
    let mut after = format!("{prefix}{from:020}");
    let last = format!("{prefix}{to:020}~");
    let mut events = Vec::new();
    while events.len() < most {
        let page = state.list_keys(&prefix, Some(&after), PAGE.min(most - events.len())).await;
        let page = page.map_err(|error| error.to_string())?;
        let keys: Vec<String> = page.keys.into_iter().take_while(|key| *key <= last).collect();
        let Some(newest) = keys.last().cloned() else { break };
        for item in state.get_many(&keys).await {
            // One that went meanwhile is no event any more.
            let Some(item) = item.map_err(|error| error.to_string())? else { continue };
            let event = serde_json::from_slice::<Event>(&item.value);
            events.push(event.map_err(|error| format!("an event of stream {stream_id:?}: {error}"))?);
        }
        if !page.more {
            break;
        }
        after = newest;
    }
    asked.answer(&StreamResults { events })
}

fn prefix(stream: &str) -> Result<String, String> {
    match stream {
        "" => Err("the stream has no name".to_owned()),
        stream => Ok(format!("eventstreams/{}/", dhow_blocks::invoke::path_segment(stream))),
    }
}
