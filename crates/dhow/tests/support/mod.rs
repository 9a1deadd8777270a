//! What the end-to-end tests share: starting the built program as a user does, and stopping it.
//!
//! [`Setting`] is a folder of its own with a manifest, resources and a state home; it starts a [`Host`]
//! (`dhow up`, `dhow run` of a service) or runs a command to its end. Everything that a test starts is
//! gone when it ends, however it ends. Compiled code is kept between runs in the target folder: a
//! JavaScript or Python guest compiles for many seconds.
//!
//! Guests come from `cargo xtask guests`; a missing one fails the test and says so.

pub(crate) mod app;
pub(crate) mod http;
pub(crate) mod program;

use http::{Client, Headers, Response};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};
use tempfile::TempDir;

/// Nothing that is waited for takes longer, compiling on a busy machine included.
const DEADLINE: Duration = Duration::from_secs(120);

/// A folder to work in.
pub(crate) struct Setting {
    dir: TempDir,
    env: Vec<(String, String)>,
}

/// A `dhow` process that serves.
pub(crate) struct Host {
    child: Child,
    /// Where the apps are.
    pub(crate) addr: SocketAddr,
    /// The Dapr API, if it is on.
    pub(crate) api: Option<SocketAddr>,
    /// Metrics and health, if they are on.
    pub(crate) management: Option<SocketAddr>,
    stderr: Arc<Mutex<Vec<String>>>,
}

/// A `dhow` process that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

/// Where the compiled guest of this name is.
pub(crate) fn guest(name: &str) -> PathBuf {
    guest_file(&format!("{name}.wasm"))
}

/// Where `cargo xtask guests` put this file.
pub(crate) fn guest_file(file: &str) -> PathBuf {
    let folder = env::var_os("DHOW_GUESTS").map(PathBuf::from);
    let target = Path::new(env!("CARGO_BIN_EXE_dhow")).ancestors().nth(2).map(|target| target.join("guests"));
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    let cache = cache.map(|cache| cache.join("dhow/target/guests"));
    let folders = [folder, target, cache].into_iter().flatten();
    let found = folders.map(|folder| folder.join(file)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("the guest {file} is missing: run cargo xtask guests"))
}

/// Asks again and again until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

// === impl Setting ===

impl Setting {
    pub(crate) fn new() -> Setting {
        let dir = tempfile::Builder::new().prefix("dhow-e2e-").tempdir().expect("a temporary folder");
        Setting { dir, env: Vec::new() }
    }

    /// With this manifest; `{name}` in the text becomes the path of the guest of that name, in quotes.
    pub(crate) fn with_manifest(text: &str) -> Setting {
        let setting = Setting::new();
        setting.manifest(text);
        setting
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Setting {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the manifest as an editor does: whole, in one step.
    pub(crate) fn manifest(&self, text: &str) {
        let mut filled = String::new();
        for (number, part) in text.split('`').enumerate() {
            match number % 2 {
                0 => filled.push_str(part),
                _ => filled.push_str(&format!("{:?}", guest(part).to_string_lossy())),
            }
        }
        self.file("dhow.toml", filled.as_bytes());
    }

    /// Writes or replaces a file, in one step.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("making a folder");
        let new = path.with_extension("new");
        fs::write(&new, bytes).expect("writing a file");
        fs::rename(&new, &path).expect("renaming a file");
        path
    }

    /// The program, in this folder.
    pub(crate) fn dhow(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dhow"));
        command
            .args(args)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("DHOW_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-cache"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "DHOW_ADDR",
            "DHOW_DATA_DIR",
            "DHOW_FUNCTIONS_TOKEN",
            "DHOW_LOG",
            "DHOW_LOG_FORMAT",
            "DHOW_REGISTRY",
            "DHOW_REGISTRY_ADDR",
            "RUST_LOG",
            "DAPR_API_TOKEN",
            "DHOW_ARTIFACTS_DIR",
            "DHOW_CA",
            "DHOW_INSECURE",
            "DHOW_OFFLINE",
            "DOCKER_CONFIG",
            "REGISTRY_AUTH_FILE",
            "XDG_CACHE_HOME",
            "OPA_URL",
            "DHOW_KEYS",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "no_proxy",
        ] {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with_input(args, b"")
    }

    /// The same, with this on standard input.
    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ended {
        let mut child = self.dhow(args).stdin(Stdio::piped()).spawn().expect("starting dhow");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // A program that does not read its input closes it, and that is no failure.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let out = read_all(child.stdout.take().expect("piped"));
        let err = read_all(child.stderr.take().expect("piped"));
        let status = wait(&mut child, &format!("dhow {}", args.join(" ")));
        writer.join().expect("writing");
        Ended { out: out.join().expect("reading"), err: err.join().expect("reading"), code: status.code() }
    }

    /// `dhow up`, ready to be asked.
    pub(crate) fn up(&self, args: &[&str]) -> Host {
        let ports =
            ["--addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0"];
        let args = [&["up"], args, &ports].concat();
        let mut host = Host::start(self.dhow(&args));
        host.api = Some(host.printed("Dapr API: http://"));
        host.management = Some(host.printed("metrics: http://"));
        host
    }

    /// `dhow registry serve` on a free port, ready to be asked; in the folder `registry` unless the arguments say where.
    #[allow(dead_code, reason = "for the tests of registries")]
    pub(crate) fn registry(&self, args: &[&str]) -> Host {
        let folder: &[&str] = if args.contains(&"--data-dir") { &[] } else { &["--data-dir", "registry"] };
        let args = [&["registry", "serve", "--addr", "127.0.0.1:0"], folder, args].concat();
        Host::start(self.dhow(&args))
    }

    /// The same with a certificate.
    #[allow(dead_code, reason = "for the tests of registries")]
    pub(crate) fn registry_with_tls(&self, args: &[&str]) -> Host {
        let args = [&["registry", "serve", "--addr", "127.0.0.1:0", "--data-dir", "registry"], args].concat();
        let mut host = Host::spawn(self.dhow(&args));
        host.addr = host.printed(" on https://");
        host
    }

    /// `dhow layotto` with a configuration that has functions and their management, ready to be asked.
    pub(crate) fn layotto(&self, args: &[&str]) -> Host {
        let mut host = Host::start(self.dhow(&[&["layotto"], args].concat()));
        host.management = Some(host.printed("management: http://"));
        host
    }

    /// `dhow run` beside a program on this port, ready to be asked.
    pub(crate) fn sidecar(&self, app_id: &str, app: Option<SocketAddr>, args: &[&str]) -> Host {
        let port = app.map(|app| app.port().to_string());
        let port: Vec<&str> = port.iter().flat_map(|port| ["--app-port", port]).collect();
        let mut host = Host::spawn(self.dhow(&[&["run", "--app-id", app_id], &port[..], args].concat()));
        host.api = Some(host.printed(": HTTP "));
        host.management = Some(host.printed(" metrics "));
        host
    }

    /// `dhow run` of the `dapr.yaml` in this folder; [`Host::api_of`] says where the apps find their API.
    pub(crate) fn sidecars(&self, args: &[&str]) -> Host {
        Host::spawn(self.dhow(&[&["run", "-f", "."], args].concat()))
    }

    /// `dhow up` with the management port only beside the apps'.
    pub(crate) fn up_fails(&self, args: &[&str]) -> Ended {
        let ports = ["--addr", "127.0.0.1:0", "--api-addr", "off", "--management-addr", "off"];
        let args = [&["up"], args, &ports].concat();
        self.run(&args)
    }

    /// `dhow run` of a service, ready to be asked.
    pub(crate) fn serve(&self, module: &Path, args: &[&str]) -> Host {
        let module = module.to_string_lossy();
        let args = [&["run", &module, "--addr", "127.0.0.1:0"], args].concat();
        Host::start(self.dhow(&args))
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("reading a pipe");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[track_caller]
fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waiting for dhow") {
            return status;
        }
        if since.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("{what} did not end within {DEADLINE:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

// === impl Host ===

impl Host {
    fn start(command: Command) -> Host {
        let mut host = Host::spawn(command);
        host.addr = host.printed(" on http://");
        host
    }

    /// The API of one of several apps.
    pub(crate) fn api_of(&mut self, app_id: &str) -> SocketAddr {
        self.printed(&format!("Dapr API of {app_id}: HTTP "))
    }

    fn spawn(mut command: Command) -> Host {
        // Results are for `Setting::run`; what a service prints to standard output is not looked at.
        let mut child = command.stdout(Stdio::null()).spawn().expect("starting dhow");
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("piped"));
        let kept = Arc::clone(&stderr);
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().expect("no panic while it is held").push(line);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Host { child, addr: nowhere, api: None, management: None, stderr }
    }

    /// The address behind this text in what the host printed.
    fn printed(&mut self, before: &str) -> SocketAddr {
        let line = self.line(|line| line.contains(before));
        let rest = line.split(before).nth(1).unwrap_or_default();
        let end = rest.find([' ', '/']).unwrap_or(rest.len());
        rest[..end].parse().unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The first line on standard error that is so; waits for it.
    #[track_caller]
    pub(crate) fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let stderr = Arc::clone(&self.stderr);
        let find =
            || stderr.lock().expect("no panic while it is held").iter().find(|line| wanted(line)).cloned();
        let child = &mut self.child;
        eventually("a line of the host", || {
            if let Some(line) = find() {
                return Some(line);
            }
            let ended = child.try_wait().expect("waiting for dhow");
            // What it said last may be read after its end was seen.
            let line = ended.and_then(|_| eventually_short(&find));
            assert!(
                ended.is_none() || line.is_some(),
                "{ended:?}: {:#?}",
                stderr.lock().map(|lines| lines.join("\n"))
            );
            line
        })
    }

    /// Everything on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().expect("no panic while it is held").join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        http::get(self.addr, target)
    }

    pub(crate) fn send(&self, method: &str, target: &str, headers: Headers<'_>, body: &[u8]) -> Response {
        http::send(self.addr, method, target, headers, body)
    }

    /// One request to the Dapr API.
    pub(crate) fn dapr(&self, method: &str, target: &str, headers: Headers<'_>, body: &str) -> Response {
        http::send(self.api.expect("the Dapr API is on"), method, target, headers, body.as_bytes())
    }

    /// A metric's value; 0 when it is not there.
    pub(crate) fn metric(&self, name: &str, app_id: &str) -> f64 {
        let text = http::get(self.management.expect("management is on"), "/metrics").text();
        let line = format!("{name}{{app_id=\"{app_id}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0.0)
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: `kill` takes plain numbers, and the child is not reaped before `wait`, so its id is its own.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "signal {signal}");
    }

    /// SIGTERM, and the exit code must be 0. The answer is what it said.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let code = self.wait().code();
        let said = self.stderr();
        assert_eq!(code, Some(0), "{said}");
        // What a guest prints stands behind a time and a name.
        assert!(!said.lines().any(|line| line.starts_with("thread '")), "the host panicked: {said}");
        said
    }

    /// Waits for the end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child, "dhow")
    }

    /// Ends it as a power failure does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killing dhow");
        self.wait();
    }
}

/// A last look, as long as a reader thread may need to catch up.
fn eventually_short<T>(ask: &impl Fn() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || since.elapsed() > Duration::from_millis(500) {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the host said:\n{}\n---", self.stderr());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
