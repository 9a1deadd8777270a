//! One subscription of `pubsub.redis`: reads its group's new entries, hands them over, acknowledges them, and takes
//! over entries that others left lying.
//!
//! What keeps messages from being lost or delivered twice (components-contrib #4174, #4599, dapr #3481):
//!
//! - Nothing is read that cannot be handled at once, so no entry grows old in a queue.
//! - The idle time of an entry begins anew again and again while its handler runs, however long that takes.
//!   `processingTimeout` therefore tells how long a consumer has been silent, not how long a handler may take.
//! - An entry that was delivered into a connection that broke is asked for after it is back.
//! - An entry that the handler refused stays pending, and is delivered again once it is that old.
//! - A group that vanished with its server's data is made again.
//! - The consumer's name is this process' own: nobody else's entries are mistaken for ours.

use super::connection::Connection;
use super::error::Failure;
use super::pool::{Pool, Repeat};
use crate::backoff::Backoff;
use crate::registry::{ComponentSpec, OpenError};
use crate::task::Stop;
use ::redis::{Script, Value};
use bytes::Bytes;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome};
use dhow_blocks::pubsub::{Message, Subscribe};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The server waits this long for new entries before it answers that there are none.
const BLOCK: Duration = Duration::from_secs(5);

/// Pending entries that one look shows.
const PENDING_AT_ONCE: usize = 100;

/// Looks at pending entries in one round; the next round goes on from there.
const LOOKS: usize = 200;

/// Handlers have this long to finish when the subscription stops and there is no `processingTimeout`.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// A consumer of a dead process, without entries, is forgotten after this long.
const FORGET: Duration = Duration::from_secs(3600);

/// What stands between the group's name and the random part in a consumer's name.
const CONSUMER_MARK: &str = "-dhow-";

/// What the component's metadata say about subscriptions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// An entry is left lying when it has been pending for so long; zero: never.
    processing_timeout: Duration,
    /// Between two looks for such entries; zero: never.
    redeliver_interval: Duration,
    /// Entries that are read at once.
    queue_depth: usize,
    /// Handler calls at once.
    concurrency: usize,
    /// Acknowledge what the handler refused, too.
    ack_on_error: bool,
}

/// One consumer of one topic.
pub(super) struct Subscription {
    pool: Arc<Pool>,
    settings: Settings,
    keep: Arc<Script>,
    topic: String,
    group: String,
    consumer: String,
    handler: Arc<dyn Handler<Message>>,
}

/// An entry: its id and its fields; no fields if it was deleted.
type Entry = (String, Option<Vec<Bytes>>);

/// What the loop knows.
struct State {
    connection: Option<Connection>,
    backoff: Backoff,
    /// The connection was lost; said once.
    lost: bool,
    /// The last new entry that arrived here.
    last: String,
    /// The last connection may have taken entries with it.
    check_lost: bool,
    /// When to look for entries that were left lying, and from which one on.
    redeliver_at: Option<Instant>,
    redeliver_from: String,
    /// The last round delivered such entries: new ones have their turn, too.
    redelivered: bool,
    /// Handlers that run.
    calls: JoinSet<()>,
    /// Their entries.
    held: HashMap<task::Id, String>,
    /// When to say again that they are in hand.
    keep_at: Instant,
}

// === impl Settings ===

impl Settings {
    pub(super) fn read(component: &ComponentSpec) -> Result<Settings, OpenError> {
        let duration = |name: &str, seconds| -> Result<Duration, OpenError> {
            Ok(super::duration(component, name)?.unwrap_or(Duration::from_secs(seconds)))
        };
        let count = |name: &'static str, default: usize| -> Result<usize, OpenError> {
            let found = super::number(component, &[name], 1..=10_000, "a number from 1 to 10000")?;
            Ok(found.and_then(|count| usize::try_from(count).ok()).unwrap_or(default))
        };
        let settings = Settings {
            processing_timeout: duration("processingTimeout", 60)?,
            redeliver_interval: duration("redeliverInterval", 15)?,
            queue_depth: count("queueDepth", 100)?,
            concurrency: count("concurrency", 10)?,
            ack_on_error: component.truthy(&["ackOnError"]),
        };
        if !settings.redelivers() {
            tracing::warn!(
                component = component.name,
                "redelivery is off (processingTimeout or redeliverInterval is 0): messages that a handler \
                 refuses, or that are being handled when the host dies, are not delivered again"
            );
        }
        Ok(settings)
    }

    /// How long a subscription takes to stop, at most.
    pub(super) fn stop_deadline(&self) -> Duration {
        if self.processing_timeout.is_zero() { STOP_DEADLINE } else { self.processing_timeout }
    }

    fn redelivers(&self) -> bool {
        !self.processing_timeout.is_zero() && !self.redeliver_interval.is_zero()
    }

    /// Well before anybody takes an entry for left lying.
    fn keep_interval(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(15);
        if self.redelivers() {
            (self.processing_timeout / 4).clamp(Duration::from_millis(10), LONGEST)
        } else {
            LONGEST
        }
    }
}

// === impl Subscription ===

impl Subscription {
    pub(super) fn new(
        pool: Arc<Pool>,
        settings: Settings,
        keep: Arc<Script>,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Subscription {
        let Subscribe { topic, consumer: group, .. } = subscribe;
        let consumer = format!("{group}{CONSUMER_MARK}{:016x}", fastrand::u64(..));
        Subscription { pool, settings, keep, topic, group, consumer, handler }
    }

    /// Makes the group, reading from the stream's beginning as Dapr's does: what was published before anybody
    /// subscribed is delivered.
    pub(super) async fn create_group(&self) -> Result<(), BlockError> {
        let mut create = ::redis::cmd("XGROUP");
        create.arg("CREATE").arg(&self.topic).arg(&self.group).arg("0").arg("MKSTREAM");
        let created: Result<(), Failure> = self.pool.command(Repeat::Harmless, &create).await;
        match created {
            Err(failure) if !failure.has_code("BUSYGROUP") => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// Receives until it is told to stop, and then finishes what it has.
    pub(super) async fn run(self, mut stop: Stop) {
        let subscription = Arc::new(self);
        let mut closing = subscription.pool.closing();
        let redeliver_at = subscription.settings.redelivers().then(Instant::now);
        let mut state = State {
            connection: None,
            backoff: Backoff::new(),
            lost: false,
            last: "0-0".to_owned(),
            check_lost: false,
            redeliver_at,
            redeliver_from: "-".to_owned(),
            redelivered: false,
            calls: JoinSet::new(),
            held: HashMap::new(),
            keep_at: Instant::now(),
        };
        let permits = Arc::new(Semaphore::new(subscription.settings.concurrency));
        let ended = async {
            tokio::select! {
                () = stop.stopped() => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        };
        tokio::pin!(ended);
        loop {
            let tick = subscription.tick(&mut state, &permits);
            tokio::select! {
                biased;
                () = &mut ended => break,
                () = tick => {}
            }
        }
        subscription.finish(state).await;
    }

    /// One step of the loop. May be dropped at any point: entries that get lost by that are given back by
    /// [`Subscription::finish`].
    async fn tick(self: &Arc<Self>, state: &mut State, permits: &Arc<Semaphore>) {
        while let Some(ended) = state.calls.try_join_next_with_id() {
            state.ended(ended);
        }
        if permits.available_permits() == 0 || Instant::now() >= state.keep_at {
            self.wait_for_calls(state, permits).await;
            return;
        }
        match self.receive(state, permits).await {
            Ok(()) => {
                state.backoff.reset();
                if std::mem::take(&mut state.lost) {
                    tracing::info!(topic = self.topic, "messages arrive again");
                }
            }
            Err(failure) => self.lost(state, &failure).await,
        }
    }

    /// Waits for a free place, or until entries want to be kept.
    async fn wait_for_calls(self: &Arc<Self>, state: &mut State, permits: &Arc<Semaphore>) {
        if Instant::now() >= state.keep_at {
            state.keep_at = Instant::now() + self.settings.keep_interval();
            self.keep_held(state).await;
            return;
        }
        tokio::select! {
            Some(ended) = state.calls.join_next_with_id() => state.ended(ended),
            // The place is free a moment before the task is over.
            permit = permits.acquire() => drop(permit),
            () = sleep_until(state.keep_at) => {}
        }
    }

    async fn keep_held(&self, state: &State) {
        if state.held.is_empty() || !self.settings.redelivers() {
            return;
        }
        let mut keep = self.keep.key(&self.topic);
        keep.arg(&self.group).arg(&self.consumer);
        for id in state.held.values() {
            keep.arg(id);
        }
        let kept: Result<i64, Failure> = self.pool.script(Repeat::Harmless, &keep).await;
        if let Err(failure) = kept {
            tracing::debug!(topic = self.topic, "messages in hand were not kept: {}", failure.reason());
        }
    }

    /// Reads entries and starts their handlers; at most as many as there are places.
    async fn receive(self: &Arc<Self>, state: &mut State, permits: &Arc<Semaphore>) -> Result<(), Failure> {
        let places = permits.available_permits().min(self.settings.queue_depth).max(1);
        if state.connection.is_none() {
            let patience = BLOCK + self.pool.connector().options.response_timeout;
            let connection = self.pool.connector().connect(patience).await.map_err(Failure::Unreachable)?;
            state.connection = Some(connection);
        }
        if state.check_lost {
            let lost = self.read(state, Some(&state.last.clone()), places).await?;
            state.check_lost = lost.len() >= places;
            self.take(state, lost, permits, true).await;
            return Ok(());
        }
        let due = state.redeliver_at.is_some_and(|at| at <= Instant::now());
        if due && !std::mem::take(&mut state.redelivered) {
            let left_lying = self.claim(state, places).await?;
            state.redelivered = !left_lying.is_empty();
            if left_lying.is_empty() {
                self.forget_dead_consumers().await;
                state.redeliver_at = Some(Instant::now() + self.settings.redeliver_interval);
            }
            self.take(state, left_lying, permits, false).await;
            return Ok(());
        }
        let new = self.read(state, None, places).await?;
        self.take(state, new, permits, true).await;
        Ok(())
    }

    /// Reads new entries, waiting for them; or those that were delivered to us `after` an entry before.
    async fn read(
        &self,
        state: &mut State,
        after: Option<&str>,
        count: usize,
    ) -> Result<Vec<Entry>, Failure> {
        let Some(connection) = &state.connection else { return Ok(Vec::new()) };
        let mut read = ::redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        if after.is_none() {
            // Something else may be due earlier.
            let due = state.redeliver_at.map_or(state.keep_at, |at| at.min(state.keep_at));
            let due = if state.held.is_empty() { state.redeliver_at } else { Some(due) };
            let left = due.map_or(BLOCK, |at| at.saturating_duration_since(Instant::now()));
            let block = u64::try_from(left.min(BLOCK).as_millis()).unwrap_or(1).max(1);
            read.arg("BLOCK").arg(block);
        }
        read.arg("STREAMS").arg(&self.topic).arg(after.unwrap_or(">"));
        let mut requests = connection.requests.clone();
        // From here on an answer may be on its way that nobody waits for.
        state.check_lost = true;
        let answer: Option<Vec<(Value, Vec<Entry>)>> = read.query_async(&mut requests).await?;
        state.check_lost = false;
        Ok(answer.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    /// Takes over entries that nobody was heard of about for `processingTimeout`.
    async fn claim(&self, state: &mut State, count: usize) -> Result<Vec<Entry>, Failure> {
        let held: HashSet<String> = state.held.values().cloned().collect();
        let mut wanted: Vec<String> = Vec::new();
        for _ in 0..LOOKS {
            let mut pending = ::redis::cmd("XPENDING");
            pending
                .arg(&self.topic)
                .arg(&self.group)
                .arg(&state.redeliver_from)
                .arg("+")
                .arg(PENDING_AT_ONCE);
            let found: Vec<(String, String, u64, i64)> =
                self.pool.command(Repeat::Harmless, &pending).await?;
            let complete = found.len() < PENDING_AT_ONCE;
            let left_lying = |idle: u64| Duration::from_millis(idle) >= self.settings.processing_timeout;
            let mut last = None;
            for (id, _, idle, _) in found {
                last = Some(id.clone());
                if left_lying(idle) && !held.contains(&id) {
                    wanted.push(id);
                    if wanted.len() == count {
                        break;
                    }
                }
            }
            let full = wanted.len() == count;
            state.redeliver_from = match last.as_deref().and_then(following) {
                Some(next) if full || !complete => next,
                _ => "-".to_owned(),
            };
            if full || complete {
                break;
            }
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut claim = ::redis::cmd("XCLAIM");
        claim.arg(&self.topic).arg(&self.group).arg(&self.consumer);
        claim
            .arg(u64::try_from(self.settings.processing_timeout.as_millis()).unwrap_or(u64::MAX))
            .arg(&wanted);
        // Before Redis 7 there is nothing in the place of an entry that was deleted.
        let claimed: Vec<Option<Entry>> = self.pool.command(Repeat::Never, &claim).await?;
        let claimed: Vec<Entry> =
            claimed.into_iter().flatten().filter(|(_, fields)| fields.is_some()).collect();
        for id in wanted {
            if !claimed.iter().any(|(claimed, _)| *claimed == id) {
                // What was claimed is to be handled, whatever becomes of the others.
                if let Err(failure) = self.acknowledge_deleted(&id).await {
                    tracing::debug!(topic = self.topic, id, "an entry is gone: {}", failure.reason());
                }
            }
        }
        Ok(claimed)
    }

    /// An entry that could not be claimed is somebody else's by now, or is not in the stream any more.
    async fn acknowledge_deleted(&self, id: &str) -> Result<(), Failure> {
        let mut range = ::redis::cmd("XRANGE");
        let found: Vec<Entry> =
            self.pool.command(Repeat::Harmless, range.arg(&self.topic).arg(id).arg(id)).await?;
        if found.is_empty() {
            let mut acknowledge = ::redis::cmd("XACK");
            acknowledge.arg(&self.topic).arg(&self.group).arg(id);
            let () = self.pool.command(Repeat::Harmless, &acknowledge).await?;
        }
        Ok(())
    }

    /// Forgets consumers that processes of ours left behind when they died: each had a name of its own.
    async fn forget_dead_consumers(&self) {
        let mut info = ::redis::cmd("XINFO");
        info.arg("CONSUMERS").arg(&self.topic).arg(&self.group);
        let consumers: Result<Vec<BTreeMap<String, Value>>, Failure> =
            self.pool.command(Repeat::Harmless, &info).await;
        // Tidiness is no reason to stop receiving.
        for consumer in consumers.unwrap_or_default() {
            let number = |field: &str| match consumer.get(field) {
                Some(Value::Int(number)) => u64::try_from(*number).ok(),
                _ => None,
            };
            let name = match consumer.get("name") {
                Some(Value::BulkString(name)) => String::from_utf8_lossy(name),
                _ => continue,
            };
            let ours = name.strip_prefix(&self.group).is_some_and(|rest| rest.starts_with(CONSUMER_MARK));
            let dead = number("idle").is_some_and(|idle| Duration::from_millis(idle) > FORGET);
            if ours && dead && number("pending") == Some(0) && name != self.consumer {
                let _ = self.delete_consumer(&name).await;
            }
        }
    }

    /// Deletes a consumer unless entries are pending for it: they would be lost.
    async fn delete_consumer(&self, name: &str) -> Result<(), Failure> {
        const DELETE: &str = "if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then \
                              return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end";
        let mut delete = ::redis::cmd("EVAL");
        delete.arg(DELETE).arg(1).arg(&self.topic).arg(&self.group).arg(name);
        let _deleted: Value = self.pool.command(Repeat::Harmless, &delete).await?;
        Ok(())
    }

    /// Starts the handlers of these entries.
    async fn take(
        self: &Arc<Self>,
        state: &mut State,
        entries: Vec<Entry>,
        permits: &Arc<Semaphore>,
        in_order: bool,
    ) {
        if entries.is_empty() {
            return;
        }
        if state.held.is_empty() {
            state.keep_at = Instant::now() + self.settings.keep_interval();
        }
        for (id, fields) in entries {
            if in_order {
                state.last.clone_from(&id);
            }
            if state.held.values().any(|held| *held == id) {
                continue;
            }
            let Ok(place) = Arc::clone(permits).acquire_owned().await else { return };
            let (subscription, entry) = (Arc::clone(self), id.clone());
            let call = state.calls.spawn(async move { subscription.handle(&entry, fields, place).await });
            state.held.insert(call.id(), id);
        }
    }

    async fn handle(&self, id: &str, fields: Option<Vec<Bytes>>, _place: OwnedSemaphorePermit) {
        let outcome = match fields {
            Some(fields) => self.handler.handle(self.message(id, fields)).await,
            // Deleted from the stream before anybody could handle it.
            None => Outcome::Done,
        };
        if outcome == Outcome::Again && !self.settings.ack_on_error {
            return;
        }
        let mut acknowledge = ::redis::cmd("XACK");
        acknowledge.arg(&self.topic).arg(&self.group).arg(id);
        let mut backoff = Backoff::new();
        let deadline = Instant::now() + self.settings.stop_deadline();
        loop {
            let acknowledged: Result<i64, Failure> = self.pool.command(Repeat::Harmless, &acknowledge).await;
            let Err(failure) = acknowledged else { return };
            let wait = backoff.wait();
            if matches!(failure, Failure::Closed) || Instant::now() + wait > deadline {
                tracing::warn!(
                    topic = self.topic,
                    "a message was handled, but not acknowledged, and comes again: {}",
                    failure.reason()
                );
                return;
            }
            sleep(wait).await;
        }
    }

    fn message(&self, id: &str, fields: Vec<Bytes>) -> Message {
        let mut message = Message { topic: self.topic.clone(), ..Message::default() };
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match &name[..] {
                b"data" => message.data = value,
                b"metadata" => match serde_json::from_slice::<Option<Metadata>>(&value) {
                    Ok(metadata) => message.metadata = metadata.unwrap_or_default(),
                    Err(_) => {
                        tracing::warn!(topic = self.topic, id, "the message's metadata are not readable")
                    }
                },
                _ => {}
            }
        }
        message
    }

    /// After a failure: mends the group, or waits for the server.
    async fn lost(&self, state: &mut State, failure: &Failure) {
        if failure.has_code("NOGROUP") {
            tracing::warn!(
                topic = self.topic,
                group = self.group,
                "the consumer group is gone; making it again"
            );
            state.last = "0-0".to_owned();
            state.check_lost = false;
            if let Err(error) = self.create_group().await {
                tracing::warn!(topic = self.topic, "{error}");
            }
        } else if !state.lost {
            tracing::warn!(topic = self.topic, "no messages arrive: {}", failure.reason());
        }
        state.lost = true;
        state.connection = None;
        sleep(state.backoff.wait()).await;
    }

    /// Waits for handlers, for a while; gives back what nobody handled.
    async fn finish(self: Arc<Self>, mut state: State) {
        // Ends the read that waits at the server.
        state.connection = None;
        let deadline = Instant::now() + self.settings.stop_deadline();
        let finished = async {
            loop {
                tokio::select! {
                    ended = state.calls.join_next_with_id() => match ended {
                        Some(ended) => state.ended(ended),
                        None => break,
                    },
                    () = sleep_until(state.keep_at) => {
                        state.keep_at = Instant::now() + self.settings.keep_interval();
                        self.keep_held(&state).await;
                    }
                }
            }
        };
        if timeout(deadline.saturating_duration_since(Instant::now()), finished).await.is_err() {
            tracing::warn!(topic = self.topic, "handlers did not finish in time; their messages come again");
            state.calls.shutdown().await;
        }
        if let Err(failure) = self.give_back(&state).await {
            tracing::debug!(topic = self.topic, "leaving the group: {}", failure.reason());
        }
    }

    /// Entries that the server delivered to us after the last one that arrived here are nobody's concern any
    /// more: they are made old enough for others to take them at once. A consumer without entries is deleted.
    async fn give_back(&self, state: &State) -> Result<(), Failure> {
        if self.settings.redelivers() {
            let Some(from) = following(&state.last) else { return Ok(()) };
            let mut pending = ::redis::cmd("XPENDING");
            pending.arg(&self.topic).arg(&self.group).arg(from).arg("+");
            pending.arg(self.settings.queue_depth).arg(&self.consumer);
            let found: Vec<(String, String, u64, i64)> =
                self.pool.command(Repeat::Harmless, &pending).await?;
            let ids: Vec<String> = found.into_iter().map(|(id, ..)| id).collect();
            if !ids.is_empty() {
                let idle = u64::try_from(self.settings.processing_timeout.as_millis()).unwrap_or(u64::MAX);
                let mut claim = ::redis::cmd("XCLAIM");
                claim.arg(&self.topic).arg(&self.group).arg(&self.consumer).arg(0).arg(ids);
                claim.arg("IDLE").arg(idle).arg("JUSTID");
                let _ids: Value = self.pool.command(Repeat::Never, &claim).await?;
            }
        }
        self.delete_consumer(&self.consumer).await
    }
}

// === impl State ===

impl State {
    /// A handler is over.
    fn ended(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!("a message's handler died, the message comes again: {error}");
                error.id()
            }
        };
        self.held.remove(&id);
    }
}

/// The smallest id after this one.
fn following(id: &str) -> Option<String> {
    let (milliseconds, sequence) = id.split_once('-')?;
    let (milliseconds, sequence) = (milliseconds.parse::<u64>().ok()?, sequence.parse::<u64>().ok()?);
    Some(match sequence.checked_add(1) {
        Some(sequence) => format!("{milliseconds}-{sequence}"),
        None => format!("{}-0", milliseconds.checked_add(1)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_successors() {
        for (id, expected) in [
            ("0-0", Some("0-1")),
            ("1700000000000-9", Some("1700000000000-10")),
            ("1-18446744073709551615", Some("2-0")),
            ("18446744073709551615-18446744073709551615", None),
            ("-", None),
            ("+", None),
            ("x-1", None),
        ] {
            assert_eq!(following(id).as_deref(), expected, "{id}");
        }
    }
}
