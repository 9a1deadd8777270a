//! MySQL's components against a real server (MariaDB), which one test starts once: starting takes seconds.

use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::conformance::{Runtime, binding, state};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::Metadata;
use dhow_blocks::state::{Concurrency, Delete, Operation, Set, StateError, StateStore, Ttl};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use dhow_servers::{Process, mariadb};
use futures::future::join_all;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

/// A server that was just started, or is coming back, and all that waits for it, is given this long.
const PATIENCE: Duration = Duration::from_secs(60);

const PASSWORD: &str = "secret";

fn component(component_type: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "component".to_owned(),
        component_type: component_type.to_owned(),
        version: "v1".to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

/// A data source name without a database.
fn at(server: &Process) -> String {
    format!("dhow:{PASSWORD}@tcp(127.0.0.1:{})/", server.port())
}

async fn try_open(component: &ComponentSpec) -> Result<Opened, OpenError> {
    open(component.clone(), OpenContext::default()).await
}

async fn open_state(component: &ComponentSpec) -> Arc<dyn StateStore> {
    match try_open(component).await.unwrap() {
        Opened::State(store) => store,
        _ => panic!("{} is no state store", component.component_type),
    }
}

async fn state_in(server: &Process, schema: &str, more: &[(&str, &str)]) -> Arc<dyn StateStore> {
    let connection = at(server);
    let metadata = [&[("connectionString", &*connection), ("schemaName", schema)], more].concat();
    open_state(&component("state.mysql", &metadata)).await
}

/// Waits for a server that is still starting.
async fn admin(server: &Process) -> Conn {
    let url = format!("mysql://dhow:{PASSWORD}@127.0.0.1:{}/?prefer_socket=false", server.port());
    let options = Opts::from_url(&url).unwrap();
    eventually("a connection", async || Conn::new(options.clone()).await.ok()).await
}

/// Tries until there is something.
async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "still no {what} after {PATIENCE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn set(key: &str, value: &str) -> Set {
    Set { key: key.to_owned(), value: value.to_owned().into(), ..Set::default() }
}

fn document(key: &str, value: &Value) -> Set {
    Set { json: true, ..set(key, &value.to_string()) }
}

async fn text(store: &Arc<dyn StateStore>, key: &str) -> Option<String> {
    let item = store.get(key).await.unwrap()?;
    Some(String::from_utf8(item.value.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mysql() {
    let mut server = mariadb().unwrap();
    drop(admin(&server).await);
    let start = Instant::now();
    concurrent_first_starts(&server).await;
    println!("concurrent_first_starts after {:?}", start.elapsed());
    format_of_dapr(&server).await;
    println!("format_of_dapr after {:?}", start.elapsed());
    format_of_ours(&server).await;
    println!("format_of_ours after {:?}", start.elapsed());
    let component = component("state.mysql", &[("connectionString", &at(&server))]);
    state::suite("state.mysql", TOKIO, || open_state(&component)).await.assert_passed();
    keys(&server).await;
    println!("keys after {:?}", start.elapsed());
    cleanup(&server).await;
    println!("cleanup after {:?}", start.elapsed());
    conflicts(&server).await;
    println!("conflicts after {:?}", start.elapsed());
    statements(&server).await;
    println!("statements after {:?}", start.elapsed());
    mistakes(&server).await;
    println!("mistakes after {:?}", start.elapsed());
    hanging(&server).await;
    println!("hanging after {:?}", start.elapsed());
    killed_under_load(&mut server).await;
    println!("killed_under_load after {:?}", start.elapsed());
}

/// Many hosts meet a server without the database.
async fn concurrent_first_starts(server: &Process) {
    let connection = at(server);
    let component = component("state.mysql", &[("connectionString", &connection), ("schemaName", "fresh")]);
    for (number, opened) in join_all((0..12).map(|_| try_open(&component))).await.into_iter().enumerate() {
        match opened {
            Ok(Opened::State(store)) => {
                store.set(set(&number.to_string(), "x")).await.unwrap();
                store.close().await;
            }
            Ok(_) => panic!("no state store"),
            Err(error) => panic!("{number}: {error}"),
        }
    }
}

/// The statements by which Dapr writes are in components-contrib, `state/mysql/mysql.go`.
async fn format_of_dapr(server: &Process) {
    let mut client = admin(server).await;
    // Before Dapr 1.11 there was no column `expiredate`.
    for statement in [
        "CREATE DATABASE dapr",
        "USE dapr",
        "CREATE TABLE state (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL, isbinary BOOLEAN NOT NULL,
         insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
         updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
         eTag VARCHAR(36) NOT NULL) DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_general_ci",
        "INSERT INTO state (id, value, eTag, isbinary) VALUES
         ('app||object', '{\"b\":1,\"a\":[true,null]}', '57d1d0e1-0001-4aaa-8bbb-000000000001', false),
         ('app||binary', '\"aGVsbG8=\"', '57d1d0e1-0001-4aaa-8bbb-000000000002', true)",
    ] {
        client.query_drop(statement).await.unwrap();
    }
    let store = state_in(server, "dapr", &[]).await;
    client
        .query_drop(
            "INSERT INTO state (id, value, eTag, isbinary, expiredate) VALUES
             ('app||expired', '1', 'x', false, CURRENT_TIMESTAMP - INTERVAL 1 SECOND),
             ('app||lives', '1', 'x', false, CURRENT_TIMESTAMP + INTERVAL 3600 SECOND)",
        )
        .await
        .unwrap();
    for (key, expected) in [
        ("app||object", Some(r#"{"b":1,"a":[true,null]}"#)),
        ("app||binary", Some("hello")),
        ("app||expired", None),
        ("app||lives", Some("1")),
    ] {
        assert_eq!(text(&store, key).await.as_deref(), expected, "{key}");
    }
    let lives = store.get("app||lives").await.unwrap().unwrap().expires_at.unwrap();
    let left = lives.duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600), "{left:?}");
    let item = store.get("app||object").await.unwrap().unwrap();
    assert_eq!(item.etag, "57d1d0e1-0001-4aaa-8bbb-000000000001");
    store.set(Set { etag: Some(item.etag), ..document("app||object", &json!({"c": 1})) }).await.unwrap();
    // This table takes upper case for lower case. No key is ever shown or overwrites another one's value.
    let collided = [
        store.set(set("APP||OBJECT", "x")).await,
        store.increment("APP||OBJECT", 1).await.map(drop),
        store
            .transact(vec![Operation::Set(set("other", "x")), Operation::Set(set("App||object", "x"))])
            .await,
    ];
    assert!(collided.iter().all(|answer| matches!(answer, Err(StateError::Failed { .. }))), "{collided:?}");
    let first = Set { concurrency: Concurrency::FirstWrite, ..set("APP||OBJECT", "x") };
    assert!(matches!(store.set(first).await, Err(StateError::EtagMismatch { .. })));
    store.delete(Delete { key: "APP||OBJECT".to_owned(), etag: None }).await.unwrap();
    assert_eq!(text(&store, "APP||OBJECT").await, None);
    assert_eq!(text(&store, "other").await, None);
    let many = store.get_many(&["APP||OBJECT".to_owned(), "app||object".to_owned()]).await;
    assert_eq!(many.iter().map(|item| item.as_ref().unwrap().is_some()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(text(&store, "app||object").await.as_deref(), Some(r#"{"c":1}"#));
    let listed = store.list_keys("app||", None, 2).await.unwrap();
    assert_eq!((listed.keys, listed.more), (vec!["app||binary".to_owned(), "app||lives".to_owned()], true));
    assert_eq!(store.list_keys("APP||", None, 2).await.unwrap().keys, [""; 0]);
    store.close().await;
}

async fn format_of_ours(server: &Process) {
    let mut client = admin(server).await;
    let store = state_in(server, "ours", &[("tableName", "mine"), ("metadataTableName", "meta")]).await;
    let ttl = Ttl::After(Duration::from_millis(59_500));
    store.set(Set { ttl, ..document("app||json", &json!({"b": "x", "a": 1})) }).await.unwrap();
    store.set(set("app||bytes", "hello")).await.unwrap();
    assert_eq!(store.increment("app||count", 41).await, Ok(41));
    let far = Ttl::After(Duration::from_secs(100 * 365 * 86_400));
    store.set(Set { ttl: far, ..set("app||far", "x") }).await.unwrap();
    let rows: Vec<(String, String, bool, usize, Option<i64>)> = client
        .query(
            "SELECT id, value, isbinary, LENGTH(eTag), TIMESTAMPDIFF(SECOND, insertDate, expiredate) DIV 10
             FROM ours.mine ORDER BY id",
        )
        .await
        .unwrap();
    let row = |id: &str, value: &str, binary, expiry| (id.to_owned(), value.to_owned(), binary, 36, expiry);
    assert_eq!(
        rows,
        [
            row("app||bytes", "\"aGVsbG8=\"", true, None),
            row("app||count", "41", false, None),
            row("app||far", "\"eA==\"", true, None),
            row("app||json", r#"{"b":"x","a":1}"#, false, Some(6)),
        ]
    );
    let columns: Vec<(String, String)> = client
        .query(
            "SELECT column_name, column_type FROM information_schema.columns
             WHERE table_schema = 'ours' AND table_name = 'mine' ORDER BY ordinal_position",
        )
        .await
        .unwrap();
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["id", "value", "isbinary", "insertDate", "updateDate", "eTag", "expiredate"]);
    let names: Vec<&str> = store.capabilities().iter().map(|found| found.name()).collect();
    assert_eq!(names, ["ETAG", "TRANSACTIONAL", "TTL", "ACTOR"]);
    store.close().await;
}

async fn keys(server: &Process) {
    let store = state_in(server, "ours", &[]).await;
    let (longest, longer) = ("ä".repeat(255), "a".repeat(256));
    store.set(set(&longest, "1")).await.unwrap();
    assert_eq!(text(&store, &longest).await.as_deref(), Some("1"));
    for answer in [store.set(set(&longer, "1")).await, store.increment(&longer, 1).await.map(drop)] {
        assert_eq!(answer, Err(StateError::TooLarge { what: "key", actual: 256, limit: 255 }));
    }
    assert_eq!(text(&store, &longer).await, None);
    store.delete(Delete { key: longer, etag: None }).await.unwrap();
    store.close().await;
}

async fn cleanup(server: &Process) {
    let mut client = admin(server).await;
    let store = state_in(server, "cleanup", &[("cleanupInterval", "200ms")]).await;
    store.set(Set { ttl: Ttl::After(Duration::ZERO), ..set("short", "1") }).await.unwrap();
    store.set(Set { ttl: Ttl::After(PATIENCE * 2), ..set("long", "1") }).await.unwrap();
    store.set(set("forever", "1")).await.unwrap();
    eventually("cleanup", async || {
        let keys: Vec<String> = client.query("SELECT id FROM cleanup.state ORDER BY id").await.unwrap();
        (keys == ["forever", "long"]).then_some(())
    })
    .await;
    let keys: Vec<String> = client.query("SELECT id FROM cleanup.dapr_metadata").await.unwrap();
    assert_eq!(keys, ["last-cleanup"]);
    store.close().await;
}

/// A sidecar takes the same rows in the opposite order: one of the two gives way and tries again.
async fn conflicts(server: &Process) {
    let store = state_in(server, "conflicts", &[]).await;
    for key in ["a", "b"] {
        store.set(set(key, "0")).await.unwrap();
    }
    let (mut theirs, mut watcher) = (admin(server).await, admin(server).await);
    for round in 0..3 {
        theirs.query_drop("START TRANSACTION").await.unwrap();
        theirs.query_drop("UPDATE conflicts.state SET eTag = 'x' WHERE id = 'b'").await.unwrap();
        let operations = ["a", "b"].map(|key| Operation::Set(set(key, &round.to_string())));
        let ours = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.transact(operations.into()).await }
        });
        eventually("waiting transaction", async || {
            let waiting = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'conflicts' AND command = 'Execute'";
            watcher.query_first::<i64, _>(waiting).await.unwrap().filter(|number| *number > 0)
        })
        .await;
        let _ = theirs.query_drop("UPDATE conflicts.state SET eTag = 'x' WHERE id = 'a'").await;
        theirs.query_drop("COMMIT").await.unwrap();
        timeout(PATIENCE, ours).await.unwrap().unwrap().unwrap();
        assert_eq!(text(&store, "a").await.unwrap(), round.to_string());
    }
    store.close().await;
}

async fn invoke(
    binding: &Arc<dyn Binding>,
    operation: &str,
    sql: &str,
    params: Option<Value>,
) -> Result<BindingResponse, BlockError> {
    let mut metadata = Metadata::new();
    metadata.insert("sql".to_owned(), sql.to_owned());
    metadata.extend(params.map(|params| ("params".to_owned(), params.to_string())));
    let operation = operation.to_owned();
    binding.invoke(BindingRequest { operation, metadata, ..BindingRequest::default() }).await
}

async fn rows(binding: &Arc<dyn Binding>, sql: &str, params: Option<Value>) -> Value {
    let response =
        invoke(binding, "query", sql, params).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    serde_json::from_slice(&response.data.unwrap()).unwrap()
}

async fn open_binding(component: &ComponentSpec) -> Arc<dyn Binding> {
    match try_open(component).await.unwrap() {
        Opened::Binding(binding) => binding,
        _ => panic!("{} is no binding", component.component_type),
    }
}

async fn statements(server: &Process) {
    let url = format!("{}ours", at(server));
    let described = component("bindings.mysql", &[("url", &url)]);
    let open = || open_binding(&described);
    binding::suite("bindings.mysql", TOKIO, binding::Traits::default(), open).await.assert_passed();
    let (binding, mut client) = (open().await, admin(server).await);
    let create = "CREATE TABLE foo (id bigint AUTO_INCREMENT PRIMARY KEY, b boolean, v1 varchar(20) CHARACTER SET utf8mb4, \
                  ts timestamp(3) NULL, d date, t time, f double, n decimal(12,3), bytes blob, u bigint unsigned)";
    invoke(&binding, "exec", create, None).await.unwrap();
    let insert = "INSERT INTO foo (b, v1, ts, d, t, f, n, bytes, u) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let params = json!([
        true,
        "Grüße \"x\"",
        "2020-09-24 11:45:05.500",
        "2024-02-29",
        "-01:02:03",
        1.5,
        "12.340",
        "abc",
        u64::MAX
    ]);
    let response = invoke(&binding, "exec", insert, Some(params)).await.unwrap();
    let field = |name: &str| response.metadata.get(name).cloned().unwrap_or_default();
    assert_eq!(
        (field("operation"), field("rows-affected"), field("sql")),
        ("exec".to_owned(), "1".to_owned(), insert.to_owned())
    );
    assert!(field("start-time").ends_with('Z') && field("end-time") >= field("start-time"), "{response:?}");
    assert!(field("duration").ends_with('s'), "{response:?}");
    invoke(&binding, "exec", "INSERT INTO foo (v1) VALUES (NULL)", None).await.unwrap();
    let expected = json!([
        {"id": 1, "b": 1, "v1": "Grüße \"x\"", "ts": "2020-09-24T11:45:05.5Z", "d": "2024-02-29T00:00:00Z", "t": "-01:02:03",
         "f": 1.5, "n": "12.340", "bytes": "YWJj", "u": u64::MAX},
        {"id": 2},
    ]);
    // With parameters and without the server sends values in different forms; they look the same.
    assert_eq!(rows(&binding, "SELECT * FROM foo ORDER BY id", None).await, expected);
    assert_eq!(
        rows(&binding, "SELECT * FROM foo WHERE id > ? ORDER BY id", Some(json!([0]))).await,
        expected
    );
    assert_eq!(rows(&binding, "SELECT 1 FROM foo WHERE false", None).await, json!([]));
    let changed =
        invoke(&binding, "exec", "UPDATE foo SET v1 = ? WHERE id = ?", Some(json!(["y", 2]))).await.unwrap();
    assert_eq!(changed.metadata.get("rows-affected").map(String::as_str), Some("1"));
    for (operation, sql, params, expected) in [
        ("query", "SELEC", None, "error 1064"),
        ("query", "SELECT ?", Some(json!([1, 2])), "parameters"),
        ("exec", "", None, "sql is required"),
        ("drop", "SELECT 1", None, "operation"),
        ("query", "SELECT REPEAT('x', 1000000) FROM seq_1_to_200", None, "MiB"),
    ] {
        let error = invoke(&binding, operation, sql, params).await.expect_err(sql).to_string();
        assert!(error.contains(expected), "{sql}: {error}");
    }
    assert_eq!(rows(&binding, "SELECT 1 AS one", None).await, json!([{"one": 1}]), "works after all of that");
    // No statement changes the connection of the next one.
    let changes = [
        "START TRANSACTION",
        "SET autocommit = 0",
        "USE mysql",
        "LOCK TABLES foo READ",
        "CREATE TEMPORARY TABLE foo (a int)",
        "SELECT @a := 1",
        "SELECT GET_LOCK('a', 1)",
    ];
    for (number, sql) in changes.into_iter().enumerate() {
        invoke(&binding, "exec", sql, None).await.unwrap();
        let update = "UPDATE foo SET v1 = ? WHERE id = 2";
        let updated = invoke(&binding, "exec", update, Some(json!([number.to_string()]))).await;
        updated.unwrap_or_else(|error| panic!("after {sql}: {error}"));
        let state = "SELECT @@autocommit AS auto, DATABASE() AS db, @a AS a, IS_USED_LOCK('a') AS held, \
                     (SELECT v1 FROM foo WHERE id = 2) AS v1";
        let found = json!([{"auto": 1, "db": "ours", "v1": number.to_string()}]);
        let is = async || (rows(&binding, state, None).await == found).then_some(());
        eventually("connection without a past", is).await;
        // Another connection sees it: it is no part of a transaction that is still open.
        let committed =
            client.query_first::<String, _>("SELECT v1 FROM ours.foo WHERE id = 2").await.unwrap();
        assert_eq!(committed, Some(number.to_string()), "after {sql}");
    }
    // One request is one statement.
    for sql in [
        "DELETE FROM foo; DELETE FROM foo",
        "SELECT 1; DROP TABLE foo",
        "LOCK TABLES foo READ; DROP TABLE foo",
    ] {
        let error = invoke(&binding, "exec", sql, None).await.expect_err(sql).to_string();
        assert!(error.contains("error 1064"), "{sql}: {error}");
    }
    assert_eq!(rows(&binding, "SELECT COUNT(*) AS n FROM foo", None).await, json!([{"n": 2}]));
    // What cannot be prepared is run as it is.
    invoke(&binding, "exec", "LOCK TABLES foo READ", None).await.unwrap();
    // A server without TLS will do where TLS is only preferred.
    let preferred = component("bindings.mysql", &[("url", &format!("{url}?tls=preferred"))]);
    open_binding(&preferred).await.close().await;
    binding.ping().await.unwrap();
    let close = BindingRequest { operation: "close".to_owned(), ..BindingRequest::default() };
    assert_eq!(binding.invoke(close).await, Ok(BindingResponse::default()));
    assert!(matches!(invoke(&binding, "query", "SELECT 1", None).await, Err(BlockError::Unavailable { .. })));
}

/// Every mistake has an error that names it, and no secret.
async fn mistakes(server: &Process) {
    let good = at(server);
    let wrong = good.replace(PASSWORD, "hunter2");
    let away = "dhow:hunter2@tcp(127.0.0.1:1)/".to_owned();
    for (component_type, metadata, expected) in [
        ("state.mysql", vec![], "connectionString"),
        ("state.mysql", vec![("connectionString", "hunter2")], "form"),
        ("state.mysql", vec![("connectionString", wrong.as_str())], "1045"),
        ("state.mysql", vec![("connectionString", &away)], "127.0.0.1:1"),
        ("state.mysql", vec![("connectionString", &format!("{good}x"))], "schemaName"),
        ("state.mysql", vec![("connectionString", &good), ("tableName", "a`b")], "tableName"),
        ("state.mysql", vec![("connectionString", &good), ("maxOpenConns", "x")], "maxOpenConns"),
        ("state.mysql", vec![("connectionString", &format!("{good}?tls=custom"))], "pemPath"),
        ("state.mysql", vec![("connectionString", &format!("{good}?tls=true"))], "cannot connect"),
        ("bindings.mysql", vec![("url", &format!("{good}absent"))], "absent"),
        ("bindings.mysql", vec![], "url"),
    ] {
        let start = Instant::now();
        let error = try_open(&component(component_type, &metadata)).await.err();
        let error = error.unwrap_or_else(|| panic!("{metadata:?} opened")).to_string();
        assert!(error.contains(expected), "{metadata:?}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(PASSWORD), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
    }
}

/// A server that does not answer costs a caller the timeout.
async fn hanging(server: &Process) {
    let store = state_in(server, "hanging", &[("timeoutInSeconds", "1"), ("maxOpenConns", "2")]).await;
    store.set(set("a", "1")).await.unwrap();
    let mut client = admin(server).await;
    client.query_drop("LOCK TABLES hanging.state WRITE").await.unwrap();
    let start = Instant::now();
    let answers = join_all((0..10).map(|_| store.set(set("a", "2")))).await;
    assert!(
        answers.iter().all(|answer| matches!(answer, Err(StateError::Unavailable { .. }))),
        "{answers:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Nobody waits for the lock any more, so nothing is written when it is released.
    let waiting =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = 'hanging' AND command <> 'Sleep'";
    eventually("end of what nobody waits for", async || {
        (client.query_first::<i64, _>(waiting).await.unwrap() == Some(0)).then_some(())
    })
    .await;
    client.query_drop("UNLOCK TABLES").await.unwrap();
    let found = eventually("value", async || store.get("a").await.ok()).await;
    assert_eq!(found.unwrap().value, "1");
    eventually("write", async || store.set(set("a", "3")).await.ok()).await;
    store.close().await;
}

/// Kills the server while writers write; what was acknowledged is there when it is back.
async fn killed_under_load(server: &mut Process) {
    const WRITERS: usize = 8;
    let store = state_in(server, "load_test", &[("timeoutInSeconds", "5")]).await;
    let acknowledged: Arc<[AtomicI64; WRITERS]> = Arc::default();
    let (failures, mut failed) = mpsc::unbounded_channel();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, acknowledged, failures) =
                (Arc::clone(&store), Arc::clone(&acknowledged), failures.clone());
            tokio::spawn(async move {
                // Until the server is lost.
                let error = loop {
                    let start = Instant::now();
                    match store.increment(&format!("count-{writer}"), 1).await {
                        Ok(sum) => acknowledged[writer].store(sum, Ordering::Relaxed),
                        Err(error) => break (error, start.elapsed()),
                    }
                };
                let _ = failures.send(error);
            })
        })
        .collect();
    eventually("progress", async || {
        acknowledged.iter().map(|sum| sum.load(Ordering::Relaxed)).min().filter(|least| *least > 5)
    })
    .await;
    server.kill();
    for _ in 0..WRITERS {
        let (error, took) = timeout(PATIENCE, failed.recv()).await.unwrap().unwrap();
        assert!(matches!(error, StateError::Unavailable { .. }), "{error}");
        assert!(took < Duration::from_secs(7), "{took:?}: {error}");
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // Without a server the answers come at once.
    let start = Instant::now();
    for _ in 0..200 {
        assert!(matches!(store.get("count-0").await, Err(StateError::Unavailable { .. })));
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    server.start().unwrap();
    eventually("recovery", async || store.ping().await.ok()).await;
    for (writer, acknowledged) in acknowledged.iter().enumerate() {
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let key = format!("count-{writer}");
        let found = eventually("value", async || store.get(&key).await.ok()).await;
        let found: i64 = std::str::from_utf8(&found.unwrap().value).unwrap().parse().unwrap();
        // The last answer may have been lost on its way.
        assert!([acknowledged, acknowledged + 1].contains(&found), "{found}, acknowledged {acknowledged}");
        assert_eq!(store.increment(&key, 1).await, Ok(found + 1));
    }
    store.close().await;
}
