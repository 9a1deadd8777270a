//! Error codes: those of WASI preview 1, and those that WasmEdge added for names.

use crate::memory::BadMemory;
use dhow_blocks::grants::Denied;
use std::io;

/// What a call answers when it was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) u16);

impl Errno {
    pub(super) const ACCES: Errno = Errno(2);
    pub(super) const ADDRNOTAVAIL: Errno = Errno(4);
    pub(super) const AGAIN: Errno = Errno(6);
    pub(super) const BADF: Errno = Errno(8);
    pub(super) const CONNABORTED: Errno = Errno(13);
    pub(super) const EXIST: Errno = Errno(20);
    pub(super) const FAULT: Errno = Errno(21);
    pub(super) const INPROGRESS: Errno = Errno(26);
    pub(super) const INVAL: Errno = Errno(28);
    pub(super) const IO: Errno = Errno(29);
    pub(super) const NFILE: Errno = Errno(41);
    pub(super) const NOMEM: Errno = Errno(48);
    pub(super) const NOPROTOOPT: Errno = Errno(50);
    pub(super) const NOSYS: Errno = Errno(52);
    pub(super) const NOTCONN: Errno = Errno(53);
    pub(super) const NOTSOCK: Errno = Errno(57);
    pub(super) const NOTSUP: Errno = Errno(58);
    pub(super) const AIAGAIN: Errno = Errno(78);
    pub(super) const AIBADFLAG: Errno = Errno(79);
    pub(super) const AIFAMILY: Errno = Errno(81);
    pub(super) const AIMEMORY: Errno = Errno(82);
    pub(super) const AINODATA: Errno = Errno(83);
    pub(super) const AINONAME: Errno = Errno(84);
    pub(super) const AISERVICE: Errno = Errno(85);
    pub(super) const AISOCKTYPE: Errno = Errno(86);
}

/// What a call answers: zero, or the error's code.
pub(super) fn code(result: Result<(), Errno>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(errno) => i32::from(errno.0),
    }
}

/// The system's codes, and WASI's for the same (`errno` in preview 1's witx).
const CODES: [(i32, u16); 38] = [
    (libc::EACCES, 2),
    (libc::EADDRINUSE, 3),
    (libc::EADDRNOTAVAIL, 4),
    (libc::EAFNOSUPPORT, 5),
    (libc::EAGAIN, 6),
    (libc::EALREADY, 7),
    (libc::EBADF, 8),
    (libc::ECONNABORTED, 13),
    (libc::ECONNREFUSED, 14),
    (libc::ECONNRESET, 15),
    (libc::EDESTADDRREQ, 17),
    (libc::EDOM, 18),
    (libc::EFAULT, 21),
    (libc::EHOSTUNREACH, 23),
    (libc::EINPROGRESS, 26),
    (libc::EINTR, 27),
    (libc::EINVAL, 28),
    (libc::EIO, 29),
    (libc::EISCONN, 30),
    (libc::EMFILE, 33),
    (libc::EMSGSIZE, 35),
    (libc::ENETDOWN, 38),
    (libc::ENETRESET, 39),
    (libc::ENETUNREACH, 40),
    (libc::ENFILE, 41),
    (libc::ENOBUFS, 42),
    (libc::ENODEV, 43),
    (libc::ENOMEM, 48),
    (libc::ENOPROTOOPT, 50),
    (libc::ENOTCONN, 53),
    (libc::ENOTSOCK, 57),
    (libc::EOPNOTSUPP, 58),
    (libc::EPERM, 63),
    (libc::EPIPE, 64),
    (libc::EPROTO, 65),
    (libc::EPROTONOSUPPORT, 66),
    (libc::EPROTOTYPE, 67),
    (libc::ETIMEDOUT, 73),
];

// === impl Errno ===

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Errno {
        let Some(code) = error.raw_os_error() else { return Errno::IO };
        CODES.iter().find(|(system, _)| *system == code).map_or(Errno::IO, |(_, wasi)| Errno(*wasi))
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno::from(&error)
    }
}

impl From<BadMemory> for Errno {
    fn from(bad: BadMemory) -> Errno {
        match bad {
            BadMemory::Missing | BadMemory::Outside(_) => Errno::FAULT,
            BadMemory::NotText(_) | BadMemory::TooManyVectors(_) => Errno::INVAL,
        }
    }
}

impl From<Denied> for Errno {
    fn from(_: Denied) -> Errno {
        Errno::ACCES
    }
}
