//! `dhow registry token`: a token for a program that is not to have a password.

use crate::error::Error;
use clap::Args;
use dhow_artifacts::registry::auth;
use dhow_resources::units::parse_duration;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A token is good for no longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Print a token with which a program may do some of what a user may do
#[derive(Args)]
#[command(after_help = "\
Whoever has the token shows it as `Authorization: Bearer TOKEN`. It is for the repositories that it
names, for as long as it says, and never for more than its user may do: who is removed, or loses a
rule, loses it for the token, too. It cannot be taken back alone; removing token.key in the
registry's folder takes back all.

EXAMPLES
  dhow registry token --user ci --scope repository:apps/hello:pull,push --life 1h")]
pub(super) struct Token {
    /// Folder of the registry
    #[arg(long, value_name = "DIR", default_value = ".dhow/registry")]
    data_dir: PathBuf,
    /// Whose rights it has
    #[arg(long, value_name = "NAME")]
    user: String,
    /// What it is for: repository:NAME:ACTIONS, with pull, push and delete (repeatable)
    #[arg(long, value_name = "SCOPE", required = true)]
    scope: Vec<String>,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    life: Duration,
}

pub(super) fn execute(token: &Token) -> Result<ExitCode, Error> {
    if token.life.is_zero() || token.life > LONGEST {
        return Err(Error::usage("--life: expected at least a second and at most 8784h, which is a year"));
    }
    let minted = auth::mint(&token.data_dir, &token.user, &token.scope, token.life);
    writeln!(std::io::stdout().lock(), "{}", minted.map_err(Error::usage)?)?;
    Ok(ExitCode::SUCCESS)
}
