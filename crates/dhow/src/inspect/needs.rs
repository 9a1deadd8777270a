//! What a module may need, as its imports and handlers show it: grants, and interfaces that dhow does not have.

use dhow_engine::Inspection;
use dhow_guest::is_provided;

/// Conclusions from imports and exports.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// What has to be allowed before the imports are of use.
    pub(super) grants: Vec<Need>,
    /// Imports that nothing in dhow provides.
    pub(super) not_provided: Vec<String>,
}

/// One thing to allow.
#[derive(Debug)]
pub(super) struct Need {
    /// Name of the grant or setting.
    pub(super) kind: &'static str,
    /// The import or export that shows it.
    pub(super) because: String,
    /// `imports` or `exports`.
    pub(super) how: &'static str,
    /// The line of a manifest; `<…>` is for the user to fill in.
    pub(super) manifest: &'static str,
    /// The flag of `dhow run`.
    pub(super) flag: &'static str,
}

/// What an import, or an export, with one of these beginnings needs.
struct Rule {
    imports: &'static [&'static str],
    exports: &'static [&'static str],
    kind: &'static str,
    manifest: &'static str,
    flag: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        imports: &[
            "wasi:keyvalue/",
            "dhow:runtime/state@",
            "env::proxy_get_state",
            "env::proxy_set_state",
            "env::proxy_delete_state",
        ],
        exports: &[],
        kind: "state",
        manifest: "grants.state = [\"statestore\"]",
        flag: "--grant state=statestore",
    },
    Rule {
        imports: &[
            "wasi:messaging/producer@",
            "wasmcloud:messaging/consumer@",
            "dhow:runtime/pubsub@",
            "env::proxy_publish",
        ],
        exports: &[],
        kind: "publish",
        manifest: "grants.publish = [\"pubsub/<topic>\"]",
        flag: "--grant 'publish=pubsub/<topic>'",
    },
    Rule {
        // Which topics stands in a resource of kind Subscription.
        imports: &[],
        exports: &[
            "wasi:messaging/incoming-handler@",
            "wasmcloud:messaging/handler@",
            "dhow:runtime/topic-handler@",
        ],
        kind: "subscribe",
        manifest: "grants.subscribe = [\"pubsub/<topic>\"]",
        flag: "--grant 'subscribe=pubsub/<topic>'",
    },
    Rule {
        imports: &["dhow:runtime/invoke@", "env::proxy_invoke_service"],
        exports: &[],
        kind: "invoke",
        manifest: "grants.invoke = [\"<app>\"]",
        flag: "--grant 'invoke=<app>'",
    },
    Rule {
        imports: &["dhow:runtime/lock@", "env::proxy_try_lock"],
        exports: &[],
        kind: "lock",
        manifest: "grants.lock = [\"lockstore\"]",
        flag: "--grant lock=lockstore",
    },
    Rule {
        imports: &["dhow:runtime/secrets@", "env::proxy_get_secret"],
        exports: &[],
        kind: "secrets",
        manifest: "grants.secrets = [\"<component>/<secret>\"]",
        flag: "--grant 'secrets=<component>/<secret>'",
    },
    Rule {
        imports: &["dhow:runtime/configuration@"],
        exports: &[],
        kind: "configuration",
        manifest: "grants.configuration = [\"<component>\"]",
        flag: "--grant 'configuration=<component>'",
    },
    Rule {
        imports: &["dhow:runtime/binding@"],
        exports: &["dhow:runtime/binding-handler@"],
        kind: "bindings",
        manifest: "grants.bindings = [\"<component>\"]",
        flag: "--grant 'bindings=<component>'",
    },
    Rule {
        imports: &["dhow:runtime/jobs@"],
        exports: &["dhow:runtime/job-handler@"],
        kind: "jobs",
        manifest: "grants.jobs = [\"<job>\"]",
        flag: "--grant 'jobs=<job>'",
    },
    Rule {
        // Requests to the app's own Dapr endpoint, localhost:3500, need no grant of this kind.
        imports: &[
            "wasi:http/outgoing-handler@",
            "wasi:http/client@",
            "wasi:http/handler@",
            "wasi_experimental_http::req",
            "env::proxy_http_call",
            "env::proxy_dispatch_http_call",
        ],
        exports: &[],
        kind: "http",
        manifest: "grants.http = [\"<host>\"]",
        flag: "--allow-host '<host>'",
    },
    Rule {
        imports: &[
            "wasi:sockets/tcp",
            "wasi:sockets/udp",
            "wasi:sockets/types@",
            "wasi_snapshot_preview1::sock_connect",
            "wasi_snapshot_preview1::sock_send_to",
        ],
        exports: &[],
        kind: "connect",
        manifest: "grants.connect = [\"<host>:<port>\"]",
        flag: "--grant 'connect=<host>:<port>'",
    },
    Rule {
        imports: &[
            "wasi:sockets/tcp",
            "wasi:sockets/udp",
            "wasi:sockets/types@",
            "wasi_snapshot_preview1::sock_bind",
        ],
        exports: &[],
        kind: "listen",
        manifest: "grants.listen = [\"<address>:<port>\"]",
        flag: "--grant 'listen=<address>:<port>'",
    },
    Rule {
        imports: &["wasi:filesystem/preopens@", "wasi_snapshot_preview1::path_open"],
        exports: &[],
        kind: "dirs",
        manifest: "dirs = [{ host = \"<folder>\", guest = \"/<folder>\" }]",
        flag: "--dir '<folder>::/<folder>'",
    },
    Rule {
        imports: &["wasi:config/"],
        exports: &[],
        kind: "config",
        manifest: "config = { <name> = \"<value>\" }",
        flag: "--config-value '<name>=<value>'",
    },
];

// === impl Needs ===

impl Needs {
    pub(super) fn of(inspection: &Inspection) -> Needs {
        let grants = RULES.iter().filter_map(|rule| {
            let one_of = |names: &'_ [String], beginnings: &[&str]| {
                names
                    .iter()
                    .find(|name| beginnings.iter().any(|beginning| name.starts_with(beginning)))
                    .cloned()
            };
            let imported = one_of(&inspection.imports, rule.imports).map(|because| (because, "imports"));
            let shown = imported.or_else(|| Some((one_of(&inspection.exports, rule.exports)?, "exports")));
            let (because, how) = shown?;
            Some(Need { kind: rule.kind, because, how, manifest: rule.manifest, flag: rule.flag })
        });
        let not_provided = inspection.imports.iter().filter(|import| !is_provided(inspection, import));
        Needs { grants: grants.collect(), not_provided: not_provided.cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::Needs;
    use dhow_engine::inspect::inspect;

    #[test]
    fn imports_show_what_a_module_may_need() {
        let component = |import: &str| {
            format!(
                "(component (import {import:?} (instance)) (instance $i) (export \"wasi:cli/run@0.2.0\" (instance $i)))"
            )
        };
        let module = |name: &str| {
            format!("(module (import \"wasi_snapshot_preview1\" {name:?} (func)) (func (export \"_start\")))")
        };
        let handler = |export: &str| format!("(component (instance $i) (export {export:?} (instance $i)))");
        let cases: [(String, &[&str], bool); 29] = [
            (component("wasi:keyvalue/store@0.2.0-draft"), &["state"], true),
            (component("wasi:keyvalue/store@0.2.0-draft2"), &["state"], true),
            (component("wasi:keyvalue/store@0.2.0-draft3"), &["state"], false),
            (component("wasi:http/outgoing-handler@0.2.3"), &["http"], true),
            (component("wasi:http/types@0.2.3"), &[], true),
            (component("wasi:sockets/tcp@0.2.0"), &["connect", "listen"], true),
            (component("wasi:filesystem/preopens@0.2.0"), &["dirs"], true),
            (component("wasi:config/store@0.2.0-rc.1"), &["config"], true),
            (component("wasi:config/runtime@0.2.0-draft"), &["config"], true),
            (component("wasi:messaging/producer@0.2.0-draft"), &["publish"], true),
            (component("wasmcloud:messaging/consumer@0.2.0"), &["publish"], true),
            (component("wasmcloud:messaging/consumer@0.3.0"), &["publish"], false),
            (component("dhow:runtime/state@0.1.0"), &["state"], true),
            (component("dhow:runtime/jobs@0.1.0"), &["jobs"], true),
            (component("dhow:runtime/state@0.2.0"), &["state"], false),
            (handler("wasi:messaging/incoming-handler@0.2.0-draft"), &["subscribe"], true),
            (handler("wasmcloud:messaging/handler@0.2.0"), &["subscribe"], true),
            (handler("dhow:runtime/topic-handler@0.1.0"), &["subscribe"], true),
            (handler("dhow:runtime/job-handler@0.1.0"), &["jobs"], true),
            (handler("dhow:runtime/binding-handler@0.1.0"), &["bindings"], true),
            (component("wasi:nn/tensor@0.2.0-rc-2024-10-28"), &[], false),
            (component("wasi:clocks/monotonic-clock@0.3.0"), &[], false),
            (module("fd_write"), &[], true),
            (module("path_open"), &["dirs"], true),
            (module("sock_accept"), &[], true),
            (module("sock_open"), &[], true),
            (module("sock_connect"), &["connect"], true),
            (module("sock_bind_v2"), &["listen"], true),
            (module("sock_fly"), &[], false),
        ];
        for (text, kinds, provided) in cases {
            let wasm = dhow_engine::image::binary(text.as_bytes()).unwrap().into_owned();
            let needs = Needs::of(&inspect(&wasm).unwrap());
            let found: Vec<&str> = needs.grants.iter().map(|need| need.kind).collect();
            assert_eq!(found, kinds, "{text}");
            assert_eq!(needs.not_provided.is_empty(), provided, "{text}");
        }
    }
}
