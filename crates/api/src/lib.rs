//! Faces on the network.
//!
//! | file | subject |
//! |---|---|
//! | [`server`] | sockets and connections: limits, deadlines, draining; the same for all faces |
//! | [`ingress`] | requests from outside to apps |
//! | [`one_app`] | requests from outside to the one app of a port |
//! | [`dapr`] | Dapr's HTTP API, for guests in process and for programs outside |
//! | [`neighbours`] | apps on other hosts, and services outside |
//! | [`grpc`] | Dapr's gRPC API, for programs outside |
//! | `layotto` | Layotto's gRPC API, beside it |
//! | [`channel`] | the ways to apps that run outside the host |
//! | `https` | connections to servers outside |
//! | `bearer` | whether a request may change the host |
//! | `callback` | what gRPC apps are called with, as messages |
//! | [`proto`] | generated messages and services |
//! | [`opa`] | a policy server elsewhere |
//! | [`management`] | metrics and health |
//! | [`live`] | versions, components and bindings that change while the host runs |
//! | [`functions`] | Layotto's functions: their requests, their management, its actuator |
//! | [`export`] | spans to collectors |
//! | `observed` | what is counted, logged and recorded of a call of the API |
//! | `watched` | bodies whose end is told |
//! | [`control`] | the owner's face: list, logs, invoke, stop; on a Unix socket |

mod bearer;
mod callback;
pub mod channel;
pub mod control;
pub mod dapr;
pub mod export;
pub mod functions;
pub mod grpc;
mod head;
mod https;
pub mod ingress;
mod layotto;
pub mod live;
pub mod management;
pub mod neighbours;
mod observed;
pub mod one_app;
pub mod opa;
pub mod proto;
pub mod server;
mod watched;

use dhow_blocks::invoke::{Body, Reply};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

/// A reply with a body of this type.
fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// A reply in plain text, one line.
fn text(status: StatusCode, message: impl std::fmt::Display) -> Reply {
    reply(status, "text/plain; charset=utf-8", format!("{message}\n"))
}

/// A reply without a body.
fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Body::Empty);
    *reply.status_mut() = status;
    reply
}
