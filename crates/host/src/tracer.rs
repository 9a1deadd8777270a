//! Which traces are recorded, and what is recorded of them.
//!
//! A trace that its caller records is recorded; of all others a part, which the trace's id decides, so that all hosts
//! on its way decide the same (Dapr's rule). What a span is called is Dapr's, too. Spans wait in a bounded queue for
//! whoever sends them on (`dhow_api::export`); a host without a collector has no queue, and then nothing here costs
//! anything.

use crate::metrics::{Metrics, SpanEnd};
use dhow_blocks::trace::TraceContext;
use dhow_resources::component::{MetadataItem, MetadataValue};
use dhow_resources::configuration::telemetry::{Otel, OtelProtocol, Tracing};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Spans that wait to be sent; more are dropped and counted.
pub const QUEUED: usize = 2048;

/// Of new traces this part is recorded, where the configuration does not say (Dapr's default).
const DEFAULT_RATE: f64 = 0.0001;

/// Longest name or value of a span that is kept, in bytes.
const MAX_TEXT: usize = 1024;

/// Decides what is recorded, and takes it.
#[derive(Debug)]
pub struct Tracer {
    settings: Tracing,
    /// Traces whose id's lower 63 bits are below this are recorded.
    threshold: u64,
    queue: Option<mpsc::Sender<Span>>,
    /// For the one who sends the spans on.
    queued: Mutex<Option<mpsc::Receiver<Span>>>,
    metrics: Metrics,
}

/// One step of a trace, over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its identity and that of its parent.
    pub trace: TraceContext,
    /// Name.
    pub name: String,
    /// Whose step it is.
    pub app_id: Arc<str>,
    /// Role in the exchange.
    pub kind: SpanKind,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Names and values.
    pub attributes: Vec<(&'static str, String)>,
    /// What went wrong; none for a success.
    pub error: Option<String>,
}

/// The role of a span in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// It answers.
    Server,
    /// It asks.
    Client,
    /// It takes a message.
    Consumer,
}

/// A span that is not over; dropping it ends it.
#[derive(Debug)]
pub struct OpenSpan {
    tracer: Arc<Tracer>,
    began: std::time::Instant,
    span: Span,
}

// === impl Tracer ===

impl Tracer {
    /// Records as these settings say.
    pub fn new(settings: Tracing, metrics: Metrics) -> Tracer {
        let is_on = settings.otel.is_some() || settings.zipkin.is_some() || settings.stdout;
        let rate = settings.sampling_rate.unwrap_or(DEFAULT_RATE);
        let (queue, queued) =
            if is_on && rate > 0.0 { Some(mpsc::channel(QUEUED)).unzip() } else { (None, None) };
        // The conversion saturates.
        let threshold = (rate * (1_u64 << 63) as f64) as u64;
        Tracer { settings, threshold, queue, queued: Mutex::new(queued), metrics }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Tracing {
        &self.settings
    }

    /// Decides whether a trace that nobody records yet is recorded from here on.
    pub fn sample(&self, trace: &mut TraceContext) {
        if !trace.sampled && self.queue.is_some() {
            trace.sampled = (trace.trace_id as u64 & (u64::MAX >> 1)) < self.threshold;
        }
    }

    /// Begins the span of this step; none when it is not recorded. `name` is asked only then.
    pub fn begin(
        self: &Arc<Self>,
        trace: TraceContext,
        app_id: &Arc<str>,
        kind: SpanKind,
        name: impl FnOnce() -> String,
    ) -> Option<Box<OpenSpan>> {
        if !trace.sampled || self.queue.is_none() {
            return None;
        }
        let span = Span {
            trace,
            name: clip(name()),
            app_id: Arc::clone(app_id),
            kind,
            began: SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        };
        Some(Box::new(OpenSpan { tracer: Arc::clone(self), began: std::time::Instant::now(), span }))
    }

    /// The spans that are over, for the one who sends them on; none without a collector, or when somebody has them.
    pub fn spans(&self) -> Option<mpsc::Receiver<Span>> {
        self.queued.lock().take()
    }

    /// Counts what became of spans.
    pub fn ended(&self, end: SpanEnd, count: u64) {
        self.metrics.spans(end, count);
    }

    fn record(&self, span: Span) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(span).is_err() {
            self.metrics.spans(SpanEnd::Dropped, 1);
        }
    }
}

/// The settings of a configuration, and where it names no collector those of the environment, as Dapr reads them:
/// `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_PROTOCOL`, `…_INSECURE`, `…_HEADERS` and `…_TIMEOUT` (milliseconds).
pub fn with_environment(mut tracing: Tracing, variable: impl Fn(&str) -> Option<String>) -> Tracing {
    let variable = |name: &str| {
        let value = variable(&format!("OTEL_EXPORTER_OTLP_{name}"));
        value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    if tracing.otel.is_some() {
        return tracing;
    }
    let Some(endpoint) = variable("ENDPOINT") else { return tracing };
    let protocol = match variable("PROTOCOL").as_deref() {
        Some("grpc") => OtelProtocol::Grpc,
        _ => OtelProtocol::Http,
    };
    let insecure = match variable("INSECURE") {
        Some(insecure) => insecure.eq_ignore_ascii_case("true"),
        None => !endpoint.starts_with("https://"),
    };
    let headers = variable("HEADERS").unwrap_or_default();
    let headers = headers.split(',').filter_map(|header| {
        let (name, value) = header.split_once('=')?;
        Some(MetadataItem {
            name: name.trim().to_owned(),
            line: 0,
            value: MetadataValue::Plain(value.trim().to_owned()),
        })
    });
    let timeout = variable("TIMEOUT").and_then(|millis| millis.parse().ok()).filter(|millis| *millis > 0);
    tracing.sampling_rate = Some(tracing.sampling_rate.unwrap_or(1.0));
    tracing.otel = Some(Otel {
        protocol,
        is_secure: !insecure,
        headers: headers.collect(),
        timeout: timeout.map_or(Duration::from_secs(10), Duration::from_millis),
        endpoint,
    });
    tracing
}

fn clip(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
    text
}

// === impl OpenSpan ===

impl OpenSpan {
    /// Adds what is to be known of it.
    pub fn attribute(&mut self, name: &'static str, value: impl Into<String>) {
        self.span.attributes.push((name, clip(value.into())));
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: String) {
        self.span.name = clip(name);
    }

    /// It went wrong.
    pub fn failed(&mut self, error: impl Into<String>) {
        self.span.error = Some(clip(error.into()));
    }
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        let empty = Span {
            trace: self.span.trace,
            name: String::new(),
            app_id: Arc::clone(&self.span.app_id),
            kind: self.span.kind,
            began: self.span.began,
            took: self.began.elapsed(),
            attributes: Vec::new(),
            error: None,
        };
        let took = empty.took;
        let span = std::mem::replace(&mut self.span, empty);
        self.tracer.record(Span { took, ..span });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_resources::configuration::telemetry;

    fn tracer(rate: Option<f64>, stdout: bool) -> Arc<Tracer> {
        let metrics = Metrics::new(&telemetry::Metrics::default(), "default").unwrap();
        Arc::new(Tracer::new(Tracing { sampling_rate: rate, stdout, ..Tracing::default() }, metrics))
    }

    #[test]
    fn the_rate_and_the_caller_decide() {
        let low = TraceContext { trace_id: 1, ..TraceContext::new() };
        let high = TraceContext { trace_id: u128::MAX, ..TraceContext::new() };
        let middle = TraceContext { trace_id: 1 << 62, ..TraceContext::new() };
        for (rate, on, [first, second, third]) in [
            (Some(1.0), true, [true, true, true]),
            (Some(0.5 + f64::EPSILON), true, [true, true, false]),
            (Some(0.0), true, [false, false, false]),
            (None, true, [true, false, false]),
            (Some(1.0), false, [false, false, false]),
        ] {
            let tracer = tracer(rate, on);
            for (mut trace, expected) in [(low, first), (middle, second), (high, third)] {
                tracer.sample(&mut trace);
                assert_eq!(trace.sampled, expected, "{rate:?} {on} {trace}");
                let mut recorded = TraceContext { sampled: true, ..trace };
                tracer.sample(&mut recorded);
                assert!(recorded.sampled, "the caller records it");
            }
        }
    }

    #[tokio::test]
    async fn spans_are_queued_up_to_a_bound() {
        let tracer = tracer(Some(1.0), true);
        let mut trace = TraceContext::new();
        let app_id: Arc<str> = "shop".into();
        let asked = || panic!("the name of what is not recorded is not asked for");
        assert!(tracer.begin(trace, &app_id, SpanKind::Server, asked).is_none());
        tracer.sample(&mut trace);
        for number in 0..QUEUED + 3 {
            let name = || format!("{number}{}", "é".repeat(MAX_TEXT));
            let mut span = tracer.begin(trace.child(), &app_id, SpanKind::Server, name).unwrap();
            span.attribute("a", "b");
            span.failed("no");
        }
        let mut spans = tracer.spans().unwrap();
        assert!(tracer.spans().is_none());
        let first = spans.recv().await.unwrap();
        assert!(first.name.starts_with("0é") && first.name.len() <= MAX_TEXT);
        assert_eq!((first.trace.parent_id, first.error.as_deref()), (trace.span_id, Some("no")));
        assert_eq!(first.attributes, [("a", "b".to_owned())]);
        let text = String::from_utf8(tracer.metrics.render().unwrap()).unwrap();
        assert!(text.contains("dhow_spans_total{end=\"dropped\"} 3"), "{text}");
    }

    #[test]
    fn the_environment_fills_in_for_the_configuration() {
        let environment = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                let found = pairs.iter().find(|(found, _)| name == format!("OTEL_EXPORTER_OTLP_{found}"));
                found.map(|(_, value)| (*value).to_owned())
            }
        };
        let none = with_environment(Tracing::default(), environment(&[("PROTOCOL", "grpc")]));
        assert_eq!(none, Tracing::default());
        let given = &[
            ("ENDPOINT", "collector:4317"),
            ("PROTOCOL", "grpc"),
            ("HEADERS", "a=1, b=2=3"),
            ("TIMEOUT", "500"),
        ];
        let read = with_environment(Tracing::default(), environment(given));
        assert_eq!(read.sampling_rate, Some(1.0));
        let otel = read.otel.clone().unwrap();
        assert_eq!((otel.protocol, otel.is_secure), (OtelProtocol::Grpc, false));
        assert_eq!((otel.headers.len(), otel.timeout), (2, Duration::from_millis(500)));
        let configured = Tracing { sampling_rate: Some(0.5), ..read };
        let other = with_environment(configured.clone(), environment(&[("ENDPOINT", "elsewhere:1")]));
        assert_eq!(other, configured);
    }
}
