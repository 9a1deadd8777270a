//! `dhow build`: runs the build command of each app of a manifest.
//! (The file is not called `build.rs` because Cargo means something else by that name.)

use crate::error::{Context, Error};
use crate::text;
use clap::Args;
use dhow_resources::manifest::{AppConfig, BuildConfig, Manifest, ModuleSource};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the last lines of a command that has ended are waited for. A program that it left in the background may
/// keep its pipes open for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// Compile the apps of a manifest
///
/// Runs the `command` of each app's [apps.<id>.build] in the manifest's folder, one after the other, and stops
/// at the first that fails, with its exit code.
#[derive(Args)]
#[command(after_help = "\
EXAMPLES
  dhow build                    all apps of ./dhow.toml
  dhow build front orders       two of them
  dhow build shop/dhow.toml     another manifest; its folder will do, too")]
pub(crate) struct Build {
    /// Manifest (ends in .toml, or a folder; default dhow.toml), then apps (default: all)
    #[arg(value_name = "FILE|APP")]
    names: Vec<String>,
    /// Print JSON; what the commands print goes to standard error in any case
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(build: &Build) -> Result<ExitCode, Error> {
    let (file, wanted) = manifest_and_apps(&build.names);
    let manifest = Manifest::load(&file)?;
    let apps = choose(&manifest, wanted)?;
    let mut out = io::stdout().lock();
    let mut built: Vec<Value> = Vec::new();
    for (app_id, app, recipe) in apps {
        let started = Instant::now();
        let result = run(&manifest, app_id, app, recipe);
        let (took, ok) = (started.elapsed(), matches!(&result, Ok(None)));
        built
            .push(json!({ "appId": app_id, "module": module(app), "seconds": took.as_secs_f64(), "ok": ok }));
        match result {
            Ok(None) if !build.json => report(&mut out, app_id, app, took)?,
            Ok(None) => {}
            Ok(Some(status)) => {
                if build.json {
                    writeln!(out, "{:#}", json!({ "apps": built }))?;
                }
                let message = format!("building app {app_id:?} failed ({status}): {}", recipe.command);
                return Err(Error::new(message).with_code(exit_code(status)));
            }
            Err(error) => return Err(error),
        }
    }
    if build.json {
        writeln!(out, "{:#}", json!({ "apps": built }))?;
    } else if built.is_empty() {
        writeln!(out, "Nothing to build: no app of {} has [apps.<id>.build].", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first name is the manifest if it looks like one.
fn manifest_and_apps(names: &[String]) -> (PathBuf, &[String]) {
    match names.split_first() {
        Some((first, rest)) if first.ends_with(".toml") => (first.into(), rest),
        Some((first, rest)) if Path::new(first).join("dhow.toml").is_file() => {
            (Path::new(first).join("dhow.toml"), rest)
        }
        _ => ("dhow.toml".into(), names),
    }
}

type Recipe<'a> = (&'a str, &'a AppConfig, &'a BuildConfig);

/// The apps to build, in the order of the manifest.
fn choose<'a>(manifest: &'a Manifest, wanted: &[String]) -> Result<Vec<Recipe<'a>>, Error> {
    for wanted in wanted {
        let known = || manifest.apps.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match manifest.apps.get(wanted) {
            None => {
                let message =
                    format!("{} has no app {wanted:?}; it has: {}", manifest.file.display(), known());
                return Err(Error::usage(message));
            }
            Some(app) if app.build.is_none() => {
                return Err(Error::usage(format!(
                    "{}:{}: app {wanted:?} has no [apps.{wanted}.build] with a command",
                    manifest.file.display(),
                    app.line
                )));
            }
            Some(_) => {}
        }
    }
    let is_wanted = |app_id: &String| wanted.is_empty() || wanted.contains(app_id);
    let apps = manifest.apps.iter().filter(|(app_id, _)| is_wanted(app_id));
    Ok(apps.filter_map(|(app_id, app)| Some((app_id.as_str(), app, app.build.as_ref()?))).collect())
}

/// Runs one command; the status if it is not success.
fn run(
    manifest: &Manifest,
    app_id: &str,
    app: &AppConfig,
    recipe: &BuildConfig,
) -> Result<Option<ExitStatus>, Error> {
    let folder =
        manifest.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Some(parent) = module_path(app).and_then(Path::parent) {
        // Most compilers do not make the folder of their output.
        std::fs::create_dir_all(parent).context(|| format!("cannot make the folder {}", parent.display()))?;
    }
    let mut child = Command::new("sh")
        .args(["-c", &recipe.command])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("cannot start `sh` to build app {app_id:?}"))?;
    // Closed when both pipes have come to their end.
    let (open, ended) = mpsc::channel::<()>();
    pass_on(child.stdout.take(), app_id, open.clone());
    pass_on(child.stderr.take(), app_id, open);
    let status = child.wait().context(|| format!("cannot wait for the build of app {app_id:?}"))?;
    let _ = ended.recv_timeout(DRAIN);
    if !status.success() {
        return Ok(Some(status));
    }
    match module_path(app) {
        Some(path) if !path.is_file() => Err(Error::new(format!(
            "the build of app {app_id:?} succeeded and {} is not there; command and `module` must name the same file",
            path.display()
        ))),
        _ => Ok(None),
    }
}

/// Copies a pipe in a thread of its own, which holds `open` until the pipe's end.
fn pass_on(stream: Option<impl Read + Send + 'static>, app_id: &str, open: mpsc::Sender<()>) {
    let app_id = app_id.to_owned();
    std::thread::spawn(move || {
        if let Some(stream) = stream {
            copy(stream, &app_id);
        }
        drop(open);
    });
}

/// Passes lines on as they come, each with the app's name before it.
fn copy(stream: impl Read, app_id: &str) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    // An error of the pipe is its end: the exit code tells the rest.
    while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line);
        crate::say(format_args!("{app_id} | {}", text.trim_end()));
        line.clear();
    }
}

fn report(out: &mut impl Write, app_id: &str, app: &AppConfig, took: Duration) -> io::Result<()> {
    let size =
        module_path(app).and_then(|path| std::fs::metadata(path).ok()).map(|meta| text::size(meta.len()));
    let size = size.map(|size| format!(", {size}")).unwrap_or_default();
    writeln!(out, "built {app_id}: {} ({:.1} s{size})", module(app), took.as_secs_f64())
}

fn module_path(app: &AppConfig) -> Option<&Path> {
    match &app.module {
        ModuleSource::Path(path) => Some(path),
        ModuleSource::Url(_) | ModuleSource::Oci { .. } => None,
    }
}

fn module(app: &AppConfig) -> String {
    match &app.module {
        ModuleSource::Path(path) => path.display().to_string(),
        ModuleSource::Url(url) => dhow_artifacts::Source::Url(url.clone()).to_string(),
        ModuleSource::Oci { reference, .. } => reference.clone(),
    }
}

/// As a shell counts: 128 and the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(crate::error::FAILURE)
}
