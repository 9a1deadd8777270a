//! Flags of all commands that speak with registries.

use crate::error::Error;
use clap::Args;
use clap::builder::FalseyValueParser;
use dhow_artifacts::Source;
use dhow_artifacts::access::Access;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;

/// How a registry is spoken with.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Registry {
    /// Registry that is spoken with over plain HTTP (repeatable)
    #[arg(
        long,
        value_name = "HOST[:PORT]",
        env = "DHOW_INSECURE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    insecure: Vec<String>,
    /// PEM file with authorities that are trusted besides the system's
    #[arg(long, value_name = "FILE", env = "DHOW_CA", hide_env_values = true)]
    ca: Option<PathBuf>,
}

/// The same for commands that fetch from one.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Fetching {
    #[command(flatten)]
    registry: Registry,
    /// Use only what was downloaded from registries before
    #[arg(long, env = "DHOW_OFFLINE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    offline: bool,
}

/// The same for commands that fetch one module.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registries")]
pub(crate) struct FetchingOne {
    #[command(flatten)]
    fetching: Fetching,
    /// Take it only if it is signed with this key of cosign (cosign.pub)
    #[arg(long, value_name = "FILE")]
    cosign_key: Option<PathBuf>,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn access(&self) -> Access {
        // Who writes a reference here means its registry.
        let host = |text: &String| {
            let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
            rest.split('/').next().unwrap_or_default().to_owned()
        };
        Access {
            insecure: self.insecure.iter().map(host).collect(),
            ca: self.ca.clone(),
            ..Access::default()
        }
    }
}

// === impl Fetching ===

impl Fetching {
    pub(crate) fn access(&self) -> Access {
        Access { offline: self.offline, ..self.registry.access() }
    }
}

// === impl FetchingOne ===

impl FetchingOne {
    pub(crate) fn access(&self) -> Access {
        Access { cosign_key: self.cosign_key.clone(), ..self.fetching.access() }
    }

    /// What the user named. A signature that was asked for and could not be looked at would be no protection.
    pub(crate) fn source(&self, text: &str) -> Result<Source, Error> {
        let source = Source::parse(text).with_access(&self.access());
        if self.cosign_key.is_some() && !matches!(source, Source::Oci(_)) {
            return Err(Error::usage(format!(
                "--cosign-key is for modules in a registry (oci://…); {source} is none, and cosign's signatures are not \
                 in files"
            )));
        }
        if self.fetching.offline && matches!(source, Source::Url(_)) {
            return Err(Error::usage(format!(
                "--offline: {source} would have to be downloaded; only modules of registries (oci://…) are kept"
            )));
        }
        Ok(source)
    }
}

/// Shown on a terminal once there is something to download.
pub(crate) fn download_bar(what: &str) -> ProgressBar {
    let progress = ProgressBar::hidden();
    let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        progress.set_style(style);
    }
    progress.set_message(what.to_owned());
    progress
}

/// How far a download is, for [`download_bar`].
pub(crate) fn show(progress: &ProgressBar) -> impl FnMut(u64, Option<u64>) + Send + 'static {
    let progress = progress.clone();
    let mut is_shown = false;
    move |received, total| {
        if !std::mem::replace(&mut is_shown, true) {
            progress.set_draw_target(ProgressDrawTarget::stderr());
        }
        progress.set_length(total.unwrap_or(received));
        progress.set_position(received);
    }
}
