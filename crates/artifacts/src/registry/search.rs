//! Finding modules by what their tokens and interfaces say.

use super::Registry;
use super::catalogue::{Known, Names};
use super::examine::{Claims, Examination, Trust};
use super::name::Repository;
use crate::digest::Digest;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Modules of one page unless the question says otherwise.
const PAGE: usize = 50;

/// Modules of one page at most.
const MAX_PAGE: usize = 1000;

/// What is looked for. Everything that is said has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Words, each of which is in a name, a tag or an interface.
    pub text: String,
    /// A tag of its token.
    pub tag: Option<String>,
    /// A capability, under any of its names.
    pub capability: Option<String>,
    /// The key that signed it.
    pub issuer: Option<String>,
    /// Its name, as its token has it, or the last word of its repository.
    pub name: Option<String>,
    /// Its version, or else its tag, is in this range.
    pub version: Option<VersionReq>,
    /// Only in this repository.
    pub repository: Option<String>,
    /// Modules of a page; 0 for the usual number.
    pub limit: usize,
    /// Which page; 0 and 1 are the first.
    pub page: usize,
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QueryError(String);

/// A page of modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Modules of all pages.
    pub total: usize,
    /// Which page it is, from 1 on.
    pub page: usize,
    /// How many pages there are.
    pub pages: usize,
    /// Those of this page: by repository, newest first.
    pub modules: Vec<FoundModule>,
}

/// A module in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundModule {
    /// Where it is.
    pub repository: String,
    /// Tags that lead to it.
    pub tags: Vec<String>,
    /// Of its manifest.
    pub digest: Digest,
    /// When it was pushed, as `2026-11-21T21:40:31Z`.
    pub pushed: String,
    /// Whether its token holds now.
    pub holds: bool,
    /// Whether it has one.
    pub signed: bool,
    /// Why its token does not hold.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What its token says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    /// `module` or `component`.
    pub kind: String,
    /// How it talks with its host.
    pub abi: String,
    /// Interfaces or functions that it asks for.
    pub imports: Vec<String>,
    /// Interfaces or functions that it has.
    pub exports: Vec<String>,
}

// === impl Query ===

impl Query {
    /// Reads a question from the parameters of a URL, already unescaped. An unknown one is an error.
    pub fn read<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Query, QueryError> {
        const KNOWN: [&str; 9] =
            ["q", "tag", "capability", "issuer", "name", "version", "repository", "n", "page"];
        let mut query = Query::default();
        for (name, value) in parameters {
            let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
            let number = || {
                value.parse::<usize>().map_err(|_| QueryError(format!("{name}={value:?}: expected a number")))
            };
            match name {
                "q" => query.text = value.to_owned(),
                "tag" => query.tag = text(),
                "capability" => query.capability = text(),
                "issuer" => query.issuer = text(),
                "name" => query.name = text(),
                "repository" => query.repository = text(),
                "version" if value.is_empty() => {}
                "version" => {
                    let range = VersionReq::parse(value).map_err(|error| {
                        QueryError(format!("version={value:?} is no range such as ^1.2 or >=1, <3: {error}"))
                    })?;
                    query.version = Some(range);
                }
                "n" => query.limit = number()?,
                "page" => query.page = number()?,
                _ => {
                    let near = KNOWN.into_iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
                    return Err(QueryError(format!(
                        "unknown parameter {name:?}; did you mean {:?}? There are: {}",
                        near.unwrap_or_default(),
                        KNOWN.join(", ")
                    )));
                }
            }
        }
        Ok(query)
    }
}

// === impl Registry ===

impl Registry {
    /// The modules that somebody may see and that a question is about.
    pub(super) fn search(&self, query: &Query, may_see: impl Fn(&Repository) -> bool) -> Found {
        let capability = query.capability.as_deref().map(|name| self.examiner.capability(name));
        let words: Vec<String> = query.text.split_whitespace().map(str::to_lowercase).collect();
        let all = self.catalogue.read();
        let mut matches: Vec<(&Repository, Reverse<u64>, &Digest, &Names, &Examination)> = Vec::new();
        for (repository, names) in all.iter() {
            if query.repository.as_deref().is_some_and(|wanted| wanted != repository.as_str())
                || !may_see(repository)
            {
                continue;
            }
            for (digest, Known { pushed, module, .. }) in &names.manifests {
                let Some(module) = module.as_deref() else { continue };
                let asked = Asked { repository, names, digest, module };
                if asked.is_match(query, &words)
                    && capability.as_deref().is_none_or(|wanted| self.claims_capability(module, wanted))
                {
                    matches.push((repository, Reverse(*pushed), digest, names, module));
                }
            }
        }
        matches.sort_unstable_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
        let limit = match query.limit {
            0 => PAGE,
            limit => limit.min(MAX_PAGE),
        };
        let page = query.page.max(1);
        let now = SystemTime::now();
        let modules = matches.iter().skip((page - 1).saturating_mul(limit)).take(limit);
        let modules = modules.map(|(repository, Reverse(pushed), digest, names, module)| {
            found(repository, names, digest, *pushed, module, now)
        });
        Found { total: matches.len(), page, pages: matches.len().div_ceil(limit), modules: modules.collect() }
    }

    fn claims_capability(&self, module: &Examination, wanted: &str) -> bool {
        let claimed = module.claims.iter().flat_map(|claims| &claims.capabilities);
        claimed.into_iter().any(|name| name == wanted || self.examiner.capability(name) == wanted)
    }
}

/// A module that is asked whether it is meant.
struct Asked<'a> {
    repository: &'a Repository,
    names: &'a Names,
    digest: &'a Digest,
    module: &'a Examination,
}

// === impl Asked ===

impl Asked<'_> {
    fn is_match(&self, query: &Query, words: &[String]) -> bool {
        let claims = self.module.claims.as_ref();
        let is = |wanted: &Option<String>, found: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(found);
        let last_word = self.repository.as_str().rsplit('/').next().unwrap_or_default();
        is(&query.tag, &|tag| claims.is_some_and(|claims| claims.tags.iter().any(|found| found == tag)))
            && is(&query.issuer, &|issuer| claims.is_some_and(|claims| claims.issuer == issuer))
            && is(&query.name, &|name| {
                let claimed = claims.and_then(|claims| claims.name.as_deref());
                claimed == Some(name) || last_word == name || self.repository.as_str() == name
            })
            && query.version.as_ref().is_none_or(|range| self.is_in(range))
            && words.iter().all(|word| self.mentions(word))
    }

    /// The version of its token counts; one without has those of its tags.
    fn is_in(&self, range: &VersionReq) -> bool {
        let parse = |text: &str| Version::parse(text.strip_prefix('v').unwrap_or(text)).ok();
        let claimed = self.module.claims.as_ref().and_then(|claims| claims.version.as_deref());
        match claimed {
            Some(version) => parse(version).is_some_and(|version| range.matches(&version)),
            None => {
                let tags = self.names.tags_to(self.digest);
                tags.iter().filter_map(|tag| parse(tag)).any(|version| range.matches(&version))
            }
        }
    }

    fn mentions(&self, word: &str) -> bool {
        let has = |text: &str| text.to_lowercase().contains(word);
        let module = self.module;
        let in_claims = |claims: &Claims| {
            claims.name.as_deref().is_some_and(has)
                || claims.tags.iter().chain(&claims.capabilities).any(|text| has(text))
        };
        has(self.repository.as_str())
            || module.claims.as_ref().is_some_and(in_claims)
            || has(&module.abi)
            || module.imports.iter().chain(&module.exports).any(|text| has(text))
            || self.names.tags_to(self.digest).iter().any(|tag| has(tag))
    }
}

fn found(
    repository: &Repository,
    names: &Names,
    digest: &Digest,
    pushed: u64,
    module: &Examination,
    now: SystemTime,
) -> FoundModule {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut reason = module.reason.clone();
    // Time goes on after a push.
    let expired = module.claims.as_ref().and_then(|claims| claims.expires).filter(|expires| now >= *expires);
    if let (Some(expires), Trust::Verified) = (expired, module.trust) {
        reason = format!("its token expired {}", when(expires));
    }
    FoundModule {
        repository: repository.to_string(),
        tags: names.tags_to(digest),
        digest: digest.clone(),
        pushed: when(pushed),
        holds: module.trust == Trust::Verified && expired.is_none(),
        signed: module.claims.is_some(),
        reason,
        claims: module.claims.clone(),
        kind: module.kind.clone(),
        abi: module.abi.clone(),
        imports: module.imports.clone(),
        exports: module.exports.clone(),
    }
}

/// `2026-11-21T21:40:31Z`
pub(super) fn when(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // Years of five digits are no dates that people write.
        Some(time) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => format!("second {seconds} after 1970"),
    }
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn questions_are_read_or_refused_with_the_nearest_name() {
        let query = Query::read([("q", "a b"), ("tag", ""), ("version", "^1.2"), ("page", "3")]).unwrap();
        assert_eq!((query.text.as_str(), query.tag, query.page), ("a b", None, 3));
        assert!(query.version.is_some());
        let cases = [
            ("versions", "1", "did you mean \"version\""),
            ("version", "one", "is no range"),
            ("page", "-1", "expected a number"),
        ];
        for (name, value, said) in cases {
            let error = Query::read([(name, value)]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
