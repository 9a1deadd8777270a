//! Starts the bookshop: six apps in four languages that a user can try with curl and a browser.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::env::Env;
use crate::guests;
use crate::process::{self, cannot_start, command};

const EXAMPLE: &str = "bookshop";

/// Compiling six modules with no cache takes seconds for each on a slow machine.
const START: Duration = Duration::from_secs(180);

/// What somebody does upon an event or by the clock is there after this time, on a slow machine.
const EFFECT: Duration = Duration::from_secs(60);

/// What to ask: method, path, body, and what the answer must contain, at once or soon.
const QUESTIONS: [(&str, &str, &str, &str); 9] = [
    ("GET", "/", "", "<title>"),
    ("GET", "/books", "", "isbn"),
    ("POST", "/orders", r#"{"isbn": "978-0-441-17271-9", "quantity": 2}"#, "978-0-441-17271-9"),
    ("GET", "/recommend/978-0-441-17271-9", "", "isbn"),
    ("GET", "/report", "", "revenue_cents"),
    // Two apps hear of an order: one writes a letter, one fills up what has become scarce.
    ("POST", "/orders", r#"{"isbn": "978-0-06-051275-1", "quantity": 3}"#, r#""left":5"#),
    ("GET", "/letters", "", "The Dispossessed"),
    ("GET", "/books", "", r#""stock":55"#),
    // By the clock.
    ("GET", "/report/nightly", "", r#""copies":5"#),
];

/// A host that is stopped when this goes out of scope.
struct Host(Child);

/// `--once` asks every question, prints the answers and stops; else the host runs until Ctrl-C.
pub fn run(args: &[String], env: &Env) -> Result<(), String> {
    let once = match args {
        [] => false,
        [only] if only == "--once" => true,
        _ => return Err(format!("demo takes --once or nothing, not {}", args.join(" "))),
    };
    println!("compiling the apps");
    guests::example(EXAMPLE, env)?;
    println!("compiling dhow");
    // With an example, dev-dependencies count for cargo, as they do in `cargo xtask test`: else the two would compile
    // most crates twice, with other features.
    let build = ["build", "--release", "--workspace", "--bin", "dhow", "--example", "state_latency"];
    process::run(command(env, "cargo").args(build))?;

    // Free ports for a run that nobody watches; the usual ones for a run that a user looks at.
    let addr = if once { free_port()? } else { "127.0.0.1:8080".to_owned() };
    let data = env.target.join(if once { format!("demo-{}", std::process::id()) } else { "demo".to_owned() });
    let program = env.target.join("release/dhow");
    let example = env.root.join("examples").join(EXAMPLE);
    // A shop of its own: what an earlier one sold would change the answers of a run that nobody watches, and modules that
    // are signed are not those that were built.
    let shop = data.join("shop");
    for part in ["dhow.toml", "resources", "data", "build", "sign.sh"] {
        copy(&example.join(part), &shop.join(part))?;
    }
    println!("signing the apps");
    let mut sign = command(env, "sh");
    sign.arg("sign.sh").current_dir(&shop).env("DHOW", &program).env("DHOW_KEYS", data.join("keys"));
    process::run(&mut sign)?;
    let mut dhow = command(env, &program.to_string_lossy());
    dhow.current_dir(&shop);
    dhow.args(["up", "dhow.toml", "--require-signed", "--trust", "build/trust.txt"]);
    dhow.args(["--addr", &addr, "--data-dir"]).arg(&data);
    if once {
        dhow.args(["--api-addr", &free_port()?, "--management-addr", &free_port()?]);
    }
    dhow.stdin(Stdio::null());
    let mut host = Host(dhow.spawn().map_err(|e| cannot_start(&dhow, &e))?);
    wait_until_ready(&mut host, &addr)?;

    if once {
        let answered = QUESTIONS.iter().try_for_each(|(method, path, body, expected)| {
            println!("\n$ {}", curl(&addr, method, path, body));
            let (status, answer) = ask_until(&addr, method, path, body, expected)?;
            println!("{status} {}", answer.trim_end());
            let good = is_good(status, &answer, expected);
            if good { Ok(()) } else { Err(format!("{method} {path} answered {status} without {expected:?}")) }
        });
        drop(host);
        let _ = fs::remove_dir_all(&data);
        return answered;
    }
    println!("\nThe bookshop is open at http://{addr}/. Try:\n");
    for (method, path, body, _) in QUESTIONS {
        println!("  {}", curl(&addr, method, path, body));
    }
    println!("\nCtrl-C closes it.");
    let status = host.0.wait().map_err(|e| format!("waiting for dhow: {e}"))?;
    ended(status)
}

/// Copies a file, or a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let at = |e: std::io::Error| format!("{} to {}: {e}", from.display(), to.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(at)?;
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ()).map_err(at);
    }
    for entry in fs::read_dir(from).map_err(at)? {
        let entry = entry.map_err(at)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn ended(status: ExitStatus) -> Result<(), String> {
    if status.success() { Ok(()) } else { Err(format!("dhow ended with {status}")) }
}

fn wait_until_ready(host: &mut Host, addr: &str) -> Result<(), String> {
    let from = Instant::now();
    while from.elapsed() < START {
        if let Some(status) = host.0.try_wait().map_err(|e| format!("waiting for dhow: {e}"))? {
            return Err(format!("dhow ended before it was ready: {status}"));
        }
        if ask(addr, "GET", "/", "").is_ok_and(|(status, _)| status == 200) {
            println!("ready after {:.1} s", from.elapsed().as_secs_f64());
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(format!("dhow did not answer on http://{addr}/ within {} s", START.as_secs()))
}

fn is_good(status: u16, answer: &str, expected: &str) -> bool {
    (200..300).contains(&status) && answer.contains(expected)
}

/// Asks a question that changes nothing again until the answer is as expected; the last answer.
fn ask_until(
    addr: &str,
    method: &str,
    path: &str,
    body: &str,
    expected: &str,
) -> Result<(u16, String), String> {
    let from = Instant::now();
    loop {
        let (status, answer) = ask(addr, method, path, body)?;
        if is_good(status, &answer, expected) || method != "GET" || from.elapsed() > EFFECT {
            return Ok((status, answer));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn curl(addr: &str, method: &str, path: &str, body: &str) -> String {
    if body.is_empty() {
        return format!("curl http://{addr}{path}");
    }
    format!("curl -X {method} -H 'content-type: application/json' -d '{body}' http://{addr}{path}")
}

/// One request over HTTP/1.0, so that the end of the connection is the end of the answer.
fn ask(addr: &str, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    let at = |e: std::io::Error| format!("{method} http://{addr}{path}: {e}");
    let mut stream = TcpStream::connect(addr).map_err(at)?;
    stream.set_read_timeout(Some(START)).map_err(at)?;
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nhost: {addr}\r\n{kind}content-length: {length}\r\n\r\n{body}"
    )
    .map_err(at)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(at)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| format!("{method} http://{addr}{path}: no HTTP answer"))?, body.to_owned()))
}

fn free_port() -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    listener.map(|addr| addr.to_string()).map_err(|e| format!("no free port: {e}"))
}

// === impl Host ===

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
