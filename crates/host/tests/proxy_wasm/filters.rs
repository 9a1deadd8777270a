//! Guests before other apps.

use crate::support::{ALLOCATOR, Hosted, guest, importing, request};
use dhow_blocks::grants::Grants;
use dhow_host::AppSpec;
use std::time::Duration;

/// Answers with the header `x-passed` and the body.
const APP: &str = r#"(data (i32.const 100) "x-passed")
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (if (i32.eqz (call $header (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 8) (i32.const 12)))
            (then (drop (call $write (i32.const 1) (i32.const 0) (i32.const 0)
                (i32.load (i32.const 8)) (i32.load (i32.const 12))))))
        (i32.const 0))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 8) (i32.const 12)))
        (drop (call $write (i32.const 1) (i32.const -1) (i32.const 0) (i32.load (i32.const 8)) (i32.load (i32.const 12))))
        (i32.const 0))"#;

/// Adds its letter to the headers on both ways.
fn marking(letter: char, rest: &str) -> String {
    guest(&format!(
        r#"{ALLOCATOR} (data (i32.const 100) "x-passed") (data (i32.const 110) "{letter}")
        (func $mark (param $map i32)
            (drop (call $add (local.get $map) (i32.const 100) (i32.const 8) (i32.const 110) (i32.const 1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $mark (i32.const 0)) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
            (call $mark (i32.const 2)) (i32.const 0))
        {rest}"#
    ))
}

fn chain(hosted: &Hosted, filters: &[(&str, String)]) -> Vec<AppSpec> {
    let mut app = hosted.spec("app", &guest(&format!("{ALLOCATOR} {APP}")));
    app.filters = filters.iter().map(|(name, _)| (*name).to_owned()).collect();
    let filters = filters.iter().map(|(name, text)| hosted.spec(name, text));
    filters.chain([app]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_is_passed_in_order_and_back_in_reverse() {
    let hosted = Hosted::new();
    let body = r#"(data (i32.const 120) "+")
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (drop (call $write (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 120) (i32.const 1)))
            (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 120) (i32.const 1)))
            (i32.const 0))"#;
    hosted.run(chain(&hosted, &[("one", marking('1', "")), ("two", marking('2', body))])).await.unwrap();
    for _ in 0..3 {
        let mut sent = request("/", b"body");
        sent.headers_mut().insert("content-length", 4.into());
        let reply = hosted.send("app", sent).await.unwrap();
        let marks: Vec<_> = reply.headers().get_all("x-passed").iter().collect();
        assert_eq!(marks, ["2", "1"]);
        let body = reply.into_body().collect(100).await.unwrap();
        assert_eq!(body, "+1, 2body+");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_filter_ends_the_chain_and_passes_those_before_it() {
    let hosted = Hosted::new();
    let denying = guest(
        r#"(data (i32.const 100) "denied")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $answer (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 6)
                (i32.const 0) (i32.const 0) (i32.const -1))) (i32.const 1))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) unreachable)"#,
    );
    hosted
        .run(chain(&hosted, &[("one", marking('1', "")), ("two", denying), ("three", marking('3', ""))]))
        .await
        .unwrap();
    let reply = hosted.send("app", request("/", b"")).await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.headers()["x-passed"].as_bytes()), (403, &b"1"[..]));
    assert_eq!(reply.into_body().collect(100).await.unwrap(), "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_lets_nothing_through() {
    let trap = |side: &str| {
        guest(&format!(
            r#"(func (export "proxy_on_{side}_headers") (param i32 i32 i32) (result i32) unreachable)"#
        ))
    };
    for (filter, status) in [(trap("request"), 0), (trap("response"), 0), (marking('1', ""), 200)] {
        let hosted = Hosted::new();
        hosted.run(chain(&hosted, &[("one", filter)])).await.unwrap();
        let (found, text) = hosted.ask("app", request("/", b"")).await;
        assert_eq!(found, status, "{text}");
        assert!(status == 200 || text.contains("\"one\""), "{text}");
    }
    // A filter that is not there is not passed by.
    let hosted = Hosted::new();
    let mut specs = chain(&hosted, &[("one", marking('1', ""))]);
    specs.remove(0);
    hosted.run(specs).await.unwrap();
    assert!(hosted.ask("app", request("/", b"")).await.1.contains("filter"));
}

/// What a filter asks for is sent though it lets the request go on, and though its stream has ended.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_waits_for_are_sent() {
    let map = r"\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\04\00\00\00:method\00GET\00:path\00/\00:authority\00hear\00";
    // Says how often it was asked, itself included.
    let hear = guest(
        r#"(global $asked (mut i32) (i32.const 48))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $asked (i32.add (global.get $asked) (i32.const 1)))
            (i32.store8 (i32.const 200) (global.get $asked))
            (call $say (i32.const 200) (i32.const 1)) (i32.const 0))"#,
    );
    for callback in [
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $tell) (i32.const 0))"#,
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $tell) (i32.const 0))"#,
        r#"(func (export "proxy_on_log") (param i32) (call $tell))"#,
    ] {
        let text = importing(
            r#"(import "env" "proxy_http_call"
                (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#,
            &guest(&format!(
                r#"(data (i32.const 100) "{map}") (data (i32.const 300) "hear")
                (func $tell (if (call $call (i32.const 300) (i32.const 4) (i32.const 100) (i32.const 64)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 400))
                    (then unreachable)))
                ;; The plugin hears of it, whose stream may have ended.
                (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
                    (if (i32.ne (local.get 0) (i32.const 1)) (then unreachable)))
                {callback}"#
            )),
        );
        let hosted = Hosted::new();
        let mut specs = chain(&hosted, &[("one", text)]);
        specs[0].grants = Grants { invoke: vec!["hear".parse().unwrap()], ..Grants::default() };
        let mut hears = hosted.spec("hear", &hear);
        // One instance counts them all.
        hears.admission.running = 1;
        specs.push(hears);
        hosted.run(specs).await.unwrap();
        assert_eq!(hosted.ask("app", request("/", b"body")).await, (200, "body".to_owned()));
        let heard = async {
            for own in 1.. {
                let (status, count) = hosted.ask("hear", request("/", b"")).await;
                assert_eq!(status, 200, "{count}");
                if count.as_bytes()[0] > b'0' + own {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(7), heard).await.is_ok(), "{callback}");
    }
}

/// A filter that pauses at the head may mean that it wants to see the body first.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_wait_for_its_body() {
    for (side, map) in [("request", 0), ("response", 2)] {
        let filter = guest(&format!(
            r#"{ALLOCATOR} (data (i32.const 100) "x-passed") (data (i32.const 110) "late")
            (func (export "proxy_on_{side}_headers") (param i32 i32 i32) (result i32) (i32.const 1))
            (func (export "proxy_on_{side}_body") (param i32 i32 i32) (result i32)
                (drop (call $add (i32.const {map}) (i32.const 100) (i32.const 8) (i32.const 110) (i32.const 4)))
                (i32.const 0))"#
        ));
        let hosted = Hosted::new();
        hosted.run(chain(&hosted, &[("one", filter)])).await.unwrap();
        let reply = hosted.send("app", request("/", b"body")).await.unwrap();
        let header = reply.headers().get("x-passed").map(|value| value.as_bytes().to_vec());
        let body = reply.into_body().collect(100).await.unwrap();
        match side {
            // The app begins its body with the header that it found.
            "request" => assert_eq!(body, "latebody"),
            _ => assert_eq!((header.as_deref(), &body[..]), (Some(&b"late"[..]), &b"body"[..])),
        }
    }
}
