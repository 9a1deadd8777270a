//! A policy server elsewhere: an OPA, or whatever answers like one. What is sent and what an answer means is in
//! `dhow_claims::policy::opa`.

use crate::https;
use async_trait::async_trait;
use bytes::Bytes;
use dhow_host::PolicyServer;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Asks a policy server over HTTP; connections are kept. Redirections are not followed: they are no answer.
pub struct Opa {
    uri: Uri,
    shown: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

// === impl Opa ===

impl Opa {
    /// The server at this URL, `http` or `https`, which is asked at exactly this path.
    pub fn new(url: &str) -> Result<Opa, String> {
        let uri: Uri = url.parse().map_err(|error| format!("it is no URL: {error}"))?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("expected a URL such as http://127.0.0.1:8181/".to_owned());
        };
        if authority.as_str().contains('@') {
            return Err("user and password in a URL would be seen by everybody; leave them out".to_owned());
        }
        let connector = https::builder().https_or_http().enable_all_versions().build();
        let mut client = Client::builder(TokioExecutor::new());
        client.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        // What is behind a `?` may be a secret.
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        Ok(Opa { uri, shown, client: client.build(connector) })
    }
}

#[async_trait]
impl PolicyServer for Opa {
    fn url(&self) -> &str {
        &self.shown
    }

    fn path(&self) -> &str {
        self.uri.path()
    }

    async fn post(&self, body: Vec<u8>, limit: usize) -> Result<(u16, Vec<u8>), String> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self.client.request(request).await.map_err(|error| crate::neighbours::chain(&error))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), limit).collect().await;
        let body =
            body.map_err(|error| format!("its answer broke off, or has more than {limit} bytes: {error}"))?;
        Ok((status, body.to_bytes().to_vec()))
    }
}
