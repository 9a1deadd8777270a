//! `dhow sign`: puts a token into a module, with what its signer says that it may do.

use crate::error::{Context, Error};
use crate::keys::{Folder, now, token_id};
use clap::Args;
use dhow_artifacts::{DEFAULT_LIMIT, Source, read_module};
use dhow_claims::token::Token;
use dhow_claims::{Capability, Claims, ModuleClaims, PublicKey, Role, Subject, section};
use dhow_engine::image;
use serde_json::json;
use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Sign a module: who made it, and what it may do
#[derive(Args)]
#[command(after_help = "\
CAPABILITIES
  wasmcloud:keyvalue, :messaging, :httpserver, :httpclient, :blobstore, :logging, :eventstreams,
  :extras               a block as a whole; the older names wascc:... and wascap:... will do, too
  dhow:KIND, dhow:KIND=PATTERN
                        a kind of grants: state, invoke, publish, subscribe, bindings, secrets,
                        configuration, lock, sequencer, blob, cryption, email, jobs, http, connect,
                        listen; and files (folders), serve (to be asked by HTTP), log
  anything:else         kept for other hosts; allows nothing here

What a module may do is what its manifest grants and its token claims. A token that was there is
replaced.

EXAMPLES
  dhow sign app.wasm --cap wasmcloud:httpserver --cap dhow:state=orders
  dhow sign app.wasm -o signed.wasm --account acme --expires 90d --tag shop --version 1.2.0")]
pub(crate) struct Sign {
    /// The module (.wasm, or .wat: text)
    #[arg(value_name = "FILE")]
    module: PathBuf,
    /// Where to write the signed module [default: over the file; for text beside it, as .wasm]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Who signs: name or file of an account's key; made if it is not there
    #[arg(long, value_name = "KEY", default_value = "account")]
    account: String,
    /// Who the module is: name or file of its key, or its public key [default: the file's name; made if not there]
    #[arg(long, value_name = "KEY")]
    subject: Option<String>,
    #[command(flatten)]
    folder: Folder,
    /// A capability (repeatable)
    #[arg(long = "cap", value_name = "CAPABILITY", value_parser = capability)]
    capabilities: Vec<String>,
    /// A tag (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// What people call it [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    /// Version, such as 1.2.0
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Revision, a number that counts up
    #[arg(long, value_name = "NUMBER")]
    rev: Option<i32>,
    /// Another name to call it by
    #[arg(long, value_name = "NAME")]
    call_alias: Option<String>,
    /// It provides a capability rather than using some
    #[arg(long)]
    provider: bool,
    /// How long the token holds, such as 90d [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,
    /// When the token begins to hold, from now on, such as 1h [default: at once]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    not_before: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn capability(name: &str) -> Result<String, String> {
    if name.trim().is_empty() {
        return Err("a capability has a name, such as wasmcloud:keyvalue or dhow:state=orders".to_owned());
    }
    Capability::checked(name).map(|capability| capability.to_string()).map_err(|error| error.to_string())
}

pub(crate) fn execute(sign: &Sign) -> Result<ExitCode, Error> {
    let source = Source::Path(sign.module.clone());
    let bytes = crate::client::runtime()?.block_on(read_module(&source, DEFAULT_LIMIT, |_, _| {}))?;
    let wasm = image::binary(&bytes).map_err(|error| Error::new(format!("{source}: {error}")))?;
    let stem = sign.module.file_stem().and_then(|stem| stem.to_str()).unwrap_or("module");
    let account = sign.folder.key_or_new(&sign.account, Role::Account)?;
    let subject = match sign.subject.as_deref().map(str::parse::<PublicKey>) {
        Some(Ok(key)) => key.expect(Role::Module)?,
        _ => {
            let name = sign.subject.clone().unwrap_or_else(|| format!("{}.module", legal(stem)));
            sign.folder.key_or_new(&name, Role::Module)?.public_key()
        }
    };
    match (sign.expires, sign.not_before) {
        (Some(expires), Some(begins)) if expires <= begins => {
            return Err(Error::usage("--expires: the token would end before it begins to hold"));
        }
        (Some(Duration::ZERO), _) => crate::say("the token holds no more as soon as it is written"),
        _ => {}
    }
    let output = match &sign.output {
        Some(output) => output.clone(),
        // The text is somebody's source, and no text holds a token.
        None if matches!(wasm, Cow::Owned(_)) => beside(&sign.module)?,
        None => sign.module.clone(),
    };
    let at = |time: Option<Duration>| time.map(|time| now().saturating_add(time.as_secs()));
    let about = ModuleClaims {
        name: Some(sign.name.clone().unwrap_or_else(|| stem.to_owned())),
        hash: section::hash(&wasm)?,
        tags: sign.tags.clone(),
        capabilities: Some(sign.capabilities.clone()),
        rev: sign.rev,
        version: sign.version.clone(),
        call_alias: sign.call_alias.as_deref().map(alias),
        is_provider: sign.provider,
    };
    let claims = Claims {
        id: token_id(),
        subject: subject.to_string(),
        issued_at: now(),
        expires: at(sign.expires),
        not_before: at(sign.not_before),
        about: Subject::Module(about),
        ..Claims::default()
    };
    let token = Token::sign(claims, &account)?;
    let signed = section::embed(&wasm, &token.text)?;
    replace(&output, &signed)?;
    for name in &sign.capabilities {
        if matches!(Capability::of(name), Capability::Custom(_)) {
            let meant = Capability::nearest(name).map(|meant| format!("; did you mean {meant}?"));
            crate::say(format_args!("capability {name} allows nothing in dhow{}", meant.unwrap_or_default()));
        }
    }
    let mut out = std::io::stdout().lock();
    if sign.json {
        writeln!(
            out,
            "{}",
            json!({"file": output, "issuer": token.issuer.as_str(), "subject": subject.as_str()})
        )?;
    } else {
        writeln!(out, "{} is signed by {} as {subject}", output.display(), token.issuer)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the module of a text goes.
fn beside(text: &Path) -> Result<PathBuf, Error> {
    let output = text.with_extension("wasm");
    match output.exists() {
        true => Err(Error::usage(format!(
            "{} is text, and {} is there already; name the signed module with --output",
            text.display(),
            output.display()
        ))),
        false => Ok(output),
    }
}

/// The file is the old one or the new one, whatever happens. A link goes on to lead to it, and who may read it stays.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let real = fs::canonicalize(path);
    let path = real.as_deref().unwrap_or(path);
    let old = fs::metadata(path).map(|metadata| metadata.permissions()).ok();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = fs::File::create(&temporary)
        .and_then(|mut file| {
            // Before there is anything to read.
            old.map_or(Ok(()), |permissions| file.set_permissions(permissions))?;
            file.write_all(bytes).and_then(|()| file.sync_all())
        })
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.context(|| format!("cannot write {}", path.display()))
}

/// The stem of a file as a part of a key's name.
fn legal(stem: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    stem.chars().map(legal).collect()
}

/// As Wascap writes it: lower case, with underscores.
fn alias(name: &str) -> String {
    let kept = name.trim().chars().filter(char::is_ascii);
    kept.map(|c| if " -.".contains(c) { '_' } else { c.to_ascii_lowercase() }).collect()
}
