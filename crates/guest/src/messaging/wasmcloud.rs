//! `wasmcloud:messaging@0.2.0`. A subject is a topic of the component `pubsub`: the interface names no broker.

use super::{DEFAULT_PUBSUB, NO_REPLIES, publish};
use crate::store::GuestState;
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
        _: String,
        _: Vec<u8>,
        _: u32,
    ) -> wasmtime::Result<Result<BrokerMessage, String>> {
        Ok(Err(NO_REPLIES.to_owned()))
    }

    async fn publish(&mut self, message: BrokerMessage) -> wasmtime::Result<Result<(), String>> {
        if message.reply_to.is_some() {
            return Ok(Err(NO_REPLIES.to_owned()));
        }
        // The interface says nothing of a body's media type; the envelope holds text as text, and bytes as bytes.
        let event = Event { data: message.body.into(), ..Event::default() };
        let published = publish(self.scope, self.trace, DEFAULT_PUBSUB, &message.subject, event).await;
        Ok(published.map_err(|error| error.to_string()))
    }
}
