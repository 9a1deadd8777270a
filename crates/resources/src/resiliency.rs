//! Dapr's resiliency: `kind: Resiliency`, which calls get timeouts, retries and circuit breakers.
//!
//! Format: Dapr documentation, "Resiliency spec" (apiVersion `dapr.io/v1alpha1`). This file holds the types;
//! `resiliency/policies.rs` and `resiliency/targets.rs` read them, and `resiliency/defaults.rs` knows the policies
//! that apply without being named by a target.
//!
//! The policies of all documents are one set of names: a target may name a policy of another document, or one of
//! Dapr's own ([`defaults::built_in_retry`]).

use crate::object::{self, NameIsFor, required_table};
use crate::tree::{Findings, Node};
use crate::values;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod defaults;
mod policies;
mod targets;

pub(crate) use targets::unknown_policies;

/// The apiVersion of resiliency resources.
pub const API_VERSION: &str = "dapr.io/v1alpha1";

/// When a circuit breaker trips that says nothing about it, in CEL.
pub const DEFAULT_TRIP: &str = "consecutiveFailures > 5";

/// A resiliency resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resiliency {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.policies`.
    pub policies: Policies,
    /// `spec.targets`.
    pub targets: Targets,
    /// `scopes`: the apps whose calls this is for; empty: all.
    pub scopes: Vec<String>,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
    /// Where targets name policies, for [`unknown_policies`].
    references: Vec<targets::Reference>,
}

/// `spec.policies`, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// Longest time of one attempt; zero sets no limit.
    pub timeouts: BTreeMap<String, Duration>,
    /// What is tried again, how often and when.
    pub retries: BTreeMap<String, Retry>,
    /// When calls are refused for a while.
    pub circuit_breakers: BTreeMap<String, CircuitBreaker>,
}

/// One of `spec.policies.retries`.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// `policy` with its times: how long to wait.
    pub backoff: Backoff,
    /// `maxRetries`: attempts after the first; `None`, the default (-1 in the file), sets no limit.
    pub max_retries: Option<u32>,
    /// `matching.httpStatusCodes`: what is tried again; `None`: every failure.
    pub http_status_codes: Option<StatusCodes>,
    /// `matching.gRPCStatusCodes`: what is tried again; `None`: every failure.
    pub grpc_status_codes: Option<StatusCodes>,
}

/// The wait before an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backoff {
    /// Always the same.
    Constant {
        /// `duration`. Default 5 s.
        wait: Duration,
    },
    /// The next one is `multiplier` times as long, up to a maximum, each times a random number from
    /// `1 - randomization` to `1 + randomization`.
    Exponential {
        /// The first: 500 ms.
        initial: Duration,
        /// 1.5.
        multiplier: f64,
        /// 0.5.
        randomization: f64,
        /// `maxInterval`: the longest. Default 60 s.
        max: Duration,
        /// After this time nothing is tried again: 15 min.
        max_elapsed: Duration,
    },
}

/// Ranges of status codes that do not touch, lowest first. Written as `429,500-599`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCodes(Vec<RangeInclusive<u16>>);

/// One of `spec.policies.circuitBreakers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// `maxRequests`: how many may try whether it works again. Default 1.
    pub max_requests: u32,
    /// `interval`: how often the counts of a closed breaker begin anew; zero, the default, is never.
    pub interval: Duration,
    /// `timeout`: how long an open breaker refuses before it lets somebody try. Default 60 s.
    pub timeout: Duration,
    /// `trip`: when it opens. Source text in CEL over `requests`, `totalSuccesses`, `totalFailures`,
    /// `consecutiveSuccesses` and `consecutiveFailures`. Default [`DEFAULT_TRIP`].
    pub trip: String,
}

/// `spec.targets`: the policies of calls, by what is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// By app-id, or the name of an HTTP endpoint.
    pub apps: BTreeMap<String, AppTarget>,
    /// By type of actor.
    pub actors: BTreeMap<String, ActorTarget>,
    /// By name of component.
    pub components: BTreeMap<String, ComponentTarget>,
}

/// Names of policies; `None`: no such policy. Each is in some resource or built in, see the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyNames {
    /// `timeout`.
    pub timeout: Option<String>,
    /// `retry`.
    pub retry: Option<String>,
    /// `circuitBreaker`.
    pub circuit_breaker: Option<String>,
}

/// One of `spec.targets.apps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppTarget {
    /// The policies.
    pub policies: PolicyNames,
    /// `circuitBreakerCacheSize`: most circuit breakers that are kept, one for each address. Default 100.
    pub circuit_breaker_cache_size: u32,
}

/// One of `spec.targets.actors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorTarget {
    /// The policies.
    pub policies: PolicyNames,
    /// `circuitBreakerScope`; given whenever there is a circuit breaker.
    pub circuit_breaker_scope: Option<CircuitBreakerScope>,
    /// `circuitBreakerCacheSize`: most circuit breakers that are kept. Default 5000.
    pub circuit_breaker_cache_size: u32,
}

/// What actors share a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitBreakerScope {
    /// All of one type.
    Type,
    /// None: each has its own.
    Id,
    /// Each has its own, beside the one of the type.
    Both,
}

/// One of `spec.targets.components`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentTarget {
    /// From the component to the app: events, input bindings.
    pub inbound: PolicyNames,
    /// From the app to the component.
    pub outbound: PolicyNames,
}

// === impl Resiliency ===

impl Resiliency {
    /// Whether the calls of an app are meant.
    pub fn is_in_scope(&self, app_id: &str) -> bool {
        object::is_in_scope(&self.scopes, app_id)
    }

    /// Reads a document of this kind; what is wrong goes to the findings. Names of policies are not compared here.
    pub(crate) fn read(findings: &mut Findings, document: &Node, file: &Path) -> Option<Resiliency> {
        let (mut top, _) = object::open(findings, document, "Resiliency", &[API_VERSION])?;
        let object = object::metadata(findings, &mut top, NameIsFor::People);
        let spec = required_table(findings, &mut top, "spec");
        let scopes = object::scopes(findings, &mut top);
        top.finish(findings);

        let (name, namespace) = object?;
        let mut spec = spec?;
        let policies = spec.optional(findings, "policies", values::table(policies::read));
        let targets = spec.optional(findings, "targets", values::table(targets::read));
        spec.finish(findings);
        let (targets, references) = targets.unwrap_or_default();
        Some(Resiliency {
            name: name?,
            namespace,
            policies: policies.unwrap_or_default(),
            targets,
            scopes,
            file: file.to_owned(),
            line: document.at.line,
            references,
        })
    }
}

// === impl Retry ===

impl Default for Retry {
    fn default() -> Self {
        Retry {
            backoff: Backoff::Constant { wait: Duration::from_secs(5) },
            max_retries: None,
            http_status_codes: None,
            grpc_status_codes: None,
        }
    }
}

// === impl Backoff ===

impl Backoff {
    /// Exponential with the usual numbers and this longest wait.
    pub(crate) fn exponential(max: Duration) -> Backoff {
        Backoff::Exponential {
            initial: Duration::from_millis(500),
            multiplier: 1.5,
            randomization: 0.5,
            max,
            max_elapsed: Duration::from_secs(15 * 60),
        }
    }
}

// === impl StatusCodes ===

impl StatusCodes {
    /// Whether a code is in one of the ranges.
    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|range| range.contains(&code))
    }

    /// The ranges.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

// === impl CircuitBreaker ===

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker {
            max_requests: 1,
            interval: Duration::ZERO,
            timeout: Duration::from_secs(60),
            trip: DEFAULT_TRIP.to_owned(),
        }
    }
}
