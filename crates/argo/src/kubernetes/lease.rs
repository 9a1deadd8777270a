//! Who of several does the work: the one that holds a Lease (`coordination.k8s.io/v1`).
//!
//! The rules are those of Kubernetes' own components, so that clocks need not agree: a Lease is free when its holder let
//! go of it, or when it did not change for as long as it lasts, by the clock of whoever wants it. Every change carries
//! the version that it was made from, so that of two only one succeeds.

use super::{Cluster, KubernetesError, escaped};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How a Lease is held.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After this time without a sign of its holder it is free.
    pub lasts: Duration,
    /// A holder that could not renew it for so long gives up.
    pub gives_up: Duration,
    /// How often it is renewed, or asked for.
    pub every: Duration,
}

/// One who wants to hold a Lease.
pub struct Candidate {
    cluster: Arc<Cluster>,
    namespace: String,
    name: String,
    /// Different from all others.
    identity: String,
    timing: Timing,
    /// What was seen last, and since when it is so.
    seen: Option<(String, Instant)>,
}

/// What an attempt came to.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Held,
    /// Somebody else has it.
    Taken(String),
}

impl Default for Timing {
    /// Those of Kubernetes' own components.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Timing { lasts: seconds(15), gives_up: seconds(10), every: seconds(2) }
    }
}

// === impl Candidate ===

impl Candidate {
    /// Wants the Lease of that name.
    pub fn new(
        cluster: Arc<Cluster>,
        namespace: &str,
        name: &str,
        identity: &str,
        timing: Timing,
    ) -> Candidate {
        let (namespace, name, identity) = (namespace.to_owned(), name.to_owned(), identity.to_owned());
        Candidate { cluster, namespace, name, identity, timing, seen: None }
    }

    /// Waits until it is held.
    pub async fn acquire(&mut self) {
        let mut told = String::new();
        loop {
            match self.attempt().await {
                Ok(Attempt::Held) => return,
                Ok(Attempt::Taken(holder)) => {
                    if holder != told {
                        tracing::info!("the Lease {} is held by {holder}; waiting", self.name);
                        told = holder;
                    }
                }
                Err(error) => tracing::warn!("the Lease {}: {error}", self.name),
            }
            tokio::time::sleep(jittered(self.timing.every)).await;
        }
    }

    /// Renews it for as long as that is possible; returns why it is lost.
    pub async fn hold(&mut self) -> String {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(jittered(self.timing.every)).await;
            let left = self.timing.gives_up.saturating_sub(renewed.elapsed());
            let reason = match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(Attempt::Held)) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(Ok(Attempt::Taken(holder))) => return format!("{holder} has it now"),
                // Somebody wrote in between; the next attempt sees who.
                Ok(Err(error)) if error.is_conflict() => continue,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the API server does not answer".to_owned(),
            };
            if renewed.elapsed() >= self.timing.gives_up {
                return format!("it could not be renewed for {} s: {reason}", self.timing.gives_up.as_secs());
            }
            tracing::warn!("the Lease {} is not renewed: {reason}", self.name);
        }
    }

    /// Lets go of it, so that nobody has to wait.
    pub async fn release(&mut self) {
        let released = async {
            let mut lease: Value = self.cluster.get(&self.path()).await?;
            if text(&lease, "/spec/holderIdentity") == self.identity {
                let now = now();
                for (field, value) in [
                    ("holderIdentity", json!("")),
                    ("leaseDurationSeconds", json!(1)),
                    ("renewTime", json!(now)),
                    ("acquireTime", json!(now)),
                ] {
                    lease["spec"][field] = value;
                }
                self.cluster.replace(&self.path(), &lease).await?;
            }
            Ok::<(), KubernetesError>(())
        };
        // Without it the others wait until it is over: not worth a delay.
        match tokio::time::timeout(self.timing.every, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the Lease {} is not released: {error}", self.name),
            Err(_) => tracing::debug!("the Lease {} is not released in time", self.name),
        }
    }

    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", escaped(&self.namespace))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), escaped(&self.name))
    }

    async fn attempt(&mut self) -> Result<Attempt, KubernetesError> {
        let mut lease: Value = match self.cluster.get(&self.path()).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => return self.make().await,
            Err(error) => return Err(error),
        };
        let holder = text(&lease, "/spec/holderIdentity").to_owned();
        let version = text(&lease, "/metadata/resourceVersion").to_owned();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.seen = Some((version, Instant::now()));
        }
        let lasts = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(0);
        let since = self.seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && since < Duration::from_secs(lasts) {
            return Ok(Attempt::Taken(holder));
        }
        let transitions = lease.pointer("/spec/leaseTransitions").and_then(Value::as_u64).unwrap_or(0);
        let now = now();
        let mut spec = json!({
            "holderIdentity": self.identity, "leaseDurationSeconds": self.seconds(), "renewTime": now,
            "acquireTime": now, "leaseTransitions": transitions,
        });
        if holder == self.identity {
            spec["acquireTime"] = lease.pointer("/spec/acquireTime").cloned().unwrap_or(json!(now));
        } else {
            spec["leaseTransitions"] = json!(transitions + 1);
        }
        lease["spec"] = spec;
        let replaced = self.cluster.replace(&self.path(), &lease).await?;
        self.seen = Some((text(&replaced, "/metadata/resourceVersion").to_owned(), Instant::now()));
        Ok(Attempt::Held)
    }

    async fn make(&self) -> Result<Attempt, KubernetesError> {
        let now = now();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "holderIdentity": self.identity, "leaseDurationSeconds": self.seconds(), "acquireTime": now,
                "renewTime": now, "leaseTransitions": 0,
            },
        });
        self.cluster.create(&self.collection(), &lease).await?;
        Ok(Attempt::Held)
    }

    fn seconds(&self) -> u64 {
        self.timing.lasts.as_secs().max(1)
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Kubernetes' `MicroTime`.
fn now() -> String {
    format!("{:.6}", Timestamp::now())
}

/// So that those who began together do not ask together for ever.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(1.0 + fastrand::f64() * 0.2)
}
