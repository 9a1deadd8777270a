//! A worker: takes as many steps from the queue as it has room for, until it is told to stop.
//!
//! Nothing waits here unbegun: the server is asked for as many steps as can begin at once, so a worker that stops leaves
//! nothing that others would have to wait for.

use super::attempt::Desk;
use super::connection::{Connection, WorkersError};
use super::exchange::Exchange;
use crate::metrics::StepMetrics;
use crate::runner::Watched;
use crate::step::Executor;
use async_nats::connection::State;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Batch;
use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the server keeps a request for steps; then it is asked again.
const REQUEST_EXPIRES: Duration = Duration::from_secs(20);

/// The server answers a question within this time, or is asked again.
const ANSWER: Duration = Duration::from_secs(5);

/// Until a server that could not be asked is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Between two looks at what is not used any more.
const SWEEP: Duration = Duration::from_secs(600);

/// A worker.
pub struct Worker {
    desk: Arc<Desk>,
    concurrency: usize,
    grace: Duration,
}

/// What a worker is made of.
pub struct WorkerOptions {
    /// Its name, for people.
    pub name: String,
    /// Steps that run at once.
    pub concurrency: usize,
    /// How long it may be silent until its steps are begun elsewhere; the last worker that came decides for all.
    pub lease: Duration,
    /// How long steps under way have when it stops; then others begin them anew.
    pub grace: Duration,
    /// A folder of its own.
    pub folder: PathBuf,
    /// The folder of the executor's repository, where artifacts go through the stream; none: the repository is one that
    /// all reach.
    pub exchange: Option<PathBuf>,
}

/// Attempts under way.
struct Attempts {
    desk: Arc<Desk>,
    tasks: JoinSet<()>,
    /// How to tell them that nobody wants their step any more, by the name of the step in the queue.
    wanted: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    /// Tells them that there is no more time.
    stop: watch::Sender<bool>,
}

/// Where steps come from at this moment.
enum Source {
    /// The server is to be asked.
    Idle,
    /// The server is to be asked at this instant; the consumer is to be looked for before.
    Later(Instant),
    Asked(Box<Batch>),
}

/// What comes from a source.
enum Next {
    Step(Box<Message>),
    /// The server was asked, and has answered.
    Ended,
    Failed(async_nats::Error),
    /// It is time to look for the consumer.
    Due,
}

// === impl Worker ===

impl Worker {
    /// A worker that has not begun; its folders are made if they are not there.
    pub fn new(
        connection: Arc<Connection>,
        executor: Arc<Executor>,
        options: WorkerOptions,
    ) -> std::io::Result<Worker> {
        std::fs::create_dir_all(&options.folder)?;
        let exchange = options.exchange.as_deref().map(Exchange::new).transpose()?;
        let desk = Desk {
            connection,
            executor,
            name: options.name,
            folder: std::path::absolute(options.folder)?,
            exchange,
            lease: options.lease.max(Duration::from_millis(100)),
            steps: StepMetrics::new().map_err(std::io::Error::other)?,
        };
        let concurrency = options.concurrency.clamp(1, 10_000);
        Ok(Worker { desk: Arc::new(desk), concurrency, grace: options.grace })
    }

    /// What an operator sees of it.
    pub fn watched(&self) -> Arc<dyn Watched> {
        Arc::<Desk>::clone(&self.desk)
    }

    /// Takes steps until `stopped` is ready; those under way then have a while to end. `ready` is called when the first
    /// step can come. An error if the queue cannot be used at the beginning; later it is waited for.
    pub async fn work(
        self,
        stopped: impl Future<Output = ()>,
        ready: impl FnOnce(),
    ) -> Result<(), WorkersError> {
        let failed = |reason: String| WorkersError::Stream { stream: "DHOW_STEPS", reason };
        let connection = Arc::clone(&self.desk.connection);
        let mut consumer = connection.consumer(self.desk.lease).await.map_err(failed)?;
        let cancelled = connection.client.subscribe("dhow.cancel.*").await;
        let mut cancelled = cancelled.map_err(|error| failed(error.to_string()))?;
        let asked = connection.client.subscribe("dhow.held.*").await;
        let mut asked = asked.map_err(|error| failed(error.to_string()))?;
        let mut connects = connection.connects.clone();
        connects.mark_unchanged();
        let mut attempts = Attempts::new(Arc::clone(&self.desk));
        let mut sweep = tokio::time::interval(SWEEP);
        let mut source = Source::Idle;
        tokio::pin!(stopped);
        ready();
        loop {
            let room = self.concurrency.saturating_sub(attempts.tasks.len());
            if matches!(source, Source::Idle) && room > 0 {
                source = self.ask(&consumer, room).await;
            }
            tokio::select! {
                () = &mut stopped => break,
                Some(message) = cancelled.next() => attempts.cancel(&message.subject),
                Some(question) = asked.next() => attempts.answer(question).await,
                Some(_) = attempts.tasks.join_next() => {}
                _ = sweep.tick() => {
                    let desk = Arc::clone(&self.desk);
                    tokio::task::spawn_blocking(move || desk.sweep());
                }
                // What was asked of the former server is forgotten.
                Ok(()) = connects.changed() => source = Source::Idle,
                next = next(&mut source) => source = match next {
                    Next::Step(message) => {
                        attempts.begin(*message);
                        continue;
                    }
                    Next::Ended => Source::Idle,
                    Next::Failed(error) => {
                        tracing::debug!("the queue is interrupted: {error}");
                        Source::Later(Instant::now() + PAUSE)
                    }
                    Next::Due => match tokio::time::timeout(ANSWER, connection.consumer(self.desk.lease)).await {
                        Ok(Ok(found)) => {
                            consumer = found;
                            Source::Idle
                        }
                        answer => {
                            if let Ok(Err(error)) = answer {
                                tracing::warn!("waiting for the queue: {error}");
                            }
                            Source::Later(Instant::now() + PAUSE)
                        }
                    },
                },
            }
        }
        give_back(source).await;
        let under_way = attempts.tasks.len();
        if under_way > 0 {
            tracing::info!("stopping; {under_way} steps are under way");
        }
        let drained = async {
            loop {
                tokio::select! {
                    ended = attempts.tasks.join_next() => if ended.is_none() { break },
                    Some(message) = cancelled.next() => attempts.cancel(&message.subject),
                    Some(question) = asked.next() => attempts.answer(question).await,
                }
            }
        };
        if tokio::time::timeout(self.grace, drained).await.is_err() {
            // Others begin them at once.
            attempts.stop.send_replace(true);
            let given_back = async { while attempts.tasks.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(ANSWER, given_back).await;
        }
        connection.close().await;
        Ok(())
    }

    /// Asks for steps; without a connection, a new one will be the time to ask.
    async fn ask(&self, consumer: &PullConsumer, room: usize) -> Source {
        if self.desk.connection.client.connection_state() != State::Connected {
            return Source::Later(Instant::now() + PAUSE);
        }
        let request = consumer.batch().max_messages(room).expires(REQUEST_EXPIRES).messages();
        match tokio::time::timeout(ANSWER, request).await {
            Ok(Ok(batch)) => Source::Asked(Box::new(batch)),
            Ok(Err(_)) | Err(_) => Source::Later(Instant::now() + PAUSE),
        }
    }
}

async fn next(source: &mut Source) -> Next {
    match source {
        Source::Idle => std::future::pending().await,
        Source::Later(instant) => {
            tokio::time::sleep_until(*instant).await;
            Next::Due
        }
        Source::Asked(batch) => match batch.next().await {
            Some(Ok(message)) => Next::Step(Box::new(message)),
            Some(Err(error)) => Next::Failed(error),
            None => Next::Ended,
        },
    }
}

/// The step that a message is about.
fn id_of(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// Steps that came while the worker was stopped go back at once.
async fn give_back(source: Source) {
    if let Source::Asked(mut batch) = source {
        while let Some(Some(Ok(message))) = batch.next().now_or_never() {
            let _ = message.ack_with(AckKind::Nak(None)).await;
        }
    }
}

// === impl Attempts ===

impl Attempts {
    fn new(desk: Arc<Desk>) -> Attempts {
        Attempts { desk, tasks: JoinSet::new(), wanted: Arc::default(), stop: watch::Sender::new(false) }
    }

    fn begin(&mut self, message: Message) {
        let id = id_of(&message.subject).to_owned();
        let cancelled = Arc::new(Notify::new());
        self.wanted.lock().insert(id.clone(), Arc::clone(&cancelled));
        let (desk, wanted, stop) = (Arc::clone(&self.desk), Arc::clone(&self.wanted), self.stop.subscribe());
        self.tasks.spawn(async move {
            desk.attempt(message, Arc::clone(&cancelled), stop).await;
            let mut wanted = wanted.lock();
            // The same step may have come again meanwhile.
            if wanted.get(&id).is_some_and(|known| Arc::ptr_eq(known, &cancelled)) {
                wanted.remove(&id);
            }
        });
    }

    fn cancel(&self, subject: &str) {
        if let Some(cancelled) = self.wanted.lock().get(id_of(subject)) {
            cancelled.notify_one();
        }
    }

    /// Says that a step is under way here, if it is.
    async fn answer(&self, question: async_nats::Message) {
        let is_here = self.wanted.lock().contains_key(id_of(&question.subject));
        if let Some(reply) = question.reply.filter(|_| is_here) {
            // Who does not hear it asks again.
            let _ = self.desk.connection.client.publish(reply, Bytes::new()).await;
        }
    }
}
