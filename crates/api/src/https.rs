//! Connections to servers outside, plain or with TLS: whom to trust is decided where the components' is.

use dhow_providers::tls::Tls;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_rustls::builderstates::WantsSchemes;

/// Begins a connector that trusts the usual authorities.
pub(crate) fn builder() -> HttpsConnectorBuilder<WantsSchemes> {
    let builder = HttpsConnectorBuilder::new();
    match Tls::default().client_config() {
        Ok(config) => builder.with_tls_config(config),
        Err(_) => builder.with_webpki_roots(),
    }
}
