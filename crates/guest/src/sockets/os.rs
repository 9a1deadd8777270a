//! What the sockets of the system can do that the crate `socket2` has no safe function for.

use socket2::{SockAddr, Socket};
use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;

/// Has the executor tell when a socket becomes ready.
pub(super) fn watch(socket: Arc<Socket>) -> io::Result<AsyncFd<Arc<Socket>>> {
    // SAFETY: a `Socket` owns its descriptor, never changes it and closes it when the last reference is gone; the answer
    // holds one.
    let watched = unsafe { AsyncFd::register(socket) };
    watched.map_err(|error| error.into_parts().1)
}

/// Looks which of these are ready, without waiting; the answers are in `revents`.
pub(super) fn poll(fds: &mut [libc::pollfd]) {
    // SAFETY: address and length are those of the slice, which is exclusively ours; a timeout of zero does not wait.
    let found = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 0) };
    if found < 0 {
        // Nothing is known then: not to be ready is what makes the caller wait and ask again.
        fds.iter_mut().for_each(|fd| fd.revents = 0);
    }
}

pub(super) fn recv(socket: &Socket, bytes: &mut [u8], flags: c_int) -> io::Result<usize> {
    socket.recv_with_flags(writable(bytes), flags)
}

/// The length that was written, the whole length of the datagram with `MSG_TRUNC`, and the sender.
pub(super) fn recv_from(socket: &Socket, bytes: &mut [u8], flags: c_int) -> io::Result<(usize, SockAddr)> {
    socket.recv_from_with_flags(writable(bytes), flags)
}

fn writable(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    // SAFETY: the layouts are the same, and `socket2` promises to write nothing uninitialized into the slice.
    unsafe { &mut *(std::ptr::from_mut(bytes) as *mut [MaybeUninit<u8>]) }
}

/// Bytes that wait to be received.
pub(super) fn waiting(fd: RawFd) -> u32 {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD writes one int to the address, which is that of one.
    let result = unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut count) };
    if result < 0 { 0 } else { count.unsigned_abs() }
}

/// An option of the level `SOL_SOCKET` that is a number.
pub(super) fn option(socket: &Socket, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: at most `length` bytes are written to the address, which is that of as many; both outlive the call.
    let result = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value, &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Sets an option of the level `SOL_SOCKET` that is a number.
pub(super) fn set_option(socket: &Socket, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: `length` bytes are read from the address, which is that of as many; it outlives the call.
    let result = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value, length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
