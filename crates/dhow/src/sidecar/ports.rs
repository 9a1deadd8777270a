//! Where a sidecar listens: the ports that were asked for, else the usual ones, else any.

use crate::Error;
use crate::serve::Serving;
use dhow_api::dapr::DaprFace;
use dhow_api::grpc::GrpcFace;
use dhow_api::management::Management;
use dhow_api::server::Listener;
use dhow_resources::multi_app::App;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixListener;

/// Dapr's usual ports.
const HTTP: u16 = 3500;
const GRPC: u16 = 50001;
const METRICS: u16 = 9090;

/// Where a sidecar listens.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// The HTTP API.
    pub(super) http: Option<SocketAddr>,
    /// The gRPC API.
    pub(super) grpc: Option<SocketAddr>,
    /// Metrics and health.
    pub(super) metrics: Option<SocketAddr>,
    /// Sockets in place of the API's ports; removed when dropped.
    pub(super) sockets: Vec<Socket>,
}

/// A Unix socket's file.
#[derive(Debug)]
pub(super) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens them all.
pub(super) fn open(
    serving: &mut Serving,
    spec: &App,
    http: Arc<DaprFace>,
    grpc: Arc<GrpcFace>,
) -> Result<Ports, Error> {
    let addresses = addresses(spec)?;
    let mut ports = Ports::default();
    match &spec.unix_domain_socket {
        Some(folder) => {
            for kind in ["http", "grpc"] {
                let path = folder.join(format!("dapr-{}-{kind}.socket", spec.app_id));
                let _ = std::fs::remove_file(&path);
                let listener = UnixListener::bind(&path)
                    .map_err(|error| Error::new(format!("cannot listen on {}: {error}", path.display())))?;
                match kind {
                    "http" => serving.serve(Listener::Unix(listener), Arc::clone(&http)),
                    _ => serving.serve(Listener::Unix(listener), Arc::clone(&grpc)),
                }
                ports.sockets.push(Socket(path));
            }
        }
        None => {
            for address in addresses {
                let listener = listen(address, ports.http.map(|http| http.port()).or(spec.http_port), HTTP)?;
                ports.http = ports.http.or(listener.address());
                serving.serve(listener, Arc::clone(&http));
                let listener = listen(address, ports.grpc.map(|grpc| grpc.port()).or(spec.grpc_port), GRPC)?;
                ports.grpc = ports.grpc.or(listener.address());
                serving.serve(listener, Arc::clone(&grpc));
            }
        }
    }
    let listener = listen(IpAddr::V4(Ipv4Addr::LOCALHOST), spec.metrics_port, METRICS)?;
    ports.metrics = listener.address();
    let host = Arc::clone(&serving.host);
    serving.serve(listener, Arc::new(Management { host, live: None }));
    Ok(ports)
}

/// The addresses that were asked for; without any only this machine reaches the API.
fn addresses(spec: &App) -> Result<Vec<IpAddr>, Error> {
    if spec.api_listen_addresses.is_empty() {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    }
    let parse = |text: &String| {
        let text = text.trim().trim_start_matches('[').trim_end_matches(']');
        text.parse().map_err(|_| Error::usage(format!("{text:?} is not an address to listen on")))
    };
    spec.api_listen_addresses.iter().map(parse).collect()
}

/// The port that was asked for; without one the usual port, or any if that is taken.
fn listen(address: IpAddr, asked: Option<u16>, usual: u16) -> Result<Listener, Error> {
    let listen = |port| Listener::tcp(SocketAddr::new(address, port));
    let listener = match asked.filter(|port| *port != 0) {
        Some(port) => listen(port),
        None => listen(usual).or_else(|_| listen(0)),
    };
    listener.map_err(|error| Error::new(error.to_string()))
}
