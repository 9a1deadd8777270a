//! Connections to HTTP and HTTPS servers, and whom to trust: the system's authorities (`SSL_CERT_FILE` and
//! `SSL_CERT_DIR` replace them), or, on a machine without any (an empty container image), those that Mozilla trusts;
//! and those that the user names besides.

use crate::proxy::{Proxies, ProxyConnector};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Connects to `http://` and `https://`, where need be through proxies, trusting these authorities besides the usual ones.
pub(crate) type Connector = HttpsConnector<ProxyConnector>;

/// Makes one.
pub(crate) fn connector(
    ours: Vec<CertificateDer<'static>>,
    proxies: &Arc<Proxies>,
) -> Result<Connector, String> {
    // The provider is named, not the process's default: a library does not choose for the process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let has_system = !roots.is_empty();
    for certificate in ours {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let builder = match has_system || !roots.is_empty() {
        true => builder.with_root_certificates(roots),
        false => builder.with_webpki_roots(),
    };
    let config = builder.with_no_client_auth();
    let builder =
        || HttpsConnectorBuilder::new().with_tls_config(config.clone()).https_or_http().enable_http1();
    // What is said to a proxy is HTTP/1.1, also where it speaks TLS.
    let connector = ProxyConnector::new(Arc::clone(proxies), builder().build());
    Ok(builder().enable_http2().wrap_connector(connector))
}

/// The certificates of a PEM file.
pub(crate) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("it holds no certificate; expected PEM, -----BEGIN CERTIFICATE-----".to_owned());
    }
    Ok(certificates)
}
