//! The state of one instance: what host functions find and change.

use super::abi::{BufferType, Direction, MapType, Status};
use super::buffer::Rules;
use super::calls::Calls;
use super::headers::Map;
use super::shared::{Vm, Wake};
use super::stream::{HttpStream, Properties};
use crate::memory::{self, Memory, Remembers};
use crate::outbound::Outbound;
use crate::setup::Setup;
use bytes::Bytes;
use dhow_engine::Limiter;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use wasmtime::{Caller, TypedFunc};
use wasmtime_wasi::p1::WasiP1Ctx;

/// The context that everything else belongs to; there is one in each instance.
pub(super) const ROOT: u32 = 1;

/// Data of the store.
pub(crate) struct ProxyState {
    pub(super) wasi: WasiP1Ctx,
    pub(super) limiter: Limiter,
    pub(super) memory: Option<wasmtime::Memory>,
    pub(super) setup: Arc<Setup>,
    pub(super) outbound: Outbound,
    pub(super) about: Arc<About>,
    /// Makes room in the guest's memory; none if it exports no allocator.
    pub(super) allocate: Option<TypedFunc<u32, u32>>,
    /// The guest's allocator is at work, and gets nothing that would need it again.
    pub(super) allocating: bool,
    /// The context that the guest acts for.
    pub(super) effective: u32,
    pub(super) stream: Option<HttpStream>,
    /// Of the root context; streams have their own before it.
    pub(super) properties: Properties,
    pub(super) calls: Calls,
    pub(super) tick: Option<Tick>,
    /// What the guest said about itself (`proxy_get_id`).
    pub(super) call_data: super::buffer::Buffer,
    /// Hears of queues; only the root instance of an app does.
    pub(super) wake: Option<Arc<Wake>>,
}

/// What is the same for all instances of an app.
pub(super) struct About {
    /// It tells an id when asked: it was made for Layotto.
    pub(super) is_layotto: bool,
    /// It speaks ABI 0.1.0 and no later one.
    pub(super) is_legacy: bool,
    pub(super) vm_configuration: Bytes,
    pub(super) plugin_configuration: Bytes,
    /// The name of the root context (`root_id`).
    pub(super) root_id: String,
    pub(super) vm: Arc<Vm>,
}

/// When the guest wants to be called by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    pub(super) period: Duration,
    pub(super) due: Instant,
}

/// The memory of the guest that calls, and the state of its instance.
pub(super) fn of<'a>(
    caller: &'a mut Caller<'_, ProxyState>,
) -> Result<(Memory<'a>, &'a mut ProxyState), Status> {
    Ok(memory::of(caller)?)
}

// === impl ProxyState ===

impl Remembers for ProxyState {
    fn memory(&mut self) -> &mut Option<wasmtime::Memory> {
        &mut self.memory
    }
}

impl ProxyState {
    /// How the guest's writes are understood.
    pub(super) fn rules(&self) -> Rules {
        if self.about.is_layotto { Rules::Layotto } else { Rules::Spec }
    }

    /// A buffer as it is now.
    pub(super) fn buffer(&self, buffer: BufferType) -> Result<Bytes, Status> {
        let received = &self.calls.received;
        let stream = self.stream.as_ref();
        match buffer {
            BufferType::RequestBody => stream.map(|stream| stream.request_body.bytes.clone()),
            BufferType::ResponseBody => stream.map(|stream| stream.response_body.bytes.clone()),
            BufferType::CallResponseBody => received.body.clone(),
            BufferType::GrpcMessage => received.message.clone(),
            BufferType::VmConfiguration => Some(self.about.vm_configuration.clone()),
            BufferType::PluginConfiguration => Some(self.about.plugin_configuration.clone()),
            BufferType::CallData => Some(self.call_data.bytes.clone()),
            BufferType::Data => None,
        }
        .ok_or(Status::NotFound)
    }

    /// Writes to one of the buffers that are the guest's to write.
    pub(super) fn write_buffer(
        &mut self,
        buffer: BufferType,
        place: (u32, u32),
        value: &[u8],
    ) -> Result<(), Status> {
        let (rules, bounds) = (self.rules(), self.setup.bounds);
        let stream = self.stream.as_mut();
        let (buffer, limit) = match buffer {
            BufferType::RequestBody => (stream.map(|stream| &mut stream.request_body), bounds.request_body),
            BufferType::ResponseBody => {
                let stream = stream.filter(|stream| stream.is_app || stream.direction == Direction::Response);
                (stream.map(|stream| &mut stream.response_body), bounds.response_body)
            }
            BufferType::CallData => (Some(&mut self.call_data), MAX_CALL_DATA),
            BufferType::VmConfiguration | BufferType::PluginConfiguration => return Err(Status::BadArgument),
            _ => return Err(Status::NotFound),
        };
        buffer.ok_or(Status::NotFound)?.write(rules, place, value, limit)
    }

    /// A map as it is now; none if it is not there.
    pub(super) fn map(&mut self, map: MapType) -> Option<Map<'_>> {
        let received = &mut self.calls.received;
        match map {
            MapType::CallResponseHeaders => received.head.as_mut().map(Map::Response),
            MapType::CallResponseTrailers => Some(Map::Plain(&mut received.trailers)),
            MapType::GrpcInitialMetadata => Some(Map::Plain(&mut received.metadata)),
            MapType::GrpcTrailingMetadata => Some(Map::Plain(&mut received.trailers)),
            map => self.stream.as_mut()?.map(map),
        }
    }

    /// A map that the guest may change.
    pub(super) fn map_mut(&mut self, map: MapType) -> Result<Map<'_>, Status> {
        self.stream.as_mut().and_then(|stream| stream.map(map)).ok_or(Status::BadArgument)
    }
}

/// Bytes that a guest may say about itself.
const MAX_CALL_DATA: u64 = 64 << 10;
