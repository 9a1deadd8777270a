//! Files that may be modules with a token: reading, taking out and putting in the section must never panic, and what is
//! put in is found again, without a change to anything else.
#![no_main]

use dhow_claims::section;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let found = section::token(input);
    let Ok(bare) = section::strip(input) else {
        assert!(found.is_err(), "a token in what cannot be read");
        return;
    };
    assert_eq!(section::strip(&bare).as_ref(), Ok(&bare), "a module without a token stays as it is");
    assert_eq!(section::hashes(input), section::hashes(&bare), "the token is no part of the hash");
    let signed = section::embed(input, "a.b.c").expect("its sections were read before");
    assert_eq!(section::token(&signed), Ok(Some("a.b.c")));
    assert_eq!(section::strip(&signed), Ok(bare));
});
