//! Input artifacts out of Git, by the program `git` of this machine.
//!
//! It sees no configuration of its user's, runs no hook, asks nobody, speaks with servers only, and has a deadline. Its
//! folder is inside the step's root: what a repository's links lead to is the step's business, as with all its files.

use super::config::Secrets;
use super::interest;
use super::place::{Git, SecretRef};
use super::repository::ArtifactError;
use base64::Engine;
use cap_std::fs::Dir;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// One call of the program.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// As much of what it says as a message holds.
const MAX_MESSAGE: u64 = 16 << 10;

/// What a workflow may speak with; not the files of this machine, nor programs of its own.
const PROTOCOLS: &str = "https:http:ssh:git";

/// A folder and how the program is called in it.
struct Checkout<'a> {
    folder: &'a Dir,
    /// A home with nothing in it but what is needed for this call.
    home: &'a Path,
    /// `-c NAME=VALUE`, without secrets.
    options: Vec<String>,
    /// Configuration that no list of processes shows.
    hidden: Vec<(String, String)>,
    ssh: Option<String>,
}

/// Puts what the repository has at a revision into a new folder at `path`.
pub(super) fn load(
    git: &Git,
    root: &Dir,
    path: &str,
    scratch: &Path,
    secrets: &Secrets,
) -> Result<(), ArtifactError> {
    let words = [&git.repo, &git.revision, &git.branch];
    if let Some(word) = words.into_iter().chain(&git.fetch).find(|word| word.starts_with('-')) {
        return Err(ArtifactError::Unsupported(format!("`git`: {word:?} is no name")));
    }
    let path = super::archive::relative(path);
    root.create_dir(&path)?;
    let folder = root.open_dir(&path)?;
    let home =
        tempfile::Builder::new().prefix(&format!("{}-git-", std::process::id())).tempdir_in(scratch)?;
    let mut checkout =
        Checkout { folder: &folder, home: home.path(), options: vec![], hidden: vec![], ssh: None };
    checkout.authenticate(git, secrets)?;
    let depth = git.depth.filter(|depth| *depth > 0).map(|depth| format!("--depth={depth}"));
    let mut clone = vec!["clone", "--quiet", "--template=", "--origin=origin"];
    clone.extend(depth.as_deref());
    clone.push(if git.single_branch { "--single-branch" } else { "--no-single-branch" });
    let branch = format!("--branch={}", git.branch);
    if !git.branch.is_empty() {
        clone.push(&branch);
    }
    if !git.disable_submodules {
        clone.push("--recurse-submodules");
    }
    clone.extend(["--", &git.repo, "."]);
    checkout.run(&clone)?;
    if !git.fetch.is_empty() {
        let mut fetch = vec!["fetch", "--quiet"];
        fetch.extend(depth.as_deref());
        fetch.push("origin");
        fetch.extend(git.fetch.iter().map(String::as_str));
        checkout.run(&fetch)?;
    }
    if !git.revision.is_empty() {
        checkout.run(&["checkout", "--quiet", &git.revision, "--"])?;
        if !git.disable_submodules {
            checkout.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--force"])?;
        }
    }
    Ok(())
}

// === impl Checkout ===

impl Checkout<'_> {
    fn authenticate(&mut self, git: &Git, secrets: &Secrets) -> Result<(), ArtifactError> {
        let secret = |wanted: &Option<SecretRef>| match wanted {
            Some(wanted) => secrets.text(wanted),
            None => Ok(None),
        };
        let (name, password) = (secret(&git.username_secret)?, secret(&git.password_secret)?);
        if name.is_some() || password.is_some() {
            let (name, password) = (name.unwrap_or_default(), password.unwrap_or_default());
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
            // For that server only, wherever it may lead.
            let origin = url::Url::parse(&git.repo).map(|url| url.origin().ascii_serialization());
            let origin = origin.map_err(|_| {
                let what = "`git`: a password is for a repository with an https:// or http:// URL";
                ArtifactError::Unsupported(what.to_owned())
            })?;
            let header = format!("Authorization: Basic {text}");
            self.hidden.push((format!("http.{origin}/.extraHeader"), header));
        }
        if git.insecure_skip_tls {
            self.options.push("http.sslVerify=false".to_owned());
        }
        if let Some(key) = secret(&git.ssh_private_key_secret)? {
            let file = self.home.join("key");
            let mut options = fs::OpenOptions::new();
            let mut written = options.write(true).create_new(true).mode(0o600).open(&file)?;
            written.write_all(key.as_bytes())?;
            written.write_all(b"\n")?;
            let hosts = match git.insecure_ignore_host_key {
                true => "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
                false => "-o StrictHostKeyChecking=yes",
            };
            let file = file.display();
            self.ssh = Some(format!("ssh -i '{file}' -o IdentitiesOnly=yes -o BatchMode=yes {hosts}"));
        }
        Ok(())
    }

    fn run(&self, args: &[&str]) -> Result<(), ArtifactError> {
        let mut command = Command::new("git");
        for option in
            ["core.hooksPath=/dev/null", "credential.helper=", "gc.auto=0", "advice.detachedHead=false"]
        {
            command.args(["-c", option]);
        }
        for option in &self.options {
            command.args(["-c", option]);
        }
        command
            .args(args)
            // The folder stays what it is, whatever becomes of its name.
            .current_dir(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_SSH_COMMAND", self.ssh.as_deref().unwrap_or("ssh -o BatchMode=yes"))
            .env("GIT_CONFIG_COUNT", self.hidden.len().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        for (number, (name, value)) in self.hidden.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                ArtifactError::Unsupported("the program `git` is not installed on this machine".to_owned())
            }
            _ => ArtifactError::Io(error),
        };
        let mut child = command.spawn().map_err(failed)?;
        let said = child.stderr.take();
        let said = std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut said) = said {
                let _ = (&mut said).take(MAX_MESSAGE).read_to_end(&mut text);
                // Whoever cannot say all of it waits for ever.
                let _ = std::io::copy(&mut said, &mut std::io::sink());
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        let status = ended(&mut child)?;
        let said = said.join().unwrap_or_default();
        match status {
            Some(status) if status.success() => Ok(()),
            Some(_) => Err(said_of(args, &said)),
            None => {
                Err(ArtifactError::Unavailable(format!("`git {}` took longer than {DEADLINE:?}", word(args))))
            }
        }
    }
}

/// Waits for its end; none if it had to be ended.
fn ended(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline || interest::is_lost() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn word<'a>(args: &[&'a str]) -> &'a str {
    args.first().copied().unwrap_or_default()
}

/// What the program says, as an error; what the network is to blame for may be tried again.
fn said_of(args: &[&str], said: &str) -> ArtifactError {
    let line =
        said.lines().map(str::trim).filter(|line| !line.is_empty()).find(|line| {
            line.starts_with("fatal:") || line.starts_with("error:") || line.contains("pathspec")
        });
    let line = line.or_else(|| said.lines().last()).unwrap_or("it says nothing");
    let what = format!(
        "`git {}`: {}",
        word(args),
        line.chars().filter(|c| !c.is_control()).take(300).collect::<String>()
    );
    const NETWORK: [&str; 5] =
        ["Could not resolve host", "Connection refused", "Connection timed out", "early EOF", "hung up"];
    match NETWORK.iter().any(|sign| said.contains(sign)) {
        true => ArtifactError::Unavailable(what),
        false => ArtifactError::Refused(what),
    }
}
