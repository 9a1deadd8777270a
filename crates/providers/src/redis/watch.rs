//! A subscription to configuration: keyspace notifications tell which keys to look at again.
//!
//! Notifications are not kept by the server: those of a lost connection are made up for by comparing all values
//! with what was known before. For the same reason nothing is reported that is as it was.

use super::configuration::read;
use super::error::Failure;
use super::pool::{Pool, Repeat};
use crate::backoff::Backoff;
use crate::task::Stop;
use ::redis::aio::{PubSubSink, PubSubStream};
use dhow_blocks::configuration::{ConfigurationItem, Items};
use dhow_blocks::events::{Handler, Outcome};
use futures::StreamExt;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A silent connection is tried this often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Keys that changed while the handler was busy; beyond that, everything is looked at.
const MOST_CHANGED: usize = 10_000;

/// How often a change is reported that the handler refuses.
const REPORTS: u32 = 10;

/// A handler has this long to finish when the subscription stops.
pub(super) const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Keyspace notifications (`K`) of generic commands, strings, expiry and eviction.
const NOTIFICATIONS: &str = "Kg$xe";

/// Some keys, or all, that are watched.
pub(super) struct Watch {
    pool: Arc<Pool>,
    /// Empty: all.
    keys: Vec<String>,
    handler: Arc<dyn Handler<Items>>,
    /// What the handler knows.
    known: Items,
    listening: Option<(PubSubSink, PubSubStream)>,
    /// The handler at work.
    call: Option<JoinHandle<Outcome>>,
    /// That no changes arrive was said.
    said: bool,
    /// `__keyspace@0__:`
    prefix: String,
}

/// What has to be looked at.
enum Changed {
    Keys(BTreeSet<String>),
    Everything,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(pool: Arc<Pool>, keys: &[String], handler: Arc<dyn Handler<Items>>) -> Watch {
        let prefix = format!("__keyspace@{}__:", pool.connector().options.login.db());
        Watch {
            pool,
            keys: keys.to_vec(),
            handler,
            known: Items::new(),
            listening: None,
            call: None,
            said: false,
            prefix,
        }
    }

    /// Listens, and notes what the values are at the start.
    pub(super) async fn begin(&mut self) -> Result<(), Failure> {
        self.listen().await?;
        self.known = read(&self.pool, &self.keys).await?;
        Ok(())
    }

    /// Reports changes until it is told to stop.
    pub(super) async fn run(mut self, mut stop: Stop) {
        let mut closing = self.pool.closing();
        let ended = async {
            tokio::select! {
                () = stop.stopped() => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        };
        tokio::pin!(ended);
        let mut backoff = Backoff::new();
        loop {
            let failure = tokio::select! {
                biased;
                () = &mut ended => break,
                failure = self.watch(&mut backoff) => failure,
            };
            if !std::mem::replace(&mut self.said, true) {
                tracing::warn!("no configuration changes arrive: {}", failure.reason());
            }
            self.listening = None;
            tokio::select! {
                () = &mut ended => break,
                () = sleep(backoff.wait()) => {}
            }
        }
        if let Some(mut call) = self.call.take()
            && timeout(STOP_DEADLINE, &mut call).await.is_err()
        {
            call.abort();
            let _ = call.await;
        }
    }

    /// Reports changes until the connection is lost.
    async fn watch(&mut self, backoff: &mut Backoff) -> Failure {
        if self.listening.is_none() {
            if let Err(failure) = self.listen().await {
                return failure;
            }
            if let Err(failure) = self.report(Changed::Everything).await {
                return failure;
            }
            backoff.reset();
            self.said = false;
        }
        loop {
            let changed = match self.next().await {
                Ok(changed) => changed,
                Err(failure) => return failure,
            };
            if let Err(failure) = self.report(changed).await {
                return failure;
            }
        }
    }

    async fn listen(&mut self) -> Result<(), Failure> {
        self.switch_on().await?;
        let (mut sink, stream) = self.pool.connector().listen().await.map_err(Failure::Unreachable)?.split();
        let subscribed = async {
            if self.keys.is_empty() {
                sink.psubscribe(format!("{}*", self.prefix)).await
            } else {
                let channels: Vec<String> =
                    self.keys.iter().map(|key| format!("{}{key}", self.prefix)).collect();
                sink.subscribe(channels).await
            }
        };
        match timeout(self.pool.connector().options.response_timeout, subscribed).await {
            Ok(subscribed) => subscribed?,
            Err(_) => return Err(Failure::Unreachable("Redis did not answer in time".to_owned())),
        }
        self.listening = Some((sink, stream));
        Ok(())
    }

    /// Adds to the notifications that the server sends. It forgets that when it restarts. Fails only where a later
    /// attempt may succeed: an operator may have switched them on where we must not.
    async fn switch_on(&self) -> Result<(), Failure> {
        const FIELD: &str = "notify-keyspace-events";
        let mut get = ::redis::cmd("CONFIG");
        let current: Result<Vec<String>, Failure> =
            self.pool.command(Repeat::Harmless, get.arg("GET").arg(FIELD)).await;
        let mut flags = match current {
            Ok(mut answer) => answer.pop().unwrap_or_default(),
            Err(failure) if failure.is_passing() => return Err(failure),
            Err(_) => String::new(),
        };
        // A stands for all kinds of events.
        let missing: String = NOTIFICATIONS
            .chars()
            .filter(|flag| !flags.contains(*flag) && (*flag == 'K' || !flags.contains('A')))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        flags.push_str(&missing);
        let mut set = ::redis::cmd("CONFIG");
        let set: Result<(), Failure> =
            self.pool.command(Repeat::Harmless, set.arg("SET").arg(FIELD).arg(&flags)).await;
        match set {
            Err(failure) if !failure.is_passing() => {
                tracing::warn!(
                    "cannot switch on notifications ({}); changes arrive only if the server's {FIELD} has \
                     {NOTIFICATIONS}",
                    failure.reason()
                );
                Ok(())
            }
            set => set,
        }
    }

    /// Waits for changes.
    async fn next(&mut self) -> Result<Changed, Failure> {
        let response_timeout = self.pool.connector().options.response_timeout;
        let lost = || Failure::Unreachable("the connection to Redis was lost".to_owned());
        let Some((sink, stream)) = &mut self.listening else { return Err(lost()) };
        loop {
            tokio::select! {
                message = stream.next() => {
                    let message = message.ok_or_else(lost)?;
                    let mut keys = BTreeSet::new();
                    keys.extend(key(&self.prefix, message.get_channel_name()));
                    return Ok(Changed::Keys(keys));
                }
                () = sleep(HEARTBEAT) => {
                    let pong: Result<Result<(), _>, _> = timeout(response_timeout, sink.ping()).await;
                    match pong {
                        Ok(pong) => pong?,
                        Err(_) => return Err(lost()),
                    }
                }
            }
        }
    }

    /// Looks at what changed and reports it, and what changes meanwhile, until nothing is left.
    async fn report(&mut self, changed: Changed) -> Result<(), Failure> {
        let mut changed = Some(changed);
        let mut backoff = Backoff::new();
        let mut refused = 0;
        while let Some(now) = changed.take() {
            let news = self.news(now).await?;
            if news.is_empty() {
                continue;
            }
            let (handler, event) = (Arc::clone(&self.handler), news.clone());
            let call = self.call.insert(tokio::spawn(async move { handler.handle(event).await }));
            let lost = || Failure::Unreachable("the connection to Redis was lost".to_owned());
            let Some((_, stream)) = &mut self.listening else { return Err(lost()) };
            let mut ended = false;
            let outcome = loop {
                tokio::select! {
                    outcome = &mut *call => break outcome,
                    message = stream.next(), if !ended => match message {
                        Some(message) => add(&mut changed, key(&self.prefix, message.get_channel_name())),
                        None => ended = true,
                    },
                }
            };
            self.call = None;
            if matches!(outcome, Ok(Outcome::Done)) || refused == REPORTS {
                refused = 0;
                self.known.extend(news);
                self.known.retain(|_, item| *item != ConfigurationItem::default());
            } else {
                refused += 1;
                let again = Instant::now() + backoff.wait();
                for key in news.into_keys() {
                    add(&mut changed, Some(key));
                }
                sleep_until(again).await;
            }
            if ended {
                return Err(lost());
            }
        }
        Ok(())
    }

    /// What is not as the handler knows it. A value that is gone is an empty item.
    async fn news(&self, changed: Changed) -> Result<Items, Failure> {
        let keys: Vec<String> = match changed {
            Changed::Keys(keys) if keys.is_empty() => return Ok(Items::new()),
            Changed::Keys(keys) => keys.into_iter().collect(),
            Changed::Everything => self.keys.clone(),
        };
        let mut news = read(&self.pool, &keys).await?;
        let gone = ConfigurationItem::default();
        // Of all keys, those that are known may be gone.
        let candidates: Vec<&String> =
            if keys.is_empty() { self.known.keys().collect() } else { keys.iter().collect() };
        for key in candidates {
            if !news.contains_key(key) {
                news.insert(key.clone(), gone.clone());
            }
        }
        news.retain(|key, item| self.known.get(key).unwrap_or(&gone) != item);
        Ok(news)
    }
}

/// The key that a notification is about.
fn key(prefix: &str, channel: &str) -> Option<String> {
    channel.strip_prefix(prefix).map(str::to_owned)
}

fn add(changed: &mut Option<Changed>, key: Option<String>) {
    let Some(key) = key else { return };
    match changed.get_or_insert_with(|| Changed::Keys(BTreeSet::new())) {
        Changed::Everything => {}
        Changed::Keys(keys) if keys.len() < MOST_CHANGED => {
            keys.insert(key);
        }
        _ => *changed = Some(Changed::Everything),
    }
}
