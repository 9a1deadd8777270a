//! The signals that tell a process to end: Ctrl-C, `SIGTERM`, and a terminal that is closed; and the one that tells a
//! host to read its files again.

use crate::error::Error;
use std::io::IsTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What tells a process to end.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// None where it means something else.
    hangup: Option<Signal>,
}

/// `SIGHUP` for hosts that have files to read again.
pub(crate) struct Hangup {
    signal: Signal,
    had_terminal: bool,
}

/// What a `SIGHUP` meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Somebody wants the files to be read again.
    Reload,
    /// The terminal that the host was started at is gone.
    End,
}

// === impl Signals ===

impl Signals {
    /// From now on none of them ends the process by itself. To be called before anybody can know that the process is
    /// there: one that comes earlier ends it without draining.
    pub(crate) fn listen() -> Result<Signals, Error> {
        // Who starts a program with `nohup` wants it to stay.
        let hangup = if is_hangup_ignored() { None } else { Some(listen(SignalKind::hangup())?) };
        Ok(Signals { hangup, ..Signals::listen_but_hangup()? })
    }

    /// The same, where [`Hangup`] has its own meaning.
    pub(crate) fn listen_but_hangup() -> Result<Signals, Error> {
        let interrupt = listen(SignalKind::interrupt())?;
        let terminate = listen(SignalKind::terminate())?;
        Ok(Signals { interrupt, terminate, hangup: None })
    }

    /// Waits for one.
    pub(crate) async fn received(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }

    /// Waits for Ctrl-C.
    pub(crate) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}

// === impl Hangup ===

impl Hangup {
    /// From now on it does not end the process by itself.
    pub(crate) fn listen() -> Result<Hangup, Error> {
        // Who starts a host with `nohup` wants it to stay.
        let had_terminal = has_terminal() && !is_hangup_ignored();
        Ok(Hangup { signal: listen(SignalKind::hangup())?, had_terminal })
    }

    /// Waits for one.
    pub(crate) async fn received(&mut self) -> Meaning {
        self.signal.recv().await;
        // One that is closed is no terminal any more, while a signal that somebody sends leaves it as it is.
        if self.had_terminal && !has_terminal() {
            tracing::info!("the terminal is closed: stopping");
            return Meaning::End;
        }
        Meaning::Reload
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| Error::new(format!("cannot listen for signals: {error}")))
}

fn has_terminal() -> bool {
    std::io::stdin().is_terminal() || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
}

fn is_hangup_ignored() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action the call only writes the one in force to where the pointer leads, which has room.
    let asked = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: it was written if the call succeeded.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
