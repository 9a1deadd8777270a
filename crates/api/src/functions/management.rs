//! Layotto's management of functions: install, update, uninstall, and what it lacks: list and upload.
//!
//! | path | body | answer |
//! |---|---|---|
//! | `/wasm/install` | `{"name", "instance_num", "vm_config": {"path"}}`, an item of the configuration | nothing |
//! | `/wasm/update` | `{"name", "instance_num"}` | nothing |
//! | `/wasm/uninstall` | `{"name"}` | nothing |
//! | `GET /wasm/list` | | the functions |
//! | `POST`, `PUT /wasm/upload?name=` | a module | where it is kept |
//!
//! Failures of the first three are 500 with `{"error"}`, in Layotto's words where it has some; it answers 200 to an
//! install of a file that is bad or missing, which is an error here.

use crate::dapr::path::Query;
use crate::server::Face;
use crate::{bearer, reply};
use dhow_blocks::invoke::{Body, CollectError, Reply};
use dhow_host::functions::{FunctionError, FunctionSpec, FunctionState, Functions, MAX_STORED};
use dhow_resources::layotto::Function;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Largest body of a request that is no module.
const MAX_REQUEST: usize = 1 << 20;

/// Modules that are taken at once; each is held in memory.
const UPLOADS: usize = 2;

/// The face that functions are managed on.
pub struct FunctionManagement {
    functions: Arc<Functions>,
    /// What a request has to send as bearer, if anything.
    token: Option<String>,
    /// Whether modules are taken: anybody who reaches the face could have the host run theirs.
    takes_modules: bool,
    uploads: Semaphore,
}

/// Why nothing was done.
struct Refused(StatusCode, String);

// === impl FunctionManagement ===

impl FunctionManagement {
    /// Without a token everybody who reaches the face is obeyed; whether only this machine does, the caller knows.
    pub fn new(functions: Arc<Functions>, token: Option<String>, is_local: bool) -> FunctionManagement {
        let takes_modules = is_local || token.is_some();
        FunctionManagement { functions, token, takes_modules, uploads: Semaphore::new(UPLOADS) }
    }

    async fn act(&self, request: Request<Body>) -> Result<Option<Value>, Refused> {
        bearer::check(request.headers(), self.token.as_deref())?;
        let (head, body) = request.into_parts();
        let failed = |error: FunctionError| Refused::failed(error.to_string());
        match head.uri.path() {
            "/wasm/install" => {
                let item = text(body).await?;
                let spec = FunctionSpec::new(&function(&item)?);
                self.functions.install(spec, &item).await.map_err(failed)?;
            }
            "/wasm/update" => {
                let update = object(&text(body).await?)?;
                let weight = instances(&update)?;
                self.functions.update(name(&update)?, weight).await.map_err(failed)?;
            }
            "/wasm/uninstall" => {
                let uninstall = object(&text(body).await?)?;
                self.functions.uninstall(name(&uninstall)?).await.map_err(failed)?;
            }
            "/wasm/list" if matches!(head.method, Method::GET | Method::HEAD) => {
                let functions = self.functions.list().await;
                return Ok(Some(json!({ "functions": functions.iter().map(shown).collect::<Vec<_>>() })));
            }
            "/wasm/upload" if matches!(head.method, Method::POST | Method::PUT) => {
                return self.upload(Query::parse(head.uri.query()), body).await.map(Some);
            }
            "/wasm/list" | "/wasm/upload" => {
                let message = "list is for GET, upload for POST and PUT".to_owned();
                return Err(Refused(StatusCode::METHOD_NOT_ALLOWED, message));
            }
            path => return Err(Refused(StatusCode::NOT_FOUND, format!("{path} is not here"))),
        }
        Ok(None)
    }

    async fn upload(&self, query: Query, body: Body) -> Result<Value, Refused> {
        if !self.takes_modules {
            let message = "modules are taken only with a token, or where only this machine can send them";
            return Err(Refused(StatusCode::FORBIDDEN, message.to_owned()));
        }
        let Some(name) = query.get("name") else {
            return Err(Refused(StatusCode::BAD_REQUEST, "name the module: /wasm/upload?name=…".to_owned()));
        };
        let Ok(_slot) = self.uploads.try_acquire() else {
            let message = format!("{UPLOADS} modules are being uploaded already");
            return Err(Refused(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        let module = collect(body, MAX_STORED).await?;
        let path = self.functions.keep(name, module).await;
        let path = path.map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))?;
        Ok(json!({ "name": name, "path": path }))
    }
}

impl Face for FunctionManagement {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Reply {
        let (status, body) = match self.act(request).await {
            Ok(body) => (StatusCode::OK, body.map(|body| body.to_string()).unwrap_or_default()),
            Err(Refused(status, message)) => (status, json!({ "error": message }).to_string()),
        };
        reply(status, "application/json", body)
    }
}

fn shown(function: &FunctionState) -> Value {
    json!({
        "name": function.name,
        "id": function.id,
        "source": function.source,
        "instance_num": function.weight,
        "version": function.version,
        "error": function.problem,
    })
}

async fn text(body: Body) -> Result<String, Refused> {
    let bytes = collect(body, MAX_REQUEST).await?;
    String::from_utf8(bytes.into()).map_err(|_| Refused::failed("the request is not UTF-8"))
}

async fn collect(body: Body, limit: usize) -> Result<bytes::Bytes, Refused> {
    body.collect(limit).await.map_err(|error| match error {
        CollectError::TooLarge { .. } => Refused(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        CollectError::Broken(_) => Refused(StatusCode::BAD_REQUEST, error.to_string()),
    })
}

fn object(text: &str) -> Result<Value, Refused> {
    serde_json::from_str(text).map_err(|error| Refused::failed(format!("the request is no JSON: {error}")))
}

fn name(request: &Value) -> Result<&str, Refused> {
    let name = request["name"].as_str().filter(|name| !name.is_empty());
    name.ok_or_else(|| Refused::failed("can't get name property"))
}

fn instances(request: &Value) -> Result<u32, Refused> {
    let count = request["instance_num"].as_i64();
    let count = count.ok_or_else(|| Refused::failed("can't get instance_num property"))?;
    let count = u32::try_from(count).ok().filter(|count| *count > 0);
    count.ok_or_else(|| Refused::failed("instance_num should be greater than 0"))
}

fn function(text: &str) -> Result<Function, Refused> {
    let request = object(text)?;
    name(&request)?;
    if !request["vm_config"].is_object() {
        return Err(Refused::failed("nil vm config"));
    }
    Function::parse(text).map_err(|errors| Refused::failed(errors.to_string()))
}

// === impl Refused ===

impl Refused {
    fn failed(message: impl Into<String>) -> Refused {
        Refused(StatusCode::INTERNAL_SERVER_ERROR, message.into())
    }
}

impl From<(StatusCode, &str)> for Refused {
    fn from((status, message): (StatusCode, &str)) -> Refused {
        Refused(status, message.to_owned())
    }
}
