//! What is counted and recorded of one invocation of an app: Dapr's numbers for calls to apps, and a span if the trace
//! is recorded.

use crate::app::App;
use crate::host::status_of;
use crate::metrics::calls::{HttpCall, HttpMeter};
use crate::tracer::{OpenSpan, SpanKind};
use dhow_blocks::invoke::{Body, EventOf, Invocation, InvokeError, Reply, Trigger};
use http::{Method, Uri};
use std::sync::Arc;
use std::time::Instant;

/// An invocation under way.
pub(crate) struct Observed {
    http: Option<Http>,
    span: Option<Box<OpenSpan>>,
}

struct Http {
    meter: Arc<HttpMeter>,
    method: Method,
    uri: Uri,
    sent: u64,
    began: Instant,
}

// === impl Observed ===

impl Observed {
    /// Begins, and decides whether the trace is recorded.
    pub(crate) fn begin(app: &Arc<App>, invocation: &mut Invocation) -> Observed {
        let tracer = &app.shared.tracer;
        // The host's own questions are part of no trace.
        let span = if invocation.trigger == Trigger::Host {
            None
        } else {
            tracer.sample(&mut invocation.trace);
            let kind =
                if invocation.trigger == Trigger::Topic { SpanKind::Consumer } else { SpanKind::Server };
            let span = tracer.begin(invocation.trace, &app.app_id, kind, || name(app, invocation));
            span.map(|mut span| {
                describe(&mut span, invocation);
                span
            })
        };
        let request = &invocation.request;
        // Requests from outside are no business of a sidecar; what speaks gRPC is counted by its channel.
        let counted = invocation.trigger != Trigger::Http && !app.speaks_grpc();
        let http = app.metrics.http.as_ref().filter(|_| counted).map(|meter| Http {
            meter: Arc::clone(meter),
            method: request.method().clone(),
            uri: request.uri().clone(),
            sent: length(request.body()),
            began: Instant::now(),
        });
        Observed { http, span }
    }

    /// The head of the answer is there, or will not come.
    pub(crate) fn answered(self, answer: Result<Reply, InvokeError>) -> Result<Reply, InvokeError> {
        let status = status_of(&answer);
        if let Some(Http { meter, method, uri, sent, began }) = self.http {
            let received = answer.as_ref().map_or(0, |reply| length(reply.body()));
            let (method, path, elapsed) = (&method, uri.path(), began.elapsed());
            meter.record(HttpCall { method, path, status, sent, received, elapsed });
        }
        let Some(mut span) = self.span else { return answer };
        span.attribute("http.status_code", status.to_string());
        match answer {
            Ok(reply) => {
                if status >= 500 {
                    span.failed(format!("the app answered {status}"));
                }
                // It is over with the last byte.
                Ok(reply.map(|body| body.until_ended(span)))
            }
            Err(error) => {
                span.failed(error.to_string());
                Err(error)
            }
        }
    }
}

/// The name of an invocation's span, as Dapr has it.
fn name(app: &App, invocation: &Invocation) -> String {
    let path = invocation.request.uri().path();
    let of = invocation.request.extensions().get::<EventOf>();
    match (invocation.trigger, of) {
        (Trigger::App, _) => format!("CallLocal/{}/{}", app.app_id, path.trim_start_matches('/')),
        (Trigger::Topic, Some(of)) => format!("pubsub/{}", of.name),
        (Trigger::Binding, Some(of)) => format!("bindings/{}", of.component),
        (Trigger::Job, Some(of)) => format!("job/{}", of.name),
        _ => path.to_owned(),
    }
}

fn describe(span: &mut OpenSpan, invocation: &Invocation) {
    let request = &invocation.request;
    let of = request.extensions().get::<EventOf>();
    match (invocation.trigger, of) {
        (Trigger::App, _) => {
            span.attribute("rpc.service", "ServiceInvocation");
            span.attribute("dapr.invoke_method", request.uri().path().trim_start_matches('/'));
        }
        (Trigger::Topic, Some(of)) => {
            span.attribute("messaging.system", "pubsub");
            span.attribute("messaging.destination", of.name.as_str());
            span.attribute("messaging.destination_kind", "topic");
        }
        (Trigger::Binding, Some(of)) => {
            span.attribute("db.system", "bindings");
            span.attribute("db.name", of.component.as_str());
        }
        _ => {}
    }
    span.attribute("http.method", request.method().as_str());
    span.attribute("http.target", request.uri().path());
}

/// Bytes of a body, as far as they are known before it is read.
fn length(body: &Body) -> u64 {
    http_body::Body::size_hint(body).exact().unwrap_or(0)
}
