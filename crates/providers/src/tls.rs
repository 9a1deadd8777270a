//! TLS to a broker or a mail server: certificates from a component's metadata, as PEM.

use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

const A_CERTIFICATE: &str = "a certificate in PEM format (-----BEGIN CERTIFICATE-----)";
const A_KEY: &str = "an unencrypted private key in PEM format, of the client certificate";

/// What a component says about TLS. Its `Debug` shows no key.
#[derive(Clone, Default)]
pub(crate) struct TlsOptions {
    /// Whom to trust instead of the certificate authorities of the system.
    pub(crate) ca: Option<String>,
    /// The client's certificate chain and its key.
    pub(crate) client: Option<(String, String)>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key is none.
    #[error("{field}: expected {expected}")]
    Field {
        /// Which, by Dapr's name of the field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Certificate and key do not belong together, say.
    #[error("{0}")]
    Other(String),
}

// === impl TlsOptions ===

impl TlsOptions {
    /// Reads Dapr's fields `caCert`, `clientCert` and `clientKey`.
    pub(crate) fn of(component: &ComponentSpec) -> Result<TlsOptions, OpenError> {
        let ca = component.field(&["caCert"]).map(str::to_owned);
        if ca.as_deref().is_some_and(|ca| certificates(ca).is_none()) {
            return Err(component.invalid(&["caCert"], A_CERTIFICATE));
        }
        let client = match (component.field(&["clientCert"]), component.field(&["clientKey"])) {
            (None, None) => None,
            (Some(_), None) => return Err(component.invalid(&["clientKey"], "given with clientCert")),
            (None, Some(_)) => return Err(component.invalid(&["clientCert"], "given with clientKey")),
            (Some(certificate), Some(key)) => {
                if certificates(certificate).is_none() {
                    return Err(component.invalid(&["clientCert"], A_CERTIFICATE));
                }
                if private_key(key).is_none() {
                    return Err(component.invalid(&["clientKey"], A_KEY));
                }
                Some((certificate.to_owned(), key.to_owned()))
            }
        };
        Ok(TlsOptions { ca, client })
    }

    /// The configuration of a component's client.
    pub(crate) fn client_config(&self, component: &ComponentSpec) -> Result<ClientConfig, OpenError> {
        self.configure().map_err(|error| match error {
            TlsError::Field { field, expected } => component.invalid(&[field], expected),
            TlsError::Other(reason) => OpenError::Backend { component: component.name.clone(), reason },
        })
    }

    /// The configuration of a client.
    pub(crate) fn configure(&self) -> Result<ClientConfig, TlsError> {
        let wrong = |field, expected| TlsError::Field { field, expected };
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(ca) => {
                let ca = certificates(ca).ok_or(wrong("caCert", A_CERTIFICATE))?;
                roots.add_parsable_certificates(ca);
            }
            None => {
                // What cannot be read is missed by the handshake, which then says so.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let failed = |error: rustls::Error| TlsError::Other(error.to_string());
        let builder = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
        let builder = builder.map_err(failed)?.with_root_certificates(roots);
        let Some((certificate, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates(certificate).ok_or(wrong("clientCert", A_CERTIFICATE))?;
        let key = private_key(key).ok_or(wrong("clientKey", A_KEY))?;
        builder.with_client_auth_cert(chain, key).map_err(failed)
    }
}

/// The certificates in a PEM text; `None` unless there is at least one.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    all.ok().filter(|all| !all.is_empty())
}

fn private_key(pem: &str) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let TlsOptions { ca, client } = self;
        f.debug_struct("TlsOptions").field("ca", &ca.is_some()).field("client", &client.is_some()).finish()
    }
}
