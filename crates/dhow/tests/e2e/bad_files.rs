//! Modules, manifests and resources that cannot be used: each is refused with its place and what to do.

use crate::support::{Setting, guest};
use std::fs;

/// A component that is a program and imports what nobody provides.
const STRANGE_COMPONENT: &str = r#"
    (component
      (import "acme:weather/forecast@1.2.0" (instance (export "today" (func))))
      (core module $m (func (export "run") (result i32) i32.const 0))
      (core instance $i (instantiate $m))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $r (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $r)))
"#;

#[test]
fn modules_that_cannot_run_are_refused_with_the_reason() {
    let setting = Setting::new();
    let component = fs::read(guest("http-hello")).unwrap();
    let module = fs::read(guest("p1-c")).unwrap();
    let mut damaged = module.clone();
    damaged[module.len() / 2..module.len() / 2 + 64].fill(0xff);
    let wasm = |text: &str| text.as_bytes().to_vec();
    // Name, content, what is said of it.
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty.wasm", vec![], &["not WebAssembly"]),
        ("text.wasm", wasm("just a text\n"), &["text.wasm is not WebAssembly"]),
        ("page.wasm", wasm("<!DOCTYPE html><html>"), &["is not WebAssembly", "HTML"]),
        (
            "program.wasm",
            [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 64]].concat(),
            &["is not WebAssembly", "ELF"],
        ),
        ("magic.wasm", wasm("\0asm"), &["magic.wasm is not WebAssembly", "damaged"]),
        (
            "half-component.wasm",
            component[..component.len() / 2].to_vec(),
            &["half-component.wasm", "damaged or truncated"],
        ),
        (
            "half-module.wasm",
            module[..module.len() / 2].to_vec(),
            &["half-module.wasm", "damaged or truncated"],
        ),
        ("damaged.wasm", damaged, &["damaged.wasm"]),
        ("garbage.wat", wasm("(module (func (export \"_start\") (i32.ad"), &["garbage.wat"]),
        (
            "invalid.wat",
            wasm("(module (func (export \"_start\") (i32.add)))"),
            &["invalid.wat", "type mismatch"],
        ),
        (
            "import.wat",
            wasm("(module (import \"env\" \"launch\" (func)) (func (export \"_start\")))"),
            &["env::launch", "dhow inspect"],
        ),
        (
            "sock.wat",
            wasm(
                "(module (import \"wasi_snapshot_preview1\" \"sock_fly\" (func (param i32))) (func (export \"_start\")))",
            ),
            &["sock_fly", "WasmEdge"],
        ),
        (
            "misfit.wat",
            wasm(
                "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)) (func (export \"_start\")))",
            ),
            &["imports do not fit", "fd_write"],
        ),
        ("component.wat", wasm(STRANGE_COMPONENT), &["acme:weather/forecast@1.2.0", "dhow inspect"]),
        ("no-export.wat", wasm("(module (func (export \"f\")))"), &["exports neither _start nor"]),
        ("no-component-export.wat", wasm("(component)"), &["wasi:http/incoming-handler", "wasi:cli/run"]),
        ("memory.wat", wasm("(module (memory 65536) (func (export \"_start\")))"), &["memory"]),
        ("table.wat", wasm("(module (table 10000000 funcref) (func (export \"_start\")))"), &["table"]),
    ];
    for (name, bytes, said) in cases {
        setting.file(name, &bytes);
        let ended = setting.run(&["run", name, "--addr", "127.0.0.1:0"]);
        assert!(matches!(ended.code, Some(1 | 125)), "{name}: {ended:?}");
        for said in said {
            assert!(ended.err.contains(said), "{name}: {said:?} is not in {ended:?}");
        }
        assert!(!ended.err.contains("panicked") && ended.out.is_empty(), "{name}: {ended:?}");
    }
}

#[test]
fn one_bad_module_is_named_and_nothing_starts() {
    let setting = Setting::with_manifest(
        "[apps.good]\nmodule = `http-hello`\nroutes = [\"/\"]\n[apps.bad]\nmodule = \"bad.wasm\"\n[apps.gone]\nmodule = \"gone.wasm\"\n",
    );
    setting.file("bad.wasm", b"\0asm\x01\0\0\0junk");
    let ended = setting.up_fails(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for said in ["app \"bad\"", "bad.wasm", "app \"gone\"", "gone.wasm does not exist"] {
        assert!(ended.err.contains(said), "{said:?} is not in {ended:?}");
    }
    assert!(!ended.err.contains("up on http://"), "{ended:?}");
}

#[test]
fn manifests_are_refused_with_line_and_advice() {
    let app = "[apps.a]\nmodule = `http-hello`\n";
    let with = |rest: &str| format!("{app}{rest}\n");
    // Manifest, what is said of it.
    let cases: Vec<(String, &[&str])> = vec![
        ("[apps.a\n".to_owned(), &["dhow.toml:1"]),
        ("[apps.a]\nmodule = \n".to_owned(), &["dhow.toml:2"]),
        ("[apps.a]\nroutes = [\"/\"]\n".to_owned(), &["dhow.toml:1", "has no module"]),
        (with("route = \"/\"\nroute = \"/x\""), &["dhow.toml:4"]),
        (with("rotues = [\"/\"]"), &["dhow.toml:3", "rotues", "routes"]),
        (with("routes = [\"no-slash\"]"), &["dhow.toml:3", "no-slash"]),
        (with("[apps.a.limits]\nmemroy = \"1MiB\""), &["dhow.toml:4", "memroy", "memory"]),
        (with("[apps.a.limits]\ntimeout = 5"), &["dhow.toml:4", "timeout"]),
        (with("[apps.a.limits]\nconcurrency = 0"), &["dhow.toml:4", "concurrency"]),
        (with("[apps.a.grants]\nhttp = [\"ftp://x\"]"), &["dhow.toml:4", "http or https"]),
        (with("[host]\nadr = \"127.0.0.1:0\""), &["dhow.toml:4", "adr", "addr"]),
        (with("[aps.b]\nmodule = \"x\""), &["dhow.toml:3", "aps", "apps"]),
        (
            with("routes = [\"/\"]\n[apps.b]\nmodule = `http-hello`\nroutes = [\"/\"]"),
            &["dhow.toml:6", "already claims in line 3"],
        ),
        ("[apps.\"not ok\"]\nmodule = `http-hello`\n".to_owned(), &["dhow.toml:1", "not ok"]),
        (with("dirs = [{ host = \"absent\", guest = \"/x\" }]"), &["absent", "cannot be given to the guest"]),
    ];
    for (manifest, said) in cases {
        let setting = Setting::with_manifest(&manifest);
        let ended = setting.up_fails(&[]);
        assert_eq!(ended.code, Some(1), "{manifest}: {ended:?}");
        for said in said {
            assert!(ended.err.contains(said), "{said:?} is not in what is said of {manifest}: {ended:?}");
        }
    }
}

#[test]
fn resources_are_refused_with_line_and_advice() {
    let head = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: s\n";
    let spec = |rest: &str| format!("{head}spec:\n{rest}");
    let cases: Vec<(String, &[&str])> = vec![
        (format!("{head}spec: [\n"), &["r.yaml:"]),
        (spec("  typ: state.in-memory\n"), &["r.yaml:6", "typ", "type"]),
        (spec("  version: v1\n"), &["r.yaml:6", "`type` is missing"]),
        (
            spec("  type: state.sqlit\n  version: v1\n"),
            &["r.yaml:1", "state.sqlit", "did you mean \"state.sqlite\""],
        ),
        (spec("  type: state.in-memory\n  version: v7\n"), &["r.yaml:1", "v7"]),
        (
            spec("  type: state.in-memory\n  metadata:\n  - name: keyPrefix\n    value: a||b\n"),
            &["r.yaml:1", "must not contain ||"],
        ),
    ];
    for (resource, said) in cases {
        let setting = Setting::with_manifest("[apps.a]\nmodule = `http-hello`\n");
        setting.file("resources/r.yaml", resource.as_bytes());
        let ended = setting.up_fails(&[]);
        assert_eq!(ended.code, Some(1), "{resource}: {ended:?}");
        for said in said {
            assert!(ended.err.contains(said), "{said:?} is not in what is said of {resource}: {ended:?}");
        }
    }
    // What another version of the file format may hold is not an error, and not silent either.
    let setting = Setting::with_manifest("[apps.a]\nmodule = `http-hello`\n");
    setting.file("resources/odd.yaml", b"apiVersion: v1\nkind: Secrets\nmetadata:\n  name: x\n");
    let mut host = setting.up(&[]);
    host.line(|line| line.contains("odd.yaml:1") && line.contains("Secrets"));
    host.stop();
}
