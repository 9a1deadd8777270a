//! Sockets of components (wasi:sockets 0.2). They are Wasmtime's, but for what the host has to know and to do: who is
//! connected, so that a service can end when nobody is any more; and connections to the app's own Dapr endpoint, which
//! never leave the process.

use super::ports::{Accepted, Ports};
use super::runtime;
use crate::store::GuestState;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{HostTcpSocket, ShutdownType};
use wasmtime_wasi::p2::pipe::{AsyncReadStream, AsyncWriteStream};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, SocketError, TcpSocket};
use wasmtime_wasi::sockets::WasiSocketsView;

/// The interface as Wasmtime defines it; functions of another version would stand beside it.
const TCP: &str = "wasi:sockets/tcp@0.2.12";

/// Bytes under way to or from the Dapr endpoint.
const BUFFER: usize = 64 << 10;

/// What there is to know of a component's sockets, by their numbers in its table.
#[derive(Default)]
pub(crate) struct ComponentSockets {
    /// Where connections that come in are counted; none where nobody wants to know.
    pub(crate) ports: Option<Arc<Ports>>,
    accepted: HashMap<u32, Accepted>,
    /// Connections to the Dapr endpoint.
    runtime: HashMap<u32, Runtime>,
}

/// A connection to the Dapr endpoint, which the socket itself knows nothing of.
struct Runtime {
    address: SocketAddr,
    /// The guest has its streams.
    is_connected: bool,
}

type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);

type Connection = (Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>);

/// What a function of the interface answers.
type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

fn answer<T>(result: Result<T, SocketError>) -> Answer<T> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

/// Puts functions in the place of Wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut tcp = linker.instance(TCP)?;
    tcp.func_wrap("[method]tcp-socket.accept", accept)?;
    tcp.func_wrap("[method]tcp-socket.start-connect", start_connect)?;
    tcp.func_wrap("[method]tcp-socket.finish-connect", finish_connect)?;
    tcp.func_wrap("[method]tcp-socket.remote-address", remote_address)?;
    tcp.func_wrap("[method]tcp-socket.shutdown", shutdown)?;
    tcp.resource("tcp-socket", ResourceType::host::<TcpSocket>(), close)?;
    linker.allow_shadowing(false);
    Ok(())
}

fn accept(
    mut store: StoreContextMut<'_, GuestState>,
    (socket,): (Resource<TcpSocket>,),
) -> Answer<Connection> {
    let state = store.data_mut();
    let accepted = state.sockets().accept(socket);
    if let (Ok((connection, ..)), Some(ports)) = (&accepted, &state.own_sockets.ports) {
        let guard = ports.accepted_elsewhere();
        state.own_sockets.accepted.insert(connection.rep(), guard);
    }
    answer(accepted)
}

fn start_connect(
    mut store: StoreContextMut<'_, GuestState>,
    (socket, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress),
) -> Answer<()> {
    let (state, remote) = (store.data_mut(), SocketAddr::from(address));
    if !runtime::is_endpoint(&state.setup, remote) {
        return answer(state.sockets().start_connect(socket, network, address));
    }
    if state.own_sockets.runtime.contains_key(&socket.rep()) {
        return Ok((Err(ErrorCode::InvalidState),));
    }
    state.table.get(&socket)?;
    state.own_sockets.runtime.insert(socket.rep(), Runtime { address: remote, is_connected: false });
    Ok((Ok(()),))
}

fn finish_connect(
    mut store: StoreContextMut<'_, GuestState>,
    (socket,): (Resource<TcpSocket>,),
) -> Answer<Streams> {
    let state = store.data_mut();
    let Some(connection) = state.own_sockets.runtime.get_mut(&socket.rep()) else {
        return answer(state.sockets().finish_connect(socket));
    };
    if std::mem::replace(&mut connection.is_connected, true) {
        return Ok((Err(ErrorCode::NotInProgress),));
    }
    let (guest, host) = tokio::io::duplex(BUFFER);
    let (read, write) = tokio::io::split(guest);
    let input: DynInputStream = Box::new(AsyncReadStream::new(read));
    let output: DynOutputStream = Box::new(AsyncWriteStream::new(BUFFER, write));
    let streams = (state.table.push_child(input, &socket)?, state.table.push_child(output, &socket)?);
    // Ends when the guest drops its streams, which it does when it ends itself.
    runtime::spawn(host, &state.setup, state.outbound.origin);
    Ok((Ok(streams),))
}

fn remote_address(
    mut store: StoreContextMut<'_, GuestState>,
    (socket,): (Resource<TcpSocket>,),
) -> Answer<IpSocketAddress> {
    let state = store.data_mut();
    match state.own_sockets.runtime.get(&socket.rep()) {
        Some(connection) => Ok((Ok(connection.address.into()),)),
        None => answer(state.sockets().remote_address(socket)),
    }
}

fn shutdown(
    mut store: StoreContextMut<'_, GuestState>,
    (socket, what): (Resource<TcpSocket>, ShutdownType),
) -> Answer<()> {
    let state = store.data_mut();
    match state.own_sockets.runtime.get(&socket.rep()) {
        // HTTP says by itself where a request ends.
        Some(_) => Ok((Ok(()),)),
        None => answer(state.sockets().shutdown(socket, what)),
    }
}

fn close(mut store: StoreContextMut<'_, GuestState>, socket: u32) -> wasmtime::Result<()> {
    let state = store.data_mut();
    state.own_sockets.accepted.remove(&socket);
    state.own_sockets.runtime.remove(&socket);
    HostTcpSocket::drop(&mut state.sockets(), Resource::new_own(socket))
}
