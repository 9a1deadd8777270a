//! The project's build system: `cargo xtask <command>`.
//!
//! Rust, so that it runs wherever the project builds, and hardly more than the standard library, so that
//! it builds in seconds. [`env`] says where things lie, [`setup`] installs what guests need, [`guests`] compiles
//! them, [`test`] is what continuous integration runs.

mod bench;
mod demo;
mod env;
mod guests;
mod install;
mod process;
mod setup;
mod stamp;
mod test;

use std::process::ExitCode;

use env::Env;

/// A command's name, what it does, and the code that does it.
type Command = (&'static str, &'static str, fn(&[String], &Env) -> Result<(), String>);

const COMMANDS: &[Command] = &[
    (
        "setup",
        "installs the compilers that guests need (Wasm targets, Python, Go, JavaScript, C)",
        |_, env| setup::run(env),
    ),
    ("guests", "compiles test guests, example apps and bench guests into <target>/guests", guests::run),
    ("demo", "starts the bookshop example; --once asks it a few questions and stops", demo::run),
    ("install", "compiles dhow for daily use and puts it into ~/.cargo/bin (--root DIR)", install::run),
    ("test", "everything that continuous integration checks", |_, env| test::run_all(env)),
    ("bench", "measures dhow against its peers (--quick, --only NAME, --json FILE)", bench::run),
    ("lint", "checks format, clippy and dependencies", |_, env| test::lint(env)),
    ("fmt", "formats all Rust code", |_, env| test::fmt(env)),
    ("help", "prints this list", |_, _| help()),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let Some((name, rest)) = args.split_first() else { return help() };
    let name = match name.as_str() {
        "-h" | "--help" => "help",
        other => other,
    };
    let Some((_, _, command)) = COMMANDS.iter().find(|(known, _, _)| *known == name) else {
        return Err(format!("no command `{name}`; did you mean `cargo xtask {}`?", nearest(name)));
    };
    command(rest, &Env::find()?)
}

fn help() -> Result<(), String> {
    println!("cargo xtask <command>\n");
    for (name, text, _) in COMMANDS {
        println!("  {name:<8}{text}");
    }
    println!(
        "\nEverything is built under $CARGO_TARGET_DIR, or the user's cache folder when that is not set."
    );
    Ok(())
}

fn nearest(name: &str) -> &'static str {
    let by_distance = COMMANDS.iter().min_by_key(|(known, _, _)| distance(name, known));
    by_distance.map_or("help", |(known, _, _)| known)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_names_the_nearest() {
        for (typed, meant) in [("tset", "test"), ("guest", "guests"), ("demoo", "demo"), ("format", "fmt")] {
            assert_eq!(nearest(typed), meant, "{typed}");
        }
    }
}
