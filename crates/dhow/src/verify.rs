//! `dhow verify`: whether a module's token holds, part by part.

use crate::error::Error;
use crate::registries::FetchingOne;
use crate::{client, text};
use clap::Args;
use dhow_artifacts::{DEFAULT_LIMIT, read_module};
use dhow_claims::token::Token;
use dhow_claims::verify::when;
use dhow_claims::{Capability, TrustStore, Verified};
use dhow_engine::image;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// Say whether a module's token holds: structure, algorithm, signature, hash, validity, and whom to trust
#[derive(Args)]
#[command(after_help = "\
Ends with 0 if everything holds, and with 1 if not; then it says which part does not.

A trust store is a text file: a public key or a token (`dhow keys vouch`) a line, # for comments.

EXAMPLES
  dhow verify app.wasm
  dhow verify app.wasm --trust trust.txt
  if dhow verify app.wasm --trust trust.txt --quiet; then ...")]
pub(crate) struct Verify {
    /// File (.wasm), URL, reference to a registry (oci://…), or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    module: String,
    /// Whom to trust; without it, the module only has to be what somebody signed
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Print nothing; the exit code is the answer
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    #[command(flatten)]
    fetching: FetchingOne,
}

pub(crate) fn execute(verify: &Verify) -> Result<ExitCode, Error> {
    let source = verify.fetching.source(&verify.module)?;
    let bytes = client::runtime()?.block_on(read_module(&source, DEFAULT_LIMIT, |_, _| {}))?;
    let wasm = image::binary(&bytes).map_err(|error| Error::new(format!("{source}: {error}")))?;
    let trust = verify.trust.as_deref().map(trust_store).transpose()?;
    let found = dhow_claims::verify(&wasm, trust.as_ref(), SystemTime::now());
    let mut out = std::io::stdout().lock();
    match found {
        Ok(_) if verify.quiet => {}
        Ok(Verified { token, chain, .. }) if verify.json => {
            let chain: Vec<&str> = chain.iter().map(dhow_claims::PublicKey::as_str).collect();
            writeln!(out, "{:#}", json!({"holds": true, "claims": as_json(&token), "chain": chain}))?;
        }
        Ok(Verified { token, chain, .. }) => {
            out.write_all(as_text(&token).as_bytes())?;
            let chain: Vec<String> = chain.iter().map(ToString::to_string).collect();
            match chain.as_slice() {
                [] => writeln!(
                    out,
                    "\nthe token holds; nobody was asked whether its issuer is trusted (--trust)"
                )?,
                chain => writeln!(out, "\nthe token holds; its issuer is trusted: {}", chain.join(" <- "))?,
            }
        }
        Err(refusal) if verify.json => {
            let claims = said(&wasm).as_ref().map(as_json);
            let (part, reason) = (refusal.part(), refusal.to_string());
            let found = json!({"holds": false, "part": part, "reason": reason, "claims": claims});
            writeln!(out, "{found:#}")?;
            return Ok(ExitCode::FAILURE);
        }
        Err(_) if verify.quiet => return Ok(ExitCode::FAILURE),
        Err(refusal) => {
            if let Some(token) = said(&wasm) {
                out.write_all(as_text(&token).as_bytes())?;
            }
            return Err(Error::new(format!("{source}: {refusal}")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the token of a module says, even if it does not hold; nothing if its signature is not that of who it names.
fn said(wasm: &[u8]) -> Option<Token> {
    Token::parse(dhow_claims::section::token(wasm).ok().flatten()?).ok()
}

/// Reads a trust store.
pub(crate) fn trust_store(path: &std::path::Path) -> Result<TrustStore, Error> {
    TrustStore::read(path).map_err(|error| match error {
        error @ dhow_claims::trust::TrustError::Line { .. } => {
            Error::new(format!("{}: {error}", path.display()))
        }
        error => Error::new(format!("trust store: {error}")),
    })
}

/// What a token says, for programs.
pub(crate) fn as_json(token: &Token) -> Value {
    let claims = &token.claims;
    let module = claims.module().cloned().unwrap_or_default();
    json!({
        "issuer": token.issuer.as_str(),
        "subject": token.subject.as_str(),
        "id": claims.id,
        "name": module.name,
        "version": module.version,
        "revision": module.rev,
        "capabilities": module.capabilities,
        "tags": module.tags,
        "callAlias": module.call_alias,
        "provider": module.is_provider,
        "hash": module.hash,
        "issued": when(claims.issued_at),
        "notBefore": claims.not_before.map(when),
        "expires": claims.expires.map(when),
    })
}

/// What a token says, for people.
pub(crate) fn as_text(token: &Token) -> String {
    let claims = &token.claims;
    let module = claims.module().cloned().unwrap_or_default();
    let mut rows = vec![
        ["issuer".to_owned(), token.issuer.to_string()],
        ["subject".to_owned(), token.subject.to_string()],
    ];
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push([name.to_owned(), text::printable(&value).into_owned()]);
        }
    };
    row("name", module.name);
    row("version", module.version);
    row("revision", module.rev.map(|rev| rev.to_string()));
    row("call alias", module.call_alias);
    row("tags", Some(module.tags.join(", ")).filter(|tags| !tags.is_empty()));
    row("issued", Some(when(claims.issued_at)));
    row("not before", claims.not_before.map(when));
    row("expires", Some(claims.expires.map_or_else(|| "never".to_owned(), when)));
    let what = |name: &String| match Capability::of(name) {
        Capability::Custom(_) => format!("{name} (allows nothing here)"),
        _ => name.clone(),
    };
    row(
        "capabilities",
        Some(match module.capabilities.as_deref() {
            None => "names no capabilities: the manifest alone limits it".to_owned(),
            Some([]) => "none".to_owned(),
            Some(names) => names.iter().map(what).collect::<Vec<String>>().join(", "),
        }),
    );
    text::table(&rows)
}
