//! `dhow registry`: a registry for modules and images, and the work on its folder.
//!
//! | file | subject |
//! |---|---|
//! | `registry/serve.rs` | `serve`: flags, listening, background work |
//! | `registry/bucket.rs` | a bucket of S3 as its storage |
//! | `registry/examine.rs` | what dhow knows about modules that are pushed |
//! | `registry/token.rs` | `token`: for programs that push or pull without a password |
//! | `registry/user.rs` | `user`: a file of names and passwords |
//!
//! Only one process has a registry's folder open: where that is one that serves, the other commands ask it to do the
//! work.

mod bucket;
mod examine;
mod serve;
mod token;
mod user;

use crate::error::Error;
use crate::{client, text};
use clap::{Args, Subcommand};
use dhow_artifacts::registry::auth::{Anonymous, Auth};
use dhow_artifacts::registry::collect::{CollectOptions, Collected};
use dhow_artifacts::registry::control::{self, Outcome, Work};
use dhow_artifacts::registry::scrub::Scrubbed;
use dhow_artifacts::registry::{OpenError, Options, Registry};
use dhow_resources::units::parse_duration;
use examine::Known;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Serve a registry for modules and images (OCI), and look after it
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow registry serve                          at 127.0.0.1:5000 for this machine, in .dhow/registry
  dhow registry user add alice --users users   asks for a password, and writes the file users
  dhow registry serve --addr 0.0.0.0:5000 --users users --tls-cert cert.pem --tls-key key.pem
  dhow registry gc                             removes what nobody refers to any more
  dhow registry scrub                          verifies everything that is stored
  dhow search --capability wasmcloud:keyvalue  which modules there are")]
pub(crate) struct RegistryCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Gc(Gc),
    Scrub(Scrub),
    Reindex(Reindex),
    Token(token::Token),
    User(user::User),
}

/// Which registry.
#[derive(Args, Debug)]
struct Folder {
    /// Folder of the registry
    #[arg(long, value_name = "DIR", default_value = ".dhow/registry")]
    data_dir: PathBuf,
    #[command(flatten)]
    storage: bucket::StorageArgs,
}

/// Remove content that no manifest refers to; safe beside pushes
#[derive(Args)]
struct Gc {
    #[command(flatten)]
    folder: Folder,
    /// Spare what is younger: a push brings its blobs before the manifest that refers to them
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    grace: Duration,
    /// Remove manifests that no tag leads to as well
    #[arg(long)]
    untagged: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Verify all stored content; ends with 1 if something is damaged or missing
#[derive(Args)]
struct Scrub {
    #[command(flatten)]
    folder: Folder,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Examine all modules again, as after a change of whom to trust
#[derive(Args)]
#[command(after_help = "A registry that runs knows whom to trust: then --trust is not looked at.")]
struct Reindex {
    #[command(flatten)]
    folder: Folder,
    /// Whom to trust, as with `dhow verify`
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
}

pub(crate) fn execute(registry: RegistryCommand) -> Result<ExitCode, Error> {
    match registry.command {
        Command::Serve(serve) => serve::execute(*serve),
        Command::Gc(gc) => gc.execute(),
        Command::Scrub(scrub) => scrub.execute(),
        Command::Reindex(reindex) => reindex.execute(),
        Command::Token(token) => token::execute(&token),
        Command::User(user) => user::execute(&user),
    }
}

/// Does work on a registry's folder, or has the process do it that has it open.
fn work(registry: &Folder, trust: Option<&Path>, work: Work) -> Result<Outcome, Error> {
    let folder = registry.data_dir.as_path();
    if !folder.join("registry.lock").is_file() {
        return Err(Error::new(format!(
            "{} is no folder of a registry; name it with --data-dir",
            folder.display()
        )));
    }
    let examiner = Arc::new(Known::new(trust)?);
    client::runtime()?.block_on(async {
        let auth = Auth::open(folder, None, None, Anonymous::Nothing)?;
        let storage = registry.storage.open().await?;
        let storage = storage.as_ref().map(|(name, storage)| (name.as_str(), Arc::clone(storage)));
        match Registry::open_in(storage, Options::new(folder), auth, examiner).await {
            Ok(registry) => Ok(registry.work(work).await),
            Err(OpenError::InUse { .. }) => control::ask(folder, work).await.map_err(|error| {
                Error::new(format!(
                    "the process that has the registry in {} open does not answer: {error}; try again when it runs, \
                     or when it has stopped",
                    folder.display()
                ))
            }),
            Err(error) => Err(error.into()),
        }
    })
}

fn failed(outcome: Outcome) -> Error {
    Error::new(match outcome {
        Outcome::Failed(reason) => reason,
        _ => "the registry that runs is of another version of dhow".to_owned(),
    })
}

// === impl Gc ===

impl Gc {
    fn execute(&self) -> Result<ExitCode, Error> {
        let options = CollectOptions { grace: self.grace, untagged: self.untagged, dry_run: self.dry_run };
        let outcome = work(&self.folder, None, Work::Collect(options))?;
        let Outcome::Collected(collected) = outcome else { return Err(failed(outcome)) };
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", json!(collected))?;
        } else {
            writeln!(out, "{}", said(&collected, self.dry_run))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn said(collected: &Collected, dry_run: bool) -> String {
    let Collected { manifests, links, blobs, bytes, uploads } = collected;
    let done = if dry_run { "would remove" } else { "removed" };
    format!(
        "{done} {blobs} blobs ({}), {manifests} manifests, {links} blobs of repositories, {uploads} uploads",
        text::size(*bytes)
    )
}

// === impl Scrub ===

impl Scrub {
    fn execute(&self) -> Result<ExitCode, Error> {
        let outcome = work(&self.folder, None, Work::Scrub)?;
        let Outcome::Scrubbed(scrubbed) = outcome else { return Err(failed(outcome)) };
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", json!(scrubbed))?;
        } else {
            for finding in &scrubbed.findings {
                writeln!(out, "{finding}")?;
            }
            let Scrubbed { blobs, damaged, missing, .. } = &scrubbed;
            writeln!(out, "{blobs} blobs verified: {damaged} damaged, {missing} missing")?;
        }
        Ok(if scrubbed.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

// === impl Reindex ===

impl Reindex {
    fn execute(&self) -> Result<ExitCode, Error> {
        let outcome = work(&self.folder, self.trust.as_deref(), Work::Reindex)?;
        let Outcome::Reindexed(count) = outcome else { return Err(failed(outcome)) };
        writeln!(std::io::stdout().lock(), "{count} modules examined")?;
        Ok(ExitCode::SUCCESS)
    }
}
