//! One running module: its start, and calls into it, one at a time.

use super::Room;
use super::dialect::Generation;
use super::state::WapcState;
use super::{first, functions};
use crate::failure::Failure;
use crate::outbound::Outbound;
use crate::setup::Stdio;
use crate::sockets::Ports;
use crate::store::{Origin, command, interruptible, preview1, undisturbed};
use bytes::Bytes;
use dhow_engine::Limiter;
use std::sync::Arc;
use std::time::Instant;
use wasmtime::{InstancePre, Store, TypedFunc};
use wasmtime_wasi::I32Exit;

/// What is called once, in this order, as far as the module has it.
const STARTS: [&str; 3] = ["_initialize", "_start", "wapc_init"];

/// A module of the first generation never gets its buffers back, so its instances live no longer than this.
const MOST_OF_FIRST: u32 = 256;

pub(super) struct Instance {
    pub(super) store: Store<WapcState>,
    guest_call: TypedFunc<(u32, u32), u32>,
    first: Option<first::Exports>,
    pub(super) served: u32,
    pub(super) idle_since: Instant,
}

// === impl Instance ===

impl Instance {
    /// A module that was started.
    pub(super) async fn start(
        pre: &InstancePre<WapcState>,
        room: &Arc<Room>,
        origin: Origin,
    ) -> Result<Instance, Failure> {
        let setup = &room.setup;
        let wasi = command(setup, &setup.args, Stdio::Lines, &Ports::new())
            .map_err(|error| Failure::Host(format!("{error:#}")))?;
        let wasi = preview1(wasi, setup);
        let outbound = Outbound::new(Arc::clone(setup), origin);
        let limiter = Limiter::new(setup.bounds.engine);
        let mut store =
            Store::new(pre.module().engine(), WapcState::new(wasi, limiter, outbound, Arc::clone(room)));
        store.limiter(|state| &mut state.limiter);
        interruptible(&mut store);
        let started = async {
            let instance = pre.instantiate_async(&mut store).await?;
            for name in STARTS {
                let Ok(start) = instance.get_typed_func::<(), ()>(&mut store, name) else { continue };
                match start.call_async(&mut store, ()).await {
                    // A start that ends like a program has done its work.
                    Err(error) if error.downcast_ref::<I32Exit>().is_none_or(|exit| exit.0 != 0) => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            let guest_call = instance.get_typed_func(&mut store, "__guest_call")?;
            let first = match room.dialect.generation {
                Generation::First => Some(first::Exports::find(&instance, &mut store)?),
                Generation::Second | Generation::Current => None,
            };
            Ok((guest_call, first))
        };
        match started.await {
            Ok((guest_call, first)) => {
                Ok(Instance { store, guest_call, first, served: 0, idle_since: Instant::now() })
            }
            Err(error) => Err(Failure::of(&error, store.data().limiter.refused())),
        }
    }

    /// Calls an operation. The inner error is what the module says of its failure.
    pub(super) async fn call(
        &mut self,
        origin: Origin,
        operation: &str,
        payload: Bytes,
    ) -> Result<Result<Bytes, String>, Failure> {
        undisturbed(&mut self.store);
        self.served += 1;
        self.store.data_mut().begin(origin);
        let called = match &self.first {
            Some(exports) => exports.call(&mut self.store, &self.guest_call, operation, payload).await,
            None => functions::call_guest(&mut self.store, &self.guest_call, operation, payload).await,
        };
        called.map_err(|error| Failure::of(&error, self.store.data().limiter.refused()))
    }

    /// Whether it may serve once more, of an app whose instances may serve so often.
    pub(super) fn may_go_on(&self, reuse: Option<u32>) -> bool {
        let most = if self.first.is_some() { MOST_OF_FIRST } else { u32::MAX };
        self.served < reuse.unwrap_or(most).min(most)
    }
}
