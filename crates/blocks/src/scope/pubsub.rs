//! Publishing under an app's identity: topic rules, envelope, provider.

use super::{Bound, Scope, ScopeError};
use crate::cloud_event::{self, BULK_TYPE, DEFAULT_TYPE, NewEvent};
use crate::error::BlockError;
use crate::events::Metadata;
use crate::grants::Ask;
use crate::pubsub::{Feature, MAX_MESSAGE_BYTES, Message, Outgoing, PubSub, is_bare};
use crate::trace::TraceContext;
use bytes::Bytes;
use std::time::{Duration, SystemTime};

/// A message broker as one app sees it.
#[derive(Clone, Debug)]
pub struct PubSubBinding {
    /// The provider.
    pub bound: Bound<dyn PubSub>,
    /// Which topics the app may use.
    pub topics: TopicRules,
    /// In whose name the app receives: the component's `consumerID`, else the app-id.
    pub consumer: String,
}

/// Which topics of a component an app may use, by the component's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicRules {
    /// `allowedTopics`: no other topic may be used; empty: every topic.
    pub allowed: Vec<String>,
    /// `protectedTopics`: only apps that a scope names may use them.
    pub protected: Vec<String>,
    /// `publishingScopes` for this app; none when the scopes do not name it.
    pub publishing: Option<Vec<String>>,
    /// `subscriptionScopes` for this app; none when the scopes do not name it.
    pub subscribing: Option<Vec<String>>,
}

/// An event as an app hands it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Data.
    pub data: Bytes,
    /// Media type of the data.
    pub content_type: Option<String>,
    /// `rawPayload`, `ttlInSeconds`, `cloudevent.*`, and what the provider understands.
    pub metadata: Metadata,
}

/// Why an event was not published.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PublishError {
    /// The component is not there, or not for this app.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The component's topic rules.
    #[error("topic {topic} is not allowed for app id {app_id}")]
    Forbidden {
        /// The topic.
        topic: String,
        /// The app.
        app_id: String,
    },
    /// The data cannot be put into an envelope.
    #[error("cannot create cloudevent: {reason}")]
    Envelope {
        /// What is wrong with them.
        reason: String,
    },
    /// The broker did not take it.
    #[error("{error}")]
    Provider {
        /// What it said.
        error: BlockError,
    },
}

// === impl TopicRules ===

impl TopicRules {
    /// The rules for one app, out of the metadata of a component.
    pub fn new(metadata: &[(String, String)], app_id: &str) -> TopicRules {
        let field = |name: &str| {
            let found = metadata.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        TopicRules {
            allowed: topics(field("allowedTopics")),
            protected: topics(field("protectedTopics")),
            publishing: scoped(field("publishingScopes"), app_id),
            subscribing: scoped(field("subscriptionScopes"), app_id),
        }
    }

    /// Whether the app may publish to the topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.allows(topic, self.publishing.as_deref())
    }

    /// Whether the app may receive from the topic.
    pub fn may_subscribe(&self, topic: &str) -> bool {
        self.allows(topic, self.subscribing.as_deref())
    }

    fn allows(&self, topic: &str, scope: Option<&[String]>) -> bool {
        let names = |list: &[String]| list.iter().any(|name| name == topic);
        if !self.allowed.is_empty() && !names(&self.allowed) {
            return false;
        }
        match scope {
            Some(scope) => names(scope),
            None => !names(&self.protected),
        }
    }
}

fn topics(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|topic| !topic.is_empty()).map(str::to_owned).collect()
}

/// The topics behind `app=` in `app1=t1,t2;app2=t3`.
fn scoped(scopes: &str, app_id: &str) -> Option<Vec<String>> {
    scopes.split(';').find_map(|scope| {
        let (app, list) = scope.split_once('=')?;
        (app.trim() == app_id).then(|| topics(list))
    })
}

// === impl Scope ===

impl Scope {
    /// The component, if the app may publish to that topic of it.
    pub fn publisher(&self, pubsub: &str, topic: &str) -> Result<&PubSubBinding, PublishError> {
        let binding = self.pubsub(pubsub)?;
        self.check(Ask::Publish { pubsub, topic }).map_err(ScopeError::from)?;
        if !binding.topics.may_publish(topic) {
            let (topic, app_id) = (topic.to_owned(), self.app_id.to_string());
            return Err(PublishError::Forbidden { topic, app_id });
        }
        Ok(binding)
    }

    /// Whether messages of the component are their bytes alone unless somebody wants an envelope.
    pub fn is_bare(&self, pubsub: &str) -> bool {
        self.pubsub(pubsub).is_ok_and(|binding| is_bare(binding.bound.provider.features(), &Metadata::new()))
    }

    /// Publishes one event: in an envelope, or bare if its metadata say `rawPayload`.
    pub async fn publish(
        &self,
        pubsub: &str,
        topic: &str,
        event: Event,
        trace: TraceContext,
        trace_state: &str,
    ) -> Result<(), PublishError> {
        let binding = self.publisher(pubsub, topic)?;
        let message = self.envelope(binding, topic, event, DEFAULT_TYPE, trace, trace_state)?;
        let provider = &binding.bound.provider;
        let published =
            binding.bound.call_for("publish", topic, message, |message| provider.publish(message)).await;
        published.map_err(|error| PublishError::Provider { error })
    }

    /// Publishes bare bytes and waits for the first answer to them, at most so long. Who may publish to a topic may ask
    /// on it.
    pub async fn request(
        &self,
        pubsub: &str,
        topic: &str,
        data: Bytes,
        limit: Duration,
    ) -> Result<Message, PublishError> {
        let binding = self.publisher(pubsub, topic)?;
        let metadata = Metadata::from([("rawPayload".to_owned(), "true".to_owned())]);
        let event = Event { data, content_type: None, metadata };
        let message = self.envelope(binding, topic, event, DEFAULT_TYPE, TraceContext::default(), "")?;
        let provider = &binding.bound.provider;
        let answer = binding
            .bound
            .call_for("request", topic, message, |message| provider.request(message, limit))
            .await;
        answer.map_err(|error| PublishError::Provider { error })
    }

    /// Publishes several events; the answers are in their order.
    pub async fn publish_many(
        &self,
        pubsub: &str,
        topic: &str,
        events: Vec<Event>,
        trace: TraceContext,
        trace_state: &str,
    ) -> Result<Vec<Result<(), PublishError>>, PublishError> {
        let binding = self.publisher(pubsub, topic)?;
        let mut results = Vec::with_capacity(events.len());
        let mut messages = Vec::with_capacity(events.len());
        for event in events {
            match self.envelope(binding, topic, event, BULK_TYPE, trace, trace_state) {
                Ok(message) => {
                    messages.push(message);
                    results.push(Ok(()));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        let (count, provider) = (messages.len(), &binding.bound.provider);
        let published = binding.bound.call_for("bulk_publish", topic, messages, |messages| async {
            // A retry repeats all of them: at least once, as promised.
            let answers = provider.publish_many(messages).await;
            match answers.iter().find_map(|answer| answer.as_ref().err()) {
                Some(error) if answers.iter().all(Result::is_err) => Err(error.clone()),
                _ => Ok(answers),
            }
        });
        let mut answers = match published.await {
            Ok(answers) => answers,
            Err(error) => vec![Err(error); count],
        }
        .into_iter();
        for result in results.iter_mut().filter(|result| result.is_ok()) {
            if let Some(Err(error)) = answers.next() {
                *result = Err(PublishError::Provider { error });
            }
        }
        Ok(results)
    }

    fn envelope(
        &self,
        binding: &PubSubBinding,
        topic: &str,
        event: Event,
        event_type: &str,
        trace: TraceContext,
        trace_state: &str,
    ) -> Result<Outgoing, PublishError> {
        let Event { data, content_type, metadata } = event;
        cloud_event::ttl(&metadata).map_err(|reason| PublishError::Envelope { reason })?;
        let features = binding.bound.provider.features();
        let (data, content_type) = if is_bare(features, &metadata) {
            (data, content_type)
        } else {
            let expires = !features.contains(&Feature::MessageTtl);
            let envelope = cloud_event::wrap(&NewEvent {
                data: &data,
                content_type: content_type.as_deref(),
                metadata: &metadata,
                pubsub: &binding.bound.component.name,
                topic,
                app_id: &self.app_id,
                event_type,
                trace,
                trace_state,
                expires,
                now: SystemTime::now(),
            });
            let envelope = envelope.map_err(|reason| PublishError::Envelope { reason })?;
            (envelope, Some(cloud_event::CONTENT_TYPE.to_owned()))
        };
        if data.len() > MAX_MESSAGE_BYTES {
            let reason = format!("the message has {} bytes, more than {MAX_MESSAGE_BYTES}", data.len());
            return Err(PublishError::Provider { error: BlockError::invalid(reason) });
        }
        Ok(Outgoing { topic: topic.to_owned(), data, content_type, metadata })
    }
}

/// Dapr's spellings of yes.
pub fn is_true(text: &str) -> bool {
    ["y", "yes", "true", "t", "on", "1"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::TopicRules;

    #[test]
    fn topics_follow_the_component_s_scopes() {
        let rules = |metadata: &[(&str, &str)], app_id: &str| {
            let metadata: Vec<_> =
                metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            TopicRules::new(&metadata, app_id)
        };
        let scopes = [
            ("publishingScopes", "app1=a,b; app2 = c ;app3="),
            ("subscriptionscopes", "app1=a"),
            ("allowedTopics", "a,b,c"),
        ];
        for (app_id, topic, publish, subscribe) in [
            ("app1", "a", true, true),
            ("app1", "b", true, false),
            ("app1", "c", false, false),
            ("app2", "c", true, true),
            ("app2", "a", false, true),
            ("app3", "a", false, true),
            ("other", "a", true, true),
            ("other", "d", false, false),
        ] {
            let rules = rules(&scopes, app_id);
            assert_eq!(rules.may_publish(topic), publish, "{app_id} publishes to {topic}");
            assert_eq!(rules.may_subscribe(topic), subscribe, "{app_id} subscribes to {topic}");
        }
        let protected = [("protectedTopics", "p"), ("publishingScopes", "app1=p")];
        assert!(rules(&protected, "app1").may_publish("p"));
        assert!(!rules(&protected, "app2").may_publish("p"));
        assert!(rules(&protected, "app2").may_publish("q"));
        assert!(!rules(&protected, "app1").may_subscribe("p"));
        assert!(rules(&[], "app").may_publish("x"));
    }
}
