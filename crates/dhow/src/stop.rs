//! `dhow stop`: asks a host to finish, and waits until its process has ended.

use crate::client;
use crate::error::{Context, Error};
use crate::hosts::{self, HostInfo};
use crate::process::Process;
use clap::Args;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two looks at the list.
const LOOK: Duration = Duration::from_millis(20);

/// A host drains for at most 30 seconds; a little more for closing its providers.
const PATIENCE: Duration = Duration::from_secs(35);

/// Stop a running host: it finishes the requests under way, for at most 30 seconds
#[derive(Args, Default)]
pub(crate) struct Stop {
    /// Which host, by name or pid (see `dhow ps`); needed only if several are running
    #[arg(conflicts_with = "all")]
    host: Option<String>,
    /// The host beside this app (repeatable)
    #[arg(long, short = 'a', value_name = "ID", conflicts_with_all = ["all", "host"])]
    app_id: Vec<String>,
    /// The hosts beside the apps of this dapr.yaml, or of the one in this folder
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with_all = ["all", "host", "app_id"])]
    run_file: Option<PathBuf>,
    /// All hosts of this user
    #[arg(long)]
    all: bool,
    /// Do not ask: kill the process. Requests under way are lost; what was stored stays stored
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Stop {
    /// Stops the host of this name or pid.
    pub(crate) fn host(host: String) -> Stop {
        Stop { host: Some(host), ..Stop::default() }
    }
}

pub(crate) fn execute(stop: &Stop) -> Result<ExitCode, Error> {
    let app_ids = match &stop.run_file {
        Some(file) => {
            let apps = crate::run::apps_of(file)?;
            apps.into_iter().map(|app| app.app_id).collect()
        }
        None => stop.app_id.clone(),
    };
    let hosts = match (stop.all, app_ids.as_slice()) {
        (true, _) => hosts::list()?,
        (false, []) => vec![hosts::select(stop.host.as_deref())?],
        (false, app_ids) => {
            let runtime = client::runtime()?;
            let hosts = app_ids.iter().map(|app_id| runtime.block_on(client::host_of(app_id, None)));
            match &stop.run_file {
                // Some may have ended by themselves.
                Some(file) => {
                    let hosts: Vec<_> = hosts.filter_map(Result::ok).collect();
                    if hosts.is_empty() {
                        return Err(Error::new(format!("no app of {} is running", file.display())));
                    }
                    hosts
                }
                None => hosts.collect::<Result<_, _>>()?,
            }
        }
    };
    // All are asked before the first is waited for, so that they drain at the same time.
    let mut stopping = Vec::new();
    let mut failure = None;
    for host in hosts {
        match begin(&host, stop.force) {
            Ok(process) => stopping.push((host, process)),
            // Those of one process may end together, and then one is gone before it is asked.
            Err(_) if stopping.iter().any(|(other, _): &(HostInfo, _)| other.pid == host.pid) => {
                stopping.push((host, None));
            }
            Err(error) => failure = Some(error),
        }
    }
    let mut out = std::io::stdout().lock();
    let mut stopped = Vec::new();
    for (host, process) in stopping {
        match finish(&host, process, stop.force) {
            Ok(()) if stop.json => stopped.push(json!({ "pid": host.pid, "name": host.name })),
            Ok(()) => writeln!(out, "stopped {} ({})", host.name, host.pid)?,
            Err(error) => failure = Some(error),
        }
    }
    if stop.json {
        writeln!(out, "{}", json!({ "stopped": stopped }))?;
    }
    match failure {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error),
    }
}

/// Asks or kills; `None` when the process has already ended.
fn begin(host: &HostInfo, force: bool) -> Result<Option<Process>, Error> {
    let process = match Process::open(host.pid) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error).context(|| format!("cannot watch process {}", host.pid)),
    };
    // Checked with the process in hand: the pid cannot pass to another one between here and the signal.
    if !host.is_running() {
        return Ok(None);
    }
    if force {
        process.kill().context(|| format!("cannot kill process {}", host.pid))?;
    } else {
        let request = Request::post("/v1/stop").header(http::header::HOST, "dhow").body(Full::default())?;
        client::runtime()?.block_on(client::ask(host, request))?;
    }
    Ok(Some(process))
}

fn finish(host: &HostInfo, process: Option<Process>, force: bool) -> Result<(), Error> {
    let ended = match process {
        Some(process) => wait(host, &process).context(|| format!("cannot wait for process {}", host.pid))?,
        None => true,
    };
    if !ended {
        let advice = if force { "look at it with `ps`" } else { "end it with --force" };
        return Err(Error::new(format!(
            "host {} ({}) is still running after {} s; {advice}",
            host.name,
            host.pid,
            PATIENCE.as_secs()
        )));
    }
    if force {
        host.remove();
    }
    Ok(())
}

/// Waits for the end of the process, or of this host if the process has others.
fn wait(host: &HostInfo, process: &Process) -> std::io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    loop {
        if process.wait(LOOK)? {
            return Ok(true);
        }
        let others = || hosts::list().is_ok_and(|hosts| hosts.iter().any(|other| other.pid == host.pid));
        if !host.is_listed() && others() {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
    }
}
