//! Artifacts on web servers and in Git.

use crate::{Desk, node};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Python's own web server over a folder: with a password it takes files, too, and `/elsewhere/` leads to `/`.
const SITE: &str = r#"
import base64, http.server, os, sys
class Site(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/elsewhere/"):
            self.send_response(302)
            self.send_header("Location", self.path[len("/elsewhere"):])
            self.end_headers()
        elif self.path.startswith("/private/") and not self.known():
            self.send_error(401)
        elif self.path.startswith("/asked/") and self.headers.get("X-Asked") != "yes":
            self.send_error(403)
        else:
            super().do_GET()
    def do_PUT(self):
        if not self.known():
            return self.send_error(401)
        assert self.headers["Transfer-Encoding"] == "chunked"
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        with open("." + self.path, "wb") as file:
            file.write(content)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def known(self):
        expected = "Basic " + base64.b64encode(b"user:pass word").decode()
        return self.headers.get("Authorization") == expected
    def log_message(self, *args): pass
os.chdir(sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn site(folder: &Path) -> Server {
        let mut command = Command::new("python3");
        command.args(["-c", SITE]).arg(folder).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Server { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SECRET: &str = "\
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {name: user, password: pass word}
";

#[test]
fn files_of_web_servers_come_and_go() {
    let desk = Desk::new();
    for folder in ["site", "site/private", "site/asked"] {
        std::fs::create_dir(desk.path(folder)).unwrap();
    }
    for (file, text) in [("open", "open"), ("private/file", "private"), ("asked/file", "asked")] {
        std::fs::write(desk.path(&format!("site/{file}")), text).unwrap();
    }
    let server = Server::site(&desk.path("site"));
    let url = format!("http://127.0.0.1:{}", server.port);
    std::fs::write(desk.path("secret.yaml"), SECRET).unwrap();
    let auth = "auth: {basicAuth: {usernameSecret: {name: login, key: name}, passwordSecret: {name: login, key: password}}}";
    desk.workflow(
        "web",
        &format!(
            r#"
  entrypoint: main
  templates:
  - name: main
    steps:
    - - {{name: open, template: cat, arguments: {{artifacts: [{{name: f, http: {{url: "{url}/elsewhere/open"}}}}]}}}}
      - {{name: private, template: cat, arguments: {{artifacts: [{{name: f, http: {{url: "{url}/private/file", {auth}}}}}]}}}}
      - {{name: asked, template: cat, arguments: {{artifacts: [{{name: f, http: {{url: "{url}/asked/file", headers: [{{name: X-Asked, value: "yes"}}]}}}}]}}}}
      - {{name: raw, template: cat, arguments: {{artifacts: [{{name: f, raw: {{data: raw text}}}}]}}}}
      - {{name: put, template: put}}
    - - {{name: back, template: cat, arguments: {{artifacts: [{{name: f, from: "{{{{steps.put.outputs.artifacts.f}}}}"}}]}}}}
      - {{name: refused, template: cat, continueOn: {{error: true}}, arguments: {{artifacts: [{{name: f, http: {{url: "{url}/private/file"}}}}]}}}}
      - {{name: gone, template: cat, continueOn: {{error: true}}, arguments: {{artifacts: [{{name: f, http: {{url: "{url}/gone"}}}}]}}}}
  - name: cat
    inputs: {{artifacts: [{{name: f, path: /in/f, mode: 0400}}]}}
    wasm: {{image: tool.wasm, args: [cat, /in/f]}}
  - name: put
    wasm: {{image: tool.wasm, args: [write, /out/f, written]}}
    outputs: {{artifacts: [{{name: f, path: /out/f, archive: {{none: {{}}}}, http: {{url: "{url}/put", {auth}}}}}]}}
"#
        ),
    );
    let ended = desk.dhow(&["workflow", "run", "web.yaml", "--artifact-repository", "secret.yaml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("web");
    for (step, result) in [
        ("open", "open"),
        ("private", "private"),
        ("asked", "asked"),
        ("raw", "raw text"),
        ("back", "written"),
    ] {
        assert_eq!(node(&status, step)["outputs"]["result"], result, "{step}");
    }
    assert_eq!(std::fs::read_to_string(desk.path("site/put")).unwrap(), "written");
    for (step, said) in [("refused", "401"), ("gone", "there is nothing")] {
        let node = node(&status, step);
        assert!(node["phase"] == "Error" && node["message"].as_str().unwrap().contains(said), "{node}");
    }
}

fn git(folder: &Path, args: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_repository_of_git_is_an_input() {
    let desk = Desk::new();
    let source = desk.path("source");
    std::fs::create_dir(&source).unwrap();
    git(&source, &["init", "--quiet"]);
    for (text, tag) in [("one", "v1"), ("two", "v2")] {
        std::fs::write(source.join("file"), text).unwrap();
        git(&source, &["add", "."]);
        git(&source, &["commit", "--quiet", "-m", text]);
        git(&source, &["tag", tag]);
    }
    git(&source, &["checkout", "--quiet", "-b", "side"]);
    std::fs::write(source.join("file"), "side").unwrap();
    git(&source, &["commit", "--quiet", "-am", "side"]);
    git(&source, &["checkout", "--quiet", "main"]);
    std::fs::create_dir(desk.path("site")).unwrap();
    git(desk.path("site").as_path(), &["clone", "--quiet", "--bare", &source.to_string_lossy(), "r.git"]);
    git(&desk.path("site/r.git"), &["update-server-info"]);
    let server = Server::site(&desk.path("site"));
    let repo = format!("repo: \"http://127.0.0.1:{}/r.git\"", server.port);
    let steps: String = [
        ("newest", repo.clone()),
        ("tagged", format!("{repo}, revision: v1")),
        ("branch", format!("{repo}, revision: side")),
        ("single", format!("{repo}, branch: side, singleBranch: true")),
        ("nothing", format!("{repo}, revision: v9")),
        ("option", format!("{repo}, revision: \"--detach\"")),
        ("file", format!("repo: \"{}\"", source.display())),
        ("program", "repo: \"ext::sh -c touch% /tmp/evil\"".to_owned()),
    ]
    .iter()
    .map(|(name, git)| {
        format!(
            "    - - {{name: {name}, template: cat, continueOn: {{error: true}}, arguments: {{artifacts: [{{name: r, \
             git: {{{git}}}}}]}}}}\n"
        )
    })
    .collect();
    desk.workflow(
        "git",
        &format!(
            r#"
  entrypoint: main
  templates:
  - name: main
    steps:
{steps}  - name: cat
    inputs: {{artifacts: [{{name: r, path: /src/repo}}]}}
    wasm: {{image: tool.wasm, args: [cat, /src/repo/file]}}
"#
        ),
    );
    let ended = desk.dhow(&["workflow", "run", "git.yaml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let status = desk.status("git");
    for (step, result) in [("newest", "two"), ("tagged", "one"), ("branch", "side"), ("single", "side")] {
        assert_eq!(node(&status, step)["outputs"]["result"], result, "{step}");
    }
    for (step, said) in
        [("nothing", "v9"), ("option", "is no name"), ("file", "not allowed"), ("program", "not allowed")]
    {
        let node = node(&status, step);
        assert!(node["phase"] == "Error" && node["message"].as_str().unwrap().contains(said), "{node}");
    }
}
