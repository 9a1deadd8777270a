//! A server process: started, waited for, killed, started again.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server has this long until its port answers.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A server has this long to end by itself.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// The user that owns nothing.
const NOBODY: u32 = 65534;

/// What servers listen on; Linux gives clients ports from 32768 on.
const PORTS: Range<u16> = 22000..32000;

/// Between two looks at a port: nothing tells when a foreign server listens.
const POLL: Duration = Duration::from_millis(20);

/// A server on loopback. Dropping it kills the process and removes its folder.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    port: u16,
    folder: TempDir,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    user: Option<u32>,
    child: Option<Child>,
    /// Processes that it cannot do without; they live as long.
    helpers: Vec<Process>,
}

/// Why a server is not there.
#[derive(Debug)]
pub struct StartError(String);

impl Process {
    /// Prepares a server: finds its program (also where Debian keeps what is not for users), and gives it a
    /// free port and an empty folder. Nothing runs yet.
    pub fn prepare(name: &'static str, programs: &[&str], package: &str) -> Result<Process, StartError> {
        let Some(program) = programs.iter().find_map(|program| find(program)) else {
            return Err(StartError(format!(
                "{} is not installed; `cargo xtask setup` installs the Debian package {package}",
                programs.join(" or ")
            )));
        };
        let failed = |error: io::Error| io_failed(name, &error);
        Ok(Process {
            name,
            port: free_port().map_err(failed)?,
            folder: tempfile::Builder::new().prefix("dhow-").tempdir().map_err(failed)?,
            program,
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            child: None,
            helpers: Vec::new(),
        })
    }

    /// The arguments it is started with.
    pub fn args<A: Into<OsString>>(&mut self, args: impl IntoIterator<Item = A>) {
        self.args = args.into_iter().map(Into::into).collect();
    }

    /// Runs another program in its place, which is where `prepare` was told that its package is.
    pub(crate) fn run_with(&mut self, program: &str) {
        self.program = PathBuf::from(program);
    }

    /// A variable of its environment.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.into(), value.into()));
    }

    /// Another process, started before, that has to live as long as this one.
    pub(crate) fn helped_by(&mut self, helper: Process) {
        self.helpers.push(helper);
    }

    /// Some servers refuse to run as root: where the tests do, this one and what prepares its folder run as
    /// `nobody`, whose the folder becomes.
    pub fn never_as_root(&mut self) -> Result<(), StartError> {
        // SAFETY: geteuid has no preconditions and cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Ok(());
        }
        self.user = Some(NOBODY);
        std::os::unix::fs::chown(self.folder.path(), Some(NOBODY), Some(NOBODY))
            .map_err(|error| self.failed(&error.to_string()))
    }

    /// Runs a program that prepares the folder, which lies beside the server's own or where `prepare` looks.
    pub fn prepare_folder(&self, program: &str, args: &[&str]) -> Result<(), StartError> {
        // The name may be a link to where all of them are.
        let folder = std::fs::canonicalize(&self.program).ok();
        let beside = folder.and_then(|file| Some(file.parent()?.join(program))).filter(|file| file.is_file());
        let Some(file) = beside.or_else(|| find(program)) else {
            return Err(self.failed(&format!("lacks its program {program}")));
        };
        let mut command = Command::new(file);
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        self.set_user(&mut command);
        let output = command.output().map_err(|error| self.failed(&format!("{program}: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(StartError(format!("{program} failed:\n{}", String::from_utf8_lossy(&said))))
    }

    /// Starts it, or starts it again with the same port and folder, and waits until the port answers.
    pub fn start(&mut self) -> Result<(), StartError> {
        self.kill();
        let log = std::fs::File::create(self.folder.path().join("server.log"))
            .and_then(|log| Ok((log.try_clone()?, log)))
            .map_err(|error| io_failed(self.name, &error))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().cloned()).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(log.0).stderr(log.1);
        // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // The server must not outlive a test that is killed.
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        self.set_user(&mut command);
        let child = command.spawn();
        let child = child.map_err(|error| StartError(format!("{}: {error}", self.program.display())))?;
        self.child = Some(child);
        self.wait()
    }

    /// Kills it at once, as a loss of power would. The folder stays, for [`Process::start`].
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end (SIGTERM), and waits until it has written what it keeps; one that has not ended after ten seconds is
    /// killed, as a service manager would do it. The folder stays, for [`Process::start`].
    pub fn terminate(&mut self) -> Result<(), StartError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        // SAFETY: the child was not waited for, so its id is its own.
        unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) };
        let deadline = Instant::now() + END_DEADLINE;
        while child.try_wait().map_err(|error| io_failed(self.name, &error))?.is_none() {
            if Instant::now() > deadline {
                break;
            }
            std::thread::sleep(POLL);
        }
        self.kill();
        Ok(())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The program's file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The user it runs as, where that is not the tests' own.
    pub(crate) fn user(&self) -> Option<u32> {
        self.user
    }

    fn set_user(&self, command: &mut Command) {
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
    }

    fn wait(&mut self) -> Result<(), StartError> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                return Err(self.failed(&format!("ended with {status}")));
            }
            if Instant::now() > deadline {
                return Err(self.failed(&format!("did not listen on {address}")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn failed(&self, what: &str) -> StartError {
        let log = std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
        StartError(format!("{} {what}; it said:\n{log}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl StartError {
    /// Says why.
    pub(crate) fn new(reason: impl Into<String>) -> StartError {
        StartError(reason.into())
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A folder below the one into which `cargo xtask setup` installs what is not Debian's.
pub(crate) fn installed(name: &'static str, folder: &str) -> Result<PathBuf, StartError> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let none = || io_failed(name, &io::Error::other("there is no HOME"));
    Ok(cache.or_else(home).ok_or_else(none)?.join("dhow/guests").join(folder))
}

/// An error of the file system or the network.
pub(crate) fn io_failed(name: &str, error: &io::Error) -> StartError {
    StartError(format!("{name}: {error}"))
}

/// A port that nobody listens on at this moment. It is below those that the system gives to clients: one of
/// these may be somebody's end of a connection by the time the server wants it, even of who waits for the
/// server, and then is connected with itself.
pub fn free_port() -> io::Result<u16> {
    let chance = || RandomState::new().build_hasher().finish() % u64::from(PORTS.end - PORTS.start);
    let listen = || {
        let port = PORTS.start + u16::try_from(chance()).unwrap_or_default();
        TcpListener::bind(("127.0.0.1", port)).map(|_| port)
    };
    (0..100).find_map(|_| listen().ok()).map_or_else(listen, Ok)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    places.map(|folder| folder.join(program)).find(|file| file.is_file())
}
