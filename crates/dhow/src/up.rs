//! `dhow up`: all apps of a manifest, or of a `dapr.yaml`.

use crate::hosts::HostInfo;
use crate::logging::Levels;
use crate::registries::Fetching;
use crate::serve::{self, Serving};
use crate::signals::{Hangup, Meaning, Signals};
use crate::trust::{TrustArgs, not_for_programs};
use crate::{Error, elsewhere, text};
use dhow_api::dapr::{ApiOptions, Dapr};
use dhow_artifacts::access::Access;
use dhow_host::{App, AppSpec, Components, Fleet};
use dhow_providers::watch::Changes;
use dhow_resources::component::Component;
use dhow_resources::configuration;
use dhow_resources::load::{Resources, load_dirs};
use dhow_resources::manifest::{Manifest, ModuleSource};
use dhow_resources::units::parse_address;
use dhow_resources::wascc::Plan;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Run all apps of a manifest until they are stopped
#[derive(clap::Args, Debug)]
#[command(after_help = "\
EXAMPLES
  dhow up                          start the apps of ./dhow.toml
  dhow up shop/dhow.toml --watch   and take over changes of manifest and modules while it runs
  dhow up --addr 0.0.0.0:80        serve them to the network
  dhow up -f dapr.yaml             start the programs of a multi-app file of Dapr, each with its API
  dhow up -f actors.yaml           start the actors of a manifest of waSCC
  dhow up config.json              the functions of a configuration of Layotto (see `dhow layotto`)

A SIGHUP reloads the manifest, too, but ends a host whose terminal was closed. Flags win over the
manifest's [host] section.")]
pub(crate) struct Up {
    /// The manifest
    #[arg(value_name = "FILE", default_value = "dhow.toml")]
    manifest: PathBuf,
    /// Where apps are served [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT", env = "DHOW_ADDR", value_parser = parse_address)]
    addr: Option<SocketAddr>,
    /// Where the Dapr API is served to programs outside, or "off" [default: 127.0.0.1:3500]
    #[arg(long, value_name = "HOST:PORT", value_parser = optional_address)]
    api_addr: Option<Optional>,
    /// Where metrics and health are served, or "off" [default: 127.0.0.1:9090]
    #[arg(long, value_name = "HOST:PORT", value_parser = optional_address)]
    management_addr: Option<Optional>,
    /// Where the embedded providers keep their files [default: .dhow beside the manifest or dapr.yaml]
    #[arg(long, value_name = "DIR", env = "DHOW_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Reload when the manifest or a module changes, without dropping a request
    #[arg(long)]
    watch: bool,
    /// Start all programs of this dapr.yaml, or of the one in this folder, as `dapr run -f` does, or all actors of this
    /// manifest of waSCC
    #[arg(long, short = 'f', value_name = "FILE", conflicts_with = "manifest")]
    run_file: Option<PathBuf>,
    #[command(flatten)]
    fetching: Fetching,
    #[command(flatten)]
    trust: TrustArgs,
}

/// An address, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Optional(pub(crate) Option<SocketAddr>);

pub(crate) fn optional_address(text: &str) -> Result<Optional, String> {
    match text {
        "off" => Ok(Optional(None)),
        text => parse_address(text)
            .map(|address| Optional(Some(address)))
            .map_err(|expected| format!("{expected}, or off")),
    }
}

pub(crate) fn execute(up: Up, loggers: Arc<Levels>) -> Result<ExitCode, Error> {
    serve::block_on(async {
        match &up.run_file {
            Some(file) if crate::wascc::is_manifest(file) => up.start().await,
            Some(_) if let Some(flag) = up.trust.any() => Err(not_for_programs(flag)),
            Some(file) => {
                let flags = [
                    ("--api-addr", up.api_addr.is_some()),
                    ("--management-addr", up.management_addr.is_some()),
                    ("--watch", up.watch),
                ];
                if let Some((flag, _)) = flags.into_iter().find(|(_, is_given)| *is_given) {
                    let reason =
                        format!("{flag} has no meaning for a dapr.yaml, whose apps have an API each");
                    return Err(Error::usage(reason));
                }
                crate::run::run_all(file, up.data_dir.as_deref()).await
            }
            None if crate::layotto::is_configuration(&up.manifest) => {
                crate::layotto::start(up.manifest, up.data_dir, &up.trust, loggers).await
            }
            None => up.start().await,
        }
    })
}

impl Up {
    async fn start(self) -> Result<ExitCode, Error> {
        let path = self.run_file.clone().unwrap_or_else(|| self.manifest.clone());
        let access = self.fetching.access();
        let Loaded { manifest, components, ports } = load(&path, &access).await?;
        let mut resources = resources(&manifest)?;
        resources.components.extend(components);
        let data_dir = self.data_dir.clone().unwrap_or_else(|| manifest.host.data_dir.clone());
        let _lock = serve::lock(&data_dir)?;
        let host = serve::host(Components::new(resources, &data_dir), false)?;
        let fleet = Fleet::new(&host, Some(&data_dir.join("live")), access.clone());
        let fleet = fleet.map_err(|error| Error::new(error.to_string()))?;
        let mut serving = Serving::new(Arc::clone(&host)).with_fleet(&fleet);
        host.trust_in(self.trust.load(&manifest.trust)?).await;
        let api = Dapr::new(&host, None, ApiOptions::default());
        host.serve_runtime_api(Arc::clone(&api) as _);

        // Ports first: one that is taken is known before minutes of compiling.
        let begun = manifest.host.clone();
        let addr = serving.ingress(self.addr.unwrap_or(manifest.host.addr))?;
        let ports = ports
            .into_iter()
            .map(|(port, app_id)| Ok((serving.one_app(SocketAddr::new(addr.ip(), port), &app_id)?, app_id)));
        let ports = ports.collect::<Result<Vec<_>, Error>>()?;
        let api_addr = match self.api_addr.map_or(manifest.host.api_addr, |addr| addr.0) {
            Some(address) => Some(serving.dapr(address, api).await?),
            None => None,
        };
        let management_addr = match self.management_addr.map_or(manifest.host.management_addr, |addr| addr.0)
        {
            Some(address) => Some(serving.management(address)?),
            None => None,
        };
        // Before anything is read: what changes from now on is noticed, if only after the first version is up.
        let mut hangup = Hangup::listen()?;
        let mut signals = Signals::listen_but_hangup()?;
        let trust = self.trust.clone();
        let watched = {
            let (path, trust) = (path.clone(), trust.clone());
            move |manifest: &Manifest| -> Vec<PathBuf> {
                files(&path, manifest).into_iter().chain(trust.files(&manifest.trust)).collect()
            }
        };
        let mut changes = if self.watch { Some(Changes::watch(watched(&manifest))) } else { None };
        let name = std::path::absolute(&path)
            .ok()
            .and_then(|path| Some(path.parent()?.file_name()?.to_string_lossy().into_owned()));
        let info = HostInfo::new("up", name.as_deref().unwrap_or("dhow"), &data_dir).with_addr(addr);
        serving.announce(info.with_api_addr(api_addr).with_management_addr(management_addr));
        let stop = serving.stop.clone();
        let app_ids: Vec<String> = manifest.apps.keys().cloned().collect();
        let started = async {
            update(&fleet, &manifest, &access).await?;
            elsewhere::join(&mut serving, &app_ids, None).await
        };
        let names = tokio::select! {
            names = started => names?,
            () = signals.received() => return Ok(ExitCode::SUCCESS),
            () = stop.stopped() => return Ok(ExitCode::SUCCESS),
        };
        tell(&manifest, addr, api_addr, management_addr);
        for (addr, app_id) in &ports {
            crate::say(format_args!("  app {app_id}: http://{addr}"));
        }

        tokio::spawn(async move {
            let mut is_well = true;
            loop {
                let changed = async {
                    match &mut changes {
                        Some(changes) => changes.changed().await,
                        None => std::future::pending().await,
                    }
                };
                let meaning = tokio::select! {
                    () = changed => Meaning::Reload,
                    meaning = hangup.received() => meaning,
                };
                if meaning == Meaning::End {
                    stop.stop();
                    return;
                }
                let reloaded = async {
                    let manifest = load(&path, &access).await?.manifest;
                    if manifest.host != begun {
                        tracing::warn!(
                            "what [host] says is another now: it takes effect when the host is started anew"
                        );
                    }
                    // It may name other files now.
                    if let Some(changes) = &mut changes {
                        changes.follow(watched(&manifest));
                    }
                    // An app that is not trusted any more answers nothing from here on, whatever comes next.
                    let trust = tokio::task::block_in_place(|| trust.load(&manifest.trust))?;
                    for refused in fleet.trust_in(trust).await {
                        tracing::error!("it answers nothing from now on: {refused}");
                    }
                    update(&fleet, &manifest, &access).await
                };
                match reloaded.await {
                    Ok(0) if is_well => {}
                    Ok(changed) => {
                        is_well = true;
                        tracing::info!("reloaded: {changed} apps changed");
                    }
                    Err(error) => {
                        is_well = false;
                        tracing::error!("not reloaded, the apps that run stay: {error}");
                    }
                }
            }
        });
        let ended = serving.until_stopped(signals).await;
        if let Some(names) = names {
            names.close().await;
        }
        ended.map(|()| ExitCode::SUCCESS)
    }
}

/// Makes the host run what the manifest says; the answer is how many apps are new, changed or gone. If one app cannot be
/// prepared, everything stays as it was.
async fn update(fleet: &Arc<Fleet>, manifest: &Manifest, access: &Access) -> Result<usize, Error> {
    let unbuilt = unbuilt(manifest);
    if !unbuilt.is_empty() {
        return Err(Error::new(format!(
            "modules are not there yet; `dhow build {}` makes them",
            unbuilt.join(" ")
        )));
    }
    let progress = progress(manifest.apps.len());
    let specs = manifest.apps.iter().map(|(app_id, app)| {
        let mut spec = AppSpec::from_manifest(app_id, app, &manifest.limits(app_id));
        spec.source = spec.source.with_access(access);
        spec
    });
    let verify = |apps: &BTreeMap<String, Arc<App>>| wrong_filters(manifest, apps);
    let shown = progress.clone();
    let seen = move |app_id: Option<&str>| match app_id {
        Some(app_id) => shown.set_message(app_id.to_owned()),
        None => shown.inc(1),
    };
    let changed = fleet.configure(specs.collect(), verify, seen).await;
    progress.finish_and_clear();
    changed.map_err(|failures| Error::new(failures.join("\n")))
}

/// Apps whose module is not there, while the manifest says how it is made.
fn unbuilt(manifest: &Manifest) -> Vec<&str> {
    let is_missing = |module: &ModuleSource| matches!(module, ModuleSource::Path(path) if !path.exists());
    let apps = manifest.apps.iter().filter(|(_, app)| app.build.is_some() && is_missing(&app.module));
    apps.map(|(app_id, _)| app_id.as_str()).collect()
}

/// Apps that are named as filters and are none.
fn wrong_filters(manifest: &Manifest, apps: &BTreeMap<String, Arc<App>>) -> Vec<String> {
    let mut failures = Vec::new();
    for (app_id, app) in &manifest.apps {
        for filter in &app.filters {
            if apps.get(&filter.app_id).is_some_and(|filter| !filter.is_filter()) {
                let (file, line, name) = (manifest.file.display(), filter.line, &filter.app_id);
                failures.push(format!(
                    "{file}:{line}:{}: apps.{app_id}.filters: app {name:?} is no filter: its module does not \
                     speak proxy-wasm",
                    filter.column
                ));
            }
        }
    }
    failures
}

/// Files whose change means a reload.
fn files(path: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let modules = manifest.apps.values().filter_map(|app| match &app.module {
        ModuleSource::Path(path) => Some(path.clone()),
        ModuleSource::Url(_) | ModuleSource::Oci { .. } => None,
    });
    std::iter::once(path.to_owned()).chain(modules).collect()
}

/// What a file says: a manifest, and what one of waSCC has beside it.
struct Loaded {
    manifest: Manifest,
    components: Vec<Component>,
    /// Ports of one app each.
    ports: Vec<(u16, String)>,
}

async fn load(path: &Path, access: &Access) -> Result<Loaded, Error> {
    if crate::wascc::is_manifest(path) {
        let Plan { manifest, components, ports } = crate::wascc::load(path, access).await?;
        return Ok(Loaded { manifest, components, ports });
    }
    let manifest = Manifest::load(path).map_err(|error| Error::new(error.to_string()))?;
    Ok(Loaded { manifest, components: Vec::new(), ports: Vec::new() })
}

fn resources(manifest: &Manifest) -> Result<Resources, Error> {
    read_resources(&manifest.resource_dirs(), None)
}

/// Reads resources from folders, and the configuration from a file of its own. What has no effect is logged.
pub(crate) fn read_resources(dirs: &[PathBuf], configuration: Option<&Path>) -> Result<Resources, Error> {
    let mut resources = load_dirs(dirs).map_err(|error| Error::new(error.to_string()))?;
    if let Some(file) = configuration {
        let configuration = configuration::load(file).map_err(|error| Error::new(error.to_string()))?;
        resources.configurations.insert(0, configuration);
    }
    for configuration in &resources.configurations {
        for unused in &configuration.unused {
            tracing::warn!("{unused}");
        }
        let without_effect = [
            ("httpPipeline", configuration.http_pipeline.is_empty()),
            ("appHttpPipeline", configuration.app_http_pipeline.is_empty()),
            ("nameResolution", configuration.name_resolution.is_none()),
            ("features", configuration.features.is_empty()),
            ("metrics.rules", configuration.metrics.rules.is_empty()),
        ];
        for (field, _) in without_effect.into_iter().filter(|(_, is_absent)| !is_absent) {
            tracing::warn!("spec.{field} of the configuration has no effect in this version of dhow");
        }
    }
    let denied: Vec<String> =
        resources.configurations.iter().flat_map(|found| found.denied_components.clone()).collect();
    resources.components.retain(|component| {
        let is_denied = denied.iter().any(|pattern| denies(pattern, component));
        if is_denied {
            let (file, line) = (component.file.display(), component.line);
            let (name, kind) = (&component.name, &component.component_type);
            tracing::warn!(
                "{file}:{line}: component {name:?} of type {kind:?} is denied by the configuration"
            );
        }
        !is_denied
    });
    for ignored in &resources.ignored {
        let hint = ignored.nearest.as_ref().map(|kind| format!("; did you mean {kind}?")).unwrap_or_default();
        tracing::warn!(
            "{}:{}: a document of kind {:?} is ignored{hint}",
            ignored.file.display(),
            ignored.line,
            ignored.kind
        );
    }
    for later in &resources.later {
        let (file, line, kind) = (later.file.display(), later.line, &later.kind);
        tracing::warn!("{file}:{line}: {kind} resources are not part of this version of dhow and ignored");
    }
    Ok(resources)
}

/// Whether an entry of `spec.components.deny` is meant for a component: its type, perhaps with a version behind.
fn denies(pattern: &str, component: &Component) -> bool {
    let (kind, version) = match pattern.rsplit_once('/') {
        Some((kind, version)) => (kind, Some(version)),
        None => (pattern, None),
    };
    let same_version = version.is_none_or(|version| version.eq_ignore_ascii_case(&component.version));
    kind.eq_ignore_ascii_case(&component.component_type) && same_version
}

fn tell(manifest: &Manifest, addr: SocketAddr, api: Option<SocketAddr>, management: Option<SocketAddr>) {
    let count = manifest.apps.len();
    crate::say(format_args!(
        "{count} app{} up on http://{addr} (Ctrl-C stops)",
        if count == 1 { "" } else { "s" }
    ));
    for (app_id, app) in manifest.apps.iter().take(20) {
        let routes = text::routes(&app.routes, &app.hosts);
        crate::say(format_args!("  {app_id}: {}", routes.as_deref().unwrap_or("reached by invocation")));
    }
    if count > 20 {
        crate::say(format_args!("  … `dhow ps` lists all"));
    }
    if let Some(api) = api {
        crate::say(format_args!("  Dapr API: http://{api}/v1.0/metadata"));
    }
    if let Some(management) = management {
        crate::say(format_args!("  metrics: http://{management}/metrics"));
    }
}

/// Shown on a terminal.
fn progress(apps: usize) -> ProgressBar {
    let progress = ProgressBar::new(apps as u64);
    if let Ok(style) = ProgressStyle::with_template("Preparing apps {bar:30} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    progress
}
