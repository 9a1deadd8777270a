//! Component types and their constructors: the one table that a new provider adds a line to.
//!
//! Types, versions and metadata fields are Dapr's, so a Dapr user's resource files work unchanged. Like
//! Dapr, an unknown field is not an error; unlike Dapr, it is reported, with the field that was perhaps meant.

pub use crate::metadata::{ComponentSpec, UnknownField};

use crate::metadata::nearest;
use crate::state::in_memory::InMemory;
use dhow_blocks::state::{StateError, StateStore};
use std::path::Path;
use std::sync::Arc;

/// The file of the embedded state store, in the host's data folder.
#[cfg(feature = "sqlite")]
const EMBEDDED_STATE_FILE: &str = "state.db";

/// Fields that Dapr's runtime reads from every state component; the host handles them.
const COMMON_STATE_FIELDS: &[&str] =
    &["keyPrefix", "actorStateStore", "outboxPublishPubsub", "outboxPublishTopic"];

/// Why a component could not be opened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// No provider has this type.
    #[error("component {component:?}: type {component_type:?} is not known{}; known types: {}", did_you_mean(.nearest), .known.join(", "))]
    UnknownType {
        /// The component's name.
        component: String,
        /// The type as given.
        component_type: String,
        /// A known type that looks like it.
        nearest: Option<&'static str>,
        /// All types of this block.
        known: Vec<&'static str>,
    },
    /// The type is known, this version of it is not.
    #[error("component {component:?}: type {component_type} has no version {version:?}; use v1")]
    UnknownVersion {
        /// The component's name.
        component: String,
        /// The component's type.
        component_type: String,
        /// The version as given.
        version: String,
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
    #[error("component {component:?}: {error}")]
    Store {
        /// The component's name.
        component: String,
        /// What the provider said.
        error: StateError,
    },
}

type OpenState = fn(&ComponentSpec, &Path) -> Result<Arc<dyn StateStore>, OpenError>;

/// A type of component and how it is opened.
struct StateProvider {
    component_type: &'static str,
    /// Fields beside [`COMMON_STATE_FIELDS`].
    fields: &'static [&'static str],
    open: OpenState,
}

const STATE_PROVIDERS: &[StateProvider] = &[
    StateProvider {
        component_type: "state.in-memory",
        fields: &[],
        open: |_, _| Ok(Arc::new(InMemory::new())),
    },
    #[cfg(feature = "sqlite")]
    StateProvider { component_type: "state.sqlite", fields: sqlite::FIELDS, open: sqlite::open },
];

/// Opens the state store that the component describes. May block while it opens files.
///
/// Files are looked up as Dapr does, from the current directory; `data_dir` is where a store keeps its file
/// when the component names none. Unknown metadata fields are logged and ignored.
pub fn open_state(component: &ComponentSpec, data_dir: &Path) -> Result<Arc<dyn StateStore>, OpenError> {
    let provider = state_provider(component)?;
    for unknown in unknown_state_fields(component)? {
        tracing::warn!("{unknown}");
    }
    (provider.open)(component, data_dir)
}

/// The component's metadata fields that its type does not know.
pub fn unknown_state_fields(component: &ComponentSpec) -> Result<Vec<UnknownField>, OpenError> {
    let provider = state_provider(component)?;
    Ok(component.unknown_fields(&[provider.fields, COMMON_STATE_FIELDS].concat()))
}

/// The types that [`open_state`] knows.
pub fn state_types() -> impl Iterator<Item = &'static str> {
    STATE_PROVIDERS.iter().map(|provider| provider.component_type)
}

/// The store that an app has without any configuration: SQLite in the data folder, opened on first use.
#[cfg(feature = "sqlite")]
pub fn embedded_state(data_dir: &Path) -> Arc<dyn StateStore> {
    use crate::lazy::Lazy;
    use crate::state::sqlite::{CAPABILITIES, Sqlite, SqliteOptions};
    let options = SqliteOptions::new(data_dir.join(EMBEDDED_STATE_FILE));
    Arc::new(Lazy::new(CAPABILITIES, move || Ok(Arc::new(Sqlite::open(options.clone())?))))
}

fn state_provider(component: &ComponentSpec) -> Result<&'static StateProvider, OpenError> {
    let ComponentSpec { name, component_type, version, .. } = component;
    let provider =
        STATE_PROVIDERS.iter().find(|provider| provider.component_type.eq_ignore_ascii_case(component_type));
    let Some(provider) = provider else {
        return Err(OpenError::UnknownType {
            component: name.clone(),
            component_type: component_type.clone(),
            nearest: nearest(component_type, state_types()),
            known: state_types().collect(),
        });
    };
    if !version.is_empty() && !version.eq_ignore_ascii_case("v1") {
        return Err(OpenError::UnknownVersion {
            component: name.clone(),
            component_type: component_type.clone(),
            version: version.clone(),
        });
    }
    Ok(provider)
}

fn did_you_mean(nearest: &Option<&'static str>) -> String {
    nearest.map(|nearest| format!(", did you mean {nearest:?}?")).unwrap_or_default()
}

#[cfg(feature = "sqlite")]
mod sqlite;
