//! Modules in text form: how they start, answer and end.

use crate::support::{Hosted, request};
use dhow_blocks::grants::NamePattern;

/// The host functions of waPC, and a page of memory.
const BEGINNING: &str = r#"
    (import "wapc" "__host_call" (func $host_call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wapc" "__console_log" (func $log (param i32 i32)))
    (import "wapc" "__guest_request" (func $request (param i32 i32)))
    (import "wapc" "__guest_response" (func $respond (param i32 i32)))
    (import "wapc" "__guest_error" (func $fail (param i32 i32)))
    (import "wapc" "__host_response" (func $response (param i32)))
    (import "wapc" "__host_response_len" (func $response_len (result i32)))
    (import "wapc" "__host_error" (func $error (param i32)))
    (import "wapc" "__host_error_len" (func $error_len (result i32)))
    (memory (export "memory") 1)
"#;

/// A module that answers the operation `op` and every request with these instructions, which leave its result.
fn answering(instructions: &str) -> String {
    format!(
        r#"(module {BEGINNING}
        (data (i32.const 16) "text") (data (i32.const 32) "\ff\fe bad") (data (i32.const 48) "a") (data (i32.const 64) "op")
        (func (export "__guest_call") (param i32 i32) (result i32) {instructions}))"#
    )
}

/// A host with the app `a`, whose operation `op` is open.
async fn hosted(hosted: Hosted, text: &str) -> Hosted {
    let mut spec = hosted.spec("a", text);
    spec.config.insert("operations".to_owned(), "op".to_owned());
    spec.grants.invoke = vec![NamePattern::any()];
    hosted.run(vec![spec]).await.unwrap();
    hosted
}

async fn op(hosted: &Hosted, payload: &[u8]) -> (u16, String) {
    let mut request = request("/op", payload);
    *request.method_mut() = http::Method::POST;
    hosted.ask("a", request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_errors_and_ends() {
    // Instructions, then status (0: the invocation failed) and a part of the answer.
    let cases = [
        ("(call $respond (i32.const 16) (i32.const 4)) (i32.const 1)", 200, "text"),
        ("(i32.const 1)", 200, ""),
        ("(i32.const -1)", 200, ""),
        ("(i32.const 0)", 500, "does not say why"),
        ("(call $fail (i32.const 16) (i32.const 4)) (i32.const 0)", 500, "text"),
        ("(call $fail (i32.const 32) (i32.const 6)) (i32.const 0)", 500, "bad"),
        // The last word counts.
        (
            "(call $respond (i32.const 32) (i32.const 6)) (call $respond (i32.const 16) (i32.const 4)) (i32.const 1)",
            200,
            "text",
        ),
        ("(call $respond (i32.const 0) (i32.const 0)) (i32.const 1)", 200, ""),
        ("(call $log (i32.const 32) (i32.const 6)) (i32.const 1)", 200, ""),
        ("(call $log (i32.const 65535) (i32.const 2)) (i32.const 1)", 0, "not in the module's memory"),
        ("(call $respond (i32.const 65535) (i32.const 2)) (i32.const 1)", 0, "not in the module's memory"),
        ("(call $respond (i32.const 0) (i32.const -1)) (i32.const 1)", 0, "more than"),
        ("(call $request (i32.const 100) (i32.const 65534)) (i32.const 1)", 0, "not in the module's memory"),
        ("(call $request (i32.const -1) (i32.const 100)) (i32.const 1)", 0, "not in the module's memory"),
        // Asked again, it is told again.
        (
            "(call $request (i32.const 100) (i32.const 200)) (call $request (i32.const 100) (i32.const 300)) \
             (call $respond (i32.const 300) (local.get 1)) (i32.const 1)",
            200,
            "payload",
        ),
        ("unreachable", 0, "unreachable"),
        ("(call $response (i32.const 0)) (call $response_len)", 500, ""),
    ];
    for (instructions, status, text) in cases {
        let hosted = hosted(Hosted::new(), &answering(instructions)).await;
        for _ in 0..2 {
            let (found, body) = op(&hosted, b"payload").await;
            assert!(found == status && body.contains(text), "{instructions}: {found} {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_calls_itself_comes_to_an_end() {
    // What the innermost call is told goes back as the error of every one.
    let text = answering(
        "(if (call $host_call (i32.const 0) (i32.const 0) (i32.const 48) (i32.const 1) (i32.const 64) (i32.const 2) \
            (i32.const 0) (i32.const 0)) (then (return (i32.const 1)))) \
         (call $error (i32.const 1024)) (call $fail (i32.const 1024) (call $error_len)) (i32.const 0)",
    );
    let hosted = hosted(Hosted::new(), &text).await;
    let (status, body) = op(&hosted, b"").await;
    assert!(status == 500 && body.contains("circle"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_does_not_end_is_ended() {
    let hosted = hosted(Hosted::hurried(), &answering("(loop $l (br $l)) unreachable")).await;
    let (status, body) = op(&hosted, b"").await;
    assert!(status == 0 && body.contains("within 0.5"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_answers_that_are_none() {
    for (response, status) in [
        // {"statusCode": 204}
        ("\\81\\aastatusCode\\cc\\cc", 204),
        // {"statusCode": 99}, 1000, "x"
        ("\\81\\aastatusCode\\63", 0),
        ("\\81\\aastatusCode\\cd\\03\\e8", 0),
        ("\\81\\aastatusCode\\a1x", 0),
        // {"header": {"a b": "c"}}
        ("\\81\\a6header\\81\\a3a b\\a1c", 0),
        ("\\c1", 0),
        ("\\dd\\ff\\ff\\ff\\ff", 0),
        ("\\80", 200),
    ] {
        let text = format!(
            r#"(module {BEGINNING} (data (i32.const 16) "{response}")
            (func (export "__guest_call") (param i32 i32) (result i32)
                (call $respond (i32.const 16) (i32.const {})) (i32.const 1)))"#,
            wat_length(response)
        );
        let hosted = hosted(Hosted::new(), &text).await;
        let (found, body) = hosted.ask("a", request("/", b"")).await;
        assert_eq!(found, status, "{response}: {body}");
    }
}

/// Bytes of a string of the text format.
fn wat_length(text: &str) -> usize {
    let escapes = text.matches('\\').count();
    text.len() - 2 * escapes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_started_once_and_in_order() {
    let text = format!(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) {BEGINNING}
        (global $at (mut i32) (i32.const 64))
        (func $add (param i32) (i32.store8 (global.get $at) (local.get 0))
            (global.set $at (i32.add (global.get $at) (i32.const 1))))
        (func (export "wapc_init") (call $add (i32.const 105)))
        (func (export "_start") (call $add (i32.const 115)) (call $exit (i32.const 0)))
        (func (export "_initialize") (call $add (i32.const 98)))
        (func (export "__guest_call") (param i32 i32) (result i32)
            (call $add (i32.const 99))
            (call $respond (i32.const 64) (i32.sub (global.get $at) (i32.const 64))) (i32.const 1)))"#
    );
    let kept = hosted(Hosted::new(), &text).await;
    assert_eq!(op(&kept, b"").await, (200, "bsic".to_owned()));
    assert_eq!(op(&kept, b"").await, (200, "bsicc".to_owned()));
    let fresh = Hosted::new();
    let mut spec = fresh.spec("a", &text);
    spec.config.insert("operations".to_owned(), "op".to_owned());
    spec.reuse = Some(1);
    fresh.run(vec![spec]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(op(&fresh, b"").await, (200, "bsic".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_cannot_be_called_are_refused_when_they_are_loaded() {
    let cases = [
        (r#"(module (func (export "__guest_call")))"#, "__guest_call is no function of two i32"),
        (r#"(module (memory (export "__guest_call") 1))"#, "__guest_call is no function of two i32"),
        (
            r#"(module (import "wapc" "__host_cal" (func)) (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))"#,
            "wapc::__host_cal",
        ),
        (
            r#"(module (import "wapc" "__host_call" (func (param i64))) (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))"#,
            "__host_call",
        ),
        (
            r#"(module (import "wasmbus" "__host_call" (func)) (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))"#,
            "wasmCloud",
        ),
    ];
    for (text, expected) in cases {
        let hosted = Hosted::new();
        let refused = hosted.run(vec![hosted.spec("a", text)]).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{text}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_without_memory_is_told_so() {
    let text = r#"(module (import "wapc" "__guest_request" (func $request (param i32 i32)))
        (func (export "__guest_call") (param i32 i32) (result i32)
            (call $request (i32.const 0) (i32.const 0)) (i32.const 1)))"#;
    let hosted = hosted(Hosted::new(), text).await;
    let (status, body) = op(&hosted, b"").await;
    assert!(status == 0 && body.contains("no memory"), "{status} {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_wascap_abi_and_its_names() {
    // Echoes the operation's name, and then what the host says of one that it does not know.
    let text = |module: &str, more: &str| {
        format!(
            r#"(module
            (import "{module}" "__host_call" (func $host_call (param i32 i32 i32 i32) (result i32)))
            (import "{module}" "__guest_request" (func $request (param i32 i32)))
            (import "{module}" "__guest_error" (func $fail (param i32 i32)))
            (import "{module}" "__host_error" (func $error (param i32)))
            (import "{module}" "__host_error_len" (func $error_len (result i32)))
            (memory (export "memory") 1) (data (i32.const 16) "wascap:graph!Query") {more}
            (func (export "__guest_call") (param i32 i32) (result i32)
                (call $request (i32.const 1024) (i32.const 2048))
                (drop (call $host_call (i32.const 16) (i32.const 18) (i32.const 0) (i32.const 0)))
                (call $error (i32.add (i32.const 1024) (local.get 0)))
                (call $fail (i32.const 1024) (i32.add (local.get 0) (call $error_len)))
                (i32.const 0)))"#
        )
    };
    let data = |text: &str| format!("(data (i32.const 128) \"{text}\")");
    for (module, more, operation) in [
        ("wascap", String::new(), "wascap:httpserver!HandleRequest"),
        ("wapc", String::new(), "wascap:httpserver!HandleRequest"),
        ("wapc", data("wascc:http_server!HandleRequest"), "wascc:http_server!HandleRequest"),
        ("wapc", data("statusCode"), "HandleRequest"),
    ] {
        let hosted = hosted(Hosted::new(), &text(module, &more)).await;
        let (status, body) = hosted.ask("a", request("/", b"")).await;
        let expected = format!("{operation}\"wascap:graph\" is no capability");
        assert!(status == 0 && body.contains(&expected), "{module} {more}: {status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_wascap_abi_with_bad_addresses() {
    // What malloc returns, where the word is that has the event's address, that address, its length, and the call of
    // the host.
    let text = |malloc: &str, argument: u32, address: u32, length: &str, call: &str| {
        format!(
            r#"(module
            (import "wascap" "__host_call" (func $host_call (param i32 i32 i32) (result i32)))
            (import "wascap" "__throw" (func $throw (param i32 i32)))
            (import "wascap" "__console_log" (func $log (param i32 i32)))
            (memory (export "memory") 1)
            ;; An event that is a success, and one that is none.
            (data (i32.const 16) "\08\01") (data (i32.const 32) "\12\06\12\04text")
            (func (export "__wascap_malloc") (param i32) (result i32) {malloc})
            (func (export "__wascap_global_argument_ptr") (result i32) (i32.const {argument}))
            (func (export "__guest_call") (param i32 i32) (result i32)
                {call}
                (i32.store (i32.const 8) (i32.const {address}))
                {length}))"#
        )
    };
    let at = "(i32.const 1024)";
    for (malloc, argument, address, length, call, status, expected) in [
        (at, 8, 16, "(i32.const 2)", "", 200, ""),
        (at, 8, 32, "(i32.const 8)", "", 0, "text (code 0)"),
        (at, 8, 16, "(i32.const 0)", "", 0, "does not say why"),
        ("(i32.const -1)", 8, 16, "(i32.const 2)", "", 0, "not in the module's memory"),
        ("(i32.const 65530)", 8, 16, "(i32.const 2)", "", 0, "not in the module's memory"),
        ("unreachable", 8, 16, "(i32.const 2)", "", 0, "unreachable"),
        (at, 65534, 16, "(i32.const 2)", "", 0, "not in the module's memory"),
        (at, 8, 65535, "(i32.const 2)", "", 0, "not in the module's memory"),
        (at, 8, 16, "(i32.const -1)", "", 0, "more than"),
        (at, 8, 16, "(i32.const 70000)", "", 0, "not in the module's memory"),
        (at, 8, 1024, "(local.get 1)", "", 0, ""),
        (at, 8, 16, "(i32.const 2)", "(call $throw (i32.const 32) (i32.const 8))", 0, "it threw"),
        (
            at,
            8,
            16,
            "(i32.const 2)",
            "(call $throw (i32.const -1) (i32.const 8))",
            0,
            "not in the module's memory",
        ),
        // A command that is nowhere is an event that says so; an answer that has no place ends the call.
        (
            at,
            8,
            4096,
            "(call $host_call (i32.const -1) (i32.const 9) (i32.const 4096))",
            "",
            0,
            "not in the module's memory",
        ),
        (at, 8, 4096, "(call $host_call (i32.const 32) (i32.const 8) (i32.const 4096))", "", 0, ""),
        (
            at,
            8,
            4096,
            "(call $host_call (i32.const 0) (i32.const 0) (i32.const 65535))",
            "",
            0,
            "not in the module's memory",
        ),
    ] {
        let hosted = hosted(Hosted::new(), &text(malloc, argument, address, length, call)).await;
        for _ in 0..2 {
            let (found, body) = hosted.ask("a", request("/", b"")).await;
            assert!(
                found == status && body.contains(expected),
                "{malloc} {argument} {address} {length} {call}: {found} {body}"
            );
        }
    }
    // Operations that this ABI never had.
    let hosted = hosted(Hosted::new(), &text(at, 8, 16, "(i32.const 2)", "")).await;
    let (status, body) = op(&hosted, b"").await;
    assert!(status == 500 && body.contains("no operation op"), "{status} {body}");
}
