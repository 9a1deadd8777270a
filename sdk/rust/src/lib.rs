//! dhow's building blocks for Rust guests, over the calls of WIT package `dhow:runtime`.
//!
//! | block | here |
//! |---|---|
//! | state | [`State`] |
//! | messages | [`PubSub`], [`on_message!`] |
//! | other apps | [`App`] |
//! | locks | [`Lock`] |
//! | secrets | [`Secrets`] |
//! | configuration | [`Configuration`] |
//! | bindings | [`Binding`], [`on_binding!`] |
//! | jobs | [`Job`], [`on_job!`] |
//! | steps of workflows | [`step!`] |
//!
//! An app is compiled for `wasm32-wasip2`. It may use what its manifest grants, whichever way it asks; everything else
//! is [`Error::Denied`]. HTTP comes with a crate of your choice, such as `wstd`.

mod binding;
mod configuration;
mod error;
mod handlers;
mod invoke;
mod jobs;
mod lock;
mod pubsub;
mod secrets;
mod state;
mod step;

pub use binding::{Answer, Binding};
pub use configuration::{Configuration, Item};
pub use error::{Error, Result};
pub use handlers::{BindingEvent, Due, Event, Refusal};
pub use invoke::{App, Request, Response};
pub use jobs::Job;
pub use lock::{Held, Lock};
pub use pubsub::{Message, PubSub};
pub use secrets::{Secret, Secrets};
pub use state::{Found, Keys, SetOptions, State, StateItem, Transaction};
pub use step::{StepInput, StepOutput};

/// What the macros need of the generated bindings; no part of the API.
#[doc(hidden)]
pub mod bindings {
    #![allow(missing_docs)]

    pub use crate::handlers::{binding_app, job_app, topic_app};
    pub use crate::step::step_app;

    wit_bindgen::generate!({ path: "wit", world: "dhow:runtime/imports" });
}

pub(crate) use bindings::dhow::runtime as wit;

/// Names and values that go with a request, a message or an answer.
pub type Metadata = Vec<(String, String)>;

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
