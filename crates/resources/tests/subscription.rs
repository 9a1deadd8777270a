//! Subscriptions: what they mean, and what each mistake in them is answered with.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod mistakes;

use dhow_resources::load::parse;
use dhow_resources::subscription::{BulkSubscribe, Routes, Rule, Subscription};
use mistakes::{Mistake, check};
use std::path::Path;
use std::time::Duration;

/// As the quickstarts of pub/sub have it.
const QUICKSTART: &str = "\
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: order-pub-sub
spec:
  topic: orders
  routes:
    default: /orders
  pubsubname: orderpubsub
scopes:
- orderprocessing
";

/// With everything that it may have.
const FULL: &str = "\
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: orders
spec:
  pubsubname: pubsub
  topic: orders
  routes:
    rules:
    - match: event.type == \"new\"
      path: /new
    default: /orders
  deadLetterTopic: poison
  metadata:
    rawPayload: \"true\"
  bulkSubscribe:
    enabled: true
    maxMessagesCount: 20
    maxAwaitDurationMs: 40
scopes:
- checkout
";

fn read(text: &str) -> Result<Vec<Subscription>, String> {
    let resources = parse(text, Path::new("s.yaml")).map_err(|errors| errors.to_string())?;
    Ok(resources.subscriptions)
}

fn one(text: &str) -> Subscription {
    let mut found = read(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
    assert_eq!(found.len(), 1, "{text}");
    found.remove(0)
}

#[test]
fn a_quickstart_is_read() {
    let subscription = one(QUICKSTART);
    assert_eq!((subscription.name.as_str(), subscription.line), ("order-pub-sub", 1));
    assert_eq!((subscription.pubsub_name.as_str(), subscription.topic.as_str()), ("orderpubsub", "orders"));
    assert_eq!(subscription.routes, Routes { rules: Vec::new(), default: Some("/orders".into()) });
    assert_eq!(subscription.bulk, BulkSubscribe::default());
    assert_eq!((subscription.dead_letter_topic, subscription.metadata.len()), (None, 0));
    assert!(one(QUICKSTART).is_in_scope("orderprocessing") && !one(QUICKSTART).is_in_scope("checkout"));
}

#[test]
fn every_field_is_read() {
    let resources = parse(include_str!("data/kinds.yaml"), Path::new("k.yaml")).unwrap();
    let [new, old] = resources.subscriptions.as_slice() else { panic!("{:?}", resources.subscriptions) };
    assert_eq!((new.name.as_str(), new.namespace.as_deref(), new.line), ("orders", Some("shop"), 2));
    let rule = |expression: Option<&str>, path: &str| Rule {
        expression: expression.map(str::to_owned),
        path: path.to_owned(),
    };
    let rules = vec![rule(Some("event.type == \"order.new\""), "/orders/new"), rule(None, "orders/any")];
    assert_eq!(new.routes, Routes { rules, default: Some("/orders".into()) });
    assert_eq!(new.dead_letter_topic.as_deref(), Some("poison"));
    let metadata: Vec<_> = new.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(metadata, [("depth", "5"), ("rawPayload", "true")]);
    let max_wait = Duration::from_millis(40);
    assert_eq!(new.bulk, BulkSubscribe { enabled: true, max_messages: 20, max_wait });
    assert_eq!(new.scopes, ["checkout", "billing"]);
    assert_eq!(old.routes, Routes { rules: Vec::new(), default: Some("/old".into()) });
    assert!(old.is_in_scope("anybody"));
}

#[test]
fn what_is_left_empty_is_not_there() {
    let empty = one(
        "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: a}\nscopes:\nspec:\n  \
                     pubsubname: p\n  topic: 5\n  routes: {rules: [{match:, path: /x}], default: }\n  \
                     deadLetterTopic: ''\n  metadata:\n  bulkSubscribe: {maxMessagesCount: 0, maxAwaitDurationMs: }\n",
    );
    assert_eq!(
        (empty.topic.as_str(), empty.dead_letter_topic, empty.bulk),
        ("5", None, BulkSubscribe::default())
    );
    assert_eq!((empty.routes.rules[0].expression.as_deref(), empty.routes.default), (None, None));
}

#[test]
fn other_systems_have_subscriptions_too() {
    let knative = QUICKSTART.replace("dapr.io/v2alpha1", "messaging.knative.dev/v1");
    let resources = parse(&knative, Path::new("s.yaml")).unwrap();
    assert_eq!((resources.subscriptions.len(), resources.ignored.len()), (0, 1));
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let mistakes: &[Mistake] = &[
        (
            "v2alpha1",
            "v1beta1",
            "s.yaml:1:13: apiVersion: `dapr.io/v1beta1` is not a version of Subscription; expected dapr.io/v2alpha1 or dapr.io/v1alpha1",
        ),
        (
            "apiVersion: dapr.io/v2alpha1\n",
            "",
            "s.yaml:1:1: apiVersion: is missing; expected apiVersion: dapr.io/v2alpha1 or dapr.io/v1alpha1",
        ),
        (
            "v2alpha1",
            "v1alpha1",
            "s.yaml:6:3: spec: `route` is missing; expected the path that gets the events, such as /orders\ns.yaml:8:3: spec: unknown field `routes`; expected one of pubsubname, topic, route, deadLetterTopic, metadata, bulkSubscribe; did you mean `route`?",
        ),
        (
            "  name: orders",
            "  nam: orders",
            "s.yaml:4:3: metadata: `name` is missing; expected a name that no other resource of this kind has\ns.yaml:4:3: metadata: unknown field `nam`; expected one of name, namespace, labels, annotations, creationTimestamp, finalizers, generateName, generation, managedFields, ownerReferences, resourceVersion, uid; did you mean `name`?",
        ),
        (
            "spec:",
            "sepc:",
            "s.yaml:5:1: unknown field `sepc`; expected one of apiVersion, kind, metadata, spec, scopes; did you mean `spec`?",
        ),
        (
            "  pubsubname: pubsub",
            "  pubsubName: pubsub",
            "s.yaml:6:3: spec: `pubsubname` is missing; expected the name of a pub/sub component, such as pubsub\ns.yaml:6:3: spec: unknown field `pubsubName`; expected one of pubsubname, topic, routes, deadLetterTopic, metadata, bulkSubscribe; did you mean `pubsubname`?",
        ),
        ("  topic: orders", "  topic:", "s.yaml:6:3: spec: `topic` is missing; expected the name of a topic"),
        (
            "  topic: orders",
            "  topic: [orders]",
            "s.yaml:7:10: spec.topic: must be a single value, found a list",
        ),
        (
            "  routes:",
            "  route:",
            "s.yaml:6:3: spec: `routes` is missing; expected routes: {default: /orders} or a list of rules\ns.yaml:8:3: spec: unknown field `route`; expected one of pubsubname, topic, routes, deadLetterTopic, metadata, bulkSubscribe; did you mean `routes`?",
        ),
        (
            "    rules:",
            "    rule:",
            "s.yaml:9:5: spec.routes: unknown field `rule`; expected one of rules, default; did you mean `rules`?",
        ),
        (
            "    - match: event.type == \"new\"\n      path: /new",
            "      match: x",
            "s.yaml:10:7: spec.routes.rules: must be a list of {match, path}, found a map",
        ),
        (
            "      path: /new",
            "      pat: /new",
            "s.yaml:10:7: spec.routes.rules[0]: `path` is missing; expected {match, path}\ns.yaml:11:7: spec.routes.rules[0]: unknown field `pat`; expected one of match, path; did you mean `path`?",
        ),
        (
            "      path: /new",
            "      path: ''",
            "s.yaml:10:7: spec.routes.rules[0]: `path` is missing; expected {match, path}",
        ),
        (
            "    default: /orders",
            "    default: {path: /orders}",
            "s.yaml:12:14: spec.routes.default: must be a single value, found a map",
        ),
        (
            "    rules:\n    - match: event.type == \"new\"\n      path: /new\n    default: /orders",
            "    rules: []",
            "s.yaml:9:5: spec.routes: has no path: every event would be dropped; expected routes: {default: /orders} or a list of rules",
        ),
        (
            "  deadLetterTopic",
            "  deadLeterTopic",
            "s.yaml:13:3: spec: unknown field `deadLeterTopic`; expected one of pubsubname, topic, routes, deadLetterTopic, metadata, bulkSubscribe; did you mean `deadLetterTopic`?",
        ),
        (
            "    rawPayload: \"true\"",
            "    rawPayload: {}",
            "s.yaml:15:17: spec.metadata.rawPayload: must be a single value, found a map",
        ),
        (
            "    enabled: true",
            "    enabled: \"true\"",
            "s.yaml:17:14: spec.bulkSubscribe.enabled: must be true or false, found a string",
        ),
        (
            "    maxMessagesCount: 20",
            "    maxMessagesCount: -20",
            "s.yaml:18:23: spec.bulkSubscribe.maxMessagesCount: `-20` is out of range; expected 0 to 4294967295",
        ),
        (
            "    maxMessagesCount: 20",
            "    maxMessageCount: 20",
            "s.yaml:18:5: spec.bulkSubscribe: unknown field `maxMessageCount`; expected one of enabled, maxMessagesCount, maxAwaitDurationMs; did you mean `maxMessagesCount`?",
        ),
        (
            "    maxAwaitDurationMs: 40",
            "    maxAwaitDurationMs: 1s",
            "s.yaml:19:25: spec.bulkSubscribe.maxAwaitDurationMs: must be an integer, found a string",
        ),
        (
            "scopes:\n- checkout",
            "scopes: checkout",
            "s.yaml:20:9: scopes: must be a list of app-ids, found a string",
        ),
        (
            "scopes:\n",
            "scope:\n",
            "s.yaml:20:1: unknown field `scope`; expected one of apiVersion, kind, metadata, spec, scopes; did you mean `scopes`?",
        ),
    ];
    check(FULL, mistakes, read);
}

#[test]
fn the_older_form_has_one_route() {
    let old = QUICKSTART.replace("v2alpha1", "v1alpha1").replace("routes:\n    default:", "route:");
    assert_eq!(one(&old).routes.default.as_deref(), Some("/orders"));
    let mistakes: &[Mistake] = &[
        (
            "  route: /orders\n",
            "",
            "s.yaml:6:3: spec: `route` is missing; expected the path that gets the events, such as /orders",
        ),
        (
            "  route: /orders",
            "  routes: {default: /orders}",
            "s.yaml:6:3: spec: `route` is missing; expected the path that gets the events, such as /orders\ns.yaml:7:3: spec: unknown field `routes`; expected one of pubsubname, topic, route, deadLetterTopic, metadata, bulkSubscribe; did you mean `route`?",
        ),
        (
            "dapr.io/v1alpha1",
            "dapr.io/v2alpha1",
            "s.yaml:6:3: spec: `routes` is missing; expected routes: {default: /orders} or a list of rules\ns.yaml:7:3: spec: unknown field `route`; expected one of pubsubname, topic, routes, deadLetterTopic, metadata, bulkSubscribe; did you mean `routes`?",
        ),
    ];
    check(&old, mistakes, read);
}
