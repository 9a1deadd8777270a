//! Host functions for the building blocks: the two that Layotto has, and in their style those that it never had.
//!
//! All answer 0, or 10 where the block failed, the grant for it is missing, or there is no component of that name; why
//! is in the log. What is allowed is decided where it is for all guests, by the app's scope.

use super::{ENV, give_found, put, writable};
use crate::memory::Place;
use crate::proxy::abi::{Status, code};
use crate::proxy::state::{ProxyState, of};
use crate::proxy::stream::collected;
use crate::setup::Setup;
use crate::store::Origin;
use bytes::Bytes;
use dhow_blocks::events::Metadata;
use dhow_blocks::invoke::{Body, Invocation, Trigger};
use dhow_blocks::lock::Unlock;
use dhow_blocks::scope::Event;
use dhow_blocks::secrets::Secret;
use dhow_blocks::state::{Delete, Set};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{Caller, Linker};

/// The function that is asked for, as Layotto's router reads it.
const ID: HeaderName = HeaderName::from_static("id");

pub(super) fn add_to_linker(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    layottos(linker)?;
    linker.func_wrap_async(
        ENV,
        "proxy_set_state",
        |mut caller: Caller<'_, ProxyState>,
         (s, s_len, k, k_len, v, v_len): (u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let read = texts(&mut caller, [(s, s_len), (k, k_len)])
                    .and_then(|texts| Ok((texts, bytes(&mut caller, (v, v_len))?)));
                let ([store, key], value) = match read {
                    Ok(read) => read,
                    Err(status) => return status as u32,
                };
                let setup = Arc::clone(&caller.data().setup);
                let set = async {
                    let set = Set { key, value, ..Set::default() };
                    setup.scope.state(&store).map_err(told(&setup))?.set(set).await.map_err(told(&setup))
                };
                code(set.await)
            })
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_delete_state",
        |mut caller: Caller<'_, ProxyState>, (s, s_len, k, k_len): (u32, u32, u32, u32)| {
            Box::new(async move {
                let [store, key] = match texts(&mut caller, [(s, s_len), (k, k_len)]) {
                    Ok(texts) => texts,
                    Err(status) => return status as u32,
                };
                let setup = Arc::clone(&caller.data().setup);
                let delete = async {
                    let delete = Delete { key, etag: None };
                    setup
                        .scope
                        .state(&store)
                        .map_err(told(&setup))?
                        .delete(delete)
                        .await
                        .map_err(told(&setup))
                };
                code(delete.await)
            })
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_publish",
        |mut caller: Caller<'_, ProxyState>,
         (p, p_len, t, t_len, d, d_len, c, c_len): (u32, u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let read = texts(&mut caller, [(p, p_len), (t, t_len), (c, c_len)])
                    .and_then(|texts| Ok((texts, bytes(&mut caller, (d, d_len))?)));
                let ([pubsub, topic, content_type], data) = match read {
                    Ok(read) => read,
                    Err(status) => return status as u32,
                };
                if topic.is_empty() {
                    return Status::BadArgument as u32;
                }
                let (setup, trace) = (Arc::clone(&caller.data().setup), caller.data().outbound.origin.trace);
                let content_type = (!content_type.is_empty()).then_some(content_type);
                let event = Event { data, content_type, metadata: Metadata::default() };
                code(setup.scope.publish(&pubsub, &topic, event, trace, "").await.map_err(told(&setup)))
            })
        },
    )?;
    locks(linker)?;
    reads(linker, "proxy_get_secret", secret)?;
    reads(linker, "proxy_get_configuration", configuration)?;
    Ok(())
}

fn layottos(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    reads(linker, "proxy_get_state", state)?;
    linker.func_wrap_async(
        ENV,
        "proxy_invoke_service",
        |mut caller: Caller<'_, ProxyState>,
         (i, i_len, m, m_len, p, p_len, out, out_len): (u32, u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let read = texts(&mut caller, [(i, i_len), (m, m_len)])
                    .and_then(|texts| Ok((texts, bytes(&mut caller, (p, p_len))?)));
                let found = match read {
                    Ok(([id, method], param)) => {
                        let (setup, origin) =
                            (Arc::clone(&caller.data().setup), caller.data().outbound.origin);
                        invoke(setup, origin, id, method, param).await
                    }
                    Err(status) => Err(status),
                };
                give_found(&mut caller, found, out, out_len).await
            })
        },
    )?;
    Ok(())
}

/// A function that gives what lies in a store under a name.
fn reads<F, B>(
    linker: &mut Linker<ProxyState>,
    function: &'static str,
    read: impl Fn(Arc<Setup>, String, String) -> F + Copy + Send + Sync + 'static,
) -> wasmtime::Result<()>
where
    F: Future<Output = Result<B, Status>> + Send,
    B: AsRef<[u8]> + Send,
{
    linker.func_wrap_async(
        ENV,
        function,
        move |mut caller: Caller<'_, ProxyState>,
              (s, s_len, n, n_len, out, out_len): (u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let found = match texts(&mut caller, [(s, s_len), (n, n_len)]) {
                    Ok([store, name]) => read(Arc::clone(&caller.data().setup), store, name).await,
                    Err(status) => Err(status),
                };
                give_found(&mut caller, found, out, out_len).await
            })
        },
    )?;
    Ok(())
}

fn locks(linker: &mut Linker<ProxyState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        ENV,
        "proxy_try_lock",
        |mut caller: Caller<'_, ProxyState>,
         (s, s_len, r, r_len, o, o_len, seconds, out): (u32, u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let read = writable(&mut caller, out)
                    .and_then(|()| texts(&mut caller, [(s, s_len), (r, r_len), (o, o_len)]));
                let taken = match read {
                    Ok([_, resource, owner])
                        if resource.is_empty() || owner.is_empty() || seconds.cast_signed() <= 0 =>
                    {
                        Err(Status::BadArgument)
                    }
                    Ok([store, resource, owner]) => {
                        let setup = Arc::clone(&caller.data().setup);
                        let expiry = Duration::from_secs(seconds.into());
                        let taken = setup.scope.try_lock(&store, &resource, &owner, expiry).await;
                        taken.map(u32::from).map_err(told(&setup))
                    }
                    Err(status) => Err(status),
                };
                put(&mut caller, taken, out)
            })
        },
    )?;
    linker.func_wrap_async(
        ENV,
        "proxy_unlock",
        |mut caller: Caller<'_, ProxyState>,
         (s, s_len, r, r_len, o, o_len, out): (u32, u32, u32, u32, u32, u32, u32)| {
            Box::new(async move {
                let read = writable(&mut caller, out)
                    .and_then(|()| texts(&mut caller, [(s, s_len), (r, r_len), (o, o_len)]));
                let found = match read {
                    Ok([_, resource, owner]) if resource.is_empty() || owner.is_empty() => {
                        Err(Status::BadArgument)
                    }
                    Ok([store, resource, owner]) => {
                        let setup = Arc::clone(&caller.data().setup);
                        let found = setup.scope.unlock(&store, &resource, &owner).await;
                        found.map_err(told(&setup)).map(|found| match found {
                            Unlock::Released => 0,
                            Unlock::NotHeld => 1,
                            Unlock::HeldByOther => 2,
                        })
                    }
                    Err(status) => Err(status),
                };
                put(&mut caller, found, out)
            })
        },
    )?;
    Ok(())
}

/// The value of a key; nothing if there is none.
async fn state(setup: Arc<Setup>, store: String, key: String) -> Result<Bytes, Status> {
    let state = setup.scope.state(&store).map_err(told(&setup))?;
    let item = state.get(&key).await.map_err(told(&setup))?;
    Ok(item.map(|item| item.value).unwrap_or_default())
}

/// Asks another function, which is an app under the id that it tells, or any app under its app-id.
async fn invoke(
    setup: Arc<Setup>,
    origin: Origin,
    id: String,
    method: String,
    param: Bytes,
) -> Result<Bytes, Status> {
    let mut request = Request::new(Body::from(param));
    *request.method_mut() = Method::POST;
    let path = format!("/{}", method.trim_start_matches('/'));
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Status::BadArgument)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ID, HeaderValue::from_str(&id).map_err(|_| Status::BadArgument)?);
    let (trace, depth) = (origin.trace.child(), origin.depth);
    let invocation = Invocation { request, trigger: Trigger::App, trace, depth };
    let reply = setup.scope.invoke(&id, invocation).await.map_err(told(&setup))?;
    let status = reply.status();
    if !status.is_success() {
        return Err(told(&setup)(format!("{id:?} answered with status {status}")));
    }
    let body = collected(reply.into_body(), setup.bounds.response_body, setup.bounds.deadline).await;
    body.map(|(bytes, _)| bytes)
        .map_err(|_| told(&setup)(format!("the answer of {id:?} is too large, or broke off")))
}

/// The value of a secret that has one, else all its values as JSON.
async fn secret(setup: Arc<Setup>, store: String, name: String) -> Result<Vec<u8>, Status> {
    let found = setup.scope.secret(&store, &name, &Metadata::default()).await.map_err(told(&setup))?;
    let Secret(values) = found.ok_or(Status::NotFound)?;
    match values.first_key_value() {
        Some((_, value)) if values.len() == 1 => Ok(value.clone().into_bytes()),
        _ => serde_json::to_vec(&values).map_err(told(&setup)),
    }
}

async fn configuration(setup: Arc<Setup>, store: String, key: String) -> Result<Vec<u8>, Status> {
    let bound = setup.scope.configuration(&store).map_err(told(&setup))?;
    let (keys, metadata, provider) = (&[key][..], &Metadata::default(), &bound.provider);
    let items = bound.call("get", (), |()| provider.get(keys, metadata)).await.map_err(told(&setup))?;
    items.into_values().next().map(|item| item.value.into_bytes()).ok_or(Status::NotFound)
}

/// The code has no room for a reason, so the log gets it.
fn told<E: Display>(setup: &Setup) -> impl FnOnce(E) -> Status {
    move |error| {
        tracing::warn!(app_id = &*setup.scope.app_id, "{error}");
        Status::InternalFailure
    }
}

fn texts<const N: usize>(
    caller: &mut Caller<'_, ProxyState>,
    places: [(u32, u32); N],
) -> Result<[String; N], Status> {
    let (memory, _) = of(caller)?;
    let mut texts = [const { String::new() }; N];
    for (text, place) in texts.iter_mut().zip(places) {
        *text = memory.text(Place::from(place))?.to_owned();
    }
    Ok(texts)
}

fn bytes(caller: &mut Caller<'_, ProxyState>, place: (u32, u32)) -> Result<Bytes, Status> {
    Ok(Bytes::copy_from_slice(of(caller)?.0.bytes(place)?))
}
