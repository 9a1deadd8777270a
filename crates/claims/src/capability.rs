//! Names of capabilities, and the grants that they stand for.
//!
//! Wascap's names come in three families (`wascap:`, `wascc:`, `wasmcloud:`), each for a whole block. Those of `dhow:`
//! are the kinds of grants, with or without a pattern: `dhow:state`, `dhow:state=orders*`; also `files`, `serve`,
//! `log` and `extras`, which manifests give without a grant. Any other name is legal in a token, and allows nothing here.

use dhow_blocks::grants::{Claimed, GrantError};
use dhow_resources::error::nearest;
use std::fmt;

/// A capability that a module claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// A block as a whole, under a name of Wascap.
    Block(Block),
    /// A kind of grants, under its own name: everything of that kind, or what a pattern allows.
    Grant {
        /// As the manifest names it.
        kind: &'static str,
        /// What it is restricted to.
        pattern: Option<String>,
    },
    /// Something that is none of this host's.
    Custom(String),
}

/// What Wascap has names for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Keys and values.
    KeyValue,
    /// Messages.
    Messaging,
    /// Being asked by HTTP.
    HttpServer,
    /// Asking by HTTP.
    HttpClient,
    /// Files and objects.
    BlobStore,
    /// Writing to the log.
    Logging,
    /// Streams of events.
    EventStreams,
    /// Random numbers, identifiers, sequences.
    Extras,
}

/// A name that cannot be what was meant.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CapabilityError {
    /// `dhow:` and a kind that there is not.
    #[error("{name:?} is no capability of dhow; {}its kinds are {}", meant(name), Claimed::KINDS.join(", "))]
    UnknownKind {
        /// As given.
        name: String,
    },
    /// A pattern that cannot be read.
    #[error("capability {name:?}: {error}")]
    Pattern {
        /// As given.
        name: String,
        /// What is wrong with it.
        error: GrantError,
    },
}

/// The names of each block behind the family's; the first is written.
const BLOCKS: [(Block, &[&str]); 8] = [
    (Block::KeyValue, &["keyvalue"]),
    (Block::Messaging, &["messaging"]),
    (Block::HttpServer, &["httpserver", "http_server"]),
    (Block::HttpClient, &["httpclient", "http_client"]),
    (Block::BlobStore, &["blobstore"]),
    (Block::Logging, &["logging", "builtin:logging"]),
    (Block::EventStreams, &["eventstreams"]),
    (Block::Extras, &["extras", "builtin:numbergen"]),
];

const FAMILIES: [&str; 3] = ["wasmcloud:", "wascc:", "wascap:"];

// === impl Capability ===

impl Capability {
    /// What a name in a token means. Every name means something, if only that it allows nothing.
    pub fn of(name: &str) -> Capability {
        Capability::checked(name).unwrap_or_else(|_| Capability::Custom(name.to_owned()))
    }

    /// The same, for whoever writes the name: one of `dhow:` must be right.
    pub fn checked(name: &str) -> Result<Capability, CapabilityError> {
        if let Some(rest) = FAMILIES.iter().find_map(|family| name.strip_prefix(family)) {
            let block = BLOCKS.iter().find(|(_, names)| names.contains(&rest));
            return Ok(block.map_or_else(
                || Capability::Custom(name.to_owned()),
                |(block, _)| Capability::Block(*block),
            ));
        }
        let Some(rest) = name.strip_prefix("dhow:") else { return Ok(Capability::Custom(name.to_owned())) };
        let (kind, pattern) =
            rest.split_once('=').map_or((rest, None), |(kind, pattern)| (kind, Some(pattern)));
        let known = Claimed::KINDS.iter().find(|known| **known == kind);
        let kind = known.ok_or_else(|| CapabilityError::UnknownKind { name: name.to_owned() })?;
        if let Some(pattern) = pattern {
            let read = Claimed::default().allow(kind, pattern);
            read.map_err(|error| CapabilityError::Pattern { name: name.to_owned(), error })?;
        }
        Ok(Capability::Grant { kind, pattern: pattern.map(str::to_owned) })
    }

    /// The name of Wascap's that was probably meant by one which means nothing here.
    pub fn nearest(name: &str) -> Option<String> {
        let family = FAMILIES.iter().find(|family| name.starts_with(**family))?;
        let known: Vec<&str> = BLOCKS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        nearest(&name[family.len()..], &known).map(|found| format!("{family}{found}"))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capability::Block(block) => {
                let names = BLOCKS.iter().find(|(found, _)| found == block);
                write!(f, "wasmcloud:{}", names.and_then(|(_, names)| names.first()).unwrap_or(&""))
            }
            Capability::Grant { kind, pattern: None } => write!(f, "dhow:{kind}"),
            Capability::Grant { kind, pattern: Some(pattern) } => write!(f, "dhow:{kind}={pattern}"),
            Capability::Custom(name) => f.write_str(name),
        }
    }
}

/// The capability that was probably meant, for an error.
fn meant(name: &str) -> String {
    let kind = name.trim_start_matches("dhow:").split('=').next().unwrap_or_default();
    nearest(kind, Claimed::KINDS).map_or_else(String::new, |kind| format!("did you mean dhow:{kind}? "))
}

/// What these capabilities allow together.
pub fn claimed(names: &[String]) -> Claimed {
    let mut claimed = Claimed::default();
    let mut allow = |kind: &str, pattern: &str| {
        // What cannot be read allows nothing.
        let _ = claimed.allow(kind, pattern);
    };
    for name in names {
        match Capability::of(name) {
            Capability::Block(block) => block.kinds().iter().for_each(|kind| allow(kind, "*")),
            Capability::Grant { kind, pattern } => allow(kind, pattern.as_deref().unwrap_or("*")),
            Capability::Custom(_) => {}
        }
    }
    claimed
}

// === impl Block ===

impl Block {
    /// The kinds of claims that it stands for.
    fn kinds(self) -> &'static [&'static str] {
        match self {
            // An event is a key of a state store.
            Block::KeyValue | Block::EventStreams => &["state"],
            Block::Messaging => &["publish", "subscribe"],
            Block::HttpServer => &["serve"],
            Block::HttpClient => &["http"],
            Block::BlobStore => &["blob", "bindings"],
            Block::Logging => &["log"],
            Block::Extras => &["sequencer", "extras"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_blocks::grants::Ask;

    #[test]
    fn all_families_are_read_and_the_newest_is_written() {
        for (name, written) in [
            ("wascap:keyvalue", "wasmcloud:keyvalue"),
            ("wascc:keyvalue", "wasmcloud:keyvalue"),
            ("wasmcloud:keyvalue", "wasmcloud:keyvalue"),
            ("wascap:http_server", "wasmcloud:httpserver"),
            ("wascc:http_client", "wasmcloud:httpclient"),
            ("wasmcloud:builtin:logging", "wasmcloud:logging"),
            ("wasmcloud:builtin:numbergen", "wasmcloud:extras"),
            ("dhow:state=orders*", "dhow:state=orders*"),
            ("dhow:lock", "dhow:lock"),
            ("acme:telnet", "acme:telnet"),
            ("wasmcloud:telnet", "wasmcloud:telnet"),
            ("dhow:telnet", "dhow:telnet"),
            ("", ""),
        ] {
            assert_eq!(Capability::of(name).to_string(), written, "{name}");
        }
        assert!(matches!(Capability::checked("dhow:telnet"), Err(CapabilityError::UnknownKind { .. })));
        let error = Capability::checked("dhow:srve=x").unwrap_err().to_string();
        assert!(error.contains("; did you mean dhow:serve? its kinds are "), "{error}");
        for (name, meant) in [
            ("wascc:keyvalu", Some("wascc:keyvalue")),
            ("wascap:http_servr", Some("wascap:http_server")),
            ("wascc:graphdb", None),
            ("acme:keyvalu", None),
        ] {
            assert_eq!(Capability::nearest(name).as_deref(), meant, "{name}");
        }
        assert!(matches!(Capability::checked("dhow:state=a*b*"), Err(CapabilityError::Pattern { .. })));
    }

    #[test]
    fn claims_allow_what_they_name_and_nothing_else() {
        let of = |names: &[&str]| claimed(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let nothing = of(&["acme:telnet", "dhow:telnet", "dhow:state=a*b*", "dhow:log=x"]);
        assert_eq!(nothing, Claimed::default());
        let some =
            of(&["wascc:keyvalue", "dhow:http=api.example.com", "dhow:lock=l", "wasmcloud:httpserver"]);
        let streams = of(&["wasmcloud:eventstreams"]);
        assert!(streams.grants.allows(Ask::State("any")));
        assert!(!streams.grants.allows(Ask::Publish { pubsub: "p", topic: "t" }));
        let extras =
            of(&["wasmcloud:builtin:numbergen", "dhow:files=/data", "dhow:blob=pictures", "dhow:log"]);
        assert!(extras.grants.allows(Ask::Sequencer("any")) && extras.grants.allows(Ask::Blob("pictures")));
        assert!(
            extras.extras
                && extras.log
                && !extras.grants.allows(Ask::Blob("letters"))
                && extras.files.len() == 1
        );
        let http = |host| Ask::Http { scheme: "https", host, port: 443 };
        for (ask, allowed) in [
            (Ask::State("any"), true),
            (Ask::Lock("l"), true),
            (Ask::Lock("m"), false),
            (http("api.example.com"), true),
            (http("example.com"), false),
            (Ask::Publish { pubsub: "p", topic: "t" }, false),
        ] {
            assert_eq!(some.grants.check(ask).is_ok(), allowed, "{ask:?}");
        }
        assert!(some.serve && !some.log && !some.extras);
    }
}
