//! Operations of outside systems. [`on_binding!`](crate::on_binding) takes events of input bindings.

use crate::wit::binding as wit;
use crate::{Metadata, Result, metadata};

/// An output binding.
#[derive(Clone, Debug)]
pub struct Binding {
    name: String,
}

/// What an operation answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `None` where the operation has no answer.
    pub data: Option<Vec<u8>>,
    /// What goes with it.
    pub metadata: Metadata,
}

// === impl Binding ===

impl Binding {
    /// The binding of this name.
    pub fn open(name: impl Into<String>) -> Binding {
        Binding { name: name.into() }
    }

    /// Carries out an operation, such as `create` or `exec`.
    pub fn invoke(&self, operation: &str, data: &[u8], given: &[(&str, &str)]) -> Result<Answer> {
        let wit::Response { data, metadata } = wit::invoke(&self.name, operation, data, &metadata(given))?;
        Ok(Answer { data, metadata })
    }
}
