//! `wasi:messaging@0.2.0-draft`.

use super::{DEFAULT_PUBSUB, publish, request};
use crate::store::GuestState;
use dhow_blocks::error::BlockError;
use dhow_blocks::events::{Metadata, value};
use dhow_blocks::pubsub::REPLY_TO;
use dhow_blocks::scope::{Event, PublishError, Scope, ScopeError};
use dhow_blocks::trace::TraceContext;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

#[allow(missing_docs, unreachable_pub, clippy::all)]
pub(crate) mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/messaging",
        world: "wasi:messaging/messaging-request-reply",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "wasi:messaging/types.client": super::Client,
            "wasi:messaging/types.message": super::Message,
            "wasi:messaging/request-reply.request-options": super::RequestOptions,
        },
        trappable_error_type: { "wasi:messaging/types.error" => super::Error },
    });
}

use generated::wasi::messaging::{producer, request_reply, types};

/// Bytes of all messages that one guest has open: more than any message has, and less than hurts.
const MAX_OPEN: usize = 64 << 20;

/// What an entry of a message's metadata costs beside its text.
const ENTRY: usize = 64;

/// A connection to a broker.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Client {
    pubsub: String,
    connected: bool,
}

/// A message: one that came, or one that is to go.
#[derive(Debug, Default)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Message {
    pub(crate) topic: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) data: Vec<u8>,
    pub(crate) metadata: Option<Metadata>,
}

/// How long to wait, and for how many answers.
#[derive(Debug, Default)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct RequestOptions {
    timeout_ms: Option<u32>,
    expected: Option<u32>,
}

/// Counts the bytes of a guest's messages, which are in the host's memory.
#[derive(Debug, Default)]
pub(crate) struct OpenMessages(usize);

/// An error on its way to the guest.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum Error {
    /// One that the interface knows.
    Known(types::Error),
    /// The guest broke a rule of the component model, or a limit.
    Trap(wasmtime::Error),
}

pub(crate) struct Messaging<'a> {
    scope: &'a Scope,
    trace: TraceContext,
    table: &'a mut ResourceTable,
    open: &'a mut OpenMessages,
}

struct HasMessaging;

pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, HasMessaging>(linker, view)?;
    producer::add_to_linker::<_, HasMessaging>(linker, view)?;
    request_reply::add_to_linker::<_, HasMessaging>(linker, view)
}

/// Gives a guest a message.
pub(crate) fn open(state: &mut GuestState, message: Message) -> wasmtime::Result<Resource<Message>> {
    view(state).open_message(message)
}

/// What a guest said of a failure.
pub(crate) fn text(error: types::Error) -> String {
    match error {
        types::Error::Timeout => "timeout".to_owned(),
        types::Error::Connection(text) => format!("connection: {text}"),
        types::Error::PermissionDenied(text) => format!("permission denied: {text}"),
        types::Error::Other(text) => text,
    }
}

fn view(state: &mut GuestState) -> Messaging<'_> {
    Messaging {
        scope: &state.setup.scope,
        trace: state.outbound.origin.trace,
        table: &mut state.table,
        open: &mut state.messages,
    }
}

impl HasData for HasMessaging {
    type Data<'a> = Messaging<'a>;
}

// === impl Messaging ===

impl Messaging<'_> {
    fn open_message(&mut self, message: Message) -> wasmtime::Result<Resource<Message>> {
        self.open.resized(0, message.size())?;
        Ok(self.table.push(message)?)
    }

    fn take(&mut self, message: Resource<Message>) -> wasmtime::Result<Message> {
        let message = self.table.delete(message)?;
        self.open.resized(message.size(), 0)?;
        Ok(message)
    }

    fn change(
        &mut self,
        message: &Resource<Message>,
        change: impl FnOnce(&mut Message),
    ) -> wasmtime::Result<()> {
        let message = self.table.get_mut(message)?;
        let before = message.size();
        change(message);
        self.open.resized(before, message.size())
    }
}

impl types::Host for Messaging<'_> {
    fn convert_error(&mut self, error: Error) -> wasmtime::Result<types::Error> {
        match error {
            Error::Known(error) => Ok(error),
            Error::Trap(trap) => Err(trap),
        }
    }
}

impl types::HostClient for Messaging<'_> {
    async fn connect(&mut self, name: String) -> Result<Resource<Client>, Error> {
        // Guests that know no name ask for "" or "default".
        let pubsub = match name.as_str() {
            "" | "default" if !self.scope.components.pubsub.contains_key(&name) => DEFAULT_PUBSUB.to_owned(),
            _ => name,
        };
        self.scope.pubsub(&pubsub)?;
        Ok(self.table.push(Client { pubsub, connected: true })?)
    }

    async fn disconnect(&mut self, client: Resource<Client>) -> Result<(), Error> {
        self.table.get_mut(&client)?.connected = false;
        Ok(())
    }

    async fn drop(&mut self, client: Resource<Client>) -> wasmtime::Result<()> {
        self.table.delete(client)?;
        Ok(())
    }
}

impl types::HostMessage for Messaging<'_> {
    async fn new(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<Message>> {
        self.open_message(Message { data, ..Message::default() })
    }

    async fn topic(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&message)?.topic.clone())
    }

    async fn content_type(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&message)?.content_type.clone())
    }

    async fn set_content_type(
        &mut self,
        message: Resource<Message>,
        content_type: String,
    ) -> wasmtime::Result<()> {
        self.change(&message, |message| message.content_type = Some(content_type))
    }

    async fn data(&mut self, message: Resource<Message>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&message)?.data.clone())
    }

    async fn set_data(&mut self, message: Resource<Message>, data: Vec<u8>) -> wasmtime::Result<()> {
        self.change(&message, |message| message.data = data)
    }

    async fn metadata(
        &mut self,
        message: Resource<Message>,
    ) -> wasmtime::Result<Option<Vec<(String, String)>>> {
        let metadata = self.table.get(&message)?.metadata.clone();
        Ok(metadata.map(|metadata| metadata.into_iter().collect()))
    }

    async fn add_metadata(
        &mut self,
        message: Resource<Message>,
        key: String,
        value: String,
    ) -> wasmtime::Result<()> {
        self.change(&message, |message| {
            message.metadata.get_or_insert_default().insert(key, value);
        })
    }

    async fn set_metadata(
        &mut self,
        message: Resource<Message>,
        metadata: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.change(&message, |message| message.metadata = Some(metadata.into_iter().collect()))
    }

    async fn remove_metadata(&mut self, message: Resource<Message>, key: String) -> wasmtime::Result<()> {
        self.change(&message, |message| {
            if let Some(metadata) = &mut message.metadata {
                metadata.remove(&key);
            }
        })
    }

    async fn drop(&mut self, message: Resource<Message>) -> wasmtime::Result<()> {
        self.take(message).map(drop)
    }
}

impl producer::Host for Messaging<'_> {
    async fn send(
        &mut self,
        client: Resource<Client>,
        topic: String,
        message: Resource<Message>,
    ) -> Result<(), Error> {
        let Message { content_type, data, metadata, .. } = self.take(message)?;
        let client = self.table.get(&client)?;
        if !client.connected {
            return Err(types::Error::Connection("the client is disconnected".to_owned()).into());
        }
        let event = Event { data: data.into(), content_type, metadata: metadata.unwrap_or_default() };
        Ok(publish(self.scope, self.trace, &client.pubsub, &topic, event).await?)
    }
}

impl request_reply::Host for Messaging<'_> {
    async fn request(
        &mut self,
        client: Resource<Client>,
        topic: String,
        message: Resource<Message>,
        options: Option<Resource<RequestOptions>>,
    ) -> Result<Vec<Resource<Message>>, Error> {
        let options = match options {
            Some(options) => self.table.delete(options)?,
            None => RequestOptions::default(),
        };
        if options.expected.is_some_and(|expected| expected > 1) {
            let reason = "one answer can be waited for, not several".to_owned();
            return Err(types::Error::Other(reason).into());
        }
        let client = self.table.get(&client)?;
        if !client.connected {
            return Err(types::Error::Connection("the client is disconnected".to_owned()).into());
        }
        let data = self.table.get(&message)?.data.clone();
        let limit = options.timeout_ms.map(u64::from);
        let answer = request(self.scope, &client.pubsub, &topic, data, limit).await?;
        let answer = Message {
            topic: Some(answer.topic),
            content_type: answer.content_type,
            data: answer.data.into(),
            metadata: Some(answer.metadata).filter(|metadata| !metadata.is_empty()),
        };
        Ok(vec![self.open_message(answer)?])
    }

    async fn reply(&mut self, asked: Resource<Message>, message: Resource<Message>) -> Result<(), Error> {
        let Message { content_type, data, metadata, .. } = self.take(message)?;
        let asked = self.table.get(&asked)?.metadata.as_ref();
        let told = |name| asked.and_then(|metadata| value(metadata, name)).map(str::to_owned);
        let topic = told(REPLY_TO).or_else(|| told("cloudevent.replyto"));
        let Some(topic) = topic else {
            return Err(types::Error::Other("nobody expects an answer to this message".to_owned()).into());
        };
        let pubsub = told("pubsubName").unwrap_or_else(|| DEFAULT_PUBSUB.to_owned());
        let mut metadata = metadata.unwrap_or_default();
        metadata.insert("rawPayload".to_owned(), "true".to_owned());
        let event = Event { data: data.into(), content_type, metadata };
        Ok(publish(self.scope, self.trace, &pubsub, &topic, event).await?)
    }
}

impl request_reply::HostRequestOptions for Messaging<'_> {
    async fn new(&mut self) -> wasmtime::Result<Resource<RequestOptions>> {
        Ok(self.table.push(RequestOptions::default())?)
    }

    async fn set_timeout_ms(
        &mut self,
        options: Resource<RequestOptions>,
        limit: u32,
    ) -> wasmtime::Result<()> {
        self.table.get_mut(&options)?.timeout_ms = Some(limit);
        Ok(())
    }

    async fn set_expected_replies(
        &mut self,
        options: Resource<RequestOptions>,
        count: u32,
    ) -> wasmtime::Result<()> {
        self.table.get_mut(&options)?.expected = Some(count);
        Ok(())
    }

    async fn drop(&mut self, options: Resource<RequestOptions>) -> wasmtime::Result<()> {
        self.table.delete(options)?;
        Ok(())
    }
}

// === impl Message ===

impl Message {
    fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let entries = self.metadata.iter().flatten().map(|(name, value)| name.len() + value.len() + ENTRY);
        self.data.len() + text(&self.topic) + text(&self.content_type) + entries.sum::<usize>()
    }
}

// === impl OpenMessages ===

impl OpenMessages {
    /// A message of so many bytes has so many now; the error ends the guest.
    fn resized(&mut self, before: usize, after: usize) -> wasmtime::Result<()> {
        self.0 = self.0.saturating_sub(before) + after;
        if self.0 > MAX_OPEN {
            wasmtime::bail!("the guest's open messages have more than the {MAX_OPEN} bytes allowed");
        }
        Ok(())
    }
}

// === impl Error ===

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Error {
        Error::Known(error)
    }
}

impl From<wasmtime::Error> for Error {
    fn from(error: wasmtime::Error) -> Error {
        Error::Trap(error)
    }
}

impl From<ResourceTableError> for Error {
    fn from(error: ResourceTableError) -> Error {
        Error::Trap(error.into())
    }
}

impl From<ScopeError> for Error {
    fn from(error: ScopeError) -> Error {
        let text = error.to_string();
        Error::Known(match error {
            ScopeError::Denied(_) => types::Error::PermissionDenied(text),
            ScopeError::NotFound { .. } | ScopeError::NotConfigured { .. } => types::Error::Connection(text),
        })
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Error {
        let text = error.to_string();
        Error::Known(match error {
            PublishError::Scope(error) => return error.into(),
            PublishError::Forbidden { .. } => types::Error::PermissionDenied(text),
            PublishError::Provider { error: BlockError::Unavailable { .. } } => {
                types::Error::Connection(text)
            }
            PublishError::Envelope { .. } | PublishError::Provider { .. } => types::Error::Other(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_OPEN, Message, OpenMessages};

    #[test]
    fn open_messages_are_bounded() {
        let mut open = OpenMessages::default();
        let message = Message { data: vec![0; MAX_OPEN / 2], ..Message::default() };
        open.resized(0, message.size()).unwrap();
        open.resized(0, message.size()).unwrap();
        assert!(open.resized(0, 1).is_err());
        open.resized(message.size() + 1, 0).unwrap();
        let metadata = Some([("name".to_owned(), "value".to_owned())].into());
        let described = Message { topic: Some("t".to_owned()), metadata, ..Message::default() };
        assert!(described.size() > "nametvalue".len());
        open.resized(0, described.size()).unwrap();
    }
}
