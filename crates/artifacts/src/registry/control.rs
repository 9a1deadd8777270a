//! What the owner's commands ask of a registry that runs: a socket in its folder, which nobody else can open.
//!
//! Only one process has a registry open. A command that finds it open asks that process to do the work.

use super::Registry;
use super::collect::{CollectOptions, Collected};
use super::http::answer;
use super::scrub::Scrubbed;
use super::server::{Listener, Stop};
use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};

/// The socket in the registry's folder.
const SOCKET: &str = "control.sock";

/// Bytes of a question or an answer.
const MAX_MESSAGE: usize = 1 << 20;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Remove what nobody refers to.
    Collect(CollectOptions),
    /// Verify all blobs, at full speed.
    Scrub,
    /// Examine all modules again.
    Reindex,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Of a collection.
    Collected(Collected),
    /// Of a scrub.
    Scrubbed(Scrubbed),
    /// Modules that were examined.
    Reindexed(usize),
    /// It was not done, and why.
    Failed(String),
}

// === impl Registry ===

impl Registry {
    /// Does what an owner asks.
    pub async fn work(&self, work: Work) -> Outcome {
        let done = match work {
            Work::Collect(options) => self.collect(options).await.map(Outcome::Collected),
            Work::Scrub => self.scrub(None).await.map(Outcome::Scrubbed),
            Work::Reindex => self.reindex().await.map(Outcome::Reindexed),
        };
        done.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }

    /// Listens to the owner's commands until `stop`.
    pub async fn obey(self: Arc<Registry>, stop: Stop) -> io::Result<()> {
        let place = Place::of(&self.options.folder)?;
        let _ = std::fs::remove_file(&place.path);
        let listener = UnixListener::bind(&place.path)?;
        std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o600))?;
        let answer = move |request: Request<Incoming>| {
            let registry = Arc::clone(&self);
            async move {
                match read(request).await {
                    Some(work) => answer::json(StatusCode::OK, &registry.work(work).await),
                    None => {
                        answer::json(StatusCode::BAD_REQUEST, &Outcome::Failed("no such work".to_owned()))
                    }
                }
            }
        };
        Listener::unix(listener).serve_with(stop, answer).await;
        let _ = std::fs::remove_file(&place.path);
        Ok(())
    }
}

async fn read(request: Request<Incoming>) -> Option<Work> {
    if request.method() != Method::POST {
        return None;
    }
    let body = Limited::new(request.into_body(), MAX_MESSAGE).collect().await.ok()?;
    serde_json::from_slice(&body.to_bytes()).ok()
}

/// Asks the process that has the registry of this folder open. It takes as long as the work does.
pub async fn ask(folder: &Path, work: Work) -> io::Result<Outcome> {
    let place = Place::of(folder)?;
    let stream = UnixStream::connect(&place.path).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // An error of the connection also comes to whoever waits for the answer.
    tokio::spawn(async move { drop(connection.await) });
    let body = serde_json::to_vec(&work).map_err(io::Error::other)?;
    let request =
        Request::post("/").header(::http::header::HOST, "registry").body(Full::new(Bytes::from(body)));
    let answer: Response<Incoming> =
        sender.send_request(request.map_err(io::Error::other)?).await.map_err(io::Error::other)?;
    json(answer).await
}

/// Reads a small document.
pub(super) async fn json<T: DeserializeOwned>(answer: Response<Incoming>) -> io::Result<T> {
    let body =
        Limited::new(answer.into_body(), 64 * MAX_MESSAGE).collect().await.map_err(io::Error::other)?;
    serde_json::from_slice(&body.to_bytes()).map_err(io::Error::other)
}

/// The socket's path through the open folder: the system takes no more than 107 bytes, and folders may be deeper.
struct Place {
    path: PathBuf,
    _folder: File,
}

// === impl Place ===

impl Place {
    fn of(folder: &Path) -> io::Result<Place> {
        let folder = File::open(folder)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()).into();
        Ok(Place { path, _folder: folder })
    }
}
