//! One running guest and its deadline.
//!
//! The guest is polled inside whatever task wants its answer: no task is spawned and no channel crossed on
//! the way of a request. A guest that computes yields at every tick of the engine; a guest that waits in a
//! host call is pending anyway; so the deadline, looked at after every pending poll, catches both.

use crate::failure::Failure;
use crate::guest::Invoked;
use dhow_engine::Running;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

type Execution<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

/// A guest on its way.
pub(crate) struct Run<T = ()> {
    execution: Execution<T>,
    started: Instant,
    limit: Duration,
    /// Made at the first pending poll: a guest that answers at once never costs a timer.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// An invocation on its way and the one who watches it. When it is dropped before the end of a guest that runs
/// in it (the client went away, or the response is complete and the guest still works), the guest goes on by
/// itself, under its deadline.
pub(crate) struct InFlight<W: Invoked> {
    run: Option<Run>,
    watch: Option<Watch<W>>,
}

/// Whoever hears of a failure, once; there as long as a guest may run.
struct Watch<W> {
    watch: W,
    told: bool,
    _running: Running,
}

// === impl Run ===

impl<T> Run<T> {
    pub(crate) fn new(execution: Execution<T>, limit: Duration) -> Run<T> {
        Run { execution, started: Instant::now(), limit, alarm: None }
    }
}

impl<T> Future for Run<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Failure>> {
        if let Poll::Ready(result) = self.execution.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        let due = self.started + self.limit;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        match alarm.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(Failure::Deadline(self.limit))),
            Poll::Pending => Poll::Pending,
        }
    }
}

// === impl InFlight ===

impl<W: Invoked> InFlight<W> {
    pub(crate) fn new(watch: W, running: Running) -> InFlight<W> {
        InFlight { run: None, watch: Some(Watch { watch, told: false, _running: running }) }
    }

    /// Takes a guest that runs wherever this is polled.
    pub(crate) fn start(&mut self, run: Run) {
        self.run = Some(run);
    }

    /// Lets the guest run until it waits for something; `Ready` when it has ended, now or before.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(run) = &mut self.run else { return Poll::Ready(Ok(())) };
        let Poll::Ready(result) = Pin::new(run).poll(cx) else { return Poll::Pending };
        self.run = None;
        Poll::Ready(result)
    }

    /// Tells the watcher that the invocation failed; the guest is gone.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.run = None;
        self.tell(failure);
    }

    /// Tells the watcher that the invocation failed; the guest goes on.
    pub(crate) fn tell(&mut self, failure: &Failure) {
        if let Some(watch) = &mut self.watch {
            watch.tell(failure);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.run.is_none()
    }
}

impl<W: Invoked> Drop for InFlight<W> {
    fn drop(&mut self) {
        let (Some(run), Some(mut watch)) = (self.run.take(), self.watch.take()) else { return };
        // Without a runtime the process is on its way out, and the guest with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(failure) = run.await {
                watch.tell(&failure);
            }
        });
    }
}

// === impl Watch ===

impl<W: Invoked> Watch<W> {
    fn tell(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.told, true) {
            self.watch.failed(failure);
        }
    }
}
