//! `dhow workflow list`, `get`, `logs`, `stop`, `delete`.

use super::Data;
use crate::Error;
use dhow_argo::controller::Shutdown;
use dhow_argo::history::{Record, Request};
use dhow_argo::node::{NodeKind, Phase, pod_name, workflow_outputs};
use dhow_argo::run::{Home, RunError, now};
use dhow_argo::tree::{self, Style, took};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Workflows of this data folder, the newest first
#[derive(clap::Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

/// How a workflow stands, step by step
#[derive(clap::Args)]
pub(super) struct Get {
    /// Name of the workflow
    #[arg(value_name = "NAME")]
    name: String,
    /// Print JSON, in the form of Argo's own status
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: Data,
}

/// What the steps of a workflow printed
#[derive(clap::Args)]
pub(super) struct Logs {
    /// Name of the workflow
    #[arg(value_name = "NAME")]
    name: String,
    /// Only of this step, with all of its tries and items
    #[arg(value_name = "STEP")]
    step: Option<String>,
    #[command(flatten)]
    data: Data,
}

/// End a workflow; its exit handlers run
#[derive(clap::Args)]
pub(super) struct Stop {
    /// Name of the workflow
    #[arg(value_name = "NAME")]
    name: String,
    /// Without exit handlers
    #[arg(long)]
    terminate: bool,
    #[command(flatten)]
    data: Data,
}

/// Forget a workflow and its logs; artifacts stay
#[derive(clap::Args)]
pub(super) struct Delete {
    /// Name of the workflow
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    data: Data,
}

fn find(home: &Home, name: &str) -> Result<Record, Error> {
    let record = home.history()?.find(name)?;
    Ok(record.ok_or_else(|| RunError::Unknown(name.to_owned()))?)
}

/// How it stands, for people: of what is under way and run by nobody, too.
fn word(home: &Home, name: &str, phase: Phase) -> &'static str {
    if phase.is_fulfilled() || home.is_run(name) { phase.name() } else { "Interrupted" }
}

// === impl List ===

impl List {
    pub(super) fn execute(&self) -> Result<ExitCode, Error> {
        let home = self.data.home()?;
        let list = home.history()?.list()?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&list)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let width = list.iter().map(|workflow| workflow.name.chars().count()).max().unwrap_or(0).max(4);
        writeln!(out, "{:width$}  {:11}  {:>8}  MESSAGE", "NAME", "STATUS", "DURATION")?;
        for workflow in list {
            let status = word(&home, &workflow.name, workflow.phase);
            let took = match workflow.started_at {
                Some(start) => took(start, workflow.finished_at.unwrap_or_else(now)),
                None => String::new(),
            };
            let line = format!("{:width$}  {status:11}  {took:>8}  {}", workflow.name, workflow.message);
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Get ===

impl Get {
    pub(super) fn execute(&self) -> Result<ExitCode, Error> {
        let home = self.data.home()?;
        let record = find(&home, &self.name)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&tree::status(&record))?)?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "Name:    {}", record.identity.name)?;
        writeln!(out, "Status:  {}", word(&home, &self.name, record.status.phase))?;
        if !record.status.message.is_empty() {
            writeln!(out, "Message: {}", record.status.message)?;
        }
        if let Some(start) = record.status.started_at {
            writeln!(out, "Took:    {}", took(start, record.status.finished_at.unwrap_or_else(now)))?;
        }
        for parameter in workflow_outputs(&record.identity.name, &record.nodes).parameters {
            writeln!(out, "Output:  {}={}", parameter.name, parameter.value.unwrap_or_default())?;
        }
        let nodes: Vec<_> = record.nodes.iter().collect();
        let colors = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let style = Style { colors, lines: 1000, now: now() };
        writeln!(out, "\n{}", tree::draw_nodes(&nodes, &record.identity.name, style))?;
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Logs ===

impl Logs {
    pub(super) fn execute(&self) -> Result<ExitCode, Error> {
        let home = self.data.home()?;
        let record = find(&home, &self.name)?;
        let mut steps: Vec<_> = record
            .nodes
            .iter()
            .filter(|node| node.kind == NodeKind::Plugin)
            .filter(|node| {
                let is_of = |step| is_of(&node.display_name, step) || is_of(&node.name, step);
                self.step.as_deref().is_none_or(is_of)
            })
            .collect();
        steps.sort_by_key(|node| node.sequence);
        if let (true, Some(step)) = (steps.is_empty(), &self.step) {
            return Err(Error::usage(format!("workflow {:?} has no step {step:?}", self.name)));
        }
        let is_one = steps.len() == 1;
        let mut out = std::io::stdout().lock();
        for node in steps {
            // A template of another object has its last part in the name of what is kept.
            let template = node.template_name.rsplit('/').next().unwrap_or_default();
            let pod = pod_name(&record.identity.name, &node.name, template);
            let Ok(file) = dhow_argo::name::log(&pod) else { continue };
            let Ok(text) = std::fs::read(home.logs(&self.name).join(file)) else { continue };
            for line in String::from_utf8_lossy(&text).lines() {
                if is_one {
                    writeln!(out, "{line}")?
                } else {
                    writeln!(out, "{}: {line}", node.display_name)?
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether a node is that step: itself, one of its tries or of its items, `step(0)`, `step(0:item)(1)`.
fn is_of(node: &str, step: &str) -> bool {
    node.strip_prefix(step)
        .is_some_and(|rest| rest.is_empty() || (rest.starts_with('(') && rest.ends_with(')')))
}

// === impl Stop ===

impl Stop {
    pub(super) fn execute(&self) -> Result<ExitCode, Error> {
        let home = self.data.home()?;
        let mut history = home.history()?;
        let record = find(&home, &self.name)?;
        let name = &self.name;
        if record.status.phase.is_fulfilled() {
            return Err(Error::usage(format!("workflow {name:?} has ended: {}", record.status.phase.name())));
        }
        let how = if self.terminate { Shutdown::Terminate } else { Shutdown::Stop };
        match home.lock(name) {
            Err(RunError::Busy(_)) => {
                history.request(name, &Request::ShutDown(how))?;
                crate::say(format_args!("{name} is told to end"));
            }
            // Nobody runs it: it is told when somebody goes on with it.
            Ok(_lock) => {
                let mut status = record.status.clone();
                status.shutdown = Some(how);
                history.record(name, &status, &[], &[], now())?;
                crate::say(format_args!("{name} is run by nobody; let it end: dhow workflow resume {name}"));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Delete ===

impl Delete {
    pub(super) fn execute(&self) -> Result<ExitCode, Error> {
        let home = self.data.home()?;
        find(&home, &self.name)?;
        let _lock = home.lock(&self.name)?;
        home.history()?.delete(&self.name)?;
        let _ = std::fs::remove_dir_all(home.logs(&self.name));
        crate::say(format_args!("{} is forgotten", self.name));
        Ok(ExitCode::SUCCESS)
    }
}
