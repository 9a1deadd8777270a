//! The API server: objects in collections, each change with a version of its own.

use super::watch;
use dhow_servers::Certificates;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// The collection of task sets.
pub(crate) const SETS: &str = "workflowtasksets";

/// What etcd takes by default, in bytes.
const MAX_OBJECT: usize = 1_500_000;

/// One API server on a port of its own.
pub(crate) struct ApiServer {
    pub(crate) address: String,
    pub(crate) inner: Arc<Inner>,
    /// Ends with the server.
    _runtime: Runtime,
}

pub(crate) struct Inner {
    state: Mutex<State>,
    /// Something changed.
    changed: Condvar,
    /// The same for watches; the number is that of disconnects.
    pub(crate) news: tokio::sync::watch::Sender<u64>,
}

/// Collection, namespace, name.
type Place = (String, String, String);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) version: u64,
    pub(crate) objects: BTreeMap<Place, Value>,
    /// What happened: version, collection, whether the object is gone, the object before and after.
    pub(crate) events: Vec<Change>,
    /// Older versions are forgotten.
    pub(crate) oldest: u64,
    pub(crate) token: String,
    /// The next patches are answered with these.
    pub(crate) refusals: Vec<(StatusCode, &'static str)>,
    /// How often something was asked for: method and collection.
    pub(crate) asked: HashMap<(String, String), usize>,
    /// What a status was patched with.
    pub(crate) patches: Vec<Value>,
    pub(crate) watches: usize,
}

#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) collection: String,
    pub(crate) namespace: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

pub(crate) type Answer = Response<BoxBody<Bytes, io::Error>>;

/// What a request's path and query say.
pub(crate) struct Asked {
    pub(crate) collection: String,
    pub(crate) namespace: Option<String>,
    name: Option<String>,
    is_status: bool,
    pub(crate) query: HashMap<String, String>,
}

/// Takes clients with a certificate of the authority only.
fn tls(certificates: &Certificates) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read =
        |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
    let mut roots = rustls::RootCertStore::empty();
    read(&certificates.ca).into_iter().for_each(|authority| roots.add(authority).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let key = PrivateKeyDer::from_pem_slice(certificates.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(read(&certificates.certificate), key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(inner: Arc<Inner>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let answer = |request| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, Infallible>(answer(&inner, request).await) }
    };
    // A watch that is cut off is an error of its connection.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), hyper::service::service_fn(answer))
        .await;
}

impl ApiServer {
    pub(crate) fn start() -> ApiServer {
        ApiServer::start_with(None)
    }

    /// Over TLS, for clients with a certificate.
    pub(crate) fn start_with_tls(certificates: &Certificates) -> ApiServer {
        ApiServer::start_with(Some(tls(certificates)))
    }

    fn start_with(tls: Option<TlsAcceptor>) -> ApiServer {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let state = State { token: "first".to_owned(), ..State::default() };
        let news = tokio::sync::watch::channel(0).0;
        let inner = Arc::new(Inner { state: Mutex::new(state), changed: Condvar::new(), news });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&inner);
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (served, tls) = (Arc::clone(&served), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(served, stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(served, stream).await;
                            }
                        }
                    }
                });
            }
        });
        ApiServer { address, inner, _runtime: runtime }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// Changes the state, and lets everybody know.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        self.inner.change(change)
    }

    /// Waits until the state is as it should be.
    pub(crate) fn wait<T>(&self, what: &str, mut is_so: impl FnMut(&State) -> Option<T>) -> T {
        let deadline = Instant::now() + crate::PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = is_so(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: {:#?}", state.objects);
            state = self.inner.changed.wait_timeout(state, left.min(Duration::from_secs(5))).unwrap().0;
        }
    }

    /// Cuts off all watches, in the middle of an event.
    pub(crate) fn disconnect(&self) {
        self.inner.news.send_modify(|disconnects| *disconnects += 1);
    }

    /// The result that a node has in the status, when it is there.
    pub(crate) fn result(&self, set: &str, node: &str) -> Value {
        self.wait(node, |state| {
            let result = &state.set(set)?["status"]["nodes"][node];
            let phase = result["phase"].as_str()?;
            (!["Pending", "Running"].contains(&phase)).then(|| result.clone())
        })
    }
}

impl Inner {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
        self.news.send_modify(|_| {});
        result
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    /// A task set of the namespace `argo`.
    pub(crate) fn set(&self, name: &str) -> Option<&Value> {
        self.objects.get(&(SETS.to_owned(), "argo".to_owned(), name.to_owned()))
    }

    /// Stores an object; none takes it away.
    pub(crate) fn store(
        &mut self,
        collection: &str,
        namespace: &str,
        name: &str,
        object: Option<Value>,
    ) -> Option<Value> {
        let place = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let before = self.objects.get(&place).cloned();
        let mut after = object;
        if before == after {
            return after;
        }
        self.version += 1;
        if let Some(object) = &mut after {
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.objects.insert(place, object.clone());
        } else {
            self.objects.remove(&place);
        }
        let (collection, namespace) = (collection.to_owned(), namespace.to_owned());
        self.events.push(Change {
            version: self.version,
            collection,
            namespace,
            before,
            after: after.clone(),
        });
        after
    }

    /// Puts tasks into the task set of a workflow, as Argo's controller does.
    pub(crate) fn put_tasks(&mut self, workflow: &str, uid: &str, tasks: Value) {
        let mut set = self.set(workflow).cloned().unwrap_or_else(|| {
            json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "WorkflowTaskSet",
                "metadata": {
                    "name": workflow, "namespace": "argo", "uid": format!("{uid}-set-{}", self.version),
                    "ownerReferences": [{
                        "apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": workflow, "uid": uid,
                        "controller": true,
                    }],
                },
                "spec": {}, "status": {},
            })
        });
        merge(&mut set, &json!({"spec": {"tasks": tasks}}));
        self.store(SETS, "argo", workflow, Some(set));
    }

    /// Changes a task set.
    pub(crate) fn patch_set(&mut self, workflow: &str, patch: &Value) {
        let mut set = self.set(workflow).cloned().unwrap();
        merge(&mut set, patch);
        self.store(SETS, "argo", workflow, Some(set));
    }
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            value => merge(target.entry(key.clone()).or_insert(Value::Null), value),
        }
    }
}

/// Whether labels are as a selector of one equality wants them.
pub(crate) fn is_selected(object: &Value, selector: Option<&String>) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return true };
    let label = |name: &str| object["metadata"]["labels"][name].as_str().unwrap_or_default().to_owned();
    match selector.split_once("!=") {
        Some((name, value)) => label(name) != value,
        None => selector.split_once('=').is_some_and(|(name, value)| label(name) == value),
    }
}

pub(crate) fn answer_with(status: StatusCode, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let mut response = Response::new(BoxBody::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn status_object(status: StatusCode, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status.as_u16(), "reason": reason,
        "message": message,
    })
}

fn refuse(status: StatusCode, reason: &str, message: &str) -> Answer {
    answer_with(status, &status_object(status, reason, message))
}

fn parse(request: &Request<Incoming>) -> Option<Asked> {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    // /api/v1/… and /apis/GROUP/VERSION/…
    let rest = if path.first() == Some(&"api") { path.get(2..)? } else { path.get(3..)? };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..] => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let query = request.uri().query().unwrap_or_default();
    let query = url_pairs(query);
    Some(Asked {
        collection: (*rest.first()?).to_owned(),
        namespace,
        name: rest.get(1).map(|name| (*name).to_owned()),
        is_status: rest.get(2) == Some(&"status"),
        query,
    })
}

fn url_pairs(query: &str) -> HashMap<String, String> {
    let unescaped = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                }
                b'+' => bytes.push(b' '),
                byte => bytes.push(byte),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (unescaped(name), unescaped(value))).collect()
}

async fn answer(inner: &Arc<Inner>, request: Request<Incoming>) -> Answer {
    let Some(asked) = parse(&request) else {
        return refuse(StatusCode::NOT_FOUND, "NotFound", "no such path");
    };
    let is_watch =
        asked.query.get("watch").is_some_and(|watch| watch == "true" || watch == "1" || watch == "True");
    {
        let mut state = inner.state();
        let method = if is_watch { "WATCH".to_owned() } else { request.method().to_string() };
        *state.asked.entry((method, asked.collection.clone())).or_default() += 1;
        let expected = format!("Bearer {}", state.token);
        if request.headers().get(AUTHORIZATION).is_none_or(|given| given.as_bytes() != expected.as_bytes()) {
            return refuse(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
        }
    }
    let method = request.method().clone();
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    if is_watch {
        return watch::answer(inner, &asked);
    }
    let Ok(body) = request.into_body().collect().await else {
        return refuse(StatusCode::BAD_REQUEST, "BadRequest", "the body broke off");
    };
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    match (&asked.name, method) {
        (None, Method::GET) => list(&inner.state(), &asked),
        (Some(name), Method::GET) => {
            let place = (asked.collection.clone(), asked.namespace.clone().unwrap_or_default(), name.clone());
            match inner.state().objects.get(&place) {
                Some(object) => answer_with(StatusCode::OK, object),
                None => not_found(name),
            }
        }
        (name, method) => inner.change(|state| write(state, &asked, name.as_deref(), &method, kind, body)),
    }
}

fn not_found(name: &str) -> Answer {
    refuse(StatusCode::NOT_FOUND, "NotFound", &format!("{name:?} not found"))
}

fn list(state: &State, asked: &Asked) -> Answer {
    let is_asked = |(place, object): &(&Place, &Value)| {
        place.0 == asked.collection
            && asked.namespace.as_ref().is_none_or(|namespace| *namespace == place.1)
            && is_selected(object, asked.query.get("labelSelector"))
    };
    let all: Vec<&Value> = state.objects.iter().filter(is_asked).map(|(_, object)| object).collect();
    let from: usize = asked.query.get("continue").map_or(0, |text| text.parse().unwrap());
    let limit: usize = asked.query.get("limit").map_or(usize::MAX, |text| text.parse().unwrap());
    let to = from.saturating_add(limit).min(all.len());
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if to < all.len() {
        metadata["continue"] = json!(to.to_string());
    }
    answer_with(StatusCode::OK, &json!({"kind": "List", "metadata": metadata, "items": &all[from..to]}))
}

/// POST, PUT, PATCH.
fn write(
    state: &mut State,
    asked: &Asked,
    name: Option<&str>,
    method: &Method,
    kind: Option<HeaderValue>,
    body: Value,
) -> Answer {
    let namespace = asked.namespace.clone().unwrap_or_default();
    let own_name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let name = name.map_or(own_name, str::to_owned);
    let known = state.objects.get(&(asked.collection.clone(), namespace.clone(), name.clone())).cloned();
    let conflict = |message: &str| refuse(StatusCode::CONFLICT, "Conflict", message);
    let given = &body["metadata"]["resourceVersion"];
    let (status, object) = match (method, known) {
        (&Method::POST, Some(_)) => {
            return refuse(StatusCode::CONFLICT, "AlreadyExists", "it is there already");
        }
        (&Method::POST, None) => (StatusCode::CREATED, body),
        (_, None) => return not_found(&name),
        (_, Some(known)) if !given.is_null() && *given != known["metadata"]["resourceVersion"] => {
            return conflict("the object has been modified");
        }
        (&Method::PUT, Some(_)) => (StatusCode::OK, body),
        (&Method::PATCH, Some(mut known)) => {
            if kind.is_none_or(|kind| kind != "application/merge-patch+json") {
                return refuse(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "UnsupportedMediaType",
                    "merge patches only",
                );
            }
            if !state.refusals.is_empty() {
                let (status, reason) = state.refusals.remove(0);
                return refuse(status, reason, reason);
            }
            if asked.is_status {
                state.patches.push(body.clone());
            }
            let mut patched = known.clone();
            merge(&mut patched, &body);
            match asked.is_status {
                // Of what is not the status, nothing changes.
                true => known["status"] = patched["status"].take(),
                false => known = patched,
            }
            (StatusCode::OK, known)
        }
        _ => return refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "no such method"),
    };
    if object.to_string().len() > MAX_OBJECT {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "", "etcdserver: request is too large");
    }
    let stored = state.store(&asked.collection, &namespace, &name, Some(object));
    answer_with(status, &stored.unwrap_or_default())
}
