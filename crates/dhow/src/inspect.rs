//! `dhow inspect`: what a module is, what it can ask for, and how it is run.
//!
//! `inspect/needs.rs` draws the conclusions from the imports.

use crate::client;
use crate::error::Error;
use crate::registries::FetchingOne;
use crate::{text, verify};
use clap::Args;
use dhow_artifacts::{DEFAULT_LIMIT, Source, read_module};
use dhow_claims::token::Token;
use dhow_engine::{Inspection, Program, image};
use dhow_guest::provider::is_provider;
use needs::Needs;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

mod needs;

/// Say what a module is: kind, ABI, imports, exports, size, and which grants it may need
#[derive(Args)]
#[command(after_help = "\
Imports show what a module can ask for, not what it does: compilers of interpreted languages import
everything.

EXAMPLES
  dhow inspect app.wasm
  dhow inspect https://example.com/app.wasm --json
  dhow inspect oci://ghcr.io/acme/orders:1.4.2")]
pub(crate) struct Inspect {
    /// File (.wasm, or .wat: text), URL, reference to a registry (oci://…), or - for standard input
    #[arg(value_name = "FILE|URL|-")]
    module: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    fetching: FetchingOne,
}

pub(crate) fn execute(inspect: &Inspect) -> Result<ExitCode, Error> {
    let source = inspect.fetching.source(&inspect.module)?;
    let bytes = client::runtime()?.block_on(read_module(&source, DEFAULT_LIMIT, |_, _| {}))?;
    let wasm = image::binary(&bytes).map_err(|error| Error::new(format!("{source}: {error}")))?;
    let program = Program::recognise(&wasm).map_err(|error| Error::new(format!("{source}: {error}")))?;
    let needs = Needs::of(&program.inspection);
    // A URL is shown without its secrets, and then the user has to fill in the file.
    let module = if matches!(source, Source::Url(_)) { source.to_string() } else { inspect.module.clone() };
    let signed = signed(&wasm);
    let run = how_to_run(&program.inspection, &module, &needs);
    let mut out = std::io::stdout().lock();
    if inspect.json {
        writeln!(out, "{:#}", as_json(&source, &program, &needs, &run, signed.as_ref()))?;
    } else {
        out.write_all(as_text(&source, &program, &needs, &run, signed.as_ref()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The command line, and what it does; or why there is none.
enum Run {
    Serve(String),
    Command(String),
    Cannot(&'static str),
}

fn how_to_run(inspection: &Inspection, module: &str, needs: &Needs) -> Run {
    let abi = inspection.abi;
    let flags: String = needs.grants.iter().map(|need| format!(" {}", need.flag)).collect();
    let line = format!("dhow run {module}{flags}");
    if abi.is_service() {
        return Run::Serve(line);
    }
    if abi.is_command() {
        return Run::Command(line);
    }
    if is_provider(inspection) {
        return Run::Cannot(
            "it provides a block to apps: name it in a component of type state.wasm, secretstores.wasm or pubsub.wasm",
        );
    }
    Run::Cannot(
        "it exports no entry point that dhow knows: a component needs wasi:http/incoming-handler, wasi:cli/run \
         or a handler of events, a module needs _start",
    )
}

fn as_json(source: &Source, program: &Program, needs: &Needs, run: &Run, signed: Option<&Signed>) -> Value {
    let inspection = &program.inspection;
    let sections =
        inspection.custom_sections.iter().map(|(name, size)| json!({ "name": name, "size": size }));
    let grants = needs.grants.iter().map(|need| {
        json!({ "kind": need.kind, "because": need.because, "manifest": need.manifest, "flag": need.flag })
    });
    let (runs, command, reason) = match run {
        Run::Serve(line) => ("service", Some(line), None),
        Run::Command(line) => ("command", Some(line), None),
        Run::Cannot(reason) => ("never", None, Some(*reason)),
    };
    json!({
        "source": source.to_string(),
        "kind": inspection.kind.to_string(),
        "abi": inspection.abi.to_string(),
        "size": program.size,
        "digest": program.digest.to_string(),
        "imports": inspection.imports,
        "exports": inspection.exports,
        "customSections": sections.collect::<Vec<_>>(),
        "grants": grants.collect::<Vec<_>>(),
        "notProvided": needs.not_provided,
        "runs": runs,
        "command": command,
        "reason": reason,
        "token": signed.map(Signed::json),
    })
}

fn as_text(source: &Source, program: &Program, needs: &Needs, run: &Run, signed: Option<&Signed>) -> String {
    let inspection = &program.inspection;
    let size = program.size as u64;
    let exact = if size < 1024 { String::new() } else { format!(" ({size} bytes)") };
    let mut text = text::table(&[
        ["file".to_owned(), source.to_string()],
        ["kind".to_owned(), inspection.kind.to_string()],
        ["abi".to_owned(), inspection.abi.to_string()],
        ["size".to_owned(), format!("{}{exact}", text::size(size))],
        ["digest".to_owned(), program.digest.to_string()],
    ]);
    section(&mut text, "signed", &signed.map(Signed::lines).unwrap_or_default());
    section(&mut text, "imports", &inspection.imports);
    section(&mut text, "exports", &inspection.exports);
    let sections: Vec<String> = inspection
        .custom_sections
        .iter()
        .map(|(name, size)| format!("{name} ({})", text::size(*size as u64)))
        .collect();
    section(&mut text, "custom sections", &sections);
    let rows: Vec<[String; 2]> = needs
        .grants
        .iter()
        .map(|need| [need.manifest.to_owned(), format!("{} {}", need.how, need.because)])
        .collect();
    let grants: Vec<String> = text::table(&rows).lines().map(str::to_owned).collect();
    section(&mut text, "grants it may need (a line of the app in dhow.toml)", &grants);
    section(&mut text, "imports that dhow does not provide", &needs.not_provided);
    let _ = match run {
        Run::Serve(line) => write!(text, "\nto serve it\n  {line}\n"),
        Run::Command(line) => {
            write!(text, "\nto run it (to serve it as a CGI program: `dhow up` with a route)\n  {line}\n")
        }
        Run::Cannot(reason) => write!(text, "\ndhow cannot run it: {reason}\n"),
    };
    text
}

/// A module's token: what it says, and whether it holds.
struct Signed {
    token: Result<Token, String>,
    refusal: Option<String>,
}

fn signed(wasm: &[u8]) -> Option<Signed> {
    let token = match dhow_claims::section::token(wasm) {
        Ok(None) => return None,
        Ok(Some(text)) => Token::parse(text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let holds = dhow_claims::verify(wasm, None, SystemTime::now());
    Some(Signed { token, refusal: holds.err().map(|refusal| refusal.to_string()) })
}

// === impl Signed ===

impl Signed {
    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = match &self.token {
            Ok(token) => verify::as_text(token).lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        };
        lines.push(match &self.refusal {
            Some(refusal) => format!("the token does not hold: {refusal}"),
            None => "the token holds; `dhow verify --trust FILE` says whether to trust it".to_owned(),
        });
        lines
    }

    fn json(&self) -> Value {
        json!({
            "claims": self.token.as_ref().ok().map(verify::as_json),
            "holds": self.refusal.is_none(),
            "reason": self.refusal,
        })
    }
}

/// A heading with indented lines; nothing if there are none. Names come from the file: they may hold anything.
fn section(text: &mut String, heading: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(text, "\n{heading}\n");
    for line in lines {
        let _ = writeln!(text, "  {}", text::printable(line));
    }
}
