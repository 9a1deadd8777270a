//! Work that no request waits for: reading, verifying, compiling and linking a module that comes beside others.
//!
//! It takes all the processors that it gets, for seconds. Each piece runs in a thread of its own, behind those that
//! serve: they are late by less when another version of an app is prepared, which takes longer for it. Threads that
//! it starts in turn, as the compiler does, are like it.

use std::io;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// `nice` of the threads: they get a tenth of a processor that is asked for by threads that serve.
const NICE: i32 = 10;

/// Does the work and answers what it answers.
///
/// # Errors
/// There is no thread to be had, or it panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (sender, receiver) = oneshot::channel();
    let (span, runtime) = (tracing::Span::current(), Handle::current());
    std::thread::Builder::new().name("dhow-background".into()).spawn(move || {
        // SAFETY: a system call without memory of ours. On Linux it is about the calling thread alone; where it
        // is refused, the work is done all the same.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        // What the work spawns belongs to the runtime.
        let _entered = runtime.enter();
        let _ = sender.send(span.in_scope(work));
    })?;
    receiver.await.map_err(|_| io::Error::other("the thread that did it panicked"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_behind_what_serves() {
        // SAFETY: as in `run`.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        assert_eq!(run(nice).await.unwrap(), NICE.max(before));
        assert_eq!(nice(), before);
    }

    #[tokio::test]
    async fn a_panic_ends_nothing_else() {
        let error = run(|| {
            if true {
                panic!("as expected")
            }
        })
        .await
        .unwrap_err();
        assert_eq!(error.to_string(), "the thread that did it panicked");
    }
}
