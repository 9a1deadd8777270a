//! Encryption with keys that the app does not see.

use super::Layotto;
use crate::dapr::error::ApiError;
use crate::grpc::service::Answer;
use crate::proto::layotto::cryption::cryption_service_server::CryptionService;
use crate::proto::layotto::cryption::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse};
use dhow_blocks::cloud_event::uuid;
use dhow_blocks::cryption::{Crypted, MAX_TEXT};
use dhow_blocks::scope::Scope;
use tonic::Request;

#[tonic::async_trait]
impl CryptionService for Layotto {
    async fn encrypt(&self, request: Request<EncryptRequest>) -> Answer<EncryptResponse> {
        self.answer(encrypt(self.scope(), request.into_inner()).await)
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Answer<DecryptResponse> {
        self.answer(decrypt(self.scope(), request.into_inner()).await)
    }
}

async fn encrypt(scope: &Scope, request: EncryptRequest) -> Result<EncryptResponse, ApiError> {
    let EncryptRequest { component_name, plain_text, key_id } = request;
    let bound = scope.cryption(&component_name).map_err(|error| ApiError::scope(&error))?;
    if plain_text.len() > MAX_TEXT {
        return Err(ApiError::malformed(format!("plain_text has more than {MAX_TEXT} bytes")));
    }
    let (provider, key_id) = (&bound.provider, key_id.as_str());
    let encrypted = bound.call("encrypt", plain_text, |plain| provider.encrypt(plain, key_id)).await;
    let Crypted { text, key_id, key_version } =
        encrypted.map_err(|error| ApiError::block("ERR_CRYPTION_ENCRYPT", &error))?;
    Ok(EncryptResponse { cipher_text: text, key_id, key_version_id: key_version, request_id: uuid() })
}

async fn decrypt(scope: &Scope, request: DecryptRequest) -> Result<DecryptResponse, ApiError> {
    let DecryptRequest { component_name, cipher_text } = request;
    let bound = scope.cryption(&component_name).map_err(|error| ApiError::scope(&error))?;
    let provider = &bound.provider;
    let decrypted = bound.call("decrypt", cipher_text, |cipher| provider.decrypt(cipher)).await;
    let Crypted { text, key_id, key_version } =
        decrypted.map_err(|error| ApiError::block("ERR_CRYPTION_DECRYPT", &error))?;
    Ok(DecryptResponse { plain_text: text, key_id, key_version_id: key_version, request_id: uuid() })
}
