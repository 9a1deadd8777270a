//! Waiting for several things at once: `poll_oneoff` over sockets, clocks and the descriptors of preview 1, and
//! `epoll_oneoff`, which tells what is ready only once.
//!
//! The sockets are looked at with one system call. Only when nothing is ready does the task wait: for its sockets with
//! the executor, for the rest with preview 1's own function. The executor may remember readiness that is gone; it is
//! made to forget that after the system said so, never before, so that no news between the two is lost.
//!
//! Whatever state a socket is in, its event has no error: a hang-up or a failed connection is readiness, with a flag.
//! Programs take an error in an event for a failure of the whole call. Of a listener that the host closed they hear
//! nothing any more: a hang-up there makes tokio accept again and again.

use super::errno::{Errno, code};
use super::socket::Socket;
use super::table::Sockets;
use super::{NAME, files, os};
use crate::command::ModuleState;
use crate::memory::{self, Memory};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, sleep_until};
use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::WasiP1Ctx;

/// Bytes of a subscription and of an event.
const SUBSCRIPTION: u32 = 48;
const EVENT: u32 = 32;

const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;

/// The peer has hung up (`eventrwflags` in preview 1).
const HANGUP: u16 = 1;

/// The clock's time is a point, not a span (`subclockflags`).
const ABSOLUTE: u16 = 1;

/// Longer than any guest waits.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Where the executor insists on readiness that the system denies, it is asked again after this long.
const DISAGREEMENT: Duration = Duration::from_millis(1);

/// When a guest hears of readiness.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// As long as it lasts.
    Level,
    /// Once, until the guest acts on it or there is more.
    Edge,
}

/// Memory that is used again by the next call.
#[derive(Default)]
pub(super) struct Scratch {
    subscriptions: Vec<Subscription>,
    /// What the system is asked, one for each subscription of a socket.
    fds: Vec<libc::pollfd>,
    /// Subscriptions of other descriptors, as the guest wrote them.
    others: Vec<u8>,
    /// What the guest is told.
    events: Vec<u8>,
    /// Counts the calls, so that a socket knows whether it was named before in this one.
    call: u64,
}

/// What the guest waits for.
#[derive(Clone, Copy)]
struct Subscription {
    userdata: u64,
    tag: u8,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// This long from now.
    Clock(Duration),
    /// A socket, with its place among those that the system is asked about.
    Socket { fd: u32, place: usize },
    /// Another descriptor: left to preview 1.
    Other,
    /// It cannot be waited for.
    Wrong(Errno),
}

/// Whether the executor will wake the task for its sockets.
enum Registered {
    Waits,
    /// No: the system says that one is ready.
    Ready,
    /// No: it takes one for ready, and the system does not.
    Disagrees,
}

pub(super) fn add_to_linker(linker: &mut Linker<ModuleState>) -> wasmtime::Result<()> {
    for (name, trigger) in [("poll_oneoff", Trigger::Level), ("epoll_oneoff", Trigger::Edge)] {
        linker.func_wrap_async(
            NAME,
            name,
            move |mut guest: Caller<'_, ModuleState>, (at, events, count, told): (u32, u32, u32, u32)| {
                Box::new(async move { Ok(code(poll(&mut guest, trigger, (at, events, count), told).await?)) })
            },
        )?;
    }
    Ok(())
}

async fn poll(
    guest: &mut Caller<'_, ModuleState>,
    trigger: Trigger,
    (at, events, count): (u32, u32, u32),
    told: u32,
) -> wasmtime::Result<Result<(), Errno>> {
    let (mut memory, state) = match memory::of(guest) {
        Ok(parts) => parts,
        Err(bad) => return Ok(Err(bad.into())),
    };
    let ModuleState { wasi, sockets, .. } = state;
    sockets.let_go();
    let mut scratch = std::mem::take(&mut sockets.poll);
    let read = scratch.read(&mut memory, sockets, wasi, (at, events, count), told);
    if read.is_ok() {
        scratch.wait(sockets, wasi, trigger).await?;
        if trigger == Trigger::Edge {
            scratch.tell(sockets);
        }
    }
    let written = read.and_then(|()| {
        memory.write(events, &scratch.events)?;
        let count = u32::try_from(scratch.events.len()).unwrap_or(u32::MAX) / EVENT;
        Ok(memory.write(told, &count.to_le_bytes())?)
    });
    sockets.poll = scratch;
    Ok(written)
}

/// How long it is to the time that a clock is waited for.
fn clock(wasi: &mut WasiP1Ctx, id: u32, timeout: u64, flags: u16) -> What {
    let now = match (id, flags & ABSOLUTE) {
        (0..=3, 0) => 0,
        (0..=3, _) => files::now(wasi, id == 0),
        _ => return What::Wrong(Errno::INVAL),
    };
    What::Clock(Duration::from_nanos(timeout.saturating_sub(now)).min(LONGEST))
}

/// Whether nothing more comes there, for the host has closed it. What datagrams came to can still send.
fn is_over(socket: &Socket, tag: u8) -> bool {
    socket.is_closed() && (socket.is_stream || tag == READ)
}

/// Appends one event.
pub(super) fn event(events: &mut Vec<u8>, userdata: u64, error: u16, tag: u8, bytes: u64, flags: u16) {
    events.extend(userdata.to_le_bytes());
    events.extend(error.to_le_bytes());
    events.extend([tag, 0, 0, 0, 0, 0]);
    events.extend(bytes.to_le_bytes());
    events.extend(flags.to_le_bytes());
    events.extend([0; 6]);
}

// === impl Scratch ===

impl Scratch {
    /// Reads what the guest wants to wait for.
    fn read(
        &mut self,
        memory: &mut Memory<'_>,
        sockets: &mut Sockets,
        wasi: &mut WasiP1Ctx,
        (at, events, count): (u32, u32, u32),
        told: u32,
    ) -> Result<(), Errno> {
        self.call += 1;
        self.subscriptions.clear();
        self.fds.clear();
        self.others.clear();
        self.events.clear();
        // Preview 1 has no sleep without end.
        if count == 0 || count > sockets.most_subscriptions() {
            return Err(Errno::INVAL);
        }
        let size = |each: u32| count.checked_mul(each).ok_or(Errno::FAULT);
        memory.bytes_mut((events, size(EVENT)?))?;
        memory.bytes_mut((told, 4))?;
        for bytes in memory.bytes((at, size(SUBSCRIPTION)?))?.chunks_exact(SUBSCRIPTION as usize) {
            let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
            let (userdata, tag, fd) = (number(0), bytes[8], number(16) as u32);
            let what = match tag {
                CLOCK => clock(wasi, fd, number(24), number(40) as u16),
                READ | WRITE if Sockets::owns(fd) => self.subscribe(sockets, fd, tag),
                READ | WRITE => {
                    self.others.extend_from_slice(bytes);
                    What::Other
                }
                _ => return Err(Errno::INVAL),
            };
            self.subscriptions.push(Subscription { userdata, tag, what });
        }
        Ok(())
    }

    fn subscribe(&mut self, sockets: &mut Sockets, fd: u32, tag: u8) -> What {
        let Ok(socket) = sockets.get_mut(fd) else { return What::Wrong(Errno::BADF) };
        let seen = if tag == READ { &mut socket.told.read_in } else { &mut socket.told.write_in };
        if std::mem::replace(seen, self.call) == self.call {
            return What::Wrong(Errno::EXIST);
        }
        let events = if tag == READ { libc::POLLIN } else { libc::POLLOUT };
        self.fds.push(libc::pollfd { fd: socket.raw_fd(), events, revents: 0 });
        What::Socket { fd, place: self.fds.len() - 1 }
    }

    /// Waits until there is something to tell.
    async fn wait(
        &mut self,
        sockets: &Sockets,
        wasi: &mut WasiP1Ctx,
        trigger: Trigger,
    ) -> wasmtime::Result<()> {
        let begun = Instant::now();
        let spans = self.subscriptions.iter().filter_map(|subscription| match subscription.what {
            What::Clock(span) => Some(span),
            _ => None,
        });
        let due = spans.min().map(|span| begun + span);
        let is_wrong = self.subscriptions.iter().any(|known| matches!(known.what, What::Wrong(_)));
        let others = std::mem::take(&mut self.others);
        let mut preview1 = (!others.is_empty()).then(|| Box::pin(files::poll(wasi, others)));
        let mut other_events = None;
        let (mut alarm, mut disagreement) = (None, None);
        let waiting = poll_fn(|cx| {
            os::poll(&mut self.fds);
            if let Some(others) = &mut preview1
                && other_events.is_none()
                && let Poll::Ready(events) = others.as_mut().poll(cx)
            {
                other_events = Some(events);
            }
            loop {
                let is_due = due.is_some_and(|due| due <= Instant::now());
                if is_wrong || is_due || other_events.is_some() || self.is_any_ready(sockets, trigger) {
                    return Poll::Ready(());
                }
                match self.register(sockets, trigger, cx) {
                    Registered::Ready => continue,
                    Registered::Waits => break,
                    Registered::Disagrees => {}
                }
                let again = disagreement.get_or_insert_with(|| Box::pin(sleep(DISAGREEMENT)));
                if again.as_mut().poll(cx).is_pending() {
                    break;
                }
                disagreement = None;
                os::poll(&mut self.fds);
            }
            let Some(due) = due else { return Poll::Pending };
            alarm.get_or_insert_with(|| Box::pin(sleep_until(due))).as_mut().poll(cx)
        });
        // The executor would make a task that waits for more than a hundred sockets ask again and again.
        unconstrained(waiting).await;
        self.gather(sockets, trigger, begun);
        self.events.extend(other_events.transpose()?.unwrap_or_default());
        Ok(())
    }

    /// Has the executor wake the task when a socket may be ready.
    fn register(&mut self, sockets: &Sockets, trigger: Trigger, cx: &mut Context<'_>) -> Registered {
        for _ in 0..2 {
            let mut guards = Vec::new();
            for subscription in &self.subscriptions {
                let What::Socket { fd, .. } = subscription.what else { continue };
                let Ok(socket) = sockets.get(fd) else { continue };
                let Some(watched) = socket.watched().filter(|_| !is_over(socket, subscription.tag)) else {
                    continue;
                };
                let ready = match subscription.tag {
                    READ => watched.poll_read_ready(cx),
                    _ => watched.poll_write_ready(cx),
                };
                // An executor that is going down wakes nobody; it drops the task, too.
                if let Poll::Ready(Ok(guard)) = ready {
                    guards.push(guard);
                }
            }
            if guards.is_empty() {
                return Registered::Waits;
            }
            os::poll(&mut self.fds);
            if self.is_any_ready(sockets, trigger) {
                return Registered::Ready;
            }
            guards.iter_mut().for_each(|guard| guard.clear_ready());
        }
        Registered::Disagrees
    }

    fn is_any_ready(&self, sockets: &Sockets, trigger: Trigger) -> bool {
        self.subscriptions.iter().any(|subscription| self.ready(subscription, sockets, trigger).is_some())
    }

    /// The flags of a socket's event, if there is one to tell.
    fn ready(&self, subscription: &Subscription, sockets: &Sockets, trigger: Trigger) -> Option<u16> {
        let What::Socket { fd, place } = subscription.what else { return None };
        let found = self.fds[place].revents;
        let socket = sockets.get(fd).ok();
        if found == 0 || socket.is_some_and(|socket| is_over(socket, subscription.tag)) {
            return None;
        }
        let told = match trigger {
            Trigger::Level => None,
            Trigger::Edge => socket.map(|socket| socket.told),
        };
        let is_news = match (told, subscription.tag) {
            (None, _) => true,
            (Some(told), READ) => told.readable.is_none_or(|bytes| os::waiting(self.fds[place].fd) > bytes),
            (Some(told), _) => !told.writable,
        };
        is_news.then_some(if found & libc::POLLHUP != 0 { HANGUP } else { 0 })
    }

    /// Makes the events of all that is ready now.
    fn gather(&mut self, sockets: &Sockets, trigger: Trigger, begun: Instant) {
        let elapsed = begun.elapsed();
        let mut events = std::mem::take(&mut self.events);
        for subscription in &self.subscriptions {
            let Subscription { userdata, tag, what } = *subscription;
            match what {
                What::Clock(span) if span <= elapsed => event(&mut events, userdata, 0, tag, 0, 0),
                What::Wrong(errno) => event(&mut events, userdata, errno.0, tag, 0, 0),
                _ => {
                    if let Some(flags) = self.ready(subscription, sockets, trigger) {
                        event(&mut events, userdata, 0, tag, 1, flags);
                    }
                }
            }
        }
        self.events = events;
    }

    /// Remembers with the sockets what the guest was told.
    fn tell(&self, sockets: &mut Sockets) {
        for subscription in &self.subscriptions {
            let What::Socket { fd, place } = subscription.what else { continue };
            let (Ok(socket), true) = (sockets.get_mut(fd), self.fds[place].revents != 0) else { continue };
            match subscription.tag {
                READ => socket.told.readable = Some(os::waiting(self.fds[place].fd)),
                _ => socket.told.writable = true,
            }
        }
    }
}
