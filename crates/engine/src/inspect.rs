//! What a file is: module or component, which ABI it speaks, what it imports and exports.
//!
//! The ABI is read from imports and exports, never configured. Nothing is compiled here, so this is quick
//! for any size and safe for any input.

use std::fmt;
use wasmparser::{Encoding, ExternalKind, Parser, Payload};

/// How the file is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A core WebAssembly module.
    Module,
    /// A WebAssembly component.
    Component,
}

/// How a guest and the host talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abi {
    /// Component that exports `wasi:http/incoming-handler@0.2`.
    Http2,
    /// Component that exports `wasi:http/handler@0.3`.
    Http3,
    /// Component that exports `wasi:cli/run@0.2`.
    Cli2,
    /// Component that exports `wasi:cli/run@0.3`.
    Cli3,
    /// Component that exports `dhow:step/step@0.1`: a step of a workflow.
    Step,
    /// Component that exports nothing of the above, but handlers of events: messages, jobs, binding events.
    Events,
    /// Core module with WASI preview 1 (or no) imports and `_start`, or one that runs in its start function.
    Preview1,
    /// Core module for a proxy-wasm host, or a function made for Layotto.
    ProxyWasm,
    /// Core module for a waPC host.
    Wapc,
    /// None of these; the module cannot be run.
    Unknown,
}

/// What was found in a file.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Encoding.
    pub kind: Kind,
    /// The ABI that its exports and imports show.
    pub abi: Abi,
    /// Imports, in order: interface or `module::name`.
    pub imports: Vec<String>,
    /// Exports, in order.
    pub exports: Vec<String>,
    /// `producers` and other custom sections by name and size in bytes.
    pub custom_sections: Vec<(String, usize)>,
    /// Of a waPC module: which of [`OPERATIONS`] are among its data.
    pub operations: Vec<&'static str>,
}

/// Texts in the data of waPC modules that show how they want to be called: names of operations and of fields, which
/// differ between the hosts that they were made for.
pub const OPERATIONS: [&str; 6] = [
    "DeliverMessage",
    "HandleMessage",
    "replyTo",
    "statusCode",
    "wascc:http_server!HandleRequest",
    "wascc:messaging!DeliverMessage",
];

/// The file cannot be read as WebAssembly.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidModule {
    /// No WebAssembly magic number at the beginning.
    #[error("not a WebAssembly file: it begins with {beginning}")]
    NotWasm {
        /// The first bytes, made readable.
        beginning: String,
    },
    /// Magic number seen, and then something is broken.
    #[error("damaged or truncated WebAssembly at byte {offset}: {reason}")]
    Damaged {
        /// Where.
        offset: usize,
        /// What the parser said.
        reason: String,
    },
}

/// Reads the outer structure of a module or component in binary form.
pub fn inspect(wasm: &[u8]) -> Result<Inspection, InvalidModule> {
    if !wasm.starts_with(b"\0asm") {
        return Err(InvalidModule::NotWasm { beginning: readable(wasm) });
    }
    let mut found = Inspection {
        kind: Kind::Module,
        abi: Abi::Unknown,
        imports: Vec::new(),
        exports: Vec::new(),
        custom_sections: Vec::new(),
        operations: Vec::new(),
    };
    let mut depth = 0_u32;
    let mut has_start_function = false;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(damaged)? {
            Payload::Version { encoding: Encoding::Component, .. } if depth == 0 => {
                found.kind = Kind::Component
            }
            // Nested modules and components follow inline; only the outermost level is of interest.
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    let import = import.map_err(damaged)?;
                    found.imports.push(format!("{}::{}", import.module, import.name));
                }
            }
            Payload::StartSection { .. } if depth == 0 => has_start_function = true,
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    // A program begins with a function; any other export of that name is no beginning.
                    if export.name != "_start" || export.kind == ExternalKind::Func {
                        found.exports.push(export.name.to_owned());
                    }
                }
            }
            // Data come after exports.
            Payload::DataSection(section) if depth == 0 && is_wapc(&found) => {
                for data in section {
                    find_operations(&mut found.operations, data.map_err(damaged)?.data);
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(import.map_err(damaged)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export.map_err(damaged)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 0 => {
                found.custom_sections.push((section.name().to_owned(), section.data().len()));
            }
            _ => {}
        }
    }
    found.abi = abi(&found, has_start_function);
    Ok(found)
}

// === impl Abi ===

impl Abi {
    /// The guest answers HTTP requests itself, without a process-like start.
    pub fn is_http(self) -> bool {
        matches!(self, Abi::Http2 | Abi::Http3)
    }

    /// The guest waits for what arrives: requests or events.
    pub fn is_service(self) -> bool {
        self.is_http() || matches!(self, Abi::Events | Abi::ProxyWasm | Abi::Wapc)
    }

    /// The guest runs like a program: arguments in, exit code out.
    pub fn is_command(self) -> bool {
        matches!(self, Abi::Cli2 | Abi::Cli3 | Abi::Preview1)
    }
}

impl fmt::Display for Abi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Abi::Http2 => "wasi:http/incoming-handler@0.2",
            Abi::Http3 => "wasi:http/handler@0.3",
            Abi::Cli2 => "wasi:cli/run@0.2",
            Abi::Cli3 => "wasi:cli/run@0.3",
            Abi::Step => "dhow:step/step@0.1",
            Abi::Events => "event handlers",
            Abi::Preview1 => "wasi preview 1 command",
            Abi::ProxyWasm => "proxy-wasm",
            Abi::Wapc => "waPC",
            Abi::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Module => "module",
            Kind::Component => "component",
        })
    }
}

/// Exports that take events, by their beginning.
const EVENT_HANDLERS: [&str; 5] = [
    "dhow:runtime/binding-handler@0.1.",
    "dhow:runtime/job-handler@0.1.",
    "dhow:runtime/topic-handler@0.1.",
    "wasi:messaging/incoming-handler@0.2.0-draft",
    "wasmcloud:messaging/handler@0.2.",
];

/// What a module imports whose whole program may be its start function.
const SYSTEM: [&str; 2] = ["wasi_snapshot_preview1::", "wasi_experimental_http::"];

fn abi(found: &Inspection, has_start_function: bool) -> Abi {
    let exports = |prefix: &str| found.exports.iter().any(|name| name.starts_with(prefix));
    let asks_the_system =
        || found.imports.iter().any(|name| SYSTEM.iter().any(|module| name.starts_with(module)));
    match found.kind {
        // A component with a handler is a service even if it also has a `run`.
        Kind::Component if exports("wasi:http/incoming-handler@0.2") => Abi::Http2,
        Kind::Component if exports("wasi:http/handler@0.3") => Abi::Http3,
        // A toolchain for programs may add a `run` that does nothing.
        Kind::Component if exports("dhow:step/step@0.1.") => Abi::Step,
        Kind::Component if exports("wasi:cli/run@0.2") => Abi::Cli2,
        Kind::Component if exports("wasi:cli/run@0.3") => Abi::Cli3,
        Kind::Component if EVENT_HANDLERS.iter().any(|handler| exports(handler)) => Abi::Events,
        Kind::Component => Abi::Unknown,
        Kind::Module if exports("proxy_abi_version_") || exports("proxy_on_") || exports("proxy_get_id") => {
            Abi::ProxyWasm
        }
        Kind::Module if is_wapc(found) => Abi::Wapc,
        Kind::Module if found.exports.iter().any(|name| name == "_start") => Abi::Preview1,
        Kind::Module if has_start_function && asks_the_system() => Abi::Preview1,
        Kind::Module => Abi::Unknown,
    }
}

fn is_wapc(found: &Inspection) -> bool {
    found.exports.iter().any(|name| name == "__guest_call")
}

/// Finds texts in the encodings of most languages and of AssemblyScript.
fn find_operations(found: &mut Vec<&'static str>, data: &[u8]) {
    let has = |text: &[u8]| data.windows(text.len()).any(|window| window == text);
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for text in OPERATIONS {
        if !found.contains(&text) && (has(text.as_bytes()) || has(&wide(text))) {
            found.push(text);
        }
    }
}

fn damaged(error: wasmparser::BinaryReaderError) -> InvalidModule {
    InvalidModule::Damaged { offset: error.offset(), reason: error.message().to_owned() }
}

fn readable(bytes: &[u8]) -> String {
    match bytes.get(..bytes.len().min(16)) {
        None | Some([]) => "nothing: it is empty".to_owned(),
        Some(beginning) => format!("{:?}", beginning.escape_ascii().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abi_is_read_from_imports_and_exports() {
        let cases = [
            ("(module (func (export \"_start\")))", Kind::Module, Abi::Preview1),
            ("(module (func (export \"proxy_abi_version_0_2_1\")))", Kind::Module, Abi::ProxyWasm),
            ("(module (func (export \"proxy_on_log\")))", Kind::Module, Abi::ProxyWasm),
            ("(module (func (export \"proxy_get_id\")))", Kind::Module, Abi::ProxyWasm),
            ("(module (func (export \"__guest_call\")))", Kind::Module, Abi::Wapc),
            ("(module)", Kind::Module, Abi::Unknown),
            ("(module (func $f) (start $f))", Kind::Module, Abi::Unknown),
            (
                "(module (import \"wasi_experimental_http\" \"close\" (func (param i32) (result i32))) \
                 (func $f) (start $f))",
                Kind::Module,
                Abi::Preview1,
            ),
            ("(module (import \"wasi_snapshot_preview1\" \"f\" (func)))", Kind::Module, Abi::Unknown),
            ("(component)", Kind::Component, Abi::Unknown),
            // An export of a nested module is not an export of the component.
            ("(component (core module (func (export \"_start\"))))", Kind::Component, Abi::Unknown),
            (
                "(component (instance $i) (export \"wasi:http/incoming-handler@0.2.3\" (instance $i)))",
                Kind::Component,
                Abi::Http2,
            ),
            (
                "(component (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))",
                Kind::Component,
                Abi::Cli2,
            ),
            (
                "(component (instance $i) (export \"wasi:http/handler@0.3.0\" (instance $i)))",
                Kind::Component,
                Abi::Http3,
            ),
            (
                "(component (instance $i) (export \"wasi:messaging/incoming-handler@0.2.0-draft\" (instance $i)))",
                Kind::Component,
                Abi::Events,
            ),
            // A handler beside an HTTP server does not make it another kind of app.
            (
                "(component (instance $i) (export \"dhow:runtime/job-handler@0.1.0\" (instance $i)) \
                 (export \"wasi:http/incoming-handler@0.2.3\" (instance $i)))",
                Kind::Component,
                Abi::Http2,
            ),
            (
                "(component (instance $i) (export \"wasi:messaging/incoming-handler@0.3.0\" (instance $i)))",
                Kind::Component,
                Abi::Unknown,
            ),
        ];
        for (text, kind, abi) in cases {
            let found = inspect(&wat::parse_str(text).unwrap()).unwrap();
            assert_eq!((found.kind, found.abi), (kind, abi), "{text}");
        }
    }

    #[test]
    fn operations_are_found_among_the_data_of_wapc_modules() {
        let data = r#"(memory 1) (data (i32.const 0) "xHandleMessageDeliverMessagx")
            (data (i32.const 64) "r\00e\00p\00l\00y\00T\00o\00")"#;
        let found = |export: &str| {
            let text = format!("(module (func (export \"{export}\")) {data})");
            inspect(&wat::parse_str(text).unwrap()).unwrap().operations
        };
        assert_eq!(found("__guest_call"), ["HandleMessage", "replyTo"]);
        assert!(found("_start").is_empty());
    }

    #[test]
    fn bad_files_are_told_apart() {
        assert!(matches!(inspect(b""), Err(InvalidModule::NotWasm { .. })));
        assert!(matches!(inspect(b"\x7fELF"), Err(InvalidModule::NotWasm { .. })));
        let whole =
            wat::parse_str("(module (import \"a\" \"b\" (func)) (func (export \"_start\")))").unwrap();
        for length in 4..whole.len() {
            // Cut at a section border what is left is a module, elsewhere it is damaged; it never panics.
            if let Err(error) = inspect(&whole[..length]) {
                assert!(matches!(error, InvalidModule::Damaged { .. }), "{length}: {error}");
            }
        }
        assert!(inspect(&whole[..whole.len() - 1]).is_err());
    }
}
