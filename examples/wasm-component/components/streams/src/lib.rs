//! Messages through Redis streams, over a socket that `grants.connect` has to allow.
//!
//! Metadata: `address` (`127.0.0.1:6379`). A topic is a stream, a consumer is a group of it, and each subscription is one
//! member of the group, with a connection of its own that it keeps. What a member leaves behind when it ends without a
//! word goes to another one after [`FORSAKEN`].
//!
//! Source: Redis documentation, "Redis Streams".

mod redis;

mod bindings {
    wit_bindgen::generate!({
        path: "../../../../wit/provider",
        world: "dhow:provider/pubsub-provider",
    });
}

use bindings::exports::dhow::provider::pubsub::{
    Error, FeatureSet, Guest, Message, Metadata, Outcome, Outgoing,
};
use redis::{Redis, Reply};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Where Redis is.
static ADDRESS: OnceLock<String> = OnceLock::new();

/// A message that nobody spoke of for so long belongs to a member that is gone.
const FORSAKEN: Duration = Duration::from_secs(10);

/// Between two looks for such messages; and how often a member speaks of its own.
const LOOK: Duration = Duration::from_secs(3);

/// A message that was not handled comes again after this time.
const AGAIN: Duration = Duration::from_millis(500);

/// The subscription of this instance.
struct Subscription {
    redis: Redis,
    topic: String,
    group: String,
    member: String,
    /// Messages that were given out.
    held: HashMap<String, Message>,
    /// Messages that were not handled, and when they come again.
    again: Vec<(Instant, Message)>,
    looked: Instant,
}

thread_local! {
    /// For publishing.
    static REDIS: RefCell<Option<Redis>> = const { RefCell::new(None) };
    static SUBSCRIPTION: RefCell<Option<Subscription>> = const { RefCell::new(None) };
}

struct Streams;

bindings::export!(Streams with_types_in bindings);

impl Guest for Streams {
    fn init(metadata: Metadata) -> Result<(), Error> {
        let address = metadata.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("address"));
        let Some((_, address)) = address else {
            return Err(Error::Invalid(
                "metadata field address is missing: such as 127.0.0.1:6379".to_owned(),
            ));
        };
        ADDRESS.get_or_init(|| address);
        Streams::ping()
    }

    fn features() -> FeatureSet {
        FeatureSet::empty()
    }

    fn publish(message: Outgoing) -> Result<(), Error> {
        let kind = message.content_type.unwrap_or_default();
        let command =
            [&b"XADD"[..], message.topic.as_bytes(), b"*", b"data", &message.data, b"type", kind.as_bytes()];
        ask(&command).map(drop)
    }

    fn subscribe(topic: String, consumer: String, _: Metadata) -> Result<(), Error> {
        let mut redis = connect().map_err(error)?;
        let made =
            redis.ask(&[b"XGROUP", b"CREATE", topic.as_bytes(), consumer.as_bytes(), b"$", b"MKSTREAM"]);
        match made {
            // The group is there already, and remembers what it has not had.
            Err(refused) if refused.to_string().starts_with("BUSYGROUP") => {}
            made => drop(made.map_err(error)?),
        }
        let member = format!("{:016x}", RandomState::new().hash_one(&topic));
        let (held, again, looked) = (HashMap::new(), Vec::new(), Instant::now());
        let subscription = Subscription { redis, topic, group: consumer, member, held, again, looked };
        SUBSCRIPTION.set(Some(subscription));
        Ok(())
    }

    fn receive(max: u32, timeout: u32) -> Result<Vec<Message>, Error> {
        subscribed(|subscription| subscription.receive(max as usize, Duration::from_millis(timeout.into())))
    }

    fn settle(id: String, outcome: Outcome) -> Result<(), Error> {
        subscribed(|subscription| subscription.settle(&id, outcome))
    }

    fn unsubscribe() -> Result<(), Error> {
        SUBSCRIPTION.set(None);
        Ok(())
    }

    fn ping() -> Result<(), Error> {
        ask(&[b"PING"]).map(drop)
    }
}

impl Subscription {
    fn receive(&mut self, max: usize, timeout: Duration) -> io::Result<Vec<Message>> {
        let mut messages = self.due(max);
        if messages.is_empty() && self.looked.elapsed() > LOOK {
            self.looked = Instant::now();
            self.keep()?;
            messages = self.forsaken(max)?;
        }
        if messages.is_empty() {
            messages = self.read(max, timeout)?;
        }
        for message in &messages {
            self.held.insert(message.id.clone(), message.clone());
        }
        Ok(messages)
    }

    /// Messages whose time has come again.
    fn due(&mut self, max: usize) -> Vec<Message> {
        let now = Instant::now();
        let due = self.again.extract_if(.., |(at, _)| *at <= now).take(max);
        due.map(|(_, message)| message).collect()
    }

    /// Says that this member is still there for its messages.
    fn keep(&mut self) -> io::Result<()> {
        let waiting = self.again.iter().map(|(_, message)| &message.id);
        let ids: Vec<String> = self.held.keys().chain(waiting).cloned().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let mut command = vec![&b"XCLAIM"[..], self.topic.as_bytes(), self.group.as_bytes()];
        command.extend([self.member.as_bytes(), b"0"]);
        command.extend(ids.iter().map(String::as_bytes));
        command.push(b"JUSTID");
        self.redis.ask(&command).map(drop)
    }

    /// Takes over what members left that are gone.
    fn forsaken(&mut self, max: usize) -> io::Result<Vec<Message>> {
        let (idle, count) = (FORSAKEN.as_millis().to_string(), max.to_string());
        let mut command = vec![&b"XAUTOCLAIM"[..], self.topic.as_bytes(), self.group.as_bytes()];
        command.extend([self.member.as_bytes(), idle.as_bytes(), b"0-0", b"COUNT", count.as_bytes()]);
        let answer = self.redis.ask(&command)?.many();
        Ok(self.messages(answer.into_iter().nth(1)))
    }

    /// Waits for new messages.
    fn read(&mut self, max: usize, timeout: Duration) -> io::Result<Vec<Message>> {
        let due = self.again.iter().map(|(at, _)| at.saturating_duration_since(Instant::now())).min();
        let wait = due.map_or(timeout, |due| due.min(timeout)).as_millis();
        let (count, block) = (max.to_string(), wait.to_string());
        let mut command = vec![&b"XREADGROUP"[..], b"GROUP", self.group.as_bytes(), self.member.as_bytes()];
        command.extend([&b"COUNT"[..], count.as_bytes()]);
        // To Redis no time is for ever.
        if wait > 0 {
            command.extend([&b"BLOCK"[..], block.as_bytes()]);
        }
        command.extend([&b"STREAMS"[..], self.topic.as_bytes(), b">"]);
        let answer = self.redis.ask(&command)?.many();
        // One stream was asked for: its name, and its messages.
        let stream = answer.into_iter().next().map(Reply::many);
        Ok(self.messages(stream.and_then(|stream| stream.into_iter().nth(1))))
    }

    fn messages(&self, entries: Option<Reply>) -> Vec<Message> {
        let entries = entries.map(Reply::many).unwrap_or_default();
        let messages = entries.into_iter().filter_map(|entry| {
            let mut entry = entry.many().into_iter();
            let (id, fields) = (entry.next()?.text(), entry.next()?.many());
            let is_ours =
                self.held.contains_key(&id) || self.again.iter().any(|(_, message)| message.id == id);
            let mut message = Message {
                id,
                topic: self.topic.clone(),
                data: Vec::new(),
                content_type: None,
                metadata: Vec::new(),
            };
            let mut fields = fields.into_iter();
            while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                match name.text().as_str() {
                    "data" => message.data = value.bytes(),
                    "type" => message.content_type = Some(value.text()).filter(|kind| !kind.is_empty()),
                    _ => {}
                }
            }
            (!is_ours).then_some(message)
        });
        messages.collect()
    }

    fn settle(&mut self, id: &str, outcome: Outcome) -> io::Result<()> {
        let Some(message) = self.held.remove(id) else { return Ok(()) };
        match outcome {
            Outcome::Again => {
                self.again.push((Instant::now() + AGAIN, message));
                Ok(())
            }
            Outcome::Done => {
                let command = [&b"XACK"[..], self.topic.as_bytes(), self.group.as_bytes(), id.as_bytes()];
                self.redis.ask(&command).map(drop)
            }
        }
    }
}

fn connect() -> io::Result<Redis> {
    let address = ADDRESS.get().map_or("", String::as_str);
    Redis::connect(address).map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

/// Asks over the connection that this instance keeps; once more over a new one if that was lost.
fn ask(command: &[&[u8]]) -> Result<Reply, Error> {
    REDIS.with_borrow_mut(|kept| {
        if let Some(mut redis) = kept.take() {
            let answer = redis.ask(command);
            if !is_lost(&answer) {
                *kept = Some(redis);
                return answer.map_err(error);
            }
        }
        let mut redis = connect().map_err(error)?;
        let answer = redis.ask(command);
        if !is_lost(&answer) {
            *kept = Some(redis);
        }
        answer.map_err(error)
    })
}

/// Whether the connection failed, and not the command.
fn is_lost(answer: &io::Result<Reply>) -> bool {
    matches!(answer, Err(failed) if failed.kind() != io::ErrorKind::Other)
}

fn subscribed<T>(act: impl FnOnce(&mut Subscription) -> io::Result<T>) -> Result<T, Error> {
    SUBSCRIPTION.with_borrow_mut(|subscription| match subscription {
        Some(subscription) => act(subscription).map_err(error),
        None => Err(Error::Failed("nothing was subscribed to".to_owned())),
    })
}

fn error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::Other => Error::Failed(error.to_string()),
        _ => Error::Unavailable(error.to_string()),
    }
}
