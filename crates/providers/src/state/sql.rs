//! What the state stores on SQL servers have in common: times to live, the removal of what has expired, and how a
//! write may end.

use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use crate::shutdown::Shutdown;
use dhow_blocks::state::{StateError, Ttl};
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;
use tokio::time::sleep;

/// Removing the expired rows of a large table may take this long.
pub(crate) const CLEANUP_DEADLINE: Duration = Duration::from_secs(600);

/// How long `close` waits for the cleanup to notice.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

const DEFAULT_CLEANUP: Duration = Duration::from_secs(3600);

/// Longer times to live end there: about the year 9900, or never, where a column's type ends before.
const LONGEST_TTL: Duration = Duration::from_secs(250_000_000_000);

/// A write that its conditions allow, or not.
pub(crate) enum Stop<E> {
    Refused(StateError),
    Failed(E),
}

impl<E: Into<StateError>> From<Stop<E>> for StateError {
    fn from(stop: Stop<E>) -> StateError {
        match stop {
            Stop::Refused(error) => error,
            Stop::Failed(error) => error.into(),
        }
    }
}

/// A time to live as a parameter.
pub(crate) fn microseconds(ttl: Ttl) -> Option<i64> {
    match ttl {
        Ttl::Forever => None,
        Ttl::After(time) => Some(i64::try_from(time.min(LONGEST_TTL).as_micros()).unwrap_or(i64::MAX)),
    }
}

/// How often expired rows are removed. Dapr takes nothing positive for never.
pub(crate) fn cleanup_interval(
    component: &ComponentSpec,
    fields: &[&'static str],
) -> Result<Option<Duration>, OpenError> {
    if component.field(fields).is_some_and(|text| text.trim().starts_with('-')) {
        return Ok(None);
    }
    let interval = component.duration(fields)?.unwrap_or(DEFAULT_CLEANUP);
    Ok(Some(interval).filter(|interval| !interval.is_zero()))
}

/// Removes expired rows at every interval until the store is closed. `clean` is told for how many milliseconds
/// nobody else, another host or sidecar, may have done so.
pub(crate) fn clean_every<C, E>(
    shutdown: &Shutdown,
    interval: Duration,
    clean: impl Fn(i64) -> C + Send + 'static,
) where
    C: Future<Output = Result<(), E>> + Send,
    E: Display,
{
    let Ok(mut alive) = shutdown.alive() else { return };
    let patience = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX / 1000).saturating_sub(100);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sleep(interval) => {}
                () = alive.ended() => return,
            }
            tokio::select! {
                cleaned = clean(patience) => if let Err(error) = cleaned {
                    tracing::warn!("expired state was not removed, and stays invisible: {error}");
                },
                () = alive.ended() => return,
            }
        }
    });
}
