//! What a connection's `sslmode` asks for, with rustls.

use super::connection_string::{TlsSettings, Verify};
use crate::tls::TrustAll;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

/// Makes connections private.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

/// TLS with one host.
pub(super) struct TlsToHost {
    connector: TlsConnector,
    /// None: no certificate can have the host's name. The client asks for TLS to every host, also to a socket.
    host: Option<ServerName<'static>>,
}

/// A private connection.
pub(super) struct Stream<S>(client::TlsStream<S>);

/// Verifies that a known authority signed the certificate, whatever name it has.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Arc<WebPkiServerVerifier>,
}

// === impl Tls ===

impl Tls {
    /// Reads the certificates; the error says which file is wrong.
    pub(super) fn new(settings: &TlsSettings) -> Result<Tls, String> {
        let provider = Arc::new(ring::default_provider());
        let failed = |error: Error| format!("TLS: {error}");
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(failed)?;
        let builder = match settings.verify {
            Verify::Name => builder.with_root_certificates(roots(settings)?),
            Verify::Nothing => {
                let verifier = Arc::new(TrustAll(provider));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            Verify::Authority => {
                let roots = Arc::new(roots(settings)?);
                let authority = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let authority = authority.build().map_err(|error| format!("sslrootcert: {error}"))?;
                let verifier = Arc::new(Lenient { provider, authority });
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let config = match (&settings.certificate, &settings.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates("sslcert", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|_| {
                    format!("sslkey: {key} cannot be read, or holds no private key in PEM format")
                })?;
                let fitting = builder.with_client_auth_cert(chain, key);
                fitting.map_err(|_| "sslcert and sslkey do not fit together".to_owned())?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match settings.root_certificates.as_deref() {
        None | Some("system") => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("no certificates of authorities are installed on this machine; install \
                            ca-certificates, or name a file in sslrootcert"
                    .to_owned());
            }
        }
        Some(file) => {
            for certificate in certificates("sslrootcert", file)? {
                roots.add(certificate).map_err(|error| format!("sslrootcert: {file}: {error}"))?;
            }
        }
    }
    Ok(roots)
}

fn certificates(keyword: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = || format!("{keyword}: {file} cannot be read, or holds no certificate in PEM format");
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|_| wrong())?.collect();
    certificates.ok().filter(|certificates| !certificates.is_empty()).ok_or_else(wrong)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = TlsToHost;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<TlsToHost> {
        Ok(TlsToHost { connector: self.0.clone(), host: ServerName::try_from(host.to_owned()).ok() })
    }
}

// === impl TlsToHost ===

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for TlsToHost {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let no_name = || io::Error::other("the host is no name that a certificate can have");
            Ok(Stream(self.connector.connect(self.host.ok_or_else(no_name)?, stream).await?))
        })
    }
}

// === impl Stream ===

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

// === impl Lenient ===

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
