//! The NATS server: the connection, the streams in it, and patience while it is away.

use super::idle::Standing;
use super::message::held_subject;
use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind};
use bytes::Bytes;
use dhow_providers::nats::login::{Login, LoginError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A request to the server is answered within this time, or has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a server is waited for that was there before: it is restarted, or moved.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Between the first two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Between two tries, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long an end waits to be fetched.
const RESULTS_KEPT: Duration = Duration::from_secs(3 * 24 * 3600);

/// How long modules and artifacts are kept.
pub(super) const CONTENTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The consumer that all workers share; autoscalers look at it.
const CONSUMER: &str = "workers";

/// Steps that all workers together may have under way.
const MAX_UNDER_WAY: i64 = 100_000;

/// Steps that may wait; more are refused until some are done.
const MAX_STEPS: i64 = 1_000_000;

/// Until somebody who waits for a server is told again that it is not there.
const REMINDER: Duration = Duration::from_secs(60);

/// Where the server is, and who asks.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// `nats://HOST:PORT` or `tls://HOST:PORT`; several with commas. It may hold a user's name and password, or a token.
    pub url: Address,
    /// Who asks. A certificate of either side makes TLS a condition.
    pub login: Login,
}

/// An address, which may hold a password: its `Debug` shows nothing.
#[derive(Clone, Default)]
pub struct Address(pub String);

/// The server, and what it keeps.
pub struct Connection {
    pub(super) client: Client,
    pub(super) context: Context,
    /// Steps to be run.
    pub(super) steps: Stream,
    /// How steps ended.
    pub(super) results: Stream,
    /// Modules and artifacts.
    pub(super) contents: Stream,
    /// Counts the connections that were made; what waits at the old server has to be asked for again.
    pub(super) connects: watch::Receiver<u64>,
    /// For which connection it was looked whether the server has forgotten anything; held by whoever looks.
    reminded: tokio::sync::Mutex<Option<u64>>,
}

/// The server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// The address is none.
    #[error("the address of the NATS server is wrong; expected such as nats://localhost:4222")]
    Address,
    /// Who asks cannot be said so.
    #[error("the login at NATS: {0}")]
    Login(#[from] LoginError),
    /// Nobody answers.
    #[error("NATS: {0}; is the server there?")]
    Away(String),
    /// Somebody answers, and not to us.
    #[error("NATS: {0}; may this user use the server, and is TLS as it expects?")]
    Refused(String),
    /// There is no JetStream, or not for us.
    #[error("the stream {stream}: {reason}; is JetStream enabled (nats-server --jetstream)?")]
    Stream {
        /// Which.
        stream: &'static str,
        /// What the server says.
        reason: String,
    },
}

/// How a publication went that was the first of its subject, or was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    Yes,
    /// There was one before; it stays.
    No,
}

/// Tries that follow each other, until time is up.
pub(super) struct Tries {
    until: Instant,
    pause: Duration,
}

// === impl Connection ===

impl Connection {
    /// Connects as [`Connection::open`] does, to a server that may be away for so long. What no waiting mends is an error
    /// at once.
    pub async fn wait(queue: &Queue, name: &str, patience: Duration) -> Result<Connection, WorkersError> {
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match Connection::open(queue, name).await {
                Err(error) if error.is_passing() && began.elapsed() < patience => {
                    if told.is_none_or(|when| when.elapsed() >= REMINDER) {
                        tracing::warn!("{error} Waiting for it.");
                        told = Some(Instant::now());
                    }
                }
                opened => return opened,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Connects, and makes the streams that are not there; those that are keep their configuration. `name` is what the
    /// server's operator sees. Later losses of the connection mend themselves.
    pub async fn open(queue: &Queue, name: &str) -> Result<Connection, WorkersError> {
        let (connected, connects) = watch::channel(0);
        let mut options = ConnectOptions::new()
            .name(name)
            .connection_timeout(REQUEST_TIMEOUT)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(|attempts| {
                let doubled = 50u64.saturating_mul(1 << attempts.min(10));
                Duration::from_millis(doubled).min(LONGEST_PAUSE)
            })
            .event_callback(move |event| {
                match event {
                    Event::Connected => connected.send_modify(|count| *count += 1),
                    Event::Disconnected => tracing::warn!("the connection to NATS is lost; reconnecting"),
                    event => tracing::debug!("NATS: {event}"),
                }
                std::future::ready(())
            });
        let is_certified = queue.login.tls.authorities.is_some() || queue.login.tls.identity.is_some();
        let login = queue.login.clone().or_as_in(&queue.url.0);
        options = login.apply(options)?.require_tls(is_certified);
        let client = options.connect(&queue.url.0).await.map_err(|error| match error.kind() {
            // The parser's own text holds the address, and with it perhaps a password.
            ConnectErrorKind::ServerParse => WorkersError::Address,
            ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::TimedOut
                if !is_of_tls(&error) =>
            {
                WorkersError::Away(error.to_string())
            }
            _ => WorkersError::Refused(error.to_string()),
        })?;
        let context =
            ContextBuilder::new().timeout(REQUEST_TIMEOUT).ack_timeout(REQUEST_TIMEOUT).build(client.clone());
        let steps = Config {
            subjects: vec!["dhow.steps.*".to_owned()],
            retention: RetentionPolicy::WorkQueue,
            max_messages: MAX_STEPS,
            discard: DiscardPolicy::New,
            ..config("DHOW_STEPS", "steps of workflows to be run by dhow workflow worker")
        };
        let results = Config {
            subjects: vec!["dhow.results.*".to_owned()],
            max_messages_per_subject: 1,
            max_age: RESULTS_KEPT,
            ..config("DHOW_RESULTS", "how steps of workflows ended")
        };
        let contents = Config {
            subjects: vec!["dhow.artifacts.>".to_owned()],
            max_messages_per_subject: 1,
            max_age: CONTENTS_KEPT,
            discard: DiscardPolicy::New,
            allow_direct: true,
            ..config("DHOW_ARTIFACTS", "modules and artifacts of workflows, in chunks")
        };
        let steps = stream(&context, "DHOW_STEPS", steps).await?;
        let results = stream(&context, "DHOW_RESULTS", results).await?;
        let contents = stream(&context, "DHOW_ARTIFACTS", contents).await?;
        // An autoscaler looks at it before there is a worker.
        let made = steps.get_or_create_consumer(CONSUMER, consumer(super::LEASE)).await;
        made.map_err(|error| WorkersError::Stream { stream: "DHOW_STEPS", reason: error.to_string() })?;
        Ok(Connection { client, context, steps, results, contents, connects, reminded: Default::default() })
    }

    /// What workers take steps from; who is silent for `lease` has lost them.
    pub(super) async fn consumer(&self, lease: Duration) -> Result<PullConsumer, String> {
        let made = self.steps.create_consumer(consumer(lease)).await;
        made.map_err(|error| error.to_string())
    }

    /// Bytes that one message may have.
    pub(super) fn max_payload(&self) -> usize {
        // Headers are part of it.
        self.client.server_info().max_payload.clamp(8 << 10, 64 << 20) - (4 << 10)
    }

    /// Publishes the first message of a subject, or none.
    pub(super) async fn publish_first(&self, subject: String, payload: Bytes) -> Result<First, PublishError> {
        let message = PublishMessage::build().payload(payload).expected_last_subject_sequence(0);
        match self.context.send_publish(subject, message).await?.await {
            Ok(_) => Ok(First::Yes),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(First::No),
            Err(error) => Err(error),
        }
    }

    /// Publishes, and waits until it is kept.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), PublishError> {
        let message = PublishMessage::build().payload(payload);
        self.context.send_publish(subject, message).await?.await.map(|_| ())
    }

    /// The last message of a subject, as the stream's leader has it.
    pub(super) async fn last(&self, stream: &Stream, subject: &str) -> Result<Option<StreamMessage>, String> {
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Lets workers have what a server that was killed forgot to give them. It may have kept less of the stream than of
    /// what it delivered: then it gives nothing to anybody until the stream is as long as it was, and never what came
    /// until then. A new consumer begins at the front. `is_queued`: a step is known to be in the stream.
    pub(super) async fn remind(&self, is_queued: bool) -> Result<(), String> {
        // Of those who find out at the same time, one does it.
        let _turn = self.reminded.lock().await;
        self.look(is_queued).await
    }

    /// The same once for each connection, before anything is put into the queue that a forgetful server would pass over.
    pub(super) async fn remind_once(&self) -> Result<(), String> {
        let mut reminded = self.reminded.lock().await;
        let connection = *self.connects.borrow();
        if *reminded != Some(connection) {
            self.look(false).await?;
            *reminded = Some(connection);
        }
        Ok(())
    }

    async fn look(&self, is_queued: bool) -> Result<(), String> {
        let workers = self.steps.consumer_info(CONSUMER).await.map_err(|error| error.to_string())?;
        // Asked for later, so that it can only have become longer.
        let stream = self.steps.get_info().await.map_err(|error| error.to_string())?;
        let is_ahead = workers.delivered.stream_sequence > stream.state.last_sequence;
        let is_idle = workers.num_pending == 0 && workers.num_ack_pending == 0;
        if !(is_ahead || is_queued && is_idle) {
            return Ok(());
        }
        self.make_anew(workers.config.ack_wait).await
    }

    /// Lets workers that ask for steps have those that wait: a server that was killed may know of both, and do nothing.
    pub(super) async fn renew(&self) -> Result<(), String> {
        let _turn = self.reminded.lock().await;
        let workers = self.steps.consumer_info(CONSUMER).await.map_err(|error| error.to_string())?;
        self.make_anew(workers.config.ack_wait).await
    }

    /// Begins at the front of the queue again: what is under way is delivered to somebody else, too, and ends once.
    async fn make_anew(&self, lease: Duration) -> Result<(), String> {
        tracing::warn!("NATS has forgotten steps that wait in DHOW_STEPS; its consumer is made anew");
        self.steps.delete_consumer(CONSUMER).await.map_err(|error| error.to_string())?;
        self.consumer(lease).await.map(|_| ())
    }

    /// Whether the step with this place in the queue was delivered, and no worker has it. A server that was killed may take
    /// such a step for one that is under way, and never deliver it again. Who cannot be asked may have it.
    pub(super) async fn is_missed(&self, id: &str, sequence: u64) -> bool {
        match self.steps.consumer_info(CONSUMER).await {
            Ok(workers) if sequence <= workers.delivered.stream_sequence => {}
            _ => return false,
        }
        let asked = self.client.request(held_subject(id), Bytes::new()).await;
        let unanswered = [RequestErrorKind::TimedOut, RequestErrorKind::NoResponders];
        asked.is_err_and(|error| unanswered.contains(&error.kind()))
    }

    /// Takes a step out of the queue. Whoever has it after all may go on.
    pub(super) async fn take_back(&self, sequence: u64) {
        if let Err(error) = self.steps.delete_message(sequence).await {
            tracing::debug!("NATS: {error}");
        }
    }

    /// How many steps wait, and whether they are taken.
    pub(super) async fn standing(&self) -> Result<Standing, String> {
        let workers = self.steps.consumer_info(CONSUMER).await.map_err(|error| error.to_string())?;
        Ok(Standing {
            waiting: workers.num_pending,
            under_way: workers.num_ack_pending,
            asked: workers.num_waiting,
            taken: workers.delivered.consumer_sequence,
        })
    }

    /// Whether the server is there.
    pub fn readiness(&self) -> Result<(), String> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => Err("the connection to NATS is lost".to_owned()),
        }
    }

    /// Sends what is left.
    pub async fn close(&self) {
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await;
    }
}

fn config(name: &str, description: &str) -> Config {
    Config {
        name: name.to_owned(),
        storage: StorageType::File,
        num_replicas: 1,
        description: Some(description.to_owned()),
        ..Config::default()
    }
}

/// Whether somebody answers, and one side does not take the other's certificate, say.
fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = |error: &std::io::Error| error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
    error.is::<rustls::Error>()
        || error.downcast_ref::<std::io::Error>().is_some_and(inner)
        || error.source().is_some_and(is_of_tls)
}

fn consumer(lease: Duration) -> ConsumerConfig {
    ConsumerConfig {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease,
        max_ack_pending: MAX_UNDER_WAY,
        ..ConsumerConfig::default()
    }
}

async fn stream(context: &Context, name: &'static str, config: Config) -> Result<Stream, WorkersError> {
    let made = context.get_or_create_stream(config).await;
    made.map_err(|error| WorkersError::Stream { stream: name, reason: error.to_string() })
}

// === impl Address ===

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

// === impl WorkersError ===

impl WorkersError {
    /// Whether it may be mended by itself. A server that begins has no JetStream for a moment.
    pub fn is_passing(&self) -> bool {
        matches!(self, WorkersError::Away(_) | WorkersError::Stream { .. })
    }
}

// === impl Tries ===

impl Tries {
    pub(super) fn new() -> Tries {
        Tries { until: Instant::now() + PATIENCE, pause: FIRST_PAUSE }
    }

    /// Waits a moment before the next try; the error if there is to be none.
    pub(super) async fn again(&mut self, error: impl std::fmt::Display) -> Result<(), String> {
        if Instant::now() >= self.until {
            return Err(format!("NATS: {error}, for {} minutes", PATIENCE.as_secs() / 60));
        }
        tracing::debug!("NATS: {error}; trying again");
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
