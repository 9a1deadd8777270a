//! Whether anybody still waits for what a thread that blocks does: a step that was stopped, or whose time is over, moves
//! no more artifacts.
//!
//! Packing and unpacking lie between whoever waits and the bytes of a server, and know nothing of either. So it is the
//! thread that the interest belongs to, as a runtime does: [`blocking`] gives it one, and everything here asks for it.
//! A thread without one is always waited for.

use super::repository::ArtifactError;
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// How soon a thread that only waits sees that it need not.
const LOOK: Duration = Duration::from_millis(50);

thread_local! {
    /// Its other end is held by whoever waits.
    static INTEREST: RefCell<Option<watch::Receiver<()>>> = const { RefCell::new(None) };
}

/// Nobody waits any more.
#[derive(Debug, thiserror::Error)]
#[error("nobody waits for it any more")]
pub(super) struct Lost;

/// The thread's interest, taken back at the end.
struct Within;

/// Does blocking work on a thread that may block. When the future is dropped, the work fails at its next look.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (_interest, seen) = watch::channel(());
    let done = tokio::task::spawn_blocking(move || {
        INTEREST.set(Some(seen));
        let _within = Within;
        work()
    });
    done.await.unwrap_or_else(|panicked| Err(panicked.to_string()))
}

/// Whether nobody waits for this thread.
pub(super) fn is_lost() -> bool {
    INTEREST.with_borrow(|interest| interest.as_ref().is_some_and(|interest| interest.has_changed().is_err()))
}

/// Lets this thread wait for something, as long as somebody waits for the thread.
pub(super) fn wait<T>(runtime: &Handle, work: impl Future<Output = T>) -> Result<T, Lost> {
    let interest = INTEREST.with_borrow(Clone::clone);
    let lost = async move {
        match interest {
            // Nothing is ever sent: an answer is the other end's end.
            Some(mut interest) => while interest.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    };
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = lost => Err(Lost),
            done = work => Ok(done),
        }
    })
}

/// Lets time pass, as long as somebody waits for the thread.
pub(super) fn pause(time: Duration) -> Result<(), Lost> {
    let end = Instant::now() + time;
    loop {
        if is_lost() {
            return Err(Lost);
        }
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        std::thread::sleep(rest.min(LOOK));
    }
}

// === impl Lost ===

impl From<Lost> for std::io::Error {
    fn from(lost: Lost) -> Self {
        // Of no kind that somebody would try again.
        std::io::Error::other(lost)
    }
}

impl From<Lost> for ArtifactError {
    fn from(lost: Lost) -> Self {
        ArtifactError::Io(lost.into())
    }
}

// === impl Within ===

impl Drop for Within {
    fn drop(&mut self) {
        INTEREST.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn who_is_dropped_waits_for_nothing() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let waits: [fn(&Handle) -> bool; 2] = [
            |handle| wait(handle, std::future::pending::<()>()).is_err(),
            |_| pause(Duration::from_secs(3600)).is_err(),
        ];
        for wait in waits {
            let (begun, has_begun) = mpsc::channel();
            let (ended, has_ended) = mpsc::channel();
            let handle = handle.clone();
            let task = runtime.spawn(blocking(move || {
                begun.send(is_lost()).unwrap();
                ended.send((wait(&handle), is_lost())).unwrap();
                Ok(())
            }));
            assert!(!has_begun.recv().unwrap());
            task.abort();
            assert_eq!(has_ended.recv_timeout(Duration::from_secs(60)), Ok((true, true)));
        }
        // The next work of the same thread is waited for.
        let work = runtime.block_on(blocking(|| Ok(is_lost())));
        assert_eq!(work, Ok(false));
        // And so is what no step asked for.
        assert!(!is_lost());
        assert!(matches!(wait(&handle, async { 7 }), Ok(7)));
    }
}
