//! A host with guests in text form.

use dhow_artifacts::Source;
use dhow_blocks::invoke::{Body, Invocation, InvokeError, Invoker, Reply, Trigger};
use dhow_engine::{Engine, EngineOptions};
use dhow_host::{AppSpec, Components, Host, HostOptions, Module, PrepareError};
use dhow_resources::load::Resources;
use http::Request;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The beginning of every guest: functions, a page of memory, an allocator that begins at 4096.
const BEGINNING: &str = r#"
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_buffer_bytes" (func $write (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_buffer_bytes" (func $read (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_done" (func $done (result i32)))
    (import "env" "proxy_send_local_response"
        (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_state" (func $get_state (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_state" (func $set_state (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_invoke_service"
        (func $invoke (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (global $top (mut i32) (i32.const 4096))
    (func $allocate (param $size i32) (result i32)
        (if (i32.eqz (local.get $size)) (then unreachable))
        (global.get $top)
        (global.set $top (i32.add (global.get $top) (local.get $size))))
    ;; Answers 200 with text of the memory.
    (func $say (param i32 i32)
        (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (local.get 0) (local.get 1)
            (i32.const 0) (i32.const 0) (i32.const -1))))
"#;

/// The usual allocator.
pub(crate) const ALLOCATOR: &str = r#"(export "proxy_on_memory_allocate" (func $allocate))"#;

/// A host and the folder of its modules.
pub(crate) struct Hosted {
    pub(crate) host: Arc<Host>,
    folder: TempDir,
    /// Of all its apps.
    deadline: Duration,
}

/// A guest of these functions.
pub(crate) fn guest(rest: &str) -> String {
    format!("(module {BEGINNING} {rest})")
}

/// Imports beside the usual ones.
pub(crate) fn importing(imports: &str, text: &str) -> String {
    text.replacen("(module", &format!("(module {imports}"), 1)
}

/// A request with a body.
pub(crate) fn request(uri: &str, body: &[u8]) -> Request<Body> {
    Request::builder().uri(uri).body(Body::from(body.to_vec())).unwrap()
}

// === impl Hosted ===

impl Hosted {
    pub(crate) fn new() -> Hosted {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(EngineOptions { max_instances: 100, ..EngineOptions::default() }).unwrap();
        let components = Components::new(Resources::default(), &folder.path().join("data"));
        let options = HostOptions { engine, cache: None, components, keep_loaded: true };
        Hosted { host: Host::new(options).unwrap(), folder, deadline: Duration::from_secs(30) }
    }

    /// Where a guest is meant to run out of time.
    pub(crate) fn hurried() -> Hosted {
        Hosted { deadline: Duration::from_millis(500), ..Hosted::new() }
    }

    /// How an app with this guest begins.
    pub(crate) fn spec(&self, app_id: &str, text: &str) -> AppSpec {
        let file = self.folder.path().join(format!("{app_id}.wat"));
        std::fs::write(&file, text).unwrap();
        let mut spec = AppSpec::new(app_id, Source::Path(file));
        spec.bounds.deadline = self.deadline;
        spec
    }

    /// Makes these the apps of the host.
    pub(crate) async fn run(&self, specs: Vec<AppSpec>) -> Result<(), PrepareError> {
        let mut apps = Vec::new();
        for spec in specs {
            let module = Module::read(&spec.source).await.map(Arc::new);
            apps.push(self.host.prepare(spec, module, 1).await?);
        }
        self.host.replace(apps);
        Ok(())
    }

    /// A host with the app `a`.
    pub(crate) async fn one(text: &str) -> Hosted {
        let hosted = Hosted::new();
        hosted.run(vec![hosted.spec("a", text)]).await.unwrap();
        hosted
    }

    pub(crate) async fn send(&self, app_id: &str, request: Request<Body>) -> Result<Reply, InvokeError> {
        self.host.invoke(app_id, Invocation::new(request, Trigger::Http)).await
    }

    /// Status and body, or 0 and the error.
    pub(crate) async fn ask(&self, app_id: &str, request: Request<Body>) -> (u16, String) {
        match self.send(app_id, request).await {
            Ok(reply) => {
                let status = reply.status().as_u16();
                let body = reply.into_body().collect(1 << 20).await.unwrap();
                (status, String::from_utf8_lossy(&body).into_owned())
            }
            Err(error) => (0, error.to_string()),
        }
    }
}
