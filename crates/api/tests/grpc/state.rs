//! State by gRPC.

use crate::support::{World, assert_status};
use bytes::Bytes;
use dhow_api::proto::common::v1::state_options::StateConcurrency;
use dhow_api::proto::common::v1::{Etag, StateItem, StateOptions};
use dhow_api::proto::runtime::v1::*;
use tonic::Code;
use tonic_types::StatusExt as _;

fn item(key: &str, value: &'static [u8]) -> StateItem {
    StateItem { key: key.to_owned(), value: Bytes::from_static(value), ..StateItem::default() }
}

fn save(store: &str, states: Vec<StateItem>) -> SaveStateRequest {
    SaveStateRequest { store_name: store.to_owned(), states }
}

fn get(store: &str, key: &str) -> GetStateRequest {
    GetStateRequest { store_name: store.to_owned(), key: key.to_owned(), ..GetStateRequest::default() }
}

fn etag(value: &str) -> Option<Etag> {
    Some(Etag { value: value.to_owned() })
}

#[tokio::test]
async fn values_are_kept_as_they_are() {
    let world = World::new(None).await;
    let mut client = world.client();
    for store in ["memory", "statestore"] {
        for value in [&b"text"[..], b"\"quoted\"", b"{\"a\":1.50}", b"\x00\xff", b""] {
            client.save_state(save(store, vec![item("key", value)])).await.unwrap();
            let found = client.get_state(get(store, "key")).await.unwrap().into_inner();
            assert_eq!(&found.data[..], value, "{store}");
            assert!(!found.etag.is_empty(), "{store}");
        }
        // Nothing is there: an empty answer.
        let absent = client.get_state(get(store, "absent")).await.unwrap().into_inner();
        assert_eq!(absent, GetStateResponse::default(), "{store}");
        client.save_state(save(store, vec![])).await.unwrap();
    }
}

#[tokio::test]
async fn etags_and_first_writes_keep_writers_apart() {
    let world = World::new(None).await;
    let mut client = world.client();
    let first = |key: &str| StateItem {
        options: Some(StateOptions {
            concurrency: StateConcurrency::ConcurrencyFirstWrite.into(),
            ..StateOptions::default()
        }),
        ..item(key, b"1")
    };
    client.save_state(save("memory", vec![first("k")])).await.unwrap();
    let again = client.save_state(save("memory", vec![first("k")])).await;
    assert_status(again, Code::Aborted, "ERR_STATE_SAVE", "a second first write");
    let found = client.get_state(get("memory", "k")).await.unwrap().into_inner();
    let wrong = StateItem { etag: etag("99999"), ..item("k", b"2") };
    let wrong = client.save_state(save("memory", vec![wrong])).await;
    let status = assert_status(wrong, Code::Aborted, "ERR_STATE_SAVE", "a wrong etag");
    assert!(status.message().contains("possible etag mismatch"), "{status}");
    let right = StateItem { etag: etag(&found.etag), ..item("k", b"2") };
    client.save_state(save("memory", vec![right])).await.unwrap();
    let delete = |value: &str| DeleteStateRequest {
        store_name: "memory".to_owned(),
        key: "k".to_owned(),
        etag: etag(value),
        ..DeleteStateRequest::default()
    };
    let stale = client.delete_state(delete(&found.etag)).await;
    assert_status(stale, Code::Aborted, "ERR_STATE_DELETE", "a stale etag");
    // An empty etag is none.
    client.delete_state(delete("")).await.unwrap();
    assert!(client.get_state(get("memory", "k")).await.unwrap().into_inner().etag.is_empty());
}

#[tokio::test]
async fn values_expire() {
    let world = World::new(None).await;
    let mut client = world.client();
    let with = |ttl: &str| StateItem {
        metadata: [("ttlInSeconds".to_owned(), ttl.to_owned())].into(),
        ..item("k", b"1")
    };
    client.save_state(save("memory", vec![with("1000")])).await.unwrap();
    let found = client.get_state(get("memory", "k")).await.unwrap().into_inner();
    assert!(humantime::parse_rfc3339(&found.metadata["ttlExpireTime"]).is_ok(), "{found:?}");
    client.save_state(save("memory", vec![with("-1")])).await.unwrap();
    assert!(client.get_state(get("memory", "k")).await.unwrap().into_inner().metadata.is_empty());
    for wrong in ["0", "-2", "soon"] {
        let answer = client.save_state(save("memory", vec![with(wrong)])).await;
        assert_status(answer, Code::Internal, "ERR_STATE_SAVE", wrong);
    }
}

#[tokio::test]
async fn many_keys_at_once() {
    let world = World::new(None).await;
    let mut client = world.client();
    let items = ["a", "b", "c"].iter().map(|key| item(key, b"1")).collect();
    client.save_state(save("memory", items)).await.unwrap();
    let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
    let bulk = GetBulkStateRequest {
        store_name: "memory".to_owned(),
        keys: keys(&["c", "absent", "a"]),
        ..GetBulkStateRequest::default()
    };
    let found = client.get_bulk_state(bulk).await.unwrap().into_inner().items;
    let found: Vec<_> = found.iter().map(|item| (item.key.as_str(), item.etag.is_empty())).collect();
    assert_eq!(found, [("c", false), ("absent", true), ("a", false)]);
    let delete = DeleteBulkStateRequest {
        store_name: "memory".to_owned(),
        states: vec![item("a", b""), item("b", b"")],
    };
    client.delete_bulk_state(delete).await.unwrap();
    assert!(client.get_state(get("memory", "b")).await.unwrap().into_inner().data.is_empty());
    let delete = DeleteBulkStateRequest {
        store_name: "memory".to_owned(),
        states: vec![StateItem { etag: etag("99999"), ..item("c", b"") }],
    };
    let wrong = client.delete_bulk_state(delete).await;
    assert_status(wrong, Code::Aborted, "ERR_STATE_BULK_DELETE", "a wrong etag");
}

#[tokio::test]
async fn transactions_are_all_or_nothing() {
    let world = World::new(None).await;
    let mut client = world.client();
    let transaction = |operations: Vec<(&str, StateItem)>| ExecuteStateTransactionRequest {
        store_name: "statestore".to_owned(),
        operations: operations
            .into_iter()
            .map(|(kind, item)| TransactionalStateOperation {
                operation_type: kind.to_owned(),
                request: Some(item),
            })
            .collect(),
        ..ExecuteStateTransactionRequest::default()
    };
    client.save_state(save("statestore", vec![item("old", b"1")])).await.unwrap();
    let both = transaction(vec![("upsert", item("new", b"2")), ("delete", item("old", b""))]);
    client.execute_state_transaction(both).await.unwrap();
    assert_eq!(&client.get_state(get("statestore", "new")).await.unwrap().into_inner().data[..], b"2");
    assert!(client.get_state(get("statestore", "old")).await.unwrap().into_inner().data.is_empty());
    let stale = StateItem { etag: etag("00000000-0000-4000-8000-000000000000"), ..item("new", b"3") };
    let stale = transaction(vec![("upsert", item("other", b"3")), ("upsert", stale)]);
    let stale = client.execute_state_transaction(stale).await;
    assert_status(stale, Code::Internal, "ERR_STATE_TRANSACTION", "a stale etag");
    assert!(client.get_state(get("statestore", "other")).await.unwrap().into_inner().data.is_empty());
    let unknown = client.execute_state_transaction(transaction(vec![("move", item("a", b""))])).await;
    assert_status(unknown, Code::Unimplemented, "ERR_NOT_SUPPORTED_STATE_OPERATION", "an unknown operation");
    let empty = TransactionalStateOperation { operation_type: "upsert".to_owned(), request: None };
    let empty = ExecuteStateTransactionRequest {
        store_name: "statestore".to_owned(),
        operations: vec![empty],
        ..ExecuteStateTransactionRequest::default()
    };
    let empty = client.execute_state_transaction(empty).await;
    assert_status(empty, Code::InvalidArgument, "ERR_MALFORMED_REQUEST", "no request");
}

#[tokio::test]
async fn wrong_requests_say_what_is_wrong() {
    let world = World::new(None).await;
    let mut client = world.client();
    let missing = client.get_state(get("nowhere", "k")).await;
    let status = assert_status(missing, Code::InvalidArgument, "DAPR_STATE_NOT_FOUND", "no such store");
    assert_eq!(status.message(), "state store nowhere is not found");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["appID"], "shop");
    assert_eq!(details.resource_info().unwrap().resource_name, "nowhere");
    let illegal = client.get_state(get("memory", "a||b")).await;
    let status = assert_status(illegal, Code::InvalidArgument, "DAPR_STATE_ILLEGAL_KEY", "an illegal key");
    assert_eq!(status.get_error_details().bad_request().unwrap().field_violations[0].field, "a||b");
    let json = StateItem {
        metadata: [("contentType".to_owned(), "application/json".to_owned())].into(),
        ..item("k", b"{oops")
    };
    for (what, item, reason) in [
        ("an empty key", item("", b"1"), "ERR_STATE_SAVE"),
        ("an illegal key", item("a||b", b"1"), "DAPR_STATE_ILLEGAL_KEY"),
        ("damaged JSON", json, "ERR_MALFORMED_REQUEST"),
    ] {
        let answer = client.save_state(save("memory", vec![item])).await;
        assert_status(answer, Code::InvalidArgument, reason, what);
    }
    let query =
        QueryStateRequest { store_name: "memory".to_owned(), query: "{}".to_owned(), ..Default::default() };
    match world.scope.state("memory").unwrap().can(dhow_blocks::state::Capability::Query) {
        true => assert!(client.query_state_alpha1(query).await.is_ok()),
        false => {
            let answer = client.query_state_alpha1(query).await;
            assert_status(answer, Code::Internal, "DAPR_STATE_QUERYING_NOT_SUPPORTED", "a query");
        }
    }
}
