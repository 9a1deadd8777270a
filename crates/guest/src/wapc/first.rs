//! The first Wascap ABI (June 2019): commands and events in protobuf, handed over through the module's allocator.
//!
//! ```text
//! import wascap::__host_call(command, length, event) -> length    the event is written to where the module says
//! import wascap::__throw(address, length)                         the module gives up
//! export __guest_call(command, length) -> length                  of the event, whose address is in the word at
//! export __wascap_global_argument_ptr() -> address                this place
//! export __wascap_malloc(length) -> address
//! ```
//!
//! A buffer that was handed over belongs to the module, which is never asked to free anything. Source: Waxosuit's host.

use super::dialect::Generation;
use super::format::Format;
use super::operations::{self, Asked};
use super::state::WapcState;
use crate::memory;
use bytes::Bytes;
use prost::Message;
use wasmtime::{AsContextMut, Caller, Instance, Linker, Memory, Store, TypedFunc, bail};

/// Parameters of `__host_call`.
pub(super) const PARAMETERS: usize = 3;

/// What a type of message is called, in front of its name.
const TYPES: &str = "type.wascap.io/";

/// The one who asks, of commands that come from outside of the module.
const HOST: &str = "wascap:host";

/// Message of a command, and the operation that it stands for.
const COMMANDS: [(&str, &str, &str); 18] = [
    ("core.HealthRequest", "httpserver", "HealthRequest"),
    ("core.LiveUpdate", "httpserver", "PerformLiveUpdate"),
    ("http.Request", "httpclient", "PerformRequest"),
    ("keyvalue.AddRequest", "keyvalue", "Add"),
    ("keyvalue.DelRequest", "keyvalue", "Del"),
    ("keyvalue.GetRequest", "keyvalue", "Get"),
    ("keyvalue.KeyExistsQuery", "keyvalue", "KeyExists"),
    ("keyvalue.ListClearRequest", "keyvalue", "Clear"),
    ("keyvalue.ListDelItemRequest", "keyvalue", "ListItemDelete"),
    ("keyvalue.ListPushRequest", "keyvalue", "Push"),
    ("keyvalue.ListRangeRequest", "keyvalue", "Range"),
    ("keyvalue.SetAddRequest", "keyvalue", "SetAdd"),
    ("keyvalue.SetIntersectionRequest", "keyvalue", "SetIntersection"),
    ("keyvalue.SetQueryRequest", "keyvalue", "SetQuery"),
    ("keyvalue.SetRemoveRequest", "keyvalue", "SetRemove"),
    ("keyvalue.SetRequest", "keyvalue", "Set"),
    ("keyvalue.SetUnionRequest", "keyvalue", "SetUnion"),
    ("messaging.PublishMessage", "messaging", "Publish"),
];

/// Operations that a module is asked, and the message of each.
const ASKED: [(&str, &str); 3] = [
    ("HandleRequest", "http.Request"),
    ("DeliverMessage", "messaging.DeliverMessage"),
    ("HealthRequest", "core.HealthRequest"),
];

#[derive(Clone, PartialEq, Message)]
struct Command {
    #[prost(string, tag = "1")]
    source: String,
    #[prost(string, tag = "2")]
    target_cap: String,
    #[prost(message, optional, tag = "10")]
    payload: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(bool, tag = "1")]
    success: bool,
    #[prost(message, optional, tag = "2")]
    error: Option<Error>,
    #[prost(message, optional, tag = "10")]
    payload: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Error {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    description: String,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// What a module of this ABI exports beside `__guest_call`.
pub(super) struct Exports {
    memory: Memory,
    malloc: TypedFunc<u32, u32>,
    argument: TypedFunc<(), u32>,
}

pub(super) fn add_to_linker(linker: &mut Linker<WapcState>, module: &str) -> wasmtime::Result<()> {
    linker
        .func_wrap_async(
            module,
            "__host_call",
            |mut caller: Caller<'_, WapcState>, (command, length, event): (u32, u32, u32)| {
                Box::new(async move {
                    let result = perform(&mut caller, (command, length)).await;
                    let bytes = Event::of(result).encode_to_vec();
                    let (mut memory, _) = memory::of(&mut caller)?;
                    memory.write(event, &bytes)?;
                    Ok(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
                })
            },
        )
        .map(|_| ())
}

/// What a module of this ABI calls when it gives up.
pub(super) fn add_throw(linker: &mut Linker<WapcState>, module: &str) -> wasmtime::Result<()> {
    linker.func_wrap(
        module,
        "__throw",
        |mut caller: Caller<'_, WapcState>, at: u32, length: u32| -> wasmtime::Result<()> {
            let (memory, _) = memory::of(&mut caller)?;
            let text = String::from_utf8_lossy(memory.bytes((at, length.min(1024)))?).into_owned();
            bail!("it threw: {text:?}")
        },
    )?;
    Ok(())
}

async fn perform(caller: &mut Caller<'_, WapcState>, place: (u32, u32)) -> Result<Any, String> {
    let command = {
        let (memory, _) = memory::of(caller).map_err(|bad| bad.to_string())?;
        let bytes = memory.bytes(place).map_err(|bad| format!("the command: {bad}"))?;
        Command::decode(bytes).map_err(|error| format!("the command cannot be read: {error}"))?
    };
    let Any { type_url, value } = command.payload.unwrap_or_default();
    let kind = type_url.rsplit('/').next().unwrap_or_default();
    let Some((_, usual, operation)) = COMMANDS.iter().find(|(message, ..)| *message == kind) else {
        return Err(format!("a command with a {type_url:?} is not known"));
    };
    // What is asked counts, and not who the module thinks would answer it.
    let namespace = format!("wascap:{usual}");
    let asked = Asked {
        binding: String::new(),
        namespace,
        operation: (*operation).to_owned(),
        format: Format::Protobuf,
    };
    let answer = operations::perform(caller.data_mut(), &asked, &value).await?;
    let type_url = if answer.name.is_empty() { String::new() } else { format!("{TYPES}{}", answer.name) };
    Ok(Any { type_url, value: answer.bytes })
}

// === impl Exports ===

impl Exports {
    pub(super) fn find(instance: &Instance, store: &mut Store<WapcState>) -> wasmtime::Result<Exports> {
        let Some(memory) = instance.get_memory(store.as_context_mut(), "memory") else {
            bail!("{}", memory::BadMemory::Missing);
        };
        Ok(Exports {
            memory,
            malloc: instance.get_typed_func(&mut *store, "__wascap_malloc")?,
            argument: instance.get_typed_func(&mut *store, "__wascap_global_argument_ptr")?,
        })
    }

    /// Calls a module with an operation. The inner error is what it says of its failure.
    pub(super) async fn call(
        &self,
        store: &mut Store<WapcState>,
        guest_call: &TypedFunc<(u32, u32), u32>,
        operation: &str,
        payload: Bytes,
    ) -> wasmtime::Result<Result<Bytes, String>> {
        debug_assert_eq!(store.data().room.dialect.generation, Generation::First);
        let Some((_, message)) = ASKED.iter().find(|(name, _)| *name == operation) else {
            return Ok(Err(format!("modules of the first Wascap ABI have no operation {operation}")));
        };
        let payload = Any { type_url: format!("{TYPES}{message}"), value: payload.into() };
        let command =
            Command { source: HOST.to_owned(), target_cap: "guest".to_owned(), payload: Some(payload) };
        let command = command.encode_to_vec();
        let length = u32::try_from(command.len())?;
        let at = self.malloc.call_async(&mut *store, length).await?;
        memory::whole(store, self.memory).write(at, &command)?;
        let length = guest_call.call_async(&mut *store, (at, length)).await?;
        let limit = store.data().room.setup.bounds.response_body;
        if u64::from(length) > limit {
            bail!("its answer has {length} bytes, more than the {limit} allowed");
        }
        let word = self.argument.call_async(&mut *store, ()).await?;
        let memory = memory::whole(store, self.memory);
        let event = match length {
            0 => Event::default(),
            length => Event::decode(memory.bytes((memory.u32(word)?, length))?)?,
        };
        Ok(match event {
            Event { success: true, payload, .. } => {
                Ok(payload.map(|any| any.value).unwrap_or_default().into())
            }
            Event { error: Some(error), .. } => Err(format!("{} (code {})", error.description, error.code)),
            _ => Err(format!("{operation} failed, and the module does not say why")),
        })
    }
}

// === impl Event ===

impl Event {
    fn of(result: Result<Any, String>) -> Event {
        match result {
            Ok(payload) => {
                let payload = Some(payload).filter(|any| !any.type_url.is_empty());
                Event { success: true, error: None, payload }
            }
            Err(description) => {
                Event { success: false, error: Some(Error { code: 500, description }), payload: None }
            }
        }
    }
}
