//! What `object_store` signs with: ring, as everything else here. Its own feature for that would build ring, and all that
//! stands on it, in another way.

use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm,
};
use object_store::{Error, Result};
use ring::{digest, hmac, rand, signature};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// ring.
#[derive(Debug)]
pub(super) struct Ring;

struct Digest {
    context: digest::Context,
    value: Option<digest::Digest>,
}

struct Hmac {
    context: hmac::Context,
    value: Option<hmac::Tag>,
}

struct Rsa(signature::RsaKeyPair);

/// It says nothing of the key.
fn failed(what: &'static str) -> Error {
    Error::Generic { store: "cryptography", source: what.into() }
}

impl CryptoProvider for Ring {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                Ok(Box::new(Digest { context: digest::Context::new(&digest::SHA256), value: None }))
            }
            _ => Err(failed("a digest other than SHA-256 is wanted")),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                Ok(Box::new(Hmac { context: hmac::Context::with_key(&key), value: None }))
            }
            _ => Err(failed("an HMAC other than that of SHA-256 is wanted")),
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, pem: &[u8]) -> Result<Box<dyn Signer>> {
        let SigningAlgorithm::RS256 = algorithm else {
            return Err(failed("a signature other than RS256 is wanted"));
        };
        let key = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs8(key)) => signature::RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
            Ok(PrivateKeyDer::Pkcs1(key)) => signature::RsaKeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(failed("the private key is no RSA key in PEM format")),
        };
        Ok(Box::new(Rsa(key.map_err(|_| failed("the private key is no RSA key of 2048 bits or more"))?)))
    }
}

impl DigestContext for Digest {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        let value: &digest::Digest = self.value.insert(self.context.clone().finish());
        Ok(value.as_ref())
    }
}

impl HmacContext for Hmac {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        let value: &hmac::Tag = self.value.insert(self.context.clone().sign());
        Ok(value.as_ref())
    }
}

impl Signer for Rsa {
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = rand::SystemRandom::new();
        self.0
            .sign(&signature::RSA_PKCS1_SHA256, &random, text, &mut signature)
            .map_err(|_| failed("it cannot be signed"))?;
        Ok(signature)
    }
}
