//! Whether the program listens, and whether it is well.
//!
//! What it subscribes to is asked when its port answers. With health checks on, a program that is not well gets
//! no events until it is again.

use dhow_api::dapr::Dapr;
use dhow_blocks::invoke::{Body, Channel, Invocation, Trigger};
use dhow_host::{App, Host};
use dhow_resources::multi_app::{self, AppProtocol, HealthCheck};
use http::Request;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// Between two looks at the port: nothing tells when a foreign program listens.
const POLL: Duration = Duration::from_millis(50);

/// After this long it is worth a word that the program does not listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The API is not ready before the program's subscriptions are in force, or for so long, if a broker is away.
const SUBSCRIBING: Duration = Duration::from_secs(5);

/// Follows the program for as long as it runs.
pub(super) async fn watch(
    host: Arc<Host>,
    api: Arc<Dapr>,
    app: Arc<App>,
    channel: Arc<dyn Channel>,
    spec: multi_app::App,
) {
    let Some(port) = spec.app_port else { return };
    let address = spec.app_channel_address.as_deref().unwrap_or("127.0.0.1");
    let mut waited = Duration::ZERO;
    while TcpStream::connect((address, port)).await.is_err() {
        tokio::time::sleep(POLL).await;
        waited += POLL;
        if waited >= PATIENCE {
            waited = Duration::ZERO;
            tracing::warn!("waiting for app {} to listen on port {port}", spec.app_id);
        }
    }
    tracing::info!("app {} listens on port {port}", spec.app_id);
    let mut listening = pin!(host.listen_for(&app));
    let listens = tokio::time::timeout(SUBSCRIBING, &mut listening).await.is_ok();
    api.set_ready(true);
    if !listens {
        listening.await;
    }
    if let Some(check) = &spec.health_check {
        follow(&host, &app, &*channel, check, spec.app_protocol).await;
    }
}

/// Asks the program itself: the question takes no turn from requests, waits for none, and counts as none.
async fn follow(
    host: &Arc<Host>,
    app: &Arc<App>,
    channel: &dyn Channel,
    check: &HealthCheck,
    protocol: AppProtocol,
) {
    let path = match protocol {
        AppProtocol::Grpc | AppProtocol::Grpcs => "/healthz",
        _ => check.path.as_str(),
    };
    let mut failures = 0;
    let mut interval = tokio::time::interval(check.interval.max(Duration::from_millis(100)));
    loop {
        interval.tick().await;
        let mut request = Request::new(Body::Empty);
        match path.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                tracing::error!("the health check's path {path:?} is not valid: {error}");
                return;
            }
        }
        let probe = channel.invoke(Invocation::new(request, Trigger::Host));
        let well = match tokio::time::timeout(check.timeout, probe).await {
            Ok(Ok(reply)) => reply.status().is_success(),
            Ok(Err(_)) | Err(_) => false,
        };
        if well {
            if failures >= check.threshold {
                tracing::info!("app {} is well again", app.app_id);
                host.triggers().set_well(host, app, true).await;
            }
            failures = 0;
            continue;
        }
        failures += 1;
        if failures == check.threshold {
            tracing::warn!("app {} is not well: it gets no events until it is", app.app_id);
            host.triggers().set_well(host, app, false).await;
        }
    }
}
