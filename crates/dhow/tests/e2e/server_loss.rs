//! Redis, NATS and PostgreSQL are killed under load and started again: errors while they are away, recovery
//! without a restart of the host, nothing acknowledged lost, nothing that hangs or piles up.

use crate::state::component;
use crate::support::{Host, Setting, app, eventually, http::Client};
use dhow_servers::Process;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const OUTAGES: usize = 3;
const CLIENTS: usize = 4;

/// No request takes longer, whether the server is there or not: above the longest timeout of a provider, on a
/// busy machine.
const LONGEST: Duration = Duration::from_secs(30);

/// Answers of each kind that have to be seen before the next step.
const ENOUGH: usize = 50;

/// What the clients saw, since they were last asked.
#[derive(Default)]
struct Seen {
    fine: AtomicUsize,
    failed: AtomicUsize,
    end: AtomicBool,
    acknowledged: Mutex<BTreeSet<String>>,
}

#[test]
fn redis_state_comes_back() {
    let server = dhow_servers::redis().unwrap();
    let metadata = [("redisHost", server.address())];
    state_comes_back("state.redis", &metadata, server);
}

#[test]
fn postgresql_state_comes_back() {
    let server = dhow_servers::postgres().unwrap();
    let connection =
        format!("host=127.0.0.1 port={} user=postgres password=secret dbname=postgres", server.port());
    state_comes_back("state.postgresql", &[("connectionString", connection)], server);
}

#[test]
fn jetstream_comes_back() {
    let mut server = dhow_servers::nats().unwrap();
    let received: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let app = app::start({
        let received = Arc::clone(&received);
        move |call| {
            if call.target == "/dapr/subscribe" {
                let subscription = json!([{"pubsubname": "broker", "topic": "orders", "route": "/orders"}]);
                return (200, subscription.to_string());
            }
            let event: Value = serde_json::from_slice(&call.body).unwrap_or_default();
            received.lock().unwrap().extend(event["data"].as_str().map(str::to_owned));
            (200, String::new())
        }
    });
    let setting = Setting::new();
    let url = format!("nats://{}", server.address());
    let metadata = [("natsURL", url.as_str()), ("ackWait", "1s")];
    setting.file("resources/broker.yaml", component("broker", "pubsub.jetstream", &metadata).as_bytes());
    let host = setting.sidecar("shop", Some(app), &["--resources-path", "resources"]);

    let acknowledged = through_outages(&host, &mut server, &|client, name| {
        let answer = client
            .try_send(
                "POST",
                "/v1.0/publish/broker/orders",
                &[("content-type", "text/plain")],
                name.as_bytes(),
            )
            .unwrap();
        match answer.status {
            204 => true,
            500 => {
                assert_eq!(answer.json()["errorCode"], "ERR_PUBSUB_PUBLISH_MESSAGE", "{}", answer.text());
                false
            }
            status => panic!("{status}: {}", answer.text()),
        }
    });
    eventually("every acknowledged message", || {
        acknowledged.is_subset(&received.lock().unwrap()).then_some(())
    });
    host.stop();
}

fn state_comes_back(component_type: &str, metadata: &[(&str, String)], mut server: Process) {
    let setting = Setting::new();
    let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
    setting.file("resources/store.yaml", component("store", component_type, &metadata).as_bytes());
    let host = setting.sidecar("shop", None, &["--resources-path", "resources"]);

    let acknowledged = through_outages(&host, &mut server, &|client, name| {
        let body = json!([{ "key": name, "value": name }]).to_string();
        let set = client.try_send("POST", "/v1.0/state/store", &[], body.as_bytes()).unwrap();
        let get = client.try_send("GET", &format!("/v1.0/state/store/{name}"), &[], b"").unwrap();
        for (answer, code) in [(&set, "ERR_STATE_SAVE"), (&get, "ERR_STATE_GET")] {
            if answer.status == 500 {
                assert_eq!(answer.json()["errorCode"], code, "{}", answer.text());
            } else {
                assert!(matches!(answer.status, 200 | 204), "{}: {}", answer.status, answer.text());
            }
        }
        if set.status == 204 && get.status == 200 {
            assert_eq!(get.json(), name, "what was just written");
        }
        set.status == 204
    });

    let mut client = Client::connect(host.api.unwrap());
    let acknowledged: Vec<&String> = acknowledged.iter().collect();
    for keys in acknowledged.chunks(500) {
        let body = json!({ "keys": keys }).to_string();
        let found = client.send("POST", "/v1.0/state/store/bulk", &[], body.as_bytes()).json();
        assert_eq!(found.as_array().unwrap().len(), keys.len(), "{found}");
        for entry in found.as_array().unwrap() {
            assert_eq!(entry["data"], entry["key"], "acknowledged, and lost");
        }
    }
    host.stop();
}

/// Keeps clients calling while the server goes and comes back. Each call gets a name of its own and says whether it
/// was acknowledged; so are those that come back.
fn through_outages(
    host: &Host,
    server: &mut Process,
    call: &(dyn Fn(&mut Client, &str) -> bool + Sync),
) -> BTreeSet<String> {
    let seen = Seen::default();
    let api = host.api.unwrap();
    let many = |count: &AtomicUsize, what: &str| {
        count.store(0, Ordering::Relaxed);
        eventually(what, || (count.load(Ordering::Relaxed) >= ENOUGH).then_some(()));
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let seen = &seen;
            scope.spawn(move || {
                let mut connection = Client::connect(api);
                for number in 0.. {
                    if seen.end.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("{client}-{number}");
                    let since = Instant::now();
                    let is_fine = call(&mut connection, &name);
                    assert!(since.elapsed() < LONGEST, "{name} took {:?}", since.elapsed());
                    if is_fine {
                        seen.acknowledged.lock().unwrap().insert(name);
                        seen.fine.fetch_add(1, Ordering::Relaxed);
                    } else {
                        seen.failed.fetch_add(1, Ordering::Relaxed);
                        // A caller that is refused takes a breath.
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
        }
        many(&seen.fine, "answers before the server went");
        let before = Held::of(host);
        for _ in 0..OUTAGES {
            server.kill();
            many(&seen.failed, "errors while the server was away");
            server.start().unwrap();
            many(&seen.fine, "answers after the server came back");
        }
        let after = Held::of(host);
        seen.end.store(true, Ordering::Relaxed);
        before.may_become(&after);
    });
    seen.acknowledged.into_inner().unwrap()
}

/// What a leak would make grow.
#[derive(Debug)]
struct Held {
    files: usize,
    threads: usize,
    memory: u64,
}

impl Held {
    fn of(host: &Host) -> Held {
        let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", host.pid())).unwrap().count();
        Held { files: count("fd"), threads: count("task"), memory: host.memory() }
    }

    fn may_become(&self, after: &Held) {
        let fine = after.files <= self.files + 16
            && after.threads <= self.threads + 16
            && after.memory <= self.memory + (32 << 20);
        assert!(fine, "{self:?} became {after:?}");
    }
}
