//! The life of an invocation: apps, their versions, routing, admission and limits.
//!
//! | file | subject |
//! |---|---|
//! | [`host`] | all apps of a process: register, replace, invoke, shut down |
//! | [`app`] | one app: admission, lazy loading, invoking |
//! | [`module`] | a module, read and recognised once for all apps that share it |
//! | [`functions`] | Layotto's functions: modules that are reached by the id that they declare |
//! | [`prepare`] | from a manifest entry to an app that can run |
//! | [`fleet`] | the apps that a manifest describes, and what changes of them while the host runs |
//! | [`split`] | two versions that share invocations |
//! | [`binding`] | components that are given to an app or taken from it while it runs |
//! | `health` | whether a version can serve |
//! | [`service`] | programs that listen: started, supervised, drained |
//! | [`components`] | from resources to open providers |
//! | `sandboxed` | components that are modules themselves |
//! | [`resiliency`] | from resources to the policies of targets |
//! | [`triggers`] | what starts invocations by itself: topics, bindings, jobs |
//! | [`trust`] | which modules run, and what policies say |
//! | `background` | work that no request waits for |
//! | `audit` | what apps were denied |
//! | `expression` | CEL |
//! | [`routes`] | which app answers a host name and a path |
//! | [`log`] | what guests print, kept for those who ask later |
//! | [`metrics`] | numbers for Prometheus |
//! | [`tracer`] | which traces are recorded, and what of them |
//! | `observed` | what is counted and recorded of an invocation |
//! | `access` | which app may call which path of another |
//!
//! Nothing here touches a socket, a wire format or a Wasmtime store.

mod access;
pub mod app;
mod audit;
mod background;
pub mod binding;
pub mod components;
mod expression;
mod filters;
pub mod fleet;
pub mod functions;
mod health;
pub mod host;
pub mod log;
pub mod metrics;
pub mod module;
mod observed;
mod outcomes;
pub mod prepare;
pub mod resiliency;
pub mod routes;
mod sandboxed;
pub mod service;
pub mod split;
pub mod tracer;
pub mod triggers;
pub mod trust;

pub use app::{App, Kind};
pub use components::{ComponentError, Components};
pub use fleet::{Fleet, FleetError};
pub use host::{Host, HostOptions, OutsideScope};
pub use log::LogBook;
pub use module::{Module, ModuleError};
pub use prepare::{AppSpec, PrepareError};
pub use routes::Routes;
pub use trust::{PerInvocation, Policies, PolicyServer, Seal, Trust};
