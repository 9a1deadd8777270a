//! `pubsub.sqlite`: a message broker in one SQLite file that survives the death of the process at any instant.
//!
//! **Publishing** answers `Ok` when the message is on disk; one flush serves all publishers that came meanwhile
//! ([`Database`]). A topic is a log: a message is written once, however many consumers there are.
//!
//! **Consumers** are known from their first subscription on. A new one begins with the oldest message that is
//! still there, and every consumer gets each message from then on, whether or not anybody receives in its name.
//! A message is deleted when all consumers of its topic are done with it. A topic that has no consumer yet keeps
//! its newest 10,000 messages for a day, so that it does not matter who starts first. A consumer in whose name
//! nobody has received for a week is forgotten, so that it does not hold messages for ever.
//!
//! **Delivery** is at least once, in order, with a window: up to `concurrency` messages are being handled at a
//! time, and one that is refused comes again after a wait of 100 ms, which doubles up to 30 s, while the others
//! pass. With `ordered` the window is one message, a refused one holds up those behind it, and one subscription
//! at a time serves the consumer.
//!
//! **Several processes** may share the file. A subscription takes messages for as long as its lease lasts,
//! which it renews. When its process dies, others notice by the lock on a file beside the database, which the
//! operating system lets go, and take what it left at once; on a file system without locks, when the lease is
//! over. What one process publishes, others see within [`LOOK_INTERVAL`].
//!
//! | file | subject |
//! |---|---|
//! | `component` | from metadata fields to [`QueueOptions`] |
//! | `table` | the tables, and how a message is published and given up |
//! | `claim` | who holds which message |
//! | `subscription` | from the tables to the handler and back |
//! | `neighbours` | other processes on the same file |

mod claim;
mod component;
mod neighbours;
mod subscription;
mod table;

pub(crate) use component::PROVIDER;
pub use component::embedded;

use crate::database::Database;
use crate::deliveries::STOP_DEADLINE;
use crate::shutdown::{Shutdown, closed};
use crate::state::sqlite::SqliteOptions;
use crate::task::Task;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Running, value};
use dhow_blocks::pubsub::{Feature, Message, Outgoing, PubSub, Subscribe};
use neighbours::Neighbours;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subscription::Subscription;
use table::{Limits, NewMessage};
use tokio::sync::{Semaphore, watch};

/// How often a process looks whether another one has published, or has died.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Messages that wait for the writer at most, in units of [`UNIT_BYTES`]; a message counts as one at least.
const ROOM_UNITS: u32 = 8192;
const UNIT_BYTES: usize = 8 * 1024;

/// How long a subscription may be silent at least before others take it for dead.
const SHORTEST_LEASE: Duration = Duration::from_secs(10);

/// How long a publisher waits for that room.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Where the queue is and how it behaves; [`QueueOptions::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// The file, and how it is opened. The table that they name means nothing here.
    pub file: SqliteOptions,
    /// Messages of one subscription that are being handled at once.
    pub concurrency: usize,
    /// Strict order; then `concurrency` is 1, whatever it says.
    pub ordered: bool,
    /// A handler that takes longer is given up, and its message comes again. Also the length of a lease, which
    /// is 10 s at least.
    pub processing_timeout: Duration,
    /// How long a topic without any consumer keeps a message.
    pub retention: Duration,
    /// A consumer in whose name nobody has received for this long is forgotten; `None`: never.
    pub consumer_retention: Option<Duration>,
    /// Messages that one topic keeps at most for its consumers; publishing more is refused.
    pub max_messages: u64,
}

/// A message broker in one SQLite file.
pub struct Queue {
    shared: Arc<Shared>,
    shutdown: Shutdown,
    /// What publishers hold in memory while they wait for the writer.
    room: Arc<Semaphore>,
    /// Looks after other processes; begins with the first subscription.
    watching: Mutex<Option<Task>>,
}

/// What the queue and its subscriptions have in common.
struct Shared {
    database: Database,
    options: QueueOptions,
    neighbours: Neighbours,
    /// By topic: changes when there may be something new for its subscriptions.
    news: Mutex<HashMap<String, watch::Sender<()>>>,
}

// === impl QueueOptions ===

impl QueueOptions {
    /// The defaults.
    pub fn new(file: SqliteOptions) -> QueueOptions {
        QueueOptions {
            file,
            concurrency: 10,
            ordered: false,
            processing_timeout: Duration::from_secs(60),
            retention: Duration::from_secs(24 * 3600),
            consumer_retention: Some(Duration::from_secs(7 * 24 * 3600)),
            max_messages: 1_000_000,
        }
    }

    fn window(&self) -> usize {
        if self.ordered { 1 } else { self.concurrency.max(1) }
    }

    /// Not too short, because it is renewed by way of the disk.
    fn lease(&self) -> Duration {
        self.processing_timeout.max(SHORTEST_LEASE)
    }

    fn limits(&self) -> Limits {
        Limits { retention: self.retention, max_messages: self.max_messages }
    }
}

// === impl Queue ===

impl Queue {
    /// Nothing is opened before the first use.
    pub fn new(options: QueueOptions) -> Queue {
        let database = Database::with_options(options.file.clone(), table::SCHEMA);
        let neighbours = Neighbours::new(&options.file.path);
        let shared = Shared { database, options, neighbours, news: Mutex::default() };
        Queue {
            shared: Arc::new(shared),
            shutdown: Shutdown::new(),
            room: Arc::new(Semaphore::new(ROOM_UNITS as usize)),
            watching: Mutex::new(None),
        }
    }

    /// Publishes all of them or none, but for those that are refused before; the answers are in their order.
    async fn publish_all(&self, messages: Vec<Outgoing>) -> Result<Vec<Result<(), BlockError>>, BlockError> {
        self.shutdown.check()?;
        let bytes: usize = messages.iter().map(|message| message.data.len()).sum();
        let units = u32::try_from(messages.len() + bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(ROOM_UNITS);
        let room = tokio::time::timeout(TIMEOUT, self.room.acquire_many(units)).await;
        let _room = room.map_err(|_| {
            BlockError::unavailable(format!(
                "too many messages are being published: no room for {TIMEOUT:?}; publish less at once, or use a \
                 faster disk"
            ))
        })?;
        let now = SystemTime::now();
        let topics: Vec<String> = messages.iter().map(|message| message.topic.clone()).collect();
        let messages: Vec<Result<NewMessage, BlockError>> =
            messages.into_iter().map(|message| NewMessage::new(message, now)).collect();
        let limits = self.shared.options.limits();
        let answers = self
            .shared
            .database
            .run(move |connection| {
                let publish = |message: Result<NewMessage, BlockError>| match message {
                    Ok(message) => table::publish(connection, &message, &limits, millis(now)),
                    Err(error) => Ok(Err(error)),
                };
                messages.into_iter().map(publish).collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        self.shared.tell(topics.iter().map(String::as_str));
        Ok(answers)
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("path", &self.shared.options.file.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl PubSub for Queue {
    fn features(&self) -> &'static [Feature] {
        &[Feature::MessageTtl, Feature::BulkPublish]
    }

    async fn publish(&self, message: Outgoing) -> Result<(), BlockError> {
        self.publish_all(vec![message]).await?.pop().unwrap_or_else(|| Err(closed()))
    }

    async fn publish_many(&self, messages: Vec<Outgoing>) -> Vec<Result<(), BlockError>> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        self.publish_all(messages).await.unwrap_or_else(|error| vec![Err(error); count])
    }

    async fn subscribe(
        &self,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Box<dyn Running>, BlockError> {
        let alive = self.shutdown.alive()?;
        let subscription = Subscription::begin(Arc::clone(&self.shared), subscribe, handler).await?;
        self.watching.lock().get_or_insert_with(|| {
            let (shared, alive) = (Arc::clone(&self.shared), alive.clone());
            Task::spawn(|stop| neighbours::watch(shared, stop, alive))
        });
        Ok(Box::new(Task::spawn(|stop| subscription.run(stop, alive))))
    }

    /// Goes through the writer, so it tells whether a message could be published.
    async fn ping(&self) -> Result<(), BlockError> {
        self.shutdown.check()?;
        self.shared.database.run(|connection| connection.query_row("SELECT 1", [], |_| Ok(()))).await
    }

    async fn close(&self) {
        // Subscriptions wait for their handlers, and then for the database.
        self.shutdown.shut_down(STOP_DEADLINE * 2).await;
        self.shared.database.close().await;
        self.shared.neighbours.leave();
    }
}

// === impl Shared ===

impl Shared {
    /// Tells the subscriptions of these topics that there may be something for them.
    fn tell<'a>(&self, topics: impl IntoIterator<Item = &'a str>) {
        let news = self.news.lock();
        for topic in topics {
            if let Some(news) = news.get(topic) {
                news.send_replace(());
            }
        }
    }

    fn tell_all(&self) {
        self.news.lock().values().for_each(|news| news.send_replace(()));
    }

    /// Hears of news of that topic. Topics that nobody hears of any more are forgotten.
    fn hear(&self, topic: &str) -> watch::Receiver<()> {
        let mut news = self.news.lock();
        news.retain(|name, news| name == topic || news.receiver_count() > 0);
        news.entry(topic.to_owned()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    fn is_heard(&self) -> bool {
        self.news.lock().values().any(|news| news.receiver_count() > 0)
    }
}

/// Milliseconds of Unix time.
fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn length(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `ttlInSeconds` of a message.
fn time_to_live(message: &Outgoing) -> Result<Option<Duration>, BlockError> {
    let Some(text) = value(&message.metadata, "ttlInSeconds") else { return Ok(None) };
    match text.trim().parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(BlockError::invalid("ttlInSeconds must be a whole number of seconds above 0")),
    }
}
