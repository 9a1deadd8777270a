//! From the tables to the handler and back.
//!
//! A subscription speaks to the database in reports, one at a time: each says what became of messages since the
//! last one, and takes new ones. While a report is on its way to the disk, the handler goes on with what was
//! taken before, and what becomes of it gathers for the next report. So one flush serves many messages under
//! load, and a single message does not wait when there is none. How many messages are taken ahead follows
//! how many were handled since the report before: none, while the handler is slow.

use super::claim::{Answer, Report, Seat, Taken, sit};
use super::{Shared, length, millis};
use crate::backoff::Backoff;
use crate::deliveries::{Deliveries, PARALLEL, STOP_DEADLINE};
use crate::shutdown::Alive;
use crate::task::Stop;
use async_trait::async_trait;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome};
use dhow_blocks::pubsub::{Message, Subscribe};
use futures::future::BoxFuture;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// Messages that are taken ahead at most, and their bytes.
const AHEAD: usize = PARALLEL * 8;
const AHEAD_BYTES: usize = 8 * 1024 * 1024;

/// One subscription, from its seat in the tables to its end.
pub(super) struct Subscription {
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    news: watch::Receiver<()>,
    calls: Deliveries<Message, Taken>,
    /// Taken and not yet handed over, in order.
    ahead: VecDeque<Taken>,
    /// Strict order only: when the first of `ahead`, which was refused, may be handed over again.
    wait_until: Option<Instant>,
    /// What became of messages and was not reported yet.
    done: Vec<i64>,
    again: Vec<(i64, i64)>,
    /// The report that is on its way.
    report: Option<OnItsWay>,
    /// There may be something to take.
    hungry: bool,
    /// When a refused message of the consumer is due again.
    due: Option<Instant>,
    /// When the lease has to be renewed.
    renew: Instant,
    /// After a failure: when to try again, and the waits between.
    retry: Option<Instant>,
    backoff: Backoff,
    /// The answer to a report was lost: what it took is not known here.
    unsure: bool,
    /// How many messages were handled since the last report began.
    pace: usize,
}

struct OnItsWay {
    answer: BoxFuture<'static, Result<Answer, BlockError>>,
    /// For the next report, should this one fail.
    done: Vec<i64>,
    again: Vec<(i64, i64)>,
}

/// Gives a handler up that takes too long.
struct Timed {
    handler: Arc<dyn Handler<Message>>,
    timeout: Duration,
}

// === impl Subscription ===

impl Subscription {
    /// Makes the consumer known, and takes a seat.
    pub(super) async fn begin(
        shared: Arc<Shared>,
        subscribe: Subscribe,
        handler: Arc<dyn Handler<Message>>,
    ) -> Result<Subscription, BlockError> {
        let now = millis(SystemTime::now());
        let Subscribe { topic, consumer, .. } = subscribe;
        // Before the seat is taken, so that nothing is published unheard.
        let news = shared.hear(&topic);
        let (timeout, window) = (shared.options.processing_timeout, shared.options.window());
        let lease = shared.options.lease();
        let neighbours = Arc::clone(&shared);
        // The folder exists when the database is open.
        let seat = shared
            .database
            .run(move |connection| {
                let process = match neighbours.neighbours.join() {
                    Ok(process) => process,
                    Err(error) => return Ok(Err(error)),
                };
                let until = now.saturating_add(length(lease));
                sit(connection, &topic, &consumer, &process, now, until).map(Ok)
            })
            .await??;
        Ok(Subscription {
            seat: Arc::new(seat),
            news,
            calls: Deliveries::new(Arc::new(Timed { handler, timeout }), window),
            ahead: VecDeque::new(),
            wait_until: None,
            done: Vec::new(),
            again: Vec::new(),
            report: None,
            hungry: true,
            due: None,
            renew: Instant::now() + lease / 3,
            retry: None,
            backoff: Backoff::new(),
            unsure: false,
            pace: 0,
            shared,
        })
    }

    /// Receives until it is told to stop.
    pub(super) async fn run(mut self, mut stop: Stop, mut alive: Alive) {
        loop {
            self.hand_over();
            self.send_report();
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = alive.ended_or_stopped(&mut stop) => break,
                answer = answered(&mut self.report), if self.report.is_some() => self.take_answer(answer),
                Some((taken, outcome)) = self.calls.next(), if !self.calls.is_empty() => {
                    self.settle(taken, outcome);
                }
                // An error is not possible: `shared` has the sender.
                _ = self.news.changed(), if !self.hungry => self.hungry = true,
                () = tokio::time::sleep_until(wake) => self.hungry |= self.due.is_some_and(|due| due <= wake),
            }
        }
        self.finish().await;
    }

    fn ordered(&self) -> bool {
        self.shared.options.ordered
    }

    fn hand_over(&mut self) {
        if self.wait_until.is_some_and(|time| time > Instant::now()) {
            return;
        }
        self.wait_until = None;
        while self.calls.room() > 0
            && let Some(taken) = self.ahead.pop_front()
        {
            self.calls.hand_over(taken.message.clone(), taken);
        }
    }

    fn settle(&mut self, taken: Taken, outcome: Outcome) {
        self.pace += 1;
        match outcome {
            Outcome::Done => self.done.push(taken.id),
            Outcome::Again => {
                let wait = Backoff::after(taken.attempts + 1);
                if self.ordered() {
                    self.wait_until = Some(Instant::now() + wait);
                    self.ahead.push_front(Taken { attempts: taken.attempts + 1, ..taken });
                } else {
                    let due = millis(SystemTime::now()).saturating_add(length(wait));
                    self.again.push((taken.id, due));
                }
            }
        }
    }

    /// How many messages may be taken now.
    fn room(&self) -> usize {
        let held = self.ahead.len() + self.calls.held().count();
        let target =
            (self.pace * 2).clamp(self.shared.options.window(), AHEAD.max(self.shared.options.window()));
        target.saturating_sub(held)
    }

    /// Begins a report, if there is a reason for one and none is on its way.
    fn send_report(&mut self) {
        let now = Instant::now();
        if self.report.is_some() || self.retry.is_some_and(|retry| retry > now) {
            return;
        }
        let room = if self.hungry { self.room() } else { 0 };
        let settled = !self.done.is_empty() || !self.again.is_empty();
        if room == 0 && !settled && !self.unsure && now < self.renew {
            return;
        }
        // News that come from now on may be too late for this report.
        if room > 0 {
            self.news.mark_unchanged();
            self.hungry = false;
        }
        self.pace = 0;
        let (done, again) = (std::mem::take(&mut self.done), std::mem::take(&mut self.again));
        let report = Report {
            done: done.clone(),
            again: again.clone(),
            room,
            bytes: AHEAD_BYTES,
            ordered: self.ordered(),
            known: self.unsure.then(|| self.held()),
        };
        let (shared, seat) = (Arc::clone(&self.shared), Arc::clone(&self.seat));
        let lease = self.shared.options.lease();
        let answer = async move {
            let now = millis(SystemTime::now());
            let until = now.saturating_add(length(lease));
            shared.database.run(move |connection| seat.report(connection, &report, now, until)).await
        };
        self.renew = now + lease / 3;
        self.report = Some(OnItsWay { answer: Box::pin(answer), done, again });
    }

    /// What this subscription knows that it holds, beside what it is reporting.
    fn held(&self) -> HashSet<i64> {
        let ahead = self.ahead.iter().map(|taken| taken.id);
        let unreported = self.done.iter().copied().chain(self.again.iter().map(|(id, _)| *id));
        ahead.chain(self.calls.held().map(|taken| taken.id)).chain(unreported).collect()
    }

    fn take_answer(&mut self, answer: Result<Answer, BlockError>) {
        let report = self.report.take();
        match answer {
            Ok(answer) => {
                self.backoff.reset();
                self.retry = None;
                self.unsure = false;
                if answer.lost {
                    tracing::warn!(
                        topic = self.seat.topic_name,
                        "this process did not run for longer than its lease; its messages go to others"
                    );
                    self.ahead.clear();
                    self.wait_until = None;
                }
                self.due = answer.due.map(instant);
                // Whoever got something may get more.
                self.hungry |= answer.lost || !answer.taken.is_empty();
                self.ahead.extend(answer.taken);
            }
            Err(error) => {
                tracing::warn!(topic = self.seat.topic_name, %error, "a subscription waits for the queue's file");
                if let Some(OnItsWay { mut done, mut again, .. }) = report {
                    self.done.append(&mut done);
                    self.again.append(&mut again);
                }
                self.retry = Some(Instant::now() + self.backoff.wait());
                self.unsure = true;
                self.hungry = true;
            }
        }
    }

    /// When to look again, should nothing happen before.
    fn next_wake(&self) -> Instant {
        let due = self.due.filter(|_| !self.hungry).unwrap_or(self.renew);
        let report = match (&self.report, self.retry) {
            // Its answer comes first. It has a deadline of its own.
            (Some(_), _) => Instant::now() + STOP_DEADLINE,
            (None, Some(retry)) => retry,
            (None, None) => due.min(self.renew),
        };
        self.wait_until.map_or(report, |time| time.min(report))
    }

    /// Waits for what is being handled, notes what became of it, and leaves the rest to others.
    async fn finish(mut self) {
        let deadline = Instant::now() + STOP_DEADLINE;
        while let Ok(Some((taken, outcome))) = tokio::time::timeout_at(deadline, self.calls.next()).await {
            self.settle(taken, outcome);
        }
        self.calls.abandon().await;
        if let Some(report) = &mut self.report {
            let answer = (&mut report.answer).await;
            self.take_answer(answer);
        }
        let report = Report { done: self.done, again: self.again, ..Report::default() };
        loop {
            let (seat, report) = (Arc::clone(&self.seat), report.clone());
            let now = millis(SystemTime::now());
            let left = self.shared.database.run(move |connection| seat.leave(connection, &report, now)).await;
            let Err(error) = left else { break };
            if Instant::now() >= deadline {
                tracing::warn!(topic = self.seat.topic_name, %error, "a subscription could not be ended in the queue's file; its messages come again");
                break;
            }
            tokio::time::sleep(self.backoff.wait()).await;
        }
        self.shared.tell([self.seat.topic_name.as_str()]);
    }
}

/// The answer to the report, if one is on its way.
async fn answered(report: &mut Option<OnItsWay>) -> Result<Answer, BlockError> {
    match report {
        Some(report) => (&mut report.answer).await,
        None => std::future::pending().await,
    }
}

fn instant(millis: i64) -> Instant {
    let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    Instant::now() + time.duration_since(SystemTime::now()).unwrap_or_default()
}

// === impl Timed ===

#[async_trait]
impl Handler<Message> for Timed {
    async fn handle(&self, message: Message) -> Outcome {
        let topic = message.topic.clone();
        match tokio::time::timeout(self.timeout, self.handler.handle(message)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::warn!(topic, "a message was not handled within {:?}; it comes again", self.timeout);
                Outcome::Again
            }
        }
    }
}
