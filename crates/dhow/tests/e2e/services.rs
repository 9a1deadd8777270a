//! Services: programs with an accept loop of their own, from their start to their last connection.

use crate::support::{Host, Setting, eventually, http, http::Client};
use dhow_servers::mariadb;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

const ECHO: &str = r#"
    [apps.echo]
    module = `http-echo-echo`
    routes = ["/"]
    env = { LISTEN = "127.0.0.1:0" }
    grants = { listen = ["127.0.0.1:0"] }
"#;

/// Where the app said last that it listens, beyond the first `known` times.
fn address(host: &mut Host, app_id: &str, known: usize) -> SocketAddr {
    let said = "the service listens on ";
    eventually("the service to listen", || {
        let lines = host.stderr();
        let mut lines = lines.lines().filter(|line| line.contains(said) && line.contains(app_id));
        let line = lines.nth(known)?.split(said).nth(1)?;
        line.split([' ', '\u{1b}']).next()?.parse().ok()
    })
}

fn check_echo(addr: SocketAddr) {
    let mut client = Client::connect(addr);
    for (method, path, body, status, answer) in [
        ("GET", "/", "", 200, "POST something to /echo or /echo/reversed\n"),
        ("POST", "/echo", "hello", 200, "hello"),
        ("POST", "/echo", "", 200, ""),
        ("POST", "/echo/reversed", "hello", 200, "olleh"),
        ("GET", "/nothing", "", 404, ""),
        ("DELETE", "/echo", "", 404, ""),
    ] {
        let found = client.send(method, path, &[], body.as_bytes());
        assert_eq!((found.status, found.text().as_str()), (status, answer), "{method} {path}");
    }
    let large = "0123456789abcdef".repeat(64 << 10);
    assert_eq!(client.send("POST", "/echo", &[], large.as_bytes()).text(), large);
}

#[test]
fn a_service_is_reached_at_its_port_through_the_router_and_by_apps() {
    let setting = Setting::with_manifest(ECHO);
    let mut host = setting.up(&[]);
    // The router waits until it listens.
    check_echo(host.addr);
    let addr = address(&mut host, "echo", 0);
    check_echo(addr);
    let invoked = host.dapr("POST", "/v1.0/invoke/echo/method/echo/reversed", &[], "abc");
    assert_eq!((invoked.status, invoked.text().as_str()), (200, "cba"));
    let listed = setting.run(&["ps", "--json"]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let service = &listed["hosts"][0]["apps"][0]["service"];
    assert_eq!((&service["state"], &service["address"]), (&json!("running"), &json!(addr.to_string())));
    assert!(setting.run(&["ps"]).out.contains("running"));
    assert_eq!(host.metric("dhow_service_running", "echo"), 1.0);
    host.stop();
}

#[test]
fn a_thousand_connections_are_open_at_once() {
    let setting = Setting::with_manifest(ECHO);
    let mut host = setting.up(&[]);
    let addr = address(&mut host, "echo", 0);
    // Together they are all open; no thread holds more than a few hundred.
    let open = &std::sync::Barrier::new(4);
    thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                let mut clients: Vec<Client> = (0..250).map(|_| Client::connect(addr)).collect();
                open.wait();
                for _ in 0..2 {
                    for (index, client) in clients.iter_mut().enumerate().rev() {
                        let body = format!("{number} {index}");
                        assert_eq!(client.send("POST", "/echo", &[], body.as_bytes()).text(), body);
                    }
                }
                open.wait();
            });
        }
    });
    host.stop();
}

#[test]
fn what_ends_is_started_again_later_and_later() {
    let manifest = "[apps.std]\nmodule = `sock-std`\ngrants = { listen = [\"127.0.0.1:0\"] }\n\
                    [apps.denied]\nmodule = `sock-std`\ngrants = { listen = [\"127.0.0.1:9\"] }\n";
    let setting = Setting::with_manifest(manifest);
    let mut host = setting.up(&[]);
    for known in 0..2 {
        let addr = address(&mut host, "std", known);
        let echo = |text: &[u8]| {
            use std::io::{Read, Write};
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(text).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, text);
        };
        echo(b"first");
        echo(b"second");
        echo(b"end");
        let ends = || host.stderr().matches("the service ended: exit code 0; it is started again").count();
        eventually("the restart", || (ends() == known + 1).then_some(()));
        assert!(TcpStream::connect(addr).is_err());
    }
    assert_eq!(host.metric("dhow_service_restarts_total", "std"), 2.0);
    // One that cannot begin is tried again, ever more seldom.
    host.line(|line| line.contains("denied") && line.contains("add it to `listen`"));
    eventually("restarts", || (host.metric("dhow_service_restarts_total", "denied") >= 3.0).then_some(()));
    let listed = setting.run(&["ps", "--json"]).out;
    assert!(listed.contains("exit code 1"), "{listed}");
    host.stop();
}

#[test]
fn connections_under_way_end_before_a_service_does() {
    let setting = Setting::with_manifest(ECHO);
    let mut host = setting.up(&[]);
    let addr = address(&mut host, "echo", 0);
    drains(addr, || host.signal(libc::SIGTERM));
    assert_eq!(host.wait().code(), Some(0), "{}", host.stderr());

    let flags = ["--grant", "listen=127.0.0.1:0", "-e", "LISTEN=127.0.0.1:0"];
    let mut program = setting.program("http-echo-echo", &flags, &[]);
    let addr = program.address();
    drains(addr, || program.signal(libc::SIGINT));
    assert_eq!(program.ended().0, Some(0));
}

/// Has a service stopped while requests are under way, and checks that they are answered.
fn drains(addr: SocketAddr, stop: impl FnOnce()) {
    let mut slow = Client::connect(addr);
    slow.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe").unwrap();
    let mut other = Client::connect(addr);
    assert_eq!(other.send("POST", "/echo", &[], b"x").text(), "x");
    stop();
    eventually("the port to close", || TcpStream::connect(addr).is_err().then_some(()));
    slow.write(b"llo").unwrap();
    assert_eq!(slow.response("POST").unwrap().text(), "hello");
    assert_eq!(other.send("POST", "/echo", &[], b"y").text(), "y");
}

#[test]
fn a_connection_that_does_not_end_is_cut_off_after_the_drain_time() {
    let setting = Setting::with_manifest(ECHO);
    let mut host = setting.up(&[]);
    let mut idle = Client::connect(address(&mut host, "echo", 0));
    assert_eq!(idle.send("POST", "/echo", &[], b"x").text(), "x");
    let since = Instant::now();
    host.signal(libc::SIGTERM);
    assert!(idle.is_closed());
    assert!(since.elapsed() >= Duration::from_secs(9), "{:?}", since.elapsed());
    assert_eq!(host.wait().code(), Some(0));
    assert!(host.stderr().contains("1 connections of the service were cut off"), "{}", host.stderr());
}

#[test]
fn a_new_version_takes_over_and_the_old_one_finishes() {
    let setting = Setting::with_manifest(ECHO);
    let mut host = setting.up(&["--watch"]);
    let old = address(&mut host, "echo", 0);
    let mut client = Client::connect(old);
    assert_eq!(client.send("POST", "/echo", &[], b"1").text(), "1");
    // The new version has the very port of the old one.
    let fixed = ECHO.replace("127.0.0.1:0", &old.to_string());
    setting.manifest(&fixed);
    let new = address(&mut host, "echo", 1);
    assert_eq!(new, old);
    check_echo(new);
    assert_eq!(client.send("POST", "/echo", &[], b"2").text(), "2", "the old connection goes on");
    check_echo(host.addr);
    drop(client);
    setting.manifest("[apps.other]\nmodule = `http-hello`\nroutes = [\"/\"]\n");
    eventually("the port to close", || TcpStream::connect(new).is_err().then_some(()));
    host.stop();
}

#[test]
fn a_new_version_takes_datagrams_over() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let manifest = |name: &str| {
        format!(
            "[apps.udp]\nmodule = `sock-udp`\nenv = {{ LISTEN = \"{port}\", NAME = \"{name} \" }}\n\
             grants = {{ listen = [\"{port}\"], connect = [\"127.0.0.1\"] }}\n"
        )
    };
    let setting = Setting::with_manifest(&manifest("old"));
    let host = setting.up(&["--watch"]);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(port).unwrap();
    let ask = |limit: Duration| {
        let mut buffer = [0; 64];
        client.set_read_timeout(Some(limit)).unwrap();
        client.send(b"x").and_then(|_| client.recv(&mut buffer)).ok().map(|length| buffer[..length].to_vec())
    };
    let said = eventually("the service to answer", || ask(Duration::from_millis(200)));
    assert_eq!(said, b"old x");
    for (before, now) in [("old", "new"), ("new", "newer")] {
        setting.manifest(&manifest(now));
        // Nobody waits for an answer in vain while one takes the place of the other.
        eventually("the new version", || match ask(Duration::from_secs(5)) {
            Some(said) if said == format!("{now} x").as_bytes() => Some(()),
            Some(said) if said == format!("{before} x").as_bytes() => None,
            other => panic!("{other:?} was said"),
        });
        // From then on it is the only one.
        thread::sleep(Duration::from_millis(1500));
        for _ in 0..20 {
            assert_eq!(ask(Duration::from_secs(5)).unwrap(), format!("{now} x").as_bytes());
        }
    }
    assert_eq!(host.metric("dhow_service_restarts_total", "udp"), 0.0);
    host.stop();
}

#[test]
fn orders_are_kept_in_a_database() {
    let database = mariadb().unwrap();
    let url = format!("mysql://dhow:secret@{}/mysql", database.address());
    let manifest = format!(
        "[apps.orders]\nmodule = `order-service-orders`\nroutes = [\"/\"]\n\
         env = {{ LISTEN = \"127.0.0.1:0\", DATABASE_URL = {url:?} }}\n\
         grants = {{ listen = [\"127.0.0.1:0\"], connect = [{:?}] }}\n",
        database.address()
    );
    let setting = Setting::with_manifest(&manifest);
    let mut host = setting.up(&[]);
    let mut client = Client::connect(address(&mut host, "orders", 0));
    let mut call = |method: &str, path: &str, body: &Value| {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = client.send(method, path, &[], body.as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    };
    let order = |id: i32, quantity: i32, amount: f32| {
        json!({
            "order_id": id, "product_id": 12, "quantity": quantity, "amount": amount, "shipping": 0.0, "tax": 2.5,
            "shipping_address": "Mataderos 2312",
        })
    };
    let done = json!({ "status": true });
    assert_eq!(call("GET", "/init", &Value::Null), done);
    assert_eq!(call("POST", "/create_order", &order(1, 2, 56.0)), done);
    let more: Vec<Value> = (2..=5).map(|id| order(id, id, 536.0)).collect();
    assert_eq!(call("POST", "/create_orders", &json!(more)), done);
    assert_eq!(call("POST", "/update_order", &order(3, 2, 56.0)), done);
    assert_eq!(call("GET", "/delete_order?id=2", &Value::Null), done);
    let orders = call("GET", "/orders", &Value::Null);
    let quantities: Vec<_> =
        orders.as_array().unwrap().iter().map(|order| (&order["order_id"], &order["quantity"])).collect();
    assert_eq!(
        quantities,
        [(&json!(1), &json!(2)), (&json!(3), &json!(2)), (&json!(4), &json!(4)), (&json!(5), &json!(5))]
    );
    assert_eq!(call("OPTIONS", "/orders", &Value::Null), Value::Null);
    drop(client);
    host.stop();
}

#[test]
fn an_image_service_calls_dapr_within_the_process() {
    let manifest = r#"
        [apps.image]
        module = `sock-image`
        routes = ["/"]
        env = { LISTEN = "127.0.0.1:0", DAPR_HTTP_PORT = "3999" }
        grants = { listen = ["127.0.0.1:0"], state = ["statestore"], invoke = ["events"], secrets = ["local-store"] }

        [apps.events]
        module = `http-echo`
    "#;
    let setting = Setting::with_manifest(manifest);
    setting.file("secrets.json", br#"{ "API_KEY": "s3cret" }"#);
    let secrets = setting.path().join("secrets.json");
    let component = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{ name: local-store }}\nspec:\n  \
         type: secretstores.local.file\n  version: v1\n  metadata: [{{ name: secretsFile, value: {secrets:?} }}]\n"
    );
    setting.file("resources/secrets.yaml", component.as_bytes());
    let mut host = setting.up(&[]);
    let addr = address(&mut host, "image", 0);
    assert_eq!(http::get(addr, "/healthz").status, 200);
    let image = png(1400, 1000);
    assert!(image.len() > 4 << 20);
    let grey = http::send(addr, "POST", "/grayscale", &[], &image);
    assert_eq!(grey.status, 200, "{}", grey.text());
    // A PNG in Base64, and much smaller than one in colours.
    assert!(grey.text().starts_with("iVBORw0KGgo") && grey.body.len() < image.len(), "{}", grey.body.len());
    let broken = http::send(addr, "POST", "/grayscale", &[], b"no image");
    assert_eq!(broken.status, 500);
    assert!(!host.stderr().contains("not granted"), "{}", host.stderr());
    host.stop();
}

/// An image of noise, as PNG without compression.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut seed = 7_u32;
    let mut rows = Vec::new();
    for _ in 0..height {
        // No filter.
        rows.extend([0]);
        for _ in 0..width * 3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            rows.push((seed >> 24) as u8);
        }
    }
    let mut data = vec![0x78, 1];
    let blocks: Vec<&[u8]> = rows.chunks(0xffff).collect();
    for (index, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        data.push(u8::from(index + 1 == blocks.len()));
        data.extend(length.to_le_bytes());
        data.extend((!length).to_le_bytes());
        data.extend_from_slice(block);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in &rows {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    data.extend((high << 16 | low).to_be_bytes());
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    let head = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (name, content) in [(b"IHDR", head.as_slice()), (b"IDAT", &data), (b"IEND", &[])] {
        let chunk = [&name[..], content].concat();
        image.extend((content.len() as u32).to_be_bytes());
        image.extend_from_slice(&chunk);
        image.extend(crc(&chunk).to_be_bytes());
    }
    image
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// The same, as a component: its sockets are those of wasi:sockets.
const COMPONENT: &str = r#"
    [apps.echo]
    module = `p2-service`
    routes = ["/"]
    env = { LISTEN = "127.0.0.1:0", DAPR_HTTP_PORT = "3999", ELSEWHERE = "127.0.0.1:9" }
    grants = { listen = ["127.0.0.1:0"], state = ["statestore"] }
"#;

#[test]
fn a_component_that_listens_is_a_service() {
    let setting = Setting::with_manifest(COMPONENT);
    let mut host = setting.up(&[]);
    // The router waits until it listens.
    assert_eq!(http::get(host.addr, "/").text(), "a component\n");
    let addr = address(&mut host, "echo", 0);
    assert_eq!(http::send(addr, "POST", "/echo", &[], b"hello").text(), "hello");
    let large = vec![b'x'; 3 << 20];
    assert!(http::send(addr, "POST", "/echo", &[], &large).body == large, "3 MiB came back as others");
    let invoked = host.dapr("POST", "/v1.0/invoke/echo/method/echo", &[], "abc");
    assert_eq!((invoked.status, invoked.text().as_str()), (200, "abc"));
    // Nothing listens on the port of its Dapr endpoint: the connection never leaves the process.
    assert!(TcpStream::connect("127.0.0.1:3999").is_err());
    assert_eq!(http::get(addr, "/state").text(), "200 \"hello from a socket\"");
    let denied = http::get(addr, "/connect");
    assert_eq!((denied.status, denied.text().as_str()), (502, "PermissionDenied"));
    // When it ends it is started again.
    assert_eq!(http::get(addr, "/end").status, 200);
    let again = address(&mut host, "echo", 1);
    assert_eq!(http::send(again, "POST", "/echo", &[], b"again").text(), "again");
    assert_eq!(host.metric("dhow_service_restarts_total", "echo"), 1.0);
    host.stop();
}

#[test]
fn a_component_connects_to_what_a_granted_name_led_to() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (elsewhere, granted, expected) in [
        ("localhost", "localhost", "connected"),
        ("127.0.0.1", "localhost", "PermissionDenied"),
        ("127.0.0.1", "127.0.0.1", "connected"),
    ] {
        let manifest = COMPONENT
            .replace("127.0.0.1:9", &format!("{elsewhere}:{port}"))
            .replace("state = [", &format!("connect = [\"{granted}:{port}\"], state = ["));
        let host = Setting::with_manifest(&manifest).up(&[]);
        assert_eq!(http::get(host.addr, "/connect").text(), expected, "{elsewhere}, granted {granted}");
        host.stop();
    }
}

#[test]
fn a_component_service_ends_after_its_connections() {
    let setting = Setting::with_manifest(COMPONENT);
    let mut host = setting.up(&["--watch"]);
    let addr = address(&mut host, "echo", 0);
    // A new version waits for its port until the old one has ended, which it does when nobody is connected.
    let mut slow = Client::connect(addr);
    slow.write(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe").unwrap();
    eventually("the connection", || {
        let listed: Value = serde_json::from_str(&setting.run(&["ps", "--json"]).out).ok()?;
        (listed["hosts"][0]["apps"][0]["service"]["connections"] == json!(1)).then_some(())
    });
    setting.manifest(&COMPONENT.replace("127.0.0.1:0", &addr.to_string()));
    eventually("the new version to wait", || setting.run(&["ps"]).out.contains("registered").then_some(()));
    slow.write(b"llo").unwrap();
    assert_eq!(slow.response("POST").unwrap().text(), "hello");
    let since = Instant::now();
    assert_eq!(address(&mut host, "echo", 1), addr);
    assert_eq!(http::send(addr, "POST", "/echo", &[], b"new").text(), "new");
    host.stop();
    assert!(since.elapsed() < Duration::from_secs(9), "it waited for connections that were closed");
}
