//! The project in the current folder: does its manifest parse, are its modules there, do its components open.

use super::Check;
use dhow_host::Components;
use dhow_resources::error::ResourceErrors;
use dhow_resources::load::{Resources, load_dirs};
use dhow_resources::manifest::{HostConfig, Manifest, ModuleSource};
use std::path::{Path, PathBuf};

/// What is in the folder.
pub(super) enum Project {
    /// No manifest.
    None,
    /// A manifest that cannot be read.
    Broken(PathBuf, ResourceErrors),
    /// A manifest.
    Manifest(Box<Manifest>),
}

impl Project {
    pub(super) fn load(file: &Path) -> Project {
        if !file.exists() {
            return Project::None;
        }
        match Manifest::load(file) {
            Ok(manifest) => Project::Manifest(Box::new(manifest)),
            Err(errors) => Project::Broken(file.to_owned(), errors),
        }
    }

    /// Addresses and folders, the defaults if there is no manifest that says something else.
    pub(super) fn host_config(&self, file: &Path) -> HostConfig {
        match self {
            Project::Manifest(manifest) => manifest.host.clone(),
            _ => HostConfig::new(file.parent().unwrap_or(Path::new(""))),
        }
    }

    pub(super) async fn checks(&self, config: &HostConfig) -> Vec<Check> {
        let (mut checks, dirs, app_ids) = match self {
            Project::None => {
                let check = Check::note("manifest", "none here", "`dhow new` makes an app with one");
                let usual = Path::new("resources");
                let dirs = if usual.is_dir() { vec![usual.to_owned()] } else { Vec::new() };
                (vec![check], dirs, vec!["app".to_owned()])
            }
            Project::Broken(file, errors) => {
                let advice = format!("correct {}", file.display());
                return vec![Check::missing("manifest", errors.to_string(), advice)];
            }
            Project::Manifest(manifest) => {
                let found = format!("{}, {} apps", manifest.file.display(), manifest.apps.len());
                let mut checks = vec![Check::ok("manifest", found)];
                checks.extend(modules(manifest));
                (checks, manifest.resource_dirs(), manifest.apps.keys().cloned().collect())
            }
        };
        if dirs.is_empty() {
            checks.push(Check::ok("resources", "none; the embedded providers are used"));
            return checks;
        }
        match load_dirs(&dirs) {
            Ok(resources) => checks.extend(components(resources, &config.data_dir, &app_ids).await),
            Err(errors) => checks.push(Check::missing("resources", errors.to_string(), "correct the files")),
        }
        checks
    }
}

fn modules(manifest: &Manifest) -> Vec<Check> {
    let checks = manifest.apps.iter().filter_map(|(app_id, app)| {
        let ModuleSource::Path(path) = &app.module else { return None };
        let name = format!("app {app_id}");
        Some(match (path.is_file(), &app.build) {
            (true, _) => Check::ok(name, path.display().to_string()),
            (false, Some(_)) => Check::note(
                name,
                format!("{} is not there yet", path.display()),
                format!("`dhow build {app_id}`"),
            ),
            (false, None) => {
                let advice = format!("correct `module` in {}:{}", manifest.file.display(), app.line);
                Check::missing(name, format!("{} is not there", path.display()), advice)
            }
        })
    });
    checks.collect()
}

/// Opens the components as each app would see them.
async fn components(resources: Resources, data_dir: &Path, app_ids: &[String]) -> Vec<Check> {
    let mut checks = Vec::new();
    for ignored in &resources.ignored {
        let found =
            format!("{}:{}: kind {:?} is not read", ignored.file.display(), ignored.line, ignored.kind);
        let advice = ignored.nearest.map(|nearest| format!("did you mean {nearest}?")).unwrap_or_default();
        checks.push(Check::note("resources", found, advice));
    }
    for later in &resources.later {
        let found =
            format!("{}:{}: {} {:?} has no effect", later.file.display(), later.line, later.kind, later.name);
        checks.push(Check::note("resources", found, "this version of dhow does not use it yet"));
    }
    let names: Vec<String> = resources.components.iter().map(|component| component.name.clone()).collect();
    let host = match crate::serve::host(Components::new(resources, data_dir), false) {
        Ok(host) => host,
        Err(error) => return vec![Check::missing("components", error.to_string(), "free some memory")],
    };
    let components = host.components();
    for component in components.unsupported() {
        let found = format!("{}:{}: {}", component.file.display(), component.line, component.component_type);
        let advice = "this version of dhow has no provider for it";
        checks.push(Check::note(format!("component {}", component.name), found, advice));
    }
    let mut failures = Vec::new();
    for app_id in app_ids {
        let opened = components.of_app(app_id, host.metrics()).await;
        failures.extend(opened.err().map(|error| error.to_string()));
    }
    failures.extend(components.failures().into_values());
    failures.sort();
    failures.dedup();
    if failures.is_empty() {
        checks.push(Check::ok(
            "components",
            if names.is_empty() { "none".to_owned() } else { names.join(", ") },
        ));
    }
    checks.extend(
        failures.into_iter().map(|failure| Check::missing("components", failure, "correct the file")),
    );
    components.close().await;
    checks
}
