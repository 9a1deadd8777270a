//! Requests to other apps, wherever they run.

use crate::wit::invoke as wit;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Another app.
#[derive(Clone, Debug)]
pub struct App {
    id: String,
}

/// A request, in the words of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Names and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// An answer. That an app answers 404 or 500 is an answer, not an error, for [`App::send`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status of HTTP.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

// === impl App ===

impl App {
    /// The app of this id.
    pub fn new(id: impl Into<String>) -> App {
        App { id: id.into() }
    }

    /// `GET`s JSON; a status other than 2xx is [`Error::Failed`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let request =
            Request { method: "GET".into(), path: path.into(), headers: Vec::new(), body: Vec::new() };
        self.send(request)?.success(&self.id)
    }

    /// `POST`s JSON and reads JSON; a status other than 2xx is [`Error::Failed`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, value: &(impl Serialize + ?Sized)) -> Result<T> {
        let headers = vec![("content-type".to_owned(), b"application/json".to_vec())];
        let body = serde_json::to_vec(value)?;
        self.send(Request { method: "POST".into(), path: path.into(), headers, body })?.success(&self.id)
    }

    /// Sends a request and waits for the whole answer.
    pub fn send(&self, request: Request) -> Result<Response> {
        let Request { method, path, headers, body } = request;
        let wit::Response { status, headers, body } =
            wit::call(&self.id, &wit::Request { method, path, headers, body })?;
        Ok(Response { status, headers, body })
    }
}

// === impl Response ===

impl Response {
    /// The body out of JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    fn success<T: DeserializeOwned>(&self, app_id: &str) -> Result<T> {
        if !(200..300).contains(&self.status) {
            let body = String::from_utf8_lossy(&self.body);
            return Err(Error::Failed(format!("app {app_id:?} answered {}: {body}", self.status)));
        }
        self.json()
    }
}
