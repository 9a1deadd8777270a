//! The documentation, executed: README.md and every page of `docs/` is run from top to bottom as its reader
//! would, with the built `dhow`, in a folder and a home of its own.
//!
//! What a block is for stands behind its language, where a reader of the rendered page does not see it:
//!
//! | block | meaning |
//! |---|---|
//! | `sh run`, `sh run exit=1` | executed; fails the test unless it ends with that code (0) |
//! | `sh serve` | started, and left running until the next one or the end of the page |
//! | `text expect` | lines that the block before it printed, in this order; `…` stands for anything |
//! | `text log` | the same of the running server; waited for |
//! | `… file=PATH` | written to that file |
//! | `… no-run REASON` | not executed, for that reason |
//!
//! The usual ports may be taken on the machine that runs the tests: a server gets free ones, and the usual
//! addresses in later blocks stand for them. Modules come from the folder `DHOW_GUESTS` (`cargo xtask guests`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use dhow_guest::Bounds;
use dhow_host::prepare::DEFAULT_ADMISSION;
use dhow_resources::manifest::HostConfig;
use dhow_resources::units::{parse_duration, parse_size};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Compiling the largest modules of a page takes this long on a slow machine without a cache.
const PATIENCE: Duration = Duration::from_secs(300);

/// Addresses as the pages write them, each with what a server prints before its own: a registry; apps, Dapr API,
/// metrics; functions, their management and actuator; Argo's plugin.
const USUAL: [(&str, &str); 8] = [
    // First: what a registry prints is also what the next one looks for.
    ("127.0.0.1:5000", "registry on http://"),
    ("127.0.0.1:8080", "on http://"),
    ("127.0.0.1:3500", "Dapr API: http://"),
    ("127.0.0.1:9090", "metrics: http://"),
    ("127.0.0.1:2045", "up on http://"),
    ("127.0.0.1:34998", "management: http://"),
    ("127.0.0.1:34999", "actuator: http://"),
    ("127.0.0.1:17777", "plugin on http://"),
];

/// Backends that a page may need, by the port that it writes. The test starts its own.
const BACKENDS: [(u16, Start); 6] = [
    (1883, dhow_servers::mosquitto),
    (4222, dhow_servers::nats),
    (5000, dhow_servers::docker_registry),
    (5672, dhow_servers::rabbitmq),
    (6379, dhow_servers::redis),
    (BUCKETS, dhow_servers::moto),
];

/// The usual port of MinIO, which a page may speak of beside a registry of dhow's own at 5000.
const BUCKETS: u16 = 9000;

type Start = fn() -> Result<dhow_servers::Process, dhow_servers::StartError>;

/// One test for each page; `every_page_is_run` sees to it that none is missing.
macro_rules! pages {
    ($($test:ident: $page:literal,)+) => {
        const PAGES: &[&str] = &[$($page),+];
        $(#[test] fn $test() { run($page); })+
    };
}

pages! {
    readme: "README.md",
    add_a_provider: "docs/add-a-provider.md",
    benchmarks: "docs/benchmarks.md",
    call_another_app: "docs/call-another-app.md",
    cgi_apps: "docs/cgi-apps.md",
    change_components_at_run_time: "docs/change-components-at-run-time.md",
    coming_from_dapr: "docs/coming-from-dapr.md",
    configure_an_app: "docs/configure-an-app.md",
    debug_failures: "docs/debug-failures.md",
    enforce_claims: "docs/enforce-claims.md",
    get_started: "docs/get-started.md",
    http_requests_out: "docs/http-requests-out.md",
    index: "docs/README.md",
    keep_state: "docs/keep-state.md",
    limits: "docs/limits.md",
    live_reload: "docs/live-reload.md",
    logs_and_metrics: "docs/logs-and-metrics.md",
    manifest: "docs/manifest.md",
    many_apps: "docs/many-apps.md",
    observe_with_opentelemetry: "docs/observe-with-opentelemetry.md",
    proxy_wasm: "docs/proxy-wasm.md",
    restrict_the_api: "docs/restrict-the-api.md",
    run_a_module: "docs/run-a-module.md",
    run_a_registry: "docs/run-a-registry.md",
    run_layotto_functions: "docs/run-layotto-functions.md",
    run_services: "docs/run-services.md",
    run_wapc_modules: "docs/run-wapc-modules.md",
    run_steps_in_argo: "docs/run-steps-in-argo.md",
    run_workflows: "docs/run-workflows.md",
    run_wasi_experimental_http: "docs/run-wasi-experimental-http.md",
    schedule_work: "docs/schedule-work.md",
    sign_modules: "docs/sign-modules.md",
    spread_steps_over_machines: "docs/spread-steps-over-machines.md",
    update_without_downtime: "docs/update-without-downtime.md",
    use_an_sdk: "docs/use-an-sdk.md",
    use_bindings: "docs/use-bindings.md",
    use_mqtt: "docs/use-mqtt.md",
    use_mysql: "docs/use-mysql.md",
    use_nats: "docs/use-nats.md",
    use_postgresql: "docs/use-postgresql.md",
    use_rabbitmq: "docs/use-rabbitmq.md",
    use_redis: "docs/use-redis.md",
    use_registries: "docs/use-registries.md",
    use_secrets: "docs/use-secrets.md",
    use_the_layotto_api: "docs/use-the-layotto-api.md",
    write_policies: "docs/write-policies.md",
    wit_interfaces: "docs/wit-interfaces.md",
    write_a_component: "docs/write-a-component.md",
}

/// A fenced block of a page.
struct Block {
    /// `page:line` of its fence.
    at: String,
    language: String,
    /// What stands behind the language.
    mark: String,
    text: String,
}

/// A page while it is executed.
struct Page {
    folder: TempDir,
    server: Option<Server>,
    /// What the addresses in [`USUAL`] stand for.
    addresses: [String; USUAL.len()],
    /// The backends, with the usual port that the page writes.
    backends: Vec<(u16, dhow_servers::Process)>,
    /// Where the last executed block stands, and what it printed.
    printed: (String, String),
}

/// What a `sh serve` block started; killed when dropped.
struct Server {
    child: Child,
    lines: Receiver<String>,
    seen: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn run(name: &str) {
    let text = fs::read_to_string(root().join(name)).unwrap();
    let mut page = Page::open(&text);
    for block in blocks(name, &text) {
        page.execute(&block);
    }
}

fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
                let (language, mark) = (language.to_owned(), mark.trim().to_owned());
                open =
                    Some(Block { at: format!("{page}:{}", index + 1), language, mark, text: String::new() });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: the last block is not closed");
    blocks
}

// === impl Page ===

impl Page {
    /// A folder with the modules and examples that the page speaks of.
    fn open(text: &str) -> Page {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        let needed = BACKENDS.iter().filter(|(port, _)| {
            let what = if *port == BUCKETS { "buckets" } else { "a server" };
            text.contains(&format!("no-run needs {what} of its own"))
                && text.contains(&format!("127.0.0.1:{port}"))
        });
        let backends: Vec<_> = needed.map(|(port, start)| (*port, start().unwrap())).collect();
        let address = |usual: &str| {
            let backend = backends.iter().find(|(port, _)| usual == format!("127.0.0.1:{port}"));
            backend.map_or(usual.to_owned(), |(_, server)| server.address())
        };
        let page = Page {
            addresses: USUAL.map(|(usual, _)| address(usual)),
            backends,
            folder,
            server: None,
            printed: (String::new(), String::new()),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let words: BTreeSet<&str> = text.split(|c: char| !is_name(c) && c != '.').collect();
        if words.iter().any(|word| word.ends_with(".wasm")) || text.contains("examples/") {
            let guests = std::env::var_os("DHOW_GUESTS").map(PathBuf::from);
            let guests = guests
                .unwrap_or_else(|| panic!("DHOW_GUESTS is not set; start the tests with `cargo xtask test`"));
            for entry in fs::read_dir(&guests).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if words.contains(name.as_str()) {
                    fs::copy(guests.join(&name), page.path(&name)).unwrap();
                }
            }
            for example in fs::read_dir(root().join("examples")).unwrap() {
                let name = example.unwrap().file_name().into_string().unwrap();
                if text.contains(&format!("examples/{name}")) {
                    page.copy_example(&name, &guests);
                }
            }
        }
        page
    }

    /// The files that an example needs at run time, and its modules where its build would put them.
    fn copy_example(&self, name: &str, guests: &Path) {
        let (from, to) = (root().join("examples").join(name), self.path("examples").join(name));
        for part in ["", "resources", "data"].iter().filter(|part| from.join(part).is_dir()) {
            fs::create_dir_all(to.join(part)).unwrap();
            for entry in fs::read_dir(from.join(part)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    fs::copy(entry.path(), to.join(part).join(entry.file_name())).unwrap();
                }
            }
        }
        fs::create_dir_all(to.join("build")).unwrap();
        for entry in fs::read_dir(guests).unwrap() {
            let module = entry.unwrap().file_name().into_string().unwrap();
            if let Some(app) = module.strip_prefix(&format!("{name}-")) {
                fs::copy(guests.join(&module), to.join("build").join(app)).unwrap();
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn execute(&mut self, block: &Block) {
        let Block { at, language, mark, text } = block;
        let (first, rest) = mark.split_once(' ').unwrap_or((mark, ""));
        match (language.as_str(), first) {
            (_, "no-run") => assert!(!rest.is_empty(), "{at}: no-run needs a reason"),
            (_, file) if file.starts_with("file=") => {
                let path = self.path(&file["file=".len()..]);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                // A configuration of Layotto has its addresses in it.
                let text = ["127.0.0.1:2045", "127.0.0.1:34998", "127.0.0.1:34999", "127.0.0.1:34904"]
                    .iter()
                    .fold(self.with_backends(text), |text, address| match first.ends_with(".json") {
                        true => text.replace(address, "127.0.0.1:0"),
                        false => text,
                    });
                fs::write(path, text).unwrap();
            }
            ("sh", "run") => {
                let code = rest.strip_prefix("exit=").map_or(0, |code| code.parse().unwrap());
                self.run(at, text, code);
            }
            ("sh", "serve") => self.serve(at, text),
            ("text", "expect") => {
                let (of, printed) = &self.printed;
                if let Err(line) = in_order(text, printed) {
                    panic!("{at}: {line:?} is not in what {of} printed:\n{printed}");
                }
            }
            ("text", "log") => {
                let server = self.server.as_mut().unwrap_or_else(|| panic!("{at}: no server is running"));
                server.wait_for(at, |seen| in_order(text, seen).is_ok());
            }
            ("sh" | "toml" | "yaml", _) => {
                panic!("{at}: what is this block for? Mark it run, serve, file=PATH or no-run REASON")
            }
            _ => {}
        }
    }

    fn run(&mut self, at: &str, script: &str, code: i32) {
        let output = self.shell(script).output().unwrap();
        let printed = self.documented(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{at} ended with another exit code and printed:\n{printed}"
        );
        self.printed = (at.to_owned(), printed);
    }

    fn serve(&mut self, at: &str, script: &str) {
        self.server = None;
        let mut child = self.shell(script).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut server = Server { child, lines, seen: String::new() };
        // `up` and `layotto` tell their last address last; `run` has only one.
        let configuration = fs::read_to_string(self.path("config.json")).unwrap_or_default();
        let has_actuator = configuration.contains("actuator_filter");
        let last = match script {
            script if script.contains("dhow up") => "metrics: http://",
            script if script.contains("dhow layotto") && has_actuator => "actuator: http://",
            script if script.contains("dhow layotto") => "management: http://",
            script if script.contains("workflow worker") => "takes steps",
            _ => "on http://",
        };
        server.wait_for(at, |seen| seen.contains(last));
        for (address, (_, before)) in self.addresses.iter_mut().zip(USUAL) {
            if let Some((_, rest)) = server.seen.split_once(before) {
                *address = rest.split(['/', ' ', '\n']).next().unwrap().to_owned();
            }
        }
        self.printed = (at.to_owned(), self.documented(&server.seen));
        self.server = Some(server);
    }

    /// The text with the ports of the page's own backends.
    fn with_backends(&self, text: &str) -> String {
        self.backends.iter().fold(text.to_owned(), |text, (usual, server)| {
            let port = server.port();
            text.replace(&format!("127.0.0.1:{usual}"), &format!("127.0.0.1:{port}"))
                .replace(&format!("-p {usual}"), &format!("-p {port}"))
        })
    }

    /// A shell in the page's folder, in which the usual addresses stand for those of the page's server.
    fn shell(&self, script: &str) -> Command {
        // In two steps, since an address of the page's server may begin like a usual one.
        let place = |index: usize| format!("<address {index}>");
        let usual = USUAL.iter().enumerate();
        let script =
            usual.fold(script.to_owned(), |script, (index, (usual, _))| script.replace(usual, &place(index)));
        let addresses = self.addresses.iter().enumerate();
        let mut script = addresses.fold(self.with_backends(&script), |script, (index, address)| {
            script.replace(&place(index), address)
        });
        if !script.contains("--api-addr") {
            let up = "dhow up --api-addr 127.0.0.1:0 --management-addr 127.0.0.1:0";
            script = script.replace("dhow up", up).replace(&format!("{up}date"), "dhow update");
        }
        let program = Path::new(env!("CARGO_BIN_EXE_dhow")).parent().unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let path = std::env::join_paths([program.to_owned()].into_iter().chain(std::env::split_paths(&path)))
            .unwrap();
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &format!("exec 2>&1\n{script}")])
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        for variable in [
            "DHOW_LOG",
            "RUST_LOG",
            "DHOW_DATA_DIR",
            "DAPR_API_TOKEN",
            "DHOW_FUNCTIONS_TOKEN",
            "DHOW_KEYS",
            "RUST_BACKTRACE",
            "http_proxy",
            "XDG_CACHE_HOME",
            "XDG_CONFIG_HOME",
        ] {
            shell.env_remove(variable);
        }
        shell.env("PATH", path).env("HOME", self.path("home")).env("XDG_STATE_HOME", self.path("home/state"));
        // Pages share compiled code, as all processes of a user do.
        shell.env("DHOW_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("docs-compiled"));
        shell.env("DHOW_ADDR", "127.0.0.1:0").env("NO_PROXY", "127.0.0.1,localhost");
        shell.env("DHOW_REGISTRY_ADDR", "127.0.0.1:0").env("DHOW_PLUGIN_ADDR", "127.0.0.1:0");
        shell.env("DHOW_REGISTRY", format!("http://{}", self.addresses[0]));
        shell
    }

    /// Output with the addresses that the pages write.
    fn documented(&self, output: &str) -> String {
        let of_backends = |text: String, (usual, server): &(u16, dhow_servers::Process)| {
            text.replace(&server.address(), &format!("127.0.0.1:{usual}"))
        };
        USUAL
            .iter()
            .zip(&self.addresses)
            .map(|((usual, _), address)| (usual, address))
            .fold(self.backends.iter().fold(output.to_owned(), of_backends), |text, (usual, address)| {
                text.replace(address, usual)
            })
    }
}

// === impl Server ===

impl Server {
    /// Reads what the server prints until the condition holds.
    fn wait_for(&mut self, at: &str, found: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !found(&self.seen) {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push_str(&format!("{line}\n")),
                Err(error) => panic!("{at}: {error}; the server printed:\n{}", self.seen),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The whole group: the shell, and dhow if the shell did not become it.
        let kill = format!("kill -s KILL -- -{}", self.child.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        // The shell may be gone before the server below it: its folder is free when its output is closed.
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
    }
}

/// Whether all lines are part of what was printed, in order; else the first that is not.
fn in_order<'a>(expected: &'a str, printed: &str) -> Result<(), &'a str> {
    let mut rest = printed;
    expected.lines().filter(|line| !line.trim().is_empty()).try_for_each(|pattern| {
        let after = rest.lines().find_map(|line| after(line, pattern)).ok_or(pattern)?;
        // `after` is a piece of `rest`: what follows is searched from there, in the same line first.
        rest = &rest[after.as_ptr().addr() - rest.as_ptr().addr()..];
        Ok(())
    })
}

/// What stands in the line behind the pattern.
fn after<'a>(line: &'a str, pattern: &str) -> Option<&'a str> {
    pattern.split('…').try_fold(line, |rest, part| Some(rest.split_once(part.trim())?.1))
}

#[test]
fn lines_are_expected_in_order_and_in_part() {
    let printed = "one 1\ntwo 2\nthree 3\n";
    for (expected, missing) in [
        ("one\nthree", None),
        ("t…o 2\n\nthree", None),
        ("one\n1", None),
        ("three\none", Some("one")),
        ("one 1\none 1", Some("one 1")),
        ("2 … two", Some("2 … two")),
        ("one … two", Some("one … two")),
    ] {
        assert_eq!(in_order(expected, printed).err(), missing, "{expected:?}");
    }
}

#[test]
fn every_page_is_run() {
    let pages = fs::read_dir(root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut pages: BTreeSet<String> =
        pages.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    pages.insert("README.md".to_owned());
    assert_eq!(pages, PAGES.iter().map(|page| (*page).to_owned()).collect());
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for page in pages.iter().filter_map(|page| page.strip_prefix("docs/")).filter(|page| *page != "README.md")
    {
        assert!(index.contains(&format!("({page})")), "docs/README.md does not lead to {page}");
    }
}

#[test]
fn links_between_files_lead_somewhere() {
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
    let mut broken = Vec::new();
    for page in PAGES.iter().chain(&others) {
        let file = root().join(page);
        let text = fs::read_to_string(&file).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap();
            if !target.contains("://") && !path.is_empty() && !file.parent().unwrap().join(path).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// The cells of the table row in docs/manifest.md that begins with this field.
fn row<'a>(page: &'a str, section: &str, field: &str) -> Vec<&'a str> {
    let (_, rest) =
        page.split_once(&format!("\n## `{section}`")).unwrap_or_else(|| panic!("no section {section}"));
    let rest = rest.split("\n## ").next().unwrap();
    let rows: Vec<&str> = rest.lines().filter(|line| line.starts_with(&format!("| `{field}` |"))).collect();
    let [row] = rows[..] else { panic!("{section}: {} rows for {field}", rows.len()) };
    row.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn every_field_of_a_manifest_has_one_place() {
    let page = fs::read_to_string(root().join("docs/manifest.md")).unwrap();
    let full = root().join("crates/resources/tests/data/full.toml");
    let mut section = String::new();
    for line in fs::read_to_string(full).unwrap().lines() {
        if line.starts_with("[[") {
            // The fields of a list stand in the row of the list.
            section = String::new();
        } else if let Some(name) = line.strip_prefix('[') {
            let parts: Vec<&str> = name.trim_end_matches(']').split('.').collect();
            section = match parts[..] {
                ["host"] => "[host]".to_owned(),
                ["trust"] => "[trust]".to_owned(),
                ["defaults", "limits"] => "[apps.<id>.limits]".to_owned(),
                ["apps", _, part] if part != "x\"" => format!("[apps.<id>.{part}]"),
                _ => "[apps.<id>]".to_owned(),
            };
        } else if let Some((field, _)) = line.split_once(" = ").filter(|_| !section.is_empty()) {
            row(&page, &section, field);
        }
    }
}

#[test]
fn documented_defaults_are_those_of_the_code() {
    let page = fs::read_to_string(root().join("docs/manifest.md")).unwrap();
    let default = |section: &str, field: &str| {
        row(&page, section, field)[1].trim_matches('`').trim_matches('"').to_owned()
    };
    let (bounds, host) = (Bounds::default(), HostConfig::new(Path::new("")));
    let limit = |field: &str| default("[apps.<id>.limits]", field);
    let count = |field: &str| limit(field).parse::<usize>().unwrap();
    assert_eq!(parse_size(&limit("memory")), Ok(bounds.engine.memory as u64));
    assert_eq!(parse_duration(&limit("timeout")), Ok(bounds.deadline));
    assert_eq!(parse_size(&limit("request_body")), Ok(bounds.request_body));
    assert_eq!(parse_size(&limit("response_body")), Ok(bounds.response_body));
    assert_eq!((count("concurrency"), count("queue")), (DEFAULT_ADMISSION.running, DEFAULT_ADMISSION.queued));
    assert_eq!(
        (count("tables"), count("instances")),
        (bounds.engine.table_elements, bounds.engine.instances)
    );
    assert_eq!((count("host_calls"), count("handles")), (bounds.host_calls, bounds.handles));
    assert_eq!(default("[host]", "addr"), host.addr.to_string());
    assert_eq!(Some(default("[host]", "api_addr")), host.api_addr.map(|addr| addr.to_string()));
    assert_eq!(Some(default("[host]", "management_addr")), host.management_addr.map(|addr| addr.to_string()));
    assert_eq!(Path::new(&default("[host]", "data_dir")), host.data_dir);
}
