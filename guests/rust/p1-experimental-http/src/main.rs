//! Calls the functions of `wasi_experimental_http` as its arguments say, and prints what comes back.
//!
//! `send METHOD URL HEADERS BODY`: the status, all headers, the body read in pieces of five bytes, or the error.
//! `hold URL COUNT`: opens as many responses, then what one more says, and what it says after the first was closed.
//! `handles`: what each function says to handles that are none. `headers URL`: what `header_get` says.
//! `places URL`: what each function says to places outside of the memory.
//! `random SEED COUNT`: as many calls with anything at all; fails on a number that is no error of the ABI.

use std::env;
use std::process::ExitCode;

#[link(wasm_import_module = "wasi_experimental_http")]
unsafe extern "C" {
    fn req(
        url: u32,
        url_len: u32,
        method: u32,
        method_len: u32,
        headers: u32,
        headers_len: u32,
        body: u32,
        body_len: u32,
        status: u32,
        handle: u32,
    ) -> u32;
    fn close(handle: u32) -> u32;
    fn header_get(handle: u32, name: u32, name_len: u32, buffer: u32, room: u32, written: u32) -> u32;
    fn headers_get_all(handle: u32, buffer: u32, room: u32, written: u32) -> u32;
    fn body_read(handle: u32, buffer: u32, room: u32, written: u32) -> u32;
}

/// An address, and a length.
fn at(bytes: &[u8]) -> (u32, u32) {
    (bytes.as_ptr() as u32, bytes.len() as u32)
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["send", method, url, headers, body] => show(request(method, url, headers, body)),
        ["hold", url, count] => hold(url, count.parse().unwrap()),
        ["handles"] => handles(),
        ["headers", url] => headers(url),
        ["places", url] => places(url),
        ["random", seed, count] => return random(seed.parse().unwrap(), count.parse().unwrap()),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Status and handle; above the two bytes of the status was something else.
fn request(method: &str, url: &str, headers: &str, body: &str) -> Result<(u16, u32), u32> {
    let (mut status, mut handle) = ([0xAA_u8; 4], [0xAA_u8; 4]);
    let ((u, u_len), (m, m_len)) = (at(url.as_bytes()), at(method.as_bytes()));
    let ((h, h_len), (b, b_len)) = (at(headers.as_bytes()), at(body.as_bytes()));
    let (status_at, handle_at) = (status.as_mut_ptr() as u32, handle.as_mut_ptr() as u32);
    let error = unsafe { req(u, u_len, m, m_len, h, h_len, b, b_len, status_at, handle_at) };
    // The compiler cannot see what was written through numbers.
    let (status, handle) = (std::hint::black_box(status), std::hint::black_box(handle));
    assert_eq!(status[2..], [0xAA; 2], "only two bytes are written");
    match error {
        0 => Ok((u16::from_le_bytes([status[0], status[1]]), u32::from_le_bytes(handle))),
        error => {
            assert_eq!((status, handle), ([0xAA; 4], [0xAA; 4]), "nothing is written by what fails");
            Err(error)
        }
    }
}

/// Memory that the host writes to.
struct Out(Vec<u8>);

impl Out {
    fn new(length: usize) -> Out {
        Out(vec![0; length])
    }

    fn at(&mut self) -> u32 {
        self.0.as_mut_ptr() as u32
    }

    fn room(&self) -> u32 {
        self.0.len() as u32
    }

    fn number(&self) -> u32 {
        // The compiler cannot see what was written through a number.
        u32::from_le_bytes(std::hint::black_box(&self.0)[..4].try_into().unwrap())
    }

    fn text(&self, length: u32) -> &str {
        std::str::from_utf8(&std::hint::black_box(&self.0)[..length as usize]).unwrap()
    }
}

fn show(answer: Result<(u16, u32), u32>) {
    let (status, handle) = match answer {
        Ok(answer) => answer,
        Err(error) => return println!("error {error}"),
    };
    println!("{status}");
    let (mut buffer, mut written) = (Out::new(4096), Out::new(4));
    assert_eq!(unsafe { headers_get_all(handle, buffer.at(), buffer.room(), written.at()) }, 0);
    println!("{}", buffer.text(written.number()));
    let mut body = String::new();
    loop {
        assert_eq!(unsafe { body_read(handle, buffer.at(), 5, written.at()) }, 0);
        match written.number() {
            0 => break,
            length => body.push_str(buffer.text(length)),
        }
    }
    println!("{body}");
    let closed = unsafe { (close(handle), body_read(handle, buffer.at(), 5, written.at())) };
    assert_eq!(closed, (0, 1), "it is closed");
}

fn hold(url: &str, count: u32) {
    let handles: Vec<u32> = (0..count).map(|_| request("GET", url, "", "").unwrap().1).collect();
    let full = request("GET", url, "", "");
    unsafe { close(handles[0]) };
    println!("{handles:?} {full:?} {:?}", request("GET", url, "", "").map(|(_, handle)| handle));
}

fn handles() {
    let (mut buffer, mut written) = (Out::new(8), Out::new(4));
    let (name, name_len) = at(b"a");
    for handle in [0, 1, u32::MAX] {
        let errors = unsafe {
            [
                close(handle),
                header_get(handle, name, name_len, buffer.at(), 8, written.at()),
                headers_get_all(handle, buffer.at(), 8, written.at()),
                body_read(handle, buffer.at(), 8, written.at()),
            ]
        };
        println!("{errors:?}");
    }
}

fn headers(url: &str) {
    let (_, handle) = request("GET", url, "", "").unwrap();
    let (mut buffer, mut written) = (Out::new(64), Out::new(4));
    for (name, room) in [
        (&b"content-type"[..], 64),
        (b"Content-TYPE", 16),
        (b"content-type", 15),
        (b"content-type", 0),
        (b"absent", 64),
        (b"no name", 64),
        (b"", 64),
        (b"\xff\xfe", 64),
    ] {
        let (name, name_len) = at(name);
        match unsafe { header_get(handle, name, name_len, buffer.at(), room, written.at()) } {
            0 => println!("{}", buffer.text(written.number())),
            error => println!("error {error}"),
        }
    }
}

fn places(url: &str) {
    let ((u, u_len), (m, m_len)) = (at(url.as_bytes()), at(b"GET"));
    let (name, name_len) = at(b"content-type");
    let (_, handle) = request("GET", url, "", "").unwrap();
    let mut out = Out::new(8);
    let out = out.at();
    let end = (core::arch::wasm32::memory_size(0) * 65536) as u32;
    for (at, length) in [(end, 1), (end - 1, 2), (u32::MAX, 1), (u32::MAX, u32::MAX), (8, u32::MAX)] {
        let errors = unsafe {
            [
                req(at, length, m, m_len, 0, 0, 0, 0, out, out + 4),
                req(u, u_len, at, length, 0, 0, 0, 0, out, out + 4),
                req(u, u_len, m, m_len, at, length, 0, 0, out, out + 4),
                req(u, u_len, m, m_len, 0, 0, at, length, out, out + 4),
                req(u, u_len, m, m_len, 0, 0, 0, 0, end - 1, out),
                req(u, u_len, m, m_len, 0, 0, 0, 0, out, end - 3),
                header_get(handle, at, length, out, 4, out + 4),
                header_get(handle, name, name_len, at, length, out),
                headers_get_all(handle, at, length, out),
                headers_get_all(handle, out, 4, end - 3),
                body_read(handle, at, length, out),
                body_read(handle, out, 4, end - 3),
            ]
        };
        println!("{}", if errors == [3; 12] { "refused".to_owned() } else { format!("{errors:?}") });
    }
}

/// Every argument is an address of something sensible, a small number, or anything.
fn random(mut seed: u64, count: u64) -> ExitCode {
    let texts = ["http://127.0.0.1:1/", "GET", "a:b\n", "http://127.0.0.1:3500/v1.0/healthz", "x"];
    // Writes of the host must not change this program.
    let arena = vec![0_u8; 64 << 10].leak().as_mut_ptr() as u32;
    let end = (core::arch::wasm32::memory_size(0) * 65536) as u32;
    let mut next = move || {
        // xorshift64*
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    };
    for number in 0..count {
        let mut written = || match next() % 8 {
            0 => end.wrapping_add((next() % 64) as u32).wrapping_sub(32),
            1 => u32::MAX - (next() % 8) as u32,
            _ => arena + (next() % (60 << 10)) as u32,
        };
        let (a, b) = (written(), written());
        let mut read = || match next() % 8 {
            0 => (next() as u32, next() as u32),
            1 => (end.wrapping_sub((next() % 16) as u32), (next() % 32) as u32),
            2 => (0, 0),
            3 => (arena + (next() % 1024) as u32, (next() % 1024) as u32),
            _ => at(texts[(next() % texts.len() as u64) as usize].as_bytes()),
        };
        let ((p, p_len), (q, q_len)) = (read(), read());
        let ((r, r_len), (s, s_len)) = (read(), read());
        let handle = if next() % 4 == 0 { next() as u32 } else { (next() % 80) as u32 };
        // A buffer that is written to lies in the arena or outside of the memory.
        let room = if a >= arena && a < arena + (60 << 10) { (next() % 4096) as u32 } else { next() as u32 };
        let error = unsafe {
            match next() % 8 {
                0..=2 => req(p, p_len, q, q_len, r, r_len, s, s_len, a, b),
                3 => close(handle),
                4 => header_get(handle, p, p_len, a, room, b),
                5 => headers_get_all(handle, a, room, b),
                _ => body_read(handle, a, room, b),
            }
        };
        if error > 13 {
            println!("call {number}: {error}");
            return ExitCode::FAILURE;
        }
    }
    println!("{count} calls");
    ExitCode::SUCCESS
}
