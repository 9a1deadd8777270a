//! `dhow up`: routes, what the manifest gives each app, and speaking with the host from outside.

use crate::support::Setting;
use serde_json::{Value, json};

#[test]
fn requests_find_their_app() {
    let app = |id: &str, rest: &str| {
        format!("[apps.{id}]\nmodule = `p1-command`\nargs = [\"args\", \"{id}\"]\n{rest}\n")
    };
    let manifest = [
        app("root", "routes = [\"/\"]"),
        app("shop", "routes = [\"/shop\", \"/store/\"]"),
        app("deep", "route = \"/shop/admin\""),
        app("exact", "routes = [\"/\"]\nhosts = [\"a.example.com\"]"),
        app("wild", "routes = [\"/\"]\nhosts = [\"*.example.com\"]"),
        app("part", "routes = [\"/only\"]\nhosts = [\"part.test\", \"b.part.test\"]"),
        app("hidden", ""),
    ];
    let setting = Setting::with_manifest(&manifest.concat());
    let host = setting.up(&[]);
    // Host name, path, app.
    let cases = [
        ("any", "/", "root"),
        ("any", "/x", "root"),
        ("any", "/shop", "shop"),
        ("any", "/shop/", "shop"),
        ("any", "/shop?x=/shop/admin", "shop"),
        ("any", "/shop/1/2", "shop"),
        ("any", "/shopping", "root"),
        ("any", "/store", "shop"),
        ("any", "/store/1", "shop"),
        ("any", "/shop/admin", "deep"),
        ("any", "/shop/admin/x", "deep"),
        ("any", "/shop/administrator", "shop"),
        ("any", "/hidden", "root"),
        ("a.example.com", "/shop", "exact"),
        ("A.Example.COM:8080", "/x", "exact"),
        ("a.example.com.", "/x", "exact"),
        ("b.example.com.:8080", "/x", "wild"),
        ("b.example.com", "/x", "wild"),
        ("c.b.example.com", "/x", "wild"),
        ("example.com", "/x", "root"),
        ("notexample.com", "/x", "root"),
        ("part.test", "/only/x", "part"),
        ("b.part.test", "/only", "part"),
        ("part.test", "/shop", "shop"),
    ];
    for (name, path, expected) in cases {
        let answer = host.send("GET", path, &[("host", name)], b"");
        assert_eq!(answer.json(), json!(["args", expected]), "{name} {path}");
    }
    host.stop();

    let setting = Setting::with_manifest(&app("shop", "routes = [\"/shop\"]"));
    let host = setting.up(&[]);
    let unknown = host.get("/other");
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("no app has a route for /other"), "{}", unknown.text());
    host.stop();
}

#[test]
fn apps_get_what_the_manifest_says() {
    let setting = Setting::with_manifest(
        r#"
        [apps.env]
        module = `p1-command`
        args = ["env"]
        env = { COLOR = "blue", DAPR_HTTP_PORT = "4711" }
        routes = ["/env"]
        [apps.cat]
        module = `p1-command`
        args = ["cat", "/data/note.txt"]
        dirs = [{ host = "files", guest = "/data" }]
        routes = ["/cat"]
        [apps.read-only]
        module = `p1-command`
        args = ["write", "/data/new.txt", "x"]
        dirs = [{ host = "files", guest = "/data" }]
        routes = ["/read-only"]
        [apps.write]
        module = `p1-command`
        args = ["write", "/data/new.txt", "x"]
        dirs = [{ host = "files", guest = "/data", write = true }]
        routes = ["/write"]
        "#,
    )
    .env("SECRET_OF_THE_HOST", "1");
    setting.file("files/note.txt", b"noted");
    let host = setting.up(&[]);
    let env = host.get("/env").json();
    for (name, value) in [
        ("COLOR", json!("blue")),
        ("APP_ID", json!("env")),
        ("DAPR_HTTP_PORT", json!("4711")),
        ("SECRET_OF_THE_HOST", Value::Null),
    ] {
        assert_eq!(env[name], value, "{name}: {env}");
    }
    let new = setting.path().join("files/new.txt");
    assert_eq!(host.get("/cat").text(), "noted");
    assert_eq!((host.get("/read-only").status, new.exists()), (500, false));
    assert_eq!((host.get("/write").status, new.exists()), (200, true));
    host.stop();
}

#[test]
fn the_command_line_speaks_with_the_host() {
    let setting = Setting::with_manifest(
        r#"
        [apps.echo]
        module = `http-echo`
        [apps.talks]
        module = `p1-command`
        args = ["stderr", "said aloud"]
        routes = ["/talks"]
        [apps.named]
        module = `http-echo`
        hosts = ["mis.test", "*.mis.test"]
        "#,
    );
    let mut host = setting.up(&[]);
    assert_eq!(host.get("/talks").status, 200);
    host.line(|line| line.contains("talks: said aloud"));

    let ps = setting.run(&["ps", "--json"]);
    let ps: Value = serde_json::from_str(&ps.out).unwrap();
    let listed = &ps["hosts"][0];
    assert_eq!((ps["hosts"].as_array().unwrap().len(), &listed["pid"]), (1, &json!(host.pid())), "{ps}");
    let apps: Vec<Value> =
        listed["apps"].as_array().unwrap().iter().map(|app| json!([app["appId"], app["routes"]])).collect();
    assert_eq!(json!(apps), json!([["echo", []], ["named", ["/"]], ["talks", ["/talks"]]]), "{ps}");
    let table = setting.run(&["ps"]);
    assert!(table.out.contains("/ for mis.test, *.mis.test"), "{table:?}");

    let logs = setting.run(&["logs", "talks"]);
    assert!(logs.code == Some(0) && logs.out.contains("talks stderr: said aloud"), "{logs:?}");

    // Arguments behind the app, exit code, part of the output.
    let cases: [(&[&str], i32, &str); 4] = [
        (&["echo", "/a?b=c"], 0, "\"query\":\"b=c\""),
        (&["echo", "/x", "-d", "12345"], 0, "\"bodyLength\":5"),
        (&["echo", "/status/404"], 1, ""),
        (&["absent"], 1, ""),
    ];
    for (args, code, out) in cases {
        let ended = setting.run(&[&["invoke"], args].concat());
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
        assert!(ended.out.contains(out), "{args:?}: {ended:?}");
    }
    let stopped = setting.run(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert_eq!(host.wait().code(), Some(0), "{}", host.stderr());
    let ps = setting.run(&["ps"]);
    assert!(ps.out.contains("No host is running"), "{ps:?}");
}
