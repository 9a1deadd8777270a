//! Sockets of core modules, as programs of the crates for WasmEdge and of the standard library open them.

use crate::support::{Ended, Setting, app, guest};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

const LISTEN: [&str; 2] = ["--grant", "listen=127.0.0.1:0"];

fn run(name: &str, flags: &[&str], args: &[&str]) -> Ended {
    let module = guest(name);
    let module = module.to_string_lossy();
    Setting::new().run(&[&["run", &module], flags, &["--"], args].concat())
}

fn ends(name: &str, flags: &[&str], args: &[&str], code: i32, out: &str, err: &str) {
    let ended = run(name, flags, args);
    assert!(
        ended.code == Some(code) && ended.out == out && ended.err.contains(err),
        "{flags:?} {args:?}: {ended:?}"
    );
}

#[test]
fn options_have_the_values_of_wasi() {
    let out = "type Stream\ntype Datagram\nlistener false\nkeepalive false\nbroadcast false\nbuffers true\n\
               receive timeout Some(1.5s)\nsend timeout Some(2s)\n";
    ends("sock-udp", &[], &["options"], 0, out, "");
    for (args, code, out) in [
        (["open", "4", "stream"], 0, "open\n"),
        (["open", "6", "datagram"], 0, "open\n"),
        (["open", "unspec", "stream"], 1, ""),
        (["open", "4", "any"], 1, ""),
    ] {
        ends("sock-udp", &[], &args, code, out, if code == 0 { "" } else { "code: 28" });
    }
}

#[test]
fn a_program_connects_to_itself() {
    let flags = ["--grant", "listen=127.0.0.1:0", "--grant", "connect=127.0.0.1"];
    let ended = run("sock-udp", &flags, &["pair", "127.0.0.1:0"]);
    assert!(
        ended.code == Some(0) && ended.out.starts_with("ping pong\nfrom 127.0.0.1 to 127.0.0.1:"),
        "{ended:?}"
    );
}

#[test]
fn nothing_is_reached_without_a_grant() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap().to_string();
    let port = server.local_addr().unwrap().port();
    let denied = |name: &str| format!("not granted: {name}");
    // Flags, what the program does, and what is said; 2 is WASI's code for a permission that is missing.
    let cases: [(&[&str], &[&str], String); 7] = [
        (&[], &["connect", &addr], denied(&format!("connect \"{addr}\""))),
        (&["--grant", "connect=127.0.0.1:1"], &["connect", &addr], denied(&format!("connect \"{addr}\""))),
        (&["--grant", "listen=127.0.0.1"], &["connect", &addr], denied("connect")),
        (&[], &["bind", "127.0.0.1:0"], denied("listen \"127.0.0.1:0\"")),
        (&["--grant", "listen=127.0.0.2"], &["bind", "127.0.0.1:0"], denied("listen")),
        // Where a client may be bound nobody can connect.
        (&["--grant", "connect=127.0.0.1"], &["bind", "0.0.0.0:0"], denied("listen \"0.0.0.0:0\"")),
        (
            &["--grant", "connect=example.com"],
            &["lookup", "example.org", "80"],
            denied("connect \"example.org\""),
        ),
    ];
    for (flags, args, said) in cases {
        ends("sock-udp", flags, args, 1, "", &said);
        ends("sock-udp", flags, args, 1, "", "code: 2,");
    }
    thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        }
    });
    ends("sock-udp", &["--grant", "connect=127.0.0.1"], &["connect", &addr], 0, "HELLO\n", "");
    // An address may be connected to because a name resolved to it.
    let name = format!("connect=localhost:{port}");
    let lookup = run("sock-udp", &["--grant", &name], &["lookup", "localhost", &port.to_string()]);
    assert_eq!((lookup.code, lookup.out), (Some(0), format!("{addr}\n")));
}

#[test]
fn datagrams_go_both_ways() {
    let setting = Setting::new();
    let mut echo = setting.program(
        "sock-udp",
        &["--grant", "listen=127.0.0.1:0", "--grant", "connect=127.0.0.1"],
        &["udp-echo", "127.0.0.1:0"],
    );
    let addr = echo.address();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 65536];
    for text in [&b"hello"[..], &[], &[7; 60_000]] {
        client.send_to(text, addr).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (text, addr));
    }
    let ask =
        run("sock-udp", &["--grant", "connect=127.0.0.1"], &["udp-ask", &addr.to_string(), "from a guest"]);
    assert_eq!((ask.code, ask.out), (Some(0), format!("from a guest from {addr}\n")));
    client.send_to(b"end", addr).unwrap();
    assert_eq!(echo.ended().0, Some(0));
    ends("sock-udp", &[], &["udp-ask", "127.0.0.1:9", "x"], 1, "", "code: 2,");
    ends(
        "sock-udp",
        &["--grant", "connect=127.0.0.1:8"],
        &["udp-ask", "127.0.0.1:9", "x"],
        1,
        "",
        "code: 2,",
    );
    let six = UdpSocket::bind("[::1]:0");
    if let Ok(six) = six {
        let addr = six.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 100];
            let (length, from) = six.recv_from(&mut buffer).unwrap();
            six.send_to(&buffer[..length], from).unwrap();
        });
        let ask = run("sock-udp", &["--grant", "connect=[::1]"], &["udp-ask", &addr.to_string(), "six"]);
        assert_eq!((ask.code, ask.out), (Some(0), format!("six from {addr}\n")));
    }
}

#[test]
fn the_standard_library_accepts_reads_and_writes() {
    let setting = Setting::new();
    let mut program = setting.program("sock-std", &LISTEN, &[]);
    let addr = program.address();
    for text in ["first", "second", &"x".repeat(300_000), "end"] {
        let mut stream = TcpStream::connect(addr).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let bytes = text.as_bytes().to_vec();
        let writing = thread::spawn(move || {
            writer.write_all(&bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        writing.join().unwrap();
        assert_eq!(answer, text);
    }
    assert_eq!(program.ended(), (Some(0), "nobody waits\n".to_owned()));
}

#[test]
fn an_http_client_reaches_the_world_and_dapr() {
    let server = app::start(|call| (200, format!("{} {}", call.target, String::from_utf8_lossy(&call.body))));
    let url = format!("http://{server}/get?msg=Hello");
    let post = format!("http://{server}/post");
    let grant = format!("connect={server}");
    ends(
        "sock-client",
        &["--grant", &grant],
        &[&url, "post:hello", &post],
        0,
        "200 /get?msg=Hello \n200 /post hello\n",
        "",
    );
    let refused = run("sock-client", &[], &[&url]);
    assert!(refused.out.starts_with("failed") && refused.err.contains("not granted"), "{refused:?}");
    // Nobody listens on this port: the request never leaves the process, and needs no grant.
    for host in ["localhost", "127.0.0.1"] {
        let health = format!("http://{host}:3500/v1.0/healthz");
        let metadata = format!("http://{host}:3500/v1.0/metadata");
        let ended = run("sock-client", &["--app-id", "asks"], &[&health, &metadata]);
        assert!(
            ended.code == Some(0)
                && ended.out.starts_with("204 \n200 {")
                && ended.out.contains("\"id\":\"asks\""),
            "{ended:?}"
        );
    }
}

include!("../../../../fuzz/socket_functions.rs");

fn import(index: usize, (name, count): (&str, usize)) -> String {
    let params = "i32 ".repeat(count);
    format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func $f{index} (param {params}) (result i32)))\n")
}

fn run_text(text: &str, flags: &[&str]) -> Ended {
    let setting = Setting::new();
    let module = setting.file("module.wat", text.as_bytes());
    setting.run(&[&["run", &module.to_string_lossy(), "--timeout", "60s"], flags].concat())
}

/// A module that calls, checks the results, and ends with the number of the first that was another one.
fn calls(checks: &[(&str, usize, Vec<u32>, u32)], data: &str) -> String {
    let functions: Vec<(&str, usize)> = checks.iter().map(|(name, count, ..)| (*name, *count)).collect();
    let imports: String = functions.iter().enumerate().map(|(index, f)| import(index, *f)).collect();
    let body = checks.iter().enumerate().map(|(index, (_, _, args, expected))| {
        let args: String = args.iter().map(|arg| format!("i32.const {} ", *arg as i32)).collect();
        format!(
            "{args} call $f{index} i32.const {expected} i32.ne if i32.const {} call $exit end\n",
            index + 1
        )
    });
    let body: String = body.collect();
    format!(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))\n{imports}\
         (memory (export \"memory\") 1)\n{data}\n(func (export \"_start\")\n{body}))"
    )
}

#[test]
fn calls_answer_with_the_codes_of_the_interface() {
    const FD: u32 = 1 << 20;
    const OUT: u32 = 0xffff_0000;
    // At 64 an address structure for 127.0.0.1, at 80 the bytes; at 128 one of 128 bytes at 256.
    let data = "(data (i32.const 64) \"\\50\\00\\00\\00\\04\\00\\00\\00\") (data (i32.const 80) \"\\7f\\00\\00\\01\")\
                (data (i32.const 128) \"\\00\\01\\00\\00\\80\\00\\00\\00\")";
    let checks = [
        ("sock_open", 3, vec![0, 2, 0], 28),
        ("sock_open", 3, vec![3, 2, 0], 52),
        ("sock_open", 3, vec![9, 2, 0], 28),
        ("sock_open", 3, vec![1, 0, 0], 28),
        ("sock_open", 3, vec![1, 2, OUT], 21),
        ("sock_open", 3, vec![1, 2, 2], 4),
        ("sock_open", 3, vec![1, 2, 0], 0),
        ("sock_open_v2", 3, vec![1, 1, 0], 0),
        ("sock_bind", 3, vec![FD + 9, 64, 0], 8),
        ("sock_bind", 3, vec![0, 64, 0], 57),
        ("sock_bind", 3, vec![FD, 64, 65_536], 28),
        ("sock_bind", 3, vec![FD, 65, 0], 4),
        ("sock_bind", 3, vec![FD, OUT, 0], 21),
        ("sock_bind", 3, vec![FD, 80, 0], 21),
        ("sock_bind", 3, vec![FD, 64, 9], 2),
        ("sock_bind", 3, vec![FD, 64, 0], 0),
        ("sock_bind_v2", 3, vec![FD, 64, 0], 28),
        ("sock_listen", 2, vec![FD + 1, 5], 58),
        ("sock_listen", 2, vec![FD, 5], 0),
        ("sock_recv", 6, vec![FD, 0, 1025, 0, 0, 0], 28),
        ("sock_recv", 6, vec![FD, 0, 0, 4, 8, 12], 28),
        ("sock_recv", 6, vec![FD, OUT, 1, 0, 8, 12], 21),
        ("sock_recv", 6, vec![FD, 0, 1, 0, OUT, 12], 21),
        ("sock_send", 5, vec![FD, 0, 0, 1, 8], 28),
        ("sock_send", 5, vec![FD, 0, 0, 0, OUT], 21),
        ("sock_shutdown", 2, vec![FD, 0], 28),
        ("sock_getsockopt", 5, vec![FD, 1, 0, 8, 24], 28),
        ("sock_setsockopt", 5, vec![FD, 0, 0, 8, 4], 0),
        ("sock_setsockopt", 5, vec![FD, 0, 1, 8, 4], 50),
        ("sock_setsockopt", 5, vec![FD, 0, 15, 8, 4], 28),
        ("sock_setsockopt", 5, vec![FD, 0, 0, 8, 3], 28),
        ("sock_setsockopt", 5, vec![FD, 0, 0, 8, u32::MAX], 21),
        ("sock_getlocaladdr", 4, vec![FD, 64, 8, 12], 0),
        ("sock_getlocaladdr", 4, vec![FD, 128, 8, 12], 28),
        ("sock_getlocaladdr", 3, vec![FD, 128, 8], 0),
        ("sock_getlocaladdr_v2", 3, vec![FD, 64, 8], 28),
        ("sock_getpeeraddr", 4, vec![FD, 64, 8, 12], 53),
        ("sock_accept", 3, vec![FD, 8, 12], 28),
        ("fd_fdstat_set_flags", 2, vec![FD, 4], 0),
        ("sock_accept", 2, vec![FD, 12], 6),
        ("sock_accept", 3, vec![FD, 4, 12], 6),
        ("sock_accept_v2", 3, vec![FD, 4, 12], 6),
        ("poll_oneoff", 4, vec![0, 0, 0, 0], 28),
        ("poll_oneoff", 4, vec![0, 0, u32::MAX, 0], 28),
        ("poll_oneoff", 4, vec![0, OUT, 1, 0], 21),
        ("poll_oneoff", 4, vec![512, 1024, 1, 0], 0),
        ("sock_getaddrinfo", 8, vec![0, 0, 0, 0, 0, 512, 1, 516], 84),
        ("sock_getaddrinfo", 8, vec![0, 0, 64, 4, 0, 512, 0, 516], 82),
        ("fd_renumber", 2, vec![FD, 1], 58),
        ("fd_renumber", 2, vec![FD + 1, FD], 0),
        ("fd_close", 1, vec![FD + 1], 8),
        ("fd_close", 1, vec![FD], 0),
        ("fd_close", 1, vec![FD], 8),
    ];
    let ended = run_text(&calls(&checks, data), &LISTEN);
    let failed = ended.code.and_then(|code| checks.get(usize::try_from(code).ok()?.checked_sub(1)?));
    assert!(ended.code == Some(0), "{failed:?}: {ended:?}");
}

/// A module of these functions. Its body ends with the number of the first `$is` that found something else.
fn checking(functions: &[(&str, &str, usize)], data: &str, body: &str) -> String {
    let import = |(called, name, count): &(&str, &str, usize)| {
        let params = "i32 ".repeat(*count);
        format!(
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${called} (param {params}) (result i32)))\n"
        )
    };
    let imports: String = functions.iter().map(import).collect();
    format!(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))\n{imports}\
         (memory (export \"memory\") 1)\n{data}\n\
         (func $is (param $line i32) (param $found i32) (param $expected i32)\
           (if (i32.ne (local.get $found) (local.get $expected))\
             (then (call $exit (local.get $line)))))\n\
         (func (export \"_start\") (local $port i32)\n{body}))"
    )
}

fn passes(text: &str, grants: &[&str]) {
    let flags: Vec<&str> = grants.iter().flat_map(|grant| ["--grant", grant]).collect();
    let ended = run_text(text, &flags);
    assert_eq!(ended.code, Some(0), "the number of the check that failed: {ended:?}");
}

/// Addresses of 4, 16 and 128 bytes, and both forms of `sock_recv_from`, over datagrams to itself.
#[test]
fn addresses_have_the_layout_that_their_buffer_asks_for() {
    let functions = [
        ("open", "sock_open", 3),
        ("bind", "sock_bind", 3),
        ("local4", "sock_getlocaladdr", 4),
        ("local3", "sock_getlocaladdr_v2", 3),
        ("to", "sock_send_to", 7),
        ("from7", "sock_recv_from", 7),
        ("from8", "sock_recv_from", 8),
        ("from_v2", "sock_recv_from_v2", 8),
    ];
    // At 64, 72, 80 address structures of 4, 16 and 128 bytes at 100, 200, 300; at 88 one of 5.
    // At 20 a vector of the text at 40, at 28 one of 8 bytes at 50.
    let data = r#"(data (i32.const 64) "\64\00\00\00\04\00\00\00\c8\00\00\00\10\00\00\00\2c\01\00\00\80\00\00\00\64\00\00\00\05\00\00\00")
        (data (i32.const 100) "\7f\00\00\01") (data (i32.const 40) "ping")
        (data (i32.const 20) "\28\00\00\00\04\00\00\00\32\00\00\00\08\00\00\00")"#;
    let send = "(call $is (i32.const 9) (call $to (i32.load (i32.const 0)) (i32.const 20) (i32.const 1) (i32.const 64) (local.get $port) (i32.const 0) (i32.const 4)) (i32.const 0))";
    let body = format!(
        r#"(call $is (i32.const 1) (call $open (i32.const 1) (i32.const 1) (i32.const 0)) (i32.const 0))
        (call $is (i32.const 2) (call $bind (i32.load (i32.const 0)) (i32.const 64) (i32.const 0)) (i32.const 0))
        (i32.store (i32.const 100) (i32.const 0))
        (call $is (i32.const 3) (call $local4 (i32.load (i32.const 0)) (i32.const 64) (i32.const 8) (i32.const 12)) (i32.const 0))
        (call $is (i32.const 4) (i32.load (i32.const 100)) (i32.const 0x0100007f))
        (call $is (i32.const 5) (i32.load (i32.const 8)) (i32.const 4))
        (local.set $port (i32.load (i32.const 12)))
        ;; Sixteen bytes hold an address of four, too; five hold none.
        (call $is (i32.const 6) (call $local4 (i32.load (i32.const 0)) (i32.const 72) (i32.const 8) (i32.const 12)) (i32.const 0))
        (call $is (i32.const 7) (i32.load (i32.const 200)) (i32.const 0x0100007f))
        (call $is (i32.const 8) (call $local4 (i32.load (i32.const 0)) (i32.const 88) (i32.const 8) (i32.const 12)) (i32.const 28))
        (call $is (i32.const 10) (call $local3 (i32.load (i32.const 0)) (i32.const 80) (i32.const 12)) (i32.const 0))
        (call $is (i32.const 11) (i32.load16_u (i32.const 300)) (i32.const 1))
        (call $is (i32.const 12) (i32.load16_u (i32.const 302)) (i32.const 0x007f))
        (call $is (i32.const 13) (i32.load16_u (i32.const 304)) (i32.const 0x0100))
        (call $is (i32.const 14) (i32.load (i32.const 12)) (local.get $port))
        (i32.store (i32.const 100) (i32.const 0x0100007f)) (memory.fill (i32.const 300) (i32.const 0) (i32.const 128))
        {send} (memory.fill (i32.const 200) (i32.const 0) (i32.const 16))
        (call $is (i32.const 15) (call $from7 (i32.load (i32.const 0)) (i32.const 28) (i32.const 1) (i32.const 72) (i32.const 0) (i32.const 4) (i32.const 8)) (i32.const 0))
        (call $is (i32.const 16) (i32.load (i32.const 4)) (i32.const 4))
        (call $is (i32.const 17) (i32.load (i32.const 200)) (i32.const 0x0100007f))
        (call $is (i32.const 18) (i32.load8_u (i32.const 50)) (i32.const 112))
        {send}
        (call $is (i32.const 19) (call $from8 (i32.load (i32.const 0)) (i32.const 28) (i32.const 1) (i32.const 64) (i32.const 0) (i32.const 12) (i32.const 4) (i32.const 8)) (i32.const 0))
        (call $is (i32.const 20) (i32.load (i32.const 12)) (local.get $port))
        {send}
        (call $is (i32.const 21) (call $from_v2 (i32.load (i32.const 0)) (i32.const 28) (i32.const 1) (i32.const 80) (i32.const 0) (i32.const 12) (i32.const 4) (i32.const 8)) (i32.const 0))
        (call $is (i32.const 22) (i32.load16_u (i32.const 300)) (i32.const 1))
        (call $is (i32.const 23) (i32.load16_u (i32.const 304)) (i32.const 0x0100))
        (call $is (i32.const 24) (i32.load (i32.const 12)) (local.get $port))"#
    );
    passes(&checking(&functions, data, &body), &["listen=127.0.0.1:0", "connect=127.0.0.1"]);
}

/// A connection that does not wait: refused, then made; halves of it are shut down one after the other.
#[test]
fn connections_are_made_without_waiting_and_end_by_halves() {
    let functions = [
        ("open", "sock_open", 3),
        ("connect", "sock_connect", 3),
        ("flags", "fd_fdstat_set_flags", 2),
        ("poll", "poll_oneoff", 4),
        ("option", "sock_getsockopt", 5),
        ("send", "sock_send", 5),
        ("recv", "sock_recv", 6),
        ("shut", "sock_shutdown", 2),
    ];
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut came = String::new();
        // Ends when the guest shuts down its half; the other half still carries the answer.
        stream.read_to_string(&mut came).unwrap();
        stream.write_all(came.to_uppercase().as_bytes()).unwrap();
    });
    // At 64 an address of 4 bytes at 100. At 20 a vector of the text at 40, at 28 one of 8 bytes at 50.
    // At 512 a subscription: fd_write (2) of the descriptor at 528. Events come at 1024.
    let data = r#"(data (i32.const 64) "\64\00\00\00\04\00\00\00") (data (i32.const 100) "\7f\00\00\01")
        (data (i32.const 40) "ping") (data (i32.const 520) "\02")
        (data (i32.const 20) "\28\00\00\00\04\00\00\00\32\00\00\00\08\00\00\00")"#;
    let begin = |line: u32, port: u16| {
        format!(
            r#"(call $is (i32.const {line}) (call $open (i32.const 1) (i32.const 2) (i32.const 0)) (i32.const 0))
            (call $is (i32.const {line}) (call $flags (i32.load (i32.const 0)) (i32.const 4)) (i32.const 0))
            (call $is (i32.const {line}) (call $connect (i32.load (i32.const 0)) (i32.const 64) (i32.const {port})) (i32.const 26))
            (i32.store (i32.const 528) (i32.load (i32.const 0)))
            (call $is (i32.const {line}) (call $poll (i32.const 512) (i32.const 1024) (i32.const 1) (i32.const 8)) (i32.const 0))
            (call $is (i32.const {line}) (i32.load (i32.const 8)) (i32.const 1))
            ;; Whatever became of it, the event itself is no error.
            (call $is (i32.const {line}) (i32.load16_u (i32.const 1032)) (i32.const 0))
            (i32.store (i32.const 12) (i32.const 4))
            (call $is (i32.const {line}) (call $option (i32.load (i32.const 0)) (i32.const 0) (i32.const 2) (i32.const 16) (i32.const 12)) (i32.const 0))"#
        )
    };
    let (refused, made) = (begin(1, closed), begin(2, port));
    let body = format!(
        r#"{refused}
        (call $is (i32.const 3) (i32.load (i32.const 16)) (i32.const 14))
        ;; The error was taken.
        (call $is (i32.const 4) (call $option (i32.load (i32.const 0)) (i32.const 0) (i32.const 2) (i32.const 16) (i32.const 12)) (i32.const 0))
        (call $is (i32.const 5) (i32.load (i32.const 16)) (i32.const 0))
        {made}
        (call $is (i32.const 6) (i32.load (i32.const 16)) (i32.const 0))
        (call $is (i32.const 7) (call $recv (i32.load (i32.const 0)) (i32.const 28) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 8)) (i32.const 6))
        (call $is (i32.const 8) (call $send (i32.load (i32.const 0)) (i32.const 20) (i32.const 1) (i32.const 0) (i32.const 4)) (i32.const 0))
        (call $is (i32.const 9) (i32.load (i32.const 4)) (i32.const 4))
        (call $is (i32.const 10) (call $shut (i32.load (i32.const 0)) (i32.const 2)) (i32.const 0))
        (call $is (i32.const 11) (call $send (i32.load (i32.const 0)) (i32.const 20) (i32.const 1) (i32.const 0) (i32.const 4)) (i32.const 64))
        (call $is (i32.const 12) (call $flags (i32.load (i32.const 0)) (i32.const 0)) (i32.const 0))
        (call $is (i32.const 13) (call $recv (i32.load (i32.const 0)) (i32.const 28) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 8)) (i32.const 0))
        (call $is (i32.const 14) (i32.load (i32.const 4)) (i32.const 4))
        (call $is (i32.const 15) (i32.load8_u (i32.const 50)) (i32.const 80))
        ;; The end, and what the other half says after it was shut down.
        (call $is (i32.const 16) (call $recv (i32.load (i32.const 0)) (i32.const 28) (i32.const 1) (i32.const 0) (i32.const 4) (i32.const 8)) (i32.const 0))
        (call $is (i32.const 17) (i32.load (i32.const 4)) (i32.const 0))"#
    );
    passes(&checking(&functions, data, &body), &["connect=127.0.0.1"]);
}

/// Connections that wait: a socket that was refused tries again, and one that is connected stays it.
#[test]
fn a_socket_may_connect_until_it_is_connected() {
    let functions = [("open", "sock_open", 3), ("connect", "sock_connect", 3)];
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let data = r#"(data (i32.const 64) "\64\00\00\00\04\00\00\00") (data (i32.const 100) "\7f\00\00\01")"#;
    let mut body =
        "(call $is (i32.const 1) (call $open (i32.const 1) (i32.const 2) (i32.const 0)) (i32.const 0))\n"
            .to_owned();
    for (line, port, errno) in
        [(2, closed, 14), (3, closed, 14), (4, closed, 14), (5, port, 0), (6, port, 30)]
    {
        body += &format!(
            "(call $is (i32.const {line}) (call $connect (i32.load (i32.const 0)) (i32.const 64) (i32.const {port})) \
             (i32.const {errno}))\n"
        );
    }
    passes(&checking(&functions, data, &body), &["connect=127.0.0.1"]);
}

#[test]
fn a_clock_that_there_is_not_is_an_error() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_res_get" (func $resolution (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_shutdown" (func (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func $is (param $line i32) (param $found i32) (param $expected i32)
          (if (i32.ne (local.get $found) (local.get $expected)) (then (call $exit (local.get $line)))))
        (func (export "_start")
          (call $is (i32.const 1) (call $time (i32.const 0) (i64.const 0) (i32.const 8)) (i32.const 0))
          (call $is (i32.const 2) (i64.gt_u (i64.load (i32.const 8)) (i64.const 0)) (i32.const 1))
          (call $is (i32.const 3) (call $time (i32.const 4) (i64.const 0) (i32.const 8)) (i32.const 28))
          (call $is (i32.const 4) (call $time (i32.const -1) (i64.const 0) (i32.const 8)) (i32.const 28))
          (call $is (i32.const 5) (call $time (i32.const 1) (i64.const 0) (i32.const 65536)) (i32.const 21))
          (call $is (i32.const 6) (call $resolution (i32.const 1) (i32.const 8)) (i32.const 0))
          (call $is (i32.const 7) (call $resolution (i32.const 99) (i32.const 8)) (i32.const 28))))"#;
    let ended = run_text(text, &[]);
    assert_eq!(ended.code, Some(0), "the number of the check that failed: {ended:?}");
}

#[test]
fn both_forms_of_a_function_fit_into_one_module_and_others_do_not() {
    let both = calls(&[("sock_accept", 2, vec![5, 0], 8), ("sock_accept", 3, vec![5, 0, 0], 8)], "");
    assert_eq!(run_text(&both, &[]).code, Some(0));
    for (name, count) in [("sock_accept", 4), ("sock_open", 2), ("sock_recv_from", 6)] {
        let checks = [(name, count, vec![0; count], 0), ("sock_accept", 2, vec![5, 0], 8)];
        let ended = run_text(&calls(&checks, ""), &[]);
        assert!(ended.code != Some(0) && ended.err.contains("do not fit"), "{ended:?}");
    }
    let unknown =
        run_text(&calls(&[("sock_fly", 1, vec![0], 0), ("sock_accept", 2, vec![5, 0], 8)], ""), &[]);
    assert!(unknown.err.contains("wasi_snapshot_preview1::sock_fly"), "{unknown:?}");
}

/// Any arguments give a code of the interface, and never end the program or the host.
#[test]
fn no_arguments_do_harm() {
    const FD: u32 = 1 << 20;
    const ARGUMENTS: [u32; 24] = [
        0,
        1,
        2,
        3,
        4,
        7,
        8,
        16,
        48,
        64,
        128,
        256,
        1024,
        65_528,
        65_535,
        65_536,
        65_540,
        FD,
        FD + 1,
        FD + 2,
        FD + 3,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    let imports: String = FUNCTIONS.iter().enumerate().map(|(index, f)| import(index, *f)).collect();
    for seed in 0..4_u32 {
        let mut state = seed.wrapping_mul(0x9e37_79b9).wrapping_add(1);
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        // Sockets to play with, which do not wait: a datagram socket and a listener.
        let mut body = String::from(
            "(drop (call $f0 (i32.const 1) (i32.const 1) (i32.const 0)))\n\
             (drop (call $f0 (i32.const 1) (i32.const 2) (i32.const 0)))\n\
             (drop (call $f2 (i32.const 1048577) (i32.const 64) (i32.const 0)))\n\
             (drop (call $f4 (i32.const 1048577) (i32.const 5)))\n",
        );
        for _ in 0..3000 {
            if next(20) == 0 {
                let kind = 1 + next(2);
                body.push_str(&format!("(drop (call $f0 (i32.const 1) (i32.const {kind}) (i32.const 0)))\n"));
            }
            let index = next(FUNCTIONS.len());
            body.push_str("call $calm\n");
            let args: String = (0..FUNCTIONS[index].1)
                .map(|_| format!("i32.const {} ", ARGUMENTS[next(ARGUMENTS.len())] as i32))
                .collect();
            body.push_str(&format!("{args} call $f{index} i32.const 87 i32.gt_u if unreachable end\n"));
        }
        // What waits may wait for ever, as the interface promises: so no socket does, and what could be taken for
        // subscriptions are clocks of no time, beside an address at 64.
        let calm = (FD..FD + 4).map(|fd| format!("(drop (call $f38 (i32.const {fd}) (i32.const 4)))"));
        let calm: String = calm.collect();
        let text = format!(
            "(module {imports}(memory (export \"memory\") 1)\n\
             (func $calm {calm}\
             (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536))\
             (i32.store (i32.const 64) (i32.const 80)) (i32.store (i32.const 68) (i32.const 4))\
             (i32.store (i32.const 80) (i32.const 0x0100007f)))\n\
             (func (export \"_start\") call $calm\n{body}))"
        );
        let ended = run_text(&text, &["--grant", "listen=127.0.0.1:0", "--grant", "connect=127.0.0.1"]);
        assert_eq!(ended.code, Some(0), "seed {seed}: {}", ended.err);
    }
}
