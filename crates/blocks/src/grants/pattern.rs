//! Patterns of names and of hosts.

use std::fmt;
use std::str::FromStr;

/// A component name or app-id: exact, or with one `*` that stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

/// A host: `[scheme://]host[:port]`, where the host may begin with `*.` (any subdomain) or be `*`, and a
/// missing scheme or port stands for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    pub(super) scheme: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
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

// === impl NamePattern ===

impl NamePattern {
    /// Matches every name.
    pub fn any() -> NamePattern {
        NamePattern("*".to_owned())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern matches the component, or something that begins with `component/`.
    pub(super) fn may_match_within(&self, component: &str) -> bool {
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

    pub(super) fn matches(&self, scheme: Option<&str>, host: &str, port: u16) -> bool {
        let scheme_matches = match (&self.scheme, scheme) {
            (Some(wanted), Some(scheme)) => wanted.eq_ignore_ascii_case(scheme),
            (Some(_), None) => false,
            (None, _) => true,
        };
        scheme_matches && self.port.is_none_or(|wanted| wanted == port) && self.matches_host(host)
    }

    /// Whether some port of the host is meant.
    pub(super) fn matches_host(&self, host: &str) -> bool {
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
