//! `dhow pull`: a module from a registry, to run it later or to keep it.

use crate::client;
use crate::error::{Context, Error};
use crate::registries::{FetchingOne, download_bar, show};
use clap::Args;
use dhow_artifacts::DEFAULT_LIMIT;
use dhow_artifacts::error::FetchError;
use dhow_artifacts::pull::pull;
use dhow_artifacts::reference::{Reference, Selector};
use dhow_artifacts::sniff::sniff;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Download a module from a registry
#[derive(Args)]
#[command(after_help = "\
What was pulled is kept: `dhow run` of it needs no network (--offline). Without --output, nothing
else is written. Prints the reference with the digest, which means this content for ever.

EXAMPLES
  dhow pull oci://ghcr.io/acme/orders:1.4.2
  dhow pull oci://ghcr.io/acme/orders:^1.2          the highest tag that is a version of this range
  dhow pull oci://ghcr.io/acme/orders --output orders.wasm
  dhow pull oci://ghcr.io/acme/orders --cosign-key cosign.pub
  dhow pull oci://127.0.0.1:5000/orders --insecure 127.0.0.1:5000")]
pub(crate) struct Pull {
    /// What to pull: oci://HOST[:PORT]/REPOSITORY, and behind it :TAG, :RANGE or @DIGEST [default: :latest]
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Write the module to this file; - for standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the digest alone
    #[arg(long)]
    print_digest: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "print_digest")]
    json: bool,
    #[command(flatten)]
    fetching: FetchingOne,
}

pub(crate) fn execute(args: &Pull) -> Result<ExitCode, Error> {
    let bar = download_bar("Downloading");
    let access = args.fetching.access();
    let mut told = show(&bar);
    let pulled = client::runtime()?.block_on(pull(&args.reference, &access, DEFAULT_LIMIT, &mut told));
    bar.finish_and_clear();
    let pulled = pulled?;
    let kind = sniff(&pulled.module);
    if !kind.is_wasm() {
        return Err(FetchError::NotWasm { name: pulled.reference.to_string(), kind }.into());
    }
    let pinned = pulled.reference.with_selector(Selector::Digest(pulled.digest.clone()));
    let mut out = std::io::stdout().lock();
    match args.output.as_deref() {
        Some(path) if path == Path::new("-") => {
            out.write_all(&pulled.module)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(path) => {
            std::fs::write(path, &pulled.module).context(|| format!("cannot write {}", path.display()))?
        }
        None => {}
    }
    if args.json {
        let tag = match pulled.reference.selector() {
            Selector::Tag(tag) => Some(tag),
            _ => None,
        };
        let said = json!({
            "reference": pinned.to_string(),
            "tag": tag,
            "digest": pulled.digest,
            "size": pulled.module.len(),
            "file": args.output,
        });
        writeln!(out, "{said:#}")?;
    } else if args.print_digest {
        writeln!(out, "{}", pulled.digest)?;
    } else {
        writeln!(out, "{pinned}")?;
    }
    Ok(ExitCode::SUCCESS)
}
