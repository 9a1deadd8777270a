//! PostgreSQL's components against a real server, which one test starts once: starting takes seconds.

use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingRequest, BindingResponse};
use dhow_blocks::configuration::{ConfigurationItem, ConfigurationStore, Items};
use dhow_blocks::conformance::{Runtime, binding, configuration, state};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Metadata, Outcome, Running};
use dhow_blocks::state::{Capability, Operation, Query, Set, StateError, StateStore, Ttl};
use dhow_providers::registry::{ComponentSpec, OpenContext, OpenError, Opened, open};
use dhow_servers::{Process, postgres, postgres_with_tls};
use futures::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

const TOKIO: Runtime = Runtime {
    spawn: |task| drop(tokio::spawn(task)),
    sleep: |duration| Box::pin(tokio::time::sleep(duration)),
};

/// A server that was just started, or is coming back, and all that waits for it, is given this long.
const PATIENCE: Duration = Duration::from_secs(60);

const PASSWORD: &str = "secret";

fn component(component_type: &str, version: &str, metadata: &[(&str, &str)]) -> ComponentSpec {
    ComponentSpec {
        name: "component".to_owned(),
        component_type: component_type.to_owned(),
        version: version.to_owned(),
        metadata: metadata.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
    }
}

/// A database of the server.
fn at(server: &Process, database: &str) -> String {
    format!("host=127.0.0.1 port={} user=postgres password={PASSWORD} dbname={database}", server.port())
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

async fn open_configuration(component: &ComponentSpec) -> Arc<dyn ConfigurationStore> {
    match try_open(component).await.unwrap() {
        Opened::Configuration(store) => store,
        _ => panic!("{} is no configuration store", component.component_type),
    }
}

async fn open_binding(component: &ComponentSpec) -> Arc<dyn Binding> {
    match try_open(component).await.unwrap() {
        Opened::Binding(binding) => binding,
        _ => panic!("{} is no binding", component.component_type),
    }
}

/// A client of its own, as psql is one. Waits for a server that is still starting.
async fn admin(server: &Process, database: &str) -> Client {
    let text = at(server, database);
    eventually("a connection", async || {
        let (client, connection) = tokio_postgres::connect(&text, NoTls).await.ok()?;
        tokio::spawn(async move { drop(connection.await) });
        Some(client)
    })
    .await
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

async fn create_database(server: &Process, name: &str) -> Client {
    admin(server, "postgres").await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    admin(server, name).await
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
async fn postgresql() {
    let mut server = postgres().unwrap();
    drop(admin(&server, "postgres").await);
    let start = Instant::now();
    concurrent_first_starts(&server).await;
    println!("concurrent_first_starts after {:?}", start.elapsed());
    version_1(&server).await;
    println!("version_1 after {:?}", start.elapsed());
    version_2(&server).await;
    println!("version_2 after {:?}", start.elapsed());
    conformance(&server).await;
    println!("conformance after {:?}", start.elapsed());
    queries(&server).await;
    println!("queries after {:?}", start.elapsed());
    cleanup(&server).await;
    println!("cleanup after {:?}", start.elapsed());
    conflicts(&server).await;
    println!("conflicts after {:?}", start.elapsed());
    changes(&server).await;
    println!("changes after {:?}", start.elapsed());
    statements(&server).await;
    println!("statements after {:?}", start.elapsed());
    mistakes(&server).await;
    println!("mistakes after {:?}", start.elapsed());
    hanging(&server).await;
    println!("hanging after {:?}", start.elapsed());
    killed_under_load(&mut server).await;
    println!("killed_under_load after {:?}", start.elapsed());
}

async fn conformance(server: &Process) {
    create_database(server, "conformance").await;
    let connection = at(server, "conformance");
    for (version, more) in [("v1", ("tableName", "public.State_1")), ("v2", ("tablePrefix", "own_"))] {
        let component = component("state.postgresql", version, &[("connectionString", &connection), more]);
        let name = format!("state.postgresql/{version} {}", more.1);
        state::suite(&name, TOKIO, || open_state(&component)).await.assert_passed();
    }
    let client = Arc::new(admin(server, "conformance").await);
    create_configuration(&client, "config").await;
    let write: configuration::Write = Arc::new(move |changes| {
        let client = Arc::clone(&client);
        Box::pin(async move {
            for (key, value) in changes {
                let Some(value) = value else {
                    client.execute("DELETE FROM configtable WHERE key = $1", &[&key]).await.unwrap();
                    continue;
                };
                let update = "UPDATE configtable SET value = $2 WHERE key = $1";
                if client.execute(update, &[&key, &value]).await.unwrap() == 0 {
                    let insert = "INSERT INTO configtable VALUES ($1, $2, '1', NULL)";
                    client.execute(insert, &[&key, &value]).await.unwrap();
                }
            }
        })
    });
    let metadata = [("url", &*connection), ("table", "configtable")];
    let described = component("configuration.postgresql", "v1", &metadata);
    let open = || open_configuration(&described);
    configuration::suite("configuration.postgresql", TOKIO, write, open).await.assert_passed();
    let write = super::operator_files::written_by(open_configuration(&described).await);
    configuration::suite("configuration.postgresql, written", TOKIO, write, open).await.assert_passed();
    let described = component("bindings.postgresql", "v1", &metadata[..1]);
    let open = || open_binding(&described);
    binding::suite("bindings.postgresql", TOKIO, binding::Traits::default(), open).await.assert_passed();
}

/// Many hosts meet an empty database.
async fn concurrent_first_starts(server: &Process) {
    let client = create_database(server, "fresh").await;
    let connection = at(server, "fresh");
    let components: Vec<ComponentSpec> = (0..12)
        .map(|number| {
            let version = if number % 2 == 0 { "v1" } else { "v2" };
            let prefix = ("tablePrefix", "two_");
            component("state.postgresql", version, &[("connectionString", &connection), prefix])
        })
        .collect();
    let opened = join_all(components.iter().map(try_open)).await;
    for (number, opened) in opened.into_iter().enumerate() {
        match opened {
            Ok(Opened::State(store)) => {
                store.set(set(&number.to_string(), "x")).await.unwrap();
                store.close().await;
            }
            Ok(_) => panic!("no state store"),
            Err(error) => panic!("{number}: {error}"),
        }
    }
    let rows = client.query("SELECT key, value FROM dapr_metadata ORDER BY key", &[]).await.unwrap();
    let rows: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("lock", "lock"), ("migrations", "2"), ("migrations-state-v2-two_", "1")];
    assert_eq!(rows, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

/// The statements by which Dapr writes are in components-contrib, `state/postgresql/v1`.
async fn version_1(server: &Process) {
    let client = create_database(server, "one").await;
    client
        .batch_execute(
            "CREATE TABLE dapr_metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
             INSERT INTO dapr_metadata VALUES ('lock', 'lock'), ('migrations', '2');
             CREATE TABLE state (key text NOT NULL PRIMARY KEY, value jsonb NOT NULL, isbinary boolean NOT NULL,
                 insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
                 updatedate TIMESTAMP WITH TIME ZONE NULL, expiredate TIMESTAMP WITH TIME ZONE);
             INSERT INTO state (key, value, isbinary, expiredate) VALUES
                 ('app||object', '{\"b\":1,\"a\":[true,null]}', false, NULL),
                 ('app||text', '\"hello\"', false, NULL),
                 ('app||binary', '\"aGVsbG8=\"', true, CURRENT_TIMESTAMP + interval '3600 seconds'),
                 ('app||expired', '1', false, CURRENT_TIMESTAMP - interval '1 seconds')",
        )
        .await
        .unwrap();
    let store = open_state(&component("state.postgresql", "v1", &[("url", &at(server, "one"))])).await;
    for (key, expected) in [
        ("app||object", Some(r#"{"a": [true, null], "b": 1}"#)),
        ("app||text", Some("\"hello\"")),
        ("app||binary", Some("hello")),
        ("app||expired", None),
    ] {
        assert_eq!(text(&store, key).await.as_deref(), expected, "{key}");
    }
    assert!(store.get("app||binary").await.unwrap().unwrap().expires_at.is_some());
    let etag = store.get("app||text").await.unwrap().unwrap().etag;
    let row = client.query_one("SELECT xmin::text FROM state WHERE key = 'app||text'", &[]).await.unwrap();
    assert_eq!(etag, row.get::<_, String>(0));
    // Dapr's own update takes our etag, and ours takes Dapr's.
    let update =
        "UPDATE state SET value = '2', updatedate = CURRENT_TIMESTAMP WHERE key = $1 AND $2::xid = xmin";
    let types = [tokio_postgres::types::Type::TEXT, tokio_postgres::types::Type::TEXT];
    let update = client.prepare_typed(&update.replace("$2::xid", "$2::text::xid"), &types).await.unwrap();
    assert_eq!(client.execute(&update, &[&"app||text", &etag]).await.unwrap(), 1);
    assert!(matches!(
        store.set(Set { etag: Some(etag), ..set("app||text", "3") }).await,
        Err(StateError::EtagMismatch { .. })
    ));
    // What we write looks as if Dapr had: a document as such, bytes as base64.
    let ttl = Ttl::After(Duration::from_secs(60));
    store.set(Set { ttl, ..document("app||ours", &json!({"b": "x", "a": 1})) }).await.unwrap();
    store.set(set("app||bytes", "hello")).await.unwrap();
    store.set(set("app||bytes", "hello")).await.unwrap();
    assert_eq!(store.increment("app||count", 41).await, Ok(41));
    let rows = client
        .query(
            "SELECT key, value::text, isbinary, updatedate IS NULL, insertdate <= now(), \
             (extract(epoch FROM expiredate - insertdate) + 5)::int / 10 FROM state \
             WHERE key IN ('app||ours', 'app||bytes', 'app||count') ORDER BY key",
            &[],
        )
        .await
        .unwrap();
    let rows: Vec<(String, String, bool, bool, bool, Option<i32>)> = rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5)))
        .collect();
    let row = |key: &str, value: &str, binary, fresh, expiry| {
        (key.to_owned(), value.to_owned(), binary, fresh, true, expiry)
    };
    assert_eq!(
        rows,
        [
            row("app||bytes", "\"aGVsbG8=\"", true, false, None),
            row("app||count", "41", false, true, None),
            row("app||ours", r#"{"a": 1, "b": "x"}"#, false, true, Some(6)),
        ]
    );
    let names: Vec<&str> = store.capabilities().iter().map(|found| found.name()).collect();
    assert_eq!(names, ["ETAG", "TRANSACTIONAL", "QUERY_API", "TTL", "ACTOR"]);
    store.close().await;
}

async fn version_2(server: &Process) {
    let client = create_database(server, "two").await;
    let store =
        open_state(&component("state.postgresql", "v2", &[("connectionString", &at(server, "two"))])).await;
    // As Dapr writes, into our table.
    client
        .batch_execute(
            "INSERT INTO state (key, value, etag, expires_at) VALUES
                 ('app||theirs', '\\x7b7d', gen_random_uuid(), NULL),
                 ('app||expired', 'x', gen_random_uuid(), now() - interval '1 seconds')",
        )
        .await
        .unwrap();
    assert_eq!(text(&store, "app||theirs").await.as_deref(), Some("{}"));
    assert_eq!(text(&store, "app||expired").await, None);
    store.set(document("app||ours", &json!({"b": 1, "a": 2}))).await.unwrap();
    let etag = store.get("app||ours").await.unwrap().unwrap().etag;
    let row = client
        .query_one("SELECT value, etag::text, updated_at IS NULL, expires_at IS NULL FROM state WHERE key = 'app||ours'", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &[u8]>(0), br#"{"b":1,"a":2}"#, "bytes come back as they were");
    assert_eq!((row.get::<_, String>(1), row.get(2), row.get(3)), (etag, true, true));
    let index = client.query("SELECT indexdef FROM pg_indexes WHERE tablename = 'state'", &[]).await.unwrap();
    assert_eq!(index.len(), 2);
    assert!(!store.capabilities().contains(&Capability::Query));
    assert!(matches!(store.query("", Query::default()).await, Err(StateError::NotSupported { .. })));
    store.close().await;
}

async fn queries(server: &Process) {
    create_database(server, "queries").await;
    let store = open_state(&component("state.postgresql", "v1", &[("url", &at(server, "queries"))])).await;
    // The data of Dapr's "How-To: Query state", shortened.
    for (id, org, number, city, state) in [
        (1, "Dev Ops", 1036, "Seattle", "WA"),
        (2, "Hardware", 1028, "Portland", "OR"),
        (3, "Finance", 1071, "Sacramento", "CA"),
        (4, "Dev Ops", 1042, "Spokane", "WA"),
        (5, "Hardware", 9, "Los Angeles", "CA"),
        (6, "Finance", 1015, "San Francisco", "CA"),
    ] {
        let value = json!({"person": {"org": org, "id": number}, "city": city, "state": state});
        store.set(document(&format!("app||{id}"), &value)).await.unwrap();
    }
    store.set(set("app||bytes", "{\"state\": \"CA\"}")).await.unwrap();
    store.set(document("apq||other", &json!({"state": "CA", "person": {"id": 1}}))).await.unwrap();
    let past = Set { ttl: Ttl::After(Duration::ZERO), ..document("app||past", &json!({"state": "CA"})) };
    store.set(past).await.unwrap();
    let ids = async |filter: Value| {
        let query = json!({"filter": filter, "sort": [{"key": "person.id"}]});
        let query = Query::parse(query.to_string().as_bytes()).unwrap();
        let page = store.query("app||", query).await.unwrap_or_else(|error| panic!("{filter}: {error}"));
        assert_eq!(page.token, "", "{filter}");
        let keys = page.results.iter().map(|found| found.key.strip_prefix("app||").unwrap().to_owned());
        keys.collect::<Vec<_>>().join(" ")
    };
    for (filter, expected) in [
        (json!({"EQ": {"state": "CA"}}), "5 6 3"),
        (json!({"NEQ": {"state": "CA"}}), "2 1 4"),
        (json!({"EQ": {"person.id": 1036}}), "1"),
        (json!({"EQ": {"person.id": "1036"}}), "1"),
        (json!({"EQ": {"person.id": 1036.0}}), "1"),
        (json!({"GT": {"person.id": 1036}}), "4 3"),
        (json!({"GTE": {"person.id": 1036}}), "1 4 3"),
        (json!({"LT": {"person.id": 1015}}), "5"),
        (json!({"LTE": {"person.id": 1015}}), "5 6"),
        (json!({"LT": {"city": 1015}}), ""),
        (json!({"IN": {"state": ["WA", "OR", 7]}}), "2 1 4"),
        (json!({"IN": {"state": []}}), ""),
        (json!({"AND": [{"EQ": {"state": "CA"}}, {"EQ": {"person.org": "Finance"}}]}), "6 3"),
        (
            json!({"OR": [{"EQ": {"person.org": "Dev Ops"}}, {"AND": [{"EQ": {"person.org": "Finance"}}, {"IN": {"state": ["CA"]}}]}]}),
            "6 1 4 3",
        ),
        (json!({"EQ": {"person": {"id": 9, "org": "Hardware"}}}), "5"),
        (json!({"EQ": {"absent": null}}), ""),
        (json!({"NEQ": {"absent": 1}}), ""),
        (json!({"EQ": {"state' OR '1'='1": "x"}}), ""),
    ] {
        assert_eq!(ids(filter.clone()).await, expected, "{filter}");
    }
    // Pages cover all once; without a filter also what is no document.
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let query =
            json!({"sort": [{"key": "state", "order": "DESC"}], "page": {"limit": 3, "token": token}});
        let page = store.query("app||", Query::parse(query.to_string().as_bytes()).unwrap()).await.unwrap();
        seen.extend(page.results.iter().map(|found| found.key.clone()));
        if page.token.is_empty() {
            break;
        }
        token = page.token;
    }
    let expected = ["1", "4", "2", "3", "5", "6", "bytes"].map(|id| format!("app||{id}"));
    assert_eq!(seen, expected);
    let one = json!({"filter": {"EQ": {"city": "Seattle"}}});
    let page = store.query("app||", Query::parse(one.to_string().as_bytes()).unwrap()).await.unwrap();
    assert_eq!(page.results[0].etag, store.get("app||1").await.unwrap().unwrap().etag);
    store.close().await;
}

async fn cleanup(server: &Process) {
    let client = create_database(server, "cleanup").await;
    for version in ["v1", "v2"] {
        let metadata =
            [("url", &*at(server, "cleanup")), ("cleanupInterval", "200ms"), ("tablePrefix", "two_")];
        let store = open_state(&component("state.postgresql", version, &metadata)).await;
        store.set(Set { ttl: Ttl::After(Duration::ZERO), ..set("short", "1") }).await.unwrap();
        store.set(Set { ttl: Ttl::After(PATIENCE), ..set("long", "1") }).await.unwrap();
        store.set(set("forever", "1")).await.unwrap();
        let table = if version == "v1" { "state" } else { "two_state" };
        eventually("cleanup", async || {
            let rows = client.query(&format!("SELECT key FROM {table} ORDER BY key"), &[]).await.unwrap();
            let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            (keys == ["forever", "long"]).then_some(())
        })
        .await;
        store.close().await;
    }
    let rows =
        client.query("SELECT key FROM dapr_metadata WHERE key LIKE 'last%' ORDER BY key", &[]).await.unwrap();
    let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(keys, ["last-cleanup", "last-cleanup-state-v2-dapr_metadata"]);
}

/// A sidecar takes the same rows in the opposite order: one of the two gives way and tries again.
async fn conflicts(server: &Process) {
    let mut client = create_database(server, "conflicts").await;
    let store = open_state(&component("state.postgresql", "v2", &[("url", &at(server, "conflicts"))])).await;
    for key in ["a", "b"] {
        store.set(set(key, "0")).await.unwrap();
    }
    for round in 0..3 {
        let theirs = client.transaction().await.unwrap();
        theirs.execute("UPDATE state SET value = 'theirs' WHERE key = 'b'", &[]).await.unwrap();
        let operations = ["a", "b"].map(|key| Operation::Set(set(key, &round.to_string())));
        let ours = tokio::spawn({
            let store = Arc::clone(&store);
            async move { store.transact(operations.into()).await }
        });
        let watcher = admin(server, "conflicts").await;
        eventually("waiting transaction", async || {
            let waiting =
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'conflicts'";
            watcher.query_opt(waiting, &[]).await.unwrap()
        })
        .await;
        if theirs.execute("UPDATE state SET value = 'theirs' WHERE key = 'a'", &[]).await.is_ok() {
            theirs.commit().await.unwrap();
        } else {
            drop(theirs);
        }
        timeout(PATIENCE, ours).await.unwrap().unwrap().unwrap();
        assert_eq!(text(&store, "a").await.unwrap(), round.to_string());
    }
    store.close().await;
}

struct Inbox(mpsc::UnboundedSender<Items>);

#[async_trait]
impl Handler<Items> for Inbox {
    async fn handle(&self, event: Items) -> Outcome {
        let _ = self.0.send(event);
        Outcome::Done
    }
}

async fn subscribe(
    store: &Arc<dyn ConfigurationStore>,
    keys: &[&str],
    metadata: &[(&str, &str)],
) -> Result<(Box<dyn Running>, mpsc::UnboundedReceiver<Items>), BlockError> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    let metadata: Metadata =
        metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Ok((store.subscribe(&keys, &metadata, Arc::new(Inbox(sender))).await?, receiver))
}

async fn next(inbox: &mut mpsc::UnboundedReceiver<Items>) -> (String, String) {
    let items = timeout(PATIENCE, inbox.recv()).await.expect("no report in time").unwrap();
    assert_eq!(items.len(), 1, "{items:?}");
    items.into_iter().next().map(|(key, item)| (key, item.value)).unwrap()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// As in Dapr's documentation of the component.
async fn create_configuration(client: &Client, channel: &str) {
    let sql = "CREATE TABLE configtable (KEY VARCHAR NOT NULL, VALUE VARCHAR NOT NULL, VERSION VARCHAR NOT NULL, METADATA JSON);
         CREATE OR REPLACE FUNCTION notify_event() RETURNS TRIGGER AS $$
             DECLARE data json; notification json;
             BEGIN
                 IF (TG_OP = 'DELETE') THEN data = row_to_json(OLD); ELSE data = row_to_json(NEW); END IF;
                 notification = json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', data);
                 PERFORM pg_notify('CHANNEL', notification::text);
                 RETURN NULL;
             END;
         $$ LANGUAGE plpgsql;
         CREATE TRIGGER config AFTER INSERT OR UPDATE OR DELETE ON configtable
             FOR EACH ROW EXECUTE PROCEDURE notify_event();";
    client.batch_execute(&sql.replace("CHANNEL", channel)).await.unwrap();
}

async fn changes(server: &Process) {
    let client = create_database(server, "configuration").await;
    let connection = at(server, "configuration");
    let description = component(
        "configuration.postgresql",
        "v1",
        &[("connectionString", &connection), ("table", "ConfigTable")],
    );
    assert!(
        matches!(try_open(&description).await, Err(OpenError::Backend { .. })),
        "the table is not there yet"
    );
    create_configuration(&client, "config").await;
    client
        .batch_execute(
            "INSERT INTO configtable VALUES ('a', '1', '1', NULL), ('a', '3', '10', '{\"unit\": \"s\", \"n\": 5}'),
             ('a', '2', '9', NULL), ('b', 'x', 'v', NULL)",
        )
        .await
        .unwrap();
    let store = open_configuration(&description).await;
    let none = Metadata::new();
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
    // The highest version of a key counts.
    let metadata = [("unit".to_owned(), "s".to_owned()), ("n".to_owned(), "5".to_owned())].into();
    let a = ConfigurationItem { value: "3".to_owned(), version: "10".to_owned(), metadata };
    let b = ConfigurationItem { value: "x".to_owned(), version: "v".to_owned(), metadata: Metadata::new() };
    let all: Items = [("a".to_owned(), a.clone()), ("b".to_owned(), b)].into();
    assert_eq!(store.get(&[], &none).await, Ok(all));
    assert_eq!(store.get(&keys(&["a", "c", "nul\0"]), &none).await, Ok([("a".to_owned(), a)].into()));
    // Changes: only of the keys, until the stop.
    let (running, mut inbox) = subscribe(&store, &["a"], &[("pgNotifyChannel", "config")]).await.unwrap();
    let (every, mut everything) = subscribe(&store, &[], &[]).await.unwrap();
    client.batch_execute("UPDATE configtable SET value = 'y' WHERE key = 'b'").await.unwrap();
    client.batch_execute("UPDATE configtable SET value = '4' WHERE version = '10'").await.unwrap();
    assert_eq!(next(&mut inbox).await, pair("a", "4"));
    for expected in [pair("b", "y"), pair("a", "4")] {
        assert_eq!(next(&mut everything).await, expected);
    }
    client.batch_execute("NOTIFY config, 'no row'; DELETE FROM configtable WHERE key = 'b'").await.unwrap();
    assert_eq!(next(&mut everything).await, pair("b", ""));
    running.stop().await;
    client.batch_execute("UPDATE configtable SET value = '5' WHERE version = '10'").await.unwrap();
    assert_eq!(next(&mut everything).await, pair("a", "5"));
    assert!(inbox.try_recv().is_err(), "a report after the stop");
    // The connection is lost, and what changed before it is back is reported.
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'configuration'";
    client
        .batch_execute(&format!("{terminate}; UPDATE configtable SET value = '6' WHERE version = '10'"))
        .await
        .unwrap();
    let mut seen = next(&mut everything).await;
    if seen != pair("a", "6") {
        seen = next(&mut everything).await;
    }
    assert_eq!(seen, pair("a", "6"));
    client.batch_execute("UPDATE configtable SET value = '7' WHERE version = '10'").await.unwrap();
    while seen != pair("a", "7") {
        seen = next(&mut everything).await;
    }
    let wrong = subscribe(&store, &[], &[("pgNotifyChannel", "x; DROP TABLE configtable")]).await;
    assert!(matches!(wrong.map(drop), Err(BlockError::Invalid { .. })));
    store.close().await;
    client.batch_execute("UPDATE configtable SET value = '8' WHERE version = '10'").await.unwrap();
    every.stop().await;
    assert!(everything.try_recv().is_err(), "a report after close");
    assert!(matches!(store.get(&[], &none).await, Err(BlockError::Unavailable { .. })));
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

async fn statements(server: &Process) {
    let client = create_database(server, "binding").await;
    let metadata = [("connectionString", &*at(server, "binding")), ("timeout", "2s")];
    let binding = open_binding(&component("bindings.postgresql", "v1", &metadata)).await;
    assert_eq!(binding.operations(), ["exec", "query", "close"]);
    let create = "CREATE TABLE foo (id bigint GENERATED ALWAYS AS IDENTITY, c1 text, ts timestamptz, tags text[], j jsonb, n numeric)";
    invoke(&binding, "exec", create, None).await.unwrap();
    let insert = "INSERT INTO foo (c1, ts, tags, j, n) VALUES ($1, $2, $3, $4, $5)";
    let params =
        json!(["demo", "2020-09-24T11:45:05Z", "{a,NULL,\"b c\"}", {"x": [1]}, 12345678901234567890.0]);
    let response = invoke(&binding, "exec", insert, Some(params)).await.unwrap();
    assert_eq!(response.data, None);
    let field = |name: &str| response.metadata.get(name).cloned().unwrap_or_default();
    assert_eq!(
        (field("operation"), field("rows-affected"), field("sql")),
        ("exec".to_owned(), "1".to_owned(), insert.to_owned())
    );
    assert!(field("start-time").ends_with('Z') && field("end-time") >= field("start-time"), "{response:?}");
    assert!(field("duration").ends_with('s'), "{response:?}");
    invoke(&binding, "exec", insert, Some(json!([null, null, null, null, null]))).await.unwrap();
    let found = rows(
        &binding,
        "SELECT id, c1, ts, tags, j, n::text FROM foo WHERE id >= $1 ORDER BY id",
        Some(json!([1.0])),
    )
    .await;
    let expected = json!([
        [1, "demo", "2020-09-24T11:45:05Z", ["a", null, "b c"], {"x": [1]}, "12345678901234567000"],
        [2, null, null, null, null, null],
    ]);
    assert_eq!(found, expected);
    let all = "SELECT 1::int2, -2::int4, 3::int8, 1.5::float4, 'NaN'::float8, 'infinity'::float8, true, false, \
               '\\x00ff'::bytea, 'a8098c1a-f86e-11da-bd1a-00112444be1e'::uuid, '2024-02-29'::date, '12:34:56.7'::time, \
               '1999-12-31 23:59:59.000001'::timestamp, '[1,2]'::json, 'a'::varchar, 'n'::name, \
               ARRAY[[1,2],[3,4]], '{}'::int[], NULL, 'infinity'::timestamptz, 7::oid";
    let expected = json!([[
        1,
        -2,
        3,
        1.5,
        "NaN",
        "Infinity",
        true,
        false,
        "AP8=",
        "a8098c1a-f86e-11da-bd1a-00112444be1e",
        "2024-02-29T00:00:00Z",
        "12:34:56.7",
        "1999-12-31T23:59:59.000001Z",
        [1, 2],
        "a",
        "n",
        [[1, 2], [3, 4]],
        [],
        null,
        "infinity",
        7,
    ]]);
    assert_eq!(rows(&binding, all, None).await, expected);
    // Numbers of any size and sign, as text.
    for number in [
        "0",
        "0.00",
        "-1",
        "12345.6789",
        "0.00001234",
        "-0.5",
        "10000",
        "100000000.00001",
        "99999999999999999999.99",
        "1e-20",
        "1e30",
    ] {
        let sql = format!("SELECT '{number}'::numeric, '{number}'::numeric::text");
        let response = invoke(&binding, "query", &sql, None).await.unwrap();
        let text = String::from_utf8(response.data.unwrap().to_vec()).unwrap();
        let (left, right) = text.trim_matches(['[', ']']).split_once(',').unwrap();
        assert_eq!(left, right.trim_matches('"'), "{number}");
    }
    assert_eq!(rows(&binding, "SELECT 1 WHERE false", None).await, json!([]));
    assert_eq!(rows(&binding, "INSERT INTO foo (c1) VALUES ('x') RETURNING id", None).await, json!([[3]]));
    for (operation, sql, params, expected) in [
        ("query", "SELECT $1::int", None, "params has 0"),
        ("query", "SELECT 1 + '{}'::point", None, "SQLSTATE"),
        ("query", "SELECT '1 day'::interval", None, "::text"),
        ("query", "SELECT $1::int", Some(json!(["x"])), "SQLSTATE 22P02"),
        ("query", "SELEC", None, "SQLSTATE 42601"),
        ("exec", "", None, "sql is required"),
        ("drop", "SELECT 1", None, "operation"),
        ("query", "SELECT pg_sleep(30)", None, "no answer"),
        ("query", "SELECT repeat('x', 1000000) FROM generate_series(1, 200)", None, "MiB"),
    ] {
        let start = Instant::now();
        let error = invoke(&binding, operation, sql, params).await.expect_err(sql).to_string();
        assert!(error.contains(expected), "{sql}: {error}");
        assert!(start.elapsed() < Duration::from_secs(20), "{sql}");
    }
    assert_eq!(rows(&binding, "SELECT 1", None).await, json!([[1]]), "works after all of that");
    // No statement changes the connection of the next one.
    for sql in [
        "BEGIN",
        "SET search_path = nowhere",
        "LISTEN something",
        "CREATE TEMPORARY TABLE foo (a int)",
        "SELECT set_config('search_path', 'nowhere', false)",
        "SELECT pg_advisory_lock(7)",
    ] {
        invoke(&binding, "exec", sql, None).await.unwrap();
        let state = "SELECT current_setting('search_path') <> 'nowhere', \
                     (SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM foo), \
                     (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
        assert_eq!(rows(&binding, state, None).await, json!([[true, 0, 3, 0]]), "after {sql}");
        let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
        eventually("end of the transaction", async || {
            (client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }
    binding.ping().await.unwrap();
    let close = BindingRequest { operation: "close".to_owned(), ..BindingRequest::default() };
    assert_eq!(binding.invoke(close.clone()).await, Ok(BindingResponse::default()));
    assert_eq!(binding.invoke(close).await, Ok(BindingResponse::default()));
    assert!(matches!(invoke(&binding, "query", "SELECT 1", None).await, Err(BlockError::Unavailable { .. })));
}

/// Every mistake has an error that names it, and no secret.
async fn mistakes(server: &Process) {
    let port = server.port();
    let good = at(server, "postgres");
    for (component_type, metadata, expected) in [
        ("state.postgresql", vec![], "connectionString"),
        ("state.postgresql", vec![("url", "user=a password='hunter2")], "quote"),
        ("state.postgresql", vec![("url", good.as_str()), ("password", "hunter2")], "28P01"),
        ("state.postgresql", vec![("url", &good), ("database", "absent")], "absent"),
        ("state.postgresql", vec![("url", &good), ("port", "1")], "127.0.0.1:1"),
        ("state.postgresql", vec![("url", &good), ("tableName", "a;b")], "tableName"),
        ("state.postgresql", vec![("url", &good), ("timeout", "10ms")], "timeout"),
        ("state.postgresql", vec![("url", &good), ("maxConns", "many")], "maxConns"),
        ("state.postgresql", vec![("url", &good), ("useAzureAD", "true")], "useAzureAD"),
        ("bindings.postgresql", vec![("url", &format!("{good} sslmode=require"))], "TLS"),
        ("configuration.postgresql", vec![("url", &good)], "table"),
        ("configuration.postgresql", vec![("url", &good), ("table", "absent")], "absent"),
    ] {
        let start = Instant::now();
        let error = try_open(&component(component_type, "v1", &metadata)).await.err();
        let error = error.unwrap_or_else(|| panic!("{metadata:?} opened")).to_string();
        assert!(error.contains(expected), "{metadata:?}: {error}");
        assert!(!error.contains("hunter2") && !error.contains(PASSWORD), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
    }
    assert_ne!(port, 1);
    // The fields of a component can do without a connection string.
    let port = port.to_string();
    let fields = [
        ("host", "127.0.0.1"),
        ("port", &*port),
        ("user", "postgres"),
        ("password", PASSWORD),
        ("database", "two"),
    ];
    let store = open_state(&component("state.postgresql", "v2", &fields)).await;
    assert!(store.get("app||theirs").await.unwrap().is_some());
    store.close().await;
    // So can a socket, and an address without a name; types have other names.
    let folder = server.folder().join("data").display().to_string();
    for (component_type, version, field, host) in [
        ("state.postgres", "v2", "host", &*folder),
        ("state.yugabytedb", "v2", "hostaddr", "127.0.0.1"),
        ("state.yugabyte", "", "hostaddr", "127.0.0.1"),
    ] {
        let fields = [&[(field, host)], &fields[1..]].concat();
        let store = open_state(&component(component_type, version, &fields)).await;
        assert!(store.get("app||theirs").await.unwrap().is_some(), "{component_type} {version} {host}");
        store.close().await;
    }
}

/// A server that does not answer costs a caller the timeout and nobody a lock.
async fn hanging(server: &Process) {
    let mut client = create_database(server, "hanging").await;
    let metadata = [("url", &*at(server, "hanging")), ("timeout", "1s"), ("maxConns", "2")];
    let store = open_state(&component("state.postgresql", "v1", &metadata)).await;
    store.set(set("a", "1")).await.unwrap();
    let lock = client.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE state IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let start = Instant::now();
    let answers = join_all((0..10).map(|_| store.set(set("a", "2")))).await;
    assert!(
        answers.iter().all(|answer| matches!(answer, Err(StateError::Unavailable { .. }))),
        "{answers:?}"
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // Nobody waits for the lock any more, so nothing is written when it is released.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'hanging'";
    eventually("end of what nobody waits for", async || {
        (lock.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    lock.commit().await.unwrap();
    let found = eventually("value", async || store.get("a").await.ok()).await;
    assert_eq!(found.unwrap().value, "1");
    eventually("write", async || store.set(set("a", "3")).await.ok()).await;
    store.close().await;
}

/// Kills the server while writers write; what was acknowledged is there when it is back.
async fn killed_under_load(server: &mut Process) {
    const WRITERS: usize = 8;
    let client = create_database(server, "load").await;
    create_configuration(&client, "config").await;
    client.batch_execute("INSERT INTO configtable VALUES ('a', '1', '1', NULL)").await.unwrap();
    drop(client);
    let metadata = [("url", &*at(server, "load")), ("timeout", "5s")];
    let configuration_metadata = [metadata[0], metadata[1], ("table", "configtable")];
    let watched =
        open_configuration(&component("configuration.postgresql", "v1", &configuration_metadata)).await;
    let (running, mut inbox) = subscribe(&watched, &["a"], &[]).await.unwrap();
    for version in ["v1", "v2"] {
        let metadata = [metadata[0], metadata[1], ("tablePrefix", "two_")];
        let store = open_state(&component("state.postgresql", version, &metadata)).await;
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
            let sums = acknowledged.iter().map(|sum| sum.load(Ordering::Relaxed));
            sums.min().filter(|least| *least > 5)
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
        // The processes of the dead server may need a moment to notice.
        eventually("restart", async || server.start().ok()).await;
        let client = admin(server, "load").await;
        let change = format!("UPDATE configtable SET value = '{version}'");
        eventually("recovered database", async || client.batch_execute(&change).await.ok()).await;
        eventually("recovery", async || store.ping().await.ok()).await;
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let acknowledged = acknowledged.load(Ordering::Relaxed);
            let key = format!("count-{writer}");
            let found: i64 = eventually("value", async || store.get(&key).await.ok())
                .await
                .map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap());
            // The last answer may have been lost on its way.
            assert!(
                [acknowledged, acknowledged + 1].contains(&found),
                "{found}, acknowledged {acknowledged}"
            );
            assert_eq!(store.increment(&key, 1).await, Ok(found + 1));
        }
        // The subscription came back. It may tell of a change twice.
        while next(&mut inbox).await != pair("a", version) {}
        store.close().await;
    }
    running.stop().await;
    watched.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls() {
    let server = postgres_with_tls().unwrap();
    let (port, folder) = (server.process.port(), server.process.folder().display().to_string());
    let open = async |options: &str| {
        let text =
            format!("postgres://postgres:{PASSWORD}@localhost:{port}/postgres?hostaddr=127.0.0.1&{options}");
        let binding = component("bindings.postgresql", "v1", &[("connectionString", &text)]);
        try_open(&binding).await.map_err(|error| error.to_string())
    };
    let client = format!("sslcert={folder}/certificate.pem&sslkey={folder}/key.pem");
    let file = format!("{folder}/ca.pem");
    // Waits until the server takes connections.
    eventually("TLS connection", async || open(&format!("{client}&sslmode=require")).await.ok()).await;
    for (mode, expected) in [
        ("sslmode=prefer".to_owned(), None),
        (format!("sslmode=require&sslrootcert={file}"), None),
        (format!("sslmode=verify-full&sslrootcert={file}"), None),
        (format!("sslmode=verify-ca&sslrootcert={file}&host=elsewhere.example"), None),
        (
            format!("sslmode=verify-full&sslrootcert={file}&host=elsewhere.example"),
            Some("not valid for name"),
        ),
        ("sslmode=verify-full".to_owned(), Some("UnknownIssuer")),
        ("sslmode=verify-ca&sslrootcert=/absent".to_owned(), Some("sslrootcert: /absent")),
        ("sslmode=disable".to_owned(), Some("pg_hba.conf")),
        ("sslmode=require&sslcert=&sslkey=".to_owned(), Some("certificate")),
        ("sslmode=require&sslkey=/absent".to_owned(), Some("sslkey: /absent")),
    ] {
        match (open(&format!("{client}&{mode}")).await, expected) {
            (Ok(Opened::Binding(binding)), None) => {
                let used =
                    rows(&binding, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", None).await;
                assert_eq!(used, json!([[true]]), "{mode}");
                binding.close().await;
            }
            (Err(error), Some(expected)) => assert!(error.contains(expected), "{mode}: {error}"),
            (Ok(_), _) => panic!("{mode} opened"),
            (Err(error), None) => panic!("{mode}: {error}"),
        }
    }
}
