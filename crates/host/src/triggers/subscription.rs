//! What an app subscribes to: from resources and from the app's own answer to `/dapr/subscribe`.
//!
//! Format of the answer: Dapr's pub/sub API reference, "Provide a route for Dapr to discover topic subscriptions".

use crate::expression::Expression;
use dhow_blocks::events::Metadata;
use dhow_resources::subscription as resource;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// Most subscriptions that one app may answer with.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// Where a subscription comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A resource.
    Declarative,
    /// The app's answer to `/dapr/subscribe`.
    Programmatic,
    /// An open gRPC stream.
    Streaming,
}

/// One topic of one app.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Where it comes from.
    pub origin: Origin,
    /// The component.
    pub pubsub: String,
    /// The topic.
    pub topic: String,
    /// For the provider, and `rawPayload`.
    pub metadata: Metadata,
    /// Which path gets which event.
    pub routes: Routes,
    /// Where events go that the app does not take.
    pub dead_letter: Option<String>,
    /// Several events in one request.
    pub bulk: Option<Bulk>,
}

/// Paths by rules.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Asked in this order; the first that matches wins.
    pub rules: Vec<Rule>,
    /// For events that no rule matches.
    pub default: Option<String>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The condition; none matches every event.
    pub condition: Option<Expression>,
    /// Its source text.
    pub source: String,
    /// The path.
    pub path: String,
}

/// How many events go into one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// At most so many.
    pub max_messages: usize,
    /// The first one waits at most so long for others.
    pub max_wait: Duration,
}

/// One entry of the app's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    pubsubname: String,
    topic: String,
    route: String,
    routes: Option<EntryRoutes>,
    metadata: Option<serde_json::Map<String, Value>>,
    dead_letter_topic: Option<String>,
    bulk_subscribe: Option<EntryBulk>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EntryRoutes {
    rules: Option<Vec<EntryRule>>,
    default: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EntryRule {
    r#match: Option<String>,
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EntryBulk {
    enabled: bool,
    max_messages_count: i64,
    max_await_duration_ms: i64,
}

const DEFAULT_BULK: Bulk = Bulk { max_messages: 100, max_wait: Duration::from_secs(1) };

/// Most events in one request, whatever is asked for.
const MAX_BULK: usize = 10_000;

/// Reads an app's answer. Entries that make no sense are left out, and their reasons returned.
pub(super) fn programmatic(body: &[u8]) -> Result<(Vec<Subscription>, Vec<String>), String> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(body)
        .map_err(|error| format!("the answer to /dapr/subscribe is not a list of subscriptions: {error}"))?;
    let entries = entries.unwrap_or_default();
    if entries.len() > MAX_SUBSCRIPTIONS {
        return Err(format!("{} subscriptions are more than the {MAX_SUBSCRIPTIONS} allowed", entries.len()));
    }
    let (mut subscriptions, mut problems) = (Vec::new(), Vec::new());
    for entry in entries {
        let name = format!("{}/{}", entry.pubsubname, entry.topic);
        match subscription(entry) {
            Ok(subscription) => subscriptions.push(subscription),
            Err(reason) => problems.push(format!("subscription to {name}: {reason}")),
        }
    }
    Ok((subscriptions, problems))
}

fn subscription(entry: Entry) -> Result<Subscription, String> {
    if entry.pubsubname.is_empty() || entry.topic.is_empty() {
        return Err("pubsubname and topic must be given".to_owned());
    }
    let mut routes = Routes::default();
    if let Some(given) = entry.routes {
        for rule in given.rules.unwrap_or_default() {
            routes.rules.push(Rule::new(rule.r#match.as_deref(), &rule.path)?);
        }
        routes.default = given.default.filter(|path| !path.is_empty()).map(|path| absolute(&path));
    }
    if !entry.route.is_empty() {
        routes.default = Some(absolute(&entry.route));
    }
    if routes.rules.is_empty() && routes.default.is_none() {
        return Err("it has no route".to_owned());
    }
    let metadata = entry.metadata.unwrap_or_default().into_iter().map(|(name, value)| match value {
        Value::String(text) => (name, text),
        value => (name, value.to_string()),
    });
    let bulk = entry.bulk_subscribe.filter(|bulk| bulk.enabled).map(|bulk| Bulk {
        max_messages: match usize::try_from(bulk.max_messages_count) {
            Ok(0) | Err(_) => DEFAULT_BULK.max_messages,
            Ok(count) => count.min(MAX_BULK),
        },
        max_wait: match u64::try_from(bulk.max_await_duration_ms) {
            Ok(0) | Err(_) => DEFAULT_BULK.max_wait,
            Ok(millis) => Duration::from_millis(millis.min(60_000)),
        },
    });
    Ok(Subscription {
        origin: Origin::Programmatic,
        pubsub: entry.pubsubname,
        topic: entry.topic,
        metadata: metadata.collect(),
        routes,
        dead_letter: entry.dead_letter_topic.filter(|topic| !topic.is_empty()),
        bulk,
    })
}

/// Paths begin with a slash.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

// === impl Subscription ===

impl Subscription {
    /// A subscription as a resource describes it.
    pub fn declarative(resource: &resource::Subscription) -> Result<Subscription, String> {
        let rules = resource.routes.rules.iter();
        let rules = rules.map(|rule| Rule::new(rule.expression.as_deref(), &rule.path));
        let bulk = &resource.bulk;
        Ok(Subscription {
            origin: Origin::Declarative,
            pubsub: resource.pubsub_name.clone(),
            topic: resource.topic.clone(),
            metadata: resource.metadata.clone(),
            routes: Routes {
                rules: rules.collect::<Result<_, _>>()?,
                default: resource.routes.default.as_deref().map(absolute),
            },
            dead_letter: resource.dead_letter_topic.clone(),
            bulk: bulk.enabled.then(|| Bulk {
                max_messages: (bulk.max_messages as usize).clamp(1, MAX_BULK),
                max_wait: bulk.max_wait,
            }),
        })
    }

    /// What tells this subscription from another one of the same app, and from an earlier form of itself.
    pub(super) fn fingerprint(&self) -> String {
        format!("{self:?}")
    }
}

// === impl Rule ===

impl Rule {
    fn new(source: Option<&str>, path: &str) -> Result<Rule, String> {
        let source = source.map(str::trim).unwrap_or_default();
        let condition = match source {
            "" => None,
            source => Some(Expression::parse(source).map_err(|reason| format!("rule {source:?}: {reason}"))?),
        };
        Ok(Rule { condition, source: source.to_owned(), path: absolute(path) })
    }
}

// === impl Routes ===

impl Routes {
    /// The path for this event; `None` when no rule matches and there is no default.
    pub fn path(&self, event: &serde_json::Map<String, Value>) -> Result<Option<&str>, String> {
        for rule in &self.rules {
            let matches = match &rule.condition {
                None => true,
                Some(condition) => condition.is_true(&[("event", event)])?,
            };
            if matches {
                return Ok(Some(&rule.path));
            }
        }
        Ok(self.default.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_app_s_answer_is_read_in_both_forms() {
        let answer = json!([
            {"pubsubname": "pubsub", "topic": "a", "route": "orders", "metadata": {"rawPayload": true}},
            {"pubsubname": "pubsub", "topic": "b", "deadLetterTopic": "dead", "routes": {
                "rules": [{"match": "event.type == 'x'", "path": "/x"}], "default": "other"
            }, "bulkSubscribe": {"enabled": true, "maxMessagesCount": 7, "maxAwaitDurationMs": 40}},
            {"pubsubname": "pubsub", "topic": "c"},
            {"pubsubname": "pubsub", "topic": "d", "routes": {"rules": [{"match": "event.", "path": "/"}]}},
            {"topic": "e", "route": "/"},
        ]);
        let (found, problems) = programmatic(answer.to_string().as_bytes()).unwrap();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(found.len(), 2);
        let is_bare = |index: usize| dhow_blocks::pubsub::is_bare(&[], &found[index].metadata);
        assert!(is_bare(0) && !is_bare(1));
        assert_eq!(found[0].routes.default.as_deref(), Some("/orders"));
        assert_eq!(found[1].bulk, Some(Bulk { max_messages: 7, max_wait: Duration::from_millis(40) }));
        let event = |kind: &str| json!({"type": kind}).as_object().unwrap().clone();
        assert_eq!(found[1].routes.path(&event("x")), Ok(Some("/x")));
        assert_eq!(found[1].routes.path(&event("y")), Ok(Some("/other")));
        assert!(found[1].routes.path(&serde_json::Map::new()).is_err());
        for (answer, count) in [("null", 0), ("[]", 0)] {
            assert_eq!(programmatic(answer.as_bytes()).unwrap().0.len(), count);
        }
        for bad in ["", "{}", "[1]", "x", r#"[{"topic":1}]"#] {
            assert!(programmatic(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
