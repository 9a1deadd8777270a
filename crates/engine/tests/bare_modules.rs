//! Bare modules on the engine: compile cache, limits, interruption; no block and no ABI in sight.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use dhow_engine::{Cache, Code, Engine, EngineOptions, Flavor, Image, Limiter, Limits, Program};
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use wasmtime::{Instance, Store};

fn program(text: &str) -> (Program, Vec<u8>) {
    let wasm = wat_binary(text);
    (Program::recognise(&wasm).unwrap(), wasm)
}

fn wat_binary(text: &str) -> Vec<u8> {
    dhow_engine::image::binary(text.as_bytes()).unwrap().into_owned()
}

fn engine() -> Engine {
    Engine::new(EngineOptions::default()).unwrap()
}

/// Runs `f` of a module that was just loaded, to see that the code works.
fn answer(image: &Image) -> i32 {
    let Code::Module(module) = &image.code else { panic!("not a module") };
    let mut store = Store::new(module.engine(), ());
    store.set_epoch_deadline(1000);
    let instance = Instance::new(&mut store, module, &[]).unwrap();
    instance.get_typed_func::<(), i32>(&mut store, "f").unwrap().call(&mut store, ()).unwrap()
}

const MODULE: &str = "(module (memory 1) (data (i32.const 0) \"*\")
    (func (export \"f\") (result i32) (i32.load8_u (i32.const 0))))";

#[test]
fn compiled_code_is_found_again_and_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("compiled"), Cache::DEFAULT_MAX_BYTES).unwrap();
    let (program, wasm) = program(MODULE);
    for engine in
        [engine(), Engine::new(EngineOptions { pooling: false, ..EngineOptions::default() }).unwrap()]
    {
        let fresh = Image::cached(&engine, &cache, &program).unwrap();
        let image = match fresh {
            Some(image) => image,
            None => Image::compile(&engine, Some(&cache), &program, &wasm).unwrap(),
        };
        assert_eq!(answer(&image), 42);
        assert_eq!(answer(&Image::cached(&engine, &cache, &program).unwrap().expect("cached")), 42);
    }
    let entries: Vec<_> = fs::read_dir(folder.path().join("compiled")).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1, "pooling and on-demand share one entry, no temporary file is left");
    assert_eq!(entries[0].metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(folder.path().join("compiled")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn damaged_and_foreign_entries_are_detected_and_removed() {
    type Damage = fn(&PathBuf);
    let damages: [(&str, Damage); 5] = [
        ("one bit in the code", |path| flip(path, 4096)),
        ("one bit in the checksum", |path| flip(path, fs::metadata(path).unwrap().len() - 20)),
        ("cut short", |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(fs::metadata(path).unwrap().len() / 2).unwrap();
        }),
        ("empty", |path| fs::write(path, b"").unwrap()),
        ("something else", |path| fs::write(path, vec![7; 100_000]).unwrap()),
    ];
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("c").as_path(), Cache::DEFAULT_MAX_BYTES).unwrap();
    let (program, wasm) = program(MODULE);
    for (name, damage) in damages {
        Image::compile(&engine, Some(&cache), &program, &wasm).unwrap();
        let path = cache.path(program.digest, engine.wasmtime(Flavor::Plain).unwrap());
        damage(&path);
        assert!(Image::cached(&engine, &cache, &program).unwrap().is_none(), "{name}");
        assert!(!path.exists(), "{name}: the entry is removed");
    }
}

fn flip(path: &PathBuf, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn the_least_recently_used_entries_go_first() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("c");
    let modules: Vec<_> = (0..4)
        .map(|n| program(&format!("(module (func (export \"f\") (result i32) (i32.const {n})))")))
        .collect();
    let roomy = Cache::open(&at, Cache::DEFAULT_MAX_BYTES).unwrap();
    Image::compile(&engine, Some(&roomy), &modules[0].0, &modules[0].1).unwrap();
    let size =
        fs::metadata(roomy.path(modules[0].0.digest, engine.wasmtime(Flavor::Plain).unwrap())).unwrap().len();
    let tight = Cache::open(&at, size * 3 + size / 2).unwrap();
    for (program, wasm) in &modules[1..3] {
        Image::compile(&engine, Some(&tight), program, wasm).unwrap();
    }
    // Module 0 is the oldest, until it is used.
    assert!(Image::cached(&engine, &tight, &modules[0].0).unwrap().is_some());
    Image::compile(&engine, Some(&tight), &modules[3].0, &modules[3].1).unwrap();
    let kept: Vec<bool> = modules
        .iter()
        .map(|(program, _)| Image::cached(&engine, &tight, program).unwrap().is_some())
        .collect();
    assert_eq!(kept, [true, false, true, true]);
}

#[test]
fn many_writers_of_one_entry_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("c"), Cache::DEFAULT_MAX_BYTES).unwrap();
    let (program, wasm) = program(MODULE);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let engine =
                    Engine::new(EngineOptions { pooling: false, ..EngineOptions::default() }).unwrap();
                for _ in 0..5 {
                    assert_eq!(answer(&Image::compile(&engine, Some(&cache), &program, &wasm).unwrap()), 42);
                    assert_eq!(answer(&Image::cached(&engine, &cache, &program).unwrap().unwrap()), 42);
                }
            });
        }
    });
}

#[test]
fn what_others_put_in_the_place_of_a_folder_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    // As Kubernetes makes folders: whoever is there may exchange what is in it.
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let cache = Cache::open(&shared.join("compiled"), Cache::DEFAULT_MAX_BYTES).unwrap();
    let (program, wasm) = program(MODULE);
    let engine = engine();
    Image::compile(&engine, Some(&cache), &program, &wasm).unwrap();
    fs::rename(shared.join("compiled"), shared.join("ours")).unwrap();
    fs::create_dir(shared.join("compiled")).unwrap();
    assert!(
        Image::cached(&engine, &cache, &program).unwrap().is_some(),
        "it is still the one that was opened"
    );
    // An entry that others could have written is not run.
    let entry = fs::read_dir(shared.join("ours")).unwrap().next().unwrap().unwrap().path();
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(Image::cached(&engine, &cache, &program).unwrap().is_none());
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Cache::open(folder.path(), 1).unwrap_err().to_string();
    assert!(error.contains("others may write") && error.contains("DHOW_CACHE_DIR"), "{error}");

    let file = folder.path().join("file");
    fs::File::create(&file).unwrap().seek(SeekFrom::Start(0)).unwrap();
    fs::OpenOptions::new().write(true).open(&file).unwrap().write_all(b"x").unwrap();
    assert!(Cache::open(&file.join("below"), 1).is_err());
}

#[test]
fn limits_refuse_growth_and_say_which() {
    let engine = engine();
    let cases = [
        ("(module (memory 1) (func (export \"f\") (result i32) (memory.grow (i32.const 100))))", "memory"),
        (
            "(module (table 1 funcref) (func (export \"f\") (result i32) (table.grow (ref.null func) (i32.const 99999))))",
            "table",
        ),
    ];
    for (text, kind) in cases {
        let (program, wasm) = program(text);
        let image = Image::compile(&engine, None, &program, &wasm).unwrap();
        let Code::Module(module) = &image.code else { panic!() };
        let limits = Limits { memory: 2 << 20, table_elements: 1000, instances: 2 };
        let mut store = Store::new(module.engine(), Limiter::new(limits));
        store.limiter(|limiter| limiter);
        store.set_epoch_deadline(1000);
        let instance = Instance::new(&mut store, module, &[]).unwrap();
        let grown =
            instance.get_typed_func::<(), i32>(&mut store, "f").unwrap().call(&mut store, ()).unwrap();
        assert_eq!(grown, -1, "{kind}");
        assert!(store.data().refused().unwrap().contains(kind));
    }
}

#[test]
fn an_endless_loop_is_interrupted() {
    let engine = engine();
    for pass in 0..3 {
        let (program, wasm) = program("(module (func (export \"f\") (loop (br 0))))");
        let image = Image::compile(&engine, None, &program, &wasm).unwrap();
        let Code::Module(module) = &image.code else { panic!() };
        let mut store = Store::new(module.engine(), ());
        store.set_epoch_deadline(3);
        let instance = Instance::new(&mut store, module, &[]).unwrap();
        let _running = engine.running();
        let trap =
            instance.get_typed_func::<(), ()>(&mut store, "f").unwrap().call(&mut store, ()).unwrap_err();
        assert_eq!(trap.downcast_ref::<wasmtime::Trap>(), Some(&wasmtime::Trap::Interrupt), "pass {pass}");
    }
}

#[test]
fn components_of_both_flavors_load() {
    let engine = engine();
    let (program, wasm) = program("(component)");
    let image = Image::compile(&engine, None, &program, &wasm).unwrap();
    assert!(matches!(image.code, Code::Component(_)));
    let concurrent = engine.wasmtime(Flavor::Concurrent).unwrap();
    assert!(!wasmtime::Engine::same(concurrent, engine.wasmtime(Flavor::Plain).unwrap()));
}
