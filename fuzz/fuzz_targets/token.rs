//! Texts that may be tokens, and claims that somebody signed: neither may panic, and what is accepted says the same when
//! it is written and read again.
//!
//! No random text has a valid signature, so the input is also signed, as claims, by a key that everybody knows.
#![no_main]

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use dhow_claims::token::Token;
use dhow_claims::{KeyPair, Role, verify_token};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::SystemTime;

static ACCOUNT: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(Role::Account).expect("a key"));
static MODULE: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(Role::Module).expect("a key"));

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = Token::parse(text);
    // In the seeds, keys have names: they are new in each process.
    let claims = text
        .replace("$ACCOUNT", ACCOUNT.public_key().as_str())
        .replace("$MODULE", MODULE.public_key().as_str());
    let header = BASE64_URL_SAFE_NO_PAD.encode(br#"{"typ":"jwt","alg":"Ed25519"}"#);
    let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let signature = ACCOUNT.sign(signed.as_bytes()).expect("a seed");
    let token = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
    let Ok(token) = Token::parse(&token) else { return };
    let again = Token::sign(token.claims.clone(), &ACCOUNT).expect("claims that were accepted");
    let mut expected = token.claims.clone();
    // What is written is the newest generation.
    expected.revision = again.claims.revision;
    assert_eq!(again.claims, expected);
    let _ = verify_token(token, None, SystemTime::now());
});
