//! Services that no provider is for: short messages and phone calls.

use super::Layotto;
use crate::dapr::error::{ApiError, Grpc};
use crate::grpc::service::Answer;
use crate::proto::layotto::phone::phone_call_service_server::PhoneCallService;
use crate::proto::layotto::phone::{SendVoiceWithTemplateRequest, SendVoiceWithTemplateResponse};
use crate::proto::layotto::sms::sms_service_server::SmsService;
use crate::proto::layotto::sms::{SendSmsWithTemplateRequest, SendSmsWithTemplateResponse};
use http::StatusCode;
use tonic::Request;

#[tonic::async_trait]
impl SmsService for Layotto {
    async fn send_sms_with_template(
        &self,
        _: Request<SendSmsWithTemplateRequest>,
    ) -> Answer<SendSmsWithTemplateResponse> {
        self.answer(Err(no_provider("SmsService", "sms", "short messages")))
    }
}

#[tonic::async_trait]
impl PhoneCallService for Layotto {
    async fn send_voice_with_template(
        &self,
        _: Request<SendVoiceWithTemplateRequest>,
    ) -> Answer<SendVoiceWithTemplateResponse> {
        self.answer(Err(no_provider("PhoneCallService", "phone", "phone calls")))
    }
}

fn no_provider(service: &str, block: &str, what: &str) -> ApiError {
    let message = format!(
        "{service}: this version of dhow has no provider of {what} (components of type {block}.…); \
         a carrier with an HTTP API can be called through a bindings.http component"
    );
    let status = StatusCode::NOT_IMPLEMENTED;
    ApiError::new(status, Grpc::Unimplemented, "ERR_API_UNIMPLEMENTED", message)
}
