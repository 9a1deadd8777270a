//! What a manifest allows an app: the one permission check of the whole runtime.
//!
//! Everything is denied until a pattern allows it. Every guest interface asks here, through
//! [`crate::scope::Scope`], and nowhere else. A denial names the line to add to the manifest.

use std::fmt;
use std::str::FromStr;

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
}

/// A refusal, with what would have to be granted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not granted: {kind} {name:?}; add it to `{kind}` under [apps.<id>.grants] or pass --grant {kind}={name}"
)]
pub struct Denied {
    /// The kind of grant, as the manifest names it: `state`, `invoke`, `http`, …
    pub kind: &'static str,
    /// What was asked for, as a pattern that would allow it.
    pub name: String,
}

/// A component name or app-id: exact, or with one `*` that stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

/// A host: `[scheme://]host[:port]`, where the host may begin with `*.` (any subdomain) or be `*`, and a
/// missing scheme or port stands for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    scheme: Option<String>,
    host: String,
    port: Option<u16>,
}

/// A pattern that cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{pattern:?} is not a valid pattern: {reason}")]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

// === impl Grants ===

impl Grants {
    /// Allows or refuses.
    pub fn check(&self, ask: Ask<'_>) -> Result<(), Denied> {
        let named = |list: &[NamePattern], name: &str| list.iter().any(|pattern| pattern.matches(name));
        let allowed = match ask {
            Ask::State(name) => named(&self.state, name),
            Ask::Invoke(name) => named(&self.invoke, name),
            Ask::Publish { pubsub, topic } => within(&self.publish, pubsub, topic),
            Ask::Subscribe { pubsub, topic } => within(&self.subscribe, pubsub, topic),
            Ask::Binding(name) => named(&self.bindings, name),
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
        };
        if allowed { Ok(()) } else { Err(ask.denied()) }
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
        }
    }

    /// Whether any secret of the store may be read.
    pub fn secrets_of(&self, store: &str) -> bool {
        self.secrets.iter().any(|pattern| pattern.may_match_within(store))
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
    fn denied(self) -> Denied {
        let with_port = |host: &str, port: u16| {
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
        };
        let (kind, name) = match self {
            Ask::State(name) => ("state", name.to_owned()),
            Ask::Invoke(name) => ("invoke", name.to_owned()),
            Ask::Publish { pubsub, topic } => ("publish", format!("{pubsub}/{topic}")),
            Ask::Subscribe { pubsub, topic } => ("subscribe", format!("{pubsub}/{topic}")),
            Ask::Binding(name) => ("bindings", name.to_owned()),
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
        };
        Denied { kind, name }
    }
}

// === impl NamePattern ===

impl NamePattern {
    /// Matches every name.
    pub fn any() -> NamePattern {
        NamePattern("*".to_owned())
    }

    /// Whether the pattern matches the component, or something that begins with `component/`.
    fn may_match_within(&self, component: &str) -> bool {
        let inside = |text: &str| text.strip_prefix(component).is_some_and(|rest| rest.starts_with('/'));
        match self.0.split_once('*') {
            None => self.0 == component || inside(&self.0),
            Some((start, _)) => self.matches(component) || inside(start) || component.starts_with(start),
        }
    }

    /// Whether it stands for this name.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.split_once('*') {
            None => self.0 == name,
            Some((start, end)) => {
                name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
            }
        }
    }
}

impl FromStr for NamePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = |reason| PatternError { pattern: text.to_owned(), reason };
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        if text.matches('*').count() > 1 {
            return Err(error("it has more than one *"));
        }
        Ok(NamePattern(text.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl HostPattern ===

impl HostPattern {
    /// Matches every host.
    pub fn any() -> HostPattern {
        HostPattern { scheme: None, host: "*".to_owned(), port: None }
    }

    fn matches(&self, scheme: Option<&str>, host: &str, port: u16) -> bool {
        let scheme_matches = match (&self.scheme, scheme) {
            (Some(wanted), Some(scheme)) => wanted.eq_ignore_ascii_case(scheme),
            (Some(_), None) => false,
            (None, _) => true,
        };
        scheme_matches && self.port.is_none_or(|wanted| wanted == port) && self.matches_host(host)
    }

    /// Whether some port of the host is meant.
    fn matches_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self.host.strip_prefix("*.") {
            _ if self.host == "*" => true,
            // `*.example.com` allows a.example.com and not example.com, as certificates do.
            Some(parent) => host
                .len()
                .checked_sub(parent.len() + 1)
                .filter(|at| *at > 0 && host.is_char_boundary(*at))
                .is_some_and(|at| host.as_bytes()[at] == b'.' && host[at + 1..].eq_ignore_ascii_case(parent)),
            None => self.host.eq_ignore_ascii_case(host),
        }
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let error = |reason| PatternError { pattern: text.to_owned(), reason };
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
            Some(_) => return Err(error("the scheme must be http or https")),
            None => (None, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, "")) => (host, None),
                Some((host, port)) => (host, port.strip_prefix(':')),
                None => return Err(error("the bracket of the IPv6 address is not closed")),
            },
            // More than one colon without brackets is an IPv6 address without a port.
            None if rest.matches(':').count() > 1 => (rest, None),
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None | Some("*") => None,
            Some(port) => Some(port.parse().map_err(|_| error("the port is not a number from 0 to 65535"))?),
        };
        if host.is_empty() {
            return Err(error("the host is empty; * stands for any host"));
        }
        if host.contains(['/', '?', '#', '@']) {
            return Err(error("only scheme, host and port can be granted, not a path"));
        }
        if host.strip_prefix("*.").unwrap_or(host).contains('*') && host != "*" {
            return Err(error(
                "* stands only for the whole host or, as in *.example.com, for its first part",
            ));
        }
        Ok(HostPattern { scheme, host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
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

    #[test]
    fn name_patterns() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("*", "x", true),
            ("shop-*", "shop-1", true),
            ("shop-*", "shop", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
        ];
        for (pattern, name, allowed) in cases {
            assert_eq!(
                pattern.parse::<NamePattern>().unwrap().matches(name),
                allowed,
                "{pattern} against {name}"
            );
        }
    }

    #[test]
    fn bad_patterns_say_why() {
        for bad in ["", "http://", "ftp://x", "x:port", "x:70000", "x/y", "a*b", "[::1", "u@h", "*.*.com"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad:?}");
        }
        for bad in ["", "**"] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad:?}");
        }
    }
}
