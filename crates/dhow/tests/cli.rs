//! The program as a user starts it: what it prints, where, and the exit code. No network, no compilers, and
//! no host running; each test has its own home.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Standard output and error as text, and the exit code.
#[derive(Debug)]
struct Ended {
    out: String,
    err: String,
    code: Option<i32>,
}

fn dhow(home: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
    command
        .current_dir(home.path())
        .env("HOME", home.path())
        .env("XDG_STATE_HOME", home.path().join("state"))
        .env("DHOW_CACHE_DIR", home.path().join("cache"))
        .env_remove("DHOW_KEYS")
        .env_remove("DHOW_LOG")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn run(home: &TempDir, args: &[&str]) -> Ended {
    ended(dhow(home).args(args).output().unwrap())
}

fn run_with_input(home: &TempDir, args: &[&str], input: &[u8]) -> Ended {
    let mut child = dhow(home)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    ended(child.wait_with_output().unwrap())
}

fn ended(output: Output) -> Ended {
    Ended {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code(),
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn home() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_is_enough_to_work_with() {
    let home = home();
    let commands = [
        "run",
        "up",
        "new",
        "build",
        "inspect",
        "keys",
        "sign",
        "verify",
        "push",
        "pull",
        "login",
        "logout",
        "invoke",
        "ps",
        "logs",
        "stop",
        "doctor",
        "completions",
        "version",
    ];
    let help = run(&home, &["--help"]);
    assert_eq!(help.code, Some(0));
    for expected in ["EXIT CODES", "124", "EXAMPLES", "DHOW_LOG"].iter().chain(&commands) {
        assert!(help.out.contains(expected), "{expected} is not in {}", help.out);
    }
    for command in commands {
        let help = run(&home, &["help", command]);
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.out.contains("Usage: dhow"), "{command}: {}", help.out);
        // The first line says what the command is for.
        assert!(help.out.lines().next().is_some_and(|line| line.len() > 15), "{command}: {}", help.out);
    }
    let version = run(&home, &["--version"]);
    assert!(version.out.starts_with("dhow ") && version.out.contains("wasmtime"), "{}", version.out);
    assert!(json(&run(&home, &["version", "--json"]).out)["wasmtime"].is_string());
}

#[test]
fn wrong_command_lines_are_answered_with_what_is_right() {
    let home = home();
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage:"),
        (&["inpsect", "x.wasm"], "'inspect'"),
        (&["inspect", "x.wasm", "--jsn"], "'--json'"),
        (&["inspect"], "FILE|URL|-"),
        (&["ps", "--log", "a=b=c"], "is no log filter"),
        (&["invoke", "front", "-H", "nonsense"], "NAME: VALUE"),
        (&["invoke", "front", "/a b"], "%XX"),
        (&["new", "shop"], "--template"),
        (&["new", "shop", "--template", "cobol"], "no template \"cobol\""),
        (&["new", "My_Shop", "--template", "c"], "try \"my-shop\""),
        (&["completions", "tcsh"], "bash"),
    ];
    for (args, expected) in cases {
        let ended = run(&home, args);
        assert_eq!(ended.code, Some(2), "{args:?}: {ended:?}");
        assert!(ended.err.contains(expected), "{args:?}: {}", ended.err);
        assert!(ended.out.is_empty(), "{args:?}: {}", ended.out);
    }
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name() == "shop").count(),
        0
    );
}

#[test]
fn inspect_tells_what_a_module_is() {
    let home = home();
    std::fs::write(
        home.path().join("tool.wat"),
        r#"(module
             (import "wasi_snapshot_preview1" "path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
             (import "wasi_snapshot_preview1" "sock_fly" (func))
             (func (export "_start")))"#,
    )
    .unwrap();
    let text = run(&home, &["inspect", "tool.wat"]);
    assert_eq!(text.code, Some(0), "{text:?}");
    for expected in [
        "module",
        "wasi preview 1 command",
        "blake3:",
        "--dir",
        "does not provide\n  wasi_snapshot_preview1::sock_fly",
    ] {
        assert!(text.out.contains(expected), "{expected}: {}", text.out);
    }
    let found = json(&run(&home, &["inspect", "tool.wat", "--json"]).out);
    assert_eq!(found["kind"], "module");
    assert_eq!(found["exports"], serde_json::json!(["_start"]));
    assert_eq!(found["runs"], "command");
    assert_eq!(found["grants"][0]["kind"], "dirs");
    assert_eq!(found["notProvided"], serde_json::json!(["wasi_snapshot_preview1::sock_fly"]));

    let component = run_with_input(&home, &["inspect", "-", "--json"], b"(component)");
    assert_eq!(json(&component.out)["runs"], "never", "{component:?}");
}

#[test]
fn inspect_says_what_is_wrong_with_a_file() {
    let home = home();
    let cases: &[(&str, &[u8], &str)] = &[
        ("page.wasm", b"<!DOCTYPE html><html></html>", "page.wasm is not WebAssembly"),
        ("empty.wasm", b"", "empty.wasm is not WebAssembly"),
        ("cut.wasm", b"\0asm\x01\0\0\0\x01\xff", "damaged or truncated"),
        ("typo.wat", b"(module (func (export \"_start\"", "typo.wat"),
        ("hostile.wat", b"(module (import \"\\1b[2J\" \"\" (func)))", ""),
    ];
    for (name, content, expected) in cases {
        std::fs::write(home.path().join(name), content).unwrap();
        let ended = run(&home, &["inspect", name]);
        assert_eq!(ended.code, Some(i32::from(!expected.is_empty())), "{name}: {ended:?}");
        assert!(ended.err.contains(expected), "{name}: {}", ended.err);
        assert!(!ended.out.contains('\x1b') && !ended.err.contains('\x1b'), "{name}: {ended:?}");
    }
    let missing = run(&home, &["inspect", "pgae.wasm"]);
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.err.starts_with("dhow: error: ") && missing.err.contains("\"page.wasm\""),
        "{}",
        missing.err
    );
    let line = json(&run(&home, &["--log-format", "json", "inspect", "pgae.wasm"]).err);
    assert_eq!(line["level"], "ERROR");
    assert!(line["message"].as_str().unwrap().contains("\"page.wasm\""), "{line}");
}

#[test]
fn every_template_makes_a_whole_app() {
    let home = home();
    let templates = json(&run(&home, &["new", "--list", "--json"]).out)["templates"].clone();
    let templates: Vec<&str> =
        templates.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(templates, ["c", "go", "js", "python", "rust"]);
    for template in templates {
        let name = format!("my-{template}");
        let made = run(&home, &["new", &name, "--template", template]);
        assert_eq!(made.code, Some(0), "{template}: {made:?}");
        assert!(made.out.contains("dhow build") && made.out.contains("dhow up"), "{}", made.out);
        let folder = home.path().join(&name);
        assert!(folder.join(".gitignore").is_file() && !folder.join("gitignore").exists(), "{template}");
        assert!(
            std::fs::read_to_string(folder.join("dhow.toml")).unwrap().contains(&format!("[apps.{name}]"))
        );
        no_placeholder(&folder);

        // The manifest is a valid one: the build gets as far as running its command.
        let manifest = folder.join("dhow.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let text: Vec<&str> = text
            .lines()
            .map(|l| if l.starts_with("command = ") { "command = \"exit 7\"" } else { l })
            .collect();
        std::fs::write(&manifest, text.join("\n")).unwrap();
        let built = run(&home, &["build", &name]);
        assert_eq!(built.code, Some(7), "{template}: {built:?}");

        let again = run(&home, &["new", &name, "--template", template]);
        assert_eq!(again.code, Some(1));
        assert!(again.err.contains("not empty"), "{}", again.err);
    }
}

#[test]
fn what_is_to_be_done_next_can_be_pasted() {
    let home = home();
    let tools = home.path().join("no tools");
    std::fs::create_dir(&tools).unwrap();
    let made = dhow(&home)
        .args(["new", "shop", "--template", "go", "--path", "the customer's shop"])
        .env("PATH", &tools)
        .output();
    let made = ended(made.unwrap());
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.out.starts_with("Made a WASI program in Go"), "{}", made.out);
    assert!(made.out.contains("\n  # go is not in PATH: install Go "), "{}", made.out);
    assert!(made.out.contains("\n  cd 'the customer'\\''s shop'\n"), "{}", made.out);
    // The commands behind the first line, up to those of dhow.
    let commands: Vec<&str> = made.out.lines().skip(1).take_while(|line| !line.contains("dhow")).collect();
    let script = format!("{}\ncat dhow.toml", commands.join("\n"));
    let shell = Command::new("sh").args(["-euc", &script]).current_dir(home.path()).output();
    let shell = ended(shell.unwrap());
    assert!(shell.code == Some(0) && shell.out.contains("[apps.shop]"), "{shell:?}");

    let refused = run(&home, &["new", "--list", "x"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("dhow new --list [--json]\n"), "{}", refused.err);
}

#[test]
fn a_change_of_requirements_is_installed() {
    let home = home();
    assert_eq!(run(&home, &["new", "shop", "--template", "python"]).code, Some(0));
    let (folder, tools) = (home.path().join("shop"), home.path().join("tools"));
    std::fs::create_dir(&tools).unwrap();
    // In the place of Python: an environment whose programs do as little as the build lets them.
    let python = tools.join("python3");
    let script = r#"#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\necho installed >> pip.log\n' > .venv/bin/pip
printf '#!/bin/sh\necho compiled > build/shop.wasm\n' > .venv/bin/componentize-py
chmod +x .venv/bin/*
"#;
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([tools].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let build = || {
        let built = dhow(&home).args(["build"]).current_dir(&folder).env("PATH", &path).output();
        let built = ended(built.unwrap());
        assert_eq!(built.code, Some(0), "{built:?}");
        std::fs::read_to_string(folder.join("pip.log")).unwrap().lines().count()
    };
    let requirements = std::fs::File::options().append(true).open(folder.join("requirements.txt")).unwrap();
    let now = std::time::SystemTime::now();
    requirements.set_modified(now - Duration::from_secs(60)).unwrap();
    assert_eq!([build(), build()], [1, 1]);
    requirements.set_modified(now + Duration::from_secs(60)).unwrap();
    assert_eq!(build(), 2);
}

fn no_placeholder(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_placeholder(&path);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("{{"), "{}", path.display());
        }
    }
}

#[test]
fn build_runs_commands_in_order_and_checks_their_output() {
    let home = home();
    let manifest = |b: &str| {
        format!(
            "[apps.a]\nmodule = \"out/a.wasm\"\n[apps.a.build]\ncommand = \"echo one; echo two >&2; echo x > out/a.wasm\"\n\
             [apps.b]\nmodule = \"out/b.wasm\"\n[apps.b.build]\ncommand = \"{b}\"\n\
             [apps.c]\nmodule = \"out/c.wasm\"\n"
        )
    };
    let file = home.path().join("dhow.toml");
    std::fs::write(&file, manifest("cp out/a.wasm out/b.wasm")).unwrap();
    let good = run(&home, &["build", "--json"]);
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.err.contains("a | one\n") && good.err.contains("a | two\n"), "{}", good.err);
    assert_eq!(json(&good.out)["apps"][1]["appId"], "b");
    assert!(home.path().join("out/b.wasm").is_file());

    let cases: &[(&str, &[&str], i32, &str)] = &[
        ("exit 42", &[], 42, "app \"b\" failed"),
        ("kill -9 $$", &[], 137, "app \"b\" failed"),
        ("rm -f out/b.wasm", &[], 1, "is not there"),
        ("exit 42", &["x"], 2, "no app \"x\"; it has: a, b, c"),
        ("exit 42", &["c"], 2, "dhow.toml:9: app \"c\" has no [apps.c.build]"),
        ("exit 42", &["a"], 0, ""),
    ];
    for (command, apps, code, expected) in cases {
        std::fs::write(&file, manifest(command)).unwrap();
        let ended = run(&home, &[&["build", "dhow.toml"], *apps].concat());
        assert_eq!(ended.code, Some(*code), "{command}: {ended:?}");
        assert!(ended.err.contains(expected), "{command}: {}", ended.err);
    }
    assert!(run(&home, &["build", "none.toml"]).err.contains("none.toml"));
}

#[test]
fn a_build_is_done_when_its_command_is() {
    let home = home();
    // What it leaves in the background holds the pipes until somebody writes into the FIFO.
    let command = "mkfifo gate && { cat gate & } && echo last && echo x > a.wasm";
    let manifest = format!("[apps.a]\nmodule = \"a.wasm\"\n[apps.a.build]\ncommand = \"{command}\"\n");
    std::fs::write(home.path().join("dhow.toml"), manifest).unwrap();
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let mut build = dhow(&home).arg("build").stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let since = Instant::now();
    let code = loop {
        match build.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if since.elapsed() > Duration::from_secs(60) => {
                build.kill().unwrap();
                break build.wait().unwrap().code();
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    // Opened for both, it does not wait for a reader; the other end sees the end of its file when it is closed.
    drop(std::fs::File::options().read(true).write(true).open(home.path().join("gate")));
    assert_eq!(code, Some(0));
    assert!(std::fs::read_to_string(home.path().join("log")).unwrap().contains("a | last\n"));
}

#[test]
fn completions_are_made_for_every_shell() {
    let home = home();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&home, &["completions", shell]);
        assert_eq!(script.code, Some(0), "{shell}");
        assert!(script.out.contains("inspect") && script.out.contains("dhow"), "{shell}");
    }
}

#[test]
fn doctor_looks_at_everything() {
    let home = home();
    let healthy = run(&home, &["doctor", "--json"]);
    let found = json(&healthy.out);
    assert_eq!(healthy.code, Some(i32::from(found["ok"] != true)), "{healthy:?}");
    for section in ["machine", "folders and ports", "project", "compilers"] {
        let checks = found["sections"][section].as_array().unwrap();
        assert!(
            !checks.is_empty() && checks.iter().all(|check| check["status"].is_string()),
            "{section}: {checks:?}"
        );
    }

    std::fs::write(home.path().join("dhow.toml"), "[apps.a]\nmodul = \"a.wasm\"\n").unwrap();
    let broken = run(&home, &["doctor"]);
    assert_eq!(broken.code, Some(1), "{broken:?}");
    assert!(broken.out.contains("dhow.toml:2:1") && broken.out.contains("Not ready"), "{}", broken.out);
}

#[test]
fn doctor_opens_the_components() {
    let home = home();
    std::fs::write(
        home.path().join("dhow.toml"),
        "[apps.a]\nmodule = \"a.wasm\"\n[apps.a.build]\ncommand = \"true\"\n",
    )
    .unwrap();
    std::fs::create_dir(home.path().join("resources")).unwrap();
    let component = |kind: &str| {
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: shop }}\n\
             spec: {{ type: {kind}, version: v1, metadata: [] }}\n"
        )
    };
    let cases = [("state.in-memory", "ok", "shop"), ("state.in-memroy", "missing", "state.in-memory")];
    for (kind, status, expected) in cases {
        std::fs::write(home.path().join("resources/shop.yaml"), component(kind)).unwrap();
        let found = json(&run(&home, &["doctor", "--json"]).out);
        let checks = found["sections"]["project"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "components").unwrap();
        assert_eq!(check["status"], status, "{check}");
        assert!(check["found"].as_str().unwrap().contains(expected), "{check}");
    }
}

#[test]
fn without_a_host_commands_say_how_to_start_one() {
    let home = home();
    let none = run(&home, &["ps"]);
    assert_eq!(none.code, Some(0));
    assert!(none.out.contains("No host is running"), "{}", none.out);
    assert_eq!(json(&run(&home, &["ps", "--json"]).out), serde_json::json!({ "hosts": [] }));

    let cases: &[&[&str]] =
        &[&["logs"], &["logs", "front", "-f"], &["stop"], &["stop", "shop", "--force"], &["invoke", "front"]];
    for args in cases {
        let ended = run(&home, args);
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        assert!(
            ended.err.contains("no host is running; start one with `dhow up`"),
            "{args:?}: {}",
            ended.err
        );
    }
    let all = run(&home, &["stop", "--all", "--json"]);
    assert_eq!((all.code, json(&all.out)), (Some(0), serde_json::json!({ "stopped": [] })));
}

#[test]
fn what_a_killed_host_left_behind_is_cleared_away() {
    let home = home();
    let folder = home.path().join("state/dhow/hosts");
    std::fs::create_dir_all(&folder).unwrap();
    let entry = folder.join("1.json");
    let host = serde_json::json!({
        "pid": 1, "identity": "another boot:1", "startedAt": 1, "command": "up", "name": "shop", "dataDir": "/tmp",
        "control": folder.join("1.sock"), "addr": null, "apiAddr": null, "managementAddr": null,
    });
    std::fs::write(&entry, host.to_string()).unwrap();
    assert_eq!(json(&run(&home, &["ps", "--json"]).out)["hosts"], serde_json::json!([]));
    assert!(!entry.exists());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = home();
    let mut child = dhow(&home)
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before the program can have filled the pipe.
    drop(child.stdout.take());
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
}

#[test]
fn keys_are_made_listed_and_kept_secret() {
    let home = TempDir::new().unwrap();
    let made = run(&home, &["keys", "new", "account"]);
    let public = made.out.trim().to_owned();
    assert_eq!((made.code, public.len(), public.starts_with('A')), (Some(0), 56, true), "{made:?}");
    let file = home.path().join(".config/dhow/keys/account.nk");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let again = run(&home, &["keys", "new", "account"]);
    assert!(again.code == Some(1) && again.err.contains("is there already"), "{again:?}");
    run(&home, &["keys", "new", "operator", "--name", "acme"]);
    let listed = json(&run(&home, &["keys", "list", "--json"]).out);
    assert_eq!(listed[0]["publicKey"], public.as_str());
    assert_eq!((&listed[1]["name"], &listed[1]["kind"]), (&"acme".into(), &"operator".into()));
    assert_eq!(run(&home, &["keys", "show", "account"]).out.trim(), public);
    let seed = run(&home, &["keys", "show", "account", "--seed"]).out;
    assert!(seed.starts_with("SA") && seed.trim().len() == 58);
    for output in [made, again, run(&home, &["keys", "list"]), run(&home, &["keys", "show", "account"])] {
        assert!(!output.out.contains(seed.trim()) && !output.err.contains(seed.trim()), "{output:?}");
    }
    for (args, code, said) in [
        (&["keys", "new", "acount"][..], 2, "the kinds are operator, account"),
        (&["keys", "new", "user", "--name", "../x y"], 2, "is no name for a key"),
        (&["keys", "show", "nobody"], 1, "there is no key \"nobody\""),
        (&["keys", "vouch", "account", "--by", "account"], 1, "here the key of operator is needed"),
    ] {
        let ended = run(&home, args);
        assert!(ended.code == Some(code) && ended.err.contains(said), "{args:?}: {ended:?}");
    }
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let exposed = run(&home, &["keys", "show", "account"]);
    assert!(exposed.code == Some(1) && exposed.err.contains("chmod 600"), "{exposed:?}");
}

#[test]
fn signing_leaves_what_is_not_its_own() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let text = "(module\n  ;; mine\n  (func (export \"_start\")))\n";
    std::fs::write(path("app.wat"), text).unwrap();
    let signed = run(&home, &["sign", "app.wat"]);
    assert!(signed.code == Some(0) && signed.out.starts_with("app.wasm is signed"), "{signed:?}");
    assert_eq!(std::fs::read_to_string(path("app.wat")).unwrap(), text);
    let again = run(&home, &["sign", "app.wat"]);
    assert!(again.code == Some(2) && again.err.contains("app.wasm is there already"), "{again:?}");

    std::fs::set_permissions(path("app.wasm"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("app.wasm", path("current.wasm")).unwrap();
    assert_eq!(run(&home, &["sign", "current.wasm", "--version", "2"]).code, Some(0));
    assert!(path("current.wasm").is_symlink());
    assert_eq!(std::fs::metadata(path("app.wasm")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(json(&run(&home, &["verify", "app.wasm", "--json"]).out)["claims"]["version"], "2");

    for never in [&["--not-before", "1h", "--expires", "5m"][..], &["--cap", " "]] {
        let refused = run(&home, &[&["sign", "app.wasm"], never].concat());
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
}

#[test]
fn a_policy_without_end_is_refused_and_ends_nothing() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("app.wat"), "(module (func (export \"_start\")))").unwrap();
    let nested = format!("package dhow\nallow if {{ x := {}1{}; x }}", "[".repeat(22), "]".repeat(22));
    for (policy, words) in [
        ("package dhow\nf(x) := f(x)\nallow if f(1)", "dhow.f -> dhow.f"),
        (nested.as_str(), "line 2: brackets stand in brackets"),
    ] {
        std::fs::write(home.path().join("policy.rego"), policy).unwrap();
        let refused = run(&home, &["run", "app.wat", "--policy", "policy.rego"]);
        assert!(refused.code.is_some() && refused.err.contains(words), "{refused:?}");
    }
}

#[test]
fn a_module_is_signed_verified_and_trusted() {
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("app.wat"), "(module (func (export \"_start\")))").unwrap();
    let unsigned = run(&home, &["verify", "app.wat"]);
    assert!(unsigned.code == Some(1) && unsigned.err.contains("is not signed"), "{unsigned:?}");
    let signed = run(
        &home,
        &[
            "sign",
            "app.wat",
            "-o",
            "app.wasm",
            "--cap",
            "wascap:keyvalue",
            "--cap",
            "dhow:http=example.com",
            "--tag",
            "shop",
            "--version",
            "1.2.0",
            "--expires",
            "30d",
        ],
    );
    assert_eq!(signed.code, Some(0), "{signed:?}");
    let verified = json(&run(&home, &["verify", "app.wasm", "--json"]).out);
    assert_eq!(verified["holds"], true);
    let claims = &verified["claims"];
    assert_eq!(claims["capabilities"], serde_json::json!(["wasmcloud:keyvalue", "dhow:http=example.com"]));
    assert_eq!((&claims["name"], &claims["version"]), (&"app".into(), &"1.2.0".into()));
    let inspected = run(&home, &["inspect", "app.wasm"]);
    assert!(
        inspected.out.contains("wasmcloud:keyvalue") && inspected.out.contains("the token holds"),
        "{inspected:?}"
    );
    assert_eq!(json(&run(&home, &["inspect", "app.wat", "--json"]).out)["token"], Value::Null);

    // A chain: the operator vouches for the account, which signed.
    let operator = run(&home, &["keys", "new", "operator"]).out;
    let vouched = run(&home, &["keys", "vouch", "account", "--by", "operator", "--expires", "1d"]).out;
    std::fs::write(home.path().join("trust.txt"), format!("# ours\n{operator}{vouched}")).unwrap();
    std::fs::write(home.path().join("others.txt"), vouched).unwrap();
    let trusted = run(&home, &["verify", "app.wasm", "--trust", "trust.txt"]);
    assert!(trusted.code == Some(0) && trusted.out.contains("its issuer is trusted"), "{trusted:?}");
    let stranger = run(&home, &["verify", "app.wasm", "--trust", "others.txt"]);
    assert!(
        stranger.code == Some(1) && stranger.err.contains("trust: no chain leads from A"),
        "{stranger:?}"
    );
    let quiet = run(&home, &["verify", "app.wasm", "--trust", "others.txt", "--quiet"]);
    assert_eq!((quiet.code, quiet.out.as_str(), quiet.err.as_str()), (Some(1), "", ""));

    let mut bytes = std::fs::read(home.path().join("app.wasm")).unwrap();
    let place = bytes.windows(6).position(|part| part == b"_start").unwrap();
    bytes[place] = b'-';
    std::fs::write(home.path().join("app.wasm"), bytes).unwrap();
    let changed = json(&run(&home, &["verify", "app.wasm", "--json"]).out);
    assert_eq!((&changed["holds"], &changed["part"]), (&false.into(), &"hash".into()));
    std::fs::write(home.path().join("trust.txt"), "nonsense\n").unwrap();
    let bad = run(&home, &["verify", "app.wasm", "--trust", "trust.txt"]);
    assert!(bad.err.contains("trust.txt: line 1: not a key"), "{bad:?}");
    let wrong = run(&home, &["sign", "app.wasm", "--cap", "dhow:stat"]);
    assert!(
        wrong.code == Some(2) && wrong.err.contains("did you mean dhow:state? its kinds are"),
        "{wrong:?}"
    );
    // Other hosts have other capabilities, and their names are legal.
    let other = run(&home, &["sign", "app.wat", "-o", "app.wasm", "--cap", "wascc:keyvalu"]);
    let said = "capability wascc:keyvalu allows nothing in dhow; did you mean wascc:keyvalue?";
    assert!(other.code == Some(0) && other.err.contains(said), "{other:?}");
}
