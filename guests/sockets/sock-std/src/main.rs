//! The network of Rust's standard library: it cannot open a listener on WASI preview 1, but it can use one, with the
//! `sock_accept` of the standard, which has three parameters. That of the crates for WasmEdge has two; here are both.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;

#[repr(C)]
struct Address {
    bytes: *const u8,
    length: u32,
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn sock_open(family: u32, kind: u32, fd: *mut u32) -> u32;
    fn sock_bind(fd: u32, address: *const Address, port: u32) -> u32;
    fn sock_listen(fd: u32, backlog: u32) -> u32;
    fn sock_accept(fd: u32, accepted: *mut u32) -> u32;
    fn sock_getlocaladdr(fd: u32, address: *mut Address, kind: *mut u32, port: *mut u32) -> u32;
}

fn main() -> Result<(), Error> {
    let (fd, port) = listen()?;
    println!("listening on port {port}");
    // SAFETY: the descriptor was just opened and has no other owner.
    let listener = unsafe { TcpListener::from_raw_fd(fd as i32) };
    // The first connection is accepted with two parameters, the others with three.
    let mut accepted = 0;
    // SAFETY: the address is that of a variable of the right size.
    done(unsafe { sock_accept(fd, &mut accepted) })?;
    // SAFETY: as above.
    echo(unsafe { TcpStream::from_raw_fd(accepted as i32) })?;
    loop {
        let (stream, _) = listener.accept()?;
        if echo(stream)? == b"end" {
            break;
        }
    }
    listener.set_nonblocking(true)?;
    match listener.accept() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => println!("nobody waits"),
        other => println!("expected nobody: {other:?}"),
    }
    Ok(())
}

fn listen() -> Result<(u32, u32), Error> {
    let (mut fd, mut port, mut kind) = (0, 0, 0);
    let mut bytes = [127_u8, 0, 0, 1];
    let mut address = Address { bytes: bytes.as_mut_ptr(), length: 4 };
    // SAFETY: all addresses are those of variables of the right sizes.
    unsafe {
        done(sock_open(1, 2, &mut fd))?;
        done(sock_bind(fd, &address, 0))?;
        done(sock_listen(fd, 128))?;
        done(sock_getlocaladdr(fd, &mut address, &mut kind, &mut port))?;
    }
    Ok((fd, port))
}

fn done(errno: u32) -> Result<(), Error> {
    if errno == 0 { Ok(()) } else { Err(Error::from_raw_os_error(errno as i32)) }
}

/// Sends back what comes until the peer has no more; the answer is all of it.
fn echo(mut stream: TcpStream) -> Result<Vec<u8>, Error> {
    stream.set_nonblocking(true)?;
    stream.set_nonblocking(false)?;
    let mut all = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(all);
        }
        stream.write_all(&buffer[..length])?;
        all.extend_from_slice(&buffer[..length]);
    }
}
