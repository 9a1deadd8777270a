//! A Dapr subscription: `kind: Subscription`, which topic goes to which path of which apps.
//!
//! Format: Dapr documentation, "Subscription spec". The older form (`dapr.io/v1alpha1`, one `route`) and the
//! newer one (`dapr.io/v2alpha1`, `routes` with rules) are read into one type.

use crate::object::{self, NameIsFor, required_scalar, required_table};
use crate::tree::{Findings, Node, Table};
use crate::values::{self, count_or_default, text_map};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The apiVersion with `routes`.
pub const API_VERSION: &str = "dapr.io/v2alpha1";

/// The apiVersion with `route`.
pub const OLD_API_VERSION: &str = "dapr.io/v1alpha1";

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.pubsubname`: the component that the events come from.
    pub pubsub_name: String,
    /// `spec.topic`.
    pub topic: String,
    /// `spec.routes`; of the older form `spec.route`, as the default path.
    pub routes: Routes,
    /// `spec.deadLetterTopic`: where events go that the app does not take.
    pub dead_letter_topic: Option<String>,
    /// `spec.metadata`: for the component, and `rawPayload`.
    pub metadata: BTreeMap<String, String>,
    /// `spec.bulkSubscribe`.
    pub bulk: BulkSubscribe,
    /// `scopes`: the apps that subscribe; empty: all.
    pub scopes: Vec<String>,
    /// The file.
    pub file: PathBuf,
    /// The line of the document's first field.
    pub line: usize,
}

/// Which path of the app gets an event. There is at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Asked in this order; the first that matches wins.
    pub rules: Vec<Rule>,
    /// For events that no rule matches; without it they are dropped.
    pub default: Option<String>,
}

/// One rule of [`Routes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `match`: source text in CEL over `event`; `None` matches every event.
    pub expression: Option<String>,
    /// The path, as written; it may lack its first slash.
    pub path: String,
}

/// `spec.bulkSubscribe`: several events in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkSubscribe {
    /// Default false.
    pub enabled: bool,
    /// Most events in one request. Default 100.
    pub max_messages: u32,
    /// Longest time that an event waits for others. Default 1 s.
    pub max_wait: Duration,
}

// === impl Subscription ===

impl Subscription {
    /// Whether an app subscribes.
    pub fn is_in_scope(&self, app_id: &str) -> bool {
        object::is_in_scope(&self.scopes, app_id)
    }

    /// Reads a document of this kind; what is wrong goes to the findings.
    pub(crate) fn read(findings: &mut Findings, document: &Node, file: &Path) -> Option<Subscription> {
        let versions = [API_VERSION, OLD_API_VERSION];
        let (mut top, version) = object::open(findings, document, "Subscription", &versions)?;
        let object = object::metadata(findings, &mut top, NameIsFor::People);
        let spec = required_table(findings, &mut top, "spec");
        let scopes = object::scopes(findings, &mut top);
        top.finish(findings);

        let (name, namespace) = object?;
        let mut spec = spec?;
        let pubsub_name = required_scalar(
            findings,
            &mut spec,
            "pubsubname",
            "expected the name of a pub/sub component, such as pubsub",
        );
        let topic = required_scalar(findings, &mut spec, "topic", "expected the name of a topic");
        let routes = match version {
            Some(OLD_API_VERSION) => {
                let hint = "expected the path that gets the events, such as /orders";
                required_scalar(findings, &mut spec, "route", hint)
                    .map(|path| Routes { rules: Vec::new(), default: Some(path) })
            }
            Some(_) => routes(findings, &mut spec),
            None => {
                // With an unknown version nobody knows which of them was meant.
                spec.get("route");
                spec.get("routes");
                None
            }
        };
        let dead_letter_topic = spec.optional(findings, "deadLetterTopic", values::name);
        let metadata = spec.optional(findings, "metadata", text_map).unwrap_or_default();
        let bulk = spec.optional(findings, "bulkSubscribe", values::table(bulk)).unwrap_or_default();
        spec.finish(findings);
        Some(Subscription {
            name: name?,
            namespace,
            pubsub_name: pubsub_name?,
            topic: topic?,
            routes: routes?,
            dead_letter_topic,
            metadata,
            bulk,
            scopes,
            file: file.to_owned(),
            line: document.at.line,
        })
    }
}

fn routes(findings: &mut Findings, spec: &mut Table<'_>) -> Option<Routes> {
    const HINT: &str = "expected routes: {default: /orders} or a list of rules";
    let Some(node) = spec.get("routes") else {
        findings.add(spec.at, &spec.path, "`routes` is missing", HINT);
        return None;
    };
    let before = findings.count();
    let mut table = findings.table(node, spec.path_of("routes"))?;
    let (at, path) = (table.at, table.path.clone());
    let rules = table.optional(findings, "rules", values::tables("a list of {match, path}", rule));
    let default = table.optional(findings, "default", values::name);
    table.finish(findings);
    let routes = Routes { rules: rules.unwrap_or_default(), default };
    if routes == Routes::default() && findings.count() == before {
        findings.add(at, &path, "has no path: every event would be dropped", HINT);
    }
    Some(routes)
}

fn rule(findings: &mut Findings, table: &mut Table<'_>) -> Option<Rule> {
    let expression = table.optional(findings, "match", values::name);
    let path = required_scalar(findings, table, "path", "expected {match, path}");
    Some(Rule { expression, path: path? })
}

fn bulk(findings: &mut Findings, table: &mut Table<'_>) -> Option<BulkSubscribe> {
    let default = BulkSubscribe::default();
    let enabled = table.optional(findings, "enabled", Findings::boolean);
    let max_messages = table.optional(findings, "maxMessagesCount", count_or_default);
    let max_wait = table.optional(findings, "maxAwaitDurationMs", count_or_default);
    Some(BulkSubscribe {
        enabled: enabled.unwrap_or(default.enabled),
        max_messages: max_messages.unwrap_or(default.max_messages),
        max_wait: max_wait.map_or(default.max_wait, |ms| Duration::from_millis(ms.into())),
    })
}

// === impl BulkSubscribe ===

impl Default for BulkSubscribe {
    fn default() -> Self {
        BulkSubscribe { enabled: false, max_messages: 100, max_wait: Duration::from_secs(1) }
    }
}
