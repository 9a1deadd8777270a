//! Signatures of cosign, made with a pair of keys (ECDSA P-256), as registries hold them.
//!
//! | form | where | what is signed |
//! |---|---|---|
//! | simple signing (`cosign sign`, version 1 and 2) | the tag `sha256-<hex>.sig`, a layer each | the layer, which names the digest; the signature is its annotation |
//! | bundle (version 3) | attached to the manifest (referrers), or in the index with the tag `sha256-<hex>` | a statement in a DSSE envelope, which names the digest |
//!
//! <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>,
//! <https://github.com/sigstore/cosign/blob/main/specs/BUNDLE_SPEC.md>

use crate::digest::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use std::path::Path;

/// The annotation that holds a signature.
pub(crate) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// What a statement is that is a signature.
const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// The largest document that is signed, or bundle.
pub(crate) const MAX_DOCUMENT: u64 = 1 << 20;

/// The most signatures of one manifest that are looked at.
pub(crate) const MAX_SIGNATURES: usize = 64;

/// The largest key file.
const MAX_KEY: u64 = 64 << 10;

/// What a key on the curve P-256 begins with in DER (RFC 5480): SEQUENCE, id-ecPublicKey, prime256v1, BIT STRING.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The public key of whoever signs.
#[derive(Clone, Debug)]
pub(crate) struct Key(Vec<u8>);

// === impl Key ===

impl Key {
    /// Reads `cosign.pub`: PEM of a public key.
    pub(crate) fn read(path: &Path) -> Result<Key, String> {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        file.take(MAX_KEY).read_to_string(&mut text).map_err(|error| error.to_string())?;
        Key::parse(&text)
    }

    fn parse(text: &str) -> Result<Key, String> {
        let body = text
            .split_once("-----BEGIN PUBLIC KEY-----")
            .and_then(|(_, rest)| rest.split_once("-----END PUBLIC KEY-----"))
            .map(|(body, _)| body.split_whitespace().collect::<String>());
        let Some(body) = body else {
            let private = if text.contains("PRIVATE KEY") {
                "; it is a private key, which belongs to the signer"
            } else {
                ""
            };
            return Err(format!("it holds no public key (-----BEGIN PUBLIC KEY-----){private}"));
        };
        let der = STANDARD.decode(body).map_err(|error| format!("its key is no base64: {error}"))?;
        match der.strip_prefix(&P256) {
            Some(point) if point.len() == 65 => Ok(Key(point.to_vec())),
            _ => Err("its key is none on the curve P-256, which cosign makes".to_owned()),
        }
    }

    /// Whether a document with its signature (simple signing) is about this manifest and made by this key.
    pub(crate) fn verify(&self, document: &[u8], signature: &str, digest: &Digest) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Document {
            critical: Critical,
        }
        #[derive(Deserialize)]
        struct Critical {
            #[serde(rename = "type")]
            kind: String,
            image: Image,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        struct Image {
            docker_manifest_digest: String,
        }
        let signature = STANDARD.decode(signature).map_err(|_| "a signature is no base64".to_owned())?;
        self.check(document, &signature)?;
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| format!("what was signed makes no sense: {error}"))?;
        if document.critical.kind != "cosign container image signature" {
            return Err("what was signed is no signature of an image".to_owned());
        }
        let found = document.critical.image.docker_manifest_digest;
        if found != digest.to_string() {
            return Err(format!("the signature is for {:?}", shown(&found)));
        }
        Ok(())
    }

    /// The same of a bundle.
    pub(crate) fn verify_bundle(&self, bundle: &[u8], digest: &Digest) -> Result<(), String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Bundle {
            dsse_envelope: Envelope,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope {
            payload: String,
            payload_type: String,
            signatures: Vec<Signature>,
        }
        #[derive(Deserialize)]
        struct Signature {
            sig: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Statement {
            #[serde(default)]
            predicate_type: String,
            #[serde(default)]
            subject: Vec<Subject>,
        }
        #[derive(Deserialize)]
        struct Subject {
            #[serde(default)]
            digest: std::collections::BTreeMap<String, String>,
        }
        let senseless = |error: serde_json::Error| format!("a bundle makes no sense: {error}");
        let envelope = serde_json::from_slice::<Bundle>(bundle).map_err(senseless)?.dsse_envelope;
        let payload = STANDARD.decode(&envelope.payload).map_err(|_| "a bundle is no base64".to_owned())?;
        // The pre-authentication encoding of DSSE.
        let kind = &envelope.payload_type;
        let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        signed.extend_from_slice(&payload);
        let holds = envelope.signatures.iter().take(MAX_SIGNATURES).any(|signature| {
            STANDARD.decode(&signature.sig).is_ok_and(|signature| self.check(&signed, &signature).is_ok())
        });
        if !holds {
            return Err("a signature was made with another key, or for something else".to_owned());
        }
        if kind != "application/vnd.in-toto+json" {
            return Err(format!("what was signed is no statement but {:?}", shown(kind)));
        }
        let statement: Statement = serde_json::from_slice(&payload).map_err(senseless)?;
        // The same key also signs what it knows about an image: how it was built, what is in it, what was found wrong.
        if statement.predicate_type != SIGNED {
            let found = shown(&statement.predicate_type);
            return Err(format!("what was signed is no signature of an image but a statement of {found:?}"));
        }
        let algorithm = digest.algorithm().to_string();
        let is_about =
            |subject: &Subject| subject.digest.get(&algorithm).is_some_and(|hex| hex == digest.hex());
        match statement.subject.iter().any(is_about) {
            true => Ok(()),
            false => Err("the signature is for something else".to_owned()),
        }
    }

    fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), String> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0)
            .verify(message, signature)
            .map_err(|_| "a signature was made with another key, or for something else".to_owned())
    }
}

/// The tag under which signatures of a manifest are.
pub(crate) fn signature_tag(digest: &Digest) -> String {
    format!("{}-{}.sig", digest.algorithm(), digest.hex())
}

/// The tag of the index of what is attached to a manifest, where the registry has no list of that
/// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema>).
pub(crate) fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::Key;
    use crate::digest::Digest;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    fn pair() -> (EcdsaKeyPair, Key) {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap();
        let der = [&super::P256[..], pair.public_key().as_ref()].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        let key = Key::parse(&pem).unwrap();
        (pair, key)
    }

    fn sign(pair: &EcdsaKeyPair, message: &[u8]) -> String {
        STANDARD.encode(pair.sign(&SystemRandom::new(), message).unwrap())
    }

    #[test]
    fn a_signature_is_for_one_manifest_and_by_one_key() {
        let ((pair, key), (other, _)) = (pair(), pair());
        let digest = Digest::sha256(b"manifest");
        let document = |digest: &Digest, kind: &str| {
            format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"r.io/a"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":null}}"#
            )
        };
        let kind = "cosign container image signature";
        let right = document(&digest, kind);
        let cases = [
            (right.clone(), sign(&pair, right.as_bytes()), Ok(())),
            (right.clone(), sign(&other, right.as_bytes()), Err("another key")),
            (right.clone(), sign(&pair, b"else"), Err("another key")),
            (right.clone(), "!".to_owned(), Err("base64")),
            (right, String::new(), Err("another key")),
        ];
        let (elsewhere, attestation) =
            (document(&Digest::sha256(b"x"), kind), document(&digest, "attestation"));
        let more = [
            (elsewhere.clone(), sign(&pair, elsewhere.as_bytes()), Err("the signature is for")),
            (attestation.clone(), sign(&pair, attestation.as_bytes()), Err("no signature of an image")),
            ("{}".to_owned(), sign(&pair, b"{}"), Err("makes no sense")),
        ];
        for (document, signature, expected) in cases.into_iter().chain(more) {
            match (key.verify(document.as_bytes(), &signature, &digest), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(part)) if error.contains(part) => {}
                (found, _) => panic!("{document}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_bundle_is_for_one_manifest_and_by_one_key() {
        let ((pair, key), (other, _)) = (pair(), pair());
        let digest = Digest::sha256(b"manifest");
        let kind = "application/vnd.in-toto+json";
        let signature = "https://sigstore.dev/cosign/sign/v1";
        let about = |pair: &EcdsaKeyPair, kind: &str, digest: &Digest, predicate: &str| {
            let statement = format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"{predicate}"}}"#,
                digest.hex()
            );
            let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
            format!(
                r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","dsseEnvelope":{{"payload":"{}","payloadType":"{kind}","signatures":[{{"sig":"{}"}}]}}}}"#,
                STANDARD.encode(statement),
                sign(pair, signed.as_bytes())
            )
        };
        let bundle = |pair: &EcdsaKeyPair, kind: &str, digest: &Digest| about(pair, kind, digest, signature);
        let cases = [
            (about(&pair, kind, &digest, "https://slsa.dev/provenance/v1"), Err("a statement of")),
            (bundle(&pair, kind, &digest), Ok(())),
            (bundle(&other, kind, &digest), Err("another key")),
            (bundle(&pair, kind, &Digest::sha256(b"x")), Err("something else")),
            (bundle(&pair, "text/plain", &digest), Err("no statement")),
            (bundle(&pair, kind, &digest).replace(kind, "application/vnd.in-toto+jsom"), Err("another key")),
            ("{}".to_owned(), Err("makes no sense")),
        ];
        for (bundle, expected) in cases {
            match (key.verify_bundle(bundle.as_bytes(), &digest), expected) {
                (Ok(()), Ok(())) => {}
                (Err(error), Err(part)) if error.contains(part) => {}
                (found, _) => panic!("{bundle}: {found:?}"),
            }
        }
    }

    #[test]
    fn only_keys_are_keys() {
        let rsa = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL\n-----END PUBLIC KEY-----";
        let cases = [
            ("", "no public key"),
            ("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----", "belongs to the signer"),
            (rsa, "its key is no"),
        ];
        for (text, part) in cases {
            let error = Key::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
