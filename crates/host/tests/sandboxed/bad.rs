//! What a bad module does to its callers: one call fails, and the next one finds another instance.

use crate::Hosts;
use dhow_blocks::state::{Delete, Operation, Set, StateError, StateStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(3);

async fn misbehave(timeout: &str) -> (Hosts, Arc<dyn StateStore>) {
    let limits = [("limits.timeout", timeout), ("limits.memory", "160MiB"), ("limits.concurrency", "1")];
    let hosts = Hosts::new("state.wasm", "provider-misbehave", &limits);
    let store = hosts.providers().await.unwrap().state["component"].bound.provider.clone();
    (hosts, store)
}

/// How many calls the instance that answers has served.
async fn calls(store: &Arc<dyn StateStore>) -> u32 {
    let item = store.get("calls").await.unwrap().unwrap();
    std::str::from_utf8(&item.value).unwrap().parse().unwrap()
}

fn set(key: &str) -> Set {
    Set { key: key.to_owned(), value: "1".into(), ..Set::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_fails_alone() {
    let (_hosts, store) = misbehave("3s").await;
    for (key, said, is_same) in [
        ("trap", "wasm trap", false),
        ("exit", "exited with code", false),
        ("loop", "did not finish within 3s", false),
        ("recurse", "wasm trap", false),
        ("memory", "its memory limit", false),
        ("long-error", "long long", true),
    ] {
        store.set(set("kept")).await.unwrap();
        let before = calls(&store).await;
        let error = store.get(key).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(said) && text.len() < 2000, "{key}: {text}");
        assert!(text.contains("component \"component\"") || key == "long-error", "{key}: {text}");
        let is_transient = matches!(error, StateError::Unavailable { .. });
        assert_eq!(is_transient, key == "loop", "{key}: {error:?}");
        assert_eq!(store.get("kept").await.unwrap().is_some(), is_same, "{key}");
        assert_eq!(calls(&store).await, if is_same { before + 3 } else { 2 }, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_is_too_large_is_refused() {
    // Copying it takes long where nothing was optimised.
    let (_hosts, store) = misbehave("60s").await;
    store.set(set("kept")).await.unwrap();
    let error = store.get("large").await.unwrap_err().to_string();
    assert!(error.contains("larger than a value may be"), "{error}");
    assert!(store.get("kept").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_refused_and_what_is_made_up_is_not_passed_on() {
    let (_hosts, store) = misbehave("3s").await;
    let delete = || Delete { key: "a".to_owned(), etag: None };
    for (what, answer) in [
        ("transact", store.transact(vec![Operation::Delete(delete())]).await),
        ("delete", store.delete(delete()).await),
        ("increment", store.increment("a", 1).await.map(drop)),
    ] {
        assert!(matches!(answer, Err(StateError::NotSupported { .. })), "{what}: {answer:?}");
    }
    let listed = store.list_keys("app||", None, 10).await;
    assert!(matches!(&listed, Err(StateError::Failed { .. })), "{listed:?}");
    // It has no get-many, so each key is asked for by itself.
    store.set(set("a")).await.unwrap();
    let found = store.get_many(&["a".to_owned(), "b".to_owned()]).await;
    let found: Vec<bool> = found.into_iter().map(|item| item.unwrap().is_some()).collect();
    assert_eq!(found, [true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_longer_than_for_a_turn_and_a_call() {
    let (_hosts, store) = misbehave("3s").await;
    let since = Instant::now();
    let asked = [(); 4].map(|()| {
        tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.get("loop").await }
        })
    });
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Err(StateError::Unavailable { .. })));
    }
    assert!(since.elapsed() < 4 * LIMIT, "{:?}", since.elapsed());
    assert_eq!(calls(&store).await, 1);
    // A caller that goes away takes the instance along, and nothing else.
    assert!(tokio::time::timeout(LIMIT / 5, store.get("loop")).await.is_err());
    assert_eq!(calls(&store).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_opened_says_why() {
    let etcd = dhow_servers::etcd().unwrap();
    let url = format!("http://{}", etcd.address());
    let (etcd, bad, endpoint) = ("wasm-component-etcd", "provider-misbehave", ("endpoint", url.as_str()));
    let denied = "add it to grants.http in the component's metadata";
    type Metadata<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, &str, Metadata<'_>, &str); 13] = [
        ("state", etcd, &[endpoint], denied),
        ("state", etcd, &[endpoint, ("grants.http", "http://127.0.0.1:1")], denied),
        ("state", etcd, &[endpoint, ("grants.htp", "*")], "did you mean http?"),
        ("state", etcd, &[], "endpoint is missing"),
        (
            "pubsub",
            "wasm-component-streams",
            &[("address", "127.0.0.1:1"), ("grants.connect", "127.0.0.1:2")],
            "grants.connect",
        ),
        ("secretstores", "wasm-component-vault", &[("file", "/etc/passwd")], "/etc/passwd"),
        (
            "state",
            "wasm-component-vault",
            &[],
            "exports dhow:provider/secrets@0.1.0, and not dhow:provider/state@0.1.0",
        ),
        ("state", "kv", &[], "none of dhow:provider"),
        ("state", "p1-command", &[], "none of dhow:provider"),
        ("state", bad, &[("init", "trap")], "wasm trap"),
        ("state", bad, &[("init", "loop"), ("limits.timeout", "300ms")], "did not finish within 300ms"),
        ("state", bad, &[("init", "refuse")], "it does not want to"),
        ("state", bad, &[("limits.concurrency", "0")], "from 1 to 256"),
    ];
    for (block, module, metadata, said) in cases {
        let hosts = Hosts::new(&format!("{block}.wasm"), module, metadata);
        let error = hosts.providers().await.unwrap_err().to_string();
        assert!(
            error.contains(said) && error.contains("component \"component\""),
            "{module} {said}: {error}"
        );
    }
}
