//! Modules of steps that are signed: which run, and what they get.

use crate::{Desk, guest, node};
use std::io::{Read, Write};
use std::net::TcpListener;

/// A server that says 200 to whoever asks; ends with the test.
fn server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    port
}

#[test]
fn a_step_gets_what_is_granted_and_claimed() {
    let desk = Desk::new();
    let port = server();
    let sign = |file: &str, claims: &[&str]| {
        std::fs::copy(guest("p1-experimental-http"), desk.path(file)).unwrap();
        let signed = desk.dhow(&[&["sign", file, "--account", "account"][..], claims].concat());
        assert_eq!(signed.code, Some(0), "{signed:?}");
    };
    let account = desk.dhow(&["keys", "new", "account"]);
    std::fs::write(desk.path("trust.txt"), &account.out).unwrap();
    std::fs::write(desk.path("others.txt"), desk.dhow(&["keys", "new", "account", "--name", "other"]).out)
        .unwrap();
    std::fs::copy(guest("p1-experimental-http"), desk.path("plain.wasm")).unwrap();
    sign("claims.wasm", &["--cap", "dhow:http=127.0.0.1"]);
    sign("nothing.wasm", &["--cap", "dhow:state=orders"]);
    let mut broken = std::fs::read(desk.path("claims.wasm")).unwrap();
    broken.extend(b"\0\x02\x01x");
    std::fs::write(desk.path("broken.wasm"), broken).unwrap();
    let is_answered = "200";
    let signed = &["--require-signed"][..];
    let trusting = &["--require-signed", "--trust", "trust.txt"][..];
    let distrusting = &["--trust", "others.txt"][..];
    for (index, (module, flags, phase, says)) in [
        ("plain.wasm", &[][..], "Succeeded", is_answered),
        ("claims.wasm", &[], "Succeeded", is_answered),
        ("claims.wasm", trusting, "Succeeded", is_answered),
        // Granted, and not claimed.
        ("nothing.wasm", &[], "Succeeded", "error"),
        ("plain.wasm", signed, "Error", "the module is not signed"),
        ("broken.wasm", &[], "Error", "module broken.wasm"),
        ("claims.wasm", distrusting, "Error", "module claims.wasm"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("case-{index}");
        desk.workflow(
            &name,
            &format!(
                "  entrypoint: m\n  templates:\n  - name: m\n    wasm:\n      image: {module}\n      \
                 permissions: {{http: [127.0.0.1]}}\n      \
                 args: [send, GET, 'http://127.0.0.1:{port}/', '', '']"
            ),
        );
        let ended = desk.dhow(&[&["workflow", "run", &format!("{name}.yaml")][..], flags].concat());
        let status = desk.status(&name);
        let step = node(&status, &name);
        assert_eq!(step["phase"], phase, "{module} {flags:?}: {ended:?}");
        let place = if phase == "Error" { &step["message"] } else { &step["outputs"]["result"] };
        let text = place.as_str().unwrap();
        assert!(text.contains(says), "{module} {flags:?}: {text}");
        if says != is_answered {
            assert!(!text.contains(is_answered), "{module} {flags:?}: {text}");
        }
    }
    // Where steps run elsewhere it is decided there.
    let args = [
        "workflow",
        "run",
        "case-0.yaml",
        "--name",
        "x",
        "--workers",
        "nats://127.0.0.1:1",
        "--require-signed",
    ];
    let elsewhere = desk.dhow(&args);
    assert!(elsewhere.code == Some(2) && elsewhere.err.contains("`dhow workflow worker`"), "{elsewhere:?}");
}
