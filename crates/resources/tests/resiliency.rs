//! Resiliency resources: what they mean, and what each mistake in them is answered with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod mistakes;

use dhow_resources::load::{load_dir, parse};
use dhow_resources::resiliency::{
    ActorTarget, AppTarget, Backoff, CircuitBreaker, CircuitBreakerScope, ComponentTarget, DEFAULT_TRIP,
    PolicyNames, Resiliency, Retry,
};
use mistakes::{Mistake, check};
use std::path::Path;
use std::time::Duration;

/// As the quickstart of resiliency has it.
const QUICKSTART: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata:
  name: myresiliency
scopes:
- checkout
spec:
  policies:
    retries:
      retryForever:
        policy: constant
        duration: 5s
        maxRetries: -1
    circuitBreakers:
      simpleCB:
        maxRequests: 1
        timeout: 5s
        trip: consecutiveFailures >= 5
  targets:
    apps:
      order-processor:
        retry: retryForever
        circuitBreaker: simpleCB
";

/// What mistakes are made in.
const FULL: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata:
  name: policies
spec:
  policies:
    timeouts:
      general: 5s
    retries:
      steady:
        policy: constant
        duration: 1s
        maxRetries: 3
        matching:
          httpStatusCodes: 429,500-599
          gRPCStatusCodes: 1,3-5
    circuitBreakers:
      simple:
        maxRequests: 2
        interval: 8s
        timeout: 45s
        trip: consecutiveFailures > 8
  targets:
    apps:
      orders:
        timeout: general
        retry: steady
        circuitBreaker: simple
        circuitBreakerCacheSize: 7
    actors:
      Cart:
        circuitBreaker: simple
        circuitBreakerScope: type
    components:
      statestore:
        outbound:
          retry: steady
scopes:
- checkout
";

fn read(text: &str) -> Result<Vec<Resiliency>, String> {
    let resources = parse(text, Path::new("r.yaml")).map_err(|errors| errors.to_string())?;
    Ok(resources.resiliencies)
}

fn names(timeout: Option<&str>, retry: Option<&str>, circuit_breaker: Option<&str>) -> PolicyNames {
    let owned = |name: Option<&str>| name.map(str::to_owned);
    PolicyNames { timeout: owned(timeout), retry: owned(retry), circuit_breaker: owned(circuit_breaker) }
}

#[test]
fn a_quickstart_is_read() {
    let resiliency = read(QUICKSTART).unwrap().remove(0);
    assert!(resiliency.is_in_scope("checkout") && !resiliency.is_in_scope("order-processor"));
    assert_eq!((resiliency.name.as_str(), resiliency.line), ("myresiliency", 1));
    assert_eq!(resiliency.policies.retries["retryForever"], Retry::default());
    let breaker = &resiliency.policies.circuit_breakers["simpleCB"];
    assert_eq!(
        (breaker.timeout, breaker.trip.as_str()),
        (Duration::from_secs(5), "consecutiveFailures >= 5")
    );
    let target = AppTarget {
        policies: names(None, Some("retryForever"), Some("simpleCB")),
        circuit_breaker_cache_size: 100,
    };
    assert_eq!(resiliency.targets.apps["order-processor"], target);
}

#[test]
fn every_field_is_read() {
    let resiliency = read(include_str!("data/kinds.yaml")).unwrap().remove(0);
    let policies = &resiliency.policies;
    let timeouts: Vec<_> = policies.timeouts.iter().map(|(name, t)| (name.as_str(), t.as_millis())).collect();
    assert_eq!(timeouts, [("general", 5000), ("none", 0), ("short", 250)]);

    let steady = &policies.retries["steady"];
    assert_eq!(steady.backoff, Backoff::Constant { wait: Duration::from_secs(90) });
    assert_eq!((steady.max_retries, &steady.http_status_codes), (Some(3), &None));
    let growing = &policies.retries["growing"];
    let expected = Backoff::Exponential {
        initial: Duration::from_millis(500),
        multiplier: 1.5,
        randomization: 0.5,
        max: Duration::from_secs(15),
        max_elapsed: Duration::from_secs(900),
    };
    assert_eq!((growing.backoff, growing.max_retries), (expected, None));
    let http = growing.http_status_codes.as_ref().unwrap();
    assert_eq!(http.ranges(), [429..=429, 500..=599]);
    assert!(http.contains(429) && http.contains(599) && !http.contains(430));
    assert_eq!(growing.grpc_status_codes.as_ref().unwrap().ranges(), [14..=14]);
    assert_eq!(policies.retries["plain"], Retry::default());

    let simple = CircuitBreaker {
        max_requests: 2,
        interval: Duration::from_secs(8),
        timeout: Duration::from_secs(45),
        trip: "consecutiveFailures > 8".into(),
    };
    assert_eq!(policies.circuit_breakers["simple"], simple);
    let plain = CircuitBreaker {
        max_requests: 1,
        interval: Duration::ZERO,
        timeout: Duration::from_secs(60),
        trip: DEFAULT_TRIP.into(),
    };
    assert_eq!(policies.circuit_breakers["plain"], plain);

    let targets = &resiliency.targets;
    let orders = AppTarget {
        policies: names(Some("general"), Some("steady"), Some("simple")),
        circuit_breaker_cache_size: 7,
    };
    assert_eq!(targets.apps["orders"], orders);
    let other = AppTarget { policies: PolicyNames::default(), circuit_breaker_cache_size: 100 };
    assert_eq!(targets.apps["other"], other);
    let cart = ActorTarget {
        policies: names(Some("short"), None, Some("plain")),
        circuit_breaker_scope: Some(CircuitBreakerScope::Both),
        circuit_breaker_cache_size: 5000,
    };
    assert_eq!(targets.actors["Cart"], cart);
    let store = ComponentTarget {
        inbound: names(None, Some("DaprBuiltInServiceRetries"), None),
        outbound: names(None, Some("growing"), None),
    };
    assert_eq!(targets.components["statestore"], store);
}

#[test]
fn zero_is_the_default_where_dapr_cannot_tell_them_apart() {
    let text = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: a}\nspec:\n  policies:\n    \
                circuitBreakers: {a: {maxRequests: 0, timeout: 0s, trip: ' '}}\n    retries: {a: {maxRetries: 0}}\n  \
                targets: {apps: {a: {circuitBreakerCacheSize: 0}}}\n";
    let resiliency = read(text).unwrap().remove(0);
    assert_eq!(resiliency.policies.circuit_breakers["a"], CircuitBreaker::default());
    assert_eq!(resiliency.targets.apps["a"].circuit_breaker_cache_size, 100);
    // No retry at all is something else than retries without limit.
    assert_eq!(resiliency.policies.retries["a"].max_retries, Some(0));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mistakes: &[Mistake] = &[
        (
            "v1alpha1",
            "v1",
            "r.yaml:1:13: apiVersion: `dapr.io/v1` is not a version of Resiliency; expected dapr.io/v1alpha1",
        ),
        (
            "    timeouts:\n      general: 5s\n",
            "    timeouts: 5s\n",
            "r.yaml:7:15: spec.policies.timeouts: must be a map, found a string",
        ),
        (
            "  policies:\n",
            "  polices:\n",
            "r.yaml:6:3: spec: unknown field `polices`; expected one of policies, targets; did you mean `policies`?",
        ),
        (
            "    timeouts:",
            "    timeout:",
            "r.yaml:7:5: spec.policies: unknown field `timeout`; expected one of timeouts, retries, circuitBreakers; did you mean `timeouts`?",
        ),
        (
            "      general: 5s",
            "      general: 5 potatoes",
            "r.yaml:8:16: spec.policies.timeouts.general: `5 potatoes` is not a duration; expected a duration such as \"500ms\", \"30s\", \"1m30s\", or milliseconds as a number",
        ),
        (
            "      general: 5s",
            "      general: -5s",
            "r.yaml:8:16: spec.policies.timeouts.general: `-5s` is not a duration; expected a duration such as \"500ms\", \"30s\", \"1m30s\", or milliseconds as a number",
        ),
        (
            "      general: 5s",
            "      general:",
            "r.yaml:8:14: spec.policies.timeouts.general: is empty; expected a duration such as \"5s\"",
        ),
        (
            "      general: 5s",
            "      general: {duration: 5s}",
            "r.yaml:8:16: spec.policies.timeouts.general: must be a single value, found a map",
        ),
        (
            "        policy: constant",
            "        policy: constnat",
            "r.yaml:11:17: spec.policies.retries.steady.policy: `constnat` is unknown; expected constant or exponential; did you mean `constant`?",
        ),
        (
            "        policy: constant",
            "        polic: constant",
            "r.yaml:11:9: spec.policies.retries.steady: unknown field `polic`; expected one of policy, duration, maxInterval, maxRetries, matching; did you mean `policy`?",
        ),
        (
            "        duration: 1s",
            "        duration: soon",
            "r.yaml:12:19: spec.policies.retries.steady.duration: `soon` is not a duration; expected a duration such as \"500ms\", \"30s\", \"1m30s\", or milliseconds as a number",
        ),
        (
            "        duration: 1s",
            "        maxInterval: []",
            "r.yaml:12:22: spec.policies.retries.steady.maxInterval: must be a single value, found a list",
        ),
        (
            "        maxRetries: 3",
            "        maxRetries: -2",
            "r.yaml:13:21: spec.policies.retries.steady.maxRetries: `-2` is out of range; expected -1 to 4294967295",
        ),
        (
            "        maxRetries: 3",
            "        maxRetries: three",
            "r.yaml:13:21: spec.policies.retries.steady.maxRetries: must be an integer, found a string",
        ),
        (
            "        matching:",
            "        match:",
            "r.yaml:14:9: spec.policies.retries.steady: unknown field `match`; expected one of policy, duration, maxInterval, maxRetries, matching",
        ),
        (
            "429,500-599",
            "429,500-600",
            "r.yaml:15:28: spec.policies.retries.steady.matching.httpStatusCodes: `500-600` is neither a status code nor a range of them; expected codes from 100 to 599, such as \"429,500-599\"",
        ),
        (
            "429,500-599",
            "99",
            "r.yaml:15:28: spec.policies.retries.steady.matching.httpStatusCodes: `99` is neither a status code nor a range of them; expected codes from 100 to 599, such as \"429,500-599\"",
        ),
        (
            "429,500-599",
            "599-500",
            "r.yaml:15:28: spec.policies.retries.steady.matching.httpStatusCodes: `599-500` is neither a status code nor a range of them; expected codes from 100 to 599, such as \"429,500-599\"",
        ),
        (
            "429,500-599",
            "500-",
            "r.yaml:15:28: spec.policies.retries.steady.matching.httpStatusCodes: `500-` is neither a status code nor a range of them; expected codes from 100 to 599, such as \"429,500-599\"",
        ),
        (
            "429,500-599",
            "5xx",
            "r.yaml:15:28: spec.policies.retries.steady.matching.httpStatusCodes: `5xx` is neither a status code nor a range of them; expected codes from 100 to 599, such as \"429,500-599\"",
        ),
        (
            "429,500-599",
            "500-501-502",
            "r.yaml:15:28: spec.policies.retries.steady.matching.httpStatusCodes: `500-501-502` is neither a status code nor a range of them; expected codes from 100 to 599, such as \"429,500-599\"",
        ),
        (
            "1,3-5",
            "17",
            "r.yaml:16:28: spec.policies.retries.steady.matching.gRPCStatusCodes: `17` is neither a status code nor a range of them; expected codes from 0 to 16, such as \"1,3-5\"",
        ),
        (
            "1,3-5",
            "'+1'",
            "r.yaml:16:28: spec.policies.retries.steady.matching.gRPCStatusCodes: `+1` is neither a status code nor a range of them; expected codes from 0 to 16, such as \"1,3-5\"",
        ),
        (
            "          gRPCStatusCodes",
            "          grpcStatusCodes",
            "r.yaml:16:11: spec.policies.retries.steady.matching: unknown field `grpcStatusCodes`; expected one of httpStatusCodes, gRPCStatusCodes; did you mean `gRPCStatusCodes`?",
        ),
        (
            "      simple:\n        maxRequests: 2",
            "      simple: 2\n      x:\n        maxRequests: 2",
            "r.yaml:18:15: spec.policies.circuitBreakers.simple: must be a map, found an integer",
        ),
        (
            "        maxRequests: 2",
            "        maxRequests: -2",
            "r.yaml:19:22: spec.policies.circuitBreakers.simple.maxRequests: `-2` is out of range; expected 0 to 4294967295",
        ),
        (
            "        interval: 8s",
            "        intervall: 8s",
            "r.yaml:20:9: spec.policies.circuitBreakers.simple: unknown field `intervall`; expected one of maxRequests, interval, timeout, trip; did you mean `interval`?",
        ),
        (
            "        timeout: 45s",
            "        timeout: 45x",
            "r.yaml:21:18: spec.policies.circuitBreakers.simple.timeout: `45x` is not a duration; expected a duration such as \"500ms\", \"30s\", \"1m30s\", or milliseconds as a number",
        ),
        (
            "        trip: consecutiveFailures > 8",
            "        trip: 8",
            "r.yaml:22:15: spec.policies.circuitBreakers.simple.trip: must be a condition such as \"consecutiveFailures > 5\", found an integer",
        ),
        (
            "        timeout: general",
            "        timeout: genral",
            "r.yaml:26:18: spec.targets.apps.orders.timeout: there is no timeout `genral`; expected a name under spec.policies.timeouts; did you mean `general`?",
        ),
        (
            "        timeout: general",
            "        timeout: steady",
            "r.yaml:26:18: spec.targets.apps.orders.timeout: there is no timeout `steady`; expected a name under spec.policies.timeouts",
        ),
        (
            "        retry: steady",
            "        retry: Steadily",
            "r.yaml:27:16: spec.targets.apps.orders.retry: there is no retry policy `Steadily`; expected a name under spec.policies.retries; did you mean `steady`?",
        ),
        (
            "        retry: steady",
            "        retry: DaprBuiltInOther",
            "r.yaml:27:16: spec.targets.apps.orders.retry: there is no retry policy `DaprBuiltInOther`; expected a name under spec.policies.retries",
        ),
        (
            "        circuitBreaker: simple",
            "        circuitBreaker: simpel",
            "r.yaml:28:25: spec.targets.apps.orders.circuitBreaker: there is no circuit breaker `simpel`; expected a name under spec.policies.circuitBreakers; did you mean `simple`?",
        ),
        (
            "        circuitBreakerCacheSize: 7",
            "        circuitBreakerCacheSize: many",
            "r.yaml:29:34: spec.targets.apps.orders.circuitBreakerCacheSize: must be an integer, found a string",
        ),
        (
            "        circuitBreakerScope: type\n",
            "        circuitBreakerScope:\n",
            "r.yaml:32:9: spec.targets.actors.Cart: `circuitBreakerScope` is missing; expected type or id or both: which actors share the circuit breaker",
        ),
        (
            "        circuitBreakerScope: type\n",
            "",
            "r.yaml:32:9: spec.targets.actors.Cart: `circuitBreakerScope` is missing; expected type or id or both: which actors share the circuit breaker",
        ),
        (
            "        circuitBreakerScope: type",
            "        circuitBreakerScope: types",
            "r.yaml:33:30: spec.targets.actors.Cart.circuitBreakerScope: `types` is unknown; expected type or id or both; did you mean `type`?",
        ),
        (
            "      statestore:\n",
            "      statestore: steady\n      other:\n",
            "r.yaml:35:19: spec.targets.components.statestore: must be a map, found a string",
        ),
        (
            "        outbound:",
            "        output:",
            "r.yaml:36:9: spec.targets.components.statestore: unknown field `output`; expected one of inbound, outbound",
        ),
        (
            "          retry: steady",
            "          retries: steady",
            "r.yaml:37:11: spec.targets.components.statestore.outbound: unknown field `retries`; expected one of timeout, retry, circuitBreaker",
        ),
        (
            "scopes:\n- checkout",
            "scopes: {a: b}",
            "r.yaml:38:9: scopes: must be a list of app-ids, found a map",
        ),
    ];
    check(FULL, mistakes, read);
}

#[test]
fn policies_of_all_files_are_one_set_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let (policies, targets) = QUICKSTART.split_once("  targets:").unwrap();
    std::fs::write(dir.path().join("a.yaml"), policies).unwrap();
    let head = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: other}\nspec:\n  targets:";
    std::fs::write(dir.path().join("b.yaml"), format!("{head}{targets}")).unwrap();
    assert_eq!(load_dir(dir.path()).unwrap().resiliencies.len(), 2);

    std::fs::write(dir.path().join("a.yaml"), policies.replace("retryForever", "retryAlways")).unwrap();
    let told = load_dir(dir.path()).unwrap_err().to_string();
    let expected = "b.yaml:8:16: spec.targets.apps.order-processor.retry: there is no retry policy `retryForever`; \
                    expected a name under spec.policies.retries";
    assert!(told.ends_with(expected), "{told}");
}

#[test]
fn many_unknown_policies_are_told_in_time() {
    let policies: String = (0..20_000).map(|number| format!("      policy-{number}: 1s\n")).collect();
    let apps: String =
        (0..20_000).map(|number| format!("      app-{number}: {{timeout: polcy-{number}}}\n")).collect();
    let text = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: a}}\nspec:\n  policies:\n    \
         timeouts:\n{policies}  targets:\n    apps:\n{apps}"
    );
    assert_eq!(read(&text).unwrap_err().lines().count(), 50);
}
