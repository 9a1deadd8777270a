//! `wasmcloud:messaging@0.2.0`. A subject is a topic of the component `pubsub`: the interface names no broker.

use super::{DEFAULT_PUBSUB, publish, request};
use crate::store::GuestState;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::pubsub::REPLY_TO;
use dhow_blocks::scope::{Event, Scope};
use dhow_blocks::trace::TraceContext;
use wasmtime::component::{HasData, Linker};

#[allow(missing_docs, unreachable_pub, clippy::all)]
pub(crate) mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/wasmcloud-messaging",
        world: "wasmcloud:messaging/messaging",
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

use generated::wasmcloud::messaging::consumer;
use generated::wasmcloud::messaging::types::{self, BrokerMessage};

pub(crate) struct Messaging<'a> {
    scope: &'a Scope,
    trace: TraceContext,
}

struct HasMessaging;

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    fn view(state: &mut GuestState) -> Messaging<'_> {
        Messaging { scope: &state.setup.scope, trace: state.outbound.origin.trace }
    }
    types::add_to_linker::<_, HasMessaging>(linker, view)?;
    consumer::add_to_linker::<_, HasMessaging>(linker, view)
}

impl HasData for HasMessaging {
    type Data<'a> = Messaging<'a>;
}

impl types::Host for Messaging<'_> {}

impl consumer::Host for Messaging<'_> {
    async fn request(
        &mut self,
        subject: String,
        body: Vec<u8>,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<BrokerMessage, String>> {
        let answer = request(self.scope, DEFAULT_PUBSUB, &subject, body, Some(timeout_ms.into())).await;
        let answer = answer.map(|answer| BrokerMessage {
            reply_to: value(&answer.metadata, REPLY_TO).map(str::to_owned),
            subject: answer.topic,
            body: answer.data.into(),
        });
        Ok(answer.map_err(|error| error.to_string()))
    }

    async fn publish(&mut self, message: BrokerMessage) -> wasmtime::Result<Result<(), String>> {
        // The interface says nothing of a body's media type; the envelope holds text as text, and bytes as bytes.
        let metadata = match message.reply_to {
            None => Metadata::default(),
            // A broker with answers takes it from here, any other in the envelope.
            Some(reply_to) => Metadata::from([
                ("cloudevent.replyto".to_owned(), reply_to.clone()),
                (REPLY_TO.to_owned(), reply_to),
            ]),
        };
        let event = Event { data: message.body.into(), metadata, ..Event::default() };
        let published = publish(self.scope, self.trace, DEFAULT_PUBSUB, &message.subject, event).await;
        Ok(published.map_err(|error| error.to_string()))
    }
}
