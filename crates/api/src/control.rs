//! The owner's face: list, logs, invoke, stop. It listens on a Unix socket that only the owner may open.

use crate::dapr::path::{Query, decode, segments};
use crate::live::{Asking, Live};
use crate::server::{Face, Stop};
use crate::{empty, reply, text};
use bytes::Bytes;
use dhow_blocks::invoke::{Body, BodyError, Invocation, Invoker, Reply, Trigger};
use dhow_blocks::scope::Event;
use dhow_blocks::trace::TraceContext;
use dhow_host::Host;
use dhow_host::log::Line;
use dhow_host::service::State;
use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode, Uri};
use http_body::Frame;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::sync::broadcast;

/// Largest event that the command line publishes, in bytes.
const MAX_EVENT: usize = 4 << 20;

/// The header in which a command says who calls it; for the history, since only the owner gets here.
const WHO: &str = "dhow-who";

/// The control face.
pub struct Control {
    /// What is controlled.
    pub host: Arc<Host>,
    /// What changes while the host runs; none where its apps are not the command line's to change.
    pub live: Option<Live>,
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
            (_, path) if Live::knows(path) => self.change(request).await,
            (_, path) if path.starts_with("/v1/invoke/") => self.invoke(request).await,
            (&Method::POST, path) if path.starts_with("/v1/publish/") => self.publish(request).await,
            _ => text(StatusCode::NOT_FOUND, format_args!("{path} is not part of the control interface")),
        }
    }
}

impl Control {
    async fn change(&self, request: Request<Body>) -> Reply {
        let Some(live) = &self.live else {
            let message = "the apps of this host cannot be changed this way: functions of Layotto are managed at \
                           /wasm, and programs outside are started anew";
            let body = json!({ "error": message }).to_string();
            return reply(StatusCode::CONFLICT, "application/json", body);
        };
        let who = request.headers().get(WHO).and_then(|who| who.to_str().ok()).map(str::to_owned);
        let who = who.unwrap_or_else(|| "owner".to_owned());
        live.answer(request, Asking { who: &who, is_owner: true }).await
    }

    fn apps(&self) -> Value {
        let apps = self.host.apps();
        let apps = apps.iter().map(|app| {
            let module = app.module();
            json!({
                "appId": &*app.app_id,
                "version": app.version,
                "module": module.map_or_else(|| "program outside".to_owned(), |module| module.source.to_string()),
                "abi": module.map_or_else(|| "native".to_owned(), |module| module.program.inspection.abi.to_string()),
                "digest": module.map(|module| module.program.digest.to_string()).unwrap_or_default(),
                "routes": app.routes,
                "hosts": app.hosts,
                "candidate": self.host.candidate(&app.app_id).map(|candidate| json!({
                    "version": candidate.version,
                    "digest": candidate.module().map(|module| module.program.digest.to_string()),
                })),
                "loaded": app.is_loaded(),
                "refused": app.why_refused(),
                "running": app.running(),
                "service": app.service().map(|service| json!({
                    "state": service.state().to_string(),
                    "lastExit": match service.state() {
                        State::Restarting { last_exit } => Some(last_exit),
                        _ => None,
                    },
                    "address": service.address(),
                    "connections": service.connections(),
                })),
            })
        });
        json!({
            "uptimeSeconds": self.host.uptime().as_secs(),
            "starting": !self.host.is_ready(),
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
        let past = logs.tail(app_id.as_deref(), tail);
        reply(StatusCode::OK, "application/x-ndjson", Body::stream(Follow::new(past, news, app_id)))
    }

    /// `/v1/publish/<app-id>/<pubsub>/<topic>`: an event in the name of the app.
    async fn publish(&self, request: Request<Body>) -> Reply {
        let segments = segments(request.uri().path());
        let [_, _, app_id, pubsub, topic] = segments.as_slice() else {
            return text(StatusCode::BAD_REQUEST, "expected /v1/publish/<app-id>/<pubsub>/<topic>");
        };
        let Some(app) = self.host.app(app_id) else {
            return text(
                StatusCode::NOT_FOUND,
                format_args!("no app {app_id:?} is registered with this host"),
            );
        };
        let (pubsub, topic) = (pubsub.to_string(), topic.to_string());
        let metadata = Query::parse(request.uri().query()).metadata_map();
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let data = match request.into_body().collect(MAX_EVENT).await {
            Ok(data) => data,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        let event = Event { data, content_type, metadata };
        match app.scope().publish(&pubsub, &topic, event, TraceContext::new(), "").await {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(error) => text(StatusCode::BAD_GATEWAY, error),
        }
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
    /// The number of the last of the past lines.
    seen: u64,
    app_id: Option<String>,
    news: Option<Pin<Box<dyn Future<Output = News> + Send>>>,
}

// === impl Follow ===

impl Follow {
    fn new(
        past: Vec<Arc<Line>>,
        news: Option<broadcast::Receiver<Arc<Line>>>,
        app_id: Option<String>,
    ) -> Follow {
        let seen = past.last().map_or(0, |line| line.number);
        Follow { past: past.into(), seen, app_id, news: news.map(receive) }
    }
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
                    let is_new = line.number > self.seen;
                    if is_new && self.app_id.as_deref().is_none_or(|app_id| *app_id == *line.app_id) {
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

#[cfg(test)]
mod tests {
    use super::{Body, Follow, Line};
    use serde_json::Value;
    use std::sync::Arc;
    use std::time::SystemTime;
    use tokio::sync::broadcast;

    #[tokio::test]
    async fn lines_at_the_seam_come_once_whatever_the_clock_says() {
        let line = |number: u64, app_id: &str| {
            let (time, text) = (SystemTime::UNIX_EPOCH, number.to_string());
            Arc::new(Line { number, time, app_id: app_id.into(), stream: "stdout", text })
        };
        // Numbers of the lines that were kept, of those that came since the subscription, and what is shown.
        let cases: [(&[u64], &[u64], &[u64]); 4] = [
            (&[1, 2, 3], &[2, 3, 4, 5], &[1, 2, 3, 4, 5]),
            (&[1, 2, 3], &[4], &[1, 2, 3, 4]),
            (&[3], &[2, 3, 5, 4], &[3, 5, 4]),
            (&[], &[7, 8], &[7, 8]),
        ];
        for (kept, came, shown) in cases {
            let (sender, news) = broadcast::channel(16);
            for number in came {
                sender.send(line(*number, "a")).unwrap();
                sender.send(line(100 + number, "other")).unwrap();
            }
            drop(sender);
            let past = kept.iter().map(|number| line(*number, "a")).collect();
            let body = Body::stream(Follow::new(past, Some(news), Some("a".to_owned())));
            let body = body.collect(10_000).await.unwrap();
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let found: Vec<u64> = lines
                .map(|line| {
                    serde_json::from_slice::<Value>(line).unwrap()["line"].as_str().unwrap().parse().unwrap()
                })
                .collect();
            assert_eq!(found, shown, "{kept:?} {came:?}");
        }
    }
}
