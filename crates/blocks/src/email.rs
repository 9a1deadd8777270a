//! The e-mail block.

use crate::error::BlockError;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Most addresses of one message.
pub const MAX_RECIPIENTS: usize = 100;

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Who sends it; empty: the component's usual sender.
    pub from: String,
    /// Who gets it.
    pub to: Vec<String>,
    /// Who gets a copy.
    pub cc: Vec<String>,
    /// What stands over it.
    pub subject: String,
    /// What stands in it.
    pub content: Content,
}

/// The text of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// As it is.
    Text(String),
    /// A template that the component knows, with its gaps filled.
    Template {
        /// Which template.
        id: String,
        /// What stands in place of `${name}`.
        parameters: BTreeMap<String, String>,
    },
}

/// A provider of e-mail.
#[async_trait]
pub trait Email: Send + Sync + 'static {
    /// Hands a message to a mail server, and returns the id that the message has. `Ok` means that the server took it,
    /// not that it arrived.
    async fn send(&self, mail: Mail) -> Result<String, BlockError>;

    /// Lets go of connections.
    async fn close(&self) {}
}

impl Default for Content {
    fn default() -> Content {
        Content::Text(String::new())
    }
}
