//! Calls of the sockets of core modules with any arguments, in any order.
//!
//! The input is a list of calls: a byte that chooses the function, then for each parameter a byte that chooses one of the
//! usual numbers or announces four bytes of another one. Each call must answer with a code of the interface; a call that
//! waits is ended by the program's deadline.
#![no_main]

use dhow_artifacts::Source;
use dhow_engine::{Engine, EngineOptions};
use dhow_guest::{Ports, Stdio};
use dhow_host::{AppSpec, Components, Host, HostOptions, Module};
use dhow_resources::load::Resources;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;

include!("../socket_functions.rs");

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

struct World {
    runtime: Runtime,
    host: Arc<Host>,
    folder: TempDir,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let folder = TempDir::new().expect("a folder");
    let components = Components::new(Resources::default(), folder.path());
    let engine = Engine::new(EngineOptions::default()).expect("an engine");
    let options = HostOptions { engine, cache: None, components, keep_loaded: false };
    let host = runtime.block_on(async { Host::new(options) }).expect("a host");
    World { runtime, host, folder }
});

fuzz_target!(|input: &[u8]| {
    let file = WORLD.folder.path().join("calls.wat");
    std::fs::write(&file, module(input)).expect("writing");
    WORLD.runtime.block_on(async {
        let source = Source::Path(file);
        let mut spec = AppSpec::new("fuzz", source.clone());
        spec.grants.listen = vec!["127.0.0.1:0".parse().expect("a pattern")];
        spec.grants.connect = vec!["127.0.0.1".parse().expect("a pattern")];
        spec.bounds.program = Duration::from_millis(50);
        let module = Module::read(&source).await.map(Arc::new);
        let app = WORLD.host.prepare(spec, module, 1).await.expect("the module fits");
        if let Some(Err(error)) = app.run(&[], Stdio::Lines, &Ports::new()).await {
            assert!(!error.to_string().contains("unreachable"), "{error}");
        }
    });
});

/// The module that makes the calls.
fn module(input: &[u8]) -> String {
    let mut imports = String::new();
    for (index, (name, count)) in FUNCTIONS.iter().enumerate() {
        let params = "i32 ".repeat(*count);
        imports.push_str(&format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func $f{index} (param {params}) (result i32)))\n"
        ));
    }
    let mut body = String::new();
    let mut input = input.iter().copied();
    while let Some(function) = input.next() {
        let index = usize::from(function) % FUNCTIONS.len();
        for _ in 0..FUNCTIONS[index].1 {
            let choice = input.next().unwrap_or_default();
            let number = match USUAL.get(usize::from(choice)) {
                Some(number) => *number,
                None => u32::from_le_bytes(std::array::from_fn(|_| input.next().unwrap_or_default())),
            };
            body.push_str(&format!("i32.const {} ", number as i32));
        }
        body.push_str(&format!("call $f{index} i32.const 87 i32.gt_u if unreachable end\n"));
    }
    format!(
        "(module {imports}(memory (export \"memory\") 1)\
         (data (i32.const 64) \"\\50\\00\\00\\00\\04\\00\\00\\00\") (data (i32.const 80) \"\\7f\\00\\00\\01\")\n\
         (func (export \"_start\")\n{body}))"
    )
}
