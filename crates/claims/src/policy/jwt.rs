//! `io.jwt.decode`, which policies written for OPA use to read a token (OPA documentation, "Policy Reference", "Token
//! Parsing"). Whether the signature holds was verified before any policy is asked.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use regorus::{Engine, Value};

/// Adds the function to an interpreter.
pub(super) fn add_to(engine: &mut Engine) -> Result<(), String> {
    let decode = |arguments: Vec<Value>| {
        // As in OPA, what is no token has no value.
        Ok(arguments.first().and_then(|text| decoded(text.as_string().ok()?)).unwrap_or(Value::Undefined))
    };
    engine.add_extension("io.jwt.decode".to_owned(), 1, Box::new(decode)).map_err(|error| error.to_string())
}

/// `[header, claims, signature in hexadecimal]`
fn decoded(text: &str) -> Option<Value> {
    let parts: Vec<&str> = text.split('.').collect();
    let &[header, claims, signature] = parts.as_slice() else { return None };
    let bytes = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let json = |part: &str| Value::from_json_str(std::str::from_utf8(&bytes(part)?).ok()?).ok();
    let signature: String = bytes(signature)?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Value::from(vec![json(header)?, json(claims)?, Value::from(signature)]))
}
