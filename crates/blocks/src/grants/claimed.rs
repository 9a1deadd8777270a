//! What the token of a module claims, and what is in force of that and the manifest's grants.
//!
//! In force is what both allow. It is worked out once, when an app is made: for nearly all patterns, what two of them
//! have in common is a pattern again, so that a check looks through one list, as for a module without a token. Where it
//! is none (`a*` and `*z`), the claims are asked, too.

use super::{Ask, GrantError, Grants, HostPattern, NamePattern};
use std::sync::Arc;

/// Everything that a token claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// What manifests grant.
    pub grants: Grants,
    /// Folders, by the path at which the guest finds them.
    pub files: Vec<NamePattern>,
    /// It may be asked by HTTP from outside.
    pub serve: bool,
    /// It may write lines with a level to the log.
    pub log: bool,
    /// It may ask for identifiers and numbers of waPC's `extras`.
    pub extras: bool,
}

/// The claims that limit grants, and what those were before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    granted: Grants,
    claimed: Claimed,
    /// The lists that are in force are all that both have in common.
    is_exact: bool,
}

/// Goes through the lists of both.
struct Fold {
    is_exact: bool,
}

/// What two patterns have in common.
enum Common<P> {
    All(P),
    Nothing,
    /// Perhaps something, and no pattern says what.
    Unclear,
}

// === impl Claimed ===

impl Claimed {
    /// The kinds of claims: those of grants, and what manifests give without one.
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
        "files",
        "serve",
        "log",
        "extras",
    ];

    /// Claims what a pattern of this kind allows; `serve`, `log` and `extras` know no names, and their pattern is `*`.
    pub fn allow(&mut self, kind: &str, pattern: &str) -> Result<(), GrantError> {
        match kind {
            "files" => self.files.push(pattern.parse()?),
            "serve" if pattern == "*" => self.serve = true,
            "log" if pattern == "*" => self.log = true,
            "extras" if pattern == "*" => self.extras = true,
            "serve" | "log" | "extras" => {
                let reason = "this kind has no names";
                return Err(super::PatternError { pattern: pattern.to_owned(), reason }.into());
            }
            kind => {
                let allowed = self.grants.allow(kind, pattern);
                return allowed.map_err(|error| match error {
                    GrantError::UnknownKind { kind, .. } => {
                        GrantError::UnknownKind { kind, kinds: Claimed::KINDS }
                    }
                    error => error,
                });
            }
        }
        Ok(())
    }

    pub(super) fn allows(&self, ask: Ask<'_>) -> bool {
        match ask {
            Ask::Files(path) => self.files.iter().any(|pattern| pattern.matches(path)),
            Ask::Serve => self.serve,
            Ask::Log => self.log,
            Ask::Extras => self.extras,
            ask => self.grants.list_allows(ask),
        }
    }
}

// === impl Limit ===

impl Limit {
    pub(super) fn claimed(&self) -> &Claimed {
        &self.claimed
    }

    /// Whether what the lists in force allow is claimed, too.
    pub(super) fn is_met_by_lists(&self, ask: Ask<'_>) -> bool {
        self.is_exact || self.claimed.allows(ask)
    }

    /// Whether the manifest alone would allow it.
    pub(super) fn grants(&self, ask: Ask<'_>) -> bool {
        matches!(ask, Ask::Files(_) | Ask::Serve | Ask::Log | Ask::Extras) || self.granted.allows(ask)
    }
}

// === impl Grants ===

impl Grants {
    /// What of these grants is in force for a module with a token that claims this.
    pub fn limited_by(&self, claimed: Claimed) -> Grants {
        let mut fold = Fold { is_exact: true };
        let claims = &claimed.grants;
        let mut in_force = Grants {
            state: fold.names(&self.state, &claims.state),
            invoke: fold.names(&self.invoke, &claims.invoke),
            publish: fold.topics(&self.publish, &claims.publish),
            subscribe: fold.topics(&self.subscribe, &claims.subscribe),
            bindings: fold.names(&self.bindings, &claims.bindings),
            secrets: fold.topics(&self.secrets, &claims.secrets),
            configuration: fold.names(&self.configuration, &claims.configuration),
            lock: fold.names(&self.lock, &claims.lock),
            sequencer: fold.names(&self.sequencer, &claims.sequencer),
            blob: fold.names(&self.blob, &claims.blob),
            cryption: fold.names(&self.cryption, &claims.cryption),
            email: fold.names(&self.email, &claims.email),
            jobs: fold.names(&self.jobs, &claims.jobs),
            update: fold.names(&self.update, &claims.update),
            http: fold.hosts(&self.http, &claims.http),
            connect: fold.hosts(&self.connect, &claims.connect),
            listen: fold.hosts(&self.listen, &claims.listen),
            limit: None,
        };
        in_force.limit = Some(Arc::new(Limit { granted: self.clone(), claimed, is_exact: fold.is_exact }));
        in_force
    }
}

// === impl Fold ===

impl Fold {
    fn names(&mut self, granted: &[NamePattern], claimed: &[NamePattern]) -> Vec<NamePattern> {
        self.lists(granted, claimed, NamePattern::common)
    }

    fn topics(&mut self, granted: &[NamePattern], claimed: &[NamePattern]) -> Vec<NamePattern> {
        self.lists(granted, claimed, NamePattern::common_within)
    }

    fn hosts(&mut self, granted: &[HostPattern], claimed: &[HostPattern]) -> Vec<HostPattern> {
        self.lists(granted, claimed, HostPattern::common)
    }

    fn lists<P: Clone + PartialEq>(
        &mut self,
        granted: &[P],
        claimed: &[P],
        common: impl Fn(&P, &P) -> Common<P>,
    ) -> Vec<P> {
        let mut list: Vec<P> = Vec::new();
        for grant in granted {
            for claim in claimed {
                let found = match common(grant, claim) {
                    Common::All(found) => found,
                    Common::Nothing => continue,
                    // All that is granted, as far as the claims allow it when they are asked.
                    Common::Unclear => {
                        self.is_exact = false;
                        grant.clone()
                    }
                };
                if !list.contains(&found) {
                    list.push(found);
                }
            }
        }
        list
    }
}

// === impl NamePattern ===

impl NamePattern {
    /// Of two patterns of names.
    fn common(&self, other: &NamePattern) -> Common<NamePattern> {
        if self.covers(other) {
            return Common::All(other.clone());
        }
        if other.covers(self) {
            return Common::All(self.clone());
        }
        match (self.as_str().split_once('*'), other.as_str().split_once('*')) {
            (Some((start, end)), Some((other_start, other_end)))
                if (start.starts_with(other_start) || other_start.starts_with(start))
                    && (end.ends_with(other_end) || other_end.ends_with(end)) =>
            {
                Common::Unclear
            }
            _ => Common::Nothing,
        }
    }

    /// Whether every name that the other one matches is matched.
    fn covers(&self, other: &NamePattern) -> bool {
        match (self.as_str().split_once('*'), other.as_str().split_once('*')) {
            (_, None) => self.matches(other.as_str()),
            (None, Some(_)) => false,
            (Some((start, end)), Some((other_start, other_end))) => {
                other_start.starts_with(start) && other_end.ends_with(end)
            }
        }
    }

    /// Of two patterns of `component/name`, where a component alone stands for all its names. Names of components have
    /// no slash.
    fn common_within(&self, other: &NamePattern) -> Common<NamePattern> {
        if self.covers_within(other) {
            return Common::All(other.clone());
        }
        if other.covers_within(self) {
            return Common::All(self.clone());
        }
        let (one, two) = (self.as_str(), other.as_str());
        match (one.split_once('*'), two.split_once('*')) {
            (None, None) => Common::Nothing,
            (None, Some((start, _))) => whole_and_start(one, start),
            (Some((start, _)), None) => whole_and_start(two, start),
            (Some((one, _)), Some((two, _))) if one.starts_with(two) || two.starts_with(one) => {
                Common::Unclear
            }
            (Some(_), Some(_)) => Common::Nothing,
        }
    }

    fn covers_within(&self, other: &NamePattern) -> bool {
        let component = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
        match (self.as_str().split_once('*'), other.as_str().split_once('*')) {
            (None, _) if self == other => true,
            // A whole component.
            (None, other_parts) if !self.as_str().contains('/') => {
                let beginning = other_parts.map_or(other.as_str(), |(start, _)| start);
                beginning.strip_prefix(self.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            (None, _) => false,
            (Some(_), None) => self.matches(other.as_str()) || self.matches(&component(other.as_str())),
            (Some((start, end)), Some((other_start, other_end))) => {
                other_start.starts_with(start) && other_end.ends_with(end)
            }
        }
    }
}

/// What a component, or one of its names, has in common with a pattern that begins in this way and does not cover it.
fn whole_and_start(whole: &str, start: &str) -> Common<NamePattern> {
    // One name is covered, or not.
    let is_component = !whole.contains('/');
    if is_component && format!("{whole}/").starts_with(start) { Common::Unclear } else { Common::Nothing }
}

// === impl HostPattern ===

impl HostPattern {
    fn common(&self, other: &HostPattern) -> Common<HostPattern> {
        let scheme = match (&self.scheme, &other.scheme) {
            (Some(one), Some(two)) if !one.eq_ignore_ascii_case(two) => return Common::Nothing,
            (scheme, None) | (None, scheme) | (scheme, Some(_)) => scheme.clone(),
        };
        let port = match (self.port, other.port) {
            (Some(one), Some(two)) if one != two => return Common::Nothing,
            (port, None) | (None, port) | (port, Some(_)) => port,
        };
        let host = if self.covers_host(other) {
            &other.host
        } else if other.covers_host(self) {
            &self.host
        } else {
            return Common::Nothing;
        };
        Common::All(HostPattern { scheme, host: host.clone(), port })
    }

    /// Whether every host that the other one matches is matched. Of two patterns of hosts, one covers the other, or
    /// they have nothing in common.
    fn covers_host(&self, other: &HostPattern) -> bool {
        match other.host.strip_prefix("*.") {
            _ if self.host == "*" => true,
            // The shortest name that the other one matches, if it has one.
            Some(parent) => self.host.starts_with("*.") && self.matches_host(&format!("x.{parent}")),
            None => other.host != "*" && self.matches_host(&other.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<NamePattern> {
        list.iter().map(|pattern| pattern.parse().unwrap()).collect()
    }

    /// Every pattern of at most this many characters out of these.
    fn patterns(alphabet: &[char], longest: usize) -> Vec<NamePattern> {
        let mut texts = vec![String::new()];
        let mut last = texts.clone();
        for _ in 0..longest {
            last = last.iter().flat_map(|text| alphabet.iter().map(move |c| format!("{text}{c}"))).collect();
            texts.extend(last.iter().cloned());
        }
        texts.iter().filter_map(|text| text.parse().ok()).collect()
    }

    #[test]
    fn in_force_is_what_both_allow_for_all_short_patterns() {
        let all = patterns(&['a', 'b', '*'], 4);
        let asked = patterns(&['a', 'b'], 6);
        for granted in &all {
            for claimed in &all {
                let one = Grants { state: vec![granted.clone()], ..Grants::default() };
                let two = Grants { state: vec![claimed.clone()], ..Grants::default() };
                let in_force = one.limited_by(Claimed { grants: two.clone(), ..Claimed::default() });
                for name in &asked {
                    let ask = Ask::State(name.as_str());
                    let both = one.allows(ask) && two.allows(ask);
                    assert_eq!(in_force.allows(ask), both, "{granted} and {claimed} for {name}");
                }
            }
        }
    }

    #[test]
    fn topics_in_force_are_those_that_both_allow_for_all_short_patterns() {
        let mut all = patterns(&['a', 'b', '*', '/'], 3);
        all.extend(patterns(&['a', '*', '/'], 5));
        let components = patterns(&['a', 'b'], 2);
        let topics = patterns(&['a', 'b', '/'], 3);
        let mut exact = 0;
        for granted in &all {
            for claimed in &all {
                let one = Grants { publish: vec![granted.clone()], ..Grants::default() };
                let two = Grants { publish: vec![claimed.clone()], ..Grants::default() };
                let in_force = one.limited_by(Claimed { grants: two.clone(), ..Claimed::default() });
                exact += usize::from(in_force.limit.as_ref().unwrap().is_exact);
                for pubsub in &components {
                    for topic in &topics {
                        let ask = Ask::Publish { pubsub: pubsub.as_str(), topic: topic.as_str() };
                        let both = one.allows(ask) && two.allows(ask);
                        assert_eq!(
                            in_force.allows(ask),
                            both,
                            "{granted} and {claimed} for {pubsub}/{topic}"
                        );
                    }
                }
            }
        }
        assert!(exact * 10 > all.len() * all.len() * 7, "{exact} of {}", all.len() * all.len());
    }

    #[test]
    fn hosts_in_force_are_those_that_both_allow() {
        let all = [
            "*",
            "*:80",
            "http://*",
            "https://*:80",
            "x",
            "X:80",
            "a.x",
            "*.x",
            "*.x:443",
            "https://*.a.x",
            "*.y",
            "::1",
        ];
        let asked = ["x", "a.x", "b.a.x", "y", "b.y", "::1"];
        for granted in all {
            for claimed in all {
                let one = Grants { http: vec![granted.parse().unwrap()], ..Grants::default() };
                let two = Grants { http: vec![claimed.parse().unwrap()], ..Grants::default() };
                let in_force = one.limited_by(Claimed { grants: two.clone(), ..Claimed::default() });
                assert!(in_force.limit.as_ref().unwrap().is_exact, "{granted} and {claimed}");
                for host in asked {
                    for (scheme, port) in [("http", 80), ("https", 443), ("https", 80), ("http", 443)] {
                        let ask = Ask::Http { scheme, host, port };
                        let both = one.allows(ask) && two.allows(ask);
                        assert_eq!(in_force.allows(ask), both, "{granted} and {claimed} for {ask:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_denial_says_who_does_not_allow_it() {
        let granted = Grants { state: names(&["a", "b"]), ..Grants::default() };
        let claims = Grants { state: names(&["b", "c"]), ..Grants::default() };
        let in_force = granted.limited_by(Claimed { grants: claims, ..Claimed::default() });
        assert_eq!(in_force.check(Ask::State("b")), Ok(()));
        let by = |ask| in_force.check(ask).unwrap_err().by;
        assert_eq!(
            [by(Ask::State("a")), by(Ask::State("c"))],
            [super::super::By::Token, super::super::By::Manifest]
        );
        for ask in [Ask::Serve, Ask::Log, Ask::Extras, Ask::Files("/data")] {
            assert_eq!(granted.check(ask), Ok(()), "{ask:?}");
            assert!(in_force.check(ask).unwrap_err().to_string().contains("--cap dhow:"), "{ask:?}");
        }
    }

    #[test]
    fn every_kind_can_be_claimed() {
        for kind in Claimed::KINDS {
            let mut claimed = Claimed::default();
            claimed.allow(kind, "*").unwrap();
            assert_ne!(claimed, Claimed::default(), "{kind}");
        }
        assert!(Claimed::default().allow("serve", "x").is_err());
        assert!(Claimed::default().allow("telnet", "*").unwrap_err().to_string().contains("files"));
        for kind in Grants::KINDS {
            Grants::default().allow(kind, "*").unwrap();
            assert!(Claimed::KINDS.contains(kind));
        }
    }
}
