//! What the metadata of a component say to the host, in the words of manifests; the rest is the component's own.

use dhow_artifacts::Source;
use dhow_blocks::grants::Grants;
use dhow_guest::{Bounds, Directory};
use dhow_providers::registry::ComponentSpec;
use dhow_resources::error::nearest;
use dhow_resources::units::{parse_duration, parse_size};

/// Where the module is.
const MODULE: &str = "module";

/// Folders that it sees.
const DIRS: &str = "dirs";

/// What it may do.
const GRANTS: &str = "grants.";

/// How much it may use.
const LIMITS: &str = "limits.";

/// The kinds of grants that a component can have.
const KINDS: [&str; 3] = ["http", "connect", "state"];

/// The limits that a component can have.
const LIMIT_NAMES: [&str; 3] = ["memory", "timeout", "concurrency"];

/// Calls at once, where the metadata do not say.
const CONCURRENCY: usize = 16;

/// Most calls at once.
const MAX_CONCURRENCY: usize = 256;

/// What is for the host.
pub(crate) struct Options {
    pub(super) source: Source,
    pub(super) dirs: Vec<Directory>,
    pub(crate) grants: Grants,
    pub(super) bounds: Bounds,
    pub(super) concurrency: usize,
    /// What is for the component.
    pub(super) metadata: Vec<(String, String)>,
}

// === impl Options ===

impl Options {
    /// Errors show no value.
    pub(crate) fn read(spec: &ComponentSpec) -> Result<Options, String> {
        let Some(module) = spec.field(&[MODULE]) else {
            return Err(
                "metadata field module must be the module: a file, an http(s) URL or oci://…".to_owned()
            );
        };
        let mut options = Options {
            source: Source::parse(module.trim()),
            dirs: Vec::new(),
            grants: Grants::default(),
            bounds: Bounds::default(),
            concurrency: CONCURRENCY,
            metadata: Vec::new(),
        };
        for (field, value) in &spec.metadata {
            let name = field.to_ascii_lowercase();
            let known = match (name.as_str(), name.strip_prefix(GRANTS), name.strip_prefix(LIMITS)) {
                (MODULE, ..) => Ok(()),
                (DIRS, ..) => options.see(value),
                (_, Some(kind), _) => options.grant(kind, value),
                (_, _, Some(limit)) => options.limit(limit, value),
                _ => {
                    options.metadata.push((field.clone(), value.clone()));
                    Ok(())
                }
            };
            known.map_err(|reason| format!("metadata field {field}: {reason}"))?;
        }
        Ok(options)
    }

    fn see(&mut self, value: &str) -> Result<(), String> {
        for text in parts(value) {
            let (text, writable) = match text.strip_suffix(":rw") {
                Some(text) => (text, true),
                None => (text, false),
            };
            let (host, guest) = text.split_once("::").unwrap_or((text, text));
            if !std::path::Path::new(host).is_dir() {
                let from = std::env::current_dir().unwrap_or_default();
                return Err(format!("{host:?} is no folder, seen from {}", from.display()));
            }
            self.dirs.push(Directory { host: host.into(), guest: guest.to_owned(), writable });
        }
        Ok(())
    }

    fn grant(&mut self, kind: &str, value: &str) -> Result<(), String> {
        if !KINDS.contains(&kind) {
            return Err(unknown("grant", kind, &KINDS));
        }
        for pattern in parts(value) {
            self.grants.allow(kind, pattern).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn limit(&mut self, limit: &str, value: &str) -> Result<(), String> {
        match limit {
            "memory" => {
                let bytes = parse_size(value)?;
                self.bounds.engine.memory = usize::try_from(bytes).unwrap_or(usize::MAX);
            }
            "timeout" => {
                let timeout = parse_duration(value)?;
                if timeout.is_zero() {
                    return Err("expected more than nothing".to_owned());
                }
                self.bounds.deadline = timeout;
            }
            "concurrency" => match value.trim().parse() {
                Ok(count @ 1..=MAX_CONCURRENCY) => self.concurrency = count,
                _ => return Err(format!("expected a number from 1 to {MAX_CONCURRENCY}")),
            },
            other => return Err(unknown("limit", other, &LIMIT_NAMES)),
        }
        Ok(())
    }
}

fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let near = nearest(name, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    format!("a component has no {what} {name:?}; there are {}{near}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metadata: &[(&str, &str)]) -> Result<Options, String> {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Options::read(&ComponentSpec { metadata: metadata.collect(), ..ComponentSpec::default() })
    }

    #[test]
    fn the_host_keeps_its_own_and_passes_on_the_rest() {
        let options = read(&[
            ("Module", "a.wasm"),
            ("grants.http", "http://127.0.0.1:1, example.com"),
            ("limits.Memory", "8MiB"),
            ("limits.timeout", "2s"),
            ("limits.concurrency", "1"),
            ("dirs", ".::/data:rw"),
            ("endpoint", "x"),
            ("timeout", "y"),
        ]);
        let options = options.unwrap();
        assert_eq!(options.source, Source::parse("a.wasm"));
        assert_eq!(options.grants.http.len(), 2);
        assert_eq!((options.bounds.engine.memory, options.concurrency), (8 << 20, 1));
        assert_eq!(options.bounds.deadline.as_secs(), 2);
        assert_eq!((options.dirs[0].guest.as_str(), options.dirs[0].writable), ("/data", true));
        let passed: Vec<&str> = options.metadata.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(passed, ["endpoint", "timeout"]);
    }

    #[test]
    fn mistakes_are_told_by_field() {
        for (field, value, said) in [
            ("grants.htp", "*", "did you mean http?"),
            ("grants.invoke", "*", "there are http, connect, state"),
            ("grants.http", "ftp://a", "grants.http"),
            ("limits.memry", "1", "did you mean memory?"),
            ("limits.memory", "much", "expected bytes"),
            ("limits.timeout", "0s", "more than nothing"),
            ("limits.concurrency", "0", "from 1 to 256"),
            ("dirs", "/nowhere/at/all", "is no folder"),
        ] {
            let error = read(&[("module", "a.wasm"), (field, value)]).err().unwrap();
            assert!(error.contains(said) && error.contains(field), "{error}");
        }
        assert!(read(&[]).err().unwrap().contains("module"));
    }
}
