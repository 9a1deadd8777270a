//! The example policies, each with what it allows and what it refuses.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use dhow_blocks::grants::Grants;
use dhow_claims::policy::rego::Rego;
use dhow_claims::policy::{Decision, Event, Question, Request};
use dhow_claims::token::Token;
use dhow_claims::{Claims, KeyPair, ModuleClaims, Role, Subject, Verified};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// On the list of `known-signers.rego`.
const KNOWN: &str = "ACV3V5GWNKSTMDHNRD6XBBB4SWQTFLG2G5WYVEF5DXF3BP4KZQZE3KBY";

const DAY: u64 = 24 * 3600;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/policies")
}

/// About an app with a token that claims this, and with these grants.
fn question(app_id: &str, capabilities: &[&str], version: Option<&str>, grants: &[(&str, &str)]) -> Question {
    let (account, module) =
        (KeyPair::generate(Role::Account).unwrap(), KeyPair::generate(Role::Module).unwrap());
    let about = ModuleClaims {
        hash: "00".to_owned(),
        capabilities: Some(capabilities.iter().map(|name| (*name).to_owned()).collect()),
        version: version.map(str::to_owned),
        ..ModuleClaims::default()
    };
    let claims = Claims {
        subject: module.public_key().to_string(),
        issued_at: 1_000_000,
        expires: Some(1_000_000 + 30 * DAY),
        about: Subject::Module(about),
        ..Claims::default()
    };
    let token = Token::sign(claims, &account).unwrap();
    let verified = Verified { token, chain: Vec::new(), until: None };
    let mut granted = Grants::default();
    for (kind, pattern) in grants {
        granted.allow(kind, pattern).unwrap();
    }
    let module = ("ab".repeat(32), "app.wasm".to_owned());
    Question::new(Event::Load, app_id, Some(&verified), module, &granted)
}

fn unsigned(app_id: &str) -> Question {
    Question::new(Event::Load, app_id, None, ("ab".repeat(32), "app.wasm".to_owned()), &Grants::default())
}

fn asked(app_id: &str, trigger: &'static str, method: &str, caller: Option<&str>) -> Question {
    let request = Request {
        trigger,
        method: method.to_owned(),
        path: "/orders".to_owned(),
        caller: caller.map(str::to_owned),
    };
    unsigned(app_id).about(request)
}

fn signed_by(issuer: &str, expires: Option<u64>) -> Question {
    let mut question = question("a", &[], None, &[]);
    question.claims["issuer"] = issuer.into();
    match (expires, question.claims.as_object_mut()) {
        (Some(expires), _) => question.claims["expires"] = expires.into(),
        (None, claims) => drop(claims.unwrap().remove("expires")),
    }
    question
}

/// A policy must allow a question, or refuse it with these words.
fn check(policy: &str, cases: Vec<(Question, Option<&str>)>) {
    let rego = Rego::read(&folder().join(policy), Duration::from_secs(20)).unwrap();
    for (question, refusal) in cases {
        let decision: Decision = rego.decide(&question).unwrap_or_else(|error| panic!("{policy}: {error}"));
        assert_eq!(decision.allow, refusal.is_none(), "{policy}: {decision:?} of {question:?}");
        if let Some(words) = refusal {
            assert!(decision.reason().contains(words), "{policy}: {decision:?}");
        }
    }
}

#[test]
fn known_signers() {
    let soon = 1_000_000 + 30 * DAY;
    check(
        "known-signers.rego",
        vec![
            (signed_by(KNOWN, Some(soon)), None),
            (signed_by("somebody", Some(soon)), Some("somebody is not among the known signers")),
            (signed_by(KNOWN, None), Some("never expires")),
            (signed_by(KNOWN, Some(soon + 100 * DAY)), Some("more than 90 days")),
            (unsigned("a"), Some("not signed")),
        ],
    );
}

#[test]
fn least_privilege() {
    let grants = [("state", "orders"), ("http", "api.example.com")];
    let of = |capabilities: &[&str]| question("a", capabilities, None, &grants);
    check(
        "least-privilege.rego",
        vec![
            (
                of(&[
                    "dhow:serve",
                    "dhow:log",
                    "dhow:files=/data",
                    "dhow:state=orders",
                    "dhow:http=api.example.com",
                ]),
                None,
            ),
            (of(&[]), None),
            (of(&["acme:telnet"]), None),
            (of(&["wasmcloud:keyvalue"]), Some("wasmcloud:keyvalue is a whole block")),
            (of(&["dhow:state"]), Some("dhow:state is everything of its kind")),
            (of(&["dhow:http=*"]), Some("dhow:http=* is everything of its kind")),
            (
                of(&["dhow:state=letters"]),
                Some("dhow:state=letters is claimed, and the manifest does not grant it"),
            ),
            (of(&["dhow:lock=l"]), Some("does not grant it")),
            (unsigned("a"), Some("not signed")),
        ],
    );
}

#[test]
fn no_way_back() {
    let of = |app_id: &str, version: Option<&str>| question(app_id, &[], version, &[]);
    check(
        "no-way-back.rego",
        vec![
            (of("orders", Some("1.4.2")), None),
            (of("orders", Some("1.10.0")), None),
            (of("other", None), None),
            (of("orders", Some("1.4.1")), Some("orders 1.4.1 is older than 1.4.2")),
            (of("front", Some("1.9.9")), Some("older than 2.0.0")),
            (of("front", None), Some("names its version")),
            (of("front", Some("newest")), Some("names its version")),
        ],
    );
}

#[test]
fn opening_hours() {
    check(
        "opening-hours.rego",
        vec![
            (unsigned("orders"), None),
            (asked("orders", "http", "GET", None), None),
            (asked("orders", "app", "POST", Some("front")), None),
            (asked("front", "http", "POST", None), None),
            (asked("mail", "topic", "POST", None), None),
            (asked("orders", "http", "POST", None), Some("only front may POST /orders of orders")),
            (asked("orders", "app", "DELETE", Some("mail")), Some("only front may DELETE")),
        ],
    );
}

#[test]
fn waxosuit() {
    let of = |capabilities: &[&str]| question("a", capabilities, None, &[]);
    check(
        "waxosuit.rego",
        vec![
            (of(&["wascap:keyvalue"]), None),
            (of(&["wascap:http_client"]), Some("wascap:http_client is forbidden here")),
            (of(&["wasmcloud:httpclient", "wasmcloud:keyvalue"]), Some("wasmcloud:httpclient is forbidden")),
        ],
    );
    let rego = Rego::read(&folder().join("waxosuit.rego"), Duration::from_secs(20)).unwrap();
    for token in ["", "a.b.c", "no token"] {
        let question = Question { token: token.to_owned(), ..unsigned("a") };
        assert!(!rego.decide(&question).is_ok_and(|decision| decision.allow), "{token}");
    }
}

#[test]
fn every_example_is_tested_and_listed() {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let tested = include_str!("policies.rs");
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rego") {
            assert!(
                readme.contains(&format!("`{name}`")) && tested.contains(&format!("\"{name}\"")),
                "{name}"
            );
        }
    }
}
