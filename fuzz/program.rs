//! A program that makes the calls an input stands for, and the host that runs it.
//!
//! The input is a list of calls: a byte that chooses the function, then for each parameter a byte that chooses one of the
//! usual numbers or announces four bytes of another one. Each call must answer with a code of the interface; a call that
//! waits is ended by the program's deadline.

use dhow_artifacts::Source;
use dhow_blocks::grants::Grants;
use dhow_engine::{Engine, EngineOptions};
use dhow_guest::{Ports, Stdio};
use dhow_host::{AppSpec, Components, Host, HostOptions, Module};
use dhow_resources::load::Resources;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An interface of core modules whose functions take and return numbers of 32 bits.
pub struct Interface {
    /// The module name of the imports.
    pub name: &'static str,
    /// Every function and how many parameters it has.
    pub functions: &'static [(&'static str, usize)],
    /// The highest code that a call answers with.
    pub highest: u32,
    /// What stands in the memory at address 64.
    pub data: &'static str,
}

/// The first descriptor of a socket.
const FD: u32 = 1 << 20;

const USUAL: [u32; 24] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    48,
    64,
    128,
    256,
    1024,
    65_528,
    65_535,
    65_536,
    65_540,
    FD,
    FD + 1,
    FD + 2,
    FD + 3,
    0x7fff_ffff,
    0x8000_0000,
    u32::MAX,
];

/// A host that lasts as long as the process.
pub struct World {
    runtime: Runtime,
    host: Arc<Host>,
    folder: TempDir,
}

impl World {
    pub fn new() -> World {
        let runtime = Runtime::new().expect("a runtime");
        let folder = TempDir::new().expect("a folder");
        let components = Components::new(Resources::default(), folder.path());
        let engine = Engine::new(EngineOptions::default()).expect("an engine");
        let options = HostOptions { engine, cache: None, components, keep_loaded: false };
        let host = runtime.block_on(async { Host::new(options) }).expect("a host");
        World { runtime, host, folder }
    }

    /// Runs the calls to their end, or for 50 ms.
    pub fn run(&self, interface: &Interface, grants: Grants, input: &[u8]) {
        let file = self.folder.path().join("calls.wat");
        std::fs::write(&file, interface.module(input)).expect("writing");
        self.runtime.block_on(async {
            let source = Source::Path(file);
            let mut spec = AppSpec::new("fuzz", source.clone());
            spec.grants = grants;
            spec.bounds.program = Duration::from_millis(50);
            let module = Module::read(&source).await.map(Arc::new);
            let app = self.host.prepare(spec, module, 1).await.expect("the module fits");
            if let Some(Err(error)) = app.run(&[], Stdio::Lines, &Ports::new()).await {
                assert!(!error.to_string().contains("unreachable"), "{error}");
            }
        });
    }
}

impl Interface {
    fn module(&self, input: &[u8]) -> String {
        let Interface { name, functions, highest, data } = self;
        let mut imports = String::new();
        for (index, (function, count)) in functions.iter().enumerate() {
            let params = "i32 ".repeat(*count);
            imports.push_str(&format!(
                "(import \"{name}\" \"{function}\" (func $f{index} (param {params}) (result i32)))\n"
            ));
        }
        let mut body = String::new();
        let mut input = input.iter().copied();
        while let Some(function) = input.next() {
            let index = usize::from(function) % functions.len();
            for _ in 0..functions[index].1 {
                let choice = input.next().unwrap_or_default();
                let number = match USUAL.get(usize::from(choice)) {
                    Some(number) => *number,
                    None => u32::from_le_bytes(std::array::from_fn(|_| input.next().unwrap_or_default())),
                };
                body.push_str(&format!("i32.const {} ", number as i32));
            }
            body.push_str(&format!("call $f{index} i32.const {highest} i32.gt_u if unreachable end\n"));
        }
        format!(
            "(module {imports}(memory (export \"memory\") 1)(data (i32.const 64) \"{data}\")\n\
             (func (export \"_start\")\n{body}))"
        )
    }
}
