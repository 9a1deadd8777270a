//! Resiliency: how long a call may take, how often it is tried, and when it is not tried at all.
//!
//! The order is Dapr's: retry(circuit breaker(timeout(call))). Policies are read from resources by the host;
//! here is what they do. Waiting uses the caller's tokio timer, the one thing of a runtime that this crate needs.

use crate::invoke::{GrpcStatus, Reply};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is done for the calls to one target. Cheap to clone; clones share the circuit breaker.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// One try may take this long.
    pub timeout: Option<Duration>,
    /// What follows a failed try.
    pub retry: Option<Arc<Retry>>,
    /// Stops trying while the target is known to fail.
    pub breaker: Option<Arc<Breaker>>,
    /// Takes note of what the policy does; none where nobody asks for it.
    pub watch: Option<Arc<dyn Watch>>,
}

/// Takes note of what a policy does.
pub trait Watch: Send + Sync + fmt::Debug + 'static {
    /// A call is made under this part of the policy.
    fn applied(&self, part: Part);

    /// This part did something: a first retry, a timeout, a circuit that is in this state now and was not.
    fn activated(&self, part: Part);
}

/// A part of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Policy::timeout`]
    Timeout,
    /// [`Policy::retry`]
    Retry,
    /// [`Policy::breaker`], in this state.
    Breaker(Circuit),
}

/// When a failed try is repeated.
#[derive(Clone, Debug)]
pub struct Retry {
    /// How long to wait between tries.
    pub backoff: Backoff,
    /// Tries beside the first one; none: without limit.
    pub max_retries: Option<u32>,
    /// Only these failures are repeated; empty: all that may be.
    pub matching: Matching,
}

/// The time between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// Always the same.
    Constant(Duration),
    /// Begins at 500 ms and grows by half each time, ± 50 %, up to `max_interval` each and 15 minutes in all.
    Exponential {
        /// Longest time between two tries.
        max_interval: Duration,
    },
}

/// Which failures a retry is for, by their codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// HTTP status codes.
    pub http: Vec<RangeInclusive<u16>>,
    /// gRPC status codes.
    pub grpc: Vec<RangeInclusive<u16>>,
}

/// What kind of failure an attempt ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u16),
}

impl Code {
    /// How an app answered: by its gRPC status where it has one at its head.
    pub fn of(reply: &Reply) -> Code {
        let told = reply.extensions().get::<GrpcStatus>().map(|GrpcStatus(code)| *code);
        let header = || reply.headers().get("grpc-status")?.to_str().ok()?.parse().ok();
        match told.or_else(header) {
            Some(code) => Code::Grpc(code),
            None => Code::Http(reply.status().as_u16()),
        }
    }

    /// Whether it is a failure for retries and circuit breakers.
    pub fn is_failure(self) -> bool {
        match self {
            Code::Http(status) => status >= 400,
            Code::Grpc(status) => status != 0,
        }
    }
}

/// Errors that a policy can judge and make.
pub trait Resilient: Sized {
    /// The try took longer than allowed.
    fn timed_out(limit: Duration) -> Self;

    /// The circuit breaker of that name let no try through.
    fn circuit_open(breaker: &str) -> Self;

    /// Whether a repetition could help at all.
    fn may_pass(&self) -> bool;

    /// The failure's code, where it has one.
    fn code(&self) -> Option<Code> {
        None
    }
}

/// The policies of targets, as resources define them.
pub trait Policies: Send + Sync + 'static {
    /// What is done for invocations of an app. Apps have circuit breakers of their own.
    fn app(&self, app_id: &str) -> Policy;
}

/// Decides from counts whether a circuit breaker opens.
pub type Trip = dyn Fn(&Counts) -> bool + Send + Sync;

/// What a circuit breaker has seen since it was closed, or since its interval began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls let through.
    pub requests: u32,
    /// Calls that succeeded.
    pub total_successes: u32,
    /// Calls that failed.
    pub total_failures: u32,
    /// Successes since the last failure.
    pub consecutive_successes: u32,
    /// Failures since the last success.
    pub consecutive_failures: u32,
}

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Calls pass.
    Closed,
    /// Some calls pass, to see whether the target is well again.
    HalfOpen,
    /// No call passes.
    Open,
}

/// Keeps calls away from a target that fails.
pub struct Breaker {
    name: String,
    /// Calls let through while half open, and successes that close the circuit again.
    max_requests: u32,
    /// While closed, counts begin anew after this time; zero: never.
    interval: Duration,
    /// How long the circuit stays open.
    timeout: Duration,
    trip: Box<Trip>,
    inner: Mutex<Inner>,
}

struct Inner {
    circuit: Circuit,
    counts: Counts,
    /// Closed: when the counts begin anew. Open: when it becomes half open.
    until: Option<Instant>,
    /// Answers of an earlier period are not counted.
    generation: u64,
}

const FIRST_INTERVAL: Duration = Duration::from_millis(500);
const MULTIPLIER: f64 = 1.5;
const RANDOMISATION: f64 = 0.5;
const MAX_ELAPSED: Duration = Duration::from_secs(15 * 60);

// === impl Policy ===

impl Policy {
    /// Whether the policy changes nothing.
    pub fn is_none(&self) -> bool {
        self.timeout.is_none() && self.retry.is_none() && self.breaker.is_none()
    }

    /// Whether a call may be tried more than once, so that its input has to be kept.
    pub fn repeats(&self) -> bool {
        self.retry.is_some()
    }

    /// Makes the call under this policy: once for each try, with the input, which is cloned only where a
    /// further try may need it.
    pub async fn run<I, T, E, F, C>(&self, input: I, mut call: C) -> Result<T, E>
    where
        I: Clone,
        E: Resilient,
        F: Future<Output = Result<T, E>>,
        C: FnMut(I) -> F,
    {
        if let Some(watch) = &self.watch {
            self.tell(&**watch);
        }
        let Some(retry) = self.retry.clone() else { return self.once(|| call(input)).await };
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let error = match self.once(|| call(input.clone())).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(delay) = retry.delay(&error, tries, began.elapsed()) else { return Err(error) };
            if tries == 0 {
                self.activated(Part::Retry);
            }
            tries += 1;
            tokio::time::sleep(delay).await;
        }
    }

    async fn once<T, E, F>(&self, call: impl FnOnce() -> F) -> Result<T, E>
    where
        E: Resilient,
        F: Future<Output = Result<T, E>>,
    {
        let Some(breaker) = &self.breaker else { return self.timed(call()).await };
        let before = self.watch.as_ref().map(|_| breaker.inner.lock().circuit);
        let Some(pass) = breaker.enter() else { return Err(E::circuit_open(&breaker.name)) };
        let answer = self.timed(call()).await;
        pass.ended(answer.is_ok());
        if let Some(before) = before {
            let after = breaker.circuit();
            if before != after {
                self.activated(Part::Breaker(after));
            }
        }
        answer
    }

    /// Says which parts a call is made under.
    fn tell(&self, watch: &dyn Watch) {
        if self.timeout.is_some() {
            watch.applied(Part::Timeout);
        }
        if self.retry.is_some() {
            watch.applied(Part::Retry);
        }
        if let Some(breaker) = &self.breaker {
            watch.applied(Part::Breaker(breaker.circuit()));
        }
    }

    fn activated(&self, part: Part) {
        if let Some(watch) = &self.watch {
            watch.activated(part);
        }
    }

    async fn timed<T, E: Resilient>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        match self.timeout {
            None => call.await,
            Some(limit) => tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
                self.activated(Part::Timeout);
                Err(E::timed_out(limit))
            }),
        }
    }
}

// === impl Retry ===

impl Retry {
    /// How long to wait before the next try; `None` ends the trying.
    fn delay<E: Resilient>(&self, error: &E, tries: u32, elapsed: Duration) -> Option<Duration> {
        if !error.may_pass() || self.max_retries.is_some_and(|max| tries >= max) {
            return None;
        }
        if !self.matching.includes(error.code()) {
            return None;
        }
        match self.backoff {
            Backoff::Constant(delay) => Some(delay),
            Backoff::Exponential { max_interval } => {
                let grown = FIRST_INTERVAL.as_secs_f64() * MULTIPLIER.powi(tries.min(64) as i32);
                let interval = grown.min(max_interval.as_secs_f64());
                let delay = Duration::from_secs_f64(
                    interval * (1.0 - RANDOMISATION + 2.0 * RANDOMISATION * fastrand::f64()),
                );
                (elapsed + delay <= MAX_ELAPSED).then_some(delay)
            }
        }
    }
}

// === impl Matching ===

impl Matching {
    /// A failure without a code is always repeated; one with a code if its list is empty or names it.
    fn includes(&self, code: Option<Code>) -> bool {
        let (list, code) = match code {
            None => return true,
            Some(Code::Http(code)) => (&self.http, code),
            Some(Code::Grpc(code)) => (&self.grpc, code),
        };
        list.is_empty() || list.iter().any(|range| range.contains(&code))
    }
}

// === impl Breaker ===

/// A call that a breaker let through.
struct Pass<'a> {
    breaker: &'a Breaker,
    generation: u64,
    ended: bool,
}

impl Breaker {
    /// A closed circuit.
    pub fn new(
        name: String,
        max_requests: u32,
        interval: Duration,
        timeout: Duration,
        trip: Box<Trip>,
    ) -> Breaker {
        let inner = Inner { circuit: Circuit::Closed, counts: Counts::default(), until: None, generation: 0 };
        Breaker {
            name,
            max_requests: max_requests.max(1),
            interval,
            timeout: if timeout.is_zero() { Duration::from_secs(60) } else { timeout },
            trip,
            inner: Mutex::new(inner),
        }
    }

    /// The breaker's name in its resource.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether calls pass now.
    pub fn circuit(&self) -> Circuit {
        let mut inner = self.inner.lock();
        self.advance(&mut inner);
        inner.circuit
    }

    fn enter(&self) -> Option<Pass<'_>> {
        let mut inner = self.inner.lock();
        self.advance(&mut inner);
        match inner.circuit {
            Circuit::Open => return None,
            Circuit::HalfOpen if inner.counts.requests >= self.max_requests => return None,
            Circuit::HalfOpen | Circuit::Closed => {}
        }
        inner.counts.requests += 1;
        Some(Pass { breaker: self, generation: inner.generation, ended: false })
    }

    /// Does what time does.
    fn advance(&self, inner: &mut Inner) {
        let now = Instant::now();
        match inner.circuit {
            Circuit::Closed if self.interval.is_zero() => {}
            Circuit::Closed => match inner.until {
                None => inner.until = Some(now + self.interval),
                Some(until) if until <= now => self.turn(inner, Circuit::Closed, now),
                Some(_) => {}
            },
            Circuit::Open if inner.until.is_some_and(|until| until <= now) => {
                self.turn(inner, Circuit::HalfOpen, now);
            }
            Circuit::Open | Circuit::HalfOpen => {}
        }
    }

    fn turn(&self, inner: &mut Inner, circuit: Circuit, now: Instant) {
        inner.circuit = circuit;
        inner.counts = Counts::default();
        inner.generation += 1;
        inner.until = match circuit {
            Circuit::Closed if self.interval.is_zero() => None,
            Circuit::Closed => Some(now + self.interval),
            Circuit::Open => Some(now + self.timeout),
            Circuit::HalfOpen => None,
        };
    }

    fn count(&self, generation: u64, success: bool) {
        let mut inner = self.inner.lock();
        self.advance(&mut inner);
        if inner.generation != generation {
            return;
        }
        let now = Instant::now();
        let counts = &mut inner.counts;
        if success {
            counts.total_successes += 1;
            counts.consecutive_successes += 1;
            counts.consecutive_failures = 0;
            let well = counts.consecutive_successes >= self.max_requests;
            if inner.circuit == Circuit::HalfOpen && well {
                self.turn(&mut inner, Circuit::Closed, now);
            }
        } else {
            counts.total_failures += 1;
            counts.consecutive_failures += 1;
            counts.consecutive_successes = 0;
            let counts = *counts;
            if inner.circuit == Circuit::HalfOpen || (self.trip)(&counts) {
                self.turn(&mut inner, Circuit::Open, now);
            }
        }
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Pass ===

impl Pass<'_> {
    fn ended(mut self, success: bool) {
        self.ended = true;
        self.breaker.count(self.generation, success);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // The caller gave up before the answer came: as good as a failure, and a half-open circuit must not
        // wait for it for ever.
        if !self.ended {
            self.breaker.count(self.generation, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Failed {
        Passing(Option<u16>),
        Lasting,
        TimedOut,
        Open,
    }

    impl Resilient for Failed {
        fn timed_out(_: Duration) -> Failed {
            Failed::TimedOut
        }

        fn circuit_open(_: &str) -> Failed {
            Failed::Open
        }

        fn may_pass(&self) -> bool {
            *self != Failed::Lasting
        }

        fn code(&self) -> Option<Code> {
            match self {
                Failed::Passing(code) => code.map(Code::Http),
                _ => None,
            }
        }
    }

    fn retry(backoff: Backoff, max_retries: Option<u32>, http: Vec<RangeInclusive<u16>>) -> Policy {
        let matching = Matching { http, grpc: Vec::new() };
        Policy { retry: Some(Arc::new(Retry { backoff, max_retries, matching })), ..Policy::default() }
    }

    /// Runs a call that fails `failures` times; answers the result, the tries and the time.
    async fn run(policy: &Policy, failures: u32, error: Failed) -> (Result<(), Failed>, u32, Duration) {
        let tries = AtomicU32::new(0);
        let began = Instant::now();
        let answer = policy.run((), |()| async {
            if tries.fetch_add(1, Ordering::Relaxed) < failures { Err(error.clone()) } else { Ok(()) }
        });
        (answer.await, tries.load(Ordering::Relaxed), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn retries_follow_their_policy() {
        let second = Duration::from_secs(1);
        let constant = Backoff::Constant(second);
        let cases = [
            (retry(constant, Some(3), vec![]), 2, Failed::Passing(None), Ok(()), 3, 2),
            (retry(constant, Some(3), vec![]), 9, Failed::Passing(None), Err(Failed::Passing(None)), 4, 3),
            (retry(constant, Some(3), vec![]), 9, Failed::Lasting, Err(Failed::Lasting), 1, 0),
            (retry(constant, None, vec![]), 40, Failed::Passing(None), Ok(()), 41, 40),
            (retry(constant, Some(0), vec![]), 1, Failed::Passing(None), Err(Failed::Passing(None)), 1, 0),
            (retry(constant, Some(3), vec![500..=599]), 1, Failed::Passing(Some(503)), Ok(()), 2, 1),
            (
                retry(constant, Some(3), vec![500..=599]),
                1,
                Failed::Passing(Some(404)),
                Err(Failed::Passing(Some(404))),
                1,
                0,
            ),
            (retry(constant, Some(3), vec![500..=599]), 1, Failed::Passing(None), Ok(()), 2, 1),
        ];
        for (policy, failures, error, answer, tries, seconds) in cases {
            let found = run(&policy, failures, error.clone()).await;
            assert_eq!(found, (answer, tries, second * seconds), "{policy:?} {failures} {error:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn exponential_back_off_is_bounded_in_each_step_and_in_all() {
        let policy = retry(Backoff::Exponential { max_interval: Duration::from_secs(60) }, None, vec![]);
        let (answer, tries, time) = run(&policy, u32::MAX, Failed::Passing(None)).await;
        assert_eq!(answer, Err(Failed::Passing(None)));
        assert!(time <= MAX_ELAPSED && time > MAX_ELAPSED - Duration::from_secs(90), "{time:?}");
        assert!((15..60).contains(&tries), "{tries}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_ends_at_its_timeout() {
        let policy = Policy { timeout: Some(Duration::from_secs(2)), ..Policy::default() };
        let answer = policy.run((), |()| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<(), Failed>(())
        });
        assert_eq!(answer.await, Err(Failed::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_opens_lets_one_through_and_closes() {
        let trip = Box::new(|counts: &Counts| counts.consecutive_failures > 2);
        let breaker = Arc::new(Breaker::new("b".into(), 1, Duration::ZERO, Duration::from_secs(10), trip));
        let policy = Policy { breaker: Some(Arc::clone(&breaker)), ..Policy::default() };
        let failed = Failed::Passing(None);
        for _ in 0..3 {
            assert_eq!(breaker.circuit(), Circuit::Closed);
            assert_eq!(run(&policy, 1, failed.clone()).await.0, Err(failed.clone()));
        }
        assert_eq!(breaker.circuit(), Circuit::Open);
        assert_eq!(run(&policy, 0, failed.clone()).await, (Err(Failed::Open), 0, Duration::ZERO));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(breaker.circuit(), Circuit::HalfOpen);
        assert_eq!(run(&policy, 1, failed.clone()).await.0, Err(failed.clone()));
        assert_eq!(breaker.circuit(), Circuit::Open);
        tokio::time::advance(Duration::from_secs(10)).await;
        // A call that is given up does not keep the circuit half open for ever.
        let abandoned = policy.run((), |()| std::future::pending::<Result<(), Failed>>());
        assert!(tokio::time::timeout(Duration::from_secs(1), abandoned).await.is_err());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(run(&policy, 0, failed).await.0, Ok(()));
        assert_eq!(breaker.circuit(), Circuit::Closed);
    }
}
