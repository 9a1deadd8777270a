//! Guests as apps.

use crate::support::{ALLOCATOR, Hosted, guest, request};
use dhow_blocks::grants::Grants;

/// A callback that answers with the text at 100.
const HELLO: &str = r#"(data (i32.const 100) "hello")
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $say (i32.const 100) (i32.const 5)) (i32.const 1))"#;

#[tokio::test(flavor = "multi_thread")]
async fn guests_answer_as_their_version_and_their_callbacks_have_it() {
    // A callback that looks a header up and answers what was found, or the status that there was none.
    let lookup = |marker: &str, missing: &str| {
        format!(
            r#"{ALLOCATOR} (func (export "{marker}")) (data (i32.const 100) "x-one") (data (i32.const 110) "{missing}")
            (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (result i32)
                (local $status i32)
                (local.set $status
                    (call $header (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 8) (i32.const 12)))
                (if (i32.eq (local.get $status) (i32.const 1)) (then (call $say (i32.const 110) (i32.const 7)))
                    (else (call $say (i32.load (i32.const 8)) (i32.load (i32.const 12)))))
                (i32.const 0))"#
        )
    };
    let written = r#"(data (i32.const 100) "written")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 7)))
            (i32.const 0))"#;
    let cases = [
        (
            "no callback at all",
            "(func (export \"proxy_on_log\") (param i32))".to_owned(),
            404,
            "has no answer",
        ),
        ("a local response", HELLO.to_owned(), 200, "hello"),
        ("what was written", written.to_owned(), 200, "written"),
        ("0.1.0: a missing header is empty", lookup("proxy_abi_version_0_1_0", "missing"), 200, ""),
        ("0.2.0: a missing header is told", lookup("proxy_abi_version_0_2_0", "missing"), 200, "missing"),
        (
            "callbacks without results and parameters",
            r#"(data (i32.const 100) "bare") (func (export "proxy_on_context_create"))
            (func (export "proxy_on_vm_start")) (func (export "proxy_on_configure") (param i32))
            (func (export "proxy_on_done")) (func (export "proxy_on_request_headers") (param i32)
                (call $say (i32.const 100) (i32.const 4)))"#
                .to_owned(),
            200,
            "bare",
        ),
        (
            "malloc alone",
            r#"(export "malloc" (func $allocate))
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
                (drop (call $read (i32.const 0) (i32.const 1) (i32.const 3) (i32.const 8) (i32.const 12)))
                (call $say (i32.load (i32.const 8)) (i32.load (i32.const 12))) (i32.const 0))"#
                .to_owned(),
            200,
            "ody",
        ),
        (
            "no allocator, one that answers 0, and one outside of memory are told by 6",
            r#"(func (export "malloc") (param i32) (result i32) (i32.const 0))
            (data (i32.const 100) "0123456789")
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
                (call $say (i32.add (i32.const 100)
                    (call $read (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 8) (i32.const 12)))
                    (i32.const 1)) (i32.const 0))"#
                .to_owned(),
            200,
            "6",
        ),
        (
            "_initialize and main before everything",
            r#"(data (i32.const 100) "im")
            (global $order (mut i32) (i32.const 0))
            (func (export "_initialize") (global.set $order (i32.const 1)))
            (func (export "main") (param i32 i32) (result i32)
                (global.set $order (i32.add (global.get $order) (i32.const 1))) (i32.const 0))
            (func (export "_start") unreachable)
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $say (i32.const 100) (global.get $order)) (i32.const 0))"#
                .to_owned(),
            200,
            "im",
        ),
        (
            "_start",
            r#"(data (i32.const 100) "s") (global $order (mut i32) (i32.const 0))
            (func (export "_start") (global.set $order (i32.const 1)))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $say (i32.const 100) (global.get $order)) (i32.const 0))"#
                .to_owned(),
            200,
            "s",
        ),
    ];
    for (what, rest, status, body) in cases {
        let hosted = Hosted::one(&guest(&rest)).await;
        for _ in 0..2 {
            let (found, text) = hosted.ask("a", request("/", b"body")).await;
            assert_eq!(found, status, "{what}: {text}");
            assert!(text.contains(body) && (!body.is_empty() || text.is_empty()), "{what}: {text:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_several_functions_are_told_apart_by_their_types() {
    let text = r#"(module
        (import "env" "proxy_continue_request" (func $continue))
        (import "env" "proxy_clear_route_cache" (func $clear))
        (import "env" "proxy_get_configuration" (func $configuration (param i32 i32) (result i32)))
        (import "env" "proxy_resolve_shared_queue" (func $resolve (param i32 i32 i32) (result i32)))
        (import "env" "proxy_send_http_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "clock_time_get" (func (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "malloc") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_abi_version_0_1_0"))
        (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
            (call $continue) (call $clear)
            (drop (call $resolve (i32.const 0) (i32.const 0) (i32.const 16)))
            (drop (call $configuration (i32.const 8) (i32.const 12)))
            (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.load (i32.const 8))
                (i32.load (i32.const 12)) (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1)))"#;
    let hosted = Hosted::new();
    for (config, expected) in [
        (&[("plugin", "as it is")][..], "as it is"),
        (&[("plugin", "a"), ("more", "b"), ("vm", "not this")], r#"{"more":"b","plugin":"a"}"#),
        (&[("vm_id", "x")], ""),
    ] {
        let mut spec = hosted.spec("a", text);
        spec.config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        hosted.run(vec![spec]).await.unwrap();
        assert_eq!(hosted.ask("a", request("/", b"")).await, (200, expected.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vm_is_configured_with_what_its_size_was_told_of() {
    let text = r#"(module
        (import "env" "proxy_get_buffer_bytes" (func $read (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response"
            (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_vm_start") (param i32 i32) (result i32)
            (drop (call $read (i32.const 6) (i32.const 0) (i32.const 10000) (i32.const 8) (i32.const 12)))
            (i32.eq (i32.load (i32.const 12)) (local.get 1)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.load (i32.const 8))
                (i32.load (i32.const 12)) (i32.const 0) (i32.const 0) (i32.const -1)))
            (i32.const 1)))"#;
    let hosted = Hosted::new();
    for (key, expected) in [("vm", "for the VM"), ("plugin", "")] {
        let mut spec = hosted.spec("a", text);
        spec.config = [(key.to_owned(), "for the VM".to_owned())].into();
        hosted.run(vec![spec]).await.unwrap();
        assert_eq!(hosted.ask("a", request("/", b"")).await, (200, expected.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_linked_or_started_says_why() {
    let hosted = Hosted::hurried();
    let layotto = |rest: &str| guest(&format!(r#"(func (export "proxy_get_id") {rest})"#));
    for (text, reason) in [
        (r#"(module (import "env" "proxy_unheard_of" (func)) (func (export "proxy_on_log") (param i32)))"#.to_owned(), "env::proxy_unheard_of"),
        (guest(r#"(func (export "proxy_on_log") (param i64))"#), "proxy_on_log"),
        (guest(r#"(func (export "proxy_on_log") (param i32 i32))"#), "proxy_on_log"),
        (layotto(""), "tells no id"),
        (layotto("unreachable"), "unreachable"),
        (layotto("(loop $l (br $l))"), "did not finish"),
        (
            layotto("(drop (call $write (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 1)))")
                .replace("(memory", r#"(data (i32.const 100) "\ff") (memory"#),
            "UTF-8",
        ),
    ] {
        let error = hosted.run(vec![hosted.spec("a", &text)]).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_costs_one_request_and_its_instance() {
    // Counts its requests; path /trap makes the named callback trap.
    for callback in [
        "proxy_on_context_create",
        "proxy_on_request_headers",
        "proxy_on_request_body",
        "proxy_on_done",
        "proxy_on_log",
        "proxy_on_delete",
    ] {
        let trap = "(if (global.get $armed) (then unreachable))";
        let of = |name: &str| if name == callback { trap } else { "" };
        let rest = format!(
            r#"{ALLOCATOR} (global $armed (mut i32) (i32.const 0)) (global $served (mut i32) (i32.const 47))
            (data (i32.const 100) "x-arm")
            (func (export "proxy_on_context_create") (param i32 i32) {create})
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                {headers} (global.set $served (i32.add (global.get $served) (i32.const 1))) (i32.const 0))
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
                {body}
                (i32.store8 (i32.const 200) (global.get $served))
                (call $say (i32.const 200) (i32.const 1))
                (global.set $armed (i32.ne (i32.const 0)
                    (i32.eqz (call $header (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 8) (i32.const 12)))))
                (i32.const 0))
            (func (export "proxy_on_done") (param i32) (result i32) {done} (i32.const 1))
            (func (export "proxy_on_log") (param i32) {log})
            (func (export "proxy_on_delete") (param i32) {delete})"#,
            create = of("proxy_on_context_create"),
            headers = of("proxy_on_request_headers"),
            body = of("proxy_on_request_body"),
            done = of("proxy_on_done"),
            log = of("proxy_on_log"),
            delete = of("proxy_on_delete"),
        );
        let hosted = Hosted::one(&guest(&rest)).await;
        let mut arm = request("/", b"x");
        arm.headers_mut().insert("x-arm", "1".parse().unwrap());
        assert_eq!(hosted.ask("a", request("/", b"x")).await, (200, "0".to_owned()), "{callback}");
        assert_eq!(hosted.ask("a", arm).await, (200, "1".to_owned()), "{callback}");
        let answers_first = ["proxy_on_done", "proxy_on_log", "proxy_on_delete"].contains(&callback);
        if !answers_first {
            let (status, text) = hosted.ask("a", request("/", b"x")).await;
            assert!(status == 0 && text.contains("unreachable"), "{callback}: {status} {text}");
        }
        // A fresh instance counts from the beginning.
        assert_eq!(hosted.ask("a", request("/", b"x")).await, (200, "0".to_owned()), "{callback}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lasts_until_something_comes_or_time_is_up() {
    let pausing = |rest: &str| {
        guest(&format!(
            r#"{ALLOCATOR} (data (i32.const 100) "late") (global $ticks (mut i32) (i32.const 0))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1)) {rest}"#
        ))
    };
    let ticking =
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (call $tick (i32.const 1)))"#;
    let cases = [
        ("nothing to wait for", String::new(), 0, "waits for nothing"),
        (
            "ticks that change nothing",
            r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32)
                (drop (call $tick (i32.const 5))) (i32.const 1)) (func (export "proxy_on_tick") (param i32))"#
                .to_owned(),
            0,
            "did not answer within 0.5 s",
        ),
        (
            "the third tick continues",
            format!(
                r#"{} (func (export "proxy_on_tick") (param i32)
                    (global.set $ticks (i32.add (global.get $ticks) (i32.const 1)))
                    (if (i32.eq (global.get $ticks) (i32.const 3)) (then (drop (call $continue (i32.const 0))))))
                (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
                    (call $say (i32.const 100) (i32.const 4)) (i32.const 0))"#,
                ticking
                    .replace("(call $tick (i32.const 1))", "(drop (call $tick (i32.const 1))) (i32.const 1)")
            ),
            200,
            "late",
        ),
        ("continued before it paused", String::new(), 404, ""),
    ];
    for (what, rest, status, text) in cases {
        let mut module = pausing(&rest);
        if what.starts_with("continued") {
            module = module.replace(
                r#"(param i32 i32 i32) (result i32) (i32.const 1))"#,
                r#"(param i32 i32 i32) (result i32) (drop (call $continue (i32.const 0))) (i32.const 1))"#,
            );
        }
        let hosted = Hosted::hurried();
        hosted.run(vec![hosted.spec("a", &module)]).await.unwrap();
        let (found, body) = hosted.ask("a", request("/", b"x")).await;
        assert!(found == status && body.contains(text), "{what}: {found} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_made_for_layotto_runs() {
    let hosted = Hosted::new();
    // Answers what function `two` says about the body, or pauses when there is none.
    let asking = guest(&format!(
        r#"{ALLOCATOR} (data (i32.const 100) "id_1") (data (i32.const 110) "two")
        (func (export "proxy_get_id")
            (drop (call $write (i32.const 8) (i32.const 0) (i32.const -1) (i32.const 100) (i32.const 4))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (if (i32.ne (i32.const 0) (call $read (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 8) (i32.const 12)))
                (then (return (i32.const 1))))
            (if (i32.ne (i32.const 0) (call $invoke (i32.const 110) (i32.const 3) (i32.const 0) (i32.const 0)
                    (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 16) (i32.const 20)))
                (then (return (i32.const 1))))
            (drop (call $write (i32.const 1) (i32.const -1) (i32.const 0) (i32.load (i32.const 16)) (i32.load (i32.const 20))))
            (i32.const 0))"#
    ));
    // The value of the key that the body names; keeps "100" under "book1" before.
    let looking_up = guest(&format!(
        r#"{ALLOCATOR} (data (i32.const 100) "id_2") (data (i32.const 110) "statestore") (data (i32.const 130) "book1100")
        (func (export "proxy_get_id")
            (drop (call $write (i32.const 8) (i32.const 0) (i32.const 4) (i32.const 100) (i32.const 4))))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (drop (call $set_state (i32.const 110) (i32.const 10) (i32.const 130) (i32.const 5) (i32.const 135) (i32.const 3)))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 9) (i32.const 8) (i32.const 12)))
            (if (i32.ne (i32.const 0) (call $get_state (i32.const 110) (i32.const 10)
                    (i32.load (i32.const 8)) (i32.load (i32.const 12)) (i32.const 16) (i32.const 20)))
                (then (return (i32.const 1))))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.load (i32.const 20)) (i32.load (i32.const 16)) (i32.load (i32.const 20))))
            (i32.const 0))"#
    ));
    let mut asks = hosted.spec("one", &asking);
    asks.grants = Grants { invoke: vec!["two".parse().unwrap()], ..Grants::default() };
    let mut looks_up = hosted.spec("two", &looking_up);
    looks_up.grants = Grants { state: vec!["statestore".parse().unwrap()], ..Grants::default() };
    hosted.run(vec![asks.clone(), looks_up.clone()]).await.unwrap();
    assert_eq!(hosted.host.app("one").unwrap().layotto_id(), Some("id_1"));
    assert_eq!(hosted.host.app("two").unwrap().layotto_id(), Some("id_2"));
    // A query string is the body where there is none.
    for (uri, body, status, expected) in [
        ("/?book1", "", 200, "100"),
        ("/?ignored", "book1", 200, "100"),
        ("/?nope", "", 200, ""),
        ("/", "", 404, "has no answer"),
    ] {
        let (found, text) = hosted.ask("one", request(uri, body.as_bytes())).await;
        assert!(found == status && text.contains(expected), "{uri}: {found} {text}");
    }
    // Without their grants both are refused, and the answer is no empty success.
    looks_up.grants = Grants::default();
    hosted.run(vec![asks, looks_up.clone()]).await.unwrap();
    assert_eq!(hosted.ask("one", request("/?book1", b"")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_asks_itself_gets_another_instance() {
    // Asks itself once: the inner request has a body, the outer one none. Each instance counts in its memory.
    let rest = format!(
        r#"{ALLOCATOR} (data (i32.const 100) "a") (global $busy (mut i32) (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (global.get $busy) (then unreachable))
            (if (i32.eqz (local.get 2)) (then (call $say (i32.const 100) (i32.const 1)) (return (i32.const 0))))
            (global.set $busy (i32.const 1))
            (if (i32.eqz (call $invoke (i32.const 100) (i32.const 1) (i32.const 0) (i32.const 0)
                    (i32.const 100) (i32.const 1) (i32.const 16) (i32.const 20)))
                (then (call $say (i32.load (i32.const 16)) (i32.load (i32.const 20)))))
            (global.set $busy (i32.const 0)) (i32.const 0))"#
    );
    let hosted = Hosted::one(&guest(&rest)).await;
    for _ in 0..3 {
        assert_eq!(hosted.ask("a", request("/", b"")).await, (200, "a".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_calls_come_as_callbacks() {
    // Asks app `b` and lets its own request go on, or pauses it; answers with what came: count of headers, body.
    let asking = |action: u32, upstream: &str| {
        let headers = [(":method", "GET"), (":path", "/x"), (":authority", "b")];
        let number = |number: usize| format!("\\{number:02x}\\00\\00\\00");
        let mut map = number(headers.len());
        headers.iter().for_each(|(name, value)| map += &(number(name.len()) + &number(value.len())));
        headers.iter().for_each(|(name, value)| map += &format!("{name}\\00{value}\\00"));
        let length = 4 + headers.iter().map(|(name, value)| 10 + name.len() + value.len()).sum::<usize>();
        let text = guest(&format!(
            r#"{ALLOCATOR} (data (i32.const 100) "{map}") (data (i32.const 300) "{upstream}") (data (i32.const 310) "none")
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (drop (call $call (i32.const 300) (i32.const {upstream_len}) (i32.const 100) (i32.const {length})
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 400)))
                (i32.const {action}))
            (func (export "proxy_on_http_call_response") (param $context i32) (param $id i32) (param $headers i32) (param $size i32) (param i32)
                (if (i32.ne (local.get $context) (i32.const 1)) (then unreachable))
                (if (i32.ne (local.get $id) (i32.load (i32.const 400))) (then unreachable))
                (if (i32.eqz (local.get $headers)) (then (call $say (i32.const 310) (i32.const 4)) (return)))
                (drop (call $read (i32.const 4) (i32.const 0) (local.get $size) (i32.const 8) (i32.const 12)))
                (call $say (i32.load (i32.const 8)) (i32.load (i32.const 12))))"#,
            upstream_len = upstream.len(),
        ));
        let call = r#"(import "env" "proxy_http_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#;
        text.replacen("(module", &format!("(module {call}"), 1)
    };
    for (action, upstream, expected) in [
        (0, "b", (200, "hello")),
        (1, "b", (200, "hello")),
        // What Envoy's filters know besides; two goes on, without anything behind the head.
        (2, "b", (200, "hello")),
        (3, "b", (200, "hello")),
        (4, "b", (200, "hello")),
        (4, "b:1", (0, "waits for nothing")),
        (1, "gone", (200, "none")),
        (1, "b:1", (0, "waits for nothing")),
    ] {
        let hosted = Hosted::new();
        let mut asks = hosted.spec("a", &asking(action, upstream));
        asks.grants =
            Grants { invoke: vec!["b".parse().unwrap(), "gone".parse().unwrap()], ..Grants::default() };
        hosted.run(vec![asks, hosted.spec("b", &guest(HELLO))]).await.unwrap();
        for _ in 0..2 {
            let (status, text) = hosted.ask("a", request("/", b"")).await;
            assert!(
                status == expected.0 && text.contains(expected.1),
                "{action} {upstream}: {status} {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_serve_as_often_as_they_may() {
    let rest = r#"(global $served (mut i32) (i32.const 48))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $served (i32.add (global.get $served) (i32.const 1)))
            (i32.store8 (i32.const 200) (global.get $served))
            (call $say (i32.const 200) (i32.const 1)) (i32.const 0))"#;
    let hosted = Hosted::new();
    for (reuse, expected) in [(None, "12345"), (Some(1), "11111"), (Some(2), "12121")] {
        let mut spec = hosted.spec("a", &guest(rest));
        spec.reuse = reuse;
        hosted.run(vec![spec]).await.unwrap();
        let mut found = String::new();
        for _ in 0..5 {
            found += &hosted.ask("a", request("/", b"")).await.1;
        }
        assert_eq!(found, expected, "{reuse:?}");
    }
}
