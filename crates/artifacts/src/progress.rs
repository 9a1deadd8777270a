//! How far downloads are that go on side by side.

use std::sync::Mutex;

/// Told how many bytes are there, and how many there will be when that is known.
pub(crate) struct Progress<'a>(Mutex<State<'a>>);

struct State<'a> {
    received: u64,
    total: u64,
    tell: &'a mut (dyn FnMut(u64, Option<u64>) + Send),
}

impl<'a> Progress<'a> {
    pub(crate) fn new(tell: &'a mut (dyn FnMut(u64, Option<u64>) + Send)) -> Progress<'a> {
        Progress(Mutex::new(State { received: 0, total: 0, tell }))
    }

    /// So many bytes more will come.
    pub(crate) fn expect(&self, bytes: u64) {
        self.change(|state| state.total += bytes);
    }

    /// So many bytes came.
    pub(crate) fn arrived(&self, bytes: u64) {
        self.change(|state| state.received += bytes);
    }

    /// So many bytes that came did not count.
    pub(crate) fn lost(&self, bytes: u64) {
        self.change(|state| state.received = state.received.saturating_sub(bytes));
    }

    fn change(&self, how: impl FnOnce(&mut State<'a>)) {
        if let Ok(mut state) = self.0.lock() {
            how(&mut state);
            let (received, total) = (state.received, state.total);
            (state.tell)(received, Some(total));
        }
    }
}
