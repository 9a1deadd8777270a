//! One client id at a broker: connects again and again, and knows what is not acknowledged yet, on either side.
//!
//! The broker keeps a session by its client id: the subscription, and every message that was not
//! acknowledged. MQTT 3.1.1 knows no way to refuse a message, and a broker repeats one only on a new
//! connection. So a message that a receiver leaves behind is held here, unacknowledged, for the next
//! receiver; and when the last one has gone, the session disconnects.
//!
//! A session has one topic filter. With several, messages of a topic that nobody receives any more would fill
//! the window of what a broker sends unacknowledged (Mosquitto: 20), and stop all other topics for good.

use super::link::{KEEP_ALIVE, Link, LinkError};
use super::{Server, TIMEOUT};
use crate::backoff::Backoff;
use dhow_blocks::error::BlockError;
use futures::FutureExt;
use futures::future::BoxFuture;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Packet, PubAck, Publish, Subscribe, SubscribeFilter, SubscribeReasonCode, Unsubscribe,
};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How many messages a session takes from its broker without having acknowledged them.
pub(super) const MOST_HELD: usize = 1024;

/// How many messages are on their way to the broker without being acknowledged.
const MOST_PUBLISHED: usize = 1024;

/// More bytes than these do not wait for the socket; a single message may be larger.
const MOST_BACKLOG: usize = 1024 * 1024;

/// A client id, with the task that serves it. Dropping it disconnects, once all receivers have gone.
#[derive(Debug)]
pub(super) struct Session {
    requests: mpsc::Sender<Request>,
    control: Control,
    connected: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// How receivers speak to their session. Each has few words outstanding, so the channel needs no bound.
#[derive(Clone, Debug)]
pub(super) struct Control(mpsc::UnboundedSender<Word>);

/// Names a receiver within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReceiverId(u64);

/// A message for a receiver.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) publish: Publish,
    /// For the acknowledgement; nothing where the broker expects none.
    pub(super) receipt: Option<Receipt>,
}

/// Which delivery was handled, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    receiver: ReceiverId,
    packet: u16,
    serial: u64,
}

type Answer = oneshot::Sender<Result<(), BlockError>>;

struct Request {
    publish: Publish,
    answer: Answer,
}

enum Word {
    Join {
        deliver: mpsc::Sender<Arrival>,
        id: oneshot::Sender<ReceiverId>,
        answer: Answer,
    },
    /// The receiver takes nothing more.
    Leave(ReceiverId),
    Settled(Receipt),
    /// The receiver has handled what it will. Answered when the broker was told.
    Gone {
        id: ReceiverId,
        unsubscribe: bool,
        answer: oneshot::Sender<()>,
    },
    /// Disconnect, whoever is still there.
    End,
}

/// What a session subscribes to.
#[derive(Clone, Debug)]
struct Topic {
    filter: String,
    qos: QoS,
}

struct Receiver {
    deliver: mpsc::Sender<Arrival>,
    /// Whether it takes messages.
    open: bool,
}

/// A message that the broker waits for the acknowledgement of.
struct Held {
    /// Tells this message from a later one with the same packet id.
    serial: u64,
    publish: Publish,
    /// Who is handling it.
    with: Option<ReceiverId>,
    /// It was handled while there was no connection.
    handled: bool,
}

/// What the task knows.
struct State {
    /// Nothing if the session only publishes.
    topic: Option<Topic>,
    /// Whether the broker has the subscription.
    subscribed: bool,
    /// The packet that asked for it, until it is answered.
    subscribing: Option<u16>,
    /// Who waits for that answer.
    joining: Vec<Answer>,
    receivers: BTreeMap<ReceiverId, Receiver>,
    held: HashMap<u16, Held>,
    published: HashMap<u16, Answer>,
    last_packet: u16,
    last_serial: u64,
    connected: watch::Sender<bool>,
}

/// The state of the connection.
enum Phase {
    /// Nobody needs one.
    Parked,
    Connecting(BoxFuture<'static, Result<(Link, bool), LinkError>>),
    Connected(Box<Link>),
}

// === impl Session ===

impl Session {
    /// A session that publishes: connected from now on.
    pub(super) async fn publisher(server: Server, client: String) -> Result<Session, LinkError> {
        let (link, _) = Link::connect(&server, &client, true).await?;
        Ok(Session::spawn(server, client, None, Phase::Connected(Box::new(link))))
    }

    /// A session that receives: connected while there are receivers.
    pub(super) fn subscriber(server: Server, client: String, filter: String, qos: QoS) -> Session {
        Session::spawn(server, client, Some(Topic { filter, qos }), Phase::Parked)
    }

    fn spawn(server: Server, client: String, topic: Option<Topic>, phase: Phase) -> Session {
        let (requests, taken) = mpsc::channel(64);
        let (control, words) = mpsc::unbounded_channel();
        let (state, connected) = State::new(topic, matches!(phase, Phase::Connected(_)));
        let task = tokio::spawn(run(server, client, phase, state, taken, words));
        Session { requests, control: Control(control), connected, task }
    }

    /// `Unavailable` while there is no connection.
    pub(super) fn check(&self) -> Result<(), BlockError> {
        match *self.connected.borrow() {
            true => Ok(()),
            false => Err(lost()),
        }
    }

    /// Publishes, and waits until the broker has acknowledged it.
    pub(super) async fn publish(&self, publish: Publish) -> Result<(), BlockError> {
        self.check()?;
        let (answer, answered) = oneshot::channel();
        let acknowledged = async {
            self.requests.send(Request { publish, answer }).await.map_err(|_| lost())?;
            answered.await.map_err(|_| lost())?
        };
        tokio::time::timeout(TIMEOUT, acknowledged).await.map_err(|_| {
            BlockError::unavailable(format!(
                "the MQTT broker did not acknowledge the message within {TIMEOUT:?}"
            ))
        })?
    }

    pub(super) fn control(&self) -> Control {
        self.control.clone()
    }

    /// Disconnects, and waits for it.
    pub(super) async fn end(self) {
        let _ = self.control.0.send(Word::End);
        let _ = tokio::time::timeout(TIMEOUT, self.task).await;
    }
}

// === impl Control ===

impl Control {
    /// Receives from now on, once the broker has confirmed the subscription. [`Control::gone`] has to follow.
    pub(super) async fn join(&self, deliver: mpsc::Sender<Arrival>) -> Result<ReceiverId, BlockError> {
        let (answer, answered) = oneshot::channel();
        let (id, named) = oneshot::channel();
        let _ = self.0.send(Word::Join { deliver, id, answer });
        let id = named.await.map_err(|_| lost())?;
        let result = match tokio::time::timeout(2 * TIMEOUT, answered).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(lost())),
            Err(_) => Err(BlockError::unavailable("the MQTT broker did not confirm the subscription")),
        };
        match result {
            Ok(()) => Ok(id),
            Err(error) => {
                self.gone(id, true).await;
                Err(error)
            }
        }
    }

    pub(super) fn leave(&self, id: ReceiverId) {
        let _ = self.0.send(Word::Leave(id));
    }

    pub(super) fn settled(&self, receipt: Receipt) {
        let _ = self.0.send(Word::Settled(receipt));
    }

    /// Ends a receiver. After the last one, the broker keeps the subscription, with its messages, unless it is
    /// to `unsubscribe`.
    pub(super) async fn gone(&self, id: ReceiverId, unsubscribe: bool) {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.send(Word::Gone { id, unsubscribe, answer });
        let _ = tokio::time::timeout(TIMEOUT, answered).await;
    }
}

// === impl State ===

impl State {
    fn new(topic: Option<Topic>, connected: bool) -> (State, watch::Receiver<bool>) {
        let (connected, receiver) = watch::channel(connected);
        let state = State {
            topic,
            subscribed: false,
            subscribing: None,
            joining: Vec::new(),
            receivers: BTreeMap::new(),
            held: HashMap::new(),
            published: HashMap::new(),
            last_packet: 0,
            last_serial: 0,
            connected,
        };
        (state, receiver)
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// A packet id that is not in use. There is always one: far fewer than all are in use at once.
    fn next_packet(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet.checked_add(1).unwrap_or(1);
            let packet = self.last_packet;
            if !self.published.contains_key(&packet) && self.subscribing != Some(packet) {
                return packet;
            }
        }
    }

    /// There is a connection; `known` says whether the broker still has the session.
    fn connect(&mut self, link: &mut Link, known: bool) -> Result<(), LinkError> {
        if !known {
            // Acknowledgements of what the broker has forgotten would mean other messages.
            self.held.clear();
            self.subscribed = false;
        }
        self.connected.send_replace(true);
        self.subscribe(link)
    }

    /// Asks for the subscription, unless the broker has it.
    fn subscribe(&mut self, link: &mut Link) -> Result<(), LinkError> {
        let Some(Topic { filter, qos }) = self.topic.clone() else { return Ok(()) };
        if self.subscribed || self.subscribing.is_some() {
            return Ok(());
        }
        let pkid = self.next_packet();
        self.subscribing = Some(pkid);
        link.send(&Packet::Subscribe(Subscribe { pkid, filters: vec![SubscribeFilter::new(filter, qos)] }))
    }

    /// The connection is gone; the broker may or may not have got what it did not acknowledge.
    fn disconnect(&mut self) {
        self.connected.send_replace(false);
        self.subscribing = None;
        for (_, answer) in self.published.drain() {
            let _ = answer.send(Err(lost()));
        }
    }

    fn publish(&mut self, link: &mut Link, Request { mut publish, answer }: Request) {
        if answer.is_closed() {
            return;
        }
        publish.pkid = if publish.qos == QoS::AtMostOnce { 0 } else { self.next_packet() };
        let (qos, packet) = (publish.qos, publish.pkid);
        match link.send(&Packet::Publish(publish)) {
            Ok(()) if qos == QoS::AtMostOnce => {
                let _ = answer.send(Ok(()));
            }
            Ok(()) => {
                self.published.insert(packet, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(BlockError::invalid(error.to_string())));
            }
        }
    }

    /// A packet from the broker.
    fn take(&mut self, link: &mut Link, packet: Packet) -> Result<(), LinkError> {
        match packet {
            Packet::Publish(publish) => return self.arrive(link, publish),
            Packet::PubAck(PubAck { pkid }) => {
                if let Some(answer) = self.published.remove(&pkid) {
                    let _ = answer.send(Ok(()));
                }
            }
            Packet::SubAck(ack) if self.subscribing == Some(ack.pkid) => {
                self.subscribing = None;
                self.subscribed = !ack.return_codes.contains(&SubscribeReasonCode::Failure);
                let filter = self.topic.as_ref().map(|topic| topic.filter.as_str()).unwrap_or_default();
                let result = match self.subscribed {
                    true => Ok(()),
                    false => Err(BlockError::failed(format!(
                        "the MQTT broker refuses a subscription to {filter:?}"
                    ))),
                };
                if let Err(error) = &result {
                    tracing::error!("{error}");
                }
                self.joined(&result);
            }
            // That the broker lives is seen elsewhere; there is nothing else that it has to say.
            _ => {}
        }
        Ok(())
    }

    /// Tells those who wait for the subscription.
    fn joined(&mut self, result: &Result<(), BlockError>) {
        for answer in self.joining.drain(..) {
            let _ = answer.send(result.clone());
        }
    }

    fn arrive(&mut self, link: &mut Link, publish: Publish) -> Result<(), LinkError> {
        if publish.qos == QoS::AtMostOnce {
            // The other half of the queue is for messages that may not be dropped.
            let taker = self.taker().and_then(|id| self.receivers.get(&id));
            if let Some(Receiver { deliver, .. }) = taker
                && deliver.capacity() > deliver.max_capacity() / 2
            {
                let _ = deliver.try_send(Arrival { publish, receipt: None });
            }
            return Ok(());
        }
        let packet = publish.pkid;
        if let Some(held) = self.held.get(&packet)
            && publish.dup
            && (&held.publish.topic, &held.publish.payload) == (&publish.topic, &publish.payload)
        {
            if held.handled {
                self.held.remove(&packet);
                return link.send(&Packet::PubAck(PubAck::new(packet)));
            }
        } else {
            let serial = self.next_serial();
            self.held.insert(packet, Held { serial, publish, with: None, handled: false });
        }
        self.assign(packet);
        Ok(())
    }

    /// Hands a held message over if nobody is handling it.
    fn assign(&mut self, packet: u16) {
        let Some(receiver) = self.taker() else { return };
        let Some(held) = self.held.get_mut(&packet).filter(|held| held.with.is_none() && !held.handled)
        else {
            return;
        };
        let receipt = Receipt { receiver, packet, serial: held.serial };
        let arrival = Arrival { publish: held.publish.clone(), receipt: Some(receipt) };
        if self.receivers.get(&receiver).is_some_and(|taker| taker.deliver.try_send(arrival).is_ok()) {
            held.with = Some(receiver);
        }
    }

    /// Hands over all that nobody is handling, in the order of its arrival.
    fn assign_all(&mut self) {
        let mut packets: Vec<_> = self.held.iter().map(|(packet, held)| (held.serial, *packet)).collect();
        packets.sort_unstable();
        for (_, packet) in packets {
            self.assign(packet);
        }
    }

    /// The receiver with the shortest queue.
    fn taker(&self) -> Option<ReceiverId> {
        let open = self.receivers.iter().filter(|(_, receiver)| receiver.open);
        open.max_by_key(|(_, receiver)| receiver.deliver.capacity()).map(|(id, _)| *id)
    }

    fn settled(&mut self, link: Option<&mut Link>, receipt: Receipt) -> Result<(), LinkError> {
        let Receipt { receiver, packet, serial } = receipt;
        let is_meant = |held: &&mut Held| held.serial == serial && held.with == Some(receiver);
        let Some(held) = self.held.get_mut(&packet).filter(is_meant) else { return Ok(()) };
        match link {
            Some(link) => {
                self.held.remove(&packet);
                link.send(&Packet::PubAck(PubAck::new(packet)))
            }
            None => {
                held.with = None;
                held.handled = true;
                Ok(())
            }
        }
    }

    fn gone(&mut self, id: ReceiverId) {
        self.receivers.remove(&id);
        for held in self.held.values_mut().filter(|held| held.with == Some(id)) {
            held.with = None;
        }
        self.assign_all();
    }
}

/// Serves a session until it is told to end, or nobody can tell it anything any more.
async fn run(
    server: Server,
    client: String,
    mut phase: Phase,
    mut state: State,
    mut requests: mpsc::Receiver<Request>,
    mut words: mpsc::UnboundedReceiver<Word>,
) {
    let mut backoff = Backoff::new();
    let mut ping = tokio::time::interval(KEEP_ALIVE / 2);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let publishes = state.topic.is_none();
    let clean = publishes || server.clean;
    let connect = |delay: Duration| {
        let (server, client) = (server.clone(), client.clone());
        async move {
            tokio::time::sleep(delay).await;
            Link::connect(&server, &client, clean).await
        }
        .boxed()
    };
    loop {
        let word = match &mut phase {
            Phase::Parked => words.recv().await,
            Phase::Connecting(connecting) => tokio::select! {
                biased;
                word = words.recv() => word,
                connected = connecting => {
                    phase = match connected {
                        Ok((mut link, known)) => match state.connect(&mut link, known) {
                            Ok(()) => {
                                backoff.reset();
                                Phase::Connected(Box::new(link))
                            }
                            Err(_) => Phase::Connecting(connect(backoff.wait())),
                        },
                        Err(error) => {
                            tracing::warn!(client, "no connection to the MQTT broker: {error}; trying again");
                            state.joined(&Err(BlockError::unavailable(format!("MQTT: {error}"))));
                            Phase::Connecting(connect(backoff.wait()))
                        }
                    };
                    continue;
                }
            },
            Phase::Connected(link) => {
                let read = state.held.len() < MOST_HELD;
                let publish = state.published.len() < MOST_PUBLISHED && link.backlog() < MOST_BACKLOG;
                let result = tokio::select! {
                    biased;
                    word = words.recv() => Ok(Some(word)),
                    packet = link.turn(read) => match packet {
                        Ok(packet) => state.take(link, packet).map(|()| None),
                        Err(error) => Err(error),
                    },
                    Some(request) = requests.recv(), if publish => {
                        state.publish(link, request);
                        Ok(None)
                    }
                    _ = ping.tick() => match read && link.silence() > KEEP_ALIVE + KEEP_ALIVE / 2 {
                        true => Err(LinkError::Late),
                        false => link.send(&Packet::PingReq).map(|()| None),
                    },
                };
                match result {
                    Ok(Some(word)) => word,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(
                            client,
                            "the connection to the MQTT broker is lost: {error}; reconnecting"
                        );
                        state.disconnect();
                        while let Ok(Request { answer, .. }) = requests.try_recv() {
                            let _ = answer.send(Err(lost()));
                        }
                        phase = Phase::Connecting(connect(backoff.wait()));
                        continue;
                    }
                }
            }
        };
        let parked = matches!(phase, Phase::Parked);
        let link = match &mut phase {
            Phase::Connected(link) => Some(&mut **link),
            _ => None,
        };
        // An error of the link shows itself again when it is read from.
        match word {
            None | Some(Word::End) => break,
            Some(Word::Join { deliver, id, answer }) => {
                let receiver = ReceiverId(state.next_serial());
                state.receivers.insert(receiver, Receiver { deliver, open: true });
                let _ = id.send(receiver);
                state.joining.push(answer);
                match link {
                    Some(_) if state.subscribed => state.joined(&Ok(())),
                    Some(link) => drop(state.subscribe(link)),
                    None if parked => phase = Phase::Connecting(connect(Duration::ZERO)),
                    None => {}
                }
                state.assign_all();
            }
            Some(Word::Leave(id)) => {
                if let Some(receiver) = state.receivers.get_mut(&id) {
                    receiver.open = false;
                }
            }
            Some(Word::Settled(receipt)) => drop(state.settled(link, receipt)),
            Some(Word::Gone { id, unsubscribe, answer }) => {
                state.gone(id);
                if let Some(link) = link {
                    if let Some(Topic { filter, .. }) = &state.topic
                        && state.receivers.is_empty()
                        && (unsubscribe || server.clean)
                    {
                        let topics = vec![filter.clone()];
                        drop(
                            link.send(&Packet::Unsubscribe(Unsubscribe {
                                pkid: state.next_packet(),
                                topics,
                            })),
                        );
                    }
                    drop(link.flush().await);
                }
                if state.receivers.is_empty() && !publishes {
                    state.disconnect();
                    // The broker has it, and the next connection brings it.
                    state.held.clear();
                    state.subscribed = false;
                    if let Phase::Connected(link) = std::mem::replace(&mut phase, Phase::Parked) {
                        link.disconnect().await;
                    }
                }
                let _ = answer.send(());
            }
        }
    }
    state.disconnect();
    if let Phase::Connected(link) = phase {
        link.disconnect().await;
    }
}

fn lost() -> BlockError {
    BlockError::unavailable("the connection to the MQTT broker is lost; dhow reconnects by itself")
}
