//! The timer: sleeps until a job is due, hands it over, and keeps what became of it.

use super::JobsOptions;
use super::table::{Claimed, Room, Table};
use crate::task::{Stop, Task};
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::jobs::Due;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Triggers of one owner that are handled at once: a slow app holds up itself only.
const FOR_EACH_OWNER: usize = 32;

/// Triggers of all owners that are handled at once.
const IN_ALL: usize = 512;

/// Triggers that are being handled when the timer is stopped have this long to end.
const PATIENCE: Duration = Duration::from_secs(30);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Triggers the jobs of some owners.
pub(super) struct Timer {
    table: Arc<Table>,
    /// As a JSON array, which is how the database takes a list.
    owners: String,
    handler: Arc<dyn Handler<Due>>,
    /// Told when a job was scheduled in this process.
    changed: Arc<Notify>,
    options: JobsOptions,
    /// The tasks that handle a trigger.
    tasks: JoinSet<()>,
    /// What each of them handles.
    running: HashMap<Id, (i64, String)>,
    /// When the claims of the running ones are to be renewed.
    renew: Instant,
}

// === impl Timer ===

impl Timer {
    pub(super) fn new(
        table: Arc<Table>,
        owners: Vec<String>,
        handler: Arc<dyn Handler<Due>>,
        changed: Arc<Notify>,
        options: JobsOptions,
    ) -> Timer {
        let owners = serde_json::Value::from(owners).to_string();
        let renew = Instant::now();
        Timer {
            table,
            owners,
            handler,
            changed,
            options,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            renew,
        }
    }

    pub(super) fn start(self) -> Task {
        Task::spawn(|stop| self.run(stop))
    }

    async fn run(mut self, mut stop: Stop) {
        let changed = Arc::clone(&self.changed);
        let mut delay = FIRST_DELAY;
        while !stop.is_stopped() {
            let mut changed = pin!(changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let pause = match self.trigger().await {
                Ok(pause) => {
                    delay = FIRST_DELAY;
                    pause
                }
                Err(error) => {
                    tracing::warn!(%error, "jobs cannot be triggered; trying again in {delay:?}");
                    let pause = delay.mul_f64(0.5 + fastrand::f64() / 2.0);
                    delay = (delay * 2).min(LONGEST_DELAY);
                    pause
                }
            };
            tokio::select! {
                () = stop.stopped() => {}
                () = changed => {}
                () = sleep(pause) => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = sleep_until(self.renew), if !self.running.is_empty() => self.renew().await,
            }
        }
        self.drain().await;
    }

    /// Hands over what is due, and says how long there is nothing more to do.
    async fn trigger(&mut self) -> Result<Duration, dhow_blocks::error::BlockError> {
        if !self.table.exists() {
            return Ok(self.options.look);
        }
        let mut running: HashMap<String, usize> = HashMap::new();
        for (_, owner) in self.running.values() {
            *running.entry(owner.clone()).or_default() += 1;
        }
        let room = Room {
            owners: self.owners.clone(),
            for_each: FOR_EACH_OWNER,
            in_all: IN_ALL.saturating_sub(self.running.len()),
            running,
        };
        if self.running.is_empty() {
            self.renew = Instant::now() + self.options.claim / 3;
        }
        let now = (self.options.clock)();
        let (claimed, next) = self.table.claim(room, now, self.claim_end(now)).await?;
        for claimed in claimed {
            self.handle(claimed);
        }
        let wait = next.map(|next| next.duration_since((self.options.clock)()).unwrap_or_default());
        Ok(wait.unwrap_or(self.options.look).min(self.options.look))
    }

    fn handle(&mut self, claimed: Claimed) {
        let key = (claimed.claim, claimed.due.owner.clone());
        let (table, handler) = (Arc::clone(&self.table), Arc::clone(&self.handler));
        let clock = self.options.clock;
        let task = self.tasks.spawn(async move {
            let outcome = handler.handle(claimed.due.clone()).await;
            if let Err(error) = table.finish(&claimed, outcome == Outcome::Done, clock()).await {
                let Due { owner, name, .. } = &claimed.due;
                tracing::warn!(owner, name, %error, "a job's trigger could not be noted; it will come again");
            }
        });
        self.running.insert(task.id(), key);
    }

    fn ended(&mut self, task: Id) {
        self.running.remove(&task);
    }

    async fn renew(&mut self) {
        let claims = self.running.values().map(|(claim, _)| *claim).collect();
        let until = self.claim_end((self.options.clock)());
        if let Err(error) = self.table.renew(claims, until).await {
            tracing::warn!(%error, "the claims on running jobs could not be renewed; they may be triggered twice");
        }
        self.renew = Instant::now() + self.options.claim / 3;
    }

    fn claim_end(&self, now: SystemTime) -> SystemTime {
        now.checked_add(self.options.claim).unwrap_or(now)
    }

    /// Waits for what is being handled, and gives up what does not end.
    async fn drain(mut self) {
        let end = Instant::now() + PATIENCE;
        while !self.running.is_empty() && Instant::now() < end {
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = sleep_until(self.renew) => self.renew().await,
                () = sleep_until(end) => {}
            }
        }
        self.tasks.shutdown().await;
        let claims: Vec<i64> = self.running.values().map(|(claim, _)| *claim).collect();
        if !claims.is_empty()
            && let Err(error) = self.table.release(claims, (self.options.clock)()).await
        {
            tracing::warn!(%error, "jobs that did not end could not be given back; they come again later");
        }
    }
}
