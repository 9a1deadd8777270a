//! The clock that interrupts running guests.
//!
//! Guest code checks Wasmtime's epoch counter at loop heads and function entries. While at least one guest
//! runs, a thread advances the counter every [`TICK`]; each advance makes running guests yield to the
//! executor, where their deadlines are looked at. With no guest running the thread sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// How long a guest runs before it yields to others, and the precision of its deadline.
pub const TICK: Duration = Duration::from_millis(10);

/// Idle ticks before the thread goes to sleep: a busy host never pays for waking it.
const LINGER: u32 = 20;

#[derive(Debug)]
struct Shared {
    running: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// Owns the thread; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Held while a guest may run; see [`crate::Engine::running`].
#[derive(Debug)]
pub struct Running(Arc<Shared>);

impl Ticker {
    /// Starts the thread; `tick` advances the epochs.
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared {
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let thread = std::thread::Builder::new().name("dhow-ticker".into()).spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, tick)
        })?;
        Ok(Ticker { shared, thread: thread.thread().clone() })
    }

    pub(crate) fn running(&self) -> Running {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        // The thread announces that it falls asleep before it looks at `running` for the last time, and we
        // count up before we look at `asleep`: one of the two sees the other.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(Arc::clone(&self.shared))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn run(shared: &Shared, tick: impl Fn()) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        std::thread::park_timeout(TICK);
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle = 0;
            tick();
            continue;
        }
        idle += 1;
        if idle < LINGER {
            continue;
        }
        shared.asleep.store(true, Ordering::SeqCst);
        while shared.running.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        idle = 0;
    }
}
