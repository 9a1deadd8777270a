//! The few system calls that the standard library does not have: who we are, and other processes.
//!
//! Processes are held by a pidfd (`man 2 pidfd_open`), which never comes to mean another process, as a pid
//! may.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A multiple of every page size that Linux has on the machines that dhow runs on.
const PAGE: usize = 64 << 10;

/// A process that may end at any time.
pub(crate) struct Process(OwnedFd);

/// The effective user of this process.
pub(crate) fn user_id() -> u32 {
    // SAFETY: geteuid has no preconditions and always succeeds.
    unsafe { libc::geteuid() }
}

/// The terminal does not show what is typed until this is dropped.
pub(crate) struct WithoutEcho(libc::termios);

/// Switches the echo of the terminal at standard input off.
pub(crate) fn without_echo() -> io::Result<WithoutEcho> {
    let mut before = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: `before` is writable memory of the right type and lives through the call.
    if unsafe { libc::tcgetattr(libc::STDIN_FILENO, before.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zero is a valid value of every field, and the call succeeded and filled them.
    let before = unsafe { before.assume_init() };
    let quiet = libc::termios { c_lflag: before.c_lflag & !libc::ECHO, ..before };
    // SAFETY: the call reads one `termios`, which lives through it.
    if unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &quiet) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(WithoutEcho(before))
}

impl Drop for WithoutEcho {
    fn drop(&mut self) {
        // SAFETY: the call reads one `termios`, which lives through it.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &self.0) };
    }
}

/// What tells a process from a later one with the same pid: the boot it belongs to and the clock tick at
/// which it started (`man 5 proc_pid_stat`, field 22). `None` when there is no such process.
pub(crate) fn identity(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    // A zombie has ended; only its parent does not know yet.
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return None;
    }
    let ticks = fields.get(19)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}:{ticks}", boot.trim()))
}

/// Bytes that this user can still write to the file system of a path.
pub(crate) fn free_space(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends in NUL and `stat` is writable memory of the right type; both live through the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zero is a valid value of every field, and the call succeeded and filled them.
    let stat = unsafe { stat.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "the types differ between platforms")]
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

/// Lets go of the code and constants of this program that only its start needed. They stay in the system's page cache,
/// and what is used again is mapped again at the first touch.
pub(crate) fn forget_start_up() {
    // SAFETY: the callback has the type that the call expects, and uses no data.
    unsafe { libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut()) };
}

/// For the first object, which is the program itself (`man 3 dl_iterate_phdr`); not 0 ends the iteration.
unsafe extern "C" fn forget_segments(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid object, whose headers are as many as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr as usize, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    for header in
        headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0)
    {
        // Whole pages; the first and the last may be shared with a segment that can be written.
        let start = (base + header.p_vaddr as usize).next_multiple_of(PAGE);
        let end = (base + header.p_vaddr as usize + header.p_memsz as usize) / PAGE * PAGE;
        if start < end {
            // SAFETY: a segment that cannot be written and is not relocated is the same as its file, from which
            // what is dropped is read again.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
    1
}

// === impl Process ===

impl Process {
    /// The process of that pid, if there is one.
    pub(crate) fn open(pid: u32) -> io::Result<Process> {
        let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the call takes two integers; a pid that does not exist is an error, not undefined.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
        Ok(Process(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Ends the process without asking it.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)
    }

    /// Asks a host to read its configuration again.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        self.signal(libc::SIGHUP)
    }

    fn signal(&self, signal: libc::c_int) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open while `self` is, and a null siginfo is what the call documents for
        // "as kill(2) does it".
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits until the process has ended; `false` if it has not after `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
            // SAFETY: `poll` is one valid pollfd, as the second argument says, and lives through the call.
            match unsafe { libc::poll(&raw mut poll, 1, millis) } {
                0 => return Ok(false),
                count if count > 0 => return Ok(true),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }
}

/// 256 bits that nobody can guess, in hexadecimal.
pub(crate) fn random_token() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::{Process, free_space, identity, user_id};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn a_process_is_known_until_it_ends() {
        // `cat` without input waits for ever.
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let first = identity(child.id()).unwrap();
        assert_eq!(identity(child.id()), Some(first.clone()));
        assert_ne!(identity(1), Some(first), "the first process began with the system");
        let process = Process::open(child.id()).unwrap();
        assert!(!process.wait(Duration::ZERO).unwrap());
        process.kill().unwrap();
        assert!(process.wait(Duration::from_secs(10)).unwrap());
        // Before its parent asked for its end it is a zombie, and that does not count as running.
        assert_eq!(identity(child.id()), None);
        assert!(!child.wait().unwrap().success());
        assert!(Process::open(u32::MAX).is_err());
    }

    #[test]
    fn the_user_and_the_disk_are_those_of_the_system() {
        let made = tempfile::tempdir().unwrap();
        assert_eq!(std::fs::metadata(made.path()).unwrap().uid(), user_id());
        assert!(free_space(made.path()).unwrap() > 0);
        assert!(free_space(Path::new("/no/such/folder")).is_err());
    }
}
