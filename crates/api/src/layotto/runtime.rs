//! The methods of `spec.proto.runtime.v1.Runtime`, each one line.

use super::{Layotto, configuration, file, invoke, lock, publish};
use crate::dapr::error::ApiError;
use crate::grpc::caller::Caller;
use crate::grpc::service::{Answer, Messages};
use crate::grpc::state;
use crate::proto::common::v1::InvokeResponse;
use crate::proto::layotto::runtime::runtime_server::Runtime;
use crate::proto::layotto::runtime::*;
use crate::proto::runtime::v1::{
    DeleteBulkStateRequest, DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkSecretRequest,
    GetBulkSecretResponse, GetBulkStateRequest, GetBulkStateResponse, GetSecretRequest, GetSecretResponse,
    GetStateRequest, GetStateResponse, InvokeBindingRequest, InvokeBindingResponse, InvokeServiceRequest,
    PublishEventRequest, SaveStateRequest, SubscribeTopicEventsRequestAlpha1, TryLockRequest,
    TryLockResponse, UnlockRequest, UnlockResponse,
};
use tonic::{Request, Streaming};

/// The greeting where none is configured: that of Layotto's quick start.
const GREETING: &str = "greeting";

#[tonic::async_trait]
impl Runtime for Layotto {
    async fn say_hello(&self, request: Request<SayHelloRequest>) -> Answer<SayHelloResponse> {
        let SayHelloRequest { service_name, name, data } = request.into_inner();
        let greeting = match self.hellos.get(&service_name) {
            Some(greeting) => Ok(greeting.as_str()),
            None if self.hellos.is_empty() && !service_name.is_empty() => Ok(GREETING),
            None => Err(ApiError::malformed(format!("there is no greeting {service_name:?}"))),
        };
        let hello = greeting.map(|greeting| match name.as_str() {
            "" => greeting.to_owned(),
            name => format!("{greeting}, {name}"),
        });
        self.answer(hello.map(|hello| SayHelloResponse { hello, data }))
    }

    async fn invoke_service(&self, request: Request<InvokeServiceRequest>) -> Answer<InvokeResponse> {
        invoke::invoke(self, request).await
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Answer<GetConfigurationResponse> {
        self.answer(configuration::get(self.scope(), request.into_inner()).await)
    }

    async fn save_configuration(&self, request: Request<SaveConfigurationRequest>) -> Answer<()> {
        self.answer(configuration::save(self.scope(), request.into_inner()).await)
    }

    async fn delete_configuration(&self, request: Request<DeleteConfigurationRequest>) -> Answer<()> {
        self.answer(configuration::delete(self.scope(), request.into_inner()).await)
    }

    async fn subscribe_configuration(
        &self,
        request: Request<Streaming<SubscribeConfigurationRequest>>,
    ) -> Answer<Messages<SubscribeConfigurationResponse>> {
        self.answer(Ok(configuration::subscribe(self, request.into_inner())))
    }

    async fn try_lock(&self, request: Request<TryLockRequest>) -> Answer<TryLockResponse> {
        self.answer(self.inner.take_lock(request.into_inner()).await)
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        self.answer(self.inner.give_lock_back(request.into_inner()).await)
    }

    async fn lock_keep_alive(&self, request: Request<LockKeepAliveRequest>) -> Answer<LockKeepAliveResponse> {
        self.answer(lock::keep_alive(self.scope(), request.into_inner()).await)
    }

    async fn get_next_id(&self, request: Request<GetNextIdRequest>) -> Answer<GetNextIdResponse> {
        self.answer(lock::next_id(self.scope(), request.into_inner()).await)
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Answer<GetStateResponse> {
        self.answer(state::get(self.scope(), request.into_inner()).await)
    }

    async fn get_bulk_state(&self, request: Request<GetBulkStateRequest>) -> Answer<GetBulkStateResponse> {
        self.answer(state::get_many(self.scope(), request.into_inner()).await)
    }

    async fn save_state(&self, request: Request<SaveStateRequest>) -> Answer<()> {
        self.answer(state::save(self.scope(), request.into_inner()).await)
    }

    async fn delete_state(&self, request: Request<DeleteStateRequest>) -> Answer<()> {
        self.answer(state::delete(self.scope(), request.into_inner()).await)
    }

    async fn delete_bulk_state(&self, request: Request<DeleteBulkStateRequest>) -> Answer<()> {
        self.answer(state::delete_many(self.scope(), request.into_inner()).await)
    }

    async fn execute_state_transaction(
        &self,
        request: Request<ExecuteStateTransactionRequest>,
    ) -> Answer<()> {
        let caller = Caller::of(&request);
        self.answer(state::transact(self.scope(), &caller, request.into_inner()).await)
    }

    async fn publish_event(&self, request: Request<PublishEventRequest>) -> Answer<()> {
        let caller = Caller::of(&request);
        self.answer(publish::publish(self.scope(), &caller, request.into_inner()).await)
    }

    async fn subscribe_topic_events(
        &self,
        request: Request<Streaming<SubscribeTopicEventsRequestAlpha1>>,
    ) -> Answer<Messages<SubscribeTopicEventsResponse>> {
        publish::subscribe(self, request.into_inner()).await
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Answer<Messages<GetFileResponse>> {
        file::get(self, request.into_inner()).await
    }

    async fn put_file(&self, request: Request<Streaming<PutFileRequest>>) -> Answer<()> {
        file::put(self, request.into_inner()).await
    }

    async fn list_file(&self, request: Request<ListFileRequest>) -> Answer<ListFileResp> {
        self.answer(file::list(self.scope(), request.into_inner()).await)
    }

    async fn del_file(&self, request: Request<DelFileRequest>) -> Answer<()> {
        self.answer(file::delete(self.scope(), request.into_inner()).await)
    }

    async fn get_file_meta(&self, request: Request<GetFileMetaRequest>) -> Answer<GetFileMetaResponse> {
        self.answer(file::meta(self.scope(), request.into_inner()).await)
    }

    async fn invoke_binding(&self, request: Request<InvokeBindingRequest>) -> Answer<InvokeBindingResponse> {
        let caller = Caller::of(&request);
        self.inner.call_binding(caller, request.into_inner()).await
    }

    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Answer<GetSecretResponse> {
        self.answer(self.inner.read_secret(request.into_inner()).await)
    }

    async fn get_bulk_secret(&self, request: Request<GetBulkSecretRequest>) -> Answer<GetBulkSecretResponse> {
        self.answer(self.inner.read_secrets(request.into_inner()).await)
    }
}
