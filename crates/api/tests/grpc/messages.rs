//! Publish, streams of topics, jobs and locks.

use crate::support::{Wire, World, assert_status, within};
use bytes::Bytes;
use dhow_api::proto::common::v1::job_failure_policy::Policy;
use dhow_api::proto::common::v1::{JobFailurePolicy, JobFailurePolicyConstant};
use dhow_api::proto::runtime::v1::dapr_client::DaprClient;
use dhow_api::proto::runtime::v1::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Up;
use dhow_api::proto::runtime::v1::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Down;
use dhow_api::proto::runtime::v1::topic_event_response::TopicEventResponseStatus as Verdict;
use dhow_api::proto::runtime::v1::*;
use prost_types::Any;
use tokio::sync::mpsc;
use tonic::{Code, Request, Status, Streaming};

fn publish(pubsub: &str, topic: &str, data: &'static [u8], content_type: &str) -> PublishEventRequest {
    PublishEventRequest {
        pubsub_name: pubsub.to_owned(),
        topic: topic.to_owned(),
        data: Bytes::from_static(data),
        data_content_type: content_type.to_owned(),
        ..PublishEventRequest::default()
    }
}

/// The client's end of a streaming subscription.
struct Subscription {
    up: mpsc::Sender<SubscribeTopicEventsRequestAlpha1>,
    down: Streaming<SubscribeTopicEventsResponseAlpha1>,
}

fn upwards(message: Up) -> SubscribeTopicEventsRequestAlpha1 {
    SubscribeTopicEventsRequestAlpha1 { subscribe_topic_events_request_type: Some(message) }
}

fn initial(pubsub: &str, topic: &str, dead_letter: Option<&str>) -> Up {
    Up::InitialRequest(SubscribeTopicEventsRequestInitialAlpha1 {
        pubsub_name: pubsub.to_owned(),
        topic: topic.to_owned(),
        dead_letter_topic: dead_letter.map(str::to_owned),
        ..SubscribeTopicEventsRequestInitialAlpha1::default()
    })
}

impl Subscription {
    async fn begin(client: &mut DaprClient<Wire>, first: Up) -> Result<Subscription, Status> {
        let (up, received) = mpsc::channel(16);
        up.send(upwards(first)).await.unwrap();
        let requests = futures::stream::unfold(received, |mut received: mpsc::Receiver<_>| async {
            received.recv().await.map(|request| (request, received))
        });
        let down = client.subscribe_topic_events_alpha1(requests).await?.into_inner();
        let mut subscription = Subscription { up, down };
        let first = subscription.next().await;
        assert!(matches!(first, Some(Down::InitialResponse(_))), "{first:?}");
        Ok(subscription)
    }

    async fn next(&mut self) -> Option<Down> {
        let message = within("the next message", self.down.message()).await.unwrap();
        message.and_then(|message| message.subscribe_topic_events_response_type)
    }

    async fn event(&mut self) -> TopicEventRequest {
        match self.next().await {
            Some(Down::EventMessage(event)) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    async fn answer(&self, id: &str, verdict: Verdict) {
        let status = Some(TopicEventResponse { status: verdict.into() });
        let processed = SubscribeTopicEventsRequestProcessedAlpha1 { id: id.to_owned(), status };
        self.up.send(upwards(Up::EventProcessed(processed))).await.unwrap();
    }
}

#[tokio::test]
async fn events_come_down_a_stream_until_they_are_done() {
    let world = World::new(None).await;
    let mut client = world.client();
    let mut orders =
        Subscription::begin(&mut client, initial("pubsub", "orders", Some("dead"))).await.unwrap();
    let mut dead = Subscription::begin(&mut client, initial("pubsub", "dead", None)).await.unwrap();
    let shown = client.get_metadata(GetMetadataRequest {}).await.unwrap().into_inner().subscriptions;
    assert!(shown.iter().any(|found| found.topic == "orders" && found.r#type == 3), "{shown:?}");

    let mut request = Request::new(publish("pubsub", "orders", b"{\"n\":1}", "application/json"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.metadata_mut().insert("traceparent", trace.parse().unwrap());
    client.publish_event(request).await.unwrap();
    let event = orders.event().await;
    let TopicEventRequest {
        source, r#type, spec_version, data_content_type, data, topic, extensions, ..
    } = &event;
    assert_eq!(
        (source.as_str(), r#type.as_str(), spec_version.as_str()),
        ("shop", "com.dapr.event.sent", "1.0")
    );
    assert_eq!(
        (&data[..], data_content_type.as_str(), topic.as_str()),
        (&b"{\"n\":1}"[..], "application/json", "orders")
    );
    let extensions = format!("{extensions:?}");
    assert!(extensions.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{extensions}");
    orders.answer(&event.id, Verdict::Success).await;

    // What is dropped, or not taken in the end, goes to the dead-letter topic.
    client.publish_event(publish("pubsub", "orders", b"drop me", "text/plain")).await.unwrap();
    let event = orders.event().await;
    orders.answer(&event.id, Verdict::Drop).await;
    let buried = dead.event().await;
    assert_eq!(&buried.data[..], b"drop me");
    dead.answer(&buried.id, Verdict::Success).await;

    // A client that goes without a verdict: the event comes again to the next one.
    client.publish_event(publish("pubsub", "orders", b"later", "")).await.unwrap();
    let event = orders.event().await;
    drop(orders);
    let mut buried_or_again =
        Subscription::begin(&mut client, initial("pubsub", "orders", None)).await.unwrap();
    let again = tokio::select! {
        again = buried_or_again.event() => again,
        buried = dead.event() => buried,
    };
    assert_eq!(again.id, event.id);
}

#[tokio::test]
async fn an_event_that_is_refused_comes_again() {
    let world = World::new(None).await;
    let mut client = world.client();
    let mut orders = Subscription::begin(&mut client, initial("pubsub", "orders", None)).await.unwrap();
    client.publish_event(publish("pubsub", "orders", b"stubborn", "text/plain")).await.unwrap();
    let first = orders.event().await;
    orders.answer(&first.id, Verdict::Retry).await;
    let second = orders.event().await;
    assert_eq!((&second.id, &second.data), (&first.id, &first.data));
    // Verdicts on what was never sent do no harm.
    orders.answer("unknown", Verdict::Success).await;
    orders.answer(&second.id, Verdict::Success).await;
    // A second beginning ends the stream.
    orders.up.send(upwards(initial("pubsub", "orders", None))).await.unwrap();
    assert!(orders.next().await.is_none());
    let shown = async {
        loop {
            let metadata = client.get_metadata(GetMetadataRequest {}).await.unwrap().into_inner();
            if metadata.subscriptions.is_empty() {
                break;
            }
        }
    };
    within("the end of the subscription", shown).await;
}

#[tokio::test]
async fn wrong_streams_say_what_is_wrong() {
    let world = World::new(None).await;
    let mut client = world.client();
    for (first, code, reason) in [
        (initial("nowhere", "orders", None), Code::InvalidArgument, "DAPR_PUBSUB_NOT_FOUND"),
        (initial("", "orders", None), Code::InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY"),
        (initial("pubsub", "", None), Code::InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY"),
        (initial("pubsub", "secret", None), Code::PermissionDenied, "DAPR_PUBSUB_FORBIDDEN"),
    ] {
        let what = format!("{first:?}");
        let answer = Subscription::begin(&mut client, first).await.map(|_| ());
        assert_status(answer, code, reason, &what);
    }
    let processed = Up::EventProcessed(SubscribeTopicEventsRequestProcessedAlpha1::default());
    let status = Subscription::begin(&mut client, processed).await.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test]
async fn publications_are_checked() {
    let world = World::new(None).await;
    let mut client = world.client();
    for (pubsub, topic, code, reason) in [
        ("", "orders", Code::InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY"),
        ("pubsub", "", Code::InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY"),
        ("nowhere", "orders", Code::InvalidArgument, "DAPR_PUBSUB_NOT_FOUND"),
        ("pubsub", "secret", Code::PermissionDenied, "DAPR_PUBSUB_FORBIDDEN"),
    ] {
        let answer = client.publish_event(publish(pubsub, topic, b"x", "text/plain")).await;
        assert_status(answer, code, reason, &format!("{pubsub}/{topic}"));
    }
    let damaged = publish("pubsub", "orders", b"{oops", "application/cloudevents+json");
    let damaged = client.publish_event(damaged).await;
    assert_status(damaged, Code::InvalidArgument, "DAPR_PUBSUB_CLOUD_EVENT_CREATION", "a damaged envelope");
}

#[tokio::test]
async fn several_events_in_one_request() {
    let world = World::new(None).await;
    let mut client = world.client();
    let mut orders = Subscription::begin(&mut client, initial("pubsub", "orders", None)).await.unwrap();
    let entry = |id: &str, event: &'static [u8], content_type: &str| BulkPublishRequestEntry {
        entry_id: id.to_owned(),
        event: Bytes::from_static(event),
        content_type: content_type.to_owned(),
        ..BulkPublishRequestEntry::default()
    };
    let bulk = |entries| BulkPublishRequest {
        pubsub_name: "pubsub".to_owned(),
        topic: "orders".to_owned(),
        entries,
        ..BulkPublishRequest::default()
    };
    let entries = vec![
        entry("1", b"one", "text/plain"),
        entry("2", b"{oops", "application/cloudevents+json"),
        entry("3", b"\x00\xff", "application/octet-stream"),
    ];
    let failed = client.bulk_publish_event(bulk(entries)).await.unwrap().into_inner().failed_entries;
    assert_eq!(failed.iter().map(|entry| entry.entry_id.as_str()).collect::<Vec<_>>(), ["2"]);
    for expected in [&b"one"[..], b"\x00\xff"] {
        let event = orders.event().await;
        assert_eq!((&event.data[..], event.r#type.as_str()), (expected, "com.dapr.event.sent.bulk"));
        orders.answer(&event.id, Verdict::Success).await;
    }
    for entries in [vec![entry("", b"x", "")], vec![entry("1", b"x", ""), entry("1", b"y", "")]] {
        let answer = client.bulk_publish_event_alpha1(bulk(entries)).await;
        assert_status(answer, Code::InvalidArgument, "DAPR_PUBSUB_UNMARSHAL_EVENTS", "ids");
    }
    let forbidden = BulkPublishRequest { topic: "secret".to_owned(), ..bulk(vec![]) };
    let forbidden = client.bulk_publish_event(forbidden).await;
    assert_status(forbidden, Code::PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "a protected topic");
}

#[tokio::test]
async fn jobs_are_kept_as_they_came() {
    let world = World::new(None).await;
    let mut client = world.client();
    let job = Job {
        name: "backup".to_owned(),
        schedule: Some("@daily".to_owned()),
        repeats: Some(3),
        ttl: Some("24h".to_owned()),
        data: Some(Any { type_url: "type.googleapis.com/mine.Task".to_owned(), value: vec![1, 2, 3] }),
        failure_policy: Some(JobFailurePolicy {
            policy: Some(Policy::Constant(JobFailurePolicyConstant {
                interval: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
                max_retries: Some(4),
            })),
        }),
        ..Job::default()
    };
    let schedule = |job: Option<Job>, overwrite| ScheduleJobRequest { job, overwrite };
    client.schedule_job(schedule(Some(job.clone()), false)).await.unwrap();
    let found = client.get_job_alpha1(GetJobRequest { name: "backup".to_owned() }).await.unwrap();
    assert_eq!(found.into_inner().job, Some(job.clone()));
    let again = client.schedule_job_alpha1(schedule(Some(job.clone()), false)).await;
    assert_status(again, Code::AlreadyExists, "DAPR_SCHEDULER_SCHEDULE_JOB", "the same name");
    client.schedule_job(schedule(Some(job.clone()), true)).await.unwrap();
    for (what, wrong, reason) in [
        ("no job", None, "DAPR_SCHEDULER_EMPTY"),
        ("no name", Some(Job { name: String::new(), ..job.clone() }), "DAPR_SCHEDULER_JOB_NAME_EMPTY"),
        ("no time", Some(Job { schedule: None, ..job.clone() }), "DAPR_SCHEDULER_SCHEDULE_EMPTY"),
        (
            "a wrong schedule",
            Some(Job { name: "x".to_owned(), schedule: Some("soon".to_owned()), ..job.clone() }),
            "DAPR_SCHEDULER_SCHEDULE_JOB",
        ),
    ] {
        let answer = client.schedule_job(schedule(wrong, false)).await;
        assert_status(answer, Code::InvalidArgument, reason, what);
    }
    let other = Job { name: "other".to_owned(), ..job };
    client.schedule_job(schedule(Some(other), false)).await.unwrap();
    let names = async |client: &mut DaprClient<Wire>| {
        let jobs = client.list_jobs(ListJobsRequest {}).await.unwrap().into_inner().jobs;
        jobs.into_iter().map(|job| job.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut client).await, ["backup", "other"]);
    let prefix = DeleteJobsByPrefixRequest { name_prefix: Some("back".to_owned()) };
    client.delete_jobs_by_prefix(prefix).await.unwrap();
    assert_eq!(names(&mut client).await, ["other"]);
    client.delete_job(DeleteJobRequest { name: "other".to_owned() }).await.unwrap();
    let gone = client.get_job(GetJobRequest { name: "other".to_owned() }).await;
    assert_status(gone, Code::Internal, "DAPR_SCHEDULER_GET_JOB", "a deleted job");
    assert!(client.list_jobs_alpha1(ListJobsRequestAlpha1 {}).await.unwrap().into_inner().jobs.is_empty());
}

#[tokio::test]
async fn locks_exclude_each_other() {
    let world = World::new(None).await;
    let mut client = world.client();
    let take = |owner: &str, expiry_in_seconds| TryLockRequest {
        store_name: "lockstore".to_owned(),
        resource_id: "door".to_owned(),
        lock_owner: owner.to_owned(),
        expiry_in_seconds,
    };
    let free = |resource: &str, owner: &str| UnlockRequest {
        store_name: "lockstore".to_owned(),
        resource_id: resource.to_owned(),
        lock_owner: owner.to_owned(),
    };
    for (owner, expected) in [("me", true), ("you", false), ("me", false)] {
        let taken = client.try_lock_alpha1(take(owner, 60)).await.unwrap().into_inner().success;
        assert_eq!(taken, expected, "{owner}");
    }
    for (resource, owner, expected) in
        [("door", "you", 2), ("window", "me", 1), ("door", "me", 0), ("door", "me", 1)]
    {
        let status = client.unlock_alpha1(free(resource, owner)).await.unwrap().into_inner().status;
        assert_eq!(status, expected, "{resource} {owner}");
    }
    for (what, request, reason) in [
        ("no expiry", take("me", 0), "ERR_MALFORMED_REQUEST"),
        ("no owner", take("", 1), "ERR_MALFORMED_REQUEST"),
        (
            "no store",
            TryLockRequest { store_name: "nowhere".to_owned(), ..take("me", 1) },
            "ERR_LOCK_STORE_NOT_FOUND",
        ),
    ] {
        let answer = client.try_lock_alpha1(request).await;
        assert_status(answer, Code::InvalidArgument, reason, what);
    }
}
