//! `dhow push`: a module to a registry.

use crate::client;
use crate::error::Error;
use crate::registries::Registry;
use clap::Args;
use dhow_artifacts::manifest::{Annotations, Interfaces};
use dhow_artifacts::push::{Artifact, push};
use dhow_artifacts::reference::{Reference, SCHEME, Selector};
use dhow_artifacts::{DEFAULT_LIMIT, Source, read_module};
use dhow_engine::{Program, image};
use jiff::Timestamp;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Upload a module to a registry
#[derive(Args)]
#[command(after_help = "\
It becomes a Wasm artifact (application/wasm) that says what the module imports and exports. Prints
the reference with the digest, which means this content for ever. SOURCE_DATE_EPOCH sets the time in
it, so that the digest is the same each time.

EXAMPLES
  dhow push orders.wasm oci://ghcr.io/acme/orders:1.4.2
  dhow push orders.wasm oci://ghcr.io/acme/orders:1.4.2 --tag 1.4 --tag latest
  dhow push orders.wasm oci://ghcr.io/acme/orders:1.4.2 --revision \"$(git rev-parse HEAD)\" \\
      --annotation org.opencontainers.image.source=https://github.com/acme/orders
  dhow push orders.wasm oci://127.0.0.1:5000/orders --insecure 127.0.0.1:5000")]
pub(crate) struct Push {
    /// File (.wasm, or .wat: text), URL, or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    module: String,
    /// Where to: oci://HOST[:PORT]/REPOSITORY[:TAG] [default: :latest]
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Another tag (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// What else is said of it (repeatable)
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = annotation)]
    annotations: Vec<(String, String)>,
    /// What people call it [default: the file's name]
    #[arg(long)]
    title: Option<String>,
    /// The revision of its source
    #[arg(long)]
    revision: Option<String>,
    /// Who made it
    #[arg(long)]
    author: Option<String>,
    /// Print the digest alone
    #[arg(long)]
    print_digest: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "print_digest")]
    json: bool,
    #[command(flatten)]
    registry: Registry,
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

pub(crate) fn execute(args: &Push) -> Result<ExitCode, Error> {
    if args.module.starts_with(SCHEME) {
        return Err(Error::usage(format!(
            "the module comes first: dhow push FILE {}; to copy between registries, `dhow pull --output FILE` first",
            args.module
        )));
    }
    let reference: Reference = args.reference.parse().map_err(|error| Error::usage(format!("{error}")))?;
    if let Selector::Range(range) = reference.selector() {
        return Err(Error::usage(format!(
            "{range:?} is a range of versions, which is for pulls; push to a tag, such as :1.0.0"
        )));
    }
    let source = Source::parse(&args.module);
    let runtime = client::runtime()?;
    let bytes = runtime.block_on(read_module(&source, DEFAULT_LIMIT, |_, _| {}))?;
    let wasm = image::binary(&bytes).map_err(|error| Error::new(format!("{source}: {error}")))?;
    let program = Program::recognise(&wasm).map_err(|error| Error::new(format!("{source}: {error}")))?;
    let inspection = &program.inspection;
    let is_component = inspection.kind == dhow_engine::Kind::Component;
    let artifact = Artifact {
        component: is_component
            .then(|| Interfaces { exports: inspection.exports.clone(), imports: inspection.imports.clone() }),
        module: wasm.into_owned().into(),
        created: created(),
        author: args.author.clone(),
        title: args.title.clone().or_else(|| title(&source)),
        annotations: args.annotations(),
    };
    let spinner = crate::run::spinner(&format!("Pushing to {}", reference.registry()));
    let pushed = runtime.block_on(push(&reference, &args.tags, &artifact, &args.registry.access()));
    spinner.finish_and_clear();
    let pushed = pushed?;
    for reference in &pushed.references {
        crate::say(format_args!("pushed {reference}"));
    }
    let pinned = reference.with_selector(Selector::Digest(pushed.digest.clone()));
    let mut out = std::io::stdout().lock();
    if args.json {
        let references: Vec<String> = pushed.references.iter().map(ToString::to_string).collect();
        let said = json!({
            "reference": pinned.to_string(),
            "digest": pushed.digest,
            "size": artifact.module.len(),
            "sent": pushed.sent,
            "references": references,
        });
        writeln!(out, "{said:#}")?;
    } else if args.print_digest {
        writeln!(out, "{}", pushed.digest)?;
    } else {
        writeln!(out, "{pinned}")?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Push {
    fn annotations(&self) -> Annotations {
        let mut annotations: Annotations = self.annotations.iter().cloned().collect();
        let known = [("title", &self.title), ("revision", &self.revision)];
        for (name, value) in known {
            if let Some(value) = value {
                annotations.insert(format!("org.opencontainers.image.{name}"), value.clone());
            }
        }
        annotations
    }
}

/// Now, or the time that builds agree upon (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn created() -> String {
    let agreed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let time = agreed.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or_else(Timestamp::now);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn title(source: &Source) -> Option<String> {
    match source {
        Source::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    }
}
