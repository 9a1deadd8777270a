//! Registries that are reached through a proxy only: their name is known to it alone.

use crate::support::{Setting, guest};
use crate::{PROGRAM, refused, succeeded, tool};
use dhow_servers::REGISTRY_USER;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// `me:p@ss` in a URL, and as it is sent.
const WHO: (&str, &str) = ("me:p%40ss", "Basic bWU6cEBzcw==");

/// What stands first on each connection to a proxy.
type Heads = Arc<Mutex<Vec<String>>>;

/// A proxy that leads to this address, whatever it is asked for, if it knows who asks.
fn proxy(to: SocketAddr) -> (SocketAddr, Heads) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, heads) = (listener.local_addr().unwrap(), Heads::default());
    let seen = Arc::clone(&heads);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            // A connection that breaks is the client's to notice.
            thread::spawn(move || drop(lead(stream, to, &seen)));
        }
    });
    (addr, heads)
}

fn lead(mut client: TcpStream, to: SocketAddr, seen: &Heads) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 10_000 {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap().push(text.clone());
    if !text
        .to_ascii_lowercase()
        .contains(&format!("proxy-authorization: {}\r\n", WHO.1).to_ascii_lowercase())
    {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n";
        return client.write_all(answer.as_bytes());
    }
    let mut server = TcpStream::connect(to)?;
    match text.starts_with("CONNECT ") {
        true => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?,
        false => server.write_all(&head)?,
    }
    let (mut from, mut into) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let _ = io::copy(&mut from, &mut into);
        let _ = into.shutdown(Shutdown::Write);
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)?;
    back.join().map_err(|_| io::Error::other("the other direction"))
}

/// The first lines of what it was told, without equal ones.
fn asked(heads: &Heads) -> Vec<String> {
    let heads = heads.lock().unwrap();
    let mut lines: Vec<String> =
        heads.iter().filter_map(|head| Some(head.lines().next()?.to_owned())).collect();
    lines.dedup();
    lines
}

#[test]
fn a_registry_with_tls_is_reached_through_a_tunnel() {
    let (registry, certificates) = dhow_servers::docker_registry_with_users().unwrap();
    let (addr, heads) = proxy(registry.address().parse().unwrap());
    let url = format!("http://{}@{addr}", WHO.0);
    let setting = Setting::new().env("HTTPS_PROXY", &url);
    setting.file("ca.pem", certificates.ca.as_bytes());
    let place = format!("registry.test:{}", registry.port());
    let reference = format!("oci://{place}/team/hello:1");
    let (user, password) = REGISTRY_USER;
    let login = ["login", &place, "--username", user, "--password-stdin", "--ca", "ca.pem"];
    succeeded(setting.run_with_input(&login, format!("{password}\n").as_bytes()));
    let module = guest(PROGRAM);
    succeeded(setting.run(&["push", &module.to_string_lossy(), &reference, "--ca", "ca.pem"]));
    let by_reference = succeeded(setting.run(&["run", &reference, "--ca", "ca.pem", "--", "a"]));
    assert_eq!(by_reference.out, succeeded(setting.run(&["run", &module.to_string_lossy(), "--", "a"])).out);
    assert_eq!(asked(&heads), [format!("CONNECT {place} HTTP/1.1")], "nothing else can be read on the way");

    // Others mean the same by these variables.
    setting.file("certs/ca.crt", certificates.ca.as_bytes());
    let (creds, docker) = (format!("{user}:{password}"), format!("docker://{place}/team/hello:1"));
    let inspect = ["inspect", "--raw", "--cert-dir", "certs", "--creds", &creds, &docker];
    let said = tool(setting.path(), "skopeo", &inspect, &[("HTTPS_PROXY", &url)]);
    assert!(said.contains("application/wasm"), "{said}");
    assert_eq!(asked(&heads), [format!("CONNECT {place} HTTP/1.1")]);

    let before = heads.lock().unwrap().len();
    let pull = |name: &str, value: &str| {
        let mut command = setting.dhow(&["pull", &reference, "--ca", "ca.pem"]);
        let output = command.env(name, value).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = pull("NO_PROXY", "example.com, .test");
    assert!(code == Some(1) && said.contains("no answer from"), "{said}");
    assert_eq!(heads.lock().unwrap().len(), before, "not asked");
    assert_eq!(pull("NO_PROXY", "example.com, 10.0.0.0/8").0, Some(0));
    let proxies = [
        (format!("http://{addr}"), "it wants to know who asks (status 407)"),
        (format!("me:secret@{addr}"), "it does not know this user and password (status 407)"),
        ("http://me:secret@127.0.0.1:1".to_owned(), "proxy http://127.0.0.1:1: "),
        ("socks5://me:secret@127.0.0.1:1".to_owned(), "HTTPS_PROXY names no proxy: proxies of SOCKS"),
        // A registry is no proxy, and says so in its way.
        (format!("http://{}", registry.address()), "proxy http://127.0.0.1:"),
    ];
    for (proxy, expected) in proxies {
        let (code, said) = pull("HTTPS_PROXY", &proxy);
        assert!(code == Some(1) && said.contains(expected) && !said.contains("secret"), "{proxy}: {said}");
    }
}

#[test]
fn a_registry_without_tls_is_asked_for_by_the_proxy() {
    let registry = dhow_servers::docker_registry().unwrap();
    let (addr, heads) = proxy(registry.address().parse().unwrap());
    let place = format!("registry.test:{}", registry.port());
    let setting = Setting::new().env("DHOW_INSECURE", &format!("{place},{}", registry.address()));
    let setting = setting.env("http_proxy", &format!("{}@{addr}", WHO.0));
    let module = guest(PROGRAM);
    let reference = format!("oci://{place}/hello:1");
    succeeded(setting.run(&["push", &module.to_string_lossy(), &reference]));
    succeeded(setting.run(&["pull", &reference, "--output", "copy.wasm"]));
    assert_eq!(fs::read(setting.path().join("copy.wasm")).unwrap(), fs::read(&module).unwrap());
    let asked_before = asked(&heads);
    let whole = format!(" http://{place}/v2/");
    assert!(
        !asked_before.is_empty() && asked_before.iter().all(|line| line.contains(&whole)),
        "{asked_before:?}"
    );

    // So are modules behind URLs.
    let layer = dhow_artifacts::digest::Digest::sha256(&fs::read(&module).unwrap());
    succeeded(setting.run(&["inspect", &format!("http://{place}/v2/hello/blobs/{layer}")]));
    let asked_before = asked(&heads);
    assert!(asked_before.last().unwrap().contains(&format!("/blobs/{layer}")), "{asked_before:?}");

    // And searches: this registry has none, and says so by the proxy.
    let searched = refused(setting.run(&["search", "--registry", &format!("http://{place}")]));
    assert!(searched.contains("answers 404"), "{searched}");
    let asked_before = asked(&heads);
    let asked_last = asked_before.last().unwrap();
    assert!(asked_last.starts_with(&format!("GET http://{place}/api/v1/search?")), "{asked_last}");

    // This machine needs no proxy, and nobody else is told who asks one.
    let here = format!("oci://{}/hello:1", registry.address());
    succeeded(setting.run(&["pull", &here]));
    assert_eq!(asked(&heads), asked_before);
    let stranger = Setting::new().env("DHOW_INSECURE", &place).env("HTTP_PROXY", &addr.to_string());
    let error = refused(stranger.run(&["pull", &reference]));
    assert!(error.contains("407"), "{error}");
}
