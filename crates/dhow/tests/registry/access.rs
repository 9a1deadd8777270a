//! Who may do what: users, rules, tokens, and addresses that others reach.

use crate::client::*;
use crate::support::{Setting, eventually};
use serde_json::Value;
use std::net::SocketAddr;

const RULES: &str = r#"
[groups]
developers = ["alice"]

[[allow]]
groups = ["developers"]
repositories = ["apps/**"]
actions = ["pull", "push"]

[[allow]]
users = ["*"]
repositories = ["shared/*"]
actions = ["pull"]

[[allow]]
users = ["root"]
repositories = ["**"]
actions = ["pull", "push", "delete"]

[[allow]]
anonymous = true
repositories = ["public/*"]
actions = ["pull"]
"#;

/// `Basic` of a name and its password, which is the name backwards.
fn basic(name: &str) -> String {
    let password: String = name.chars().rev().collect();
    credentials(name, &password)
}

fn credentials(name: &str, password: &str) -> String {
    use std::fmt::Write;
    // Base64 by hand: names and passwords here are short.
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{name}:{password}");
    let mut encoded = String::from("Basic ");
    for chunk in text.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            match index <= chunk.len() {
                true => encoded.push(char::from(DIGITS[(bits >> (18 - 6 * index) & 63) as usize])),
                false => encoded.write_char('=').unwrap(),
            }
        }
    }
    encoded
}

fn at(addr: SocketAddr, authorization: Option<&str>) -> Client<'_> {
    Client { addr, authorization }
}

/// A folder with users, each with its name backwards as its password.
pub(crate) fn with_users(names: &[&str]) -> Setting {
    let setting = Setting::new();
    for name in names {
        let password: String = name.chars().rev().collect();
        let added = setting.run_with_input(
            &["registry", "user", "add", name, "--users", "users", "--password-stdin"],
            format!("{password}\n").as_bytes(),
        );
        assert_eq!(added.code, Some(0), "{}", added.err);
    }
    setting
}

#[test]
fn everybody_does_what_the_rules_say_and_nothing_else() {
    let setting = with_users(&["alice", "bob", "root"]);
    setting.file("rules.toml", RULES.as_bytes());
    let host = setting.registry(&["--users", "users", "--permissions", "rules.toml"]);
    let addr = host.addr;
    let root = basic("root");
    let client = |authorization| Client { addr, authorization };
    for repository in ["apps/shop", "shared/base", "public/hello", "secret/x"] {
        client(Some(&root)).push(repository, "v1", "text/plain", b"one");
    }
    let (alice, bob) = (basic("alice"), basic("bob"));
    let wrong = credentials("alice", "guess");
    let nobody = credentials("nobody", "guess");
    // What each may do there: pull, push; and what one who may not is told.
    let cases: [(Option<&str>, &str, u16, u16); 14] = [
        (Some(&root), "secret/x", 200, 202),
        (Some(&alice), "apps/shop", 200, 202),
        (Some(&alice), "shared/base", 200, 403),
        (Some(&alice), "secret/x", 403, 403),
        (Some(&alice), "public/hello", 200, 403),
        (Some(&bob), "apps/shop", 403, 403),
        (Some(&bob), "shared/base", 200, 403),
        (None, "apps/shop", 401, 401),
        (None, "shared/base", 401, 401),
        (None, "public/hello", 200, 401),
        (Some(&wrong), "public/hello", 401, 401),
        (Some(&nobody), "public/hello", 401, 401),
        (Some("Basic !!"), "public/hello", 401, 401),
        (Some("Bearer a.b.c"), "public/hello", 401, 401),
    ];
    for (who, repository, pull, push) in cases {
        let client = client(who);
        let pulled = client.get(&format!("/v2/{repository}/manifests/v1"));
        assert_eq!(pulled.status, pull, "{who:?} pulls from {repository}");
        if pull == 401 {
            let challenge = pulled.header("www-authenticate").unwrap();
            assert!(challenge.starts_with(&format!("Bearer realm=\"http://{addr}/token\"")), "{challenge}");
        }
        let pushed = client.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        assert_eq!(pushed.status, push, "{who:?} pushes to {repository}");
    }
    // Only root may delete; lists show what one may see.
    let delete = |who| client(Some(who)).send("DELETE", "/v2/apps/shop/manifests/v1", &[], b"").status;
    assert_eq!((delete(&alice), delete(&root)), (403, 202));
    let catalog = |who| client(who).get("/v2/_catalog").json()["repositories"].to_string();
    assert_eq!(catalog(Some(&alice)), r#"["apps/shop","public/hello","shared/base"]"#);
    assert_eq!(catalog(Some(&bob)), r#"["public/hello","shared/base"]"#);
    assert_eq!(catalog(None), r#"["public/hello"]"#);
    // What one may not read, one may not mount: an upload begins as if it were not there.
    let secret = digest(b"one");
    let mount = |who, from: &str| {
        let target = format!("/v2/apps/shop/blobs/uploads/?mount={secret}&from={from}");
        client(Some(who)).send("POST", &target, &[], b"").status
    };
    assert_eq!((mount(&alice, "secret/x"), mount(&alice, "shared/base")), (202, 201));
    host.stop();
}

#[test]
fn tokens_are_for_what_they_were_asked_for() {
    let setting = with_users(&["alice", "root"]);
    setting.file("rules.toml", RULES.as_bytes());
    let host = setting.registry(&["--users", "users", "--permissions", "rules.toml"]);
    let addr = host.addr;
    let root = basic("root");
    at(addr, Some(&root)).push("apps/shop", "v1", "text/plain", b"one");
    let alice = basic("alice");
    let token = |who: Option<&str>, scope: &str| {
        let answer = at(addr, who).get(&format!("/token?service=x&scope={scope}"));
        let token = answer.json()["token"].as_str().unwrap_or_default().to_owned();
        (answer.status, format!("Bearer {token}"))
    };
    let pull = |token: &str| at(addr, Some(token)).get("/v2/apps/shop/manifests/v1").status;
    let push =
        |token: &str| at(addr, Some(token)).send("POST", "/v2/apps/shop/blobs/uploads/", &[], b"").status;
    let (status, reading) = token(Some(&alice), "repository:apps/shop:pull");
    assert_eq!((status, pull(&reading), push(&reading)), (200, 200, 401));
    let (_, writing) = token(Some(&alice), "repository:apps/shop:pull,push");
    assert_eq!((pull(&writing), push(&writing)), (200, 202));
    // More than one may is not given, and another repository's token is none.
    let (_, other) = token(Some(&alice), "repository:secret/x:pull,push");
    assert_eq!(pull(&other), 401);
    let (status, anonymous) = token(None, "repository:apps/shop:pull");
    assert_eq!((status, pull(&anonymous)), (200, 401));
    assert_eq!(token(Some(&credentials("alice", "guess")), "repository:apps/shop:pull").0, 401);
    // Docker's other way of asking.
    let post = |password: &str| {
        let form =
            format!("grant_type=password&username=alice&password={password}&scope=repository:apps/shop:pull");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        at(addr, None).send("POST", "/token", &headers, form.as_bytes())
    };
    assert_eq!(post("guess").status, 401);
    let answer = post("ecila");
    assert_eq!(answer.status, 200);
    assert_eq!(pull(&format!("Bearer {}", answer.json()["access_token"].as_str().unwrap())), 200);
    // Without a token, a client is told what for to get one.
    let challenge = at(addr, None).get("/v2/apps/shop/manifests/v1");
    let challenge = challenge.header("www-authenticate").unwrap().to_owned();
    assert!(challenge.ends_with(",scope=\"repository:apps/shop:pull\""), "{challenge}");
    assert_eq!(at(addr, None).get("/v2/").status, 401);
    assert_eq!(at(addr, Some(&reading)).get("/v2/").status, 200);

    // A token gives no other one, and lists only if it is for that.
    let other = "/token?service=x&scope=repository:apps/shop:pull,push";
    let renewed = at(addr, Some(&reading)).get(other);
    assert_eq!(renewed.status, 401);
    assert!(renewed.header("www-authenticate").unwrap().starts_with("Basic "));
    let (_, listing) = token(Some(&alice), "registry:catalog:*");
    let list = |token: &str| at(addr, Some(token)).get("/v2/_catalog").status;
    assert_eq!((list(&reading), list(&listing), list(&alice)), (401, 200, 200));

    // Who is removed is gone at once, token or not; what cannot be read changes nothing.
    setting.file("rules.toml", b"[[allow]]\nusers = [");
    assert_eq!(pull(&reading), 200);
    setting.file("rules.toml", RULES.replace("[\"alice\"]", "[]").as_bytes());
    assert_eq!(pull(&reading), 403);
    let removed = setting.run(&["registry", "user", "remove", "alice", "--users", "users"]);
    assert_eq!(removed.code, Some(0));
    assert_eq!(at(addr, Some(&alice)).get("/v2/").status, 401);
    assert_eq!((pull(&reading), list(&listing)), (401, 401));
    // Somebody else of that name, or the same one with another password, needs another token.
    let added = setting.run_with_input(
        &["registry", "user", "add", "alice", "--users", "users", "--password-stdin"],
        b"another\n",
    );
    assert_eq!(added.code, Some(0), "{}", added.err);
    assert_eq!((list(&listing), list(&credentials("alice", "another"))), (401, 200));
    let said = host.stop();
    assert!(said.contains("rules.toml:2:") && said.contains("stays in force"), "{said}");
    for secret in ["ecila", "toor", "$2y$"] {
        assert!(!said.contains(secret), "a secret is in the log: {said}");
    }
}

#[test]
fn without_rules_a_password_is_enough_and_anonymous_is_what_was_said() {
    let setting = with_users(&["alice"]);
    let alice = basic("alice");
    for (flag, pull, push) in [("nothing", 401, 401), ("pull", 200, 401), ("push", 200, 202)] {
        let host = setting.registry(&["--users", "users", "--anonymous", flag]);
        let known = Client { addr: host.addr, authorization: Some(&alice) };
        let unknown = Client { addr: host.addr, authorization: None };
        known.push("a", "v1", "text/plain", b"one");
        assert_eq!(unknown.get("/v2/a/manifests/v1").status, pull, "{flag}");
        assert_eq!(unknown.send("POST", "/v2/a/blobs/uploads/", &[], b"").status, push, "{flag}");
        assert_eq!(unknown.send("DELETE", "/v2/a/manifests/v1", &[], b"").status, 401, "{flag}");
        // A browser is asked for a password, if there is nothing to see without one.
        let page = unknown.get("/");
        let challenge = page.header("www-authenticate").unwrap_or_default();
        match flag {
            "nothing" => assert!(page.status == 401 && challenge.starts_with("Basic "), "{challenge}"),
            _ => assert_eq!(page.status, 200),
        }
        host.stop();
    }
}

#[test]
fn what_would_be_open_to_others_has_to_be_said() {
    let setting = with_users(&["alice"]);
    let cases: [(&[&str], &str); 9] = [
        (&["--external-url", "registry"], "expected https://HOST[:PORT]"),
        (&["--external-url", "https://me@registry"], "expected https://HOST[:PORT]"),
        (&["--external-url", "https://registry/v2"], "expected https://HOST[:PORT]"),
        (&["--addr", "0.0.0.0:0"], "others can reach 0.0.0.0:0, and there are no users"),
        (&["--permissions", "rules.toml"], "name a file of them with --users"),
        (&["--anonymous", "nothing"], "nobody could do anything"),
        (&["--users", "nowhere"], "`dhow registry user add NAME --users nowhere` makes it"),
        (&["--tls-cert", "users", "--tls-key", "users"], "no certificate"),
        (&["--max-blob", "much"], "expected bytes"),
    ];
    for (flags, said) in cases {
        let ended = setting.run(&[&["registry", "serve", "--data-dir", "registry"], flags].concat());
        assert!(ended.code != Some(0) && ended.err.contains(said), "{flags:?}: {}", ended.err);
    }
    setting.file("users", b"alice:plain\n");
    let ended = setting.run(&["registry", "serve", "--users", "users"]);
    assert!(ended.err.contains("users:1: the password is not hashed with bcrypt"), "{}", ended.err);
    // Two at once would harm each other.
    let host = setting.registry(&[]);
    let ended = setting.run(&["registry", "serve", "--addr", "127.0.0.1:0", "--data-dir", "registry"]);
    assert!(ended.code == Some(1) && ended.err.contains("another process has the registry"), "{}", ended.err);
    host.stop();
}

#[test]
fn web_pages_of_others_reach_no_open_registry() {
    let setting = with_users(&["alice"]);
    let status = |host: &crate::support::Host, headers: &[(&str, &str)]| {
        at(host.addr, None).send("POST", "/v2/a/blobs/uploads/", headers, b"").status
    };
    let host = setting.registry(&["--external-url", "https://modules.example"]);
    assert_eq!(status(&host, &[]), 202);
    assert_eq!(status(&host, &[("origin", "https://evil.example")]), 403);
    assert_eq!(status(&host, &[("origin", "null")]), 403);
    assert_eq!(status(&host, &[("origin", "http://localhost:8080")]), 202);
    assert_eq!(status(&host, &[("origin", "https://modules.example")]), 202);
    host.stop();
    // With users, whoever has no password does nothing, wherever it comes from.
    let host = setting.registry(&["--users", "users"]);
    assert_eq!(status(&host, &[("origin", "https://evil.example")]), 401);
    host.stop();
}

#[test]
fn a_wrong_password_costs_time_and_no_more() {
    let setting = with_users(&["alice"]);
    let host = setting.registry(&["--users", "users"]);
    let addr = host.addr;
    // More at once than are let wait: each is answered, and others are served meanwhile.
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let guess = |number: usize| {
            let guess = credentials("alice", &format!("guess{number}"));
            scope.spawn(move || Client { addr, authorization: Some(&guess) }.get("/v2/").status)
        };
        let guesses: Vec<_> = (0..100).map(guess).collect();
        eventually("an answer meanwhile", || {
            let health = Client { addr, authorization: None }.get("/healthz");
            (health.status == 200).then_some(())
        });
        guesses.into_iter().map(|guess| guess.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|status| matches!(status, 401 | 429)), "{answers:?}");
    let metrics = Client { addr, authorization: None }.get("/metrics").text();
    let failed = metrics.lines().find_map(|line| line.strip_prefix("dhow_registry_logins_failed_total "));
    let failed: usize = failed.unwrap().parse().unwrap();
    assert_eq!(failed, answers.iter().filter(|status| **status == 401).count());
    let alice = basic("alice");
    assert_eq!(Client { addr, authorization: Some(&alice) }.get("/v2/").status, 200);
    let _: Value = Client { addr, authorization: Some(&alice) }.get("/v2/_catalog").json();
}

#[test]
fn the_owner_mints_tokens_that_are_good_for_what_they_say() {
    let setting = with_users(&["alice", "root"]);
    setting.file("rules.toml", RULES.as_bytes());
    let host = setting.registry(&["--users", "users", "--permissions", "rules.toml"]);
    let root = basic("root");
    for repository in ["apps/shop", "apps/other"] {
        at(host.addr, Some(&root)).push(repository, "v1", "text/plain", b"one");
    }
    let mint = |args: &[&str]| {
        setting.run(&[&["registry", "token", "--data-dir", "registry", "--user", "alice"], args].concat())
    };
    let minted = mint(&["--scope", "repository:apps/shop:pull,delete", "--life", "1h"]);
    assert_eq!(minted.code, Some(0), "{}", minted.err);
    let token = format!("Bearer {}", minted.out.trim());
    let client = at(host.addr, Some(&token));
    let status = |method, target| client.send(method, target, &[], b"").status;
    assert_eq!(status("GET", "/v2/apps/shop/manifests/v1"), 200);
    // Not what it is for, although its user may.
    assert_eq!(status("GET", "/v2/apps/other/manifests/v1"), 401);
    assert_eq!(status("POST", "/v2/apps/shop/blobs/uploads/"), 401);
    // Not what its user may not, although it says so.
    assert_eq!(status("DELETE", "/v2/apps/shop/manifests/v1"), 403);
    for (args, said) in [
        (&["--scope", "apps/shop:pull"][..], "is no scope"),
        (&["--scope", "repository:apps/shop:fly"], "is no scope"),
        (&["--scope", "repository:apps/shop:pull", "--life", "10000h"], "--life"),
    ] {
        let refused = mint(args);
        assert!(refused.code == Some(2) && refused.err.contains(said), "{args:?}: {}", refused.err);
    }
    host.stop();
    // The registry need not run for it to be known whom it knows.
    let scope = ["--scope", "repository:apps/shop:pull"];
    let unknown = ["registry", "token", "--data-dir", "registry", "--user", "alcie"];
    let refused = setting.run(&[&unknown[..], &scope].concat());
    let users = setting.path().join("users");
    let said = format!("{} has no user \"alcie\"", users.display());
    assert!(refused.code == Some(2) && refused.err.contains(&said), "{}", refused.err);
    assert_eq!(mint(&scope).code, Some(0));
}

#[test]
fn searches_log_in_as_pushes_do() {
    let setting = with_users(&["alice"]);
    let host = setting.registry(&["--users", "users"]);
    let url = format!("http://{}", host.addr);
    let refused = setting.run(&["search", "--registry", &url]);
    assert!(refused.code == Some(1) && refused.err.contains("401"), "{}", refused.err);
    let known = basic("alice").replace("Basic ", "");
    let text = format!(r#"{{"auths": {{"{}": {{"auth": "{known}"}}}}}}"#, host.addr);
    setting.file(".docker/config.json", text.as_bytes());
    let found = setting.run(&["search", "--registry", &url]);
    assert_eq!((found.code, found.out.as_str()), (Some(0), "nothing found\n"), "{}", found.err);
    host.stop();
}
