//! `dhow doctor`: what this machine and the project in the current folder lack, and what to do about it.
//!
//! | file | subject |
//! |---|---|
//! | `machine` | processor, kernel, limits, the Wasm engine |
//! | `places` | folders and ports |
//! | `project` | `dhow.toml` and the resources |
//!
//! Everything is tried the way a host does it, so what a first host would make may be there afterwards: the
//! folders of cache and host list, and the files of state stores that the resources name.

use crate::client;
use crate::error::Error;
use crate::{text, toolchain};
use clap::Args;
use project::Project;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

mod machine;
mod places;
mod project;

/// Check what is missing on this machine and in this project
#[derive(Args)]
#[command(after_help = "\
`ok` is fine. `note` is worth knowing. `missing` is something that dhow or a template cannot do
without. The exit code is 1 only if something is missing that dhow itself needs; a compiler that you
do not use is not.")]
pub(crate) struct Doctor {
    /// Manifest to check, if it is there
    #[arg(default_value = "dhow.toml", value_name = "FILE")]
    manifest: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Note,
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    /// What.
    name: String,
    status: Status,
    /// dhow cannot do its work without it.
    necessary: bool,
    /// What was found.
    found: String,
    /// What to do; empty if nothing.
    advice: String,
}

/// Checks of one subject.
struct Section {
    name: &'static str,
    checks: Vec<Check>,
}

pub(crate) fn execute(doctor: &Doctor) -> Result<ExitCode, Error> {
    let project = Project::load(&doctor.manifest);
    let config = project.host_config(&doctor.manifest);
    let sections = [
        Section { name: "machine", checks: machine::checks() },
        Section { name: "folders and ports", checks: places::checks(&config) },
        Section { name: "project", checks: client::runtime()?.block_on(project.checks(&config)) },
        Section { name: "compilers", checks: compilers() },
    ];
    let lacks = |check: &Check| check.necessary && check.status == Status::Missing;
    let lacking = sections.iter().flat_map(|section| &section.checks).filter(|check| lacks(check)).count();
    let mut out = std::io::stdout().lock();
    if doctor.json {
        let sections: serde_json::Map<_, _> = sections
            .iter()
            .map(|section| Ok((section.name.to_owned(), serde_json::to_value(&section.checks)?)))
            .collect::<Result<_, Error>>()?;
        writeln!(out, "{:#}", serde_json::json!({ "ok": lacking == 0, "sections": sections }))?;
    } else {
        for section in &sections {
            write!(out, "{}", section.as_text())?;
        }
        match lacking {
            0 => writeln!(out, "Ready.")?,
            _ => writeln!(out, "Not ready: see `missing` above.")?,
        }
    }
    Ok(if lacking == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn compilers() -> Vec<Check> {
    let checks = toolchain::TOOLS.iter().map(|tool| {
        let name = format!("{} ({})", tool.name, tool.template);
        match tool.probe() {
            Ok(found) => Check::ok(name, found),
            Err(reason) => Check::missing(name, reason, tool.get).unnecessary(),
        }
    });
    checks.collect()
}

// === impl Section ===

impl Section {
    fn as_text(&self) -> String {
        let mut rows = Vec::new();
        for check in &self.checks {
            let status = match check.status {
                Status::Ok => "ok",
                Status::Note => "note",
                Status::Missing => "missing",
            };
            let found = text::printable(&check.found).replace('\n', "\n                ");
            rows.push([format!("  {status:<7}"), check.name.clone(), found]);
            if !check.advice.is_empty() {
                rows.push([String::new(), String::new(), format!("→ {}", check.advice)]);
            }
        }
        format!("{}\n{}\n", self.name, text::table(&rows))
    }
}

// === impl Check ===

impl Check {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            status: Status::Ok,
            necessary: true,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn note(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { status: Status::Note, advice: advice.into(), ..Check::ok(name, found) }.unnecessary()
    }

    fn missing(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { status: Status::Missing, advice: advice.into(), ..Check::ok(name, found) }
    }

    fn unnecessary(self) -> Check {
        Check { necessary: false, ..self }
    }
}
