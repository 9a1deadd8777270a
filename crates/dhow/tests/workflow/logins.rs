//! NATS servers that do not take everybody: submitters and workers say who asks, in all the ways that NATS has.

use crate::workers::Worker;
use crate::{Desk, Ended};
use std::process::Command;

/// Who asks: flags, and variables of the environment.
#[derive(Clone, Copy)]
struct Who<'a> {
    flags: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
}

const NOBODY: Who<'_> = Who { flags: &[], environment: &[] };

impl Who<'_> {
    fn command(&self, desk: &Desk, args: &[&str]) -> Command {
        let mut command = desk.command(&[args, self.flags].concat());
        command.envs(self.environment.iter().copied());
        command
    }

    /// A worker runs a step that a submitter hands over.
    fn works(&self, desk: &Desk, url: &str, name: &str) {
        let worker = ["workflow", "worker", "--connect", url, "--name", name, "--data-dir", name];
        let _worker = Worker::ready(self.command(desk, &worker).spawn().unwrap(), name);
        let run = ["workflow", "run", "quick.yaml", "--name", name, "--workers", url];
        let ended: Ended = self.command(desk, &run).output().unwrap().into();
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
    }

    /// Neither is let in, and neither waits.
    fn fails(&self, desk: &Desk, url: &str, expected: &str) {
        for args in [
            &["workflow", "worker", "--connect", url, "--data-dir", "refused"][..],
            &["workflow", "run", "quick.yaml", "--name", "refused", "--workers", url],
        ] {
            let ended: Ended = self.command(desk, args).output().unwrap().into();
            assert_ne!(ended.code, Some(0), "{args:?}: {ended:?}");
            assert!(ended.err.contains(expected), "{args:?}: {ended:?}");
            assert!(!ended.err.contains("hush") && !ended.err.contains("secret"), "{args:?}: {ended:?}");
        }
    }
}

fn desk() -> Desk {
    let desk = Desk::new();
    let spec = "  entrypoint: m\n  templates:\n  - {name: m, wasm: {image: tool.wasm, args: [args]}}";
    desk.workflow("quick", spec);
    desk
}

const REFUSED: &str = "may this user use the server";

#[test]
fn users_have_a_password_or_an_nkey() {
    let desk = desk();
    let made = desk.dhow(&["keys", "new", "user", "--keys", "keys"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let shown = desk.dhow(&["keys", "show", "user", "--keys", "keys"]);
    let server = dhow_servers::nats_with_users(shown.out.trim()).unwrap();
    let url = format!("nats://{}", server.address());
    let password = |password: &'static str| [("NATS_USER", "worker"), ("NATS_PASSWORD", password)];
    Who { environment: &password("secret"), ..NOBODY }.works(&desk, &url, "password");
    Who { flags: &["--nats-nkey", "keys/user.nk"], ..NOBODY }.works(&desk, &url, "nkey");
    NOBODY.works(&desk, &format!("nats://worker:secret@{}", server.address()), "address");
    NOBODY.fails(&desk, &url, REFUSED);
    Who { environment: &password("hush"), ..NOBODY }.fails(&desk, &url, REFUSED);
    std::fs::write(desk.path("seed"), "hush").unwrap();
    Who { flags: &["--nats-nkey", "seed"], ..NOBODY }.fails(
        &desk,
        &url,
        "expected the seed of a user's nkey",
    );
    Who { flags: &["--nats-nkey", "nothing"], ..NOBODY }.fails(&desk, &url, "--nats-nkey nothing: ");
    Who { flags: &["--nats-creds", "seed"], ..NOBODY }.fails(&desk, &url, "expected a user's JWT and seed");
    let both = Who { flags: &["--nats-nkey", "keys/user.nk"], environment: &password("hush") };
    both.fails(&desk, &url, "cannot be used with");
}

#[test]
fn whoever_has_the_token_is_taken() {
    let desk = desk();
    let server = dhow_servers::nats_with_token("secret").unwrap();
    let url = format!("nats://{}", server.address());
    Who { environment: &[("NATS_TOKEN", "secret")], ..NOBODY }.works(&desk, &url, "token");
    // As NATS' own tools have it.
    Who { environment: &[("NATS_USER", "secret")], ..NOBODY }.works(&desk, &url, "user");
    Who { environment: &[("NATS_TOKEN", "hush")], ..NOBODY }.fails(&desk, &url, REFUSED);
}

#[test]
fn both_sides_have_certificates() {
    let desk = desk();
    let server = dhow_servers::nats_with_tls().unwrap();
    for file in ["ca.pem", "certificate.pem", "key.pem"] {
        std::fs::copy(server.process.folder().join(file), desk.path(file)).unwrap();
    }
    let url = format!("tls://{}", server.process.address());
    let (ca, own) = (["--nats-ca", "ca.pem"], ["--nats-cert", "certificate.pem", "--nats-key", "key.pem"]);
    let all = [&ca[..], &own].concat();
    Who { flags: &all, ..NOBODY }.works(&desk, &url, "both");
    // A certificate makes TLS a condition, whatever the address says.
    Who { flags: &all, ..NOBODY }.works(&desk, &url.replace("tls:", "nats:"), "plain");
    Who { flags: &own, ..NOBODY }.fails(&desk, &url, REFUSED);
    Who { flags: &ca, ..NOBODY }.fails(&desk, &url, "NATS: ");
    std::fs::write(desk.path("ca.pem"), "hush").unwrap();
    Who { flags: &ca, ..NOBODY }.fails(&desk, &url, "the authority's certificate is not in PEM format");
    let plain = dhow_servers::nats().unwrap();
    std::fs::copy(server.process.folder().join("ca.pem"), desk.path("ca.pem")).unwrap();
    Who { flags: &ca, ..NOBODY }.fails(&desk, &format!("nats://{}", plain.address()), REFUSED);
}
