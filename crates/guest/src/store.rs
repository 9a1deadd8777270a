//! The state of one running guest.

use crate::messaging::wasi::OpenMessages;
use crate::outbound::Outbound;
use crate::output::LineStream;
use crate::setup::{Setup, Stdio, Stream};
use crate::sockets::{ComponentSockets, Ports};
use dhow_blocks::grants::Ask;
use dhow_blocks::trace::TraceContext;
use dhow_engine::Limiter;
use std::sync::Arc;
use wasmtime::Store;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// Data of a component's store.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
    pub(crate) outbound: Outbound,
    pub(crate) limiter: Limiter,
    pub(crate) messages: OpenMessages,
    pub(crate) own_sockets: ComponentSockets,
    pub(crate) setup: Arc<Setup>,
}

/// Which invocation a guest serves; changes when an instance is used again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) trace: TraceContext,
    pub(crate) depth: u8,
}

/// A store for a component, with every limit of the app in force.
pub(crate) fn new_store(
    engine: &wasmtime::Engine,
    setup: &Arc<Setup>,
    wasi: WasiCtx,
    origin: Origin,
) -> Store<GuestState> {
    let mut table = ResourceTable::new();
    table.set_max_capacity(setup.bounds.handles);
    let state = GuestState {
        wasi,
        http: WasiHttpCtx::new(),
        table,
        outbound: Outbound::new(Arc::clone(setup), origin),
        limiter: Limiter::new(setup.bounds.engine),
        messages: OpenMessages::default(),
        own_sockets: ComponentSockets::default(),
        setup: Arc::clone(setup),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    interruptible(&mut store);
    store
}

/// Ticks that a guest may compute before it yields for the first time. With one, a guest that begins just
/// before a tick would go back to the end of the queue after no time at all, and its request wait twice.
const UNDISTURBED: u64 = 2;

/// A guest that computes for long yields to the executor at every tick, where its deadline is looked at (see
/// `run`).
pub(crate) fn interruptible<T>(store: &mut Store<T>) {
    undisturbed(store);
    store.epoch_deadline_async_yield_and_update(1);
}

/// Lets the guest compute anew for [`UNDISTURBED`] ticks.
pub(crate) fn undisturbed<T>(store: &mut Store<T>) {
    store.set_epoch_deadline(UNDISTURBED);
}

/// The system interface of preview 1, with the app's limit of open files in force.
pub(crate) fn preview1(mut builder: WasiCtxBuilder, setup: &Setup) -> WasiP1Ctx {
    let mut wasi = builder.build_p1();
    wasi.ctx().table.set_max_capacity(setup.bounds.handles);
    wasi
}

/// The system interface of a service: output by lines, no input.
pub(crate) fn service(setup: &Arc<Setup>) -> Result<WasiCtx, wasmtime::Error> {
    let mut builder = system(setup, &setup.args, &[], &Ports::new())?;
    lines(&mut builder, setup);
    Ok(builder.build())
}

/// The system interface of a command.
pub(crate) fn command(
    setup: &Arc<Setup>,
    args: &[String],
    stdio: Stdio,
    ports: &Arc<Ports>,
) -> Result<WasiCtxBuilder, wasmtime::Error> {
    let mut builder = system(setup, args, &[], ports)?;
    match stdio {
        Stdio::Inherit => {
            builder.inherit_stdio();
        }
        Stdio::Lines => lines(&mut builder, setup),
    }
    Ok(builder)
}

/// Arguments, environment, files and sockets; standard streams are closed.
pub(crate) fn system(
    setup: &Arc<Setup>,
    args: &[String],
    more_env: &[(String, String)],
    ports: &Arc<Ports>,
) -> Result<WasiCtxBuilder, wasmtime::Error> {
    let mut builder = WasiCtxBuilder::new();
    if !args.is_empty() {
        builder.args(args);
    }
    if !setup.env.is_empty() || !more_env.is_empty() {
        builder.envs(&setup.env).envs(more_env);
    }
    for dir in &setup.dirs {
        let permissions = if dir.writable { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
        builder
            .preopened_dir(&dir.host, &dir.guest, permissions)
            .map_err(|error| error.context(format!("cannot open folder {}", dir.host.display())))?;
    }
    let grants = &setup.scope.grants;
    // A Dapr endpoint needs no grant, but a socket to reach it.
    if !grants.connect.is_empty() || !grants.listen.is_empty() || setup.runtime_api.is_some() {
        sockets(&mut builder, setup, ports);
    }
    Ok(builder)
}

fn lines(builder: &mut WasiCtxBuilder, setup: &Arc<Setup>) {
    builder.stdout(LineStream::new(setup, Stream::Stdout));
    builder.stderr(LineStream::new(setup, Stream::Stderr));
}

fn sockets(builder: &mut WasiCtxBuilder, setup: &Arc<Setup>, ports: &Arc<Ports>) {
    builder.allow_tcp(true).allow_udp(true);
    let (setup, ports) = (Arc::clone(setup), Arc::clone(ports));
    builder.socket_addr_check(move |address, usage| {
        let scope = &setup.scope;
        let host = address.ip().to_string();
        let port = address.port();
        let ask = match usage {
            // Before a connect the system binds to any address; the connect itself is checked next.
            SocketAddrUse::TcpBind if address.ip().is_unspecified() && port == 0 => {
                return Box::pin(std::future::ready(true));
            }
            SocketAddrUse::UdpBind
                if address.ip().is_unspecified() && port == 0 && !scope.grants.connect.is_empty() =>
            {
                return Box::pin(std::future::ready(true));
            }
            SocketAddrUse::TcpConnect | SocketAddrUse::UdpSend => {
                return Box::pin(std::future::ready(setup.may_connect(address).is_ok()));
            }
            // It asked for a port of the system's choice when it was bound, and has one now.
            SocketAddrUse::TcpListen if scope.grants.allows(Ask::Listen { host: &host, port: 0 }) => {
                Ask::Listen { host: &host, port: 0 }
            }
            SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::UdpBind => {
                Ask::Listen { host: &host, port }
            }
            // A peer of a socket that was allowed to listen; of none any more when the host closes its ports.
            SocketAddrUse::TcpAccept => return Box::pin(std::future::ready(ports.accepts_elsewhere())),
            // A peer of a socket that was sent to.
            SocketAddrUse::UdpReceive => return Box::pin(std::future::ready(true)),
        };
        let is_allowed = scope.check(ask).is_ok();
        if is_allowed && matches!(usage, SocketAddrUse::TcpListen) {
            ports.listens_elsewhere(address);
        }
        Box::pin(std::future::ready(is_allowed))
    });
}

// === impl GuestState ===

impl GuestState {
    /// Prepares for another invocation of the same instance.
    pub(crate) fn serve_again(&mut self, origin: Origin) {
        self.outbound.origin = origin;
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}
