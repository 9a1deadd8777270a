//! The HTTP client of the providers that speak HTTP.
//!
//! Certificates are checked against the system's authorities, or Mozilla's on a machine without any, unless
//! a component names its own. Nothing follows redirections by itself, and every wait has a deadline.

use bytes::{Bytes, BytesMut};
use dhow_blocks::error::BlockError;
use dhow_blocks::invoke::Body;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;
use std::time::Duration;

/// A server that does not take a connection within this time is not there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// Idle connections are kept this long …
const IDLE: Duration = Duration::from_secs(30);

/// … and this many of them for one server.
const IDLE_CONNECTIONS: usize = 32;

/// How to trust a server, and how to be trusted.
#[derive(Default)]
pub struct Tls {
    /// Certificates of the authorities to trust instead of the system's, PEM.
    pub authorities: Option<Vec<u8>>,
    /// Own certificates and their key, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Trust everybody.
    pub insecure: bool,
}

/// A client with its pool of connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

// === impl HttpClient ===

impl HttpClient {
    /// Fails when a certificate or key cannot be read. The error shows neither.
    pub fn new(tls: &Tls) -> Result<HttpClient, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
        let builder = HttpsConnectorBuilder::new().with_tls_config(config(tls)?).https_or_http();
        let connector = builder.enable_http1().enable_http2().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(connector);
        Ok(HttpClient { client })
    }

    /// Sends a request and reads the answer's head. The error does not show the URL, which may be secret.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BlockError> {
        let host = request.uri().authority().map(|authority| authority.host().to_owned()).unwrap_or_default();
        let answer = self.client.request(request).await;
        answer.map_err(|error| BlockError::unavailable(format!("{host}: {}", chain(&error))))
    }

    /// Sends a request and reads the answer, of which the body may have so many bytes.
    pub async fn exchange(
        &self,
        request: Request<Body>,
        limit: u64,
        deadline: Duration,
    ) -> Result<Response<Bytes>, BlockError> {
        let exchange = async { read(self.send(request).await?, limit).await };
        tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| Err(late(deadline)))
    }
}

/// What is said when there was no whole answer in time.
pub(crate) fn late(deadline: Duration) -> BlockError {
    BlockError::unavailable(format!("no complete answer within {deadline:?}"))
}

/// Reads a body of at most so many bytes.
pub(crate) async fn read(response: Response<Incoming>, limit: u64) -> Result<Response<Bytes>, BlockError> {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            BlockError::unavailable(format!("the answer was interrupted: {}", chain(&error)))
        })?;
        if let Ok(data) = frame.into_data() {
            if (bytes.len() + data.len()) as u64 > limit {
                return Err(BlockError::failed(format!("the answer is longer than {limit} bytes")));
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Response::from_parts(head, bytes.freeze()))
}

fn config(tls: &Tls) -> Result<ClientConfig, String> {
    // The provider is named, not the process's default: a library does not choose for the process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &tls.authorities {
        _ if tls.insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAll(provider)))
        }
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| format!("a certificate is not usable: {error}"))?;
            }
            builder.with_root_certificates(roots)
        }
        None => match builder.clone().with_native_roots() {
            Ok(builder) => builder,
            Err(_) => builder.with_webpki_roots(),
        },
    };
    let Some((chain, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "the key is not a private key in PEM".to_owned())?;
    builder
        .with_client_auth_cert(certificates(chain)?, key)
        .map_err(|error| format!("the certificate and the key do not fit together: {error}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err("there is no certificate in PEM".to_owned()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Takes every certificate (`insecureSSL`); that the server holds its key is still checked.
#[derive(Debug)]
struct TrustAll(Arc<CryptoProvider>);

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
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
