//! `wasi_experimental_http`: what programs for that host of 2021 ask for, and what they get.

use crate::support::{Ended, Setting, guest};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::{io, thread};

/// The probe, with these arguments.
fn probe(setting: &Setting, flags: &[&str], args: &[&str]) -> Ended {
    let module = guest("p1-experimental-http");
    setting.run(&[&["run", &module.to_string_lossy()], flags, &["--"], args].concat())
}

/// A server that says what it was asked, and more at some paths.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream).ok());
        }
    });
    address
}

fn serve(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let length =
            lines.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        let mut words = lines[0].split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, more) = match path {
            "/moved" => ("303 See Other", "location: /\r\n"),
            "/kept" => ("307 Temporary Redirect", "location: /kept/behind\r\n"),
            "/away" => ("302 Found", "location: http://not.granted.test/\r\n"),
            "/round" => ("302 Found", "location: /round\r\n"),
            "/bytes" => ("200 OK", "x-bytes: \u{80}\r\n"),
            "/teapot" => ("418 I'm a teapot", "x-two: 1\r\nx-two: b: c\r\n"),
            _ => ("200 OK", ""),
        };
        let mut headers: Vec<&str> =
            lines[1..].iter().map(String::as_str).filter(|line| line.starts_with("x-")).collect();
        headers.sort_unstable();
        let said = format!("{method} {path} {headers:?} {}", String::from_utf8_lossy(&body));
        let said = if method == "HEAD" { String::new() } else { said };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; a=b\r\ncontent-length: {}\r\n{more}\r\n",
            said.len()
        );
        stream.get_mut().write_all(&[head.as_bytes(), said.as_bytes()].concat())?;
    }
}

#[test]
fn programs_in_assembly_script_keep_state() {
    let setting = Setting::new();
    // With `_start`, and one that is its module's start function.
    for name in ["experimental-http-orders", "as-2021"] {
        let module = guest(name);
        let module = module.to_string_lossy();
        for _ in 0..2 {
            let ended = setting.run(&["run", &module, "--grant", "state=statestore"]);
            assert_eq!(
                (ended.code, ended.out.trim_end()),
                (Some(0), "Test successfully!"),
                "{name}: {ended:?}"
            );
        }
        let denied = setting.run(&["run", &module]);
        assert!(!denied.out.contains("successfully"), "{name}: {denied:?}");
    }
}

#[test]
fn a_program_that_runs_in_its_start_function_is_a_program() {
    let start = |body: &str| {
        format!(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
              (memory (export \"memory\") 1) (func $go {body}) (start $go))"
        )
    };
    let setting = Setting::new();
    setting.file("exit.wat", start("(call $exit (i32.const 7))").as_bytes());
    setting.file("trap.wat", start("unreachable").as_bytes());
    setting.file("spin.wat", start("(loop (br 0))").as_bytes());
    setting.file("fine.wat", start("").as_bytes());
    let cases: [(&[&str], i32, &str); 4] = [
        (&["fine.wat"], 0, ""),
        (&["exit.wat"], 7, ""),
        (&["trap.wat"], 1, "unreachable"),
        (&["--timeout", "200ms", "spin.wat"], 124, "within 0.2 s"),
    ];
    for (args, code, said) in cases {
        let ended = setting.run(&[&["run"], args].concat());
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.err.contains(said), "{args:?}: {ended:?}");
    }
    // As a CGI program it answers requests.
    setting.manifest(
        r#"
        [apps.orders]
        module = `as-2021`
        routes = ["/"]
        grants = { state = ["statestore"] }
        "#,
    );
    let host = setting.up(&[]);
    for _ in 0..3 {
        let answer = host.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "Test successfully!\n"));
    }
    host.stop();
}

#[test]
fn requests_reach_granted_hosts_and_no_others() {
    let setting = Setting::new();
    let server = server();
    let granted = ["--allow-host", &format!("127.0.0.1:{}", server.port())];
    let plain = "text/plain; a=b";
    let answered = |status: u16, more: &str, said: &str| {
        format!("{status}\ncontent-type:{plain}\ncontent-length:{}\n{more}\n{said}\n", said.len())
    };
    // Method, path, headers, body; what the program saw.
    let cases = [
        ("GET", "/", "", "", answered(200, "", "GET / [] ")),
        ("POST", "/p?q=%20#f", "x-a: 1\nX-B:2\nhost: evil\ncontent-length: 99\n", "body", {
            answered(200, "", r#"POST /p?q=%20 ["x-a: 1", "x-b: 2"] body"#)
        }),
        ("DELET", "/", "", "", answered(200, "", "DELETE / [] ")),
        ("get", "/", "", "", answered(200, "", "GET / [] ")),
        ("Patch", "/", "", "x", answered(200, "", "PATCH / [] x")),
        ("delet", "/", "", "", answered(200, "", "DELETE / [] ")),
        ("PROPFIND", "/", "", "", answered(200, "", "PROPFIND / [] ")),
        ("HEAD", "/", "", "", answered(200, "", "")),
        ("POST", "/moved", "x-a: 1", "body", answered(200, "", r#"GET / ["x-a: 1"] "#)),
        ("POST", "/kept", "", "body", answered(200, "", "POST /kept/behind [] body")),
        ("GET", "/teapot", "", "", answered(418, "x-two:1\nx-two:b: c\n", "GET /teapot [] ")),
        ("GET", "/bytes", "", "", answered(200, "x-bytes:\u{80}\n", "GET /bytes [] ")),
        ("GET", "/away", "", "", "error 7\n".into()),
        ("GET", "/round", "", "", "error 11\n".into()),
        ("", "/", "", "", "error 8\n".into()),
        ("A B", "/", "", "", "error 8\n".into()),
        ("GET", "/", "no colon", "", "error 9\n".into()),
        ("GET", "/", "a b: c", "", "error 9\n".into()),
    ];
    for (method, path, headers, body, seen) in cases {
        let url = format!("http://{server}{path}");
        let ended = probe(&setting, &granted, &["send", method, &url, headers, body]);
        assert_eq!(ended.out, seen, "{method} {path}: {ended:?}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (elsewhere, here) = (format!("http://{closed}/"), format!("http://{server}/"));
    // Grants, URL, error.
    let refused: [(&[&str], &str, u32); 8] = [
        (&[], &here, 7),
        (&granted, &elsewhere, 7),
        (&["--allow-host", "*"], &elsewhere, 11),
        (&granted, "not a URL", 10),
        (&granted, "", 10),
        (&granted, "file:///etc/passwd", 10),
        (&granted, "ftp://127.0.0.1/", 10),
        (&granted, "/relative", 10),
    ];
    for (flags, url, error) in refused {
        let ended = probe(&setting, flags, &["send", "GET", url, "", ""]);
        assert_eq!(ended.out, format!("error {error}\n"), "{url}: {ended:?}");
        assert_eq!(ended.err.contains("not granted"), error == 7, "a denial names the grant: {ended:?}");
    }
}

#[test]
fn handles_and_places_are_checked() {
    let setting = Setting::new();
    let server = server();
    let port = format!("127.0.0.1:{}", server.port());
    let url = format!("http://{server}/");
    let granted = ["--allow-host", port.as_str()];
    let handles = probe(&setting, &[], &["handles"]);
    assert_eq!(handles.out, "[0, 1, 1, 1]\n".repeat(3), "{handles:?}");

    let headers = probe(&setting, &granted, &["headers", &url]);
    let plain = "text/plain; a=b";
    let expected = format!("{plain}\n{plain}\n{plain}\n{}", "error 4\nerror 5\nerror 5\nerror 5\nerror 6\n");
    assert_eq!(headers.out, expected, "{headers:?}");

    let places = probe(&setting, &granted, &["places", &url]);
    assert_eq!(places.out, "refused\n".repeat(5), "{places:?}");

    setting.manifest(&format!(
        "[apps.probe]\nmodule = `p1-experimental-http`\nroutes = [\"/\"]\nargs = [\"hold\", {url:?}, \"3\"]\n\
         grants = {{ http = [{port:?}] }}\nlimits = {{ host_calls = 3 }}\n"
    ));
    let host = setting.up(&[]);
    assert_eq!(host.get("/").text(), "[0, 1, 2] Err(13) Ok(3)\n");
    host.stop();
}

#[test]
fn a_response_is_no_larger_than_allowed() {
    let setting = Setting::new();
    let server = server();
    let (port, url) = (format!("127.0.0.1:{}", server.port()), format!("http://{server}/"));
    let long = "x".repeat(100);
    for (body, limits, seen) in [
        ("short", "request_body = \"10B\"", "200\n"),
        (long.as_str(), "request_body = \"10B\"", "error 11\n"),
        (long.as_str(), "response_body = \"200B\"", "200\n"),
        (long.as_str(), "response_body = \"100B\"", "error 11\n"),
    ] {
        setting.manifest(&format!(
            "[apps.probe]\nmodule = `p1-experimental-http`\nroutes = [\"/\"]\n\
             args = [\"send\", \"POST\", {url:?}, \"\", {body:?}]\n\
             grants = {{ http = [{port:?}] }}\nlimits = {{ {limits} }}\n"
        ));
        let host = setting.up(&[]);
        let answer = host.get("/");
        assert!(answer.text().starts_with(seen), "{limits}: {}", answer.text());
        host.stop();
    }
}

#[test]
fn no_call_harms_the_host() {
    let setting = Setting::new();
    for seed in ["1", "20211104", "9007199254740993"] {
        let ended = probe(&setting, &[], &["random", seed, "20000"]);
        assert_eq!(
            (ended.code, ended.out.as_str()),
            (Some(0), "20000 calls\n"),
            "seed {seed}: {}",
            ended.out
        );
        assert!(!ended.err.contains("panicked"), "seed {seed}: {}", ended.err);
    }
}
