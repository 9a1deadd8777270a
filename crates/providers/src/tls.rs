//! TLS to a server: whom to trust, and who one is.
//!
//! Certificates are checked against the system's authorities, or Mozilla's on a machine without any, unless somebody
//! names others.

use crate::metadata::ComponentSpec;
use crate::registry::OpenError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

const A_CERTIFICATE: &str = "a certificate in PEM format (-----BEGIN CERTIFICATE-----)";
const A_KEY: &str = "an unencrypted private key in PEM format, of the client certificate";

/// How to trust a server, and how to be trusted. Its `Debug` shows no key.
#[derive(Clone, Default)]
pub struct Tls {
    /// Certificates of the authorities to trust instead of the system's, PEM.
    pub authorities: Option<Vec<u8>>,
    /// Own certificates and their key, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Trust everybody.
    pub insecure: bool,
}

/// Takes every certificate; that the server holds its key is still checked.
#[derive(Debug)]
pub(crate) struct TrustAll(pub(crate) Arc<CryptoProvider>);

// === impl Tls ===

impl Tls {
    /// Reads Dapr's fields `caCert`, `clientCert` and `clientKey`.
    pub(crate) fn of(component: &ComponentSpec) -> Result<Tls, OpenError> {
        let field = |name: &str| component.field(&[name]).map(|pem| pem.as_bytes().to_vec());
        let authorities = field("caCert");
        if authorities.as_deref().is_some_and(|pem| certificates(pem).is_none()) {
            return Err(component.invalid(&["caCert"], A_CERTIFICATE));
        }
        let identity = match (field("clientCert"), field("clientKey")) {
            (None, None) => None,
            (Some(_), None) => return Err(component.invalid(&["clientKey"], "given with clientCert")),
            (None, Some(_)) => return Err(component.invalid(&["clientCert"], "given with clientKey")),
            (Some(certificate), Some(key)) => {
                if certificates(&certificate).is_none() {
                    return Err(component.invalid(&["clientCert"], A_CERTIFICATE));
                }
                if PrivateKeyDer::from_pem_slice(&key).is_err() {
                    return Err(component.invalid(&["clientKey"], A_KEY));
                }
                Some((certificate, key))
            }
        };
        Ok(Tls { authorities, identity, insecure: false })
    }

    /// The configuration of a client. The error says which certificate is of no use, and shows no key.
    pub fn client_config(&self) -> Result<ClientConfig, String> {
        // The provider is named, not the process's default: a library does not choose for the process.
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let Some((chain, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let chain =
            certificates(chain).ok_or("the client's certificate is not a certificate in PEM format")?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "the client's key is not a private key in PEM format")?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the client's certificate and key do not fit together: {error}"))
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        let Some(pem) = &self.authorities else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            return Ok(roots);
        };
        for certificate in certificates(pem).ok_or("the authority's certificate is not in PEM format")? {
            roots.add(certificate).map_err(|error| format!("the authority's certificate: {error}"))?;
        }
        Ok(roots)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .field("insecure", &self.insecure)
            .finish()
    }
}

/// The certificates in a PEM text; `None` unless there is at least one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty())
}

// === impl TrustAll ===

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
