//! Component types and their constructors: the one table that a new provider adds a line to.
//!
//! Types, versions and metadata fields are Dapr's, so a Dapr user's resource files work unchanged. Like
//! Dapr, an unknown field is not an error; unlike Dapr, it is reported, with the field that was perhaps meant.

pub use crate::metadata::{ComponentSpec, UnknownField};

use crate::metadata::{ANY, nearest};
#[cfg(feature = "mysql")]
use crate::mysql;
#[cfg(feature = "postgresql")]
use crate::postgresql;
#[cfg(feature = "redis")]
use crate::redis;
use crate::{bindings, blob, configuration, lock, pubsub, secrets, sequencer, state};
use dhow_blocks::binding::Binding;
use dhow_blocks::blob::BlobStore;
use dhow_blocks::configuration::ConfigurationStore;
use dhow_blocks::cryption::Cryption;
use dhow_blocks::email::Email;
use dhow_blocks::jobs::Jobs;
use dhow_blocks::lock::LockStore;
use dhow_blocks::pubsub::PubSub;
use dhow_blocks::scope::ComponentInfo;
use dhow_blocks::secrets::SecretStore;
use dhow_blocks::sequencer::Sequencer;
use dhow_blocks::state::StateStore;
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All providers of this build.
const PROVIDERS: &[Provider] = &[
    #[cfg(feature = "s3")]
    bindings::aws_s3::PROVIDER,
    bindings::cron::PROVIDER,
    #[cfg(feature = "http")]
    bindings::http::PROVIDER,
    bindings::local_storage::PROVIDER,
    configuration::local_file::PROVIDER,
    secrets::local_env::PROVIDER,
    secrets::local_file::PROVIDER,
    state::in_memory::PROVIDER,
    #[cfg(feature = "sqlite")]
    state::sqlite::PROVIDER,
    #[cfg(feature = "redis")]
    redis::state::PROVIDER,
    #[cfg(feature = "redis")]
    redis::pubsub::PROVIDER,
    #[cfg(feature = "redis")]
    redis::lock::PROVIDER,
    #[cfg(feature = "redis")]
    redis::configuration::PROVIDER,
    #[cfg(feature = "redis")]
    redis::binding::PROVIDER,
    pubsub::in_memory::PROVIDER,
    #[cfg(feature = "sqlite")]
    pubsub::sqlite::PROVIDER,
    lock::in_memory::PROVIDER,
    #[cfg(feature = "sqlite")]
    lock::sqlite::PROVIDER,
    blob::local::PROVIDER,
    blob::local::FILES,
    #[cfg(feature = "s3")]
    blob::s3::PROVIDER,
    #[cfg(feature = "s3")]
    blob::s3::FILES_AWS,
    #[cfg(feature = "s3")]
    blob::s3::FILES_MINIO,
    #[cfg(feature = "s3")]
    blob::s3::OBJECTS_AWS,
    #[cfg(feature = "s3")]
    blob::s3::OBJECTS_CEPH,
    #[cfg(feature = "s3")]
    blob::s3::OBJECTS,
    #[cfg(feature = "cryption")]
    crate::cryption::local::PROVIDER,
    #[cfg(feature = "smtp")]
    crate::email::smtp::PROVIDER,
    sequencer::in_memory::PROVIDER,
    #[cfg(feature = "etcd")]
    sequencer::etcd::PROVIDER,
    #[cfg(feature = "sqlite")]
    sequencer::sqlite::PROVIDER,
    #[cfg(feature = "redis")]
    redis::sequencer::PROVIDER,
    #[cfg(feature = "nats")]
    crate::nats::jetstream::PROVIDER,
    #[cfg(feature = "nats")]
    crate::nats::pubsub::PROVIDER,
    #[cfg(feature = "mqtt")]
    crate::mqtt::pubsub::PROVIDER,
    #[cfg(feature = "rabbitmq")]
    crate::rabbitmq::pubsub::PROVIDER,
    #[cfg(feature = "nats")]
    crate::nats::binding::PROVIDER,
    #[cfg(feature = "mqtt")]
    crate::mqtt::binding::PROVIDER,
    #[cfg(feature = "rabbitmq")]
    crate::rabbitmq::binding::PROVIDER,
    #[cfg(feature = "postgresql")]
    postgresql::state::PROVIDER,
    #[cfg(feature = "postgresql")]
    postgresql::state::YUGABYTEDB,
    #[cfg(feature = "postgresql")]
    postgresql::configuration::PROVIDER,
    #[cfg(feature = "postgresql")]
    postgresql::binding::PROVIDER,
    #[cfg(feature = "mysql")]
    mysql::state::PROVIDER,
    #[cfg(feature = "mysql")]
    mysql::binding::PROVIDER,
];

/// A type of component and how it is opened.
pub struct Provider {
    /// The type, e.g. `state.sqlite`.
    pub component_type: &'static str,
    /// Other names of the type.
    pub aliases: &'static [&'static str],
    /// The versions of the type; the first one is meant where a component names none.
    pub versions: &'static [&'static str],
    /// Metadata fields that the provider reads; fields that the host reads for it need not be here.
    pub fields: &'static [&'static str],
    /// The constructor, which also says which block this is a provider of.
    pub open: Open,
}

/// Opens a component: connects, looks whether it works, and answers. The caller puts a deadline to it.
pub type OpenFn<P> = fn(ComponentSpec, OpenContext) -> BoxFuture<'static, Result<Arc<P>, OpenError>>;

/// The constructor of a provider.
#[derive(Clone, Copy)]
pub enum Open {
    /// A state store.
    State(OpenFn<dyn StateStore>),
    /// A message broker.
    PubSub(OpenFn<dyn PubSub>),
    /// A binding.
    Binding(OpenFn<dyn Binding>),
    /// A secret store.
    Secrets(OpenFn<dyn SecretStore>),
    /// A configuration store.
    Configuration(OpenFn<dyn ConfigurationStore>),
    /// A lock store.
    Lock(OpenFn<dyn LockStore>),
    /// A sequencer.
    Sequencer(OpenFn<dyn Sequencer>),
    /// A store of files and objects.
    Blob(OpenFn<dyn BlobStore>),
    /// Encryption.
    Cryption(OpenFn<dyn Cryption>),
    /// E-mail.
    Email(OpenFn<dyn Email>),
}

/// An open component.
#[derive(Clone)]
pub enum Opened {
    /// A state store.
    State(Arc<dyn StateStore>),
    /// A message broker.
    PubSub(Arc<dyn PubSub>),
    /// A binding.
    Binding(Arc<dyn Binding>),
    /// A secret store.
    Secrets(Arc<dyn SecretStore>),
    /// A configuration store.
    Configuration(Arc<dyn ConfigurationStore>),
    /// A lock store.
    Lock(Arc<dyn LockStore>),
    /// A sequencer.
    Sequencer(Arc<dyn Sequencer>),
    /// A store of files and objects.
    Blob(Arc<dyn BlobStore>),
    /// Encryption.
    Cryption(Arc<dyn Cryption>),
    /// E-mail.
    Email(Arc<dyn Email>),
}

/// What a constructor needs beside the component itself.
#[derive(Clone, Debug, Default)]
pub struct OpenContext {
    /// Where an embedded provider keeps its files when the component names none. Files that a component does
    /// name are looked up as Dapr does, from the current directory.
    pub data_dir: PathBuf,
}

/// Fields that the host reads for the providers of a block, by the first part of the component type.
const HOST_FIELDS: &[(&str, &[&str])] = &[
    (
        "state",
        &[
            "keyPrefix",
            "actorStateStore",
            "outboxPublishPubsub",
            "outboxPublishTopic",
            "outboxPubsub",
            "outboxDiscardWhenMissingState",
        ],
    ),
    ("pubsub", &["consumerID", "allowedTopics", "protectedTopics", "publishingScopes", "subscriptionScopes"]),
    ("bindings", &["direction", "route"]),
    ("lock", &["keyPrefix"]),
    ("sequencer", &["keyPrefix", "biggerThan"]),
];

/// Why a component could not be opened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// No provider has this type.
    #[error("component {component:?}: type {component_type:?} is not known{}; known types: {}{}", did_you_mean(.nearest), .known.join(", "), sockets())]
    UnknownType {
        /// The component's name.
        component: String,
        /// The type as given.
        component_type: String,
        /// A known type that looks like it.
        nearest: Option<&'static str>,
        /// The types of this block; all types if there are none.
        known: Vec<&'static str>,
    },
    /// The type is known, this version of it is not.
    #[error("component {component:?}: type {component_type} has no version {version:?}; use {}", .known.join(" or "))]
    UnknownVersion {
        /// The component's name.
        component: String,
        /// The component's type.
        component_type: String,
        /// The version as given.
        version: String,
        /// The versions there are.
        known: Vec<&'static str>,
    },
    /// A metadata field has a value that the provider cannot use. The value is left out, it may be secret.
    #[error("component {component:?}: metadata field {field} must be {expected}")]
    InvalidMetadata {
        /// The component's name.
        component: String,
        /// The field.
        field: String,
        /// What the field should hold.
        expected: &'static str,
    },
    /// The provider could not open its backend.
    #[error("component {component:?}: {reason}")]
    Backend {
        /// The component's name.
        component: String,
        /// What the backend said.
        reason: String,
    },
}

/// Opens the component. Metadata fields that are not known are ignored.
pub async fn open(component: ComponentSpec, context: OpenContext) -> Result<Opened, OpenError> {
    let provider = provider(&component)?;
    Ok(match provider.open {
        Open::State(open) => Opened::State(open(component, context).await?),
        Open::PubSub(open) => Opened::PubSub(open(component, context).await?),
        Open::Binding(open) => Opened::Binding(open(component, context).await?),
        Open::Secrets(open) => Opened::Secrets(open(component, context).await?),
        Open::Configuration(open) => Opened::Configuration(open(component, context).await?),
        Open::Lock(open) => Opened::Lock(open(component, context).await?),
        Open::Sequencer(open) => Opened::Sequencer(open(component, context).await?),
        Open::Blob(open) => Opened::Blob(open(component, context).await?),
        Open::Cryption(open) => Opened::Cryption(open(component, context).await?),
        Open::Email(open) => Opened::Email(open(component, context).await?),
    })
}

/// What stands ready without any component, under Dapr's usual names. Nothing is opened before it is used.
pub fn embedded(data_dir: &Path) -> Vec<(ComponentInfo, Opened)> {
    let mut embedded = Vec::new();
    let mut add = |name: &str, component_type: &str, opened: Opened| {
        let (name, component_type) = (name.to_owned(), component_type.to_owned());
        let capabilities = opened.capabilities();
        let version = "v1".to_owned();
        embedded.push((ComponentInfo { name, component_type, version, capabilities }, opened));
    };
    add("configstore", "configuration.local.file", Opened::Configuration(configuration::embedded(data_dir)));
    add("secretstore", "secretstores.local.file", Opened::Secrets(secrets::embedded(data_dir)));
    #[cfg(feature = "sqlite")]
    {
        add("statestore", "state.sqlite", Opened::State(state::sqlite::embedded(data_dir)));
        add("pubsub", "pubsub.sqlite", Opened::PubSub(pubsub::sqlite::embedded(data_dir)));
        add("lockstore", "lock.sqlite", Opened::Lock(lock::sqlite::embedded(data_dir)));
    }
    embedded
}

/// The host's jobs, kept in its data folder; opened when the first one is scheduled.
pub fn embedded_jobs(data_dir: &Path) -> Option<Arc<dyn Jobs>> {
    #[cfg(feature = "sqlite")]
    return Some(crate::jobs::embedded(data_dir));
    #[cfg(not(feature = "sqlite"))]
    {
        let _ = data_dir;
        None
    }
}

/// The component's metadata fields that its type does not know.
pub fn unknown_fields(component: &ComponentSpec) -> Result<Vec<UnknownField>, OpenError> {
    let provider = provider(component)?;
    if provider.fields == ANY {
        return Ok(Vec::new());
    }
    let block = block_of(provider.component_type);
    let host = HOST_FIELDS.iter().find(|(name, _)| *name == block).map_or(&[][..], |(_, fields)| *fields);
    Ok(component.unknown_fields(&[provider.fields, host].concat()))
}

/// The types that [`open`] knows.
pub fn types() -> impl Iterator<Item = &'static str> {
    PROVIDERS.iter().map(|provider| provider.component_type)
}

/// The provider that serves this component's type and version.
pub fn provider(component: &ComponentSpec) -> Result<&'static Provider, OpenError> {
    let ComponentSpec { name, component_type, version, .. } = component;
    let of_type = |provider: &&Provider| {
        let names = std::iter::once(&provider.component_type).chain(provider.aliases);
        names.into_iter().any(|name| name.eq_ignore_ascii_case(component_type))
    };
    if !PROVIDERS.iter().any(|provider| of_type(&provider)) {
        #[cfg(feature = "pluggable")]
        if let Some(provider) = crate::pluggable::provider(component_type) {
            return Ok(provider);
        }
        let siblings: Vec<_> = types().filter(|known| block_of(known) == block_of(component_type)).collect();
        return Err(OpenError::UnknownType {
            component: name.clone(),
            component_type: component_type.clone(),
            nearest: nearest(component_type, types()),
            known: if siblings.is_empty() { types().collect() } else { siblings },
        });
    }
    let serves = |provider: &&Provider| {
        let known = |known: &str| known.eq_ignore_ascii_case(version);
        of_type(provider) && (version.is_empty() || provider.versions.iter().any(|version| known(version)))
    };
    let known = || PROVIDERS.iter().filter(of_type);
    known().find(serves).ok_or_else(|| OpenError::UnknownVersion {
        component: name.clone(),
        component_type: component_type.clone(),
        version: version.clone(),
        known: known().flat_map(|provider| provider.versions).copied().collect(),
    })
}

/// `state` of `state.sqlite`.
fn block_of(component_type: &str) -> &str {
    component_type.split('.').next().unwrap_or_default()
}

/// Where a component may come from that is not in the table.
fn sockets() -> String {
    #[cfg(feature = "pluggable")]
    return crate::pluggable::hint();
    #[cfg(not(feature = "pluggable"))]
    String::new()
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|nearest| format!(", did you mean {nearest:?}?")).unwrap_or_default()
}

// === impl Opened ===

impl Opened {
    /// What the provider can do, in the words of Dapr's metadata API.
    pub fn capabilities(&self) -> Vec<&'static str> {
        match self {
            Opened::State(store) => store.capabilities().iter().map(|found| found.name()).collect(),
            Opened::PubSub(broker) => broker.features().iter().map(|found| found.name()).collect(),
            Opened::Secrets(store) if store.has_multiple_values() => vec!["MULTIPLE_KEY_VALUES_PER_SECRET"],
            Opened::Binding(binding) => {
                let input = binding.is_input().then_some("INPUT_BINDING");
                let output = (!binding.operations().is_empty()).then_some("OUTPUT_BINDING");
                input.into_iter().chain(output).collect()
            }
            Opened::Secrets(_)
            | Opened::Configuration(_)
            | Opened::Lock(_)
            | Opened::Sequencer(_)
            | Opened::Blob(_)
            | Opened::Cryption(_)
            | Opened::Email(_) => Vec::new(),
        }
    }

    /// Finishes what was accepted and lets go of files and connections.
    pub async fn close(&self) {
        match self {
            Opened::State(provider) => provider.close().await,
            Opened::PubSub(provider) => provider.close().await,
            Opened::Binding(provider) => provider.close().await,
            Opened::Secrets(provider) => provider.close().await,
            Opened::Configuration(provider) => provider.close().await,
            Opened::Lock(provider) => provider.close().await,
            Opened::Sequencer(provider) => provider.close().await,
            Opened::Blob(provider) => provider.close().await,
            Opened::Cryption(provider) => provider.close().await,
            Opened::Email(provider) => provider.close().await,
        }
    }
}
