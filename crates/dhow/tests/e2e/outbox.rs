//! Dapr's transactional outbox: what a transaction wrote is published, what it did not write is not.

use crate::state::component;
use crate::support::{Setting, app, eventually};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

#[test]
fn a_transaction_publishes_what_it_writes() {
    let setting = Setting::new();
    let store = [
        ("connectionString", "orders.db"),
        ("outboxPublishPubsub", "broker"),
        ("outboxPublishTopic", "orders"),
        ("outboxDiscardWhenMissingState", "true"),
    ];
    let components = [
        component("store", "state.sqlite", &store),
        component("broker", "pubsub.sqlite", &[("connectionString", "queue.db")]),
    ];
    setting.file("resources/all.yaml", components.join("---\n").as_bytes());
    let received: Arc<Mutex<Vec<Value>>> = Arc::default();
    let app = app::start({
        let received = Arc::clone(&received);
        move |call| match call.target.as_str() {
            "/dapr/subscribe" => {
                (200, json!([{"pubsubname": "broker", "topic": "orders", "route": "/orders"}]).to_string())
            }
            "/orders" => {
                received.lock().unwrap().push(serde_json::from_slice(&call.body).unwrap());
                (200, String::new())
            }
            _ => (404, String::new()),
        }
    });
    let host = setting.sidecar("shop", Some(app), &["--resources-path", "resources"]);
    let transact = |operations: Value| {
        let body = json!({ "operations": operations }).to_string();
        host.dapr("POST", "/v1.0/state/store/transaction", &[], &body)
    };
    let upsert = |key: &str, value: Value, more: Value| {
        let mut request = json!({"key": key, "value": value});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"operation": "upsert", "request": request})
    };

    // The second one is refused as a whole: its event must not be seen.
    let answer = transact(
        json!([upsert("1", json!({"total": 5}), json!({})), {"operation": "delete", "request": {"key": "0"}}]),
    );
    assert_eq!(answer.status, 204, "{}", answer.text());
    let answer = transact(json!([
        upsert("2", json!("lost"), json!({})),
        upsert("1", json!(0), json!({"etag": "never given"}))
    ]));
    assert_eq!(answer.status, 500, "{}", answer.text());
    let projection = json!({"metadata": {"outbox.projection": "true", "cloudevent.type": "order.short"}});
    let answer = transact(json!([
        upsert("3", json!({"total": 7}), json!({})),
        upsert("3", json!("short"), projection)
    ]));
    assert_eq!(answer.status, 204, "{}", answer.text());

    let events = eventually("both events", || {
        let received = received.lock().unwrap();
        (received.len() >= 2).then(|| received.clone())
    });
    let mut data: Vec<_> =
        events.iter().map(|event| (event["data"].clone(), event["type"].clone())).collect();
    data.sort_by_key(|(data, _)| data.is_object());
    assert_eq!(
        data,
        [(json!("short"), json!("order.short")), (json!({"total": 5}), json!("com.dapr.event.sent"))]
    );
    for event in &events {
        assert_eq!((&event["topic"], &event["pubsubname"]), (&json!("orders"), &json!("broker")), "{event}");
        assert!(event["id"].as_str().unwrap().starts_with("outbox-"), "{event}");
    }
    assert_eq!(
        host.dapr("GET", "/v1.0/state/store/3", &[], "").json(),
        json!({"total": 7}),
        "not the projection"
    );
    assert_eq!(host.dapr("GET", "/v1.0/state/store/2", &[], "").status, 204);
    host.stop();
}

#[test]
fn an_outbox_without_its_broker_is_refused() {
    let setting = Setting::new();
    let metadata = [("outboxPublishPubsub", "absent"), ("outboxPublishTopic", "orders")];
    setting.file("resources/store.yaml", component("store", "state.in-memory", &metadata).as_bytes());
    let ended = setting.run(&["run", "--app-id", "shop", "--resources-path", "resources"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.err.contains("store.yaml") && ended.err.contains("outboxPublishPubsub names \"absent\""),
        "{ended:?}"
    );
}
