//! The program beside a sidecar: its environment, its output, its signals, its exit code.

use super::ports::Ports;
use crate::{Error, serve};
use dhow_resources::multi_app::{App, AppProtocol, LogDestination};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// Longest line of output that is kept together, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// What a program left behind when it ended has this long to end.
const LEFT_BEHIND: Duration = Duration::from_secs(5);

/// Between two looks at the program's processes: nothing tells when the last one of a group ends.
const POLL: Duration = Duration::from_millis(20);

/// A program that runs. Dropped, it is killed.
pub(super) struct Program {
    child: Child,
    /// The program and all that it starts.
    group: Group,
    output: Vec<JoinHandle<()>>,
}

/// The processes of a group, which has the number of the one that began it.
struct Group {
    number: Option<libc::pid_t>,
    /// They were told to end. Many programs take a second time for impatience.
    is_told: bool,
}

/// Where a program's output goes.
struct Log {
    /// Stands before each line on the console; `None` where nothing goes there.
    label: Option<String>,
    file: Option<File>,
}

// === impl Program ===

impl Program {
    /// Starts the program, if there is one.
    pub(super) fn start(spec: &App, ports: &Ports, label: &str) -> Result<Option<Program>, Error> {
        let Some((name, args)) = spec.command.split_first() else { return Ok(None) };
        let mut command = Command::new(name);
        command.args(args).current_dir(&spec.app_dir).envs(environment(spec, ports)).envs(&spec.env);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // Shells, package managers and watchers start the program proper: what ends one of them has to end all. The
        // terminal's Ctrl-C goes to the host alone, which tells the group; to read the terminal would stop it.
        command.process_group(0);
        serve::with_few_files(&mut command);
        if std::io::stdin().is_terminal() {
            command.stdin(Stdio::null());
        }
        let mut child = command.spawn().map_err(|error| {
            let advice = match error.kind() {
                std::io::ErrorKind::NotFound => "; is it installed, and in PATH?",
                _ => "",
            };
            Error::before_guest(format!("cannot start {name:?}: {error}{advice}"))
        })?;
        let number = child.id().and_then(|id| libc::pid_t::try_from(id).ok());
        let group = Group { number, is_told: false };
        let log = Arc::new(Log::open(spec, label)?);
        let mut output = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            output.push(tokio::spawn(pass_on(stdout, Arc::clone(&log))));
        }
        if let Some(stderr) = child.stderr.take() {
            output.push(tokio::spawn(pass_on(stderr, log)));
        }
        Ok(Some(Program { child, group, output }))
    }

    /// Waits for its end; the answer is its exit code.
    pub(super) async fn ended(&mut self) -> i32 {
        let status = self.child.wait().await;
        self.group.end().await;
        for output in self.output.drain(..) {
            // A grandchild may hold the pipe open for ever.
            let _ = tokio::time::timeout(Duration::from_secs(1), output).await;
        }
        use std::os::unix::process::ExitStatusExt;
        match status {
            // As shells count the signals that ended a program.
            Ok(status) => status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1),
            Err(_) => 1,
        }
    }

    /// Asks it to end, and kills it if it does not within `grace`.
    pub(super) async fn end(&mut self, grace: Duration) -> i32 {
        self.group.tell();
        match tokio::time::timeout(grace, self.ended()).await {
            // It did what it was told.
            Ok(code) if code == 128 + libc::SIGTERM || code == 128 + libc::SIGINT => 0,
            Ok(code) => code,
            Err(_) => {
                tracing::warn!("the program did not end within {grace:?} and is killed");
                self.kill().await
            }
        }
    }

    /// Ends it at once.
    pub(super) async fn kill(&mut self) -> i32 {
        self.group.kill();
        self.ended().await
    }
}

// === impl Group ===

impl Group {
    /// Sends a signal to all; `0` only asks. Whether there is anybody.
    fn signal(&self, signal: libc::c_int) -> bool {
        // SAFETY: takes two integers. The number stays the group's until its last process is gone, and numbers go
        // round before one is used again.
        self.number.is_some_and(|number| unsafe { libc::kill(-number, signal) } == 0)
    }

    /// Asks all to end.
    fn tell(&mut self) {
        if !std::mem::replace(&mut self.is_told, true) {
            self.signal(libc::SIGTERM);
        }
    }

    fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.number = None;
    }

    /// The program is over: what it left behind is to end, too, and killed if it does not.
    async fn end(&mut self) {
        self.tell();
        let gone = async {
            while self.signal(0) {
                tokio::time::sleep(POLL).await;
            }
        };
        let _ = tokio::time::timeout(LEFT_BEHIND, gone).await;
        self.kill();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Dapr's name of a protocol.
pub(super) fn protocol(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Http => "http",
        AppProtocol::Https => "https",
        AppProtocol::Grpc => "grpc",
        AppProtocol::Grpcs => "grpcs",
        AppProtocol::H2c => "h2c",
    }
}

/// What Dapr tells a program.
fn environment(spec: &App, ports: &Ports) -> Vec<(&'static str, String)> {
    let mut variables = vec![("APP_ID", spec.app_id.clone())];
    if let Some(port) = spec.app_port {
        variables.push(("APP_PORT", port.to_string()));
        variables.push(("APP_PROTOCOL", protocol(spec.app_protocol).to_owned()));
    }
    let address = spec.app_channel_address.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
    variables.push(("APP_CHANNEL_ADDRESS", address));
    let numbers = [
        ("DAPR_HTTP_PORT", ports.http),
        ("DAPR_GRPC_PORT", ports.grpc),
        ("DAPR_METRICS_PORT", ports.metrics),
    ];
    for (name, address) in numbers {
        if let Some(address) = address {
            variables.push((name, address.port().to_string()));
        }
    }
    variables
}

// === impl Log ===

impl Log {
    fn open(spec: &App, label: &str) -> Result<Log, Error> {
        let (console, file) = match spec.app_log {
            LogDestination::Console => (true, false),
            LogDestination::File => (false, true),
            LogDestination::FileAndConsole => (true, true),
        };
        let file = file.then(|| log_file(spec)).transpose()?;
        Ok(Log { label: console.then(|| label.to_owned()), file })
    }

    fn write(&self, line: &[u8]) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let whole = |label: &str| [label.as_bytes(), text, b"\n"].concat();
        // One write a line, so that lines of several programs do not mix.
        if let Some(label) = &self.label {
            let _ = std::io::stdout().lock().write_all(&whole(label));
        }
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.write_all(&whole(""));
        }
    }
}

/// A new file in `.dapr/logs` below the program's folder, named as Dapr names it.
fn log_file(spec: &App) -> Result<File, Error> {
    let folder = spec.app_dir.join(".dapr/logs");
    let now = jiff::Zoned::now().strftime("%Y%m%d%H%M%S");
    let path = folder.join(format!("{}_app_{now}.log", spec.app_id));
    let opened =
        std::fs::create_dir_all(&folder).and_then(|()| File::options().create(true).append(true).open(&path));
    opened.map_err(|error| {
        let advice = "appLogDestination: console needs no file";
        Error::before_guest(format!("{}: {error}; {advice}", path.display()))
    })
}

/// Passes on what the program prints, line by line.
async fn pass_on(stream: impl AsyncRead + Unpin, log: Arc<Log>) {
    use tokio::io::AsyncReadExt;
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        log.write(&line);
    }
}
