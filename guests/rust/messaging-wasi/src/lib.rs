//! A component that does nothing but take messages, through wasi:messaging.
//!
//! A message's data are JSON. What came is written to the store `shared` under `wasi:<id>`, with how often; `do` says
//! what follows: nothing (success), `fail-once`, `forward` (the rest goes to the topic `to`), or `refusals` (what
//! cannot be done is tried, and the errors' names written to `wasi:refusals`).

use serde_json::{Value, json};

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:messaging;
            world messaging {
                include wasi:messaging/messaging-request-reply@0.2.0-draft;
                include wasi:keyvalue/imports@0.2.0-draft2;
            }
        ",
        path: ["../../../wit/messaging", "../../../wit/keyvalue-draft2"],
        world: "test:messaging/messaging",
        generate_all,
    });
}

use bindings::exports::wasi::messaging::incoming_handler::Guest;
use bindings::wasi::keyvalue::{atomics, store};
use bindings::wasi::messaging::producer;
use bindings::wasi::messaging::request_reply::{self, RequestOptions};
use bindings::wasi::messaging::types::{Client, Error, Message};

struct Messages;

bindings::export!(Messages with_types_in bindings);

impl Guest for Messages {
    fn handle(message: Message) -> Result<(), Error> {
        let data = message.data();
        let json: Value = serde_json::from_slice(&data).unwrap_or_default();
        let id = json["id"].as_str().unwrap_or_default();
        let shared = store::open("shared").expect("the store shared");
        let count = atomics::increment(&shared, &format!("wasi:{id}:count"), 1).expect("counting");
        let metadata: Vec<String> =
            message.metadata().unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        let got = json!({
            "topic": message.topic(), "content-type": message.content_type(), "metadata": metadata,
            "data": String::from_utf8_lossy(&data), "count": count,
        });
        shared.set(&format!("wasi:{id}"), got.to_string().as_bytes()).expect("writing");
        match json["do"].as_str() {
            Some("fail-once") if count == 1 => return Err(Error::Other("not yet".to_owned())),
            Some("forward") => {
                let client = Client::connect("")?;
                let forward = Message::new(json["rest"].to_string().as_bytes());
                forward.set_content_type("application/json");
                forward.add_metadata("cloudevent.type", "forwarded");
                producer::send(&client, json["to"].as_str().unwrap_or_default(), forward)?;
            }
            Some("refusals") => {
                let refusals = refusals(&message).to_string();
                shared.set("wasi:refusals", refusals.as_bytes()).expect("writing");
            }
            _ => {}
        }
        Ok(())
    }
}

fn refusals(message: &Message) -> Value {
    let client = Client::connect("pubsub").expect("the broker");
    let options = RequestOptions::new();
    options.set_timeout_ms(10);
    options.set_expected_replies(1);
    let made = Message::new(b"1");
    made.add_metadata("one", "1");
    made.add_metadata("two", "2");
    made.remove_metadata("one");
    let kept = json!({ "topic": made.topic(), "metadata": made.metadata() });
    let refused = json!({
        "made": kept,
        "connect": name(Client::connect("absent").err()),
        "send": name(producer::send(&client, "forbidden", Message::new(b"x")).err()),
        "no topic": name(producer::send(&client, "", Message::new(b"x")).err()),
        "request": name(request_reply::request(&client, "a", &made, Some(options)).err()),
        "reply": name(request_reply::reply(message, made).err()),
    });
    client.disconnect().expect("disconnecting");
    let gone = name(producer::send(&client, "wasi", Message::new(b"x")).err());
    json!([refused, gone])
}

fn name(error: Option<Error>) -> &'static str {
    match error {
        None => "none",
        Some(Error::Timeout) => "timeout",
        Some(Error::Connection(_)) => "connection",
        Some(Error::PermissionDenied(_)) => "permission-denied",
        Some(Error::Other(_)) => "other",
    }
}
