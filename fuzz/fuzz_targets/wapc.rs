//! Calls of waPC host functions with whatever arguments: the input is a list of calls for the module of
//! `crates/host/tests/wapc/calls.rs`. The host must never panic, and the guest must be able to go on.
#![no_main]

#[path = "../../crates/host/tests/wapc/calls.rs"]
#[allow(dead_code)]
mod calls;

use dhow_artifacts::Source;
use dhow_blocks::grants::NamePattern;
use dhow_blocks::invoke::{Body, Invocation, Invoker, Trigger};
use dhow_engine::{Engine, EngineOptions};
use dhow_host::{AppSpec, Components, Host, HostOptions, Module};
use dhow_resources::load::Resources;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Runtime;

static HOSTED: LazyLock<(Runtime, Arc<Host>)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder").keep();
    let file = folder.join("calls.wat");
    std::fs::write(&file, calls::module()).expect("writing");
    let host = runtime.block_on(async {
        let engine = Engine::new(EngineOptions { max_instances: 8, ..EngineOptions::default() });
        let components = Components::new(Resources::default(), &folder);
        let options =
            HostOptions { engine: engine.expect("an engine"), cache: None, components, keep_loaded: true };
        let host = Host::new(options).expect("a host");
        let mut spec = AppSpec::new("a", Source::Path(file));
        spec.bounds.deadline = Duration::from_secs(1);
        spec.config.insert("operations".to_owned(), calls::OPERATION.to_owned());
        spec.grants.state = vec![NamePattern::any()];
        let module = Module::read(&spec.source).await.map(Arc::new);
        host.replace(vec![host.prepare(spec, module, 1).await.expect("an app")]);
        host
    });
    (runtime, host)
});

fuzz_target!(|input: &[u8]| {
    let (runtime, host) = &*HOSTED;
    let mut request = http::Request::new(Body::from(input.to_vec()));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/calls");
    // Any answer is fine, and any end of the guest.
    let _ = runtime.block_on(host.invoke("a", Invocation::new(request, Trigger::Http)));
});
