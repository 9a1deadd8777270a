//! A cluster as an agent sees it: an API server, and Argo's controller for one workflow at a time.
//!
//! | file | subject |
//! |---|---|
//! | `server` | the API server: objects, versions, conflicts, tokens |
//! | `watch` | its watches, with bookmarks, disconnects and versions that are too old |
//! | `pod` | Argo's own agent, which asks plugins |
//! | `controller` | Argo's controller: task sets out of a workflow, results out of their status |
//!
//! No Kubernetes can be run here, so this is a double, written after its documentation of the API's concepts; the
//! Kubernetes client for Python, which others wrote, is tried on it as well (`native.rs`).

mod controller;
mod pod;
mod server;
mod watch;

pub(crate) use controller::{Flow, tasks_of};
pub(crate) use pod::{EXECUTE, Pod, Sidecar};
pub(crate) use server::{ApiServer, SETS, merge};
