//! Names for components: `wasi:sockets/ip-name-lookup` of 0.2 and 0.3, in the place of Wasmtime's, which asks for any
//! name and forgets what it led to.

use super::names::Unresolved;
use crate::setup::Setup;
use crate::store::GuestState;
use futures::FutureExt;
use std::net::IpAddr;
use std::sync::Arc;
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::p3::bindings::sockets::{ip_name_lookup, types};
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;

/// The interfaces as Wasmtime defines them.
const NAMES: &str = "wasi:sockets/ip-name-lookup@0.2.12";
const NAMES_3: &str = "wasi:sockets/ip-name-lookup@0.3.0";

/// The longest name that there can be (RFC 1035).
const MAX_NAME: usize = 253;

/// A name that is looked up: `resolve-address-stream`.
enum Lookup {
    Asked(AbortOnDropJoinHandle<Result<Vec<IpAddr>, ErrorCode>>),
    Found(Result<std::vec::IntoIter<IpAddr>, ErrorCode>),
}

/// What a function of the interface answers.
type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

/// Puts the functions of 0.2 in the place of Wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut names = linker.instance(NAMES)?;
    names.resource("resolve-address-stream", ResourceType::host::<Lookup>(), |mut store, rep| {
        store.data_mut().table.delete(Resource::<Lookup>::new_own(rep))?;
        Ok(())
    })?;
    names.func_wrap("resolve-addresses", resolve_addresses)?;
    names.func_wrap("[method]resolve-address-stream.resolve-next-address", resolve_next_address)?;
    names.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, GuestState>,
         (lookup,): (Resource<Lookup>,)|
         -> wasmtime::Result<(Resource<DynPollable>,)> {
            Ok((subscribe(&mut store.data_mut().table, lookup)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for 0.3.
pub(crate) fn add_to_concurrent_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(NAMES_3)?.func_wrap_concurrent(
        "resolve-addresses",
        |store: &Accessor<GuestState>, (name,): (String,)| {
            Box::pin(async move {
                let setup = store.with(|mut store| Arc::clone(&store.get().setup));
                let found = look_up(&setup, &name).await;
                Ok((found
                    .map(|found| found.into_iter().map(types::IpAddress::from).collect::<Vec<_>>())
                    .map_err(|code| match code {
                        ErrorCode::AccessDenied => ip_name_lookup::ErrorCode::AccessDenied,
                        ErrorCode::InvalidArgument => ip_name_lookup::ErrorCode::InvalidArgument,
                        ErrorCode::TemporaryResolverFailure => {
                            ip_name_lookup::ErrorCode::TemporaryResolverFailure
                        }
                        _ => ip_name_lookup::ErrorCode::NameUnresolvable,
                    }),))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn resolve_addresses(
    mut store: StoreContextMut<'_, GuestState>,
    (network, name): (Resource<Network>, String),
) -> Answer<Resource<Lookup>> {
    let state = store.data_mut();
    state.table.get(&network)?;
    let setup = Arc::clone(&state.setup);
    let lookup = match look_up(&setup, &name).now_or_never() {
        Some(Err(code)) => return Ok((Err(code),)),
        Some(Ok(found)) => Lookup::Found(Ok(found.into_iter())),
        None => Lookup::Asked(wasmtime_wasi::runtime::spawn(async move { look_up(&setup, &name).await })),
    };
    Ok((Ok(state.table.push(lookup)?),))
}

fn resolve_next_address(
    mut store: StoreContextMut<'_, GuestState>,
    (lookup,): (Resource<Lookup>,),
) -> Answer<Option<IpAddress>> {
    let lookup = store.data_mut().table.get_mut(&lookup)?;
    lookup.ready().now_or_never();
    Ok((match lookup {
        Lookup::Asked(_) => Err(ErrorCode::WouldBlock),
        Lookup::Found(found) => {
            found.as_mut().map(|found| found.next().map(Into::into)).map_err(|code| *code)
        }
    },))
}

/// The addresses of a name, or of an address, which is one itself.
async fn look_up(setup: &Setup, name: &str) -> Result<Vec<IpAddr>, ErrorCode> {
    let domain = match url::Host::parse(name) {
        Ok(url::Host::Ipv4(ip)) => return Ok(vec![ip.into()]),
        Ok(url::Host::Ipv6(ip)) => return Ok(vec![ip.into()]),
        Ok(url::Host::Domain(domain)) if domain.len() <= MAX_NAME => domain,
        // An address of IPv6 stands without its brackets here.
        _ => return name.parse().map(|ip| vec![ip]).map_err(|_| ErrorCode::InvalidArgument),
    };
    setup.look_up(&domain).await.map_err(|why| match why {
        Unresolved::Denied(_) => ErrorCode::AccessDenied,
        Unresolved::Late => ErrorCode::TemporaryResolverFailure,
        Unresolved::Unknown => ErrorCode::NameUnresolvable,
    })
}

// === impl Lookup ===

#[async_trait::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Lookup::Asked(found) = self {
            *self = Lookup::Found(found.await.map(Vec::into_iter));
        }
    }
}
