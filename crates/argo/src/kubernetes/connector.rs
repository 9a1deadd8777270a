//! Connections to HTTP and HTTPS servers that are kept for long.

use dhow_providers::tls::Tls;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use std::time::Duration;

/// A connection has to be there after this time.
const CONNECT: Duration = Duration::from_secs(10);

/// A silent connection is looked after so often: a watch waits minutes for news, and has to notice when the other side
/// is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Connects to `http://` and `https://`. The error says which certificate is of no use.
pub(crate) fn connect_with(tls: &Tls) -> Result<HttpsConnector<HttpConnector>, String> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    http.set_nodelay(true);
    http.set_keepalive(Some(KEEP_ALIVE));
    http.set_keepalive_interval(Some(KEEP_ALIVE));
    http.set_keepalive_retries(Some(3));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls.client_config()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http))
}
