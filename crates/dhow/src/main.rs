//! The command line of dhow: what there is to say, and who does it.
//!
//! | file | subject |
//! |---|---|
//! | `run`, `up` | start a host with one app, with those of a manifest |
//! | `workflow` | Argo Workflows, run on this machine
//! | `argo` | Argo Workflows, checked and made ready for a cluster
//! | `layotto` | a host in the place of Layotto, with its configuration |
//! | `wascc` | manifests of waSCC hosts, for `up` |
//! | `sidecar` | a program outside and the host beside it |
//! | `elsewhere` | apps that are not on this host |
//! | `serve` | what both have in common |
//! | `new`, `build_apps` | from a template to a module |
//! | `inspect` | what a module is and needs |
//! | `trust` | which modules a host runs |
//! | `keys`, `sign`, `verify` | who made a module, and what it may do |
//! | `push`, `pull`, `login`, `registries` | modules in registries |
//! | `registry`, `search` | a registry of our own, and what is in it |
//! | `ps`, `logs`, `invoke`, `publish`, `stop` | speak with running hosts |
//! | `update` | new versions of apps while they run, and back |
//! | `bind`, `provider` | components while the host runs |
//! | `hosts`, `client` | which hosts run, and how they are spoken with |
//! | `doctor` | what is missing on this machine |
//! | `completions` | for shells |
//! | `toolchain` | compilers that the templates need |
//! | `logging` | what dhow says while it works |
//! | `process` | the few system calls that the standard library does not have |
//! | `folders` | private folders of this user |
//! | `text` | texts for people: sizes, times, tables |
//! | `error` | how a command fails |

mod argo;
mod bind;
mod build_apps;
mod client;
mod completions;
mod doctor;
mod elsewhere;
mod error;
mod executor;
mod folders;
mod hosts;
mod inspect;
mod invoke;
mod keys;
mod layotto;
mod logging;
mod login;
mod logs;
mod new;
mod process;
mod provider;
mod ps;
mod publish;
mod pull;
mod push;
mod registries;
mod registry;
mod repository;
mod run;
mod search;
mod serve;
mod sidecar;
mod sign;
mod signals;
mod stop;
mod text;
mod toolchain;
mod trust;
mod up;
mod update;
mod verify;
mod wascc;
mod workflow;

use clap::{Args, Parser, Subcommand};
use error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use tracing::Level;

/// A request makes a few hundred small allocations, mostly inside the engine.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs WebAssembly apps, and gives them state, configuration and each other in the same process.
#[derive(Parser)]
#[command(name = "dhow", version = VERSION, arg_required_else_help = true, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// What dhow says about its work: error, warn, info, debug, trace, or a filter by target, such as
    /// "info,dhow_host=debug" [default: $RUST_LOG, else info]
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "DHOW_LOG",
        hide_env_values = true,
        help_heading = "Log"
    )]
    pub(crate) log: Option<String>,

    /// How it is written to standard error
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        env = "DHOW_LOG_FORMAT",
        hide_env_values = true,
        help_heading = "Log"
    )]
    pub(crate) log_format: logging::Format,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Up(up::Up),
    Layotto(layotto::Layotto),
    New(new::New),
    Build(build_apps::Build),
    Inspect(inspect::Inspect),
    Keys(keys::Keys),
    Sign(sign::Sign),
    Verify(verify::Verify),
    Push(push::Push),
    Pull(pull::Pull),
    Login(login::Login),
    Logout(login::Logout),
    Registry(registry::RegistryCommand),
    Search(Box<search::Search>),
    Invoke(invoke::Invoke),
    Publish(publish::Publish),
    #[command(visible_alias = "list")]
    Ps(ps::Ps),
    Logs(logs::Logs),
    Update(update::Update),
    Promote(update::Promote),
    Rollback(update::Rollback),
    History(update::History),
    Bind(bind::Bind),
    Unbind(bind::Unbind),
    Provider(provider::Provider),
    Stop(stop::Stop),
    Workflow(workflow::Workflow),
    Argo(argo::Argo),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Version(Version),
}

/// Print the versions of dhow and of the Wasm engine inside
#[derive(Args)]
struct Version {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (wasmtime ", env!("DHOW_WASMTIME_VERSION"), ")");

const AFTER_HELP: &str = "\
EXAMPLES
  dhow new shop --template rust     a new app in the folder shop
  dhow build && dhow up             in that folder: compile it, serve it at http://127.0.0.1:8080/
  dhow run app.wasm                 serve one module, or run it if it is a command
  dhow run tool.wasm -- --flag x    with arguments for the module
  dhow inspect app.wasm             what it is, and what it will need
  dhow logs -f shop                 what the app prints

EXIT CODES
  0    success
  1    failure; of `invoke`, also an answer with status 400 or above
  2    the command line is wrong
  124  `run`: the guest did not finish before its deadline
  125  `run`: dhow failed before the guest ran
  130  interrupted
  Else `run` ends with the exit code of the guest, and `build` with that of the command that failed.

ENVIRONMENT
  DHOW_LOG, RUST_LOG  what is logged, see --log
  DHOW_LOG_FORMAT     text or json, see --log-format
  DHOW_CACHE_DIR      where compiled code is kept
                      [default: dhow/compiled in $XDG_CACHE_HOME, else in ~/.cache]
  DHOW_ARTIFACTS_DIR  where downloads from registries are kept
                      [default: dhow/artifacts in $XDG_CACHE_HOME, else in ~/.cache]
  XDG_STATE_HOME      where running hosts are listed, in its folder dhow/hosts
                      [default: ~/.local/state]
  NO_COLOR            no colors

`dhow help COMMAND` says more about each command.";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _flush = logging::Flush;
    let mut global = cli.global;
    if let (None, Command::Run(run)) = (&global.log, &cli.command) {
        global.log = run::log_level(run).map(str::to_owned);
    }
    match logging::init(&global).and_then(|loggers| cli.command.execute(loggers)) {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}

/// Tells a person what dhow does, on standard error: standard output is for results.
pub(crate) fn say(message: impl std::fmt::Display) {
    logging::tell(Level::INFO, &message, &message);
}

// === impl Command ===

impl Command {
    fn execute(self, loggers: Arc<logging::Levels>) -> Result<ExitCode, Error> {
        match self {
            Command::Run(run) => run::execute(*run),
            Command::Up(up) => up::execute(up, loggers),
            Command::Layotto(layotto) => layotto::execute(layotto, loggers),
            Command::New(new) => new::execute(&new),
            Command::Build(build) => build_apps::execute(&build),
            Command::Inspect(inspect) => inspect::execute(&inspect),
            Command::Keys(keys) => keys::execute(&keys),
            Command::Sign(sign) => sign::execute(&sign),
            Command::Verify(verify) => verify::execute(&verify),
            Command::Push(push) => push::execute(&push),
            Command::Pull(pull) => pull::execute(&pull),
            Command::Login(args) => login::login(&args),
            Command::Logout(args) => login::logout(&args),
            Command::Registry(registry) => registry::execute(registry),
            Command::Search(search) => search::execute(&search),
            Command::Invoke(invoke) => invoke::execute(&invoke),
            Command::Publish(publish) => publish::execute(&publish),
            Command::Ps(ps) => ps::execute(&ps),
            Command::Logs(logs) => logs::execute(&logs),
            Command::Update(update) => update.execute(),
            Command::Promote(promote) => promote.execute(),
            Command::Rollback(rollback) => rollback.execute(),
            Command::History(history) => history.execute(),
            Command::Bind(bind) => bind.execute(),
            Command::Unbind(unbind) => unbind.execute(),
            Command::Provider(provider) => provider.execute(),
            Command::Stop(stop) => stop::execute(&stop),
            Command::Workflow(workflow) => workflow::execute(workflow),
            Command::Argo(argo) => argo::execute(argo),
            Command::Doctor(doctor) => doctor::execute(&doctor),
            Command::Completions(completions) => completions::execute(&completions),
            Command::Version(version) => version.execute(),
        }
    }
}

// === impl Version ===

impl Version {
    fn execute(&self) -> Result<ExitCode, Error> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let json = serde_json::json!({
                "dhow": env!("CARGO_PKG_VERSION"),
                "wasmtime": env!("DHOW_WASMTIME_VERSION"),
            });
            writeln!(out, "{json}")?;
        } else {
            writeln!(out, "dhow {VERSION}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// A longer line would be broken once more, at the width of clap.
    #[test]
    fn no_line_below_the_options_is_too_long() {
        let mut commands = vec![super::Cli::command()];
        let mut lines = 0;
        while let Some(command) = commands.pop() {
            let texts = [
                command.get_before_help(),
                command.get_before_long_help(),
                command.get_after_help(),
                command.get_after_long_help(),
            ];
            for text in texts.into_iter().flatten().map(ToString::to_string) {
                for line in text.lines() {
                    lines += 1;
                    assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
                }
            }
            commands.extend(command.get_subcommands().cloned());
        }
        assert!(lines > 100, "{lines} lines only");
    }
}
