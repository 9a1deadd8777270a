//! Modules that others signed hold here, and ours hold there: the `wascap` crate, and tokens of earlier years.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use dhow_claims::{
    Claims, KeyPair, ModuleClaims, Refusal, Role, Signers, Subject, TrustStore, claims, section,
    token::Token, verify,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use wasm_encoder::Section as _;

const DAY: u64 = 86_400;

fn modules() -> [Vec<u8>; 2] {
    [
        wat::parse_str("(module (memory 1) (func (export \"f\") (result i32) i32.const 7))").unwrap(),
        wat::parse_str("(component (core module (func (export \"f\"))))").unwrap(),
    ]
}

fn key(role: Role) -> KeyPair {
    KeyPair::generate(role).unwrap()
}

fn theirs(key: &KeyPair) -> nkeys::KeyPair {
    nkeys::KeyPair::from_seed(&key.seed().unwrap()).unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Signs a module with what its claims say; the hash is the module's.
fn sign(wasm: &[u8], account: &KeyPair, change: impl FnOnce(&mut Claims, &mut ModuleClaims)) -> Vec<u8> {
    let mut about = ModuleClaims {
        name: Some("orders".to_owned()),
        hash: section::hash(wasm).unwrap(),
        tags: vec!["shop".to_owned()],
        capabilities: Some(vec!["wasmcloud:keyvalue".to_owned()]),
        rev: Some(3),
        version: Some("1.2.0".to_owned()),
        ..ModuleClaims::default()
    };
    let subject = key(Role::Module).public_key().to_string();
    let mut claims = Claims { id: "id".to_owned(), subject, issued_at: now(), ..Claims::default() };
    change(&mut claims, &mut about);
    if matches!(claims.about, Subject::Other) {
        claims.about = Subject::Module(about);
    }
    section::embed(wasm, &Token::sign(claims, account).unwrap().text).unwrap()
}

#[test]
fn what_the_crate_of_today_signs_holds_here() {
    let (account, module) = (key(Role::Account), key(Role::Module));
    for wasm in modules() {
        let signed = wascap::wasm::sign_buffer_with_claims(
            "orders".to_owned(),
            &wasm,
            &theirs(&module),
            &theirs(&account),
            Some(7),
            Some(0),
            vec!["shop".to_owned()],
            false,
            Some(3),
            Some("1.2.0".to_owned()),
            Some("orders".to_owned()),
        );
        let found = verify(&signed.unwrap(), None, SystemTime::now()).unwrap().token;
        assert_eq!((found.issuer, found.subject), (account.public_key(), module.public_key()));
        assert_eq!(found.claims.revision, claims::REVISION);
        assert!(found.claims.expires.unwrap() > now() + 6 * DAY);
        let about = found.claims.module().unwrap();
        assert_eq!(
            (about.name.as_deref(), about.version.as_deref(), about.rev),
            (Some("orders"), Some("1.2.0"), Some(3))
        );
        assert_eq!(
            (about.tags.as_slice(), about.call_alias.as_deref()),
            (&["shop".to_owned()][..], Some("orders"))
        );
    }
}

#[test]
fn what_is_signed_here_holds_with_the_crate_of_today() {
    let account = key(Role::Account);
    for wasm in modules() {
        let signed = sign(&wasm, &account, |claims, _| claims.expires = Some(now() + DAY));
        let token = wascap::wasm::extract_claims(&signed).unwrap().unwrap();
        let validation = wascap::jwt::validate_token::<wascap::jwt::Component>(&token.jwt).unwrap();
        assert!(validation.signature_valid && !validation.expired && !validation.cannot_use_yet);
        assert_eq!(token.claims.issuer, account.public_key().as_str());
        assert_eq!(token.claims.metadata.unwrap().name.as_deref(), Some("orders"));
    }
}

/// A token as another tool writes it.
fn signed_by_hand(claims: &str, account: &KeyPair) -> String {
    let header = BASE64_URL_SAFE_NO_PAD.encode(br#"{"typ":"jwt","alg":"Ed25519"}"#);
    let text = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(account.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

#[test]
fn tokens_of_earlier_years_are_read() {
    let (account, module, [wasm, _]) = (key(Role::Account), key(Role::Module), modules());
    let hash = section::hash(&wasm).unwrap();
    let common =
        format!(r#""jti":"x","iat":1,"iss":"{}","sub":"{}""#, account.public_key(), module.public_key());
    for (section, claims, capability) in [
        // 2019: flat.
        (
            "jwt",
            format!(r#"{{{common},"hash":"{hash}","tags":["t"],"caps":["wascap:keyvalue"]}}"#),
            "wascap:keyvalue",
        ),
        // 2020: under a name, without a revision.
        (
            "jwt",
            format!(r#"{{{common},"wascap":{{"hash":"{hash}","caps":["wascc:logging"],"prov":false}}}}"#),
            "wascc:logging",
        ),
        // 2021: in a section of another name.
        (
            "wasmcloud_jwt",
            format!(
                r#"{{{common},"wascap":{{"name":"n","hash":"{hash}","caps":["a:b"]}},"wascap_revision":3}}"#
            ),
            "a:b",
        ),
    ] {
        let data = signed_by_hand(&claims, &account).into_bytes();
        let mut signed = wasm.clone();
        wasm_encoder::CustomSection { name: section.into(), data: data.into() }.append_to(&mut signed);
        let found = verify(&signed, None, SystemTime::now()).unwrap().token;
        assert_eq!(found.claims.module().unwrap().capabilities, Some(vec![(*capability).to_owned()]));
        // Their own tools did not check it, but a hash that was signed is a hash that was meant.
        let other = wat::parse_str("(module)").unwrap();
        let text = section::token(&signed).unwrap().unwrap();
        assert_eq!(
            verify(&section::embed(&other, text).unwrap(), None, SystemTime::now()).unwrap_err().part(),
            "hash"
        );
    }
}

#[test]
fn each_part_that_does_not_hold_is_named() {
    let (account, [wasm, other]) = (key(Role::Account), modules());
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let good = sign(&wasm, &account, |_, _| {});
    let text = section::token(&good).unwrap().unwrap();
    let with = |text: &str| section::embed(&wasm, text).unwrap();
    let part = |wasm: &[u8], now: SystemTime| verify(wasm, None, now).unwrap_err().part();
    let parts: Vec<&str> = text.split('.').collect();
    let mut flipped = text.as_bytes().to_vec();
    let middle = parts[0].len() + parts[1].len() + 10;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    let header = |json: &str| format!("{}.{}.{}", BASE64_URL_SAFE_NO_PAD.encode(json), parts[1], parts[2]);
    let mut patched = good.clone();
    let place = patched.windows(2).position(|two| two == [0x41, 7]).unwrap();
    patched[place + 1] = 8;
    let user = key(Role::User);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (wasm.clone(), "unsigned"),
        (with("a.b"), "structure"),
        (with(""), "structure"),
        (with(&"x".repeat(100_000)), "structure"),
        (with(&format!("{text}.x")), "structure"),
        (with(std::str::from_utf8(&flipped).unwrap()), "signature"),
        (with(&header(r#"{"typ":"jwt","alg":"none"}"#)), "algorithm"),
        (with(&header(r#"{"typ":"JWT","alg":"Ed25519"}"#)), "algorithm"),
        (with(&header(r#"{"typ":"jwt"}"#)), "structure"),
        (section::embed(&other, text).unwrap(), "hash"),
        (patched, "hash"),
        (sign(&wasm, &account, |_, about| about.hash = "00".to_owned()), "hash"),
        (sign(&wasm, &account, |claims, _| claims.expires = Some(999)), "validity"),
        (sign(&wasm, &account, |claims, _| claims.expires = Some(1000)), "validity"),
        (sign(&wasm, &account, |claims, _| claims.not_before = Some(1001)), "validity"),
        (sign(&wasm, &user, |_, _| {}), "issuer"),
        (
            sign(&wasm, &account, |claims, _| {
                claims.subject = account.public_key().to_string();
                claims.about = Subject::Account(Signers::default());
            }),
            "structure",
        ),
        (good[..good.len() - 1].to_vec(), "structure"),
        (b"\0asm".to_vec(), "structure"),
        (Vec::new(), "structure"),
    ];
    for (number, (wasm, expected)) in cases.into_iter().enumerate() {
        assert_eq!(part(&wasm, at(1000)), expected, "case {number}");
    }
    assert!(verify(&good, None, at(1000)).is_ok());
    let error =
        verify(&sign(&wasm, &account, |claims, _| claims.expires = Some(86_400)), None, SystemTime::now());
    assert_eq!(error.unwrap_err().to_string(), "validity: the token expired 1970-01-02T00:00:00Z");
}

#[test]
fn only_trusted_signers_count() {
    let (operator, account, [wasm, _]) = (key(Role::Operator), key(Role::Account), modules());
    let signed = sign(&wasm, &account, |_, _| {});
    let now = SystemTime::now();
    let trust = |lines: &[String]| TrustStore::parse(&lines.join("\n")).unwrap();
    let none = verify(&signed, Some(&TrustStore::default()), now).unwrap_err();
    assert!(matches!(&none, Refusal::Untrusted { issuer } if *issuer == account.public_key()), "{none}");
    let direct = verify(&signed, Some(&trust(&[account.public_key().to_string()])), now).unwrap();
    assert_eq!(direct.chain, [account.public_key()]);
    let about = Claims {
        subject: account.public_key().to_string(),
        about: Subject::Account(Signers { name: Some("acme".to_owned()), ..Signers::default() }),
        ..Claims::default()
    };
    let vouched = Token::sign(about, &operator).unwrap().text;
    let through =
        verify(&signed, Some(&trust(&[vouched.clone(), operator.public_key().to_string()])), now).unwrap();
    assert_eq!(through.chain, [account.public_key(), operator.public_key()]);
    // The token alone proves nothing: its issuer is a stranger.
    assert_eq!(verify(&signed, Some(&trust(&[vouched])), now).unwrap_err().part(), "trust");
}
