//! Host functions around streams: log, time, ticks, contexts, bodies, local responses.

use super::{ENV, give_found, put};
use crate::proxy::abi::{BufferType, Direction, OK, Status, code};
use crate::proxy::buffer::part;
use crate::proxy::headers::parsed;
use crate::proxy::state::{ProxyState, ROOT, Tick, of};
use crate::proxy::stream::LocalResponse;
use crate::setup::{Level, Stream};
use dhow_blocks::grants::Ask;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use wasmtime::{Caller, Linker};

/// Bytes of one log line; the rest is cut off.
const MAX_LINE: u32 = 8 << 10;

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        ENV,
        "proxy_log",
        |mut caller: Caller<'_, ProxyState>, level: u32, at: u32, length: u32| {
            code(log(&mut caller, level, (at, length)))
        },
    )?;
    linker.func_wrap(ENV, "proxy_get_log_level", |mut caller: Caller<'_, ProxyState>, at: u32| {
        put(&mut caller, Ok(shown_level()), at)
    })?;
    linker.func_wrap(
        ENV,
        "proxy_get_current_time_nanoseconds",
        |mut caller: Caller<'_, ProxyState>, at: u32| code(time(&mut caller, at)),
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_tick_period_milliseconds",
        |mut caller: Caller<'_, ProxyState>, period: u32| {
            let period = Duration::from_millis(period.into());
            let due = Instant::now() + period;
            caller.data_mut().tick = (!period.is_zero()).then_some(Tick { period, due });
            OK
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_effective_context",
        |mut caller: Caller<'_, ProxyState>, context: u32| {
            let state = caller.data_mut();
            let known = context == ROOT || state.stream.as_ref().is_some_and(|stream| stream.id == context);
            if !known {
                return Status::BadArgument as u32;
            }
            state.effective = context;
            OK
        },
    )?;
    linker.func_wrap(ENV, "proxy_done", |mut caller: Caller<'_, ProxyState>| {
        // Of a root context nothing is waited for.
        if let Some(stream) = caller.data_mut().stream.as_mut() {
            stream.done = true;
        }
        OK
    })?;
    bodies(linker)?;
    flow(linker)?;
    linker.func_wrap(
        ENV,
        "proxy_call_foreign_function",
        |mut caller: Caller<'_, ProxyState>,
         name: u32,
         name_len: u32,
         args: u32,
         args_len: u32,
         _out: u32,
         _out_len: u32| {
            code((|| {
                let (memory, _) = of(&mut caller)?;
                memory.bytes((name, name_len))?;
                memory.bytes((args, args_len))?;
                // There are none.
                Err(Status::NotFound)
            })())
        },
    )?;
    Ok(())
}

fn bodies(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        ENV,
        "proxy_get_buffer_bytes",
        |mut caller: Caller<'_, ProxyState>,
         (buffer, start, most, out, out_len): (u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let found = BufferType::try_from(buffer)
                    .and_then(|buffer| caller.data().buffer(buffer))
                    .and_then(|bytes| part(&bytes, start, most));
                give_found(&mut caller, found, out, out_len).await
            })
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_set_buffer_bytes",
        |mut caller: Caller<'_, ProxyState>, buffer: u32, start: u32, size: u32, at: u32, length: u32| {
            let write = || -> Result<(), Status> {
                let buffer = BufferType::try_from(buffer)?;
                let (memory, state) = of(&mut caller)?;
                state.write_buffer(buffer, (start, size), memory.bytes((at, length))?)
            };
            code({ write }())
        },
    )?;
    linker.func_wrap(
        ENV,
        "proxy_get_buffer_status",
        |mut caller: Caller<'_, ProxyState>, buffer: u32, size_at: u32, flags_at: u32| {
            let size = BufferType::try_from(buffer)
                .and_then(|buffer| caller.data().buffer(buffer))
                .map(|bytes| u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            match put(&mut caller, size, size_at) {
                OK => put(&mut caller, Ok(0), flags_at),
                status => status,
            }
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_get_status",
        |mut caller: Caller<'_, ProxyState>, (code_at, out, out_len): (u32, u32, u32)| {
            Box::new(async move {
                let (status, message) = caller.data().calls.received.status.clone();
                match put(&mut caller, Ok(status), code_at) {
                    OK => give_found(&mut caller, Ok(message), out, out_len).await,
                    bad => Ok(bad),
                }
            })
        },
    )?;
    Ok(())
}

fn flow(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_continue_stream", |mut caller: Caller<'_, ProxyState>, stream: u32| {
        code(direction(stream).map(|direction| go_on(caller.data_mut(), direction)))
    })?;
    for (name, direction) in [
        ("proxy_continue_request", Some(Direction::Request)),
        ("proxy_continue_response", Some(Direction::Response)),
        ("proxy_resume_http_request", Some(Direction::Request)),
        ("proxy_resume_http_response", Some(Direction::Response)),
        ("proxy_resume_upstream", None),
        // Nothing is routed by what a filter changes, so nothing is kept that could be stale.
        ("proxy_clear_route_cache", None),
    ] {
        linker.func_wrap(ENV, name, move |mut caller: Caller<'_, ProxyState>| {
            go_on(caller.data_mut(), direction);
            OK
        })?;
    }
    linker.func_wrap(ENV, "proxy_close_stream", |mut caller: Caller<'_, ProxyState>, stream: u32| {
        code(direction(stream).map(|direction| {
            if let (Some(_), Some(stream)) = (direction, caller.data_mut().stream.as_mut()) {
                stream.closed = true;
            }
        }))
    })?;
    linker.func_wrap(
        ENV,
        "proxy_send_local_response",
        |mut caller: Caller<'_, ProxyState>,
         status: u32,
         details: u32,
         details_len: u32,
         body: u32,
         body_len: u32,
         headers: u32,
         headers_len: u32,
         grpc_status: u32| {
            let answer = || -> Result<(), Status> {
                let (memory, state) = of(&mut caller)?;
                memory.bytes((details, details_len))?;
                let body = memory.bytes((body, body_len))?;
                let headers = parsed(memory.bytes((headers, headers_len))?)?;
                if body.len() as u64 > state.setup.bounds.response_body {
                    return Err(Status::BadArgument);
                }
                let stream = state.stream.as_mut().ok_or(Status::BadArgument)?;
                stream.answer(&LocalResponse { status, headers, body, grpc_status })
            };
            code({ answer }())
        },
    )?;
    Ok(())
}

/// The direction that a number of the ABI means; none for those of TCP streams.
fn direction(stream: u32) -> Result<Option<Direction>, Status> {
    match stream {
        0 => Ok(Some(Direction::Request)),
        1 => Ok(Some(Direction::Response)),
        2 | 3 => Ok(None),
        _ => Err(Status::BadArgument),
    }
}

fn go_on(state: &mut ProxyState, direction: Option<Direction>) {
    if let Some(stream) = state.stream.as_mut().filter(|stream| Some(stream.direction) == direction) {
        stream.continued = true;
    }
}

fn log(caller: &mut Caller<'_, ProxyState>, level: u32, (at, length): (u32, u32)) -> Result<(), Status> {
    let level = match level {
        0 => Level::Trace,
        1 => Level::Debug,
        2 => Level::Info,
        3 => Level::Warn,
        4 | 5 => Level::Error,
        _ => return Err(Status::BadArgument),
    };
    let (memory, state) = of(caller)?;
    memory.bytes((at, length))?;
    state.setup.scope.check(Ask::Log).map_err(|_| Status::InternalFailure)?;
    let text = String::from_utf8_lossy(memory.bytes((at, length.min(MAX_LINE)))?);
    state.setup.output.line(
        &state.setup.scope.app_id,
        Stream::Log(level),
        text.trim_end_matches(['\n', '\r']),
    );
    Ok(())
}

/// The least level of lines that the host's log shows.
fn shown_level() -> u32 {
    match () {
        () if tracing::enabled!(target: "guest", tracing::Level::TRACE) => 0,
        () if tracing::enabled!(target: "guest", tracing::Level::DEBUG) => 1,
        () => 2,
    }
}

fn time(caller: &mut Caller<'_, ProxyState>, at: u32) -> Result<(), Status> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    Ok(of(caller)?.0.write(at, &now.to_le_bytes())?)
}

// Functions of ABI 0.1.0 that differ from those of the same name.

pub(super) fn continue_request_without_result(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    let go_on = |mut caller: Caller<'_, ProxyState>| go_on(caller.data_mut(), Some(Direction::Request));
    linker.func_wrap(ENV, "proxy_continue_request", go_on).map(|_| ())
}

pub(super) fn continue_response_without_result(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    let go_on = |mut caller: Caller<'_, ProxyState>| go_on(caller.data_mut(), Some(Direction::Response));
    linker.func_wrap(ENV, "proxy_continue_response", go_on).map(|_| ())
}

pub(super) fn clear_route_cache_without_result(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap(ENV, "proxy_clear_route_cache", || {}).map(|_| ())
}

/// What buffer 7 is in later versions.
pub(super) fn plugin_configuration(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        ENV,
        "proxy_get_configuration",
        |mut caller: Caller<'_, ProxyState>, (out, out_len): (u32, u32)| {
            Box::new(async move {
                let configuration = caller.data().about.plugin_configuration.clone();
                give_found(&mut caller, Ok(configuration), out, out_len).await
            })
        },
    )?;
    Ok(())
}
