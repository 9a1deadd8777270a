//! What an app may do: the one permission check of the whole runtime.
//!
//! Everything is denied until a pattern of the manifest allows it; a signed module is limited by what its token claims,
//! too. Every guest interface asks here, through [`crate::scope::Scope`], and nowhere else. A denial names the line to
//! add to the manifest, or the capability to sign.
//!
//! | file | subject |
//! |---|---|
//! | `pattern` | patterns of names and of hosts |
//! | `claimed` | what a token claims, and what is in force of both |

mod claimed;
mod pattern;

pub use claimed::{Claimed, Limit};
pub use pattern::{HostPattern, NamePattern, PatternError};

use std::fmt;
use std::sync::Arc;

/// Everything that one app may do beyond computing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// State stores, by component name.
    pub state: Vec<NamePattern>,
    /// Apps that may be invoked.
    pub invoke: Vec<NamePattern>,
    /// Topics that may be published to, as `component/topic`; a component alone stands for all its topics.
    pub publish: Vec<NamePattern>,
    /// Topics that may be received, as `component/topic`; a component alone stands for all its topics.
    pub subscribe: Vec<NamePattern>,
    /// Bindings, by component name, for operations and for events.
    pub bindings: Vec<NamePattern>,
    /// Secrets, as `component/secret`; a component alone stands for all its secrets.
    pub secrets: Vec<NamePattern>,
    /// Configuration stores, by component name.
    pub configuration: Vec<NamePattern>,
    /// Lock stores, by component name.
    pub lock: Vec<NamePattern>,
    /// Sequencers, by component name.
    pub sequencer: Vec<NamePattern>,
    /// Stores of files and objects, by component name.
    pub blob: Vec<NamePattern>,
    /// Encryption, by component name.
    pub cryption: Vec<NamePattern>,
    /// E-mail, by component name.
    pub email: Vec<NamePattern>,
    /// Jobs, by name.
    pub jobs: Vec<NamePattern>,
    /// Apps whose modules may be replaced, also its own.
    pub update: Vec<NamePattern>,
    /// Hosts that HTTP requests may go to.
    pub http: Vec<HostPattern>,
    /// TCP and UDP addresses that sockets may connect or send to.
    pub connect: Vec<HostPattern>,
    /// TCP and UDP addresses that sockets may be bound to.
    pub listen: Vec<HostPattern>,
    /// What the module's token claims, of a signed one; [`Grants::limited_by`] makes it.
    pub limit: Option<Arc<Limit>>,
}

/// Something that an app wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// Use the state store of this name.
    State(&'a str),
    /// Invoke the app of this id.
    Invoke(&'a str),
    /// Publish to a topic.
    Publish {
        /// Component.
        pubsub: &'a str,
        /// Topic.
        topic: &'a str,
    },
    /// Receive from a topic.
    Subscribe {
        /// Component.
        pubsub: &'a str,
        /// Topic.
        topic: &'a str,
    },
    /// Use the binding of this name.
    Binding(&'a str),
    /// Read some secrets of this store.
    Secrets(&'a str),
    /// Read a secret.
    Secret {
        /// Component.
        store: &'a str,
        /// Name of the secret.
        name: &'a str,
    },
    /// Use the configuration store of this name.
    Configuration(&'a str),
    /// Use the lock store of this name.
    Lock(&'a str),
    /// Use the sequencer of this name.
    Sequencer(&'a str),
    /// Use the store of files and objects of this name.
    Blob(&'a str),
    /// Use the encryption of this name.
    Cryption(&'a str),
    /// Send e-mail by the component of this name.
    Email(&'a str),
    /// Have the job of this name.
    Job(&'a str),
    /// Replace the module of this app.
    Update(&'a str),
    /// Send an HTTP request.
    Http {
        /// `http` or `https`.
        scheme: &'a str,
        /// Host name or address, without brackets.
        host: &'a str,
        /// Port, the scheme's own when the URI has none.
        port: u16,
    },
    /// Open a socket to an address.
    Connect {
        /// Address.
        host: &'a str,
        /// Port.
        port: u16,
    },
    /// Learn the addresses of a host name, in order to open a socket to one.
    Resolve(&'a str),
    /// Bind a socket to an address.
    Listen {
        /// Address.
        host: &'a str,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// See the folder that the guest finds at this path.
    Files(&'a str),
    /// Be asked by HTTP from outside.
    Serve,
    /// Write lines with a level to the log.
    Log,
    /// Ask for identifiers and numbers.
    Extras,
}

/// A refusal, with what would have to be granted or claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The kind of grant, as the manifest names it: `state`, `invoke`, `http`, …
    pub kind: &'static str,
    /// What was asked for, as a pattern that would allow it; empty for a kind without names.
    pub name: String,
    /// Who does not allow it.
    pub by: By,
}

/// Who does not allow something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The manifest grants it not.
    Manifest,
    /// The manifest does, but the token of the module claims it not.
    Token,
}

/// A kind of grants that there is not, or a pattern that is none.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum GrantError {
    /// No such kind.
    #[error("there is no kind of grants {kind:?}; the kinds are {}", .kinds.join(", "))]
    UnknownKind {
        /// As given.
        kind: String,
        /// All there are.
        kinds: &'static [&'static str],
    },
    /// No such pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

// === impl Grants ===

impl Grants {
    /// The kinds of grants, as manifests name them.
    pub const KINDS: &[&str] = &[
        "state",
        "invoke",
        "publish",
        "subscribe",
        "bindings",
        "secrets",
        "configuration",
        "lock",
        "sequencer",
        "blob",
        "cryption",
        "email",
        "jobs",
        "update",
        "http",
        "connect",
        "listen",
    ];

    /// Allows or refuses.
    pub fn check(&self, ask: Ask<'_>) -> Result<(), Denied> {
        if self.allows(ask) { Ok(()) } else { Err(self.denied(ask)) }
    }

    /// Whether something is allowed.
    pub fn allows(&self, ask: Ask<'_>) -> bool {
        match ask {
            // What the manifest gives without a grant, a token has to claim.
            Ask::Files(_) | Ask::Serve | Ask::Log | Ask::Extras => {
                self.limit.as_ref().is_none_or(|limit| limit.claimed().allows(ask))
            }
            ask => {
                self.list_allows(ask) && self.limit.as_ref().is_none_or(|limit| limit.is_met_by_lists(ask))
            }
        }
    }

    /// Whether the lists here name it.
    fn list_allows(&self, ask: Ask<'_>) -> bool {
        let named = |list: &[NamePattern], name: &str| list.iter().any(|pattern| pattern.matches(name));
        match ask {
            Ask::State(name) => named(&self.state, name),
            Ask::Invoke(name) => named(&self.invoke, name),
            Ask::Publish { pubsub, topic } => within(&self.publish, pubsub, topic),
            Ask::Subscribe { pubsub, topic } => within(&self.subscribe, pubsub, topic),
            Ask::Binding(name) => named(&self.bindings, name),
            Ask::Secrets(store) => self.secrets.iter().any(|pattern| pattern.may_match_within(store)),
            Ask::Secret { store, name } => within(&self.secrets, store, name),
            Ask::Configuration(name) => named(&self.configuration, name),
            Ask::Lock(name) => named(&self.lock, name),
            Ask::Sequencer(name) => named(&self.sequencer, name),
            Ask::Blob(name) => named(&self.blob, name),
            Ask::Cryption(name) => named(&self.cryption, name),
            Ask::Email(name) => named(&self.email, name),
            Ask::Job(name) => named(&self.jobs, name),
            Ask::Update(app_id) => named(&self.update, app_id),
            Ask::Http { scheme, host, port } => self.http.iter().any(|p| p.matches(Some(scheme), host, port)),
            Ask::Connect { host, port } => self.connect.iter().any(|p| p.matches(None, host, port)),
            Ask::Resolve(host) => self.connect.iter().any(|p| p.matches_host(host)),
            Ask::Listen { host, port } => self.listen.iter().any(|p| p.matches(None, host, port)),
            Ask::Files(_) | Ask::Serve | Ask::Log | Ask::Extras => false,
        }
    }

    fn denied(&self, ask: Ask<'_>) -> Denied {
        let by = match &self.limit {
            Some(limit) if limit.grants(ask) => By::Token,
            _ => By::Manifest,
        };
        ask.denied(by)
    }

    /// Adds a pattern to the list of this kind.
    pub fn allow(&mut self, kind: &str, pattern: &str) -> Result<(), GrantError> {
        let names = match kind {
            "state" => &mut self.state,
            "invoke" => &mut self.invoke,
            "publish" => &mut self.publish,
            "subscribe" => &mut self.subscribe,
            "bindings" => &mut self.bindings,
            "secrets" => &mut self.secrets,
            "configuration" => &mut self.configuration,
            "lock" => &mut self.lock,
            "sequencer" => &mut self.sequencer,
            "blob" => &mut self.blob,
            "cryption" => &mut self.cryption,
            "email" => &mut self.email,
            "jobs" => &mut self.jobs,
            "update" => &mut self.update,
            kind => {
                let hosts = match kind {
                    "http" => &mut self.http,
                    "connect" => &mut self.connect,
                    "listen" => &mut self.listen,
                    kind => {
                        let kind = kind.to_owned();
                        return Err(GrantError::UnknownKind { kind, kinds: Grants::KINDS });
                    }
                };
                hosts.push(pattern.parse()?);
                return Ok(());
            }
        };
        names.push(pattern.parse()?);
        Ok(())
    }

    /// The lists that are not empty, as texts: for policies and logs.
    pub fn texts(&self) -> Vec<(&'static str, Vec<String>)> {
        let names = [
            ("state", &self.state),
            ("invoke", &self.invoke),
            ("publish", &self.publish),
            ("subscribe", &self.subscribe),
            ("bindings", &self.bindings),
            ("secrets", &self.secrets),
            ("configuration", &self.configuration),
            ("lock", &self.lock),
            ("sequencer", &self.sequencer),
            ("blob", &self.blob),
            ("cryption", &self.cryption),
            ("email", &self.email),
            ("jobs", &self.jobs),
            ("update", &self.update),
        ];
        let hosts = [("http", &self.http), ("connect", &self.connect), ("listen", &self.listen)];
        let names =
            names.into_iter().map(|(kind, list)| (kind, list.iter().map(ToString::to_string).collect()));
        let hosts =
            hosts.into_iter().map(|(kind, list)| (kind, list.iter().map(ToString::to_string).collect()));
        names.chain(hosts).filter(|(_, list): &(_, Vec<String>)| !list.is_empty()).collect()
    }

    /// Everything: for a program outside, which this host does not confine.
    pub fn everything() -> Grants {
        let names = || vec![NamePattern::any()];
        let hosts = || vec![HostPattern::any()];
        Grants {
            state: names(),
            invoke: names(),
            publish: names(),
            subscribe: names(),
            bindings: names(),
            secrets: names(),
            configuration: names(),
            lock: names(),
            sequencer: names(),
            blob: names(),
            cryption: names(),
            email: names(),
            jobs: names(),
            update: names(),
            http: hosts(),
            connect: hosts(),
            listen: hosts(),
            limit: None,
        }
    }
}

/// Whether a pattern allows `component/name`, or the whole component.
fn within(patterns: &[NamePattern], component: &str, name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| pattern.matches(component) || pattern.matches(&format!("{component}/{name}")))
}

// === impl Ask ===

impl Ask<'_> {
    fn denied(self, by: By) -> Denied {
        let with_port = |host: &str, port: u16| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let (kind, name) = match self {
            Ask::State(name) => ("state", name.to_owned()),
            Ask::Invoke(name) => ("invoke", name.to_owned()),
            Ask::Publish { pubsub, topic } => ("publish", format!("{pubsub}/{topic}")),
            Ask::Subscribe { pubsub, topic } => ("subscribe", format!("{pubsub}/{topic}")),
            Ask::Binding(name) => ("bindings", name.to_owned()),
            Ask::Secrets(store) => ("secrets", store.to_owned()),
            Ask::Secret { store, name } => ("secrets", format!("{store}/{name}")),
            Ask::Configuration(name) => ("configuration", name.to_owned()),
            Ask::Lock(name) => ("lock", name.to_owned()),
            Ask::Sequencer(name) => ("sequencer", name.to_owned()),
            Ask::Blob(name) => ("blob", name.to_owned()),
            Ask::Cryption(name) => ("cryption", name.to_owned()),
            Ask::Email(name) => ("email", name.to_owned()),
            Ask::Job(name) => ("jobs", name.to_owned()),
            Ask::Update(app_id) => ("update", app_id.to_owned()),
            Ask::Http { scheme, host, port } => ("http", format!("{scheme}://{}", with_port(host, port))),
            Ask::Connect { host, port } => ("connect", with_port(host, port)),
            Ask::Resolve(host) => ("connect", host.to_owned()),
            Ask::Listen { host, port } => ("listen", with_port(host, port)),
            Ask::Files(path) => ("files", path.to_owned()),
            Ask::Serve => ("serve", String::new()),
            Ask::Log => ("log", String::new()),
            Ask::Extras => ("extras", String::new()),
        };
        Denied { kind, name, by }
    }
}

// === impl Denied ===

impl std::error::Error for Denied {}

impl Denied {
    /// The capability that a token would have to claim.
    pub fn capability(&self) -> String {
        if self.name.is_empty() {
            format!("dhow:{}", self.kind)
        } else {
            format!("dhow:{}={}", self.kind, self.name)
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denied { kind, name, by } = self;
        match by {
            By::Manifest => write!(
                f,
                "not granted: {kind} {name:?}; add it to `{kind}` under [apps.<id>.grants] or pass --grant {kind}={name}"
            ),
            By::Token if name.is_empty() => {
                write!(
                    f,
                    "not claimed: {kind}; the module's token has to claim it: dhow sign --cap {}",
                    self.capability()
                )
            }
            By::Token => write!(
                f,
                "not claimed: {kind} {name:?}; the manifest grants it, and the module's token has to claim it, too: \
                 dhow sign --cap {}",
                self.capability()
            ),
        }
    }
}

// === impl By ===

impl By {
    /// In one word, for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Manifest => "manifest",
            By::Token => "token",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(pattern: &str, scheme: &str, host: &str, port: u16) -> bool {
        let grants = Grants { http: vec![pattern.parse().unwrap()], ..Grants::default() };
        grants.check(Ask::Http { scheme, host, port }).is_ok()
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let asks = [
            Ask::State("statestore"),
            Ask::Invoke("orders"),
            Ask::Http { scheme: "http", host: "localhost", port: 80 },
            Ask::Connect { host: "127.0.0.1", port: 80 },
            Ask::Listen { host: "127.0.0.1", port: 0 },
            Ask::Resolve("db.example.com"),
        ];
        for ask in asks {
            let denied = Grants::default().check(ask).unwrap_err();
            assert!(denied.to_string().contains("--grant"), "{denied}");
        }
    }

    #[test]
    fn a_denial_names_a_pattern_that_would_allow_it() {
        let ask = Ask::Http { scheme: "https", host: "::1", port: 443 };
        let denied = Grants::default().check(ask).unwrap_err();
        assert_eq!(denied.name, "https://[::1]:443");
        let grants = Grants { http: vec![denied.name.parse().unwrap()], ..Grants::default() };
        assert_eq!(grants.check(ask), Ok(()));
    }

    #[test]
    fn names_are_resolved_when_some_port_of_theirs_is_granted() {
        let grants = Grants {
            connect: ["db.example.com:3306", "*.internal"].map(|p| p.parse().unwrap()).to_vec(),
            ..Grants::default()
        };
        let cases = [
            ("db.example.com", true),
            ("DB.example.com.", true),
            ("example.com", false),
            ("a.internal", true),
        ];
        for (name, allowed) in cases {
            assert_eq!(grants.check(Ask::Resolve(name)).is_ok(), allowed, "{name}");
        }
    }

    #[test]
    fn host_patterns() {
        let cases = [
            ("example.com", "https", "example.com", 443, true),
            ("example.com", "https", "EXAMPLE.com.", 8443, true),
            ("example.com", "https", "a.example.com", 443, false),
            ("example.com", "https", "badexample.com", 443, false),
            ("*.example.com", "https", "a.example.com", 443, true),
            ("*.example.com", "https", "a.b.example.com", 443, true),
            ("*.example.com", "https", "example.com", 443, false),
            ("*.example.com", "https", "badexample.com", 443, false),
            ("*.example.com", "https", ".example.com", 443, false),
            ("https://example.com", "http", "example.com", 80, false),
            ("example.com:8080", "http", "example.com", 80, false),
            ("http://example.com:8080", "http", "example.com", 8080, true),
            ("[::1]:80", "http", "::1", 80, true),
            ("::1", "http", "::1", 8080, true),
            ("*", "http", "anything", 1, true),
            ("*:80", "http", "anything", 81, false),
            ("*.é.com", "http", "aé.com", 80, false),
        ];
        for (pattern, scheme, host, port, allowed) in cases {
            assert_eq!(
                http(pattern, scheme, host, port),
                allowed,
                "{pattern} against {scheme}://{host}:{port}"
            );
        }
    }
}
