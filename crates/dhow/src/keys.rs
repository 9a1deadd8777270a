//! `dhow keys`: keys that sign modules, and tokens by which one key vouches for another.
//!
//! A key is a file `<name>.nk` in the folder of keys; commands name it by that name, or by the path of any key file.

use crate::error::{Context, Error};
use crate::{folders, text};
use clap::{Args, Subcommand};
use dhow_claims::token::Token;
use dhow_claims::{Claims, KeyPair, PublicKey, Role, Signers, Subject};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Keys that sign modules, and who vouches for whom
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow keys new account                       makes ~/.config/dhow/keys/account.nk
  dhow keys new operator --name acme
  dhow keys list
  dhow keys show account                      its public key; with --seed, the secret
  dhow keys vouch account --by acme >> trust  a line for a trust store")]
pub(crate) struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new key
    New(New),
    /// List the keys, with their public keys
    List(List),
    /// Print the public key of a key
    Show(Show),
    /// Print a token by which a key vouches for an account or another operator
    Vouch(Vouch),
}

/// Where the keys are.
#[derive(Args)]
pub(crate) struct Folder {
    /// Folder of the keys [default: ~/.config/dhow/keys]
    #[arg(long, value_name = "DIR", env = "DHOW_KEYS", hide_env_values = true)]
    keys: Option<PathBuf>,
}

#[derive(Args)]
struct New {
    /// operator, account, module, user, server, cluster or service
    #[arg(value_name = "KIND")]
    role: String,
    /// What to call it [default: its kind]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    folder: Folder,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    folder: Folder,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Show {
    /// Name or file of the key
    #[arg(value_name = "KEY")]
    key: String,
    /// Print the seed: whoever has it can sign in its name
    #[arg(long)]
    seed: bool,
    #[command(flatten)]
    folder: Folder,
    /// Print JSON
    #[arg(long, conflicts_with = "seed")]
    json: bool,
}

#[derive(Args)]
struct Vouch {
    /// Who is vouched for: name or file of a key, or a public key
    #[arg(value_name = "KEY")]
    subject: String,
    /// Who vouches: name or file of an operator's key
    #[arg(long, value_name = "KEY")]
    by: String,
    /// Another public key that may sign in the name of the subject (repeatable)
    #[arg(long = "signer", value_name = "PUBLIC KEY")]
    signers: Vec<PublicKey>,
    /// What people call the subject
    #[arg(long)]
    name: Option<String>,
    /// How long it holds, such as 90d [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    #[command(flatten)]
    folder: Folder,
}

pub(crate) fn execute(keys: &Keys) -> Result<ExitCode, Error> {
    match &keys.command {
        Command::New(new) => new.execute(),
        Command::List(list) => list.execute(),
        Command::Show(show) => show.execute(),
        Command::Vouch(vouch) => vouch.execute(),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The id of a token.
pub(crate) fn token_id() -> String {
    dhow_blocks::cloud_event::uuid()
}

// === impl Folder ===

impl Folder {
    fn path(&self) -> Result<PathBuf, Error> {
        let no_home = || Error::new("there is no home folder for keys; say where they are with --keys DIR");
        self.keys.clone().or_else(folders::keys).ok_or_else(no_home)
    }

    /// The file that a name or a path means.
    fn file(&self, key: &str) -> Result<PathBuf, Error> {
        if key.contains('/') || key.ends_with(".nk") {
            return Ok(PathBuf::from(key));
        }
        Ok(self.path()?.join(format!("{}.nk", checked_name(key)?)))
    }

    /// The key of that name or file.
    pub(crate) fn key(&self, key: &str) -> Result<KeyPair, Error> {
        let file = self.file(key)?;
        if !file.exists() {
            return Err(Error::new(format!(
                "there is no key {key:?} ({}); `dhow keys list` shows those that there are, and `dhow keys new` makes one",
                file.display()
            )));
        }
        Ok(KeyPair::read(&file)?)
    }

    /// The same, which is made if it is not there.
    pub(crate) fn key_or_new(&self, key: &str, role: Role) -> Result<KeyPair, Error> {
        let file = self.file(key)?;
        match file.exists() {
            true => Ok(KeyPair::read(&file)?.expect(role)?),
            false => make(&file, role),
        }
    }
}

fn make(file: &Path, role: Role) -> Result<KeyPair, Error> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        folders::make_private(folder)?;
    }
    let key = KeyPair::generate(role)?;
    key.write(file)?;
    crate::say(format_args!("made the key of {role} {}: {}", key.public_key(), file.display()));
    Ok(key)
}

fn checked_name(name: &str) -> Result<&str, Error> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(legal) {
        return Err(Error::usage(format!("{name:?} is no name for a key: use letters, digits, - _ and .")));
    }
    Ok(name)
}

// === impl New ===

impl New {
    fn execute(&self) -> Result<(), Error> {
        let role: Role = self.role.parse().map_err(|error| Error::usage(format!("{error}")))?;
        let name = self.name.clone().unwrap_or_else(|| role.to_string());
        let file = self.folder.path()?.join(format!("{}.nk", checked_name(&name)?));
        if file.exists() {
            return Err(Error::new(format!("{} is there already; choose another --name", file.display())));
        }
        let key = make(&file, role)?.public_key();
        let mut out = std::io::stdout().lock();
        match self.json {
            true => writeln!(
                out,
                "{}",
                json!({"name": name, "kind": role.to_string(), "publicKey": key.as_str(), "file": file})
            )?,
            false => writeln!(out, "{key}")?,
        }
        Ok(())
    }
}

// === impl List ===

impl List {
    fn execute(&self) -> Result<(), Error> {
        let folder = self.folder.path()?;
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            entries => Some(entries.context(|| format!("cannot read {}", folder.display()))?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry.context(|| format!("cannot read {}", folder.display()))?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".nk"));
            if let Some(name) = name {
                found.push((name.to_owned(), KeyPair::read(&path)));
            }
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        let mut out = std::io::stdout().lock();
        if self.json {
            let keys = found.iter().filter_map(|(name, key)| key.as_ref().ok().map(|key| (name, key)));
            let keys = keys.map(|(name, key)| {
                json!({"name": name, "kind": key.role().to_string(), "publicKey": key.public_key().as_str()})
            });
            writeln!(out, "{:#}", json!(keys.collect::<Vec<_>>()))?;
        } else {
            let mut rows = vec![["NAME".to_owned(), "KIND".to_owned(), "PUBLIC KEY".to_owned()]];
            let keys = found.iter().filter_map(|(name, key)| key.as_ref().ok().map(|key| (name, key)));
            rows.extend(
                keys.map(|(name, key)| [name.clone(), key.role().to_string(), key.public_key().to_string()]),
            );
            out.write_all(text::table(&rows).as_bytes())?;
        }
        for (_, key) in found {
            if let Err(error) = key {
                crate::say(format_args!("left out: {error}"));
            }
        }
        Ok(())
    }
}

// === impl Show ===

impl Show {
    fn execute(&self) -> Result<(), Error> {
        let key = self.folder.key(&self.key)?;
        let mut out = std::io::stdout().lock();
        match (self.seed, self.json) {
            (true, _) => writeln!(out, "{}", key.seed()?)?,
            (false, true) => writeln!(
                out,
                "{}",
                json!({"kind": key.role().to_string(), "publicKey": key.public_key().as_str()})
            )?,
            (false, false) => writeln!(out, "{}", key.public_key())?,
        }
        Ok(())
    }
}

// === impl Vouch ===

impl Vouch {
    fn execute(&self) -> Result<(), Error> {
        let by = self.folder.key(&self.by)?.expect(Role::Operator)?;
        let subject = match self.subject.parse::<PublicKey>() {
            Ok(key) => key,
            Err(_) => self.folder.key(&self.subject)?.public_key(),
        };
        let signers = Signers {
            name: self.name.clone(),
            valid_signers: self.signers.iter().map(PublicKey::to_string).collect(),
        };
        let about = match subject.role() {
            Role::Account => Subject::Account(signers),
            Role::Operator => Subject::Operator(signers),
            other => {
                return Err(Error::usage(format!(
                    "{subject} is the key of {other}; an operator vouches for accounts and operators"
                )));
            }
        };
        let claims = Claims {
            id: token_id(),
            subject: subject.to_string(),
            issued_at: now(),
            expires: self.expires.map(|time| now().saturating_add(time.as_secs())),
            about,
            ..Claims::default()
        };
        writeln!(std::io::stdout().lock(), "{}", Token::sign(claims, &by)?.text)?;
        Ok(())
    }
}
