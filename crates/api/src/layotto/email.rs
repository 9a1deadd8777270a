//! E-mail.

use super::Layotto;
use crate::dapr::error::ApiError;
use crate::grpc::service::Answer;
use crate::proto::layotto::email::email_service_server::EmailService;
use crate::proto::layotto::email::{
    Content as Text, EmailAddress, EmailTemplate, SendEmailRequest, SendEmailResponse,
    SendEmailWithTemplateRequest, SendEmailWithTemplateResponse,
};
use dhow_blocks::email::{Content, MAX_RECIPIENTS, Mail};
use dhow_blocks::scope::Scope;
use tonic::Request;

#[tonic::async_trait]
impl EmailService for Layotto {
    async fn send_email(&self, request: Request<SendEmailRequest>) -> Answer<SendEmailResponse> {
        // The settings of a provider are those of its component.
        let SendEmailRequest { component_name, subject, content, address, .. } = request.into_inner();
        let Text { text } = content.unwrap_or_default();
        let sent = send(self.scope(), &component_name, subject, address, Content::Text(text)).await;
        self.answer(sent.map(|request_id| SendEmailResponse { request_id }))
    }

    async fn send_email_with_template(
        &self,
        request: Request<SendEmailWithTemplateRequest>,
    ) -> Answer<SendEmailWithTemplateResponse> {
        let SendEmailWithTemplateRequest { component_name, template, subject, address } =
            request.into_inner();
        let EmailTemplate { template_id, template_params } = template.unwrap_or_default();
        let content = Content::Template { id: template_id, parameters: template_params };
        let sent = send(self.scope(), &component_name, subject, address, content).await;
        self.answer(sent.map(|request_id| SendEmailWithTemplateResponse { request_id }))
    }
}

async fn send(
    scope: &Scope,
    component: &str,
    subject: String,
    address: Option<EmailAddress>,
    content: Content,
) -> Result<String, ApiError> {
    let EmailAddress { from, to, cc } = address.unwrap_or_default();
    if to.is_empty() || to.len() + cc.len() > MAX_RECIPIENTS {
        return Err(ApiError::malformed(format!("address: expected 1 to {MAX_RECIPIENTS} recipients")));
    }
    let sent = scope.send_mail(component, Mail { from, to, cc, subject, content }).await;
    sent.map_err(|error| ApiError::used("ERR_EMAIL_SEND", &error))
}
