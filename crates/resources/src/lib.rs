//! Manifests and resource YAML: parse, validate, point at the line that is wrong.
//!
//! All languages are read into one tree that knows where every value stands, and everything after that is
//! the same for all: an unknown field, a wrong type or a bad value is answered with
//! `file:line:column: field: what; expected; nearest known name`, and all errors of a file are told at once.
//!
//! | file | subject |
//! |---|---|
//! | [`manifest`] | `dhow.toml`: hosts, apps, limits, grants |
//! | [`component`] | a Dapr component: its fields, secrets and templates |
//! | [`subscription`] | a Dapr subscription: topics, routes, apps |
//! | [`configuration`] | a Dapr configuration: traces, metrics, access; the file of `--config` |
//! | [`http_endpoint`] | a Dapr HTTP endpoint: a server outside, by name |
//! | [`resiliency`] | Dapr's timeouts, retries and circuit breakers, and what they are for |
//! | [`load`] | folders of Dapr resources |
//! | [`multi_app`] | `dapr.yaml`: several apps at once |
//! | [`layotto`] | Layotto's `config.json`: listeners, components, functions |
//! | [`wascc`] | manifests of waSCC hosts: actors and their bindings |
//! | [`error`] | one finding, and all findings of a load |
//! | [`units`] | sizes (`64KiB`) and durations (`30s`) |
//! | [`documents`] | YAML of other programs, as a tree with positions |
//! | `text_file` | reading a file of bounded size |
//! | `object` | what the kinds of Dapr have in common |
//! | `values` | the small kinds of values in Dapr's files |
//! | [`tree`] | values with positions, and the checks that every field passes |
//! | `toml_tree`, `yaml_tree`, `json_tree` | the three languages, bounded, into that tree |
//!
//! Input is bounded: [`MAX_FILE_BYTES`] a file, 64 levels of nesting, 200 000 values a YAML file, and aliases
//! that copy no more than a file may hold.

pub mod component;
pub mod configuration;
pub mod documents;
pub mod error;
pub mod http_endpoint;
mod json_tree;
pub mod layotto;
pub mod load;
pub mod manifest;
pub mod multi_app;
mod object;
pub mod resiliency;
pub mod subscription;
mod text_file;
mod toml_tree;
pub mod tree;
pub mod units;
mod values;
pub mod wascc;
mod yaml_tree;

/// Largest manifest or resource file that is read.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
