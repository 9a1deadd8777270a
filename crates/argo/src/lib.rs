//! Argo Workflows whose steps are WebAssembly modules: read, checked, run on one machine.
//!
//! | file | subject |
//! |---|---|
//! | [`model`] | a workflow as its YAML says it |
//! | [`definition`] | a workflow and everything that it refers to |
//! | [`ready`] | whether it has all that it needs to begin |
//! | [`expression`] | Argo's two expression languages |
//! | [`substitute`] | `{{tags}}` |
//! | [`depends`] | what a task of a DAG waits for |
//! | [`name`] | what may be a name, and so a file |
//! | [`node`] | what was begun, how it stands, what came out |
//! | [`controller`] | what happens next: a state machine without I/O |
//! | [`artifacts`] | files and folders that go from step to step |
//! | [`plugin`] | steps that Argo's agent asks for |
//! | [`agent`] | steps that are found in the cluster itself |
//! | [`kubernetes`] | a client of its API |
//! | [`step`] | one step, run in this process |
//! | [`runner`] | where steps run |
//! | [`metrics`] | how many steps, for Prometheus |
//! | [`workers`] | steps run by other machines, through NATS |
//!
//! Format: <https://argo-workflows.readthedocs.io/en/latest/fields/>, Argo 3.5 to 4.1.

pub mod agent;
pub mod artifacts;
pub mod controller;
pub mod convert;
pub mod definition;
pub mod depends;
pub mod expression;
pub mod history;
pub mod kubernetes;
pub mod lint;
pub mod manifest;
pub mod metrics;
pub mod model;
pub mod name;
pub mod node;
pub mod plugin;
pub mod ready;
pub mod run;
pub mod runner;
pub mod step;
pub mod substitute;
pub mod tree;
pub mod workers;
