//! What arrives as calls: messages, jobs that are due, events of input bindings.
//!
//! Each macro exports one interface of `dhow:runtime` with a function of the app behind it. What it exports it gets by
//! calls and not by HTTP any more.

use crate::{Metadata, Result};
use serde::de::DeserializeOwned;
use std::fmt::Display;

/// Bindings of one handler each: a component exports those that it calls the macro of.
#[doc(hidden)]
#[allow(missing_docs)]
pub mod topic_app {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package dhow-sdk:topic; world topic-app { export dhow:runtime/topic-handler@0.1.0; }",
        world: "dhow-sdk:topic/topic-app",
        pub_export_macro: true,
        generate_all,
    });
}

#[doc(hidden)]
#[allow(missing_docs)]
pub mod job_app {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package dhow-sdk:job; world job-app { export dhow:runtime/job-handler@0.1.0; }",
        world: "dhow-sdk:job/job-app",
        pub_export_macro: true,
        generate_all,
    });
}

#[doc(hidden)]
#[allow(missing_docs)]
pub mod binding_app {
    wit_bindgen::generate!({
        path: "wit",
        inline: "package dhow-sdk:binding; world binding-app { export dhow:runtime/binding-handler@0.1.0; }",
        world: "dhow-sdk:binding/binding-app",
        pub_export_macro: true,
        generate_all,
    });
}

/// A message, taken out of its CloudEvent.
#[derive(Clone, Debug)]
pub struct Event {
    /// The CloudEvent's attribute of this name.
    pub id: String,
    /// The CloudEvent's attribute of this name.
    pub source: String,
    /// The CloudEvent's attribute `type`.
    pub kind: String,
    /// The CloudEvent's attribute of this name.
    pub subject: Option<String>,
    /// The broker that it came from.
    pub pubsub: String,
    /// The topic that was subscribed to.
    pub topic: String,
    /// The path that the subscription's routes name for it.
    pub path: String,
    /// Media type of the data; empty where nobody said.
    pub content_type: String,
    /// What it says.
    pub data: Vec<u8>,
    /// The CloudEvent's other attributes.
    pub attributes: Metadata,
    /// What the broker told about the message; names in lower case.
    pub metadata: Metadata,
}

/// A job that is due.
#[derive(Clone, Debug)]
pub struct Due {
    /// The job's name.
    pub name: String,
    /// As JSON, if it was given so.
    pub data: Vec<u8>,
    /// Media type of the data.
    pub content_type: String,
}

/// An event of an input binding.
#[derive(Clone, Debug)]
pub struct BindingEvent {
    /// The component.
    pub name: String,
    /// What happened.
    pub data: Vec<u8>,
    /// Media type of the data.
    pub content_type: String,
    /// What goes with the data; names in lower case.
    pub metadata: Metadata,
}

/// What becomes of a message that was not handled. The text goes to the app's log. Every error becomes a `Retry`
/// with `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It comes again, as the component's resiliency policy says.
    Retry(String),
    /// It is over; it goes to the dead-letter topic, if the subscription names one.
    Drop(String),
}

/// Takes the app's messages with a function `fn(Event) -> Result<(), Refusal>`. Once in an app.
#[macro_export]
macro_rules! on_message {
    ($handle:path) => {
        const _: () = {
            use $crate::bindings::topic_app::exports::dhow::runtime::topic_handler as wit;

            struct Messages;

            impl wit::Guest for Messages {
                fn handle(event: wit::Event) -> ::std::result::Result<(), wit::Outcome> {
                    let handle: fn($crate::Event) -> ::std::result::Result<(), $crate::Refusal> = $handle;
                    handle(event.into()).map_err(wit::Outcome::from)
                }
            }

    $crate::bindings::topic_app::export!(Messages with_types_in $crate::bindings::topic_app);
        };
    };
}

/// Takes the app's jobs with a function `fn(Due) -> Result<(), E>`; the error's text goes to the app's log, and the
/// job's failure policy decides. Once in an app.
#[macro_export]
macro_rules! on_job {
    ($handle:path) => {
        const _: () = {
            use $crate::bindings::job_app::exports::dhow::runtime::job_handler as wit;

            struct Jobs;

            impl wit::Guest for Jobs {
                fn handle(due: wit::Due) -> ::std::result::Result<(), ::std::string::String> {
                    $handle($crate::Due::from(due))
                        .map_err(|error| ::std::string::ToString::to_string(&error))
                }
            }

    $crate::bindings::job_app::export!(Jobs with_types_in $crate::bindings::job_app);
        };
    };
}

/// Takes the events of the app's input bindings with a function `fn(BindingEvent) -> Result<(), E>`; after an error
/// the event comes again. Once in an app.
#[macro_export]
macro_rules! on_binding {
    ($handle:path) => {
        const _: () = {
            use $crate::bindings::binding_app::exports::dhow::runtime::binding_handler as wit;

            struct Bindings;

            impl wit::Guest for Bindings {
                fn handle(event: wit::Event) -> ::std::result::Result<(), ::std::string::String> {
                    $handle($crate::BindingEvent::from(event))
                        .map_err(|error| ::std::string::ToString::to_string(&error))
                }
            }

    $crate::bindings::binding_app::export!(Bindings with_types_in $crate::bindings::binding_app);
        };
    };
}

// === impl Event ===

impl Event {
    /// The data out of JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.data)?)
    }
}

impl From<topic_app::exports::dhow::runtime::topic_handler::Event> for Event {
    fn from(event: topic_app::exports::dhow::runtime::topic_handler::Event) -> Event {
        Event {
            id: event.id,
            source: event.source,
            kind: event.type_,
            subject: event.subject,
            pubsub: event.pubsub,
            topic: event.topic,
            path: event.path,
            content_type: event.content_type,
            data: event.data,
            attributes: event.attributes,
            metadata: event.metadata,
        }
    }
}

// === impl Due ===

impl Due {
    /// The data out of JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.data)?)
    }
}

impl From<job_app::exports::dhow::runtime::job_handler::Due> for Due {
    fn from(due: job_app::exports::dhow::runtime::job_handler::Due) -> Due {
        Due { name: due.name, data: due.data, content_type: due.content_type }
    }
}

// === impl BindingEvent ===

impl BindingEvent {
    /// The data out of JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.data)?)
    }
}

impl From<binding_app::exports::dhow::runtime::binding_handler::Event> for BindingEvent {
    fn from(event: binding_app::exports::dhow::runtime::binding_handler::Event) -> BindingEvent {
        let (name, data) = (event.name, event.data);
        BindingEvent { name, data, content_type: event.content_type, metadata: event.metadata }
    }
}

// === impl Refusal ===

impl<E: Display> From<E> for Refusal {
    fn from(error: E) -> Refusal {
        Refusal::Retry(error.to_string())
    }
}

impl From<Refusal> for topic_app::exports::dhow::runtime::topic_handler::Outcome {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Retry(reason) => Self::Retry(reason),
            Refusal::Drop(reason) => Self::Drop(reason),
        }
    }
}
