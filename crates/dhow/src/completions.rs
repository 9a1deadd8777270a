//! `dhow completions`: what the Tab key does, for the usual shells.

use crate::Cli;
use crate::error::Error;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

/// Print what makes the Tab key complete dhow's commands and flags in your shell
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow completions bash > ~/.local/share/bash-completion/completions/dhow
  dhow completions zsh > ~/.zfunc/_dhow          (with fpath+=~/.zfunc in ~/.zshrc)
  dhow completions fish > ~/.config/fish/completions/dhow.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

pub(crate) fn execute(completions: &Completions) -> Result<ExitCode, Error> {
    // The generator panics when it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Cli::command(), "dhow", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
