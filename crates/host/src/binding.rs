//! Components that are given to an app, or taken from it, while the host runs: what `dhow bind` and `unbind` change.
//!
//! A manifest's grants say which components an app may use by default. A binding goes beyond: the app finds a component
//! under a name of its own, or does not find one any more. A component that is scoped to other apps stays closed.

use crate::prepare::AppSpec;
use dhow_blocks::grants::{Grants, NamePattern};
use dhow_blocks::scope::Providers;
use dhow_guest::CapabilityBinding;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

/// What an app finds under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Of which block.
    pub block: Block,
    /// The name that the app uses.
    pub name: String,
    /// The component behind it; none: there is nothing of that name for the app.
    pub component: Option<String>,
    /// The capability by which it was named, as waPC modules know it: `keyvalue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
}

/// A block whose components can be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Block {
    /// State stores.
    State,
    /// Message brokers, for publishing and receiving.
    PubSub,
    /// Message brokers, for publishing only.
    Publish,
    /// Message brokers, for receiving only.
    Subscribe,
    /// Bindings.
    Bindings,
    /// Secret stores.
    Secrets,
    /// Configuration stores.
    Configuration,
    /// Lock stores.
    Lock,
    /// Sequencers.
    Sequencer,
    /// Files and objects.
    Blob,
    /// Encryption.
    Cryption,
    /// E-mail.
    Email,
}

/// A component that an app cannot be bound to.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("app {app_id:?} has no component {component:?} of the block {block}; it sees {there}")]
pub struct BindError {
    /// The app.
    pub app_id: String,
    /// The block.
    pub block: Block,
    /// What is missing.
    pub component: String,
    /// What there is.
    pub there: String,
}

/// A block that there is not.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no block {0:?}; there are {names}", names = Block::NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownBlock(pub String);

/// Gives the app what it is bound to, and takes what it is not to have.
pub(crate) fn apply(spec: &mut AppSpec, providers: &mut Providers) -> Result<(), BindError> {
    // Looked up in what there was: two names may change places.
    let before = providers.clone();
    for Binding { block, name, component, capability } in &spec.bindings {
        let app_id = &spec.app_id;
        let change = Change { app_id, block: *block, name, component: component.as_deref() };
        match block {
            Block::State => change.of(&before.state, &mut providers.state),
            Block::PubSub | Block::Publish | Block::Subscribe => {
                change.of(&before.pubsub, &mut providers.pubsub)
            }
            Block::Bindings => change.of(&before.bindings, &mut providers.bindings),
            Block::Secrets => change.of(&before.secrets, &mut providers.secrets),
            Block::Configuration => change.of(&before.configuration, &mut providers.configuration),
            Block::Lock => change.of(&before.locks, &mut providers.locks),
            Block::Sequencer => change.of(&before.sequencers, &mut providers.sequencers),
            Block::Blob => change.of(&before.blobs, &mut providers.blobs),
            Block::Cryption => change.of(&before.cryption, &mut providers.cryption),
            Block::Email => change.of(&before.email, &mut providers.email),
        }?;
        // A name with a star is no pattern here, and no component has one.
        if let (Some(_), Ok(pattern)) = (component, name.parse::<NamePattern>()) {
            for granted in block.granted(&mut spec.grants) {
                granted.push(pattern.clone());
            }
        }
        // A waPC module names no component: its capability leads to one.
        if let (Some(capability), Some(component)) = (capability, component) {
            spec.capabilities.retain(|known| known.capability != *capability || known.name != *name);
            spec.capabilities.push(CapabilityBinding {
                capability: capability.clone(),
                name: name.clone(),
                component: Some(component.clone()),
                values: BTreeMap::new(),
            });
            if let Ok(pattern) = component.parse::<NamePattern>() {
                for granted in block.granted(&mut spec.grants) {
                    granted.push(pattern.clone());
                }
            }
        }
    }
    Ok(())
}

struct Change<'a> {
    app_id: &'a str,
    block: Block,
    name: &'a str,
    component: Option<&'a str>,
}

impl Change<'_> {
    fn of<T: Clone>(
        &self,
        before: &HashMap<String, T>,
        providers: &mut HashMap<String, T>,
    ) -> Result<(), BindError> {
        let Some(component) = self.component else {
            providers.remove(self.name);
            return Ok(());
        };
        let found = before.get(component).ok_or_else(|| {
            let mut there: Vec<&str> = before.keys().map(String::as_str).collect();
            there.sort_unstable();
            BindError {
                app_id: self.app_id.to_owned(),
                block: self.block,
                component: component.to_owned(),
                there: if there.is_empty() { "none".to_owned() } else { there.join(", ") },
            }
        })?;
        providers.insert(self.name.to_owned(), found.clone());
        Ok(())
    }
}

// === impl Block ===

impl Block {
    const NAMES: [(&str, Block); 12] = [
        ("state", Block::State),
        ("pubsub", Block::PubSub),
        ("publish", Block::Publish),
        ("subscribe", Block::Subscribe),
        ("bindings", Block::Bindings),
        ("secrets", Block::Secrets),
        ("configuration", Block::Configuration),
        ("lock", Block::Lock),
        ("sequencer", Block::Sequencer),
        ("blob", Block::Blob),
        ("cryption", Block::Cryption),
        ("email", Block::Email),
    ];

    /// Capability ids of waSCC and wasmCloud, without what stands before the colon.
    const CAPABILITIES: [(&str, Block); 4] = [
        ("keyvalue", Block::State),
        ("messaging", Block::PubSub),
        ("blobstore", Block::Blob),
        ("eventstreams", Block::State),
    ];

    /// The block of components of this type (`state.redis`), as far as it is known by its first part.
    pub(crate) fn of_type(component_type: &str) -> Option<Block> {
        Some(match component_type.split('.').next()? {
            "state" => Block::State,
            "pubsub" => Block::PubSub,
            "bindings" => Block::Bindings,
            "secretstores" => Block::Secrets,
            "configuration" => Block::Configuration,
            "lock" => Block::Lock,
            "sequencer" => Block::Sequencer,
            "blob" | "file" | "oss" => Block::Blob,
            "cryption" => Block::Cryption,
            "email" => Block::Email,
            _ => return None,
        })
    }

    /// The lists of grants that open its components.
    fn granted(self, grants: &mut Grants) -> Vec<&mut Vec<NamePattern>> {
        match self {
            Block::State => vec![&mut grants.state],
            Block::PubSub => vec![&mut grants.publish, &mut grants.subscribe],
            Block::Publish => vec![&mut grants.publish],
            Block::Subscribe => vec![&mut grants.subscribe],
            Block::Bindings => vec![&mut grants.bindings],
            Block::Secrets => vec![&mut grants.secrets],
            Block::Configuration => vec![&mut grants.configuration],
            Block::Lock => vec![&mut grants.lock],
            Block::Sequencer => vec![&mut grants.sequencer],
            Block::Blob => vec![&mut grants.blob],
            Block::Cryption => vec![&mut grants.cryption],
            Block::Email => vec![&mut grants.email],
        }
    }

    /// Whether a component of this name, or a part of it, is granted.
    pub(crate) fn allows(self, grants: &Grants, name: &str) -> bool {
        let mut grants = grants.clone();
        let within = format!("{name}/");
        let opens = |pattern: &NamePattern| pattern.matches(name) || pattern.to_string().starts_with(&within);
        self.granted(&mut grants).into_iter().any(|granted| granted.iter().any(opens))
    }

    /// Whether anything of this block is granted.
    pub(crate) fn is_granted(self, grants: &Grants) -> bool {
        let mut grants = grants.clone();
        self.granted(&mut grants).into_iter().any(|granted| !granted.is_empty())
    }

    /// The capability that a text names, such as `keyvalue` of `wascc:keyvalue`; none for the name of a block.
    pub fn capability(text: &str) -> Option<&'static str> {
        let capability = text.rsplit(':').next().unwrap_or(text);
        let is_block = Block::NAMES.iter().any(|(name, _)| *name == text);
        let known = Block::CAPABILITIES.iter().find(|(name, _)| !is_block && *name == capability);
        known.map(|(name, _)| *name)
    }

    /// Whether two stand for components of one kind.
    pub(crate) fn is_kin(self, other: Block) -> bool {
        let kind = |block| match block {
            Block::Publish | Block::Subscribe => Block::PubSub,
            block => block,
        };
        kind(self) == kind(other)
    }
}

impl FromStr for Block {
    type Err = UnknownBlock;

    /// The name of a block, or a capability id such as `wascc:keyvalue`.
    fn from_str(text: &str) -> Result<Block, UnknownBlock> {
        let capability = text.rsplit(':').next().unwrap_or(text);
        let known = Block::NAMES.iter().find(|(name, _)| *name == text);
        let known = known.or_else(|| Block::CAPABILITIES.iter().find(|(name, _)| *name == capability));
        known.map(|(_, block)| *block).ok_or_else(|| UnknownBlock(text.to_owned()))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Block::NAMES.iter().find(|(_, block)| block == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, UnknownBlock};

    #[test]
    fn blocks_have_names_and_capability_ids() {
        for (text, block) in [
            ("state", Block::State),
            ("keyvalue", Block::State),
            ("wascc:keyvalue", Block::State),
            ("wasmcloud:messaging", Block::PubSub),
            ("subscribe", Block::Subscribe),
            ("wascc:eventstreams", Block::State),
        ] {
            assert_eq!(text.parse(), Ok(block), "{text}");
        }
        for (text, capability) in [
            ("wascc:keyvalue", Some("keyvalue")),
            ("messaging", Some("messaging")),
            ("state", None),
            ("x", None),
        ] {
            assert_eq!(Block::capability(text), capability, "{text}");
        }
        assert_eq!("stat".parse::<Block>(), Err(UnknownBlock("stat".to_owned())));
        assert!(UnknownBlock("x".into()).to_string().contains("state, pubsub"));
    }
}
