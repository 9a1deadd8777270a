//! The conformance tests that every provider of a block passes (feature `conformance`).
//!
//! A suite is a list of named cases, each written against the block's trait alone. It runs all of them and
//! returns a [`Report`], so that one failing promise does not hide the next. Suites neither start tasks nor
//! read a timer themselves (this crate performs no I/O): the caller lends them its [`Runtime`].
//!
//! | file | subject |
//! |---|---|
//! | [`state`] | the promises of [`StateStore`](crate::state::StateStore) |
//! | [`pubsub`] | the promises of [`PubSub`](crate::pubsub::PubSub) |
//! | [`binding`] | the promises of [`Binding`](crate::binding::Binding) |
//! | [`secrets`] | the promises of [`SecretStore`](crate::secrets::SecretStore) |
//! | [`configuration`] | the promises of [`ConfigurationStore`](crate::configuration::ConfigurationStore) |
//! | [`lock`] | the promises of [`LockStore`](crate::lock::LockStore) |
//! | [`blob`] | the promises of [`BlobStore`](crate::blob::BlobStore) |
//! | [`cryption`] | the promises of [`Cryption`](crate::cryption::Cryption) |
//! | [`email`] | the promises of [`Email`](crate::email::Email) |
//! | [`sequencer`] | the promises of [`Sequencer`](crate::sequencer::Sequencer) |
//! | `inbox` | a handler that tells its case what it was given |

pub mod binding;
pub mod blob;
pub mod configuration;
pub mod cryption;
pub mod email;
mod inbox;
pub mod lock;
pub mod pubsub;
pub mod secrets;
pub mod sequencer;
pub mod state;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use std::fmt;
use std::panic::Location;
use std::time::Duration;

/// A case that has not finished after this long has failed.
const CASE_DEADLINE: Duration = Duration::from_secs(60);

/// What a suite borrows from the caller's asynchronous runtime.
#[derive(Clone, Copy, Debug)]
pub struct Runtime {
    /// Runs a task beside the others, on another thread where there is one.
    pub spawn: fn(BoxFuture<'static, ()>),
    /// Completes after the given time.
    pub sleep: fn(Duration) -> BoxFuture<'static, ()>,
}

/// A promise that was not kept: what was seen, and where the suite looked.
#[derive(Debug)]
pub struct Failure {
    message: String,
    location: &'static Location<'static>,
}

/// What a suite found, case by case.
#[derive(Debug)]
#[must_use = "a report proves nothing until `assert_passed` is called"]
pub struct Report {
    /// The name of the provider, as the caller gave it.
    pub provider: String,
    /// Names of the cases that passed.
    pub passed: Vec<&'static str>,
    /// Names of the cases that failed, and why.
    pub failed: Vec<(&'static str, Failure)>,
}

/// What became of a case.
type CaseResult = Result<(), Failure>;

/// A case: the promise in words, and the code that looks whether it is kept.
type Case<Context> = (&'static str, fn(Context) -> BoxFuture<'static, CaseResult>);

/// A list of [`Case`]s.
macro_rules! cases {
    ($($name:literal => $function:path,)+) => {
        &[$(($name, |context| Box::pin($function(context)))),+]
    };
}

/// Ends the case with a [`Failure`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Failure::new(format!($($message)+)));
        }
    };
}

/// Ends the case with a [`Failure`] that shows both sides unless they are equal.
macro_rules! ensure_eq {
    ($actual:expr, $expected:expr, $($message:tt)+) => {
        // A match keeps temporaries of both sides alive, as `assert_eq!` does.
        match (&$actual, &$expected) {
            (actual, expected) => {
                if actual != expected {
                    return Err($crate::conformance::Failure::new(format!(
                        "{}: found {}, expected {}",
                        format_args!($($message)+),
                        $crate::conformance::brief(actual),
                        $crate::conformance::brief(expected),
                    )));
                }
            }
        }
    };
}

pub(crate) use {cases, ensure, ensure_eq};

// === impl Runtime ===

impl Runtime {
    /// Runs all tasks at once and returns their results in order.
    async fn parallel<T: Send + 'static>(self, tasks: Vec<BoxFuture<'static, T>>) -> Result<Vec<T>, Failure> {
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            let (sender, receiver) = oneshot::channel();
            (self.spawn)(task.map(|result| drop(sender.send(result))).boxed());
            answers.push(receiver);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(answer.await.map_err(|_| Failure::new("a task died before it finished"))?);
        }
        Ok(results)
    }

    /// The answer of the task, if it comes within that time.
    async fn within<T>(self, deadline: Duration, task: impl Future<Output = T> + Unpin) -> Option<T> {
        match select(task, (self.sleep)(deadline)).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    }

    /// Runs all cases, one after the other, each at most for [`CASE_DEADLINE`] and in a context of its own. `open`
    /// is given a name that no other case and no other run has.
    async fn run<Context: Clone, Opening: Future<Output = Context>>(
        self,
        provider: &str,
        cases: &[Case<Context>],
        open: impl Fn(String) -> Opening,
        close: fn(Context) -> BoxFuture<'static, ()>,
    ) -> Report {
        let run = fastrand::u64(..);
        let mut report = Report { provider: provider.to_owned(), passed: Vec::new(), failed: Vec::new() };
        for (index, &(name, case)) in cases.iter().enumerate() {
            let context = open(format!("conformance-{run:x}-{index}")).await;
            match self.within(CASE_DEADLINE, case(context.clone())).await {
                Some(Ok(())) => report.passed.push(name),
                Some(Err(failure)) => report.failed.push((name, failure)),
                None => {
                    let failure = Failure::new(format!("still running after {CASE_DEADLINE:?}"));
                    report.failed.push((name, failure));
                }
            }
            close(context).await;
        }
        report
    }
}

// === impl Failure ===

impl Failure {
    #[track_caller]
    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), location: Location::caller() }
    }
}

impl From<crate::state::StateError> for Failure {
    #[track_caller]
    fn from(error: crate::state::StateError) -> Failure {
        Failure::new(format!("unexpected error: {error}"))
    }
}

impl From<crate::error::BlockError> for Failure {
    #[track_caller]
    fn from(error: crate::error::BlockError) -> Failure {
        Failure::new(format!("unexpected error: {error}"))
    }
}

impl From<crate::blob::BlobError> for Failure {
    #[track_caller]
    fn from(error: crate::blob::BlobError) -> Failure {
        Failure::new(format!("unexpected error: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.message, self.location.file(), self.location.line())
    }
}

// === impl Report ===

impl Report {
    /// Panics with every failed case unless all passed.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(!self.passed.is_empty() && self.failed.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} cases passed, {} failed", self.provider, self.passed.len(), self.failed.len())?;
        for (case, failure) in &self.failed {
            write!(f, "\n  {case}: {failure}")?;
        }
        Ok(())
    }
}

/// A value as text, cut to what a reader can take in (values of a megabyte are among the cases).
fn brief(value: &impl fmt::Debug) -> String {
    const SHOWN: usize = 300;
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}… ({} characters)", &text[..cut], text.len()),
        None => text,
    }
}
