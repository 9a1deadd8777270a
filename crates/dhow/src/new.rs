//! `dhow new`: a new app from a template.
//!
//! The templates are files of the repository, `crates/dhow/templates`, and are carried inside the program
//! (`build.rs`). `new/name.rs` says what an app may be called.

use crate::error::{Context, Error};
use crate::{text, toolchain};
use clap::Args;
use serde_json::json;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod name;

/// Make a new app from a template
#[derive(Args)]
#[command(override_usage = "\
dhow new [OPTIONS] <NAME>
       dhow new --list [--json]")]
#[command(after_help = "\
EXAMPLES
  dhow new shop --template rust
  dhow new shop -t js --path apps/shop
  dhow new --list")]
pub(crate) struct New {
    /// Name of the app: lower-case letters, digits and hyphens, beginning with a letter
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,
    /// Template: c, go, js, python or rust; asked for if there is a terminal
    #[arg(long, short, value_name = "TEMPLATE")]
    template: Option<String>,
    /// Folder to make [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// List the templates
    #[arg(long, conflicts_with_all = ["name", "template", "path"])]
    list: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A template as it was compiled in.
struct Template {
    name: &'static str,
    /// Path and content.
    files: &'static [(&'static str, &'static str)],
}

const TEMPLATES: &[Template] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));

/// What stands in the templates where the name goes.
const NAME: &str = "{{name}}";

pub(crate) fn execute(new: &New) -> Result<ExitCode, Error> {
    let mut out = io::stdout().lock();
    let Some(app) = &new.name else {
        if new.json {
            let templates = TEMPLATES.iter().map(|t| json!({ "name": t.name, "about": t.about() }));
            writeln!(out, "{:#}", json!({ "templates": templates.collect::<Vec<_>>() }))?;
        } else {
            write!(out, "{}", list())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    name::check(app)
        .map_err(|reason| Error::usage(format!("{app:?} cannot be the name of an app: {reason}")))?;
    let template = match &new.template {
        Some(wanted) => Template::find(wanted)?,
        None => ask()?,
    };
    let folder = new.path.clone().unwrap_or_else(|| app.into());
    template.write(&folder, app)?;
    let missing = toolchain::missing(template.name);
    if new.json {
        let missing = missing
            .iter()
            .map(|(tool, reason)| json!({ "name": tool.name, "reason": reason, "get": tool.get }));
        let json = json!({
            "name": app,
            "template": template.name,
            "path": folder,
            "files": template.files.iter().map(|(path, _)| target(path)).collect::<Vec<_>>(),
            "missingTools": missing.collect::<Vec<_>>(),
        });
        writeln!(out, "{json:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let about = template.about();
    let about = about.strip_prefix("A ").map_or(about.to_owned(), |about| format!("a {about}"));
    writeln!(out, "Made {about} in {}. Next:\n", folder.display())?;
    for (tool, reason) in &missing {
        match tool.get.strip_prefix("install ") {
            // For a person, not for a shell.
            Some(what) => writeln!(out, "  # {reason}: install {what}")?,
            None => writeln!(out, "  {:<35} # {reason}", tool.get)?,
        }
    }
    // `cd` would take a leading hyphen for a flag.
    let to = if folder.as_os_str().as_encoded_bytes().starts_with(b"-") { "cd --" } else { "cd" };
    writeln!(out, "  {to} {}", text::shell_word(&folder.to_string_lossy()))?;
    writeln!(out, "  {:<36}# compile it", "dhow build")?;
    writeln!(out, "  {:<36}# serve it at http://127.0.0.1:8080/", "dhow up")?;
    Ok(ExitCode::SUCCESS)
}

// === impl Template ===

impl Template {
    fn find(wanted: &str) -> Result<&'static Template, Error> {
        let template = TEMPLATES.iter().find(|template| template.name == wanted);
        template
            .ok_or_else(|| Error::usage(format!("there is no template {wanted:?}; there are:\n{}", list())))
    }

    /// What it makes: the first sentence of its README.md.
    fn about(&self) -> &'static str {
        let readme = self.files.iter().find(|(path, _)| *path == "README.md").map_or("", |(_, text)| text);
        let sentence =
            readme.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
        sentence.split_once(". ").map_or(sentence, |(first, _)| first).trim_end_matches('.')
    }

    fn write(&self, folder: &Path, app: &str) -> Result<(), Error> {
        match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(Error::new(format!(
                    "{} already exists and is not empty; choose another folder with --path",
                    folder.display()
                )));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("cannot use {}", folder.display()));
            }
            Ok(false) | Err(_) => {}
        }
        for (path, content) in self.files {
            let path = folder.join(target(path));
            let write = || {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(&path, content.replace(NAME, app))
            };
            write().context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// A `.gitignore` in the templates would hide files of the templates themselves.
fn target(path: &str) -> &str {
    if path == "gitignore" { ".gitignore" } else { path }
}

fn list() -> String {
    TEMPLATES.iter().map(|template| format!("  {:<8}{}\n", template.name, template.about())).collect()
}

/// Lets the user choose, if there is one.
fn ask() -> Result<&'static Template, Error> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::usage(format!("say which template with --template; there are:\n{}", list())));
    }
    let mut terminal = io::stderr().lock();
    write!(terminal, "Which template?\n{}Name: ", list())?;
    terminal.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Template::find(answer.trim())
}

#[cfg(test)]
mod tests {
    use super::TEMPLATES;

    #[test]
    fn templates_are_whole() {
        let names: Vec<&str> = TEMPLATES.iter().map(|template| template.name).collect();
        assert_eq!(names, ["c", "go", "js", "python", "rust"]);
        for template in TEMPLATES {
            let has = |name: &str| template.files.iter().any(|(path, _)| *path == name);
            assert!(has("dhow.toml") && has("README.md") && has("gitignore"), "{}", template.name);
            assert!(template.about().len() > 20, "{}", template.name);
        }
        // The link to the WIT was followed.
        for template in TEMPLATES.iter().filter(|template| ["js", "python"].contains(&template.name)) {
            assert!(template.files.iter().any(|(path, _)| path.starts_with("wit/")), "{}", template.name);
        }
    }
}
