//! `dhow registry user`: a file of names and passwords, in the form of Apache's `htpasswd -B`.

use crate::error::{Context, Error};
use crate::{process, say};
use clap::{Args, Subcommand};
use dhow_artifacts::registry::auth::htpasswd::Users;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Add, remove and list who may log in
#[derive(Args)]
#[command(after_help = "\
A registry that runs sees a change at once. The file is that of Apache's htpasswd with bcrypt
(htpasswd -B).

EXAMPLES
  dhow registry user add alice --users users
  pass show registry/alice | dhow registry user add alice --users users --password-stdin
  dhow registry user list --users users
  dhow registry user remove alice --users users")]
pub(super) struct User {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a user, or give it another password
    Add(Add),
    /// Remove a user
    Remove(Remove),
    /// Print all names
    List(List),
}

#[derive(Args)]
struct File {
    /// File of names and passwords
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
}

#[derive(Args)]
struct Add {
    /// Name
    name: String,
    #[command(flatten)]
    file: File,
    /// Read the password from standard input, without asking
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Args)]
struct Remove {
    /// Name
    name: String,
    #[command(flatten)]
    file: File,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    file: File,
}

pub(super) fn execute(user: &User) -> Result<ExitCode, Error> {
    match &user.command {
        Command::Add(add) => {
            let path = &add.file.users;
            let mut users = Users::open(path)?;
            let password = password(add.password_stdin)?;
            users.set(&add.name, &password).map_err(Error::usage)?;
            users.write(path)?;
            say(format!("{} may log in, says {}", add.name, path.display()));
        }
        Command::Remove(remove) => {
            let path = &remove.file.users;
            let mut users = Users::open(path)?;
            if !users.remove(&remove.name) {
                return Err(Error::new(format!("{} has no user {:?}", path.display(), remove.name)));
            }
            users.write(path)?;
            say(format!("{} may not log in any more", remove.name));
        }
        Command::List(list) => {
            let mut out = std::io::stdout().lock();
            for name in Users::open(&list.file.users)?.names() {
                writeln!(out, "{name}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a password: from a terminal without showing it.
fn password(from_stdin: bool) -> Result<String, Error> {
    let stdin = std::io::stdin();
    if !from_stdin && !stdin.is_terminal() {
        return Err(Error::usage("there is no terminal to ask for a password on; use --password-stdin"));
    }
    let hidden = (!from_stdin).then(process::without_echo).transpose()?;
    if hidden.is_some() {
        let mut err = std::io::stderr();
        let _ = write!(err, "Password: ").and_then(|()| err.flush());
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if hidden.is_some() {
        say("");
    }
    read.context(|| "cannot read the password".to_owned())?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
