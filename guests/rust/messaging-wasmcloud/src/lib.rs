//! A component that does nothing but take messages, through wasmcloud:messaging.
//!
//! A message's body is JSON. What came is written to the store `shared` under `wasmcloud:<id>`, with how often; `do`
//! says what follows: nothing (success), `fail-once`, `forward` (the rest goes to the subject `to`), or `refusals`
//! (what cannot be done is tried, and the errors written to `wasmcloud:refusals`).

use serde_json::{Value, json};

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:messaging;
            world messaging {
                include wasmcloud:messaging/messaging@0.2.0;
                include wasi:keyvalue/imports@0.2.0-draft;
            }
        ",
        path: ["../../../wit/wasmcloud-messaging", "../../../wit/keyvalue"],
        world: "test:messaging/messaging",
        generate_all,
    });
}

use bindings::exports::wasmcloud::messaging::handler::Guest;
use bindings::wasi::keyvalue::{atomics, store};
use bindings::wasmcloud::messaging::consumer;
use bindings::wasmcloud::messaging::types::BrokerMessage;

struct Messages;

bindings::export!(Messages with_types_in bindings);

impl Guest for Messages {
    fn handle_message(message: BrokerMessage) -> Result<(), String> {
        let json: Value = serde_json::from_slice(&message.body).unwrap_or_default();
        let id = json["id"].as_str().unwrap_or_default();
        let shared = store::open("shared").expect("the store shared");
        let count = atomics::increment(&shared, &format!("wasmcloud:{id}:count"), 1).expect("counting");
        let body = String::from_utf8_lossy(&message.body);
        let got = json!({ "subject": message.subject, "body": body, "count": count });
        shared.set(&format!("wasmcloud:{id}"), got.to_string().as_bytes()).expect("writing");
        match json["do"].as_str() {
            Some("fail-once") if count == 1 => return Err("not yet".to_owned()),
            Some("forward") => {
                publish(json["to"].as_str().unwrap_or_default(), &json["rest"].to_string(), None)?
            }
            Some("refusals") => {
                let refusals = json!({
                    "request": consumer::request("a", b"x", 10).err(),
                    "unanswered": consumer::request("wasi", b"x", 10).err(),
                    "publish": publish("forbidden", "x", None).err(),
                });
                shared.set("wasmcloud:refusals", refusals.to_string().as_bytes()).expect("writing");
            }
            _ => {}
        }
        Ok(())
    }
}

fn publish(subject: &str, body: &str, reply_to: Option<&str>) -> Result<(), String> {
    consumer::publish(&BrokerMessage {
        subject: subject.to_owned(),
        body: body.as_bytes().to_vec(),
        reply_to: reply_to.map(str::to_owned),
    })
}
