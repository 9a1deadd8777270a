//! `dhow argo`: workflows checked, made ready for a cluster, and their steps run beside Argo's agent.

mod agent;
mod plugin;

use crate::Error;
use dhow_argo::lint::Purpose;
use dhow_argo::manifest::Manifest;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check workflows, convert them for Argo, and run their steps there
#[derive(clap::Args)]
pub(crate) struct Argo {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Lint(Lint),
    Convert(Convert),
    Plugin(Box<plugin::Plugin>),
    Agent(Box<agent::Agent>),
}

/// Check workflows: every finding with file, line and field
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow argo lint workflow.yaml                for a cluster and for this machine
  dhow argo lint --for run workflow.yaml      also what `dhow workflow run` cannot do
  dhow argo lint --for cluster workflow.yaml  also what Argo does not take

EXIT CODES
  0 nothing is wrong, warnings aside, 1 something is")]
struct Lint {
    /// Files of Argo's YAML; what one refers to may be in another
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// What they are for
    #[arg(long = "for", value_name = "PURPOSE", value_enum, default_value_t = For::Any)]
    purpose: For,
    /// Warnings count as findings
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum For {
    /// Either
    Any,
    /// `dhow workflow run`
    Run,
    /// Argo
    Cluster,
}

/// Rewrite `wasm:` templates as `plugin: {wasm: …}`, which Argo accepts
#[derive(clap::Args)]
#[command(after_help = "\
EXAMPLES
  dhow argo convert workflow.yaml | argo submit -
  dhow argo convert --image debian:12=ghcr.io/me/shell:1 workflow.yaml
                                     containers of that image become modules, too")]
struct Convert {
    /// File of Argo's YAML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Containers of this image become this module (repeatable)
    #[arg(long, value_name = "IMAGE=MODULE")]
    image: Vec<String>,
    /// Write the file instead of standard output
    #[arg(long, short)]
    write: bool,
}

pub(crate) fn execute(argo: Argo) -> Result<ExitCode, Error> {
    match argo.command {
        Command::Lint(lint) => lint.execute(),
        Command::Convert(convert) => convert.execute(),
        Command::Plugin(plugin) => crate::serve::block_on(plugin.execute()),
        Command::Agent(agent) => crate::serve::block_on(agent.execute()),
    }
}

/// `NAME=VALUE` flags as a map.
pub(crate) fn pairs(flag: &str, values: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("{flag} {text}: expected NAME=VALUE"))),
    };
    values.iter().map(pair).collect()
}

// === impl Lint ===

impl Lint {
    fn execute(&self) -> Result<ExitCode, Error> {
        let purpose = match self.purpose {
            For::Any => Purpose::Any,
            For::Run => Purpose::Run,
            For::Cluster => Purpose::Cluster,
        };
        let checked = Manifest::read(&self.files).and_then(|manifest| {
            manifest.check(purpose)?;
            Ok(manifest.warnings(purpose))
        });
        let mut out = std::io::stdout().lock();
        match checked {
            Ok(warnings) => {
                for warning in &warnings {
                    writeln!(out, "warning: {warning}")?;
                }
                for file in &self.files {
                    if warnings.iter().all(|warning| warning.file != *file) {
                        writeln!(out, "{}: no findings", file.display())?;
                    }
                }
                let is_well = warnings.is_empty() || !self.strict;
                Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
            }
            Err(errors) => {
                writeln!(out, "{errors}")?;
                let count = errors.errors().len();
                crate::say(format_args!("{count} finding{}", if count == 1 { "" } else { "s" }));
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

// === impl Convert ===

impl Convert {
    fn execute(&self) -> Result<ExitCode, Error> {
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Error::new(format!("{}: {error}", self.file.display())))?;
        let images = pairs("--image", &self.image)?;
        let (converted, count) = dhow_argo::convert::convert(&text, &self.file, &images)?;
        if self.write {
            std::fs::write(&self.file, converted)
                .map_err(|error| Error::new(format!("{}: {error}", self.file.display())))?;
            crate::say(format_args!("{}: {count} templates converted", self.file.display()));
        } else {
            write!(std::io::stdout().lock(), "{converted}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
