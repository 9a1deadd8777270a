//! Contexts: which one is in effect, how a stream is let go, and what comes too late.

use crate::support::{ALLOCATOR, Hosted, guest, importing, request};
use dhow_blocks::grants::Grants;
use dhow_blocks::invoke::Body;
use http_body::Frame;
use http_body_util::StreamBody;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_answers_for_a_stream_that_it_makes_the_effective_one() {
    let effective =
        r#"(import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))"#;
    // Every request pauses; a tick, which belongs to the root context, answers it.
    let text = |context: &str, refused: &str| {
        importing(
            effective,
            &guest(&format!(
                r#"{ALLOCATOR} (data (i32.const 100) "answered") (global $stream (mut i32) (i32.const 0))
                (func (export "proxy_on_configure") (param i32 i32) (result i32)
                    (drop (call $tick (i32.const 2))) (i32.const 1))
                (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                    (global.set $stream (local.get 0)) (i32.const 1))
                (func (export "proxy_on_tick") (param i32)
                    (if (i32.eqz (global.get $stream)) (then (return)))
                    (if (i32.ne (call $effective {context}) (i32.const {refused})) (then unreachable))
                    (if (i32.eqz (i32.const {refused})) (then
                        (global.set $stream (i32.const 0)) (call $say (i32.const 100) (i32.const 8)))))"#
            )),
        )
    };
    let hosted = Hosted::one(&text("(global.get $stream)", "0")).await;
    for _ in 0..3 {
        assert_eq!(hosted.ask("a", request("/", b"")).await, (200, "answered".to_owned()));
    }
    // No such context: the guest is told so, and nothing is in its place.
    let hosted = Hosted::hurried();
    hosted.run(vec![hosted.spec("a", &text("(i32.const 77)", "2"))]).await.unwrap();
    let (status, answer) = hosted.ask("a", request("/", b"")).await;
    assert!(status == 0 && answer.contains("did not answer"), "{status} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_done_is_let_go_when_the_guest_says_so() {
    let shared = r#"(import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_shared_data" (func $shared (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))"#;
    // What happens to a stream behind its answer is kept as letters under the key k: done, tick, log, delete. Path /
    // begins, any body asks for the letters.
    let text = importing(
        shared,
        &guest(&format!(
            r#"{ALLOCATOR} (data (i32.const 100) "k") (data (i32.const 110) "begun")
            (global $written (mut i32) (i32.const 0)) (global $stream (mut i32) (i32.const 0))
            (global $asked (mut i32) (i32.const 0))
            (func $note (param $letter i32)
                (if (global.get $asked) (then (return)))
                (i32.store8 (i32.add (i32.const 200) (global.get $written)) (local.get $letter))
                (global.set $written (i32.add (global.get $written) (i32.const 1)))
                (drop (call $share (i32.const 100) (i32.const 1) (i32.const 200) (global.get $written) (i32.const 0))))
            (func (export "proxy_on_request_headers") (param $context i32) (param i32) (param $end i32) (result i32)
                (global.set $asked (i32.eqz (local.get $end)))
                (if (local.get $end) (then
                    (global.set $stream (local.get $context))
                    (call $say (i32.const 110) (i32.const 5))))
                (i32.const 0))
            (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
                (if (call $shared (i32.const 100) (i32.const 1) (i32.const 8) (i32.const 12) (i32.const 16))
                    (then (call $say (i32.const 110) (i32.const 0)) (return (i32.const 0))))
                (call $say (i32.load (i32.const 8)) (i32.load (i32.const 12))) (i32.const 0))
            (func (export "proxy_on_done") (param i32) (result i32)
                (call $note (i32.const 100))
                (if (global.get $asked) (then (return (i32.const 1))))
                (drop (call $tick (i32.const 2))) (i32.const 0))
            (func (export "proxy_on_tick") (param i32)
                (if (i32.eqz (global.get $stream)) (then (return)))
                (call $note (i32.const 116))
                (if (call $effective (global.get $stream)) (then unreachable))
                (if (call $done) (then unreachable))
                (global.set $stream (i32.const 0)) (drop (call $tick (i32.const 0))))
            (func (export "proxy_on_log") (param i32) (call $note (i32.const 108)))
            (func (export "proxy_on_delete") (param i32) (call $note (i32.const 101)))"#
        )),
    );
    let hosted = Hosted::one(&text).await;
    assert_eq!(hosted.ask("a", request("/", b"")).await, (200, "begun".to_owned()));
    let letters = async {
        loop {
            let (status, letters) = hosted.ask("a", request("/", b"?")).await;
            assert_eq!(status, 200, "{letters}");
            if letters.ends_with('e') {
                break letters;
            }
            tokio::task::yield_now().await;
        }
    };
    let letters = tokio::time::timeout(Duration::from_secs(20), letters).await.unwrap();
    assert_eq!(letters, "dtle", "done, a tick, log, delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_answered_in_time_comes_back_without_headers() {
    let map = r"\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\04\00\00\00:method\00GET\00:path\00/\00:authority\00slow\00";
    let text = importing(
        r#"(import "env" "proxy_http_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
        &guest(&format!(
            r#"{ALLOCATOR} (data (i32.const 100) "{map}") (data (i32.const 300) "slow") (data (i32.const 310) "too late")
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (if (call $call (i32.const 300) (i32.const 4) (i32.const 100) (i32.const 64)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 50) (i32.const 400))
                    (then unreachable))
                (i32.const 1))
            (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                (if (local.get 2) (then unreachable))
                (call $say (i32.const 310) (i32.const 8)))"#
        )),
    );
    // Pauses for ever, though not for nothing.
    let slow = guest(
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $tick (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#,
    );
    let hosted = Hosted::new();
    let mut asks = hosted.spec("a", &text);
    asks.grants = Grants { invoke: vec!["slow".parse().unwrap()], ..Grants::default() };
    hosted.run(vec![asks, hosted.spec("slow", &slow)]).await.unwrap();
    for _ in 0..2 {
        assert_eq!(hosted.ask("a", request("/", b"")).await, (200, "too late".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_held_back_goes_on_whole_and_its_trailers_behind_it() {
    // The body comes in three pieces; it is held until a tick lets it go. Answers body, "|" and the trailer.
    let text = guest(&format!(
        r#"{ALLOCATOR} (data (i32.const 100) "x-sum") (data (i32.const 110) "|") (global $held (mut i32) (i32.const 0))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $tick (i32.const 2))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
            (if (global.get $held) (then (drop (call $continue (i32.const 0))) (global.set $held (i32.const 0)))))
        (func (export "proxy_on_request_body") (param $context i32) (param $size i32) (param $end i32) (result i32)
            (if (local.get $end) (then unreachable))
            (drop (call $read (i32.const 0) (i32.const 0) (local.get $size) (i32.const 8) (i32.const 12)))
            (drop (call $write (i32.const 1) (i32.const -1) (i32.const 0) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
            (global.set $held (i32.const 1)) (i32.const 1))
        (func (export "proxy_on_request_trailers") (param i32 i32) (result i32)
            (if (i32.ne (local.get 1) (i32.const 1)) (then unreachable))
            (drop (call $write (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 110) (i32.const 1)))
            (if (call $header (i32.const 1) (i32.const 100) (i32.const 5) (i32.const 8) (i32.const 12)) (then unreachable))
            (drop (call $write (i32.const 1) (i32.const -1) (i32.const 0) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
            (i32.const 0))"#
    ));
    let hosted = Hosted::one(&text).await;
    for _ in 0..2 {
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "3".parse().unwrap());
        let frames = ["one ", "two ", "three"].map(|piece| Frame::data(bytes::Bytes::from(piece)));
        let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, std::io::Error>);
        let mut sent = request("/", b"");
        *sent.body_mut() = Body::stream(StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>())));
        assert_eq!(hosted.ask("a", sent).await, (200, "one two three|3".to_owned()));
    }
}
