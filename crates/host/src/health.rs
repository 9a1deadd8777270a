//! Whether a version of an app can serve, found out before it does.

use crate::app::{App, Kind};
use crate::service::State;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use http::{Request, Uri};
use std::sync::Arc;
use std::time::Duration;

/// A version has this long to answer at its health path.
const ANSWER: Duration = Duration::from_secs(10);

/// A service has this long to listen.
const LISTEN: Duration = Duration::from_secs(30);

impl App {
    /// Makes an instance, and asks the health path if there is one. A service is started beside `before`, whose ports it
    /// shares, and has to listen. The error says what is wrong.
    pub(crate) async fn check(self: &Arc<Self>, before: Option<&Arc<App>>) -> Result<(), String> {
        match (&self.kind, &self.service) {
            (Kind::Native(_), _) => return Ok(()),
            // A component's listeners are its own; while the old version has the ports this one cannot begin.
            (Kind::Wasm(_), Some(_)) if !self.can_share_ports(before) => return Ok(()),
            (Kind::Wasm(_), Some(service)) => {
                if service.state() == State::Registered {
                    tokio::spawn(Arc::clone(self).supervise(before.cloned()));
                }
                let listens = tokio::time::timeout(LISTEN, service.begun()).await;
                listens.map_err(|_| format!("it does not listen after {LISTEN:?}"))??;
            }
            (Kind::Wasm(module), None) => {
                let guest = self.guest(module).await.map_err(|error| error.to_string())?;
                guest.probe().await.map_err(|failure| format!("it cannot be started: {failure}"))?;
            }
        }
        match &self.health {
            Some(path) => self.ask_health(path).await,
            None => Ok(()),
        }
    }

    /// Asks the health path, if there is one.
    pub(crate) async fn is_well(self: &Arc<Self>) -> Result<(), String> {
        match &self.health {
            Some(path) => self.ask_health(path).await,
            None => Ok(()),
        }
    }

    async fn ask_health(self: &Arc<Self>, path: &str) -> Result<(), String> {
        let uri: Uri = path.parse().map_err(|_| format!("the health path {path:?} is no path"))?;
        let mut request = Request::new(Body::Empty);
        *request.uri_mut() = uri;
        let asked = async {
            let reply = self.invoke(Invocation::new(request, Trigger::Host)).await;
            let reply = reply.map_err(|error| format!("{path}: {error}"))?;
            let status = reply.status();
            let body = reply.into_body().collect(1 << 20).await;
            body.map_err(|error| format!("{path}: {error}"))?;
            if status.as_u16() < 400 { Ok(()) } else { Err(format!("{path} answers {status}")) }
        };
        let answered = tokio::time::timeout(ANSWER, asked).await;
        answered.unwrap_or_else(|_| Err(format!("{path} does not answer within {ANSWER:?}")))
    }
}
