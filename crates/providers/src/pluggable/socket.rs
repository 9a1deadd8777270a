//! The connection to a component's process: one of HTTP/2 over a Unix socket, shared by all calls, and made again when
//! it is lost. Each new connection begins with `Init`, for the process may be another one that knows nothing.

use super::proto::MetadataRequest;
use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use dhow_blocks::error::BlockError;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::future::Future;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tonic::{Code, Response, Status};
use tower_service::Service;

/// The component that a call is for, in a process that serves several.
const INSTANCE: HeaderName = HeaderName::from_static("x-component-instance");

/// A call that is not answered by then has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A process that says nothing for this long is asked whether it is there, and given this long to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Bytes that a stream may send unasked.
const WINDOW: u32 = 1 << 20;

/// Largest message, in bytes: a value of state and its surroundings.
pub(super) const MAX_MESSAGE: usize = dhow_blocks::state::MAX_VALUE_BYTES + (1 << 20);

/// The first call on each connection.
pub(super) type Init = fn(Channel, MetadataRequest) -> BoxFuture<'static, Result<(), Status>>;

/// A component in a process of its own.
pub(super) struct Socket {
    /// The component's name.
    pub(super) name: String,
    path: PathBuf,
    instance: HeaderValue,
    properties: MetadataRequest,
    init: Init,
    /// None after the component was closed.
    connection: Mutex<Option<Connection>>,
}

enum Connection {
    None,
    Open(Channel),
}

/// A connection, as the stubs of gRPC use it.
#[derive(Clone)]
pub(super) struct Channel {
    sender: http2::SendRequest<tonic::body::Body>,
    instance: HeaderValue,
}

// === impl Socket ===

impl Socket {
    /// Connects, and calls `Init`.
    pub(super) async fn open(component: &ComponentSpec, init: Init) -> Result<Socket, OpenError> {
        let path = super::path(&component.component_type);
        let path = path.ok_or_else(|| component.backend("its socket is gone; does its process run?"))?;
        let instance = HeaderValue::from_str(&component.name)
            .map_err(|_| component.backend("its name cannot stand in a header; use letters and digits"))?;
        let properties = MetadataRequest { properties: component.metadata.iter().cloned().collect() };
        let socket = Socket {
            name: component.name.clone(),
            path,
            instance,
            properties,
            init,
            connection: Mutex::new(Some(Connection::None)),
        };
        let connected = socket.channel().await;
        connected
            .map_err(|error| component.backend(format!("{}: {}", socket.path.display(), told(&error))))?;
        Ok(socket)
    }

    /// The connection; a new one if there is none.
    pub(super) async fn channel(&self) -> Result<Channel, Status> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            None => return Err(Status::unavailable("the component is closed")),
            Some(Connection::Open(channel)) if !channel.sender.is_closed() => return Ok(channel.clone()),
            Some(_) => {}
        }
        let channel = within(self.connect()).await?;
        within((self.init)(channel.clone(), self.properties.clone())).await?;
        *connection = Some(Connection::Open(channel.clone()));
        Ok(channel)
    }

    async fn connect(&self) -> Result<Channel, Status> {
        let failed = |error: &dyn std::fmt::Display| {
            Status::unavailable(format!(
                "{}: {error}; does the component's process run?",
                self.path.display()
            ))
        };
        let stream = UnixStream::connect(&self.path).await.map_err(|error| failed(&error))?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| failed(&error))?;
        let name = self.name.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("component {name}: its connection ended: {error}");
            }
        });
        Ok(Channel { sender, instance: self.instance.clone() })
    }

    /// One call, with its deadline. `call` may be made twice: a connection that was lost unnoticed fails the first
    /// time, before anything was sent.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut channel = self.channel().await?;
        if std::future::poll_fn(|context| channel.sender.poll_ready(context)).await.is_err() {
            channel = self.channel().await?;
        }
        within(call(channel)).await.map(Response::into_inner)
    }

    /// Lets go of the connection. Later calls are `Unavailable`.
    pub(super) async fn close(&self) {
        *self.connection.lock().await = None;
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {DEADLINE:?}"));
    tokio::time::timeout(DEADLINE, call).await.map_err(late)?
}

/// Where the paths of gRPC begin.
pub(super) fn origin() -> Uri {
    Uri::from_static("http://component")
}

/// A status as text.
pub(super) fn told(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}

/// The error of a block that a status stands for.
pub(super) fn error(status: &Status) -> BlockError {
    let reason = told(status);
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => BlockError::invalid(reason),
        Code::Unimplemented => BlockError::NotSupported { feature: "this operation" },
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted => {
            BlockError::unavailable(reason)
        }
        _ => BlockError::failed(reason),
    }
}

// === impl Channel ===

impl Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<tonic::body::Body>) -> Self::Future {
        request.headers_mut().insert(INSTANCE, self.instance.clone());
        Box::pin(self.sender.send_request(request))
    }
}
