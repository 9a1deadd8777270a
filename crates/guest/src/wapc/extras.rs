//! The small capabilities: log lines, numbers and identifiers, live updates.

use super::Room;
use super::format::Answer;
use super::operations::Asked;
use super::payloads::{GeneratorRequest, GeneratorResult, LiveUpdate, WriteLogRequest};
use super::state::WapcState;
use crate::setup::{Level, Stream};
use dhow_blocks::cloud_event::uuid;
use dhow_blocks::grants::Ask;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Operations of `extras`.
pub(super) const GENERATORS: [&str; 3] = ["RequestGuid", "RequestRandom", "RequestSequence"];

/// Operations of `logging`.
pub(super) const LOGGING: [&str; 1] = ["WriteLog"];

/// Makes an identifier, the next number of the app, or a number from `min` to `max` inclusive.
pub(super) fn generate(room: &Room, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    let request: GeneratorRequest = asked.format.read(payload)?;
    room.setup.scope.check(Ask::Extras).map_err(|denied| denied.to_string())?;
    let mut result = GeneratorResult::default();
    match asked.operation.as_str() {
        "RequestGuid" => result.guid = Some(uuid()),
        "RequestSequence" => result.sequence_number = room.sequence.fetch_add(1, Ordering::Relaxed),
        "RequestRandom" => {
            let GeneratorRequest { min, max, .. } = request;
            if min > max {
                return Err(format!("there is no number from {min} to {max}"));
            }
            result.random_number = fastrand::u32(min..=max);
        }
        _ => return Err(asked.unknown(&GENERATORS)),
    }
    asked.answer(&result)
}

/// Writes to the app's log. Levels count from 1, an error, to 5, a trace.
pub(super) fn log(room: &Room, asked: &Asked, payload: &[u8]) -> Result<Answer, String> {
    if asked.operation != "WriteLog" {
        return Err(asked.unknown(&LOGGING));
    }
    let WriteLogRequest { level, body } = asked.format.read(payload)?;
    room.setup.scope.check(Ask::Log).map_err(|denied| denied.to_string())?;
    let level = match level {
        0 | 1 => Level::Error,
        2 => Level::Warn,
        3 => Level::Info,
        4 => Level::Debug,
        _ => Level::Trace,
    };
    room.setup.output.line(&room.setup.scope.app_id, Stream::Log(level), &body);
    Ok(Answer::default())
}

/// Asks the host to replace the module.
pub(super) async fn live_update(
    state: &mut WapcState,
    asked: &Asked,
    payload: &[u8],
) -> Result<Answer, String> {
    let setup = Arc::clone(&state.room.setup);
    let LiveUpdate { new_module } = asked.format.read(payload)?;
    let updated = setup.scope.update(&setup.scope.app_id, new_module.into()).await;
    updated.map(|()| Answer::default()).map_err(|error| error.to_string())
}
