//! Commands: what they are given, what they may touch, how they end, and how they answer as CGI programs.

use crate::support::{Setting, guest};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::{fs, thread};

const COMMANDS: [&str; 2] = ["p1-command", "p2-command"];

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

#[test]
fn programs_get_arguments_environment_and_input() {
    let setting = Setting::new().env("FROM_OUTSIDE", "taken").env("NOT_NAMED", "secret");
    for command in COMMANDS {
        let module = guest(command);
        let module = module.to_string_lossy();
        let args = setting.run(&["run", &module, "--", "args", "b c", "--flag", "é"]);
        assert_eq!(
            (args.code, json_of(&args.out)),
            (Some(0), json!(["args", "b c", "--flag", "é"])),
            "{args:?}"
        );

        let env =
            setting.run(&["run", &module, "-e", "A=1", "-e", "EMPTY=", "-e", "FROM_OUTSIDE", "--", "env"]);
        let seen = json_of(&env.out);
        for (name, value) in [("A", "1"), ("EMPTY", ""), ("FROM_OUTSIDE", "taken"), ("APP_ID", command)] {
            assert_eq!(seen[name], value, "{command}: {name} of {seen}");
        }
        assert_eq!(seen["NOT_NAMED"], Value::Null, "{command}: the rest of the environment stays outside");

        let input: Vec<u8> = (0..300_000_u32).map(|n| b'a' + (n % 26) as u8).collect();
        let copied = setting.run_with_input(&["run", &module, "--", "stdin"], &input);
        assert!(
            copied.code == Some(0) && copied.out.as_bytes() == input,
            "{command}: {} bytes",
            copied.out.len()
        );

        let stderr = setting.run(&["run", &module, "--", "stderr", "over here"]);
        assert!(stderr.out.is_empty() && stderr.err.contains("over here"), "{stderr:?}");
    }
}

#[test]
fn programs_touch_only_the_folders_that_they_are_given() {
    let setting = Setting::new();
    setting.file("data/note.txt", b"noted");
    setting.file("secret.txt", b"secret");
    std::os::unix::fs::symlink(setting.path().join("secret.txt"), setting.path().join("data/link")).unwrap();
    std::os::unix::fs::symlink("../secret.txt", setting.path().join("data/up")).unwrap();
    let secret = setting.path().join("secret.txt");
    let secret = secret.to_string_lossy();
    // Folder, what the program does, exit code, output.
    let cases: [(&str, &[&str], i32, &str); 12] = [
        ("data::/d", &["cat", "/d/note.txt"], 0, "noted"),
        ("data", &["cat", "data/note.txt"], 0, "noted"),
        ("data::/d", &["ls", "/d"], 0, "[\"link\",\"note.txt\",\"up\"]\n"),
        ("data::/d", &["write", "/d/new.txt", "x"], 2, ""),
        ("data::/d", &["write", "/d/note.txt", "x"], 2, ""),
        ("data::/d", &["cat", "/d/../secret.txt"], 2, ""),
        ("data::/d", &["cat", "/d/link"], 2, ""),
        ("data::/d", &["cat", "/d/up"], 2, ""),
        ("data::/d", &["cat", &secret], 2, ""),
        ("data::/d:rw", &["write", "/d/../escaped.txt", "x"], 2, ""),
        ("data::/d:rw", &["write", "/d/link", "overwritten"], 2, ""),
        ("data::/d:rw", &["write", "/d/new.txt", "written"], 0, ""),
    ];
    for command in COMMANDS {
        let module = guest(command);
        for (dir, args, code, out) in cases {
            let ended =
                setting.run(&[&["run", &module.to_string_lossy(), "--dir", dir, "--"], args].concat());
            // A component can only say that it failed, not how.
            let code = if command == "p2-command" { code.min(1) } else { code };
            assert_eq!(
                (ended.code, ended.out.as_str()),
                (Some(code), out),
                "{command} {dir} {args:?}: {ended:?}"
            );
        }
        let read = |name: &str| fs::read_to_string(setting.path().join(name)).ok();
        assert_eq!(read("data/new.txt").as_deref(), Some("written"));
        assert_eq!(read("data/note.txt").as_deref(), Some("noted"));
        assert_eq!(read("secret.txt").as_deref(), Some("secret"));
        assert_eq!(read("escaped.txt"), None);
        fs::remove_file(setting.path().join("data/new.txt")).unwrap();
    }
}

#[test]
fn the_exit_code_says_how_it_ended() {
    let setting = Setting::new();
    setting.file("trap.wat", br#"(module (func (export "_start") unreachable))"#);
    setting.file("spin.wat", br#"(module (func (export "_start") (loop (br 0))))"#);
    let fine = setting.file("fine.wat", br#"(module (func (export "_start")))"#);
    let url = format!("file://{}", fine.display());
    setting.file("asks.wat", br#"(module (func (export "_start") (param i32)))"#);
    setting.file("large.wat", br#"(module (memory 32) (func (export "_start")))"#);
    let minus_one = br#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const -1))))"#;
    setting.file("minus.wat", minus_one);
    setting.file("large-code.wat", String::from_utf8_lossy(minus_one).replace("-1", "256").as_bytes());
    let p1 = guest("p1-command");
    let p1 = p1.to_string_lossy();
    let p2 = guest("p2-command");
    let p2 = p2.to_string_lossy();
    // Command line, exit code, what standard error says.
    let cases: [(&[&str], i32, &str); 26] = [
        (&[&p1, "--", "exit", "0"], 0, ""),
        (&[&p1, "--", "exit", "7"], 7, ""),
        (&[&p1, "--", "exit", "137"], 137, ""),
        // The last eight bits, as of any program.
        (&["minus.wat"], 255, ""),
        // But a failure stays one.
        (&["large-code.wat"], 1, ""),
        (&[&p2, "--", "exit", "0"], 0, ""),
        (&[&p2, "--", "exit", "7"], 1, ""),
        (&["fine.wat"], 0, ""),
        (&["trap.wat"], 1, "unreachable"),
        (&["--timeout", "200ms", "spin.wat"], 124, "did not answer within 0.2 s"),
        (&["--timeout", "200ms", &p1, "--", "sleep", "60000"], 124, "within 0.2 s"),
        (&["--timeout", "200ms", &p2, "--", "sleep", "60000"], 124, "within 0.2 s"),
        (&["--timeout", "60s", &p1, "--", "sleep", "1"], 0, ""),
        (&["absent.wasm"], 125, "does not exist"),
        (&["fin.wat"], 125, "did you mean \"fine.wat\""),
        (&["asks.wat"], 125, "its _start has parameters"),
        (
            &["--memory", "1MiB", "large.wat"],
            125,
            "begins with 2097152 bytes of memory, and may have 1048576",
        ),
        (&["--memory", "2MiB", "large.wat"], 0, ""),
        (&[&url], 0, ""),
        (&["--resources-path", "none", "fine.wat"], 125, "none"),
        (&["--dir", "here::/d:ro", "fine.wat"], 2, "--dir here::/d:ro: expected HOST::GUEST"),
        (&["--dir", "here::/d", "--dir", "there::/d", "fine.wat"], 2, "/d is given twice"),
        (&["fine.wat", "args", "x"], 2, "`dhow run fine.wat -- args x`"),
        (&["--timeout", "5", "fine.wat"], 2, "expected a duration with its unit"),
        (&["--watch", "fine.wat"], 2, "--watch is for services"),
        (&["--app-port", "3000", "fine.wat"], 2, "--app-port is for programs outside"),
    ];
    for (args, code, said) in cases {
        let ended = setting.run(&[&["run"], args].concat());
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.err.contains(said), "{args:?}: {ended:?}");
        assert!(!said.is_empty() || ended.err.is_empty(), "success is silent: {args:?}: {ended:?}");
    }
}

#[test]
fn modules_come_from_standard_input_and_from_the_web() {
    let setting = Setting::new();
    let module = fs::read(guest("p1-command")).unwrap();
    let piped = setting.run_with_input(&["run", "-", "--", "args", "x"], &module);
    assert_eq!((piped.code, piped.out.as_str()), (Some(0), "[\"args\",\"x\"]\n"), "{piped:?}");

    let (url, serving) = serve_files(vec![Some(module), None]);
    let fetched = setting.run(&["run", &url, "--", "env"]);
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    assert_eq!(json_of(&fetched.out)["APP_ID"], "p1", "the app is named after the file");
    let missing = setting.run(&["run", &url]);
    assert_eq!(missing.code, Some(125), "{missing:?}");
    assert!(missing.err.contains("404"), "{missing:?}");
    serving.join().unwrap();
}

#[test]
fn a_module_that_apps_share_is_read_once() {
    // Whoever asks a second time finds nothing.
    let (url, serving) = serve_files(vec![Some(fs::read(guest("p1-command")).unwrap())]);
    let app = |id: usize| {
        format!("[apps.a{id}]\nmodule = \"{url}\"\nargs = [\"args\", \"{id}\"]\nroutes = [\"/{id}\"]\n")
    };
    let setting = Setting::with_manifest(&(0..20).map(app).collect::<String>());
    let host = setting.up(&[]);
    for id in 0..20 {
        assert_eq!(host.get(&format!("/{id}")).json(), json!(["args", id.to_string()]));
    }
    host.stop();
    serving.join().unwrap();
}

/// Answers one request after the other with these files, or with 404, and listens no longer after the last.
fn serve_files(files: Vec<Option<Vec<u8>>>) -> (String, thread::JoinHandle<()>) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/tools/p1.wasm?version=1", server.local_addr().unwrap());
    let serving = thread::spawn(move || {
        for file in files {
            let (mut stream, _) = server.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            match file {
                Some(file) => {
                    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len()).unwrap();
                    stream.write_all(&file).unwrap();
                }
                None => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap(),
            }
        }
    });
    (url, serving)
}

#[test]
fn programs_answer_http_as_cgi() {
    let setting = Setting::with_manifest(
        r#"
        [apps.rust]
        module = `p1-command`
        routes = ["/rust", "/plain", "/status"]
        [apps.component]
        module = `p2-command`
        routes = ["/component"]
        [apps.go]
        module = `p1-go`
        routes = ["/go"]
        [apps.c]
        module = `p1-c`
        routes = ["/c"]
        [apps.fails]
        module = `p1-command`
        args = ["exit", "3"]
        routes = ["/fails"]
        [apps.tool]
        module = `p1-command`
        args = ["args", "from the manifest"]
        routes = ["/tool"]
        "#,
    );
    let host = setting.up(&[]);
    for path in ["/rust/a%20b", "/component/a%20b"] {
        let headers = [("content-type", "text/x"), ("x-one", "1"), ("proxy", "evil")];
        let answer = host.send("POST", &format!("{path}?q=1&r"), &headers, b"the body");
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{answer:?}"
        );
        let seen = answer.json();
        assert_eq!(seen["body"], "the body");
        let expected = [
            ("REQUEST_METHOD", json!("POST")),
            ("PATH_INFO", json!(path.replace("%20", " "))),
            ("QUERY_STRING", json!("q=1&r")),
            ("CONTENT_TYPE", json!("text/x")),
            ("CONTENT_LENGTH", json!("8")),
            ("HTTP_X_ONE", json!("1")),
            ("HTTP_PROXY", Value::Null),
        ];
        for (name, value) in expected {
            assert_eq!(seen["cgi"][name], value, "{name} of {seen}");
        }
    }
    let plain = "text/plain; charset=utf-8";
    // Path, body, status, content type, beginning of the answer.
    let cases = [
        ("/plain", "12345", 200, plain, "no header block, 5 bytes of body\n"),
        ("/status", "", 404, "text/plain", "nothing here\n"),
        (
            "/go/x?y=z",
            "to go",
            200,
            "application/json",
            r#"{"body":"to go","method":"POST","path":"/go/x","query":"y=z"}"#,
        ),
        ("/c/x", "to c", 200, "text/plain", "POST /c/x\nto c"),
        ("/tool", "", 200, plain, "[\"args\",\"from the manifest\"]\n"),
        ("/fails", "", 500, plain, "app \"fails\" failed: it exited with code 3"),
    ];
    for (path, body, status, kind, beginning) in cases {
        let answer = host.send("POST", path, &[], body.as_bytes());
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert!(answer.text().starts_with(beginning), "{path}: {}", answer.text());
    }
    host.stop();
}
