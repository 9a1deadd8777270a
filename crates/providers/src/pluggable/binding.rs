//! `bindings.<name>`: operations of another process, events from it, or both.

use super::proto::input_binding_client::InputBindingClient;
use super::proto::output_binding_client::OutputBindingClient;
use super::proto::{
    AckResponseError, InputBindingInitRequest, InvokeRequest, ListOperationsRequest, MetadataRequest,
    OutputBindingInitRequest, PingRequest, ReadRequest, ReadResponse,
};
use super::receiving::Receiving;
use super::socket::{Channel, MAX_MESSAGE, Socket, error, origin};
use crate::deliveries::STOP_DEADLINE;
use crate::metadata::ANY;
use crate::registry::{Open, Provider};
use crate::shutdown::Shutdown;
use crate::task::Task;
use async_trait::async_trait;
use dhow_blocks::binding::{Binding, BindingEvent, BindingRequest, BindingResponse};
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Handler, Outcome, Running};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};

/// The line in the registry.
pub(super) const PROVIDER: Provider = Provider {
    component_type: "bindings.*",
    aliases: &[],
    versions: &["v1"],
    fields: ANY,
    open: Open::Binding(|component, _| {
        Box::pin(async move {
            let socket = Socket::open(&component, |channel, metadata| Box::pin(init(channel, metadata)));
            Ok(Arc::new(Bound::new(socket.await?).await.map_err(|reason| component.backend(reason))?) as _)
        })
    }),
};

struct Bound {
    socket: Arc<Socket>,
    operations: Vec<String>,
    is_input: bool,
    shutdown: Shutdown,
}

fn input(channel: Channel) -> InputBindingClient<Channel> {
    InputBindingClient::with_origin(channel, origin()).max_decoding_message_size(MAX_MESSAGE)
}

fn output(channel: Channel) -> OutputBindingClient<Channel> {
    OutputBindingClient::with_origin(channel, origin()).max_decoding_message_size(MAX_MESSAGE)
}

/// Of whichever services there are.
async fn init(channel: Channel, metadata: MetadataRequest) -> Result<(), Status> {
    let request = OutputBindingInitRequest { metadata: Some(metadata.clone()) };
    let is_output = is_served(output(channel.clone()).init(request).await)?;
    let request = InputBindingInitRequest { metadata: Some(metadata) };
    let is_input = is_served(input(channel).init(request).await)?;
    if is_output || is_input {
        Ok(())
    } else {
        Err(Status::unimplemented("its process serves neither InputBinding nor OutputBinding"))
    }
}

fn is_served<T>(answer: Result<T, Status>) -> Result<bool, Status> {
    match answer {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::Unimplemented => Ok(false),
        Err(status) => Err(status),
    }
}

// === impl Bound ===

impl Bound {
    async fn new(socket: Socket) -> Result<Bound, String> {
        let told = |status: Status| error(&status).to_string();
        let listed = async |channel| output(channel).list_operations(ListOperationsRequest {}).await;
        let operations = match socket.call(listed).await {
            Ok(listed) => listed.operations,
            Err(status) if status.code() == Code::Unimplemented => Vec::new(),
            Err(status) => return Err(told(status)),
        };
        let pinged = socket.call(async |channel| input(channel).ping(PingRequest {}).await).await;
        let is_input = is_served(pinged).map_err(told)?;
        Ok(Bound { socket: Arc::new(socket), operations, is_input, shutdown: Shutdown::new() })
    }
}

#[async_trait]
impl Binding for Bound {
    fn operations(&self) -> Vec<&str> {
        self.operations.iter().map(String::as_str).collect()
    }

    fn is_input(&self) -> bool {
        self.is_input
    }

    async fn invoke(&self, request: BindingRequest) -> Result<BindingResponse, BlockError> {
        let BindingRequest { operation, data, metadata } = request;
        let request = InvokeRequest { data, metadata, operation };
        let asked = |channel| {
            let request = request.clone();
            async move { output(channel).invoke(request).await }
        };
        let answer = self.socket.call(asked).await.map_err(|status| error(&status))?;
        let data = Some(answer.data).filter(|data| !data.is_empty());
        Ok(BindingResponse { data, metadata: answer.metadata })
    }

    async fn read(&self, handler: Arc<dyn Handler<BindingEvent>>) -> Result<Box<dyn Running>, BlockError> {
        if !self.is_input {
            return Err(BlockError::NotSupported { feature: "input events" });
        }
        let alive = self.shutdown.alive()?;
        let receiving = Receiving {
            open: |channel, acks| Box::pin(async move { Ok(input(channel).read(acks).await?.into_inner()) }),
            first: None,
            event: |received: ReadResponse| {
                (BindingEvent { data: received.data, metadata: received.metadata }, received.message_id)
            },
            ack: |id, outcome| ReadRequest {
                message_id: id,
                response_error: (outcome == Outcome::Again)
                    .then(|| AckResponseError { message: "the event was not handled".to_owned() }),
                ..ReadRequest::default()
            },
        };
        let socket = Arc::clone(&self.socket);
        Ok(Box::new(Task::spawn(|stop| receiving.run(socket, handler, stop, alive))))
    }

    async fn ping(&self) -> Result<(), BlockError> {
        self.shutdown.check()?;
        let is_output = !self.operations.is_empty();
        let asked = |channel: Channel| async move {
            match is_output {
                true => output(channel).ping(PingRequest {}).await,
                false => input(channel).ping(PingRequest {}).await,
            }
        };
        match self.socket.call(asked).await {
            Err(status) if status.code() != Code::Unimplemented => Err(error(&status)),
            _ => Ok(()),
        }
    }

    async fn close(&self) {
        self.shutdown.shut_down(STOP_DEADLINE + Duration::from_secs(1)).await;
        self.socket.close().await;
    }
}
