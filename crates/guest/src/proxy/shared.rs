//! What proxy-wasm modules of one VM share: values by key, and queues.
//!
//! Modules with the same `vm_id` share; an app has its own VM unless its configuration names another. Each VM has the
//! same room, so that one cannot take what is another's.

use super::abi::Status;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;

/// Values and queues of one VM.
const MAX_ENTRIES: usize = 10_000;

/// Bytes of all values, and of all queues, of one VM.
const MAX_BYTES: usize = 16 << 20;

/// The VMs of a host, by their ids. Cheap to clone.
#[derive(Clone, Default)]
pub struct Vms(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    vms: HashMap<String, Weak<Vm>>,
    last_queue: u32,
}

/// What the modules of one VM share; it is gone with the last app of that VM.
pub struct Vm {
    pub(super) id: String,
    all: Vms,
    values: Mutex<Values>,
    queues: Mutex<Queues>,
}

#[derive(Default)]
struct Values {
    by_key: HashMap<Vec<u8>, (Bytes, u32)>,
    bytes: usize,
    last_cas: u32,
}

#[derive(Default)]
struct Queues {
    by_id: BTreeMap<u32, Queue>,
    entries: usize,
    bytes: usize,
}

struct Queue {
    name: Vec<u8>,
    entries: VecDeque<Bytes>,
    listeners: Vec<Weak<Wake>>,
}

/// What a root instance still has to be told about queues: how many times, by queue.
#[derive(Default)]
pub(super) struct Wake {
    ready: Mutex<BTreeMap<u32, u32>>,
    notify: Notify,
    used: AtomicBool,
}

// === impl Vms ===

impl Vms {
    /// The VM of that id, made if it is not there.
    pub fn vm(&self, id: &str) -> Arc<Vm> {
        let mut table = self.0.lock();
        table.vms.retain(|_, vm| vm.strong_count() > 0);
        if let Some(vm) = table.vms.get(id).and_then(Weak::upgrade) {
            return vm;
        }
        let vm = Arc::new(Vm {
            id: id.to_owned(),
            all: self.clone(),
            values: Mutex::default(),
            queues: Mutex::default(),
        });
        table.vms.insert(id.to_owned(), Arc::downgrade(&vm));
        vm
    }

    fn find(&self, id: &str) -> Option<Arc<Vm>> {
        self.0.lock().vms.get(id).and_then(Weak::upgrade)
    }

    fn next_queue(&self) -> u32 {
        let mut table = self.0.lock();
        table.last_queue = table.last_queue.checked_add(1).unwrap_or(1);
        table.last_queue
    }

    fn all(&self) -> Vec<Arc<Vm>> {
        self.0.lock().vms.values().filter_map(Weak::upgrade).collect()
    }
}

// === impl Vm ===

impl Vm {
    /// A value and its number, which is another one after every change.
    pub(super) fn get(&self, key: &[u8]) -> Result<(Bytes, u32), Status> {
        self.values.lock().by_key.get(key).cloned().ok_or(Status::NotFound)
    }

    /// Sets a value; if a number is given, only if it is still the value's.
    pub(super) fn set(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let mut values = self.values.lock();
        let known = values.by_key.get(key);
        if cas != 0 && known.is_none_or(|(_, current)| *current != cas) {
            return Err(Status::CasMismatch);
        }
        let before = known.map_or(0, |(value, _)| key.len() + value.len());
        let bytes = values.bytes - before + key.len() + value.len();
        if bytes > MAX_BYTES || known.is_none() && values.by_key.len() >= MAX_ENTRIES {
            return Err(Status::InternalFailure);
        }
        values.bytes = bytes;
        values.last_cas = values.last_cas.checked_add(1).unwrap_or(1);
        let cas = values.last_cas;
        values.by_key.insert(key.to_vec(), (Bytes::copy_from_slice(value), cas));
        Ok(())
    }

    /// The queue of that name, made if it is not there; `wake` hears of what comes.
    pub(super) fn register_queue(&self, name: &[u8], wake: Option<&Arc<Wake>>) -> Result<u32, Status> {
        // Not under the lock of the queues, which comes second wherever both are taken.
        let next = self.all.next_queue();
        let mut queues = self.queues.lock();
        let known = queues.by_id.iter().find(|(_, queue)| queue.name == name).map(|(id, _)| *id);
        if known.is_none() && (queues.by_id.len() >= MAX_ENTRIES || name.len() > MAX_BYTES) {
            return Err(Status::InternalFailure);
        }
        let id = known.unwrap_or(next);
        let queue = queues.by_id.entry(id).or_insert_with(|| Queue {
            name: name.to_vec(),
            entries: VecDeque::new(),
            listeners: Vec::new(),
        });
        queue.listeners.retain(|listener| listener.strong_count() > 0);
        if let Some(wake) = wake {
            wake.used.store(true, Ordering::Relaxed);
        }
        if let Some(wake) = wake
            && !queue.listeners.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(wake)))
        {
            queue.listeners.push(Arc::downgrade(wake));
        }
        Ok(id)
    }

    /// The queue of that name of this VM, or of another one that `may_reach` allows.
    pub(super) fn resolve_queue(
        &self,
        vm_id: &str,
        name: &[u8],
        may_reach: impl Fn(&str) -> bool,
    ) -> Result<u32, Status> {
        if vm_id.is_empty() || vm_id == self.id {
            return self.queue_named(name);
        }
        if !may_reach(vm_id) {
            return Err(Status::NotFound);
        }
        self.all.find(vm_id).ok_or(Status::NotFound)?.queue_named(name)
    }

    fn queue_named(&self, name: &[u8]) -> Result<u32, Status> {
        let queues = self.queues.lock();
        let found = queues.by_id.iter().find(|(_, queue)| queue.name == name);
        found.map(|(id, _)| *id).ok_or(Status::NotFound)
    }

    /// Puts a value at the end of a queue of this VM, or of another one that `may_reach` allows.
    pub(super) fn enqueue(
        &self,
        id: u32,
        value: &[u8],
        may_reach: impl Fn(&str) -> bool,
    ) -> Result<(), Status> {
        self.at_queue(id, may_reach, |queues| {
            let (entries, bytes) = (queues.entries + 1, queues.bytes + value.len());
            let queue = queues.by_id.get_mut(&id).ok_or(Status::NotFound)?;
            if entries > MAX_ENTRIES || bytes > MAX_BYTES {
                return Err(Status::InternalFailure);
            }
            queue.entries.push_back(Bytes::copy_from_slice(value));
            queue.listeners.iter().filter_map(Weak::upgrade).for_each(|wake| wake.tell(id));
            (queues.entries, queues.bytes) = (entries, bytes);
            Ok(())
        })
    }

    /// Takes the value at the beginning of a queue.
    pub(super) fn dequeue(&self, id: u32, may_reach: impl Fn(&str) -> bool) -> Result<Bytes, Status> {
        self.at_queue(id, may_reach, |queues| {
            let queue = queues.by_id.get_mut(&id).ok_or(Status::NotFound)?;
            let value = queue.entries.pop_front().ok_or(Status::Empty)?;
            queues.entries -= 1;
            queues.bytes -= value.len();
            Ok(value)
        })
    }

    /// Takes a queue of this VM away, with what is in it.
    pub(super) fn remove_queue(&self, id: u32) -> Result<(), Status> {
        let mut queues = self.queues.lock();
        let queue = queues.by_id.remove(&id).ok_or(Status::NotFound)?;
        queues.entries -= queue.entries.len();
        queues.bytes -= queue.entries.iter().map(Bytes::len).sum::<usize>();
        Ok(())
    }

    fn at_queue<T>(
        &self,
        id: u32,
        may_reach: impl Fn(&str) -> bool,
        act: impl FnOnce(&mut Queues) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut own = self.queues.lock();
        if own.by_id.contains_key(&id) {
            return act(&mut own);
        }
        drop(own);
        let others = self.all.all().into_iter().filter(|vm| vm.id != self.id && may_reach(&vm.id));
        for vm in others {
            let mut queues = vm.queues.lock();
            if queues.by_id.contains_key(&id) {
                return act(&mut queues);
            }
        }
        Err(Status::NotFound)
    }
}

// === impl Wake ===

impl Wake {
    fn tell(&self, queue: u32) {
        *self.ready.lock().entry(queue).or_default() += 1;
        self.notify.notify_one();
    }

    /// Whether there is a queue to hear of.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Waits for a queue that got something; once for each thing.
    pub(super) async fn queue(&self) -> u32 {
        loop {
            let next = {
                let mut ready = self.ready.lock();
                ready.first_entry().map(|mut entry| {
                    let queue = *entry.key();
                    *entry.get_mut() -= 1;
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                    queue
                })
            };
            match next {
                Some(queue) => return queue,
                None => self.notify.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, Vms, Wake};
    use crate::proxy::abi::Status;
    use std::sync::Arc;

    #[test]
    fn values_are_shared_within_a_vm_and_bounded() {
        let vms = Vms::default();
        let (one, same, other) = (vms.vm("a"), vms.vm("a"), vms.vm("b"));
        one.set(b"k", b"v", 0).unwrap();
        let (value, cas) = same.get(b"k").unwrap();
        assert_eq!((&value[..], other.get(b"k")), (&b"v"[..], Err(Status::NotFound)));
        assert_eq!(one.set(b"k", b"w", cas + 1), Err(Status::CasMismatch));
        assert_eq!(one.set(b"new", b"w", 1), Err(Status::CasMismatch));
        one.set(b"k", b"w", cas).unwrap();
        assert_eq!(one.set(b"k", b"x", cas), Err(Status::CasMismatch));
        let large = vec![0; MAX_BYTES - 1];
        one.set(b"k", &large, 0).unwrap();
        assert_eq!(one.set(b"l", b"", 0), Err(Status::InternalFailure));
        one.set(b"k", b"", 0).unwrap();
        one.set(b"l", b"", 0).unwrap();
        drop((one, same));
        assert_eq!(vms.vm("a").get(b"k"), Err(Status::NotFound));
    }

    #[tokio::test]
    async fn queues_keep_order_tell_their_listeners_and_are_reached_by_grant() {
        let vms = Vms::default();
        let (receiver, sender) = (vms.vm("receiver"), vms.vm("sender"));
        let wake = Arc::new(Wake::default());
        let id = receiver.register_queue(b"q", Some(&wake)).unwrap();
        assert_eq!(receiver.register_queue(b"q", Some(&wake)), Ok(id));
        let (all, none) = (|_: &str| true, |_: &str| false);
        assert_eq!(sender.resolve_queue("receiver", b"q", none), Err(Status::NotFound));
        assert_eq!(sender.resolve_queue("receiver", b"q", all), Ok(id));
        assert_eq!(receiver.resolve_queue("", b"q", none), Ok(id));
        assert_eq!(receiver.resolve_queue("", b"other", none), Err(Status::NotFound));
        assert_eq!(sender.enqueue(id, b"1", none), Err(Status::NotFound));
        sender.enqueue(id, b"1", all).unwrap();
        receiver.enqueue(id, b"2", none).unwrap();
        assert_eq!((wake.queue().await, wake.queue().await), (id, id));
        for expected in [Ok("1"), Ok("2"), Err(Status::Empty)] {
            assert_eq!(receiver.dequeue(id, none), expected.map(Into::into));
        }
        assert_eq!(receiver.enqueue(id, &vec![0; MAX_BYTES + 1], none), Err(Status::InternalFailure));
        receiver.remove_queue(id).unwrap();
        assert_eq!(receiver.enqueue(id, b"", none), Err(Status::NotFound));
    }
}
