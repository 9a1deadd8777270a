//! Which app answers a host name and a path.
//!
//! Host names are tried from exact over `*.example.com` to none; within one, the longest path prefix that
//! ends at a segment border wins. Looking up costs a hash for each segment of the path, however many apps
//! there are.

use crate::app::App;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// The routing table of one version of the host's apps; never changed, only replaced.
#[derive(Debug, Default)]
pub struct Routes {
    exact: HashMap<String, Prefixes>,
    /// Keyed by what follows the star: `.example.com`.
    wildcard: HashMap<String, Prefixes>,
    any: Prefixes,
}

type Prefixes = HashMap<String, Arc<App>>;

// === impl Routes ===

impl Routes {
    /// Sends requests for `host` (any if `None`) and paths below `prefix` to `app`.
    pub fn add(&mut self, host: Option<&str>, prefix: &str, app: &Arc<App>) {
        let prefixes = match host.map(str::to_ascii_lowercase) {
            None => &mut self.any,
            Some(host) => match host.strip_prefix('*') {
                Some(parent) => self.wildcard.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(host).or_default(),
            },
        };
        prefixes.insert(unescaped(prefix).trim_end_matches('/').to_owned(), Arc::clone(app));
    }

    /// The app for a request; `host` is as in the `host` header, with or without a port.
    pub fn find(&self, host: Option<&str>, path: &str) -> Option<&Arc<App>> {
        let path = &*unescaped(path);
        if (self.exact.is_empty() && self.wildcard.is_empty()) || host.is_none() {
            return longest(&self.any, path);
        }
        // With a dot at its end it is the same name (RFC 9110, section 4.2.3, and RFC 1034, section 3.1).
        let host = without_port(host.unwrap_or_default());
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let exact = self.exact.get(&host).and_then(|prefixes| longest(prefixes, path));
        exact.or_else(|| self.below(&host, path)).or_else(|| longest(&self.any, path))
    }

    fn below(&self, host: &str, path: &str) -> Option<&Arc<App>> {
        let mut dots = host.match_indices('.').filter(|(at, _)| *at > 0);
        dots.find_map(|(at, _)| longest(self.wildcard.get(&host[at..])?, path))
    }
}

fn longest<'a>(prefixes: &'a Prefixes, path: &str) -> Option<&'a Arc<App>> {
    let mut candidate = path.trim_end_matches('/');
    loop {
        if let Some(app) = prefixes.get(candidate) {
            return Some(app);
        }
        candidate = &candidate[..candidate.rfind('/')?];
    }
}

/// A path as it is compared: `%61` is `a`, and `%C3%BC` is `ü`. A slash that is escaped separates nothing.
fn unescaped(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let kept = path.replace("%2F", "%252F").replace("%2f", "%252F");
    match percent_decode_str(&kept).decode_utf8() {
        Ok(decoded) => Cow::Owned(decoded.into_owned()),
        Err(_) => Cow::Borrowed(path),
    }
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn paths_are_compared_without_escapes() {
        for (path, same) in [
            ("/a/b", "/a/b"),
            ("/%61/b", "/a/b"),
            ("/%C3%BC/%c3%bc", "/ü/ü"),
            ("/a%2Fb%2f", "/a%2Fb%2F"),
            ("/%ff", "/%ff"),
            ("/100%", "/100%"),
        ] {
            assert_eq!(unescaped(path), same, "{path}");
        }
    }
}
