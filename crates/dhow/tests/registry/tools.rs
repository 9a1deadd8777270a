//! Clients that we did not write push to the registry and pull from it: skopeo, podman, buildah, containerd, and ORAS'
//! SDK for Python.

use crate::access::with_users;
use crate::client::*;
use crate::support::{Setting, guest};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs a tool to its end; what it printed.
#[track_caller]
fn run(setting: &Setting, tool: &str, args: &[&str]) -> String {
    try_run(setting, tool, args).unwrap_or_else(|said| panic!("{tool} {}: {said}", args.join(" ")))
}

fn try_run(setting: &Setting, tool: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(tool)
        .args(args)
        .current_dir(setting.path())
        .env("HOME", setting.path())
        .env("XDG_RUNTIME_DIR", setting.path())
        .env("TMPDIR", setting.path())
        .env("REGISTRY_AUTH_FILE", setting.path().join("auth.json"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}; `cargo xtask setup` installs it"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Where `cargo xtask setup` keeps ORAS' SDK for Python.
fn python() -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
    let file = cache.expect("a home").join("dhow/guests/oras/bin/python");
    assert!(file.exists(), "{} is missing: run cargo xtask setup", file.display());
    file
}

/// A folder in OCI's layout with one artifact of Wasm.
fn layout(setting: &Setting, name: &str, module: &[u8]) -> String {
    let config = json!({"created": "2026-01-01T00:00:00Z", "architecture": "wasm", "os": "wasip1",
        "layerDigests": [digest(module)]});
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.wasm.config.v0+json", &config),
        "layers": [descriptor("application/wasm", module)]});
    let manifest = serde_json::to_vec(&manifest).unwrap();
    for blob in [module, &config, &manifest] {
        let hex = digest(blob).replace("sha256:", "");
        setting.file(&format!("{name}/blobs/sha256/{hex}"), blob);
    }
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, &manifest)]});
    setting.file(&format!("{name}/index.json"), index.to_string().as_bytes());
    setting.file(&format!("{name}/oci-layout"), br#"{"imageLayoutVersion": "1.0.0"}"#);
    digest(&manifest)
}

fn blob_of(setting: &Setting, layout: &str, digest: &str) -> Vec<u8> {
    let hex = digest.replace("sha256:", "");
    fs::read(setting.path().join(layout).join("blobs/sha256").join(hex)).unwrap()
}

#[test]
fn skopeo_copies_lists_inspects_and_deletes() {
    let setting = with_users(&["alice"]);
    let host = setting.registry(&["--users", "users"]);
    let module = fs::read(guest("http-hello")).unwrap();
    let pushed = layout(&setting, "from", &module);
    let image = format!("docker://{}/tools/hello", host.addr);
    let to = format!("{image}:1.0.0");
    let login = ["--creds", "alice:ecila", "--tls-verify=false"];
    let copy = ["copy", "--preserve-digests", "--dest-tls-verify=false", "--src-tls-verify=false"];
    let wrong = [&copy[..], &["--dest-creds", "alice:guess", "oci:from", &to]].concat();
    let said = try_run(&setting, "skopeo", &wrong).unwrap_err();
    assert!(said.contains("unauthorized") || said.contains("invalid username/password"), "{said}");
    let into = |from: &str, to: &str| {
        let creds = ["--dest-creds", "alice:ecila", "--src-creds", "alice:ecila"];
        run(&setting, "skopeo", &[&copy[..], &creds, &[from, to]].concat())
    };
    // Podman's tools ask without a password first when they are given one of the local kinds of storage.
    run(&setting, "skopeo", &[&copy[..], &["--dest-creds", "alice:ecila", "oci:from", &to]].concat());
    // From one repository to another: mounted, not sent again.
    into(&to, &format!("docker://{}/tools/copy:latest", host.addr));
    let inspected = run(&setting, "skopeo", &[&["inspect", "--raw"], &login[..], &[to.as_str()]].concat());
    let manifest: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(manifest["layers"][0]["digest"], json!(digest(&module)));
    let tags = run(&setting, "skopeo", &[&["list-tags"], &login[..], &[image.as_str()]].concat());
    assert_eq!(serde_json::from_str::<Value>(&tags).unwrap()["Tags"], json!(["1.0.0"]));
    let copied = format!("docker://{}/tools/copy:latest", host.addr);
    run(
        &setting,
        "skopeo",
        &[&copy[..], &["--src-creds", "alice:ecila", &copied, "oci:back:latest"]].concat(),
    );
    assert!(blob_of(&setting, "back", &digest(&module)) == module);
    assert_eq!(digest(&blob_of(&setting, "back", &pushed)), pushed);
    run(&setting, "skopeo", &[&["delete"], &login[..], &[copied.as_str()]].concat());
    try_run(&setting, "skopeo", &[&["inspect", "--raw"], &login[..], &[copied.as_str()]].concat())
        .unwrap_err();
    host.stop();
}

#[test]
fn buildah_and_podman_push_and_pull_images_over_tls() {
    let setting = with_users(&["alice"]);
    openssl(&setting);
    let host =
        setting.registry_with_tls(&["--users", "users", "--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    setting.file("app.wasm", &fs::read(guest("http-hello")).unwrap());
    setting.file("Containerfile", b"FROM scratch\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n");
    let folder = |name: &str| setting.path().join(name).to_string_lossy().into_owned();
    let (root, runroot) = (folder("store"), folder("run"));
    let storage = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let tool = |name: &str, args: &[&str]| run(&setting, name, &[&storage[..], args].concat());
    let image = format!("{}/images/hello:2.1.0", host.addr);
    tool("buildah", &["bud", "--isolation", "chroot", "-t", &image, "."]);
    // The certificate's authority is in a folder, as podman has it for each registry.
    let trust = ["--cert-dir", "certs"];
    tool(
        "podman",
        &[&["login", "-u", "alice", "-p", "ecila"], &trust[..], &[&host.addr.to_string()]].concat(),
    );
    tool("buildah", &[&["push"], &trust[..], &[image.as_str()]].concat());
    let id = tool("podman", &["inspect", "--format", "{{.Id}}", &image]);
    tool("podman", &["rmi", "--all", "--force"]);
    tool("podman", &[&["pull", "-q"], &trust[..], &[image.as_str()]].concat());
    assert_eq!(tool("podman", &["inspect", "--format", "{{.Id}}", &image]), id);
    // With another tag: all of it is there already.
    let newer = format!("{}/images/hello:2.2.0", host.addr);
    tool("podman", &["tag", &image, &newer]);
    tool("podman", &[&["push", "-q"], &trust[..], &[newer.as_str()]].concat());
    tool("podman", &[&["logout"], &[host.addr.to_string().as_str()][..]].concat());
    let refused = [&storage[..], &["pull", "-q"], &trust, &[&newer]].concat();
    try_run(&setting, "podman", &refused).unwrap_err();

    // What is in the image was found, though it is in an archive.
    let ended = setting
        .dhow(&["search", "--registry", &format!("https://{}", host.addr), "--user", "alice", "--json"])
        .args(["--ca", "ca.pem", "--version", "^2"])
        .env("DHOW_REGISTRY_PASSWORD", "ecila")
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&ended.stderr)));
    let module = &found["modules"][0];
    assert_eq!((&module["repository"], &module["kind"]), (&json!("images/hello"), &json!("component")));
    host.stop();
}

/// An authority, and a certificate of it for this machine; `certs` is as podman wants it.
fn openssl(setting: &Setting) {
    let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["-x509", "-days", "2", "-subj", "/CN=test", "-keyout", "ca.key", "-out", "ca.pem"];
    run(setting, "openssl", &[&request[..], &authority].concat());
    let server = ["-subj", "/CN=registry", "-keyout", "key.pem", "-out", "request.pem"];
    run(setting, "openssl", &[&request[..], &server].concat());
    setting.file("names", b"subjectAltName=IP:127.0.0.1,DNS:localhost\n");
    let sign =
        ["x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "1"];
    let rest = ["-days", "2", "-extfile", "names", "-out", "cert.pem"];
    run(setting, "openssl", &[&sign[..], &rest].concat());
    setting.file("certs/ca.crt", &fs::read(setting.path().join("ca.pem")).unwrap());
}

#[test]
fn the_sdk_of_oras_pushes_whole_and_in_chunks() {
    let setting = with_users(&["alice"]);
    let host = setting.registry(&["--users", "users"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry/oras_client.py");
    setting.file("hello.wasm", &fs::read(guest("http-hello")).unwrap());
    let said = run(
        &setting,
        &python().to_string_lossy(),
        &[&script.to_string_lossy(), &host.addr.to_string(), "alice", "ecila"],
    );
    assert!(said.trim_end().ends_with("all is well"), "{said}");
    host.stop();
}

#[test]
fn containerd_pushes_and_pulls() {
    // SAFETY: geteuid has no preconditions and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("containerd runs as root only");
        return;
    }
    let setting = with_users(&["alice"]);
    let host = setting.registry(&["--users", "users"]);
    let containerd = dhow_servers::containerd().unwrap();
    let socket = containerd.folder().join("containerd.sock");
    let socket = socket.to_string_lossy();
    let ctr = |args: &[&str]| run(&setting, "ctr", &[&["--address", &socket, "-n", "test"], args].concat());
    let module = fs::read(guest("http-hello")).unwrap();
    let image = format!("{}/ctr/hello:1.0.0", host.addr);
    let pushed = layout(&setting, "from", &module);
    let skopeo = ["copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds", "alice:ecila"];
    run(&setting, "skopeo", &[&skopeo[..], &["oci:from", &format!("docker://{image}")]].concat());
    let login = ["--plain-http", "--user", "alice:ecila"];
    ctr(&[&["content", "fetch"], &login[..], &[image.as_str()]].concat());
    assert!(ctr(&["content", "get", &digest(&module)]).len() >= 8);
    let copy = format!("{}/ctr/copy:1.0.0", host.addr);
    ctr(&["images", "tag", &image, &copy]);
    ctr(&[&["images", "push"], &login[..], &[copy.as_str()]].concat());
    let inspect = ["inspect", "--raw", "--tls-verify=false", "--creds", "alice:ecila"];
    let raw = run(&setting, "skopeo", &[&inspect[..], &[&format!("docker://{copy}")]].concat());
    assert_eq!(digest(raw.trim_end().as_bytes()), pushed);
    host.stop();
}
