//! Spans to collectors: OTLP over gRPC or HTTP, Zipkin, the log.
//!
//! One task takes what is over from the host's tracer, a batch at a time. A collector that does not answer is tried
//! again, with growing pauses; meanwhile spans wait in the tracer's queue, and what finds no place there is dropped and
//! counted. Nothing that serves requests ever waits for a collector.
//!
//! | file | subject |
//! |---|---|
//! | `otlp` | OpenTelemetry's protocol |
//! | `zipkin` | Zipkin's JSON |
//! | `post` | one request to a collector |

mod otlp;
mod post;
mod zipkin;

use crate::server::Stop;
use dhow_host::Host;
use dhow_host::metrics::SpanEnd;
use dhow_host::tracer::{Span, Tracer};
use otlp::Otlp;
use post::Refused;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zipkin::Zipkin;

/// Most spans of one request.
const BATCH: usize = 512;

/// A span waits at most so long for others to go with it.
const LINGER: Duration = Duration::from_secs(1);

/// Tries beside the first one.
const RETRIES: u32 = 4;

/// The first pause between two tries; each is twice as long as the one before, give or take a half.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, whatever a collector asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Sends the spans of a host on until it is closed.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    stop: Stop,
}

/// Where spans go.
enum Collector {
    Otlp(Otlp),
    Zipkin(Zipkin),
    Log,
}

// === impl Exporter ===

impl Exporter {
    /// Begins to send the spans of a host to where its configuration says; none if it says nothing.
    pub fn start(host: &Arc<Host>) -> Option<Exporter> {
        let spans = host.tracer().spans()?;
        let (stop, host) = (Stop::default(), Arc::clone(host));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let collectors = collectors(&host).await;
            let tracer = Arc::clone(host.tracer());
            drop(host);
            run(spans, &collectors, &tracer, &stopped).await;
        });
        Some(Exporter { task, stop })
    }

    /// Sends what waits, within `grace`.
    pub async fn close(mut self, grace: Duration) {
        self.stop.stop();
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            tracing::warn!("the last spans were not sent: the collector did not take them within {grace:?}");
            self.task.abort();
        }
    }
}

/// The collectors of a configuration. One that cannot be used is logged, and left out.
async fn collectors(host: &Host) -> Vec<Collector> {
    let settings = host.tracer().settings();
    let mut collectors = Vec::new();
    if let Some(otel) = &settings.otel {
        let headers = host.components().resolve("spec.tracing.otel", None, &otel.headers).await;
        match headers.and_then(|headers| Otlp::new(otel, &headers)) {
            Ok(otlp) => collectors.push(Collector::Otlp(otlp)),
            Err(reason) => tracing::error!("spec.tracing.otel: {reason}; spans are not sent there"),
        }
    }
    if let Some(address) = &settings.zipkin {
        match Zipkin::new(address) {
            Ok(zipkin) => collectors.push(Collector::Zipkin(zipkin)),
            Err(reason) => tracing::error!("spec.tracing.zipkin: {reason}; spans are not sent there"),
        }
    }
    if settings.stdout {
        collectors.push(Collector::Log);
    }
    collectors
}

async fn run(mut spans: Receiver<Span>, collectors: &[Collector], tracer: &Tracer, stop: &Stop) {
    let mut stopped = std::pin::pin!(stop.stopped());
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            count = spans.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return;
                }
            }
        }
        let full = Instant::now() + LINGER;
        let mut last = false;
        while batch.len() < BATCH && !last {
            tokio::select! {
                biased;
                () = &mut stopped => last = true,
                more = tokio::time::timeout_at(full, spans.recv()) => match more {
                    Ok(Some(span)) => batch.push(span),
                    Ok(None) | Err(_) => break,
                },
            }
        }
        send_all(&batch, collectors, tracer, stop).await;
        batch.clear();
        if last {
            break;
        }
    }
    // What is over by now is still sent.
    while let Ok(span) = spans.try_recv() {
        batch.push(span);
        if batch.len() == BATCH {
            send_all(&batch, collectors, tracer, stop).await;
            batch.clear();
        }
    }
    if !batch.is_empty() {
        send_all(&batch, collectors, tracer, stop).await;
    }
}

async fn send_all(spans: &[Span], collectors: &[Collector], tracer: &Tracer, stop: &Stop) {
    let sends = collectors.iter().map(|collector| collector.send(spans, stop));
    for sent in futures::future::join_all(sends).await {
        let end = if sent { SpanEnd::Sent } else { SpanEnd::Refused };
        tracer.ended(end, spans.len() as u64);
    }
}

// === impl Collector ===

impl Collector {
    /// Sends a batch, and again if need be; whether it was taken.
    async fn send(&self, spans: &[Span], stop: &Stop) -> bool {
        let mut tries = 0;
        loop {
            let sent = match self {
                Collector::Otlp(otlp) => otlp.send(spans).await,
                Collector::Zipkin(zipkin) => zipkin.send(spans).await,
                Collector::Log => {
                    spans.iter().for_each(log);
                    Ok(())
                }
            };
            let Refused { reason, again, after } = match sent {
                Ok(()) => return true,
                Err(refused) => refused,
            };
            if !again || tries == RETRIES {
                tracing::warn!("{} spans are lost: {reason}", spans.len());
                return false;
            }
            let pause =
                after.unwrap_or_else(|| (FIRST_PAUSE * 2_u32.pow(tries)).mul_f64(0.5 + fastrand::f64()));
            tries += 1;
            tracing::debug!("spans are sent again in {pause:?}: {reason}");
            tokio::select! {
                () = tokio::time::sleep(pause.min(LONGEST_PAUSE)) => {}
                // One last try.
                () = stop.stopped() => tries = RETRIES,
            }
        }
    }
}

fn log(span: &Span) {
    let Span { trace, name, app_id, took, error, .. } = span;
    tracing::info!(
        target: "span",
        app_id = &**app_id,
        trace_id = format_args!("{:032x}", trace.trace_id),
        span_id = format_args!("{:016x}", trace.span_id),
        parent_id = format_args!("{:016x}", trace.parent_id),
        ?took,
        attributes = ?span.attributes,
        error = error.as_deref().unwrap_or_default(),
        "{name}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Face, Listener};
    use dhow_blocks::invoke::{Body, Reply};
    use dhow_blocks::trace::TraceContext;
    use dhow_engine::{Engine, EngineOptions};
    use dhow_host::tracer::SpanKind;
    use dhow_host::{Components, HostOptions};
    use http::header::{HeaderMap, HeaderValue};
    use http::{Request, Response, StatusCode};
    use otlp::ExportRequest;
    use prost::Message as _;
    use std::net::SocketAddr;
    use tokio::sync::mpsc::{Receiver, Sender, channel};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// What a collector got: path, headers, body.
    type Got = (String, HeaderMap, bytes::Bytes);

    /// A collector that answers the first request with this status, and takes all others.
    struct Collecting {
        got: Sender<Got>,
        first: parking_lot::Mutex<Option<StatusCode>>,
        grpc: bool,
    }

    impl Face for Collecting {
        async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
            let (head, body) = request.into_parts();
            let body = body.collect(1 << 20).await.unwrap();
            let mut reply = Response::new(Body::Empty);
            if let Some(status) = self.first.lock().take() {
                *reply.status_mut() = status;
                reply.headers_mut().insert("retry-after", HeaderValue::from_static("0"));
                return reply;
            }
            self.got.send((head.uri.path().to_owned(), head.headers, body)).await.unwrap();
            if self.grpc {
                reply.headers_mut().insert("grpc-status", HeaderValue::from_static("0"));
            }
            reply
        }
    }

    async fn collector(first: Option<StatusCode>, grpc: bool) -> (SocketAddr, Receiver<Got>) {
        let (got, received) = channel(16);
        let listener = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.address().unwrap();
        let face = Arc::new(Collecting { got, first: first.into(), grpc });
        tokio::spawn(listener.serve(face, Stop::default(), Duration::ZERO));
        (address, received)
    }

    fn host(tracing: &str) -> Arc<Host> {
        let folder = tempfile::tempdir().unwrap();
        let yaml = format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nspec:\n  tracing:\n    samplingRate: \"1\"\n{tracing}"
        );
        std::fs::write(folder.path().join("configuration.yaml"), yaml).unwrap();
        let resources = dhow_resources::load::load_dir(folder.path()).unwrap();
        let engine = Engine::new(EngineOptions::default()).unwrap();
        let components = Components::new(resources, folder.path());
        Host::new(HostOptions { engine, cache: None, components, keep_loaded: false }).unwrap()
    }

    /// Ends two spans, one in the other.
    fn record(host: &Host) -> TraceContext {
        let mut trace = TraceContext::new();
        host.tracer().sample(&mut trace);
        let outer = host.tracer().begin(trace, &"shop".into(), SpanKind::Client, || "outer".to_owned());
        let inner =
            host.tracer().begin(trace.child(), &"stock".into(), SpanKind::Server, || "inner".to_owned());
        let mut inner = inner.unwrap();
        inner.attribute("dapr.protocol", "http");
        inner.failed("no");
        drop(inner);
        drop(outer);
        trace
    }

    async fn next(received: &mut Receiver<Got>) -> Got {
        tokio::time::timeout(PATIENCE, received.recv()).await.expect("a request to the collector").unwrap()
    }

    fn numbers(host: &Host) -> String {
        String::from_utf8(host.metrics().render().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn collectors_of_otlp_get_what_is_over() {
        let (busy, mut over_http) = collector(Some(StatusCode::SERVICE_UNAVAILABLE), false).await;
        let (address, mut over_grpc) = collector(None, true).await;
        for (protocol, address, received, path) in [
            ("http", busy, &mut over_http, "/v1/traces"),
            ("grpc", address, &mut over_grpc, "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        ] {
            let host = host(&format!(
                "    otel: {{ endpointAddress: \"{address}\", isSecure: false, protocol: {protocol}, headers: \"x-key=secret\" }}\n"
            ));
            let exporter = Exporter::start(&host).unwrap();
            let trace = record(&host);
            let (found, headers, body) = next(received).await;
            assert_eq!((found.as_str(), headers["x-key"].to_str().unwrap()), (path, "secret"));
            let message = if protocol == "grpc" { body.slice(5..) } else { body };
            let request = ExportRequest::decode(message).unwrap();
            let names: Vec<_> = request
                .resource_spans
                .iter()
                .map(|spans| {
                    let name = spans.resource.as_ref().unwrap().attributes[0].value.clone().unwrap();
                    (name.string_value.unwrap(), spans.scope_spans[0].spans[0].name.clone())
                })
                .collect();
            let expected = [("shop", "outer"), ("stock", "inner")];
            assert_eq!(names, expected.map(|(app, name)| (app.to_owned(), name.to_owned())));
            let inner = &request.resource_spans[1].scope_spans[0].spans[0];
            assert_eq!(inner.trace_id[..], trace.trace_id.to_be_bytes());
            assert_eq!(inner.parent_span_id[..], trace.span_id.to_be_bytes());
            assert_eq!((inner.kind, inner.status.as_ref().unwrap().code), (2, 2));
            assert!(inner.end_time_unix_nano >= inner.start_time_unix_nano);
            exporter.close(PATIENCE).await;
            assert!(numbers(&host).contains("dhow_spans_total{end=\"sent\"} 2"), "{}", numbers(&host));
        }
    }

    #[tokio::test]
    async fn zipkin_gets_the_last_spans_when_the_host_ends() {
        let (address, mut received) = collector(None, false).await;
        let host = host(&format!("    zipkin: {{ endpointAddress: \"http://{address}/api/v2/spans\" }}\n"));
        let exporter = Exporter::start(&host).unwrap();
        let trace = record(&host);
        exporter.close(PATIENCE).await;
        let (path, _, body) = next(&mut received).await;
        assert_eq!(path, "/api/v2/spans");
        let spans: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(spans[0]["name"], "inner");
        assert_eq!(spans[0]["parentId"], format!("{:016x}", trace.span_id));
        assert_eq!(spans[0]["localEndpoint"]["serviceName"], "stock");
        assert_eq!(
            (&spans[0]["tags"]["dapr.protocol"], &spans[0]["tags"]["error"]),
            (&"http".into(), &"no".into())
        );
        assert_eq!((&spans[1]["name"], &spans[1]["kind"]), (&"outer".into(), &"CLIENT".into()));
        assert!(spans[1].get("parentId").is_none());
    }

    #[tokio::test]
    async fn a_collector_that_is_away_does_not_hold_up_the_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let away = listener.local_addr().unwrap();
        drop(listener);
        let host = host(&format!("    zipkin: {{ endpointAddress: \"http://{away}/api/v2/spans\" }}\n"));
        let exporter = Exporter::start(&host).unwrap();
        record(&host);
        tokio::time::timeout(PATIENCE, exporter.close(Duration::from_secs(10))).await.unwrap();
        assert!(numbers(&host).contains("dhow_spans_total{end=\"refused\"} 2"), "{}", numbers(&host));
    }
}
