//! `dhow login` and `dhow logout`: credentials for registries, where Docker's and Podman's are.

use crate::client;
use crate::error::{Context, Error};
use crate::process;
use crate::registries::Registry;
use clap::Args;
use dhow_artifacts::client::Client;
use dhow_artifacts::client::error::RegistryError;
use dhow_artifacts::credentials::{self, Credentials, Kept, Secret};
use dhow_artifacts::reference::Reference;
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;

/// The longest password, in bytes; tokens of clouds are long.
const LONGEST: u64 = 64 << 10;

/// Log in to a registry
#[derive(Args)]
#[command(after_help = "\
The credentials are tried, and then kept where Docker and Podman look for theirs: in
$REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json or ~/.docker/config.json, or in the program that
this file names for the registry.

EXAMPLES
  dhow login ghcr.io --username me
  dhow login ghcr.io --username me --password-stdin < token.txt")]
pub(crate) struct Login {
    /// The registry
    #[arg(value_name = "HOST[:PORT]")]
    registry: String,
    /// The user; asked for when it is missing
    #[arg(long, short)]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    how: Registry,
}

/// Forget the credentials for a registry
#[derive(Args)]
pub(crate) struct Logout {
    /// The registry
    #[arg(value_name = "HOST[:PORT]")]
    registry: String,
}

pub(crate) fn login(args: &Login) -> Result<ExitCode, Error> {
    let registry = registry(&args.registry)?;
    let access = args.how.access();
    let file = file(access.places().login)?;
    let user = match &args.username {
        Some(user) => user.clone(),
        None => ask("Username: ", false)?,
    };
    if user.is_empty() || user.contains(':') {
        return Err(Error::usage("the user's name is empty or holds a colon, which registries cannot take"));
    }
    let password = Secret::new(match args.password_stdin {
        true => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut text);
            read.context(|| "cannot read the password from standard input".to_owned())?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        false => ask("Password: ", true)?,
    });
    if password.expose().is_empty() {
        return Err(Error::usage("the password is empty"));
    }
    let tried = Credentials::Password { user: user.clone(), password: password.clone() };
    let was_asked = client::runtime()?.block_on(async {
        let checked = Client::with_credentials(&registry, &access, tried)?.check().await;
        let was_asked = checked.map_err(|error| match error {
            RegistryError::Unauthorized { message, .. } => {
                let said = if message.is_empty() { String::new() } else { format!(" ({message})") };
                Error::new(format!("{registry} refuses this user and password{said}; nothing was stored"))
            }
            error => error.into(),
        })?;
        let kept = credentials::keep(&file, &registry, &user, &password).await?;
        Ok::<_, Error>((was_asked, kept))
    });
    let (was_asked, kept) = was_asked?;
    if !was_asked {
        crate::say(format_args!("{registry} lets everybody in: nobody knows whether the password is right"));
    }
    crate::say(format_args!("logged in to {registry} as {user}; {}", place(&kept)));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn logout(args: &Logout) -> Result<ExitCode, Error> {
    let registry = registry(&args.registry)?;
    let file = file(dhow_artifacts::access::Places::of_user().login)?;
    match client::runtime()?.block_on(credentials::forget(&file, &registry))? {
        Some(Kept::File(path)) => {
            crate::say(format_args!("logged out of {registry}; {} knows it no more", path.display()));
            Ok(ExitCode::SUCCESS)
        }
        Some(Kept::Program(program)) => {
            crate::say(format_args!(
                "logged out of {registry}; docker-credential-{program} knows it no more"
            ));
            Ok(ExitCode::SUCCESS)
        }
        None => Err(Error::new(format!("{} holds no credentials for {registry}", file.display()))),
    }
}

fn place(kept: &Kept) -> String {
    match kept {
        Kept::File(path) => format!(
            "the password is in {}, which only you can read and which is not encrypted",
            path.display()
        ),
        Kept::Program(program) => format!("docker-credential-{program} keeps the password"),
    }
}

/// The registry that a user means, also when a URL or a reference names it.
fn registry(text: &str) -> Result<String, Error> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    match format!("{host}/x").parse::<Reference>() {
        Ok(reference) => Ok(reference.registry().to_owned()),
        Err(_) => Err(Error::usage(format!(
            "{host:?} is no registry; expected a host, perhaps with a port, such as ghcr.io or localhost:5000"
        ))),
    }
}

fn file(path: Option<PathBuf>) -> Result<PathBuf, Error> {
    path.ok_or_else(|| {
        Error::new("there is no home folder for credentials; set REGISTRY_AUTH_FILE to a file")
    })
}

/// Asks a person; a secret is not shown while it is typed.
fn ask(prompt: &str, secret: bool) -> Result<String, Error> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage("there is no terminal to ask on; give --username and --password-stdin"));
    }
    let mut line = String::new();
    let read = {
        // Before the question: who types ahead is not shown, either.
        let quiet = secret.then(process::without_echo).transpose();
        let _quiet = quiet.context(|| "cannot switch the terminal's echo off".to_owned())?;
        eprint_prompt(prompt);
        stdin.lock().take(LONGEST).read_line(&mut line)
    };
    read.context(|| "cannot read from the terminal".to_owned())?;
    if secret {
        crate::say("");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn eprint_prompt(prompt: &str) {
    use std::io::Write;
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(prompt.as_bytes()).and_then(|()| err.flush());
}
