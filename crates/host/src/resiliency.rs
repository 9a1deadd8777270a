//! From Resiliency resources to policies of targets.
//!
//! Which policy a target has: the one that a resource names for it, else the resource's overridable default
//! (`DefaultAppRetryPolicy` and the like), most specific first. A circuit breaker belongs to one target of
//! one calling app.

use crate::expression::Expression;
use crate::metrics::{Metrics, PolicyOf};
use dhow_blocks::policy::{Backoff, Breaker, Counts, Matching, Policies, Policy, Retry, Watch};
use dhow_resources::load::Resources;
use dhow_resources::resiliency::defaults::{
    ComponentBlock, DefaultTarget, Direction, PolicyKind, built_in_retry, default_policy_names,
};
use dhow_resources::resiliency::{self as resource, PolicyNames};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// The resiliency of a host.
#[derive(Debug, Default)]
pub struct Resiliency {
    resources: Vec<resource::Resiliency>,
    /// Circuit breakers by calling app, target and name.
    breakers: Mutex<HashMap<(String, String, String), Arc<Breaker>>>,
    metrics: OnceLock<Metrics>,
    /// What counts the policies of an app for a target.
    watches: Mutex<HashMap<(String, String), Arc<dyn Watch>>>,
}

/// Targets that have circuit breakers, and whose policies are counted; apps can ask for any name.
const MAX_TARGETS: usize = 10_000;

/// What a policy is for.
#[derive(Clone, Copy)]
struct Target<'a> {
    /// For circuit breakers.
    key: &'a str,
    /// In metrics.
    label: &'a str,
    direction: Direction,
}

/// The policies of one calling app.
struct OfApp {
    resiliency: Arc<Resiliency>,
    app_id: String,
}

// === impl Resiliency ===

impl Resiliency {
    /// Takes what the resources say.
    pub fn new(resources: &Resources) -> Resiliency {
        Resiliency { resources: resources.resiliencies.clone(), ..Resiliency::default() }
    }

    /// Says where to count what policies do; once.
    pub(crate) fn count_in(&self, metrics: &Metrics) {
        let _ = self.metrics.set(metrics.clone());
    }

    /// Names of the resources.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.resources.iter().map(|resource| resource.name.as_str())
    }

    /// The policies of an app's invocations; none where no resource is for this app.
    pub fn of_app(self: &Arc<Self>, app_id: &str) -> Option<Arc<dyn Policies>> {
        let mut any = false;
        for resource in self.resources.iter().filter(|resource| resource.is_in_scope(app_id)) {
            any = true;
            if let Some(metrics) = self.metrics.get() {
                metrics.resiliency_loaded(app_id, &resource.name);
            }
        }
        let of_app = || OfApp { resiliency: Arc::clone(self), app_id: app_id.to_owned() };
        any.then(|| Arc::new(of_app()) as Arc<dyn Policies>)
    }

    /// What is done for an app's calls to a component, or for a component's events to an app.
    pub fn component(
        &self,
        app_id: &str,
        component: &str,
        block: ComponentBlock,
        direction: Direction,
    ) -> Policy {
        let named = |resource: &resource::Resiliency| {
            let target = resource.targets.components.get(component);
            target.map(|target| match direction {
                Direction::Inbound => target.inbound.clone(),
                Direction::Outbound => target.outbound.clone(),
            })
        };
        let side = if direction == Direction::Inbound { "in" } else { "out" };
        let key = format!("component {component} {side}");
        let label = format!("{block:?}_{component}");
        let target = Target { key: &key, label: &label, direction };
        self.policy(app_id, target, named, DefaultTarget::Component(block, direction))
    }

    fn policy(
        &self,
        app_id: &str,
        target: Target<'_>,
        named: impl Fn(&resource::Resiliency) -> Option<PolicyNames>,
        default: DefaultTarget,
    ) -> Policy {
        let mut policy = Policy::default();
        let mut from = [""; 3];
        for resource in self.resources.iter().filter(|resource| resource.is_in_scope(app_id)) {
            let names = named(resource).unwrap_or_default();
            if policy.timeout.is_none() {
                let timeouts = &resource.policies.timeouts;
                let timeout = pick(names.timeout.as_deref(), default, PolicyKind::Timeout, |name| {
                    timeouts.get(name).copied()
                });
                policy.timeout = timeout.map(|(_, timeout)| timeout).filter(|timeout| !timeout.is_zero());
                from[0] = &resource.name;
            }
            if policy.retry.is_none() {
                let retries = &resource.policies.retries;
                let retry = pick(names.retry.as_deref(), default, PolicyKind::Retry, |name| {
                    retries.get(name).cloned().or_else(|| built_in_retry(name))
                });
                policy.retry = retry.map(|(_, retry)| Arc::new(from_resource(&retry)));
                from[1] = &resource.name;
            }
            if policy.breaker.is_none() {
                let breakers = &resource.policies.circuit_breakers;
                let breaker = names.circuit_breaker.as_deref();
                let found =
                    pick(breaker, default, PolicyKind::CircuitBreaker, |name| breakers.get(name).cloned());
                policy.breaker =
                    found.and_then(|(name, breaker)| self.breaker(app_id, target.key, &name, &breaker));
                from[2] = if policy.breaker.is_some() { &resource.name } else { "" };
            }
        }
        if !policy.is_none() {
            policy.watch = self.watch(app_id, target, from);
        }
        policy
    }

    /// What counts the policy of an app for a target; `names` are the resources of its parts.
    fn watch(&self, app_id: &str, target: Target<'_>, names: [&str; 3]) -> Option<Arc<dyn Watch>> {
        let metrics = self.metrics.get()?;
        let key = (app_id.to_owned(), target.key.to_owned());
        let mut watches = self.watches.lock();
        if let Some(watch) = watches.get(&key) {
            return Some(Arc::clone(watch));
        }
        if watches.len() >= MAX_TARGETS {
            return None;
        }
        let direction = if target.direction == Direction::Inbound { "inbound" } else { "outbound" };
        let watch = metrics.policy(&PolicyOf { app_id, names, direction, target: target.label })?;
        watches.insert(key, Arc::clone(&watch));
        Some(watch)
    }

    fn breaker(
        &self,
        app_id: &str,
        target: &str,
        name: &str,
        breaker: &resource::CircuitBreaker,
    ) -> Option<Arc<Breaker>> {
        let key = (app_id.to_owned(), target.to_owned(), name.to_owned());
        let mut breakers = self.breakers.lock();
        if let Some(breaker) = breakers.get(&key) {
            return Some(Arc::clone(breaker));
        }
        if breakers.len() >= MAX_TARGETS {
            return None;
        }
        let resource::CircuitBreaker { max_requests, interval, timeout, trip } = breaker;
        let name = format!("{name} of {target}");
        let breaker = Arc::new(Breaker::new(name, *max_requests, *interval, *timeout, trip_of(trip)));
        breakers.insert(key, Arc::clone(&breaker));
        Some(breaker)
    }
}

impl Policies for OfApp {
    fn app(&self, target: &str) -> Policy {
        let named = |resource: &resource::Resiliency| {
            resource.targets.apps.get(target).map(|target| target.policies.clone())
        };
        let (key, label) = (format!("app {target}"), format!("app_{target}"));
        let target = Target { key: &key, label: &label, direction: Direction::Outbound };
        self.resiliency.policy(&self.app_id, target, named, DefaultTarget::App)
    }
}

/// The policy of that name, else the first default there is.
fn pick<T>(
    name: Option<&str>,
    default: DefaultTarget,
    kind: PolicyKind,
    get: impl Fn(&str) -> Option<T>,
) -> Option<(String, T)> {
    let named = name.map(str::to_owned).into_iter();
    let mut names = named.chain(default_policy_names(default, kind));
    names.find_map(|name| get(&name).map(|found| (name, found)))
}

fn from_resource(retry: &resource::Retry) -> Retry {
    let ranges = |codes: &Option<resource::StatusCodes>| {
        codes.as_ref().map(|codes| codes.ranges().to_vec()).unwrap_or_default()
    };
    let backoff = match retry.backoff {
        resource::Backoff::Constant { wait } => Backoff::Constant(wait),
        resource::Backoff::Exponential { max, .. } => Backoff::Exponential { max_interval: max },
    };
    let matching =
        Matching { http: ranges(&retry.http_status_codes), grpc: ranges(&retry.grpc_status_codes) };
    Retry { backoff, max_retries: retry.max_retries, matching }
}

fn trip_of(source: &str) -> Box<dyn Fn(&Counts) -> bool + Send + Sync> {
    match Expression::parse(source) {
        Ok(expression) => Box::new(move |counts| {
            // Signed, as in Dapr: CEL does not mix the two kinds of integers.
            let variables = [
                ("requests", i64::from(counts.requests)),
                ("totalSuccesses", i64::from(counts.total_successes)),
                ("totalFailures", i64::from(counts.total_failures)),
                ("consecutiveSuccesses", i64::from(counts.consecutive_successes)),
                ("consecutiveFailures", i64::from(counts.consecutive_failures)),
            ];
            expression.is_true(&variables).unwrap_or_else(|error| {
                tracing::warn!("the trip expression of a circuit breaker cannot be evaluated: {error}");
                false
            })
        }),
        Err(error) => {
            tracing::warn!("the trip expression {source:?} is not valid ({error}); using Dapr's default");
            Box::new(|counts| counts.consecutive_failures > 5)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_resources::load::parse;
    use std::path::Path;
    use std::time::Duration;

    const YAML: &str = "
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
scopes: [caller]
spec:
  policies:
    timeouts:
      fast: 2s
      DefaultComponentOutboundTimeoutPolicy: 7s
    retries:
      DefaultAppRetryPolicy: {policy: constant, duration: 1s, maxRetries: 2}
      DefaultStatestoreComponentOutboundRetryPolicy: {policy: exponential, maxInterval: 3s}
    circuitBreakers:
      cb: {maxRequests: 1, timeout: 5s, trip: consecutiveFailures >= 2}
  targets:
    apps:
      orders: {timeout: fast, circuitBreaker: cb}
    components:
      store:
        outbound: {retry: DaprBuiltInServiceRetries}
";

    fn resiliency() -> Arc<Resiliency> {
        Arc::new(Resiliency::new(&parse(YAML, Path::new("r.yaml")).unwrap()))
    }

    #[test]
    fn targets_have_named_policies_and_defaults() {
        let resiliency = resiliency();
        assert!(resiliency.of_app("stranger").is_none());
        let policies = resiliency.of_app("caller").unwrap();
        let orders = policies.app("orders");
        assert_eq!(orders.timeout, Some(Duration::from_secs(2)));
        assert_eq!(orders.retry.as_ref().unwrap().max_retries, Some(2));
        assert!(Arc::ptr_eq(&orders.breaker.unwrap(), &policies.app("orders").breaker.unwrap()));
        let other = policies.app("other");
        assert!(other.timeout.is_none() && other.breaker.is_none() && other.retry.is_some());
        let state = |component: &str, direction| {
            resiliency.component("caller", component, ComponentBlock::Statestore, direction)
        };
        let store = state("store", Direction::Outbound);
        assert_eq!(store.retry.unwrap().max_retries, Some(3));
        assert_eq!(store.timeout, Some(Duration::from_secs(7)));
        let retry = state("elsewhere", Direction::Outbound).retry.unwrap();
        assert_eq!(retry.backoff, Backoff::Exponential { max_interval: Duration::from_secs(3) });
        assert!(state("store", Direction::Inbound).is_none());
    }

    #[test]
    fn the_trip_expression_decides() {
        let trip = trip_of("requests >= 4 && totalFailures * 2 >= requests");
        let counts = |requests, total_failures| Counts { requests, total_failures, ..Counts::default() };
        assert!(!trip(&counts(3, 3)) && !trip(&counts(4, 1)) && trip(&counts(4, 2)));
        let broken = trip_of("consecutiveFailures >");
        assert!(broken(&Counts { consecutive_failures: 6, ..Counts::default() }));
    }
}
