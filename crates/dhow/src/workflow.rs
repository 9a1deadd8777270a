//! `dhow workflow`: Argo Workflows on this machine, with nothing installed.

pub(crate) mod health;
mod live;
mod manage;
pub(crate) mod queue;
mod run;
mod worker;

use crate::Error;
use dhow_argo::run::Home;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run Argo Workflows on this machine
#[derive(clap::Args)]
pub(crate) struct Workflow {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Resume(Box<run::Resume>),
    Worker(Box<worker::Worker>),
    List(manage::List),
    Get(manage::Get),
    Logs(manage::Logs),
    Stop(manage::Stop),
    Delete(manage::Delete),
}

/// Where workflows are kept.
#[derive(clap::Args, Clone, Debug)]
struct Data {
    /// Folder of the history, the artifacts and the logs
    #[arg(long, value_name = "DIR", default_value = ".dhow", env = "DHOW_DATA_DIR")]
    data_dir: PathBuf,
}

pub(crate) fn execute(workflow: Workflow) -> Result<ExitCode, Error> {
    match workflow.command {
        Command::Run(run) => crate::serve::block_on(run.execute()),
        Command::Resume(resume) => crate::serve::block_on(resume.execute()),
        Command::Worker(worker) => crate::serve::block_on(worker.execute()),
        Command::List(list) => list.execute(),
        Command::Get(get) => get.execute(),
        Command::Logs(logs) => logs.execute(),
        Command::Stop(stop) => stop.execute(),
        Command::Delete(delete) => delete.execute(),
    }
}

// === impl Data ===

impl Data {
    fn home(&self) -> Result<Home, Error> {
        Ok(Home::open(&self.data_dir)?)
    }
}
