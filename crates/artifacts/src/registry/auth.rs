//! Who a client is, and what it may do.
//!
//! A client shows a name and a password, or a token that it got for them ([`token`]). What it may do is looked up for
//! each request, also with a token: a rule or a user that is taken away is gone at once. Without a rule for it nothing is
//! allowed.
//!
//! | file | subject |
//! |---|---|
//! | [`htpasswd`] | users and their passwords |
//! | [`permissions`] | rules: who may do what where |
//! | `token` | tokens as Docker's clients use them |
//! | `watched` | files that may change while the registry runs |

use super::counters::Counter;
use super::name::Repository;
use super::refusal::{Challenge, Refusal};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use htpasswd::Users;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use permissions::Permissions;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use token::{Access, Key, Token};
use watched::Watched;

pub mod htpasswd;
pub mod permissions;
mod token;
mod watched;

pub use watched::FileError;

/// How long a token is good.
pub(super) const TOKEN_LIFE: std::time::Duration = std::time::Duration::from_secs(300);

/// Bytes of a request's `Authorization` that are looked at.
const MAX_AUTHORIZATION: usize = 16 << 10;

/// Names the file of users, in the registry's folder.
const USERS_FILE: &str = "users-file";

/// What a token is for that is for lists of what is in all repositories.
pub(super) const CATALOG: &str = "registry:catalog:*";

/// Something to do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Read everything.
    Pull,
    /// Write blobs, manifests and tags.
    Push,
    /// Delete them.
    Delete,
}

/// What clients may do that do not log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anonymous {
    /// Nothing.
    #[default]
    Nothing,
    /// Read everything.
    Pull,
    /// Read and write everything.
    Push,
    /// Also delete.
    Everything,
}

/// What is asked for a client's name and rights.
pub struct Auth {
    users: Option<Watched<Users>>,
    permissions: Option<Watched<Permissions>>,
    anonymous: Anonymous,
    key: Key,
    passwords: htpasswd::Checked,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// `None` for one that did not log in.
    pub(super) user: Option<String>,
    /// What its token is for; `None` where it has none.
    scope: Option<Scope>,
    /// A fingerprint of the password that it logged in with.
    password: Option<String>,
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    access: Vec<Access>,
    /// Lists of what is in all repositories.
    catalog: bool,
}

fn open_users(path: &Path) -> Result<Watched<Users>, FileError> {
    Watched::open(path).map_err(|error| match path.exists() {
        true => error,
        false => FileError {
            reason: format!(
                "{}; `dhow registry user add NAME --users {}` makes it",
                error.reason,
                path.display()
            ),
            ..error
        },
    })
}

/// A token of the registry in this folder, for a user and scopes such as `repository:orders:pull,push`, good for so long.
/// What the user may not do any more by then, the token may not either. The error says which scope is none, or that the
/// registry has no such user.
pub fn mint(
    folder: &Path,
    user: &str,
    scopes: &[String],
    life: std::time::Duration,
) -> Result<String, String> {
    let mut access = Vec::new();
    for scope in scopes {
        let parsed = Access::parse(scope).filter(|access| !access.actions.is_empty());
        let parsed = parsed.filter(|access| access.name.parse::<Repository>().is_ok());
        access.push(parsed.ok_or_else(|| {
            format!("{scope:?} is no scope; expected repository:NAME:ACTIONS with pull, push or delete")
        })?);
    }
    let path = folder.join("token.key");
    if !path.is_file() {
        return Err(format!("{} is no folder of a registry; name it with --data-dir", folder.display()));
    }
    if let Some(file) = users_of(folder) {
        let users = Users::open(&file).map_err(|error| error.to_string())?;
        if !users.names().any(|name| name == user) {
            let file = file.display();
            return Err(format!(
                "{file} has no user {user:?}, and the registry knows no other users; \
                 `dhow registry user list --users {file}` prints them"
            ));
        }
    }
    let key = Key::open(&path).map_err(|error| error.to_string())?;
    Ok(key.issue(&Token::new(Some(user), access, SystemTime::now(), life)))
}

/// Remembers in the folder of a registry that is served where its users are, for whoever mints tokens.
pub fn remember_users(folder: &Path, users: Option<&Path>) -> Result<(), FileError> {
    let path = folder.join(USERS_FILE);
    let failed =
        |error: std::io::Error| FileError { path: path.clone(), line: None, reason: error.to_string() };
    match users {
        Some(users) => {
            let users = std::path::absolute(users).map_err(failed)?;
            std::fs::write(&path, users.as_os_str().as_bytes()).map_err(failed)
        }
        None => match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
    }
}

/// Where the users of the registry in this folder are, if it has a file of them.
fn users_of(folder: &Path) -> Option<PathBuf> {
    let path = std::fs::read(folder.join(USERS_FILE)).ok()?;
    Some(PathBuf::from(OsString::from_vec(path)))
}

// === impl Auth ===

impl Auth {
    /// Reads the files of users and of permissions, and reads or makes the key of tokens in the registry's folder.
    pub fn open(
        folder: &Path,
        users: Option<&Path>,
        permissions: Option<&Path>,
        anonymous: Anonymous,
    ) -> Result<Auth, FileError> {
        Ok(Auth {
            users: users.map(open_users).transpose()?,
            permissions: permissions.map(Watched::open).transpose()?,
            anonymous,
            key: Key::open(&folder.join("token.key"))?,
            passwords: htpasswd::Checked::default(),
        })
    }

    /// Who sends this request.
    pub(super) async fn identify(&self, headers: &HeaderMap, failed: &Counter) -> Result<Identity, Refusal> {
        let Some(value) = headers.get(AUTHORIZATION) else { return Ok(Identity::anonymous()) };
        let wrong = || {
            failed.add(1);
            Refusal::WrongPassword
        };
        let value = value.to_str().ok().filter(|value| value.len() <= MAX_AUTHORIZATION).ok_or_else(wrong)?;
        let (scheme, rest) = value.split_once(' ').unwrap_or((value, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let token = self.key.read(rest.trim(), SystemTime::now());
            // One that expired is no attack; the client gets another one.
            let token = token.filter(|token| self.is_in_force(token));
            let token = token.ok_or(Refusal::Unauthenticated(Challenge::Token(String::new())))?;
            let scope = Scope { access: token.access, catalog: token.catalog };
            return Ok(Identity { user: token.user, scope: Some(scope), password: None });
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(wrong());
        }
        let decoded =
            BASE64_STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (name, password) = decoded.as_deref().and_then(|text| text.split_once(':')).ok_or_else(wrong)?;
        self.log_in(name, password).await?.ok_or_else(wrong)
    }

    /// Whether a token's user is still there, with the password that the token was given for. One that the registry's
    /// owner made was given for none.
    fn is_in_force(&self, token: &Token) -> bool {
        let Some(user) = &token.user else { return true };
        let users = self.users.as_ref().map(Watched::get);
        let print = users.and_then(|users| users.print(user, &self.key));
        print.is_some_and(|print| token.password.as_ref().is_none_or(|said| *said == print))
    }

    /// Who has this name and password; `None` for nobody. Where there are no users, everybody is anonymous.
    pub(super) async fn log_in(&self, name: &str, password: &str) -> Result<Option<Identity>, Refusal> {
        let Some(users) = &self.users else { return Ok(Some(Identity::anonymous())) };
        // Clients that ask without credentials may send an empty name.
        if name.is_empty() && password.is_empty() {
            return Ok(Some(Identity::anonymous()));
        }
        let users = users.get();
        match self.passwords.check(&users, &self.key, name, password).await? {
            true => {
                let password = users.print(name, &self.key);
                Ok(Some(Identity { user: Some(name.to_owned()), scope: None, password }))
            }
            false => Ok(None),
        }
    }

    /// Lets an action happen, or says what the client needs for it. Some clients go on with the token that they got first,
    /// such as ORAS' SDK: one that does not only read is told of all actions at once, and its token is for those of them
    /// that it may do.
    pub(super) fn allow(
        &self,
        identity: &Identity,
        repository: &Repository,
        action: Action,
        only_reads: bool,
    ) -> Result<(), Refusal> {
        let allowed = self.is_allowed(identity.user.as_deref(), repository, action);
        let in_scope = identity.scope.as_ref().is_none_or(|scope| {
            scope
                .access
                .iter()
                .any(|access| access.name == repository.as_str() && access.actions.contains(&action))
        });
        if allowed && in_scope {
            return Ok(());
        }
        let could_log_in = identity.user.is_none() && self.users.is_some();
        if could_log_in || (allowed && !in_scope) {
            let actions = if only_reads { "pull" } else { "pull,push,delete" };
            let scope = format!("repository:{repository}:{actions}");
            return Err(Refusal::Unauthenticated(Challenge::Token(scope)));
        }
        Err(Refusal::Denied {
            who: identity.to_string(),
            action: action.verb(),
            what: repository.to_string(),
        })
    }

    /// What the rules say.
    pub(super) fn is_allowed(&self, user: Option<&str>, repository: &Repository, action: Action) -> bool {
        if self.anonymous.allows(action) {
            return true;
        }
        match &self.permissions {
            Some(permissions) => permissions.get().allow(user, repository, action),
            // Without rules, whoever has a password may do everything.
            None => user.is_some(),
        }
    }

    /// Whether clients can log in.
    pub(super) fn has_users(&self) -> bool {
        self.users.is_some()
    }

    /// Whether somebody may see anything at all without logging in.
    pub(super) fn is_open(&self) -> bool {
        let rules = || self.permissions.as_ref().is_some_and(|rules| rules.get().has_anonymous());
        self.anonymous >= Anonymous::Pull || rules()
    }

    /// A token for as much of the scopes as the client may do; each scope as in `repository:orders:pull,push`.
    pub(super) fn token(&self, identity: &Identity, scopes: &[String]) -> String {
        let user = identity.user.as_deref();
        let asked = || scopes.iter().flat_map(|scopes| scopes.split(' ')).take(token::MAX_SCOPES);
        // Whoever may list nothing is told so then, and sees in a list what it may see.
        let catalog = asked().any(|scope| scope == CATALOG);
        let access = asked().filter_map(Access::parse).filter_map(|access| {
            let repository: Repository = access.name.parse().ok()?;
            let allowed = |action: &Action| self.is_allowed(user, &repository, *action);
            let actions: Vec<Action> = access.actions.into_iter().filter(allowed).collect();
            (!actions.is_empty()).then_some(Access { name: access.name, actions })
        });
        let token = Token::new(user, access.collect(), SystemTime::now(), TOKEN_LIFE);
        self.key.issue(&Token { catalog, password: identity.password.clone(), ..token })
    }
}

// === impl Identity ===

impl Identity {
    pub(super) fn anonymous() -> Identity {
        Identity { user: None, scope: None, password: None }
    }

    /// Whether it shows a token instead of a password.
    pub(super) fn has_token(&self) -> bool {
        self.scope.is_some()
    }

    /// Whether it is not kept from lists of what is in all repositories: a token has to be for them.
    pub(super) fn may_list(&self) -> bool {
        self.scope.as_ref().is_none_or(|scope| scope.catalog)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or("who is not logged in"))
    }
}

// === impl Action ===

impl Action {
    pub(super) fn verb(self) -> &'static str {
        match self {
            Action::Pull => "pull from",
            Action::Push => "push to",
            Action::Delete => "delete from",
        }
    }
}

// === impl Anonymous ===

impl Anonymous {
    fn allows(self, action: Action) -> bool {
        self >= match action {
            Action::Pull => Anonymous::Pull,
            Action::Push => Anonymous::Push,
            Action::Delete => Anonymous::Everything,
        }
    }
}
