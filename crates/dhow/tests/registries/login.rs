//! Who asks: a registry over HTTPS, with users and with an authority of its own.

use crate::support::{Setting, guest};
use crate::{PROGRAM, refused, succeeded};
use dhow_servers::{Process, REGISTRY_USER};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A registry that wants to know who asks, and a folder in which its authority is `ca.pem`.
fn shop() -> (Setting, Process) {
    let (registry, certificates) = dhow_servers::docker_registry_with_users().unwrap();
    let setting = Setting::new();
    setting.file("ca.pem", certificates.ca.as_bytes());
    (setting, registry)
}

#[test]
fn a_login_is_tried_kept_and_forgotten() {
    let (setting, registry) = shop();
    let address = registry.address();
    let (user, password) = REGISTRY_USER;
    let (module, reference) = (guest(PROGRAM), format!("oci://{address}/team/hello:1"));
    let push = ["push", &module.to_string_lossy(), &reference, "--ca", "ca.pem"];

    let error = refused(setting.run(&push));
    assert!(error.contains("there are no credentials for it") && error.contains("dhow login"), "{error}");
    let login = ["login", &address, "--username", user, "--password-stdin", "--ca", "ca.pem"];
    let error = refused(setting.run_with_input(&login, b"wrong\n"));
    assert!(
        error.contains("refuses this user and password") && error.contains("nothing was stored"),
        "{error}"
    );
    let config = setting.path().join(".docker/config.json");
    assert!(!config.exists());
    setting
        .file(".docker/config.json", br#"{"auths": {"other.io": {"auth": "YTpi"}}, "detachKeys": "ctrl-x"}"#);

    let ended = succeeded(setting.run_with_input(&login, format!("{password}\n").as_bytes()));
    assert!(ended.err.contains("logged in to") && !ended.err.contains(password), "{}", ended.err);
    assert_eq!(fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("other.io") && text.contains("detachKeys") && text.contains(&address), "{text}");

    succeeded(setting.run(&push));
    succeeded(setting.run(&["run", &reference, "--ca", "ca.pem"]));
    let trusting = Setting::new().env("SSL_CERT_FILE", &setting.path().join("ca.pem").to_string_lossy());
    let trusting = trusting.env("DOCKER_CONFIG", &setting.path().join(".docker").to_string_lossy());
    succeeded(trusting.run(&["pull", &reference]));
    let stranger = Setting::new();
    let error = refused(stranger.run(&["pull", &reference]));
    assert!(error.contains("certificate") && error.contains("--ca FILE"), "{error}");

    succeeded(setting.run(&["logout", &address]));
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("other.io") && !text.contains(&address), "{text}");
    let error = refused(setting.run(&["logout", &address]));
    assert!(error.contains("holds no credentials"), "{error}");
    let error = refused(setting.run(&["pull", &reference, "--ca", "ca.pem"]));
    assert!(error.contains("there are no credentials for it"), "{error}");
}

#[test]
fn a_program_keeps_the_password() {
    let (setting, registry) = shop();
    let address = registry.address();
    let (user, password) = REGISTRY_USER;
    // What Docker's own helpers do, with a file in the place of a keychain.
    let helper = setting.file(
        "bin/docker-credential-drawer",
        b"#!/bin/sh\ncase $1 in\nstore) cat > \"$HOME/drawer\" ;;\nget) cat \"$HOME/drawer\" 2> /dev/null || { echo credentials not found in native keychain; exit 1; } ;;\nerase) rm \"$HOME/drawer\" ;;\nesac\n",
    );
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", helper.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let setting = setting.env("PATH", &path);
    setting
        .file(".docker/config.json", format!(r#"{{"credHelpers": {{"{address}": "drawer"}}}}"#).as_bytes());
    let reference = format!("oci://{address}/hello:1");
    let pull = ["pull", &reference, "--ca", "ca.pem"];

    let error = refused(setting.run(&pull));
    assert!(error.contains("there are no credentials for it"), "{error}");
    let login = ["login", &address, "--username", user, "--password-stdin", "--ca", "ca.pem"];
    let ended = succeeded(setting.run_with_input(&login, password.as_bytes()));
    assert!(ended.err.contains("docker-credential-drawer keeps the password"), "{}", ended.err);
    assert!(!fs::read_to_string(setting.path().join(".docker/config.json")).unwrap().contains("auths"));
    succeeded(setting.run(&["push", &guest(PROGRAM).to_string_lossy(), &reference, "--ca", "ca.pem"]));
    succeeded(setting.run(&pull));
    succeeded(setting.run(&["logout", &address]));
    assert!(!setting.path().join("drawer").exists());

    setting.file(".docker/config.json", br#"{"credsStore": "missing"}"#);
    let error = refused(setting.run(&["pull", &format!("oci://{address}/other:1"), "--ca", "ca.pem"]));
    assert!(error.contains("docker-credential-missing") && error.contains("not in PATH"), "{error}");
}

#[test]
fn podmans_file_is_read_and_the_most_exact_name_wins() {
    let (setting, registry) = shop();
    let address = registry.address();
    let entry = |name: &str, user: &str, password: &str| {
        let auth = crate::tool(
            setting.path(),
            "sh",
            &["-c", &format!("printf %s '{user}:{password}' | base64 -w0")],
            &[],
        );
        format!(r#""{name}": {{"auth": "{auth}"}}"#)
    };
    let (user, password) = REGISTRY_USER;
    let right = entry(&format!("{address}/team"), user, password);
    let wrong = entry(&address, user, "wrong");
    setting.file(".config/containers/auth.json", format!(r#"{{"auths": {{{wrong}, {right}}}}}"#).as_bytes());
    let push = |repository: &str| {
        let reference = format!("oci://{address}/{repository}:1");
        setting.run(&["push", &guest(PROGRAM).to_string_lossy(), &reference, "--ca", "ca.pem"])
    };
    succeeded(push("team/hello"));
    let error = refused(push("other/hello"));
    assert!(error.contains("the credentials for it are wrong"), "{error}");
}

/// Somebody at a terminal, who waits for each question. Prints all that the terminal shows.
const PERSON: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen = b""
for question, answer in ((b"Username: ", b"shop"), (b"Password: ", b"correct horse")):
    while not seen.endswith(question):
        seen += os.read(terminal, 1)
    os.write(terminal, answer + b"\n")
try:
    while more := os.read(terminal, 1024):
        seen += more
except OSError:
    pass
print(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_person_is_asked_and_the_password_is_not_shown() {
    let (setting, registry) = shop();
    let address = registry.address();
    let dhow = env!("CARGO_BIN_EXE_dhow");
    let args = ["-c", PERSON, dhow, "login", &address, "--ca", "ca.pem"];
    let shown = crate::tool(setting.path(), "python3", &args, &[("DOCKER_CONFIG", "docker")]);
    assert!(shown.contains("logged in to") && shown.contains("as shop"), "{shown}");
    assert!(!shown.contains("correct horse"), "{shown}");
    assert!(setting.path().join("docker/config.json").is_file());
}
