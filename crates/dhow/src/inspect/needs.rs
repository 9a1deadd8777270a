//! What a module may need, as its imports show it: grants, and interfaces that dhow does not have.

use dhow_engine::Inspection;
use dhow_guest::is_provided;

/// Conclusions from the imports.
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
    /// The import that shows it.
    pub(super) because: String,
    /// The line of a manifest; `<…>` is for the user to fill in.
    pub(super) manifest: &'static str,
    /// The flag of `dhow run`.
    pub(super) flag: &'static str,
}

/// What an import with this beginning needs.
struct Rule {
    imports: &'static [&'static str],
    kind: &'static str,
    manifest: &'static str,
    flag: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        imports: &["wasi:keyvalue/"],
        kind: "state",
        manifest: "grants.state = [\"statestore\"]",
        flag: "--grant state=statestore",
    },
    Rule {
        // Requests to the app's own Dapr endpoint, localhost:3500, need no grant of this kind.
        imports: &["wasi:http/outgoing-handler@", "wasi:http/client@", "wasi:http/handler@"],
        kind: "http",
        manifest: "grants.http = [\"<host>\"]",
        flag: "--allow-host '<host>'",
    },
    Rule {
        imports: &["wasi:sockets/tcp", "wasi:sockets/udp", "wasi:sockets/types@"],
        kind: "connect",
        manifest: "grants.connect = [\"<host>:<port>\"]",
        flag: "--grant 'connect=<host>:<port>'",
    },
    Rule {
        imports: &["wasi:sockets/tcp", "wasi:sockets/udp", "wasi:sockets/types@"],
        kind: "listen",
        manifest: "grants.listen = [\"<address>:<port>\"]",
        flag: "--grant 'listen=<address>:<port>'",
    },
    Rule {
        imports: &["wasi:filesystem/preopens@", "wasi_snapshot_preview1::path_open"],
        kind: "dirs",
        manifest: "dirs = [{ host = \"<folder>\", guest = \"/<folder>\" }]",
        flag: "--dir '<folder>::/<folder>'",
    },
    Rule {
        imports: &["wasi:config/"],
        kind: "config",
        manifest: "config = { <name> = \"<value>\" }",
        flag: "--config '<name>=<value>'",
    },
];

// === impl Needs ===

impl Needs {
    pub(super) fn of(inspection: &Inspection) -> Needs {
        let grants = RULES.iter().filter_map(|rule| {
            let needs = |import: &&String| rule.imports.iter().any(|beginning| import.starts_with(beginning));
            let because = inspection.imports.iter().find(needs)?.clone();
            Some(Need { kind: rule.kind, because, manifest: rule.manifest, flag: rule.flag })
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
        let cases: [(String, &[&str], bool); 13] = [
            (component("wasi:keyvalue/store@0.2.0-draft"), &["state"], true),
            (component("wasi:keyvalue/store@0.2.0-draft2"), &["state"], false),
            (component("wasi:http/outgoing-handler@0.2.3"), &["http"], true),
            (component("wasi:http/types@0.2.3"), &[], true),
            (component("wasi:sockets/tcp@0.2.0"), &["connect", "listen"], true),
            (component("wasi:filesystem/preopens@0.2.0"), &["dirs"], true),
            (component("wasi:config/store@0.2.0-rc.1"), &["config"], true),
            (component("wasi:nn/tensor@0.2.0-rc-2024-10-28"), &[], false),
            (component("wasi:clocks/monotonic-clock@0.3.0"), &[], false),
            (module("fd_write"), &[], true),
            (module("path_open"), &["dirs"], true),
            (module("sock_accept"), &[], true),
            (module("sock_open"), &[], false),
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
