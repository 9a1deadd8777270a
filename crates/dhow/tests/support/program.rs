//! `dhow run` of a program that goes on: what it prints is read line by line.

use super::{Setting, guest, wait};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout};

/// A program that runs.
pub(crate) struct Program {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Setting {
    /// Starts the guest of this name with these flags, and these arguments of its own.
    pub(crate) fn program(&self, name: &str, flags: &[&str], args: &[&str]) -> Program {
        let module = guest(name);
        let module = module.to_string_lossy();
        let mut command = self.dhow(&[&["run", &module], flags, &["--"], args].concat());
        let mut child = command.stderr(std::process::Stdio::inherit()).spawn().expect("starting dhow");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Program { child, out }
    }
}

impl Program {
    /// Reads where it listens, which it says first.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.line();
        let port = line.strip_prefix("listening on port ").and_then(|port| port.parse().ok());
        SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_else(|| panic!("{line:?}"))))
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("reading");
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: `kill` takes plain numbers, and the child is not reaped before `ended`, so its id is its own.
        let result = unsafe { libc::kill(pid, signal) };
        assert_eq!(result, 0, "signal {signal}");
    }

    /// Waits for its end; its exit code, and what it printed last.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("reading");
        (wait(&mut self.child, "the program").code(), rest)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
