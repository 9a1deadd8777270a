//! What a guest exports for the host to call. All of it is optional.
//!
//! Versions of the ABI give the same callback more or fewer parameters, and compilers give it a result or none. What
//! the module has decides: it gets as many of the parameters as it takes.

use super::state::ProxyState;
use wasmtime::{ExternType, FuncType, Instance, Module, ModuleExport, Store, TypedFunc, ValType};

/// A callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    ContextCreate,
    VmStart,
    Configure,
    Tick,
    QueueReady,
    RequestHeaders,
    RequestBody,
    RequestTrailers,
    ResponseHeaders,
    ResponseBody,
    ResponseTrailers,
    HttpCallResponse,
    GrpcInitialMetadata,
    GrpcMessage,
    GrpcTrailingMetadata,
    GrpcClose,
    Done,
    Log,
    Delete,
    /// Layotto's: the guest writes its id into buffer 8.
    GetId,
}

/// Name and most parameters, in the order of [`On`].
const CALLBACKS: [(&str, usize); 20] = [
    ("proxy_on_context_create", 2),
    ("proxy_on_vm_start", 2),
    ("proxy_on_configure", 2),
    ("proxy_on_tick", 1),
    ("proxy_on_queue_ready", 2),
    ("proxy_on_request_headers", 3),
    ("proxy_on_request_body", 3),
    ("proxy_on_request_trailers", 2),
    ("proxy_on_response_headers", 3),
    ("proxy_on_response_body", 3),
    ("proxy_on_response_trailers", 2),
    ("proxy_on_http_call_response", 5),
    ("proxy_on_grpc_receive_initial_metadata", 3),
    ("proxy_on_grpc_receive", 3),
    ("proxy_on_grpc_receive_trailing_metadata", 3),
    ("proxy_on_grpc_close", 3),
    ("proxy_on_done", 1),
    ("proxy_on_log", 1),
    ("proxy_on_delete", 1),
    ("proxy_get_id", 0),
];

/// Where a module's callbacks are among its exports; found once.
pub(super) struct Exports([Option<ModuleExport>; CALLBACKS.len()]);

/// The callbacks of one instance.
pub(super) struct Callbacks([Option<Callback>; CALLBACKS.len()]);

// === impl On ===

impl On {
    pub(super) fn name(self) -> &'static str {
        CALLBACKS[self as usize].0
    }
}

// === impl Exports ===

impl Exports {
    /// Fails when an export with the name of a callback cannot be called as one.
    pub(super) fn find(module: &Module) -> wasmtime::Result<Exports> {
        let mut found = [const { None }; CALLBACKS.len()];
        for (found, (name, most)) in found.iter_mut().zip(CALLBACKS) {
            match module.get_export(name) {
                None => {}
                Some(ExternType::Func(ty)) if is_callable(&ty, most) => {
                    *found = module.get_export_index(name);
                }
                Some(_) => wasmtime::bail!(
                    "its export {name} is no function of at most {most} i32 that returns one i32 or nothing"
                ),
            }
        }
        Ok(Exports(found))
    }

    pub(super) fn has(&self, on: On) -> bool {
        self.0[on as usize].is_some()
    }

    pub(super) fn of(&self, instance: &Instance, store: &mut Store<ProxyState>) -> Callbacks {
        Callbacks(std::array::from_fn(|index| {
            let export = self.0[index].as_ref()?;
            Callback::of(instance.get_module_export(&mut *store, export)?.into_func()?, store)
        }))
    }
}

fn is_callable(ty: &FuncType, most: usize) -> bool {
    let is_i32 = |ty: ValType| matches!(ty, ValType::I32);
    ty.params().len() <= most && ty.results().len() <= 1 && ty.params().chain(ty.results()).all(is_i32)
}

// === impl Callbacks ===

impl Callbacks {
    pub(super) fn get(&self, on: On) -> Option<&Callback> {
        self.0[on as usize].as_ref()
    }
}

macro_rules! shapes {
    ($($plain:ident $answering:ident ($($param:ident: $ty:ty),*);)*) => {
        /// A function of up to five numbers, with or without a result.
        pub(super) enum Callback {
            $($plain(TypedFunc<($($ty,)*), ()>), $answering(TypedFunc<($($ty,)*), u32>),)*
        }

        impl Callback {
            fn of(func: wasmtime::Func, store: &Store<ProxyState>) -> Option<Callback> {
                $(
                    if let Ok(func) = func.typed(store) {
                        return Some(Callback::$plain(func));
                    }
                    if let Ok(func) = func.typed(store) {
                        return Some(Callback::$answering(func));
                    }
                )*
                None
            }

            /// Calls it with as many of the numbers as it takes; none if it answers nothing.
            pub(super) async fn call(
                &self,
                store: &mut Store<ProxyState>,
                args: [u32; 5],
            ) -> wasmtime::Result<Option<u32>> {
                match self {
                    $(
                        Callback::$plain(func) => {
                            let [$($param,)* ..] = args;
                            func.call_async(store, ($($param,)*)).await.map(|()| None)
                        }
                        Callback::$answering(func) => {
                            let [$($param,)* ..] = args;
                            func.call_async(store, ($($param,)*)).await.map(Some)
                        }
                    )*
                }
            }
        }
    };
}

shapes! {
    Zero ZeroAnswering ();
    One OneAnswering (a: u32);
    Two TwoAnswering (a: u32, b: u32);
    Three ThreeAnswering (a: u32, b: u32, c: u32);
    Four FourAnswering (a: u32, b: u32, c: u32, d: u32);
    Five FiveAnswering (a: u32, b: u32, c: u32, d: u32, e: u32);
}
