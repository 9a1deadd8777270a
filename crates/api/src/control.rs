//! The owner's face: list, logs, invoke, stop. It listens on a Unix socket that only the owner may open.

use crate::dapr::path::decode;
use crate::server::{Face, Stop};
use crate::{empty, reply, text};
use bytes::Bytes;
use dhow_blocks::invoke::{Body, BodyError, Invocation, Invoker, Reply, Trigger};
use dhow_host::Host;
use dhow_host::log::Line;
use http::{Method, Request, StatusCode, Uri};
use http_body::Frame;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::sync::broadcast;

/// The control face.
pub struct Control {
    /// What is controlled.
    pub host: Arc<Host>,
    /// Ends the process' servers.
    pub stop: Stop,
}

impl Face for Control {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, "/v1/apps") => json_reply(&self.apps()),
            (&Method::GET, "/v1/logs") => self.logs(request.uri().query().unwrap_or_default()),
            (&Method::POST, "/v1/stop") => {
                self.stop.stop();
                empty(StatusCode::ACCEPTED)
            }
            (_, path) if path.starts_with("/v1/invoke/") => self.invoke(request).await,
            _ => text(StatusCode::NOT_FOUND, format_args!("{path} is not part of the control interface")),
        }
    }
}

impl Control {
    fn apps(&self) -> Value {
        let apps = self.host.apps();
        let apps = apps.iter().map(|app| {
            json!({
                "appId": &*app.app_id,
                "version": app.version,
                "module": app.source.to_string(),
                "abi": app.program.inspection.abi.to_string(),
                "digest": app.program.digest.to_string(),
                "routes": app.routes,
                "hosts": app.hosts,
                "loaded": app.is_loaded(),
                "running": app.running(),
            })
        });
        json!({
            "uptimeSeconds": self.host.uptime().as_secs(),
            "underWay": self.host.under_way(),
            "apps": apps.collect::<Vec<_>>(),
        })
    }

    /// `tail=N`, `app=ID`, `follow=1`; one JSON object a line.
    fn logs(&self, query: &str) -> Reply {
        let mut tail = 100;
        let mut app_id = None;
        let mut follow = false;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "tail" => tail = value.parse().unwrap_or(tail),
                "app" => app_id = Some(decode(value)),
                "follow" => follow = value == "1",
                _ => return text(StatusCode::BAD_REQUEST, format_args!("unknown parameter {name:?}")),
            }
        }
        let logs = self.host.logs();
        // Subscribed before the tail is read: a line may come twice, none is lost.
        let news = follow.then(|| logs.follow());
        let past: VecDeque<Arc<Line>> = logs.tail(app_id.as_deref(), tail).into();
        let last = past.back().map(Arc::clone);
        reply(
            StatusCode::OK,
            "application/x-ndjson",
            Body::stream(Follow { past, last, app_id, news: news.map(receive) }),
        )
    }

    /// `/v1/invoke/<app-id>/<path>`: the request as it is, to the app.
    async fn invoke(&self, mut request: Request<Body>) -> Reply {
        let whole = request.uri().path_and_query().map_or("", |path| path.as_str());
        let rest = whole.strip_prefix("/v1/invoke/").unwrap_or_default();
        let (app_id, path) = rest.split_once('/').unwrap_or((rest, ""));
        let app_id = decode(app_id);
        let Ok(uri) = format!("/{path}").parse::<Uri>() else {
            return text(StatusCode::BAD_REQUEST, "the path is not a valid one");
        };
        *request.uri_mut() = uri;
        match self.host.invoke(&app_id, Invocation::new(request, Trigger::Command)).await {
            Ok(reply) => reply,
            Err(error) => {
                let mut reply = text(StatusCode::BAD_GATEWAY, &error);
                reply.headers_mut().insert("dhow-error", http::HeaderValue::from_static("invoke"));
                reply
            }
        }
    }
}

fn json_reply(value: &Value) -> Reply {
    reply(StatusCode::OK, "application/json", value.to_string())
}

type News = (Result<Arc<Line>, broadcast::error::RecvError>, broadcast::Receiver<Arc<Line>>);

fn receive(mut receiver: broadcast::Receiver<Arc<Line>>) -> Pin<Box<dyn Future<Output = News> + Send>> {
    Box::pin(async move {
        let line = receiver.recv().await;
        (line, receiver)
    })
}

/// Past lines, then new ones.
struct Follow {
    past: VecDeque<Arc<Line>>,
    last: Option<Arc<Line>>,
    app_id: Option<String>,
    news: Option<Pin<Box<dyn Future<Output = News> + Send>>>,
}

impl http_body::Body for Follow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(line) = self.past.pop_front() {
            return Poll::Ready(Some(Ok(frame(&line))));
        }
        loop {
            let Some(news) = &mut self.news else { return Poll::Ready(None) };
            let Poll::Ready((line, receiver)) = news.as_mut().poll(cx) else { return Poll::Pending };
            match line {
                Ok(line) => {
                    self.news = Some(receive(receiver));
                    let seen = self.last.as_ref().is_some_and(|last| line.time <= last.time);
                    if !seen && self.app_id.as_deref().is_none_or(|app_id| *app_id == *line.app_id) {
                        return Poll::Ready(Some(Ok(frame(&line))));
                    }
                }
                // A slow reader loses lines, and the connection goes on.
                Err(broadcast::error::RecvError::Lagged(_)) => self.news = Some(receive(receiver)),
                Err(broadcast::error::RecvError::Closed) => self.news = None,
            }
        }
    }
}

fn frame(line: &Line) -> Frame<Bytes> {
    let millis = line.time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let line = json!({ "time": millis, "appId": &*line.app_id, "stream": line.stream, "line": line.text });
    Frame::data(Bytes::from(format!("{line}\n")))
}
