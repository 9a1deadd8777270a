//! `bindings.cron`: an event without data whenever the clock says so.
//!
//! Five or six fields, or a word such as `@daily` or `@every 5s`, in the time zone of the host unless the
//! schedule begins with `TZ=`. The schedule lives as long as the process: what was due while no host ran is
//! not made up for; jobs are for that. An event that is not taken is not repeated, as in Dapr.

use crate::registry::{ComponentSpec, Open, OpenError, Provider};
use crate::schedule::Schedule;
use crate::task::{Stop, Task};
use async_trait::async_trait;
use bytes::Bytes;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Running};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The line in the registry.
pub(crate) const PROVIDER: Provider = Provider {
    component_type: "bindings.cron",
    aliases: &[],
    versions: &["v1"],
    fields: &["schedule"],
    open: Open::Binding(|component, _| Box::pin(async move { open(&component) })),
};

/// Events that are handled at once. Later ones are left out until there is room.
const AT_ONCE: usize = 16;

/// The clock may be set while we sleep: it is read again after this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Events that are being handled when the binding is stopped have this long to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A clock that strikes.
#[derive(Debug)]
pub struct Cron {
    schedule: Schedule,
    /// Tells all readers to end; none when the binding is closed.
    open: Mutex<Option<watch::Sender<()>>>,
}

fn open(component: &ComponentSpec) -> Result<Arc<dyn Binding>, OpenError> {
    let Some(schedule) = component.field(&["schedule"]) else {
        return Err(
            component.invalid(&["schedule"], "given, such as \"@every 5s\" or \"0 30 8 * * MON-FRI\"")
        );
    };
    // A machine without a time zone is in UTC.
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    let schedule = Schedule::parse_binding(schedule, zone).map_err(|error| OpenError::Backend {
        component: component.name.clone(),
        reason: format!("metadata field schedule: {error}"),
    })?;
    Ok(Arc::new(Cron::new(schedule)))
}

// === impl Cron ===

impl Cron {
    /// Strikes by this schedule.
    pub fn new(schedule: Schedule) -> Cron {
        Cron { schedule, open: Mutex::new(Some(watch::channel(()).0)) }
    }
}

#[async_trait]
impl Binding for Cron {
    fn operations(&self) -> Vec<&str> {
        Vec::new()
    }

    fn is_input(&self) -> bool {
        true
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let reason = format!("operation {:?} is not known: bindings.cron has none", request.operation);
        Err(BlockError::Invalid { reason })
    }

    async fn read(&self, handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        let closed = match &*self.open.lock() {
            Some(open) => open.subscribe(),
            None => return Err(BlockError::unavailable("the binding is closed")),
        };
        let schedule = self.schedule.clone();
        Ok(Box::new(Task::spawn(|stop| strike(schedule, handler, closed, stop))))
    }

    async fn close(&self) {
        let open = self.open.lock().take();
        if let Some(open) = open {
            // Wakes the readers, and waits until the last one has ended.
            let _ = open.send(());
            let _ = tokio::time::timeout(PATIENCE, open.closed()).await;
        }
    }
}

/// Hands over an event at each time of the schedule.
async fn strike(
    schedule: Schedule,
    handler: Arc<dyn Handler<BindingEvent>>,
    mut closed: watch::Receiver<()>,
    mut stop: Stop,
) {
    let mut running = JoinSet::new();
    let mut next = schedule.next(SystemTime::now());
    while let Some(due) = next {
        let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = stop.stopped() => break,
            _ = closed.changed() => break,
            Some(_) = running.join_next() => {}
            () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {
                let now = SystemTime::now();
                if now < due {
                    continue;
                }
                next = schedule.next_from(due, now);
                if running.len() < AT_ONCE {
                    let handler = Arc::clone(&handler);
                    running.spawn(async move { handler.handle(event(now)).await });
                } else {
                    tracing::warn!("bindings.cron: {AT_ONCE} events are still being handled; this one is left out");
                }
            }
        }
    }
    if next.is_none() {
        // A schedule that never comes (again) is quiet until it is stopped.
        tokio::select! {
            () = stop.stopped() => {}
            _ = closed.changed() => {}
        }
    }
    let ended = tokio::time::timeout(PATIENCE, async { while running.join_next().await.is_some() {} });
    if ended.await.is_err() {
        running.shutdown().await;
    }
}

/// The event as Dapr sends it: no data, and times as Go prints them.
fn event(now: SystemTime) -> BindingEvent {
    let time = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
    let fraction = match time.subsec_nanosecond() {
        0 => String::new(),
        nanosecond => format!(".{nanosecond:09}").trim_end_matches('0').to_owned(),
    };
    let read = format!("{}{fraction} +0000 UTC", time.strftime("%Y-%m-%d %H:%M:%S"));
    let metadata = [("readTimeUTC", read), ("timeZone", "Local".to_owned())];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value));
    BindingEvent { data: Bytes::new(), metadata: Metadata::from(metadata) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_like_dapr_s() {
        for (time, expected) in [
            ("2026-11-21T08:00:00Z", "2026-11-21 08:00:00 +0000 UTC"),
            ("2026-11-21T08:00:00.0205Z", "2026-11-21 08:00:00.0205 +0000 UTC"),
        ] {
            let event = event(time.parse::<Timestamp>().unwrap().into());
            assert_eq!(event.metadata["readTimeUTC"], expected);
            assert_eq!(event.metadata["timeZone"], "Local");
            assert!(event.data.is_empty());
        }
    }
}
