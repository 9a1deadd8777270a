//! Dapr's Rust SDK, both halves, against the sidecar that started this program: a line for each check, and 1 as the
//! exit code if one of them fails.

use dapr::Client;
use dapr::appcallback::{
    AppCallbackService, Handler, HandlerMethod, JobEventRequest, JobEventResponse, JobHandlerMethod,
    TopicEventRequest, TopicEventResponse,
};
use dapr::client::{AppApiTokenLayer, Etag, JobBuilder, StateItem, StateOptions, TonicClientWithAuth};
use dapr::dapr::proto::common::v1::state_options::{StateConcurrency, StateConsistency};
use dapr::dapr::proto::runtime::v1::app_callback_server::AppCallbackServer;
use dapr::error::Error;
use prost_types::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::{Code, Response, Status};

type Dapr = Client<TonicClientWithAuth>;
type Checked = Result<(), String>;

/// Nothing that is waited for takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells what arrived, and answers with this status.
struct Told {
    sender: UnboundedSender<TopicEventRequest>,
    status: i32,
}

struct ToldJob(UnboundedSender<JobEventRequest>);

#[tonic::async_trait]
impl HandlerMethod for Told {
    async fn handler(&self, request: TopicEventRequest) -> Result<Response<TopicEventResponse>, Status> {
        let _ = self.sender.send(request);
        Ok(Response::new(TopicEventResponse { status: self.status }))
    }
}

#[tonic::async_trait]
impl JobHandlerMethod for ToldJob {
    async fn handler(&self, request: JobEventRequest) -> Result<JobEventResponse, Status> {
        let _ = self.0.send(request);
        Ok(JobEventResponse::default())
    }
}

/// The two halves.
struct World {
    dapr: Dapr,
    orders: UnboundedReceiver<TopicEventRequest>,
    texts: UnboundedReceiver<TopicEventRequest>,
    jobs: UnboundedReceiver<JobEventRequest>,
}

#[tokio::main]
async fn main() {
    let (orders_sender, orders) = unbounded_channel();
    let (texts_sender, texts) = unbounded_channel();
    let (jobs_sender, jobs) = unbounded_channel();
    let mut service = AppCallbackService::new();
    for (topic, sender, status) in [("orders", orders_sender, 0), ("texts", texts_sender, 0)] {
        let handler = Box::new(Told { sender, status });
        service.add_handler(Handler { pub_sub_name: "pubsub".into(), topic: topic.into(), handler });
    }
    service.add_job_handler("soon".into(), Box::new(ToldJob(jobs_sender)));
    let port: u16 = std::env::var("APP_PORT").unwrap().parse().unwrap();
    let server = tonic::transport::Server::builder()
        .layer(AppApiTokenLayer::from_env())
        .add_service(AppCallbackServer::new(service))
        .serve(SocketAddr::from(([127, 0, 0, 1], port)));
    tokio::spawn(server);

    let dapr = Client::<TonicClientWithAuth>::new().await.expect("the sidecar answers");
    let mut world = World { dapr, orders, texts, jobs };
    let mut failed = 0;
    let mut count = 0;
    macro_rules! check {
        ($($check:ident)+) => {$(
            count += 1;
            match tokio::time::timeout(PATIENCE, $check(&mut world)).await {
                Ok(Ok(())) => println!("ok {}", stringify!($check)),
                Ok(Err(reason)) => {
                    failed += 1;
                    println!("FAILED {}: {reason}", stringify!($check));
                }
                Err(_) => {
                    failed += 1;
                    println!("FAILED {}: not within {PATIENCE:?}", stringify!($check));
                }
            }
        )+};
    }
    check! {
        state etags state_refusals secrets configuration bindings scheduling job_events metadata events
        text_events publish_refusals invocation
    }
    println!("{count} checks, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}

fn equal<T: PartialEq<U> + Debug, U: Debug>(found: T, expected: U) -> Checked {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}")) }
}

fn failed(error: Error) -> String {
    format!("{error:?}")
}

/// The call has to fail with this code and text.
async fn refused<T: Debug>(call: impl Future<Output = Result<T, Error>>, code: Code, text: &str) -> Checked {
    match call.await {
        Ok(answer) => Err(format!("not refused, but {answer:?}")),
        Err(Error::GrpcError(error)) => {
            let said = format!("{error:?}");
            let has_code = said.contains(&format!("{code:?}"));
            if has_code && said.contains(text) {
                Ok(())
            } else {
                Err(format!("{said}; expected {code:?}, {text}"))
            }
        }
        Err(error) => Err(format!("{error:?}")),
    }
}

async fn state(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    dapr.save_state("statestore", "a", b"1".to_vec(), None, None, None).await.map_err(failed)?;
    let found = dapr.get_state("statestore", "a", None).await.map_err(failed)?;
    equal(found.data, b"1")?;
    equal(found.etag.is_empty(), false)?;
    let item = |key: &str| StateItem { key: key.into(), value: key.into(), ..StateItem::default() };
    dapr.save_bulk_states("statestore", [item("b"), item("c")]).await.map_err(failed)?;
    equal(dapr.get_state("statestore", "c", None).await.map_err(failed)?.data, b"c")?;
    dapr.delete_state("statestore", "a", None).await.map_err(failed)?;
    let keys = vec![("b", Vec::new()), ("c", Vec::new())];
    dapr.delete_bulk_state("statestore", keys).await.map_err(failed)?;
    for key in ["a", "b", "c"] {
        equal(dapr.get_state("statestore", key, None).await.map_err(failed)?.data, b"")?;
    }
    Ok(())
}

async fn etags(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    dapr.save_state("statestore", "e", b"1".to_vec(), None, None, None).await.map_err(failed)?;
    let etag = dapr.get_state("statestore", "e", None).await.map_err(failed)?.etag;
    let etag = Some(Etag { value: etag });
    let first = Some(StateOptions {
        concurrency: StateConcurrency::ConcurrencyFirstWrite.into(),
        consistency: StateConsistency::ConsistencyStrong.into(),
    });
    let two = b"2".to_vec();
    dapr.save_state("statestore", "e", two.clone(), etag.clone(), None, first).await.map_err(failed)?;
    let stale = dapr.save_state("statestore", "e", two, etag, None, first);
    refused(stale, Code::Aborted, "possible etag mismatch. error from state store").await
}

async fn state_refusals(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    let missing = "state store nostore is not found";
    refused(dapr.get_state("nostore", "k", None), Code::InvalidArgument, missing).await?;
    refused(dapr.delete_state("nostore", "k", None), Code::InvalidArgument, missing).await?;
    let query = dapr.query_state_alpha1("statestore", serde_json::json!({}), None);
    refused(query, Code::Internal, "doesn't support").await
}

async fn secrets(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    let secret = dapr.get_secret("secretstore", "password").await.map_err(failed)?;
    equal(secret.data.get("password").map(String::as_str), Some("hunter2"))?;
    let all = dapr.get_bulk_secret("secretstore", None).await.map_err(failed)?;
    equal(all.data.contains_key("db:user"), true)?;
    let missing = "failed finding secret store with key nosecrets";
    refused(dapr.get_secret("nosecrets", "x"), Code::InvalidArgument, missing).await?;
    let missing = "failed getting secret with key nothing from secret store secretstore";
    refused(dapr.get_secret("secretstore", "nothing"), Code::Internal, missing).await
}

async fn configuration(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    let found = dapr.get_configuration("configstore", vec!["greeting"], None).await.map_err(failed)?;
    equal(found.items.get("greeting").map(|item| item.value.as_str()), Some("hello"))?;
    let mut changes =
        dapr.subscribe_configuration("configstore", vec!["greeting"], None).await.map_err(failed)?;
    let first = changes.message().await.map_err(|error| error.to_string())?.ok_or("no first message")?;
    equal(first.items.is_empty(), true)?;
    std::fs::write("configuration.new", r#"{"greeting": "changed"}"#).map_err(|error| error.to_string())?;
    std::fs::rename("configuration.new", "configuration.json").map_err(|error| error.to_string())?;
    let change = changes.message().await.map_err(|error| error.to_string())?.ok_or("no change")?;
    equal(change.items.get("greeting").map(|item| item.value.as_str()), Some("changed"))?;
    let ended = dapr.unsubscribe_configuration("configstore", first.id.as_str()).await.map_err(failed)?;
    equal(ended.ok, true)?;
    let missing = dapr.get_configuration("noconfig", vec!["x"], None);
    refused(missing, Code::InvalidArgument, "configuration store noconfig not found").await
}

async fn bindings(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    let named = || Some(HashMap::from([("fileName".to_owned(), "note.txt".to_owned())]));
    dapr.invoke_binding("files", b"kept!".to_vec(), "create", named()).await.map_err(failed)?;
    let found = dapr.invoke_binding("files", Vec::new(), "get", named()).await.map_err(failed)?;
    equal(found.data, b"kept!")?;
    let missing = dapr.invoke_binding("nobinding", Vec::new(), "get", None);
    refused(missing, Code::Internal, "couldn't find output binding nobinding").await
}

async fn scheduling(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    let job = JobBuilder::new("later").with_schedule("@every 1h").with_repeats(3).build();
    dapr.schedule_job(job.clone(), None).await.map_err(failed)?;
    let found = dapr.get_job("later").await.map_err(failed)?.job.ok_or("no job")?;
    equal((found.schedule.as_deref(), found.repeats), (Some("@every 1h"), Some(3)))?;
    refused(dapr.schedule_job(job, None), Code::AlreadyExists, "later").await?;
    let listed = dapr.list_jobs().await.map_err(failed)?;
    equal(listed.jobs.iter().any(|job| job.name == "later"), true)?;
    dapr.delete_job("later").await.map_err(failed)?;
    refused(dapr.get_job("later"), Code::Internal, "later").await
}

async fn job_events(world: &mut World) -> Checked {
    let data = Any { type_url: "type.googleapis.com/bytes".into(), value: b"wake up".to_vec() };
    let job = JobBuilder::new("soon").with_due_time("0s").with_data(data).build();
    world.dapr.schedule_job(job, None).await.map_err(failed)?;
    let event = world.jobs.recv().await.ok_or("no event")?;
    equal(event.name, "soon")?;
    equal(event.data.map(|data| data.value), Some(b"wake up".to_vec()))
}

async fn metadata(world: &mut World) -> Checked {
    let dapr = &mut world.dapr;
    dapr.set_metadata("color", "blue").await.map_err(failed)?;
    // The sidecar asks for subscriptions when the port answers.
    loop {
        let found = dapr.get_metadata().await.map_err(failed)?;
        equal(found.id, "rs-app")?;
        equal(found.extended_metadata.get("color").map(String::as_str), Some("blue"))?;
        let connection = found.app_connection_properties.ok_or("no connection")?;
        equal(connection.protocol, "grpc")?;
        if found.subscriptions.len() == 2 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn events(world: &mut World) -> Checked {
    let data = br#"{"id": 7}"#.to_vec();
    let published = world.dapr.publish_event("pubsub", "orders", "application/json", data, None);
    published.await.map_err(failed)?;
    let event = world.orders.recv().await.ok_or("no event")?;
    let data: serde_json::Value = serde_json::from_slice(&event.data).map_err(|error| error.to_string())?;
    equal(data, serde_json::json!({"id": 7}))?;
    equal((event.topic.as_str(), event.source.as_str()), ("orders", "rs-app"))?;
    equal(event.r#type, "com.dapr.event.sent")
}

async fn text_events(world: &mut World) -> Checked {
    let published = world.dapr.publish_event("pubsub", "texts", "text/plain", b"plain".to_vec(), None);
    published.await.map_err(failed)?;
    let event = world.texts.recv().await.ok_or("no event")?;
    equal(event.data, b"plain")?;
    equal(event.data_content_type, "text/plain")
}

async fn publish_refusals(world: &mut World) -> Checked {
    let missing = world.dapr.publish_event("nobus", "t", "text/plain", Vec::new(), None);
    refused(missing, Code::InvalidArgument, "pubsub nobus is not found").await
}

async fn invocation(world: &mut World) -> Checked {
    let missing = world.dapr.invoke_service("nobody", "x", None);
    refused(missing, Code::Internal, "failed to invoke, id: nobody").await?;
    // The SDK's own service has no answer to this, and panics; neither the sidecar nor the others mind.
    let call = world.dapr.invoke_service("rs-app", "x", None).await;
    equal(call.is_err(), true)?;
    world.dapr.get_metadata().await.map(|_| ()).map_err(failed)
}
