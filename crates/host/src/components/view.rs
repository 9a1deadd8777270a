//! How one app sees one component: with which prefix before its keys, under which policy, counted as what.

use super::Components;
use crate::metrics::Metrics;
use dhow_blocks::scope::{
    Bound, ComponentInfo, Outbox, Providers, PubSubBinding, SecretBinding, SequencerBinding, State,
    TopicRules, is_true,
};
use dhow_providers::registry::Opened;
use dhow_resources::resiliency::defaults::{ComponentBlock, Direction};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How one app sees one component.
pub(super) struct View<'a> {
    pub(super) components: &'a Components,
    pub(super) app_id: &'a str,
    pub(super) metrics: &'a Metrics,
    pub(super) metadata: &'a [(String, String)],
}

impl View<'_> {
    pub(super) fn add(
        &self,
        providers: &mut Providers,
        info: ComponentInfo,
        opened: Opened,
    ) -> Result<(), String> {
        let name = info.name.clone();
        match opened {
            Opened::State(store) => {
                let prefix = self.key_prefix(&name)?;
                let bound = self.bind("state", ComponentBlock::Statestore, info, store);
                let state = State {
                    bound,
                    prefix: prefix.into(),
                    is_default_prefix: self.field("keyPrefix").is_none(),
                    is_shared: false,
                    outbox: None,
                };
                providers.state.insert(name, state);
            }
            Opened::PubSub(broker) => {
                let consumer = self.field("consumerID").unwrap_or(self.app_id).to_owned();
                let topics = TopicRules::new(self.metadata, self.app_id);
                let bound = self.bind("pubsub_egress", ComponentBlock::Pubsub, info, broker);
                providers.pubsub.insert(name, PubSubBinding { bound, topics, consumer });
            }
            Opened::Binding(binding) => {
                providers
                    .bindings
                    .insert(name, self.bind("output_binding", ComponentBlock::Binding, info, binding));
            }
            Opened::Secrets(store) => {
                let access = self.components.secret_scopes.get(&name).cloned().unwrap_or_default();
                let bound = self.bind("secret", ComponentBlock::Secretstore, info, store);
                providers.secrets.insert(name, SecretBinding { bound, access });
            }
            Opened::Configuration(store) => {
                let bound = self.bind("configuration", ComponentBlock::Configuration, info, store);
                providers.configuration.insert(name, bound);
            }
            Opened::Lock(store) => {
                let prefix = format!("lock||{}", self.key_prefix(&name)?);
                let bound = self.bind("lock", ComponentBlock::Lock, info, store);
                providers.locks.insert(name, (bound, prefix.into()));
            }
            Opened::Sequencer(sequencer) => {
                let (prefix, floors) = (self.key_prefix(&name)?, self.bigger_than()?);
                let bound = self.bind("sequencer", ComponentBlock::Sequencer, info, sequencer);
                providers.sequencers.insert(name, SequencerBinding::new(bound, prefix.into(), floors));
            }
            Opened::Blob(store) => {
                let bound = self.bind("blob", ComponentBlock::Blob, info, store);
                providers.blobs.insert(name, bound);
            }
            Opened::Cryption(cryption) => {
                let bound = self.bind("cryption", ComponentBlock::Crypto, info, cryption);
                providers.cryption.insert(name, bound);
            }
            Opened::Email(email) => {
                let bound = self.bind("email", ComponentBlock::Email, info, email);
                providers.email.insert(name, bound);
            }
        }
        Ok(())
    }

    /// Dapr's transactional outbox, if this is a state store; its broker may be any component of the app.
    pub(super) fn add_outbox(
        &self,
        providers: &mut Providers,
        name: &str,
        topic: String,
    ) -> Result<(), String> {
        let Some(state) = providers.state.get(name) else { return Ok(()) };
        let broker = |field: &str| {
            let Some(broker) = self.field(field) else { return Ok(None) };
            let found = providers.pubsub.get(broker).map(|broker| Some(broker.bound.clone()));
            found.ok_or_else(|| {
                format!(
                    "metadata field {field} names {broker:?}, which is no pub/sub component of app {}",
                    self.app_id
                )
            })
        };
        let outer = broker("outboxPublishPubsub")?;
        let outer =
            outer.ok_or("metadata field outboxPublishPubsub must be given with outboxPublishTopic")?;
        let outbox = Outbox {
            app_id: self.app_id.into(),
            store: state.bound.clone(),
            inner: broker("outboxPubsub")?.unwrap_or_else(|| outer.clone()),
            inner_topic: Outbox::inner_topic(&self.components.namespace, self.app_id, &topic),
            outer,
            topic,
            discard: self.field("outboxDiscardWhenMissingState").is_some_and(is_true),
            aborted: Arc::default(),
        };
        if let Some(state) = providers.state.get_mut(name) {
            state.outbox = Some(Arc::new(outbox));
        }
        Ok(())
    }

    fn bind<P: ?Sized>(
        &self,
        metric: &'static str,
        block: ComponentBlock,
        info: ComponentInfo,
        provider: Arc<P>,
    ) -> Bound<P> {
        let policy =
            self.components.resiliency.component(self.app_id, &info.name, block, Direction::Outbound);
        let meter = self.metrics.component(metric, self.app_id, &info.name);
        Bound { provider, component: Arc::new(info), policy, meter }
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.metadata.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    }

    /// Numbers that the ids of some keys have to exceed, as a JSON object.
    fn bigger_than(&self) -> Result<BTreeMap<String, i64>, String> {
        let Some(text) = self.field("biggerThan") else { return Ok(BTreeMap::new()) };
        serde_json::from_str(text).map_err(|_| {
            "metadata field biggerThan must be a JSON object of keys and whole numbers, such as \
             {\"order\": 1000}"
                .to_owned()
        })
    }

    /// What stands before each key, by Dapr's `keyPrefix` strategies.
    fn key_prefix(&self, component: &str) -> Result<String, String> {
        let Components { namespace, .. } = self.components;
        Ok(match self.field("keyPrefix") {
            None | Some("appid") => format!("{}||", self.app_id),
            Some("name") => format!("{component}||"),
            Some("namespace") => format!("{namespace}.{}||", self.app_id),
            Some("none") => String::new(),
            Some(literal) if literal.contains("||") => {
                return Err(format!("keyPrefix {literal:?} must not contain ||"));
            }
            Some(literal) => format!("{literal}||"),
        })
    }
}
