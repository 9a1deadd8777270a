//! What host functions find and change: the call that a module answers, and the one that it makes.

use super::Room;
use super::blobs::Wanted;
use crate::memory::Remembers;
use crate::outbound::Outbound;
use crate::store::Origin;
use bytes::Bytes;
use dhow_engine::Limiter;
use std::sync::Arc;
use wasmtime_wasi::p1::WasiP1Ctx;

/// Data of the store.
pub(crate) struct WapcState {
    pub(super) wasi: WasiP1Ctx,
    pub(super) limiter: Limiter,
    pub(super) memory: Option<wasmtime::Memory>,
    pub(super) outbound: Outbound,
    pub(super) room: Arc<Room>,
    /// What the module is asked: operation and payload.
    pub(super) asked: (Bytes, Bytes),
    /// What the module answered, if it has.
    pub(super) response: Option<Bytes>,
    /// What the module said of its failure, if it has.
    pub(super) error: Option<Bytes>,
    /// What the host answered to the module's last call.
    pub(super) host_response: Bytes,
    /// What the host said of that call's failure.
    pub(super) host_error: Bytes,
    /// Downloads that begin when this call has ended.
    pub(super) downloads: Vec<Wanted>,
}

impl Remembers for WapcState {
    fn memory(&mut self) -> &mut Option<wasmtime::Memory> {
        &mut self.memory
    }
}

impl WapcState {
    pub(super) fn new(wasi: WasiP1Ctx, limiter: Limiter, outbound: Outbound, room: Arc<Room>) -> WapcState {
        WapcState {
            wasi,
            limiter,
            memory: None,
            outbound,
            room,
            asked: Default::default(),
            response: None,
            error: None,
            host_response: Bytes::new(),
            host_error: Bytes::new(),
            downloads: Vec::new(),
        }
    }

    /// Prepares for a call of the module; nothing is left of the one before.
    pub(super) fn begin(&mut self, origin: Origin) {
        self.outbound.origin = origin;
        self.asked = Default::default();
        self.response = None;
        self.error = None;
        self.host_response = Bytes::new();
        self.host_error = Bytes::new();
    }

    /// Keeps what a call of the host came to, and returns the ABI's number for it.
    pub(super) fn keep(&mut self, result: Result<Vec<u8>, String>) -> u32 {
        match result {
            Ok(bytes) => {
                self.host_response = bytes.into();
                self.host_error = Bytes::new();
                1
            }
            Err(reason) => {
                self.host_error = reason.into();
                self.host_response = Bytes::new();
                0
            }
        }
    }
}
