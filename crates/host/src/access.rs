//! Access control between apps: which app may call which path of the apps here.
//!
//! Rules: Dapr documentation, "Apply access control list configuration for service invocation". A path is compared
//! segment by segment; `*` and `{name}` stand for one segment, `*` at the end for all that follow. The most specific
//! rule decides. Paths and names of apps that speak HTTP are compared without regard to case.

use crate::metrics::{Decision, Metrics, known_method};
use dhow_blocks::invoke::InvokeError;
use dhow_resources::configuration::access::{AccessControl, Action, Operation};
use http::Method;
use std::collections::HashMap;

/// The rules of a host, ready to be asked.
#[derive(Debug)]
pub(crate) struct Access {
    default: Action,
    trust_domain: String,
    /// By caller.
    apps: HashMap<String, Policy>,
}

#[derive(Debug)]
struct Policy {
    default: Option<Action>,
    /// The most specific first; of equal ones, the last of the configuration.
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    segments: Vec<Segment>,
    verbs: Vec<&'static str>,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

// === impl Access ===

impl Access {
    /// What a configuration says; `namespace` is that of all apps of the host, and of their callers.
    pub(crate) fn new(control: &AccessControl, namespace: &str) -> Access {
        let mut apps = HashMap::new();
        // A caller is in the host's trust domain and namespace: no other policy can be meant for it.
        let ours = control.policies.iter();
        for policy in
            ours.filter(|policy| policy.trust_domain == control.trust_domain && policy.namespace == namespace)
        {
            let mut rules: Vec<Rule> = policy.operations.iter().rev().map(Rule::new).collect();
            rules.sort_by_cached_key(Rule::rank);
            apps.insert(policy.app_id.clone(), Policy { default: policy.default_action, rules });
        }
        Access { default: control.default_action, trust_domain: control.trust_domain.clone(), apps }
    }

    /// Lets a call pass, or says that it may not.
    pub(crate) fn check(
        &self,
        caller: &str,
        app_id: &str,
        (method, path, grpc): (&Method, &str, bool),
        metrics: &Metrics,
    ) -> Result<(), InvokeError> {
        let path = normalized(path);
        let (action, by_app_policy) = self.decide(caller, method, &path, grpc);
        let allowed = action == Action::Allow;
        let decision = Decision { allowed, by_app_policy, verb: known_method(method) };
        metrics.access(caller, &self.trust_domain, &path, &decision);
        if allowed {
            return Ok(());
        }
        let denied = InvokeError::Forbidden {
            caller: caller.to_owned(),
            app_id: app_id.to_owned(),
            operation: path,
            verb: method.to_string(),
        };
        tracing::debug!(app_id, "{denied}");
        Err(denied)
    }

    fn decide(&self, caller: &str, method: &Method, path: &str, grpc: bool) -> (Action, bool) {
        let Some(policy) = self.apps.get(caller) else { return (self.default, false) };
        let (default, by_app_policy) = (policy.default.unwrap_or(self.default), policy.default.is_some());
        let mut rules = policy.rules.iter().filter(|rule| rule.matches(path, grpc)).peekable();
        let rank = rules.peek().map(|rule| rule.rank());
        // Less specific rules say nothing about other methods.
        let mut rules = rules.take_while(|rule| Some(rule.rank()) == rank);
        match rules
            .find(|rule| grpc || rule.verbs.iter().any(|verb| *verb == "*" || *verb == method.as_str()))
        {
            Some(rule) => (rule.action, true),
            None => (default, by_app_policy),
        }
    }
}

// === impl Rule ===

impl Rule {
    fn new(operation: &Operation) -> Rule {
        let names: Vec<&str> = operation.name.split('/').filter(|name| !name.is_empty()).collect();
        let segments = names.iter().enumerate().map(|(index, name)| match *name {
            "*" if index + 1 == names.len() => Segment::Rest,
            "*" => Segment::One,
            name if name.starts_with('{') && name.ends_with('}') => Segment::One,
            name => Segment::Literal(name.to_owned()),
        });
        Rule { segments: segments.collect(), verbs: operation.http_verbs.clone(), action: operation.action }
    }

    /// Less is more specific: a name before any name, and that before any number of them.
    fn rank(&self) -> Vec<u8> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::One => 1,
            Segment::Rest => 2,
        };
        self.segments.iter().map(rank).collect()
    }

    fn matches(&self, path: &str, grpc: bool) -> bool {
        let mut given = path.split('/').filter(|name| !name.is_empty());
        for segment in &self.segments {
            match (segment, given.next()) {
                (Segment::Rest, _) => return true,
                (Segment::One, Some(_)) => {}
                (Segment::Literal(literal), Some(given))
                    if literal == given || (!grpc && literal.eq_ignore_ascii_case(given)) => {}
                _ => return false,
            }
        }
        given.next().is_none()
    }
}

/// A path in the one form that rules are compared with: no needless escapes, no empty segments, no dots (RFC 3986
/// section 6.2.2). An escaped slash stays escaped: it is no border of segments.
fn normalized(path: &str) -> String {
    let mut segments: Vec<String> = Vec::new();
    for raw in path.split('/') {
        match unescaped(raw).as_str() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment.to_owned()),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Takes off escapes of what needs none in a path.
fn unescaped(segment: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(segment.len()), segment);
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let digits = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match digits {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) => {
                text.push(char::from(byte));
                rest = &after[2..];
            }
            _ => {
                text.push('%');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_resources::configuration;
    use std::path::Path;

    const YAML: &str = r#"
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: { name: access }
spec:
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
      - appId: front
        defaultAction: deny
        trustDomain: public
        namespace: default
        operations:
          - { name: /orders/*, httpVerb: [GET, POST], action: allow }
          - { name: /orders/secret, httpVerb: ["*"], action: deny }
          - { name: "items/{id}/price", httpVerb: [GET], action: allow }
          - { name: /a/*/c, httpVerb: ["*"], action: allow }
          - { name: /pkg.Service/Method, action: allow }
          - { name: /both, httpVerb: [GET], action: allow }
          - { name: /both, httpVerb: [POST], action: deny }
          - { name: /Big/*, httpVerb: ["*"], action: allow }
          - { name: /big/secret, httpVerb: ["*"], action: deny }
      - appId: admin
        defaultAction: allow
        trustDomain: public
        namespace: default
        operations:
          - { name: /danger, httpVerb: ["*"], action: deny }
      - appId: plain
        trustDomain: public
        namespace: default
      - appId: foreign
        defaultAction: allow
        trustDomain: elsewhere
        namespace: default
"#;

    fn access(yaml: &str) -> Access {
        let control = configuration::parse(yaml, Path::new("c.yaml")).unwrap().access_control.unwrap();
        Access::new(&control, "default")
    }

    #[test]
    fn the_most_specific_rule_decides() {
        let access = access(YAML);
        for (caller, verb, path, allowed) in [
            ("front", "GET", "/orders/7", true),
            ("front", "GET", "/Orders/7/lines", true),
            ("front", "GET", "/orders", true),
            ("front", "DELETE", "/orders/7", false),
            ("front", "GET", "/orders/secret", false),
            ("front", "GET", "/orders/SECRET", false),
            ("front", "GET", "/orders/./x/..//secret", false),
            ("front", "GET", "/orders/%73ecret", false),
            ("front", "GET", "/orders/x/../../danger", false),
            ("front", "GET", "/items/7/price", true),
            ("front", "GET", "/items/7/cost", false),
            ("front", "GET", "/items//price", false),
            ("front", "PUT", "/a/b/c", true),
            ("front", "PUT", "/a/b%2Fx/c", true),
            ("front", "PUT", "/a/b/x/c", false),
            ("front", "POST", "/pkg.Service/Method", false),
            ("front", "GET", "/both", true),
            ("front", "POST", "/both", false),
            ("front", "GET", "/big/x", true),
            ("front", "GET", "/Big/Secret", false),
            ("admin", "GET", "/anything", true),
            ("admin", "GET", "/danger", false),
            ("admin", "GET", "/danger/", false),
            ("plain", "GET", "/", false),
            ("foreign", "GET", "/", false),
            ("nobody", "GET", "/", false),
        ] {
            let method = Method::from_bytes(verb.as_bytes()).unwrap();
            let (action, _) = access.decide(caller, &method, &normalized(path), false);
            assert_eq!(action == Action::Allow, allowed, "{caller} {verb} {path}");
        }
        let grpc = |path: &str| access.decide("front", &Method::POST, path, true).0 == Action::Allow;
        assert!(grpc("/pkg.Service/Method") && !grpc("/pkg.service/method") && grpc("/orders/7"));
    }

    #[test]
    fn decisions_are_counted_and_explained() {
        let metrics = Metrics::new(&configuration::telemetry::Metrics::default(), "default").unwrap();
        let access = access(YAML);
        let check =
            |caller: &str, path: &str| access.check(caller, "orders", (&Method::GET, path, false), &metrics);
        check("front", "/orders/7").unwrap();
        let error = check("nobody", "/orders/7").unwrap_err().to_string();
        assert_eq!(
            error,
            "access control policy has denied access to id: nobody operation: /orders/7 verb: GET"
        );
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            r#"dapr_runtime_acl_app_policy_action_allowed_total{app_id="front",method="GET",namespace="default",operation="/orders/7",policyAction="true",trustDomain="public"} 1"#,
            r#"dapr_runtime_acl_global_policy_action_blocked_total{app_id="nobody",method="GET",namespace="default",operation="/orders/7",policyAction="false",trustDomain="public"} 1"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
