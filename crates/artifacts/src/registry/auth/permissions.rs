//! Rules that say who may do what in which repositories.
//!
//! ```toml
//! [groups]
//! developers = ["alice", "bob"]
//!
//! [[allow]]
//! groups = ["developers"]
//! repositories = ["apps/**"]
//! actions = ["pull", "push"]
//!
//! [[allow]]
//! users = ["*"]                  # everybody who logged in
//! anonymous = true               # and everybody who did not
//! repositories = ["public/*"]
//! actions = ["pull"]
//! ```
//!
//! In a pattern `*` stands for anything within a word between two `/`, and `**` for any number of words.

use super::Action;
use super::watched::{Content, FileError};
use crate::registry::name::Repository;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// All rules. Nothing is allowed that none of them allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    #[serde(default)]
    groups: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    allow: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    anonymous: bool,
    repositories: Vec<String>,
    actions: Vec<Action>,
}

// === impl Permissions ===

impl Content for Permissions {
    fn read(text: &str) -> Result<Permissions, (Option<usize>, String)> {
        let permissions: Permissions = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map(|span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            (line, error.message().to_owned())
        })?;
        for rule in &permissions.allow {
            if let Some(group) = rule.groups.iter().find(|group| !permissions.groups.contains_key(*group)) {
                let near =
                    permissions.groups.keys().min_by_key(|known| strsim::damerau_levenshtein(known, group));
                let near = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
                return Err((None, format!("a rule names the group {group:?}, which there is not{near}")));
            }
            if rule.users.is_empty() && rule.groups.is_empty() && !rule.anonymous {
                return Err((
                    None,
                    "a rule is for nobody; give it users, groups or anonymous = true".to_owned(),
                ));
            }
            if rule.repositories.is_empty() || rule.actions.is_empty() {
                return Err((None, "a rule has no repositories, or no actions".to_owned()));
            }
        }
        Ok(permissions)
    }
}

impl Permissions {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Permissions, FileError> {
        let error = |line, reason| FileError { path: path.to_owned(), line, reason };
        let text = std::fs::read_to_string(path).map_err(|wrong| error(None, wrong.to_string()))?;
        Permissions::read(&text).map_err(|(line, reason)| error(line, reason))
    }

    pub(super) fn allow(&self, user: Option<&str>, repository: &Repository, action: Action) -> bool {
        self.allow.iter().any(|rule| {
            rule.actions.contains(&action)
                && self.is_for(rule, user)
                && rule.repositories.iter().any(|pattern| is_match(pattern, repository.as_str()))
        })
    }

    pub(super) fn has_anonymous(&self) -> bool {
        self.allow.iter().any(|rule| rule.anonymous)
    }

    fn is_for(&self, rule: &Rule, user: Option<&str>) -> bool {
        let Some(user) = user else { return rule.anonymous };
        let is_member = |group: &String| {
            self.groups.get(group).is_some_and(|members| members.iter().any(|member| member == user))
        };
        rule.anonymous
            || rule.users.iter().any(|name| name == "*" || name == user)
            || rule.groups.iter().any(is_member)
    }
}

fn is_match(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    words_match(&pattern, &name)
}

fn words_match(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            (0..=name.len()).any(|skipped| name.get(skipped..).is_some_and(|name| words_match(rest, name)))
        }
        (Some((word, pattern)), Some((found, name))) => {
            word_matches(word, found) && words_match(pattern, name)
        }
        _ => false,
    }
}

fn word_matches(pattern: &str, word: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == word };
    let Some(word) = word.strip_prefix(begin) else { return false };
    (0..=word.len()).any(|skipped| word.get(skipped..).is_some_and(|word| word_matches(rest, word)))
}

#[cfg(test)]
mod tests {
    use super::super::Action::{self, Delete, Pull, Push};
    use super::{Content, Permissions, is_match};

    const RULES: &str = r#"
        [groups]
        developers = ["alice", "bob"]
        [[allow]]
        groups = ["developers"]
        repositories = ["apps/**"]
        actions = ["pull", "push"]
        [[allow]]
        users = ["carol"]
        repositories = ["**"]
        actions = ["delete"]
        [[allow]]
        anonymous = true
        repositories = ["public/*"]
        actions = ["pull"]
    "#;

    #[test]
    fn rules_allow_what_they_name_and_nothing_else() {
        let rules = Permissions::read(RULES).unwrap();
        let cases: [(Option<&str>, &str, Action, bool); 10] = [
            (Some("alice"), "apps/shop/front", Push, true),
            (Some("alice"), "apps", Push, true),
            (Some("alice"), "application", Push, false),
            (Some("alice"), "apps/shop", Delete, false),
            (Some("carol"), "apps/shop", Delete, true),
            (Some("carol"), "apps/shop", Pull, false),
            (Some("developers"), "apps/shop", Pull, false),
            (None, "public/a", Pull, true),
            (None, "public/a/b", Pull, false),
            (None, "apps/shop", Pull, false),
        ];
        for (user, repository, action, allowed) in cases {
            let found = rules.allow(user, &repository.parse().unwrap(), action);
            assert_eq!(found, allowed, "{user:?} {repository} {action:?}");
        }
    }

    #[test]
    fn patterns_are_by_words() {
        let cases = [
            ("a", "a", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c", false),
            ("team-*/x", "team-one/x", true),
            ("*-x-*", "a-x-b", true),
            ("*-x-*", "a-y-b", false),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(is_match(pattern, name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let cases = [
            ("\n[[allow]]\nuser = [\"a\"]", Some(3), "unknown field `user`"),
            (
                "[[allow]]\nusers = [\"a\"]\nrepositories = [\"**\"]\nactions = [\"read\"]",
                Some(4),
                "unknown variant",
            ),
            (
                "[groups]\nteam = []\n[[allow]]\ngroups = [\"teams\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]",
                None,
                "did you mean \"team\"",
            ),
            ("[[allow]]\nrepositories = [\"**\"]\nactions = [\"pull\"]", None, "for nobody"),
        ];
        for (text, line, said) in cases {
            let (found, reason) = Permissions::read(text).unwrap_err();
            assert!(reason.contains(said) && found == line, "{found:?} {reason}");
        }
    }
}
