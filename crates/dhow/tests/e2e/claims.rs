//! Signed modules: what a token does not claim, an app does not get; what does not hold is not loaded.

use crate::messaging::{BLOCKS, call, shared};
use crate::state::component;
use crate::support::{Ended, Host, Setting, eventually, guest, http};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A guest in the folder, signed with these capabilities and flags; it is there at once.
pub(crate) fn signed(setting: &Setting, name: &str, file: &str, flags: &[&str]) -> PathBuf {
    let unsigned = guest(name);
    sign(setting, &[&[&*unsigned.to_string_lossy(), "-o", file], flags].concat());
    setting.path().join(file)
}

fn sign(setting: &Setting, arguments: &[&str]) {
    let ended = setting.run(&[&["sign"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// The public key of a new account, or of the one that there is.
pub(crate) fn account(setting: &Setting, name: &str) -> String {
    let _ = setting.run(&["keys", "new", "account", "--name", name]);
    setting.run(&["keys", "show", name]).out.trim().to_owned()
}

/// The sum of a metric's series that have all of these labels.
pub(crate) fn counted(host: &Host, name: &str, labels: &[&str]) -> f64 {
    let text = http::get(host.management.unwrap(), "/metrics").text();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let values = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Every function of every block, with a name of the block's own.
fn functions() -> [(&'static str, &'static str, Value); 10] {
    [
        ("state=statestore", "/state/get", json!({"store": "statestore", "key": "a"})),
        ("publish=pubsub/t", "/pubsub/publish", json!({"pubsub": "pubsub", "topic": "t", "data": "1"})),
        (
            "invoke=callee",
            "/invoke/call",
            json!({"app": "callee", "method": "GET", "path": "/echo", "body": "1"}),
        ),
        (
            "lock=lockstore",
            "/lock/try-lock",
            json!({"store": "lockstore", "resource": "r", "owner": "o", "expiry": 1000}),
        ),
        ("secrets=secretstore/open", "/secrets/get", json!({"store": "secretstore", "name": "open"})),
        ("secrets=secretstore", "/secrets/get-all", json!({"store": "secretstore"})),
        ("configuration=settings", "/configuration/get", json!({"store": "settings"})),
        (
            "bindings=files",
            "/binding/invoke",
            json!({"name": "files", "operation": "create", "data": "x", "metadata": {"fileName": "f"}}),
        ),
        ("jobs=j", "/jobs/schedule", json!({"name": "j", "due-time": "1h", "overwrite": true})),
        ("jobs=j", "/jobs/get", json!({"name": "j"})),
    ]
}

fn blocks_setting(capabilities: &[&str]) -> Setting {
    let setting = Setting::with_manifest(
        r#"
        [apps.blocks]
        module = "blocks.wasm"
        routes = ["/"]
        [apps.blocks.grants]
        state = ["*"]
        publish = ["pubsub"]
        invoke = ["callee"]
        lock = ["*"]
        secrets = ["secretstore"]
        configuration = ["*"]
        bindings = ["files"]
        jobs = ["*"]
        [apps.callee]
        module = `runtime-blocks`
        hosts = ["callee.test"]
        "#,
    );
    let flags: Vec<String> = capabilities.iter().map(|capability| format!("--cap={capability}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    signed(&setting, "runtime-blocks", "blocks.wasm", &flags);
    shared(&setting);
    setting.file(".dhow/secrets.json", br#"{"open": "sesame", "closed": "never"}"#);
    setting.file("settings.json", br#"{"greeting": "hello"}"#);
    let settings = setting.path().join("settings.json");
    let settings = [("configurationFile", &*settings.to_string_lossy())];
    setting.file(
        "resources/settings.yaml",
        component("settings", "configuration.local.file", &settings).as_bytes(),
    );
    let files = setting.path().join("files");
    fs::create_dir(&files).unwrap();
    let files = component("files", "bindings.localstorage", &[("rootPath", &files.to_string_lossy())]);
    setting.file("resources/files.yaml", files.as_bytes());
    setting
}

#[test]
fn what_is_granted_and_not_claimed_is_denied_in_every_block() {
    let setting = blocks_setting(&["wasmcloud:httpserver"]);
    let mut host = setting.up(&["--log-format", "json"]);
    for (capability, function, arguments) in functions() {
        let answer = call(&host, BLOCKS, function, &arguments);
        assert_eq!(answer["error"], "denied", "{function}: {answer}");
        let text = answer["text"].as_str().unwrap();
        let kind = capability.split('=').next().unwrap();
        assert!(text.contains(&format!("--cap dhow:{kind}")), "{function}: {text}");
        assert!(
            counted(&host, "dhow_denials_total", &["app_id=\"blocks\"", "by=\"token\"", kind]) >= 1.0,
            "{kind}"
        );
    }
    let line = host.line(|line| line.contains("\"audit\"") && line.contains("statestore"));
    let line: Value = serde_json::from_str(&line).unwrap();
    let (issuer, name) = (account(&setting, "account"), "statestore");
    for (field, value) in
        [("app_id", "blocks"), ("by", "token"), ("kind", "state"), ("name", name), ("issuer", &issuer)]
    {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(line["subject"].as_str().unwrap().starts_with('M'), "{line}");
    assert!(!host.stderr().contains("sesame"));
    // Not granted by the manifest is another story.
    let answer = call(&host, BLOCKS, "/invoke/call", &json!({"app": "absent", "method": "GET", "path": "/"}));
    assert!(answer["text"].as_str().unwrap().contains("has no grant"), "{answer}");
    // A guest that asks again and again does not fill the log.
    let lines = |host: &Host| host.stderr().lines().filter(|line| line.contains("\"audit\"")).count();
    let before = lines(&host);
    let began = std::time::Instant::now();
    for _ in 0..500 {
        call(&host, BLOCKS, "/state/get", &json!({"store": "statestore", "key": "a"}));
    }
    let allowed = 20 + began.elapsed().as_secs() as usize + 1;
    assert!(lines(&host) - before <= allowed, "{} lines", lines(&host) - before);
    assert!(counted(&host, "dhow_denials_total", &["by=\"token\"", "kind=\"state\""]) >= 501.0);
    host.stop();
}

#[test]
fn what_is_granted_and_claimed_works_by_name_and_by_block() {
    let by_name: Vec<String> = functions().iter().map(|(name, ..)| format!("dhow:{name}")).collect();
    let by_name: Vec<&str> = by_name.iter().map(String::as_str).chain(["dhow:serve"]).collect();
    let by_block = [
        "wascap:http_server",
        "wascc:keyvalue",
        "wasmcloud:messaging",
        "dhow:invoke",
        "dhow:lock=lock*",
        "dhow:secrets",
        "dhow:configuration",
        "wasmcloud:blobstore",
        "dhow:jobs",
    ];
    for capabilities in [&by_name[..], &by_block[..]] {
        let setting = blocks_setting(capabilities);
        let host = setting.up(&[]);
        for (_, function, arguments) in functions() {
            let answer = call(&host, BLOCKS, function, &arguments);
            assert!(answer.get("ok").is_some(), "{capabilities:?} {function}: {answer}");
        }
        assert_eq!(counted(&host, "dhow_denials_total", &["app_id=\"blocks\""]), 0.0);
        host.stop();
    }
}

#[test]
fn other_interfaces_are_under_the_same_claims() {
    let setting = Setting::with_manifest(
        r#"
        [apps.kv]
        module = "kv.wasm"
        routes = ["/"]
        hosts = ["kv.test"]
        grants = { state = ["*"] }
        [apps.out]
        module = "out.wasm"
        routes = ["/"]
        hosts = ["out.test"]
        grants = { state = ["*"], http = ["*"], invoke = ["hidden"] }
        [apps.hidden]
        module = "hidden.wasm"
        hosts = ["hidden.test"]
        [apps.hello]
        module = `http-hello`
        hosts = ["hello.test"]
        "#,
    );
    setting.file("resources/memory.yaml", component("memory", "state.in-memory", &[]).as_bytes());
    signed(&setting, "kv", "kv.wasm", &["--cap", "wascap:http_server", "--cap", "dhow:state=mem*"]);
    let out = ["--cap=dhow:serve", "--cap=dhow:http=allowed.test:1", "--cap=dhow:invoke"];
    signed(&setting, "outbound", "out.wasm", &out);
    signed(&setting, "http-hello", "hidden.wasm", &[]);
    let mut host = setting.up(&[]);
    let ask = |host: &Host, app: &str, method: &str, path: &str| {
        let answer = host.send(method, path, &[("host", &format!("{app}.test"))], b"x");
        (answer.status, answer.text())
    };
    // wasi:keyvalue and wasi:logging.
    assert_eq!(ask(&host, "kv", "POST", "/set?key=a&store=memory").0, 200);
    assert_eq!(ask(&host, "kv", "POST", "/set?key=a&store=statestore").0, 403);
    assert_eq!(ask(&host, "kv", "POST", "/log?level=info&message=unheard").0, 200);
    let counts = |host: &Host, app: &str, kind: &str| {
        counted(
            host,
            "dhow_denials_total",
            &[&format!("app_id=\"{app}\""), &format!("kind=\"{kind}\""), "token"],
        )
    };
    assert_eq!((counts(&host, "kv", "state"), counts(&host, "kv", "log")), (1.0, 1.0));
    assert!(!host.stderr().contains("unheard"));
    // wasi:http, and Dapr's API inside the guest.
    assert_eq!(ask(&host, "out", "POST", "/fetch?url=http://denied.test/").0, 502);
    let denied = counts(&host, "out", "http");
    assert!(denied >= 1.0);
    // Allowed, and nobody is there.
    assert_eq!(ask(&host, "out", "POST", "/fetch?url=http://allowed.test:1/").0, 502);
    assert_eq!(counts(&host, "out", "http"), denied);
    let (status, answer) = ask(&host, "out", "GET", "/dapr/v1.0/state/statestore/a");
    assert!(status == 403 && answer.contains("--cap dhow:state=statestore"), "{status} {answer}");
    // Not asked from outside, and asked by its neighbour all the same.
    let (status, answer) = ask(&host, "hidden", "GET", "/");
    assert!(status == 403 && answer.contains("--cap dhow:serve"), "{status} {answer}");
    let (status, answer) = ask(&host, "out", "GET", "/dapr/v1.0/invoke/hidden/method/");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(ask(&host, "hello", "GET", "/").0, 200);
    host.line(|line| line.contains("not claimed: log"));
    host.stop();
}

#[test]
fn folders_and_sockets_are_claimed_too() {
    let setting = Setting::new();
    setting.file("data/note.txt", b"found");
    let dir = format!("{}::/data", setting.path().join("data").display());
    let cases: [(&[&str], bool); 3] =
        [(&[], false), (&["--cap=dhow:files=/data"], true), (&["--cap=dhow:files"], true)];
    for (flags, code) in cases {
        signed(&setting, "p1-command", "tool.wasm", flags);
        let ended = setting.run(&["run", "tool.wasm", "--dir", &dir, "--", "cat", "/data/note.txt"]);
        assert_eq!(ended.code == Some(0), code, "{flags:?}: {ended:?}");
        assert_eq!(ended.err.contains("not claimed: files \"/data\""), !code, "{flags:?}: {ended:?}");
    }
}

#[test]
fn a_token_that_does_not_hold_is_named_and_nothing_is_loaded() {
    let setting = Setting::new();
    let issuer = account(&setting, "account");
    let unsigned = fs::read(guest("http-hello")).unwrap();
    let good = fs::read(signed(&setting, "http-hello", "good.wasm", &["--cap", "dhow:serve"])).unwrap();
    assert!(good.starts_with(&unsigned));
    let token = &good[unsigned.len()..];
    let with = |name: &str, parts: &[&[u8]]| setting.file(name, &parts.concat());
    with("changed.wasm", &[&good, b"\0\x02\x01x"]);
    with("twice.wasm", &[&good, token]);
    with("other.wasm", &[&fs::read(guest("http-chunky")).unwrap(), token]);
    let mut forged = good.clone();
    let last = forged.len() - 2;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    with("forged.wasm", &[&forged]);
    with("cut.wasm", &[&good[..good.len() - 20]]);
    with("none.wasm", &[&unsigned]);
    signed(&setting, "http-hello", "over.wasm", &["--expires", "0s"]);
    signed(&setting, "http-hello", "early.wasm", &["--not-before", "1h"]);
    signed(&setting, "http-hello", "stranger.wasm", &["--account", "stranger"]);
    setting.file("empty.txt", b"# nobody\n");
    setting.file("key.txt", issuer.as_bytes());
    setting.run(&["keys", "new", "operator"]);
    let vouched = setting.run(&["keys", "vouch", "account", "--by", "operator"]).out;
    // The operator that vouches is itself vouched for by nobody.
    setting.file("broken-chain.txt", vouched.as_bytes());
    setting.file("garbage.txt", b"what is this?\n");
    let over = setting.run(&["keys", "vouch", "account", "--by", "operator", "--expires", "0s"]).out;
    let operator = setting.run(&["keys", "show", "operator"]).out;
    setting.file("chain-over.txt", format!("{operator}{over}").as_bytes());
    // File, flags, what the error says.
    let cases: [(&str, &[&str], &str); 14] = [
        ("changed.wasm", &[], "hash: the token is for a module with the hash"),
        ("twice.wasm", &[], "structure: the module has 2 tokens"),
        ("other.wasm", &[], "hash: "),
        ("forged.wasm", &[], "signature: "),
        ("cut.wasm", &[], "cut.wasm: "),
        ("over.wasm", &[], "validity: the token expired 2"),
        ("early.wasm", &[], "validity: the token is valid from 2"),
        ("stranger.wasm", &["--trust", "key.txt"], "trust: no chain leads from A"),
        ("good.wasm", &["--trust", "empty.txt"], "trust: no chain leads from A"),
        ("good.wasm", &["--trust", "broken-chain.txt"], "trust: no chain leads from A"),
        ("good.wasm", &["--trust", "chain-over.txt"], "trust: the word for A"),
        ("good.wasm", &["--trust", "garbage.txt"], "garbage.txt: line 1"),
        ("good.wasm", &["--trust", "absent.txt"], "absent.txt"),
        ("none.wasm", &["--require-signed"], "the module is not signed; sign it with: dhow sign"),
    ];
    for (file, flags, said) in cases {
        let ended = setting.run(&[&["run", file, "--addr", "127.0.0.1:0"], flags].concat());
        let Ended { err, code, .. } = &ended;
        assert!(code.is_some_and(|code| code != 0) && err.contains(said), "{file} {flags:?}: {ended:?}");
        assert!(!err.contains("Serving") && !err.contains("panicked"), "{file}: {err}");
        if ["over.wasm", "early.wasm", "stranger.wasm"].contains(&file) {
            assert!(err.contains("signed by A") && err.contains(" as M"), "{file}: {err}");
        }
    }
    setting.file("dhow.toml", b"[trust]\nrequire_signed = true\n[apps.a]\nmodule = \"none.wasm\"\n");
    let ended = setting.up_fails(&[]);
    let is_named = ended.err.contains("app \"a\": ") && ended.err.contains("the module is not signed");
    assert!(ended.code == Some(1) && is_named, "{ended:?}");
    setting.file(".config/dhow/keys/account.nk", b"SAAAAnonsense");
    let ended = setting.run(&["sign", "none.wasm"]);
    assert!(ended.code == Some(1) && ended.err.contains("account.nk"), "{ended:?}");
    setting.serve(&setting.path().join("good.wasm"), &["--require-signed", "--trust", "key.txt"]).stop();
}

#[test]
fn a_token_that_expires_while_its_app_runs_ends_that() {
    let manifest = "[trust]\nstore = \"trust.txt\"\n[apps.a]\nmodule = \"a.wasm\"\nroutes = [\"/\"]\n";
    let setting = Setting::with_manifest(manifest);
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve"]);
    let operator = setting.run(&["keys", "new", "operator"]).out;
    let vouch = |expires: &str| {
        let token = setting.run(&["keys", "vouch", "account", "--by", "operator", "--expires", expires]).out;
        setting.file("trust.txt", format!("{operator}{token}").as_bytes());
    };
    // Compiled once, so that the second start takes little of the token's time.
    vouch("1h");
    setting.up(&[]).stop();
    vouch("15s");
    let mut host = setting.up(&[]);
    assert_eq!(host.get("/").status, 200);
    let answer =
        eventually("the end of the token", || Some(host.get("/")).filter(|answer| answer.status != 200));
    assert!(answer.status == 403 && answer.text().contains("expired 2"), "{answer:?}");
    host.line(|line| line.contains("expired 2") && line.contains("invocation"));
    assert!(
        counted(&host, "dhow_denials_total", &["app_id=\"a\"", "by=\"token\"", "kind=\"invocation\""]) >= 1.0
    );
    host.stop();
}

#[test]
fn who_is_not_trusted_any_more_answers_nothing_any_more() {
    let setting = Setting::with_manifest(
        "[trust]\nstore = \"trust.txt\"\n[apps.a]\nmodule = \"a.wasm\"\nroutes = [\"/\"]\n[apps.b]\nmodule = `http-hello`\nroutes = [\"/b\"]\n",
    );
    let issuer = account(&setting, "account");
    setting.file("trust.txt", issuer.as_bytes());
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve"]);
    let mut host = setting.up(&["--watch"]);
    assert_eq!((host.get("/").status, host.get("/b").status), (200, 200));
    setting.file("trust.txt", b"# nobody\n");
    let answer =
        eventually("the end of the trust", || Some(host.get("/")).filter(|answer| answer.status != 200));
    assert!(answer.status == 403 && answer.text().contains("not trusted any more"), "{answer:?}");
    host.line(|line| line.contains("it answers nothing from now on: app \"a\": trust: "));
    assert_eq!(host.get("/b").status, 200);
    let listed = setting.run(&["ps"]).out;
    let row = listed.lines().find(|line| line.split_whitespace().any(|word| word == "a")).unwrap();
    assert!(row.contains(" refused "), "{listed}");
    assert!(listed.contains("app \"a\" is refused: its module is not trusted any more: trust: "), "{listed}");
    let listed: Value = serde_json::from_str(&setting.run(&["ps", "--json"]).out).unwrap();
    let apps = &listed["hosts"][0]["apps"];
    assert!(apps[0]["refused"].as_str().is_some_and(|why| why.contains("trust: ")), "{apps}");
    assert!(apps[1]["refused"].is_null(), "{apps}");
    // A version that somebody trusted signed takes over.
    let other = account(&setting, "other");
    setting.file("trust.txt", other.as_bytes());
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--account", "other"]);
    eventually("the new version", || (host.get("/").status == 200).then_some(()));
    // An update that is not trusted does not take over, and what ran goes on.
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--account", "account"]);
    host.line(|line| line.contains("not reloaded") && line.contains("trust: no chain"));
    assert_eq!(host.get("/").status, 200);
    host.stop();
}

/// Trusts these keys, and no others, from now on; there is a policy that says this.
fn trust(setting: &Setting, host: &mut Host, keys: &[&str], policy: &str) {
    let known = host.stderr().matches("it answers nothing from now on").count();
    setting.file("trust.txt", keys.join("\n").as_bytes());
    let allow = format!("package dhow\ndefault allow := false\nallow if {policy}\ncause := \"ask Ada\"\n");
    setting.file("policy.rego", allow.as_bytes());
    host.signal(libc::SIGHUP);
    eventually("the other trust", || {
        (host.stderr().matches("it answers nothing from now on").count() > known).then_some(())
    });
}

const VERSIONS: &str = r#"
    [trust]
    store = "trust.txt"
    policy = "policy.rego"
    [apps.a]
    module = "one.wasm"
    routes = ["/"]
    [apps.other]
    module = "other.wasm"
"#;

/// An app `a` of one account with an update `two.wasm` of another one, both of which are trusted.
fn two_signers() -> (Setting, String, String) {
    let setting = Setting::with_manifest(VERSIONS);
    let (one, two) = (account(&setting, "one"), account(&setting, "two"));
    setting.file("trust.txt", format!("{one}\n{two}\n").as_bytes());
    setting.file("policy.rego", b"package dhow\nallow := true\n");
    let cap = ["--cap", "dhow:serve", "--version"];
    for (guest, file, account) in [("http-hello", "one.wasm", "one"), ("http-counter", "two.wasm", "two")] {
        signed(&setting, guest, file, &[&cap[..], &[account, "--account", account]].concat());
    }
    fs::copy(setting.path().join("one.wasm"), setting.path().join("other.wasm")).unwrap();
    (setting, one, two)
}

#[test]
fn who_is_not_trusted_any_more_is_not_promoted_and_not_gone_back_to() {
    let (setting, one, two) = two_signers();
    let mut host = setting.up(&[]);
    let run = |args: &[&str], code: i32, said: &str| {
        let ended = setting.run(args);
        assert!(ended.code == Some(code) && ended.err.contains(said), "{args:?}: {ended:?}");
    };
    let update = ["update", "a", "--from", "two.wasm", "--any-signer"];
    run(&[&update[..], &["--header", "x-new=1"]].concat(), 0, "");
    let new = |host: &Host| host.send("GET", "/", &[("x-new", "1")], b"");
    assert_eq!((new(&host).text().as_str(), host.get("/").text().as_str()), ("1\n", "hello\n"));
    trust(&setting, &mut host, &[&one], "true");
    assert_eq!((new(&host).status, host.get("/").status), (403, 200));
    run(&["promote", "a"], 1, "trust: no chain");
    assert_eq!(host.get("/").text(), "hello\n");
    run(&["rollback", "a"], 0, "");
    assert_eq!(new(&host).text(), "hello\n");

    setting.file("trust.txt", format!("{one}\n{two}\n").as_bytes());
    host.signal(libc::SIGHUP);
    eventually("the other trust", || (setting.run(&update).code == Some(0)).then_some(()));
    assert_eq!(host.get("/").text(), "1\n");
    trust(&setting, &mut host, &[&two], "true");
    run(&["rollback", "a"], 1, "trust: no chain");
    assert_eq!(host.get("/").text(), "1\n");
    trust(&setting, &mut host, &[&one, &two], "input.claims.version == \"two\"");
    run(&["rollback", "a"], 1, "policy: denied: ask Ada");
    run(&["rollback", "a", "--to", "1"], 1, "policy: denied: ask Ada");
    assert_eq!(host.get("/").status, 200);
    setting.file("policy.rego", b"package dhow\nallow := true\n");
    host.signal(libc::SIGHUP);
    eventually("the first version", || (setting.run(&["rollback", "a"]).code == Some(0)).then_some(()));
    assert_eq!(host.get("/").text(), "hello\n");
    host.stop();
}

#[test]
fn who_is_not_trusted_any_more_does_not_take_over_even_if_the_update_is_under_way() {
    // Its health is what a server of the test says, when it says it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {{ name: gate }}\n\
         spec: {{ baseUrl: \"http://{}\" }}\n",
        listener.local_addr().unwrap()
    );
    let health = "grants = { invoke = [\"gate\"] }\nhealth = \"/dapr/v1.0/invoke/gate/method/health\"\n";
    let (setting, one, two) = two_signers();
    setting.file("resources/gate.yaml", gate.as_bytes());
    setting.manifest(&VERSIONS.replace("routes", &format!("{health}routes")));
    let caps = ["--cap", "dhow:serve", "--cap", "dhow:invoke", "--version", "two", "--account", "two"];
    signed(&setting, "outbound", "two.wasm", &caps);
    let mut host = setting.up(&[]);
    let update = setting.dhow(&["update", "a", "--from", "two.wasm", "--any-signer"]).spawn().unwrap();
    let (mut asked, _) = listener.accept().unwrap();
    // What it signed is not in the table yet, so nothing is told of it; another app is told of.
    trust(&setting, &mut host, &[&one], "input.app_id == \"a\"");
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    std::io::Write::write_all(&mut asked, answer).unwrap();
    let update = update.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&update.stderr);
    assert!(
        update.status.code() == Some(1) && said.contains("trust: no chain") && said.contains(&two),
        "{said}"
    );
    assert_eq!(host.get("/").text(), "hello\n");
    let history = setting.run(&["history", "a"]).out;
    assert!(history.contains("refused") && history.contains("trust: "), "{history}");
    host.stop();
}

/// An actor that is signed with these capabilities and may replace itself.
fn actor(capabilities: &[&str]) -> Setting {
    let setting = Setting::with_manifest(
        r#"
        [apps.actor]
        module = "actor.wasm"
        routes = ["/"]
        grants = { state = ["*"], update = ["actor"] }
        "#,
    );
    let flags: Vec<String> = capabilities.iter().map(|capability| format!("--cap={capability}")).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    signed(&setting, "wapc-actor", "actor.wasm", &flags);
    setting
}

/// What the actor gets for a call of its host.
fn ask_actor(host: &Host, what: &str, payload: &Value) -> String {
    host.send("POST", &format!("/call/{what}"), &[], payload.to_string().as_bytes()).text()
}

#[test]
fn a_token_is_not_shed_by_an_update() {
    let setting = actor(&["wasmcloud:httpserver", "dhow:update=actor"]);
    let host = setting.up(&[]);
    let get = |host: &Host| ask_actor(host, "wascc:keyvalue/Get", &json!({"key": "k"}));
    assert!(get(&host).contains("not claimed: state"), "{}", get(&host));
    // Of the same interface, small and not signed.
    let other = br#"(module
        (import "wapc" "__guest_request" (func (param i32 i32)))
        (memory (export "memory") 1)
        (func (export "__guest_call") (param i32 i32) (result i32) i32.const 1))"#;
    let request = json!({ "newModule": other.to_vec() });
    let answer = ask_actor(&host, "wascc:http_server/PerformLiveUpdate", &request);
    assert!(answer.contains("signer: the app that runs is signed by A"), "{answer}");

    let unsigned = guest("wapc-actor").to_string_lossy().into_owned();
    let stranger = signed(&setting, "wapc-actor", "stranger.wasm", &["--account", "stranger"]);
    let update =
        |from: &str, flags: &[&str]| setting.run(&[&["update", "actor", "--from", from], flags].concat());
    for from in [unsigned.as_str(), &stranger.to_string_lossy()] {
        let refused = update(from, &[]);
        assert!(refused.code == Some(1) && refused.err.contains("--any-signer"), "{refused:?}");
    }
    assert!(get(&host).contains("not claimed: state"), "{}", get(&host));
    let allowed = update(&unsigned, &["--any-signer"]);
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    assert!(get(&host).contains("exists"), "{}", get(&host));
    host.stop();
}

#[test]
fn streams_are_state_and_numbers_are_claimed() {
    let setting = actor(&["wasmcloud:httpserver", "wasmcloud:eventstreams"]);
    let host = setting.up(&[]);
    let event = json!({"eventId": "", "stream": "s", "values": {"n": "1"}});
    let written = ask_actor(&host, "wascc:eventstreams/WriteEvent", &event);
    assert!(written.contains("eventId"), "{written}");
    let request = json!({"guid": false, "sequence": false, "random": false, "min": 0, "max": 0});
    let denied = ask_actor(&host, "wascc:extras/RequestGuid", &request);
    assert!(denied.contains("not claimed: extras"), "{denied}");
    host.stop();
}

#[test]
fn a_token_without_capabilities_leaves_it_to_the_manifest() {
    use dhow_claims::{Claims, KeyPair, ModuleClaims, Role, Subject, section, token::Token};
    let setting = Setting::with_manifest(
        "[apps.a]\nmodule = \"a.wasm\"\nroutes = [\"/\"]\n[apps.b]\nmodule = `http-hello`\nroutes = [\"/b\"]\n",
    );
    let wasm = fs::read(guest("http-hello")).unwrap();
    let (account, module) =
        (KeyPair::generate(Role::Account).unwrap(), KeyPair::generate(Role::Module).unwrap());
    let hash = section::hash(&wasm).unwrap();
    let about = Subject::Module(ModuleClaims { hash, ..ModuleClaims::default() });
    let subject = module.public_key().to_string();
    let token = Token::sign(Claims { subject, about, ..Claims::default() }, &account).unwrap();
    setting.file("a.wasm", &section::embed(&wasm, &token.text).unwrap());
    let said = setting.run(&["verify", "a.wasm"]);
    assert!(said.code == Some(0) && said.out.contains("the manifest alone limits it"), "{said:?}");
    let host = setting.up(&[]);
    assert_eq!(host.get("/").status, 200);
    host.stop();
    let host = setting.up(&["--require-claims"]);
    let (answer, other) = (host.get("/"), host.get("/b"));
    assert!(answer.status == 403 && answer.text().contains("not claimed: serve"), "{answer:?}");
    assert_eq!(other.status, 200);
    host.stop();
}

#[test]
fn one_module_that_is_not_trusted_keeps_no_other_from_starting() {
    let setting = Setting::with_manifest(
        "[apps.a]\nmodule = \"a.wasm\"\nroutes = [\"/\"]\n[apps.b]\nmodule = `http-hello`\nroutes = [\"/b\"]\n",
    );
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve", "--expires", "0s"]);
    let said = setting.run(&["verify", "a.wasm"]);
    assert!(said.code == Some(1) && said.out.contains("dhow:serve"), "{said:?}");
    let said = setting.run(&["verify", "a.wasm", "--json"]);
    let said: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&said["holds"], &said["claims"]["capabilities"]), (&json!(false), &json!(["dhow:serve"])));
    let mut host = setting.up(&[]);
    host.line(|line| line.contains("validity: the token expired") && line.contains("answers nothing"));
    let answer = host.get("/");
    assert!(answer.status == 403 && answer.text().contains("validity: the token expired"), "{answer:?}");
    assert_eq!(host.get("/b").status, 200);
    // Signed anew, it runs after a reload.
    signed(&setting, "http-hello", "a.wasm", &["--cap", "dhow:serve"]);
    host.signal(libc::SIGHUP);
    eventually("the app", || (host.get("/").status == 200).then_some(()));
    host.stop();
}

/// The bookshop in a folder. Two of its modules are large, and compiled anew for each signature; small ones stand in for
/// them. `cargo xtask demo --once` asks all.
fn bookshop() -> Setting {
    let setting = Setting::new();
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookshop");
    let copy = |name: &str| setting.file(name, &fs::read(example.join(name)).unwrap());
    copy("dhow.toml");
    copy("sign.sh");
    for folder in ["resources", "data"] {
        for entry in fs::read_dir(example.join(folder)).unwrap() {
            copy(&format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    for (app, module) in [
        ("front", "bookshop-front"),
        ("catalogue", "bookshop-catalogue"),
        ("mail", "bookshop-mail"),
        ("warehouse", "bookshop-warehouse"),
        ("recommend", "http-hello"),
        ("report", "kv"),
    ] {
        setting.file(&format!("build/{app}.wasm"), &fs::read(guest(module)).unwrap());
    }
    setting
}

#[test]
fn a_signed_bookshop_sells_and_each_app_does_only_its_part() {
    let setting = bookshop();
    let up = ["--require-signed", "--trust", "build/trust.txt"];
    let mut script = std::process::Command::new("sh");
    script.arg("sign.sh").current_dir(setting.path()).env("HOME", setting.path()).env_remove("DHOW_KEYS");
    let signed = script.env("DHOW", env!("CARGO_BIN_EXE_dhow")).output().unwrap();
    assert!(signed.status.success(), "{signed:?}");
    let host = setting.up(&up);
    let order = br#"{"isbn": "978-0-06-051275-1", "quantity": 3}"#;
    assert!(host.get("/books").text().contains("isbn"));
    let ordered = host.send("POST", "/orders", &[("content-type", "application/json")], order);
    assert!(ordered.status < 300, "{ordered:?}");
    eventually("a letter", || host.get("/letters").text().contains("The Dispossessed").then_some(()));
    // Filled up again by the warehouse, which needs its lock for that.
    eventually("the parcel", || host.get("/books").text().contains("\"stock\":55").then_some(()));
    let key = ["invoke", "report", "/get?key=a&store=shop"];
    assert_eq!(setting.run(&key).code, Some(0));
    let denied = |host: &Host| {
        counted(host, "dhow_denials_total", &["app_id=\"report\"", "by=\"token\"", "kind=\"state\""])
    };
    assert_eq!(denied(&host), 0.0, "{}", host.stderr());
    host.stop();

    // The same without a claim to the shop's state: its manifest grants it, and that is not enough.
    sign(&setting, &["build/report.wasm", "--cap", "dhow:bindings=nightly"]);
    let mut host = setting.up(&up);
    let ended = setting.run(&key);
    assert!(ended.code == Some(1) && ended.out.contains("access-denied"), "{ended:?}");
    assert_eq!(denied(&host), 1.0);
    host.line(|line| line.contains("report: not claimed: state \"shop\""));
    assert!(host.get("/books").text().contains("isbn"));
    host.stop();
}
