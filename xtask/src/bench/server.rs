//! A server under measurement: a child process on its own core, its CPU time and its memory.
//!
//! The CPU time comes from the process's CPU clock: nanoseconds, all threads, also those that have ended.
//! /proc/<pid>/stat counts in ticks of 10 ms and serves only to split it into user and system.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::client::Client;

/// How often a server that is starting is asked whether it answers; refused connections cost next to nothing.
const ASK_EVERY: Duration = Duration::from_micros(200);
/// How long a server may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// A running server; ends with this value.
pub struct Server {
    /// The name in reports.
    pub name: String,
    /// Where it listens.
    pub addr: SocketAddr,
    child: Child,
    log: PathBuf,
    spawned: Instant,
}

/// CPU time of a process since it started.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// User and system.
    pub total: Duration,
    /// Share that was user time, in ticks of 10 ms.
    user_ticks: u64,
    system_ticks: u64,
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most so far.
    pub peak: u64,
}

/// The cores of this run.
#[derive(Clone, Copy)]
pub struct Cores {
    /// For the server under load.
    pub server: usize,
    /// For the load.
    pub load: usize,
}

impl Cores {
    /// The first two that this process may use; the same one twice where there is only one.
    pub fn choose() -> Result<Self, String> {
        // SAFETY: a cpu_set_t is a plain array of bits, for which zero is a valid value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is valid for writes of the size given.
        if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
            return Err(format!("sched_getaffinity: {}", io::Error::last_os_error()));
        }
        // SAFETY: the index is below CPU_SETSIZE.
        let mut usable =
            (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) });
        let server = usable.next().ok_or("no core may be used")?;
        Ok(Self { server, load: usable.next().unwrap_or(server) })
    }
}

/// Keeps the calling thread on one core.
pub fn pin_to(core: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t is a plain array of bits; CPU_SET ignores an index beyond it; `set` outlives the call.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A loopback port that was free a moment ago.
pub fn free_port() -> Result<SocketAddr, String> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| format!("no free loopback port: {e}"))?;
    listener.local_addr().map_err(|e| format!("no free loopback port: {e}"))
}

impl Server {
    /// Starts `command`, which will listen on `addr`, on `core` (none: wherever the system likes). Its output
    /// goes to a file in `log_dir`, whose end is shown if it fails.
    pub fn start(
        name: &str,
        mut command: Command,
        addr: SocketAddr,
        core: Option<usize>,
        log_dir: &Path,
    ) -> Result<Self, String> {
        let log = log_dir.join(format!("{}-{}.log", name.replace([' ', ',', '/'], "-"), addr.port()));
        let outputs = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, err) = outputs.map_err(|e| format!("{}: {e}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let all: Vec<usize> = (0..libc::CPU_SETSIZE as usize).collect();
        // SAFETY: only async-signal-safe system calls run between fork and exec.
        unsafe {
            command.pre_exec(move || {
                // A bench that is killed takes its servers along.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                match core {
                    Some(core) => pin_to(core),
                    // The bench itself is pinned, and a child would inherit that.
                    None => unpin(&all),
                }
            });
        }
        let spawned = Instant::now();
        let child =
            command.spawn().map_err(|e| format!("{name}: starting {:?}: {e}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), addr, child, log, spawned })
    }

    /// Waits until GET `path` answers 200; the time since the process was spawned.
    pub fn wait_ready(&mut self, path: &str, patience: Duration) -> Result<Duration, String> {
        loop {
            let last = match Client::connect(self.addr).and_then(|mut client| client.get(path)) {
                Ok(reply) if reply.status == 200 => return Ok(self.spawned.elapsed()),
                Ok(reply) => format!("status {}: {}", reply.status, reply.text()),
                Err(error) => error,
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!(
                    "{} ended ({status}) before it answered:\n{}",
                    self.name,
                    self.log_tail()
                ));
            }
            if self.spawned.elapsed() > patience {
                let seconds = patience.as_secs();
                return Err(format!(
                    "{} did not answer GET {path} within {seconds} s ({last}):\n{}",
                    self.name,
                    self.log_tail()
                ));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Cpu, String> {
        let failed = |e: io::Error| format!("{}: reading its CPU time: {e}", self.name);
        let pid = self.child.id() as libc::pid_t;
        let mut clock: libc::clockid_t = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both pointers are valid for the calls, and the second runs only if the first succeeded.
        let ok = unsafe {
            libc::clock_getcpuclockid(pid, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        if !ok {
            return Err(failed(io::Error::last_os_error()));
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(failed)?;
        // The second field is the name in parentheses, in which anything may stand; utime and stime are the
        // 14th and 15th (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse().ok()).unwrap_or(0);
        Ok(Cpu {
            total: Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
            user_ticks: ticks(11),
            system_ticks: ticks(12),
        })
    }

    /// Resident memory.
    pub fn memory(&self) -> Result<Memory, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{}: {path}: {e}", self.name))?;
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        match (kib("VmRSS"), kib("VmHWM")) {
            (Some(resident), Some(peak)) => Ok(Memory { resident: resident * 1024, peak: peak * 1024 }),
            _ => {
                Err(format!("{}: no memory figures in {path}; has it ended?\n{}", self.name, self.log_tail()))
            }
        }
    }

    /// Asks the server to end, so that it can write its caches, and waits for it.
    pub fn stop(mut self) {
        // SAFETY: a plain system call; the child has not been waited for, so the id is still its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The last lines that the server wrote.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the child has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cpu {
    /// What was used since `before`.
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            total: self.total.saturating_sub(before.total),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
        }
    }

    /// The share of user time, 0 to 1; none when there were too few ticks to tell.
    pub fn user_share(self) -> Option<f64> {
        let ticks = self.user_ticks + self.system_ticks;
        (ticks >= 10).then(|| self.user_ticks as f64 / ticks as f64)
    }
}

fn unpin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: as in `pin_to`.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores {
            libc::CPU_SET(*core, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This program's own figures, through a child that burns CPU until it is stopped.
    #[test]
    fn cpu_time_and_memory_of_a_child() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let dir = std::env::temp_dir();
        let server = Server::start("busy", command, free_port().unwrap(), None, &dir).unwrap();
        let before = server.cpu().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.cpu().unwrap().since(before).total < Duration::from_millis(5) {
            assert!(Instant::now() < deadline, "a busy child used no CPU time");
            std::thread::yield_now();
        }
        let memory = server.memory().unwrap();
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
        let pid = server.child.id();
        server.stop();
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_server_that_ends_is_told_with_its_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such module >&2; exit 3"]);
        let dir = std::env::temp_dir();
        let mut server = Server::start("ended", command, free_port().unwrap(), None, &dir).unwrap();
        let error = server.wait_ready("/", Duration::from_secs(20)).unwrap_err();
        assert!(error.contains("exit status: 3") && error.contains("no such module"), "{error}");
    }
}
