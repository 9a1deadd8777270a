//! The methods of `dapr.proto.runtime.v1.Dapr`, each one line. Those that are not here answer "unimplemented".

use super::caller::Caller;
use super::{Service, configuration, invoke, job, metadata, publish, state, status, subscribe};
use crate::dapr::error::ApiError;
use crate::dapr::{lock, secret};
use crate::proto::common::v1::InvokeResponse;
use crate::proto::runtime::v1::*;
use dapr_server::Dapr;
use dhow_blocks::binding::{BindingRequest, BindingResponse};
use futures::stream::BoxStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::{Request, Response, Status, Streaming};

pub(crate) type Answer<T> = Result<Response<T>, Status>;
pub(crate) type Messages<T> = BoxStream<'static, Result<T, Status>>;

impl Service {
    pub(crate) fn answer<T>(&self, answer: Result<T, ApiError>) -> Answer<T> {
        answer.map(Response::new).map_err(|error| self.status(&error))
    }

    pub(crate) fn status(&self, error: &ApiError) -> Status {
        self.api.metrics.error(&self.scope.app_id, error.code);
        status::status(error, &self.scope.app_id)
    }

    pub(crate) async fn take_lock(&self, request: TryLockRequest) -> Result<TryLockResponse, ApiError> {
        let TryLockRequest { store_name, resource_id, lock_owner, expiry_in_seconds } = request;
        let expiry = i64::from(expiry_in_seconds);
        let success = lock::take(&self.scope, &store_name, &resource_id, &lock_owner, expiry).await?;
        Ok(TryLockResponse { success })
    }

    pub(crate) async fn give_lock_back(&self, request: UnlockRequest) -> Result<UnlockResponse, ApiError> {
        let UnlockRequest { store_name, resource_id, lock_owner } = request;
        let status = lock::give_back(&self.scope, &store_name, &resource_id, &lock_owner).await?;
        Ok(UnlockResponse { status })
    }

    pub(crate) async fn read_secret(&self, request: GetSecretRequest) -> Result<GetSecretResponse, ApiError> {
        let GetSecretRequest { store_name, key, metadata } = request;
        let secret = secret::read(&self.scope, &store_name, &key, &metadata).await?;
        Ok(GetSecretResponse { data: secret.0 })
    }

    pub(crate) async fn read_secrets(
        &self,
        request: GetBulkSecretRequest,
    ) -> Result<GetBulkSecretResponse, ApiError> {
        let secrets = secret::read_all(&self.scope, &request.store_name, &request.metadata).await?;
        let data = secrets.into_iter().map(|(name, secret)| (name, SecretResponse { secrets: secret.0 }));
        Ok(GetBulkSecretResponse { data: data.collect() })
    }

    pub(crate) async fn call_binding(
        &self,
        caller: Caller,
        request: InvokeBindingRequest,
    ) -> Answer<InvokeBindingResponse> {
        let InvokeBindingRequest { name, data, mut metadata, operation } = request;
        metadata.entry("traceparent".to_owned()).or_insert_with(|| caller.trace.to_string());
        let answer = self.scope.call_binding(&name, BindingRequest { operation, data, metadata }).await;
        let answer = answer.map_err(|error| self.status(&ApiError::binding(&name, &error)))?;
        let BindingResponse { data, metadata } = answer;
        let mut response = Response::new(InvokeBindingResponse {
            data: data.unwrap_or_default(),
            metadata: metadata.clone(),
        });
        // As headers, too, as over HTTP.
        for (name, value) in metadata {
            let name = format!("metadata.{}", name.to_ascii_lowercase());
            let name = AsciiMetadataKey::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, AsciiMetadataValue::try_from(value)) {
                response.metadata_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl Dapr for Service {
    async fn invoke_service(&self, request: Request<InvokeServiceRequest>) -> Answer<InvokeResponse> {
        invoke::invoke(self, request).await
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Answer<GetStateResponse> {
        self.answer(state::get(&self.scope, request.into_inner()).await)
    }

    async fn get_bulk_state(&self, request: Request<GetBulkStateRequest>) -> Answer<GetBulkStateResponse> {
        self.answer(state::get_many(&self.scope, request.into_inner()).await)
    }

    async fn save_state(&self, request: Request<SaveStateRequest>) -> Answer<()> {
        self.answer(state::save(&self.scope, request.into_inner()).await)
    }

    async fn query_state_alpha1(&self, request: Request<QueryStateRequest>) -> Answer<QueryStateResponse> {
        self.answer(state::query(&self.scope, request.into_inner()).await)
    }

    async fn delete_state(&self, request: Request<DeleteStateRequest>) -> Answer<()> {
        self.answer(state::delete(&self.scope, request.into_inner()).await)
    }

    async fn delete_bulk_state(&self, request: Request<DeleteBulkStateRequest>) -> Answer<()> {
        self.answer(state::delete_many(&self.scope, request.into_inner()).await)
    }

    async fn execute_state_transaction(
        &self,
        request: Request<ExecuteStateTransactionRequest>,
    ) -> Answer<()> {
        let caller = Caller::of(&request);
        self.answer(state::transact(&self.scope, &caller, request.into_inner()).await)
    }

    async fn publish_event(&self, request: Request<PublishEventRequest>) -> Answer<()> {
        let caller = Caller::of(&request);
        self.answer(publish::publish(&self.scope, &caller, request.into_inner()).await)
    }

    async fn bulk_publish_event_alpha1(
        &self,
        request: Request<BulkPublishRequest>,
    ) -> Answer<BulkPublishResponse> {
        self.bulk_publish_event(request).await
    }

    async fn bulk_publish_event(&self, request: Request<BulkPublishRequest>) -> Answer<BulkPublishResponse> {
        let caller = Caller::of(&request);
        self.answer(publish::publish_many(&self.scope, &caller, request.into_inner()).await)
    }

    async fn subscribe_topic_events_alpha1(
        &self,
        request: Request<Streaming<SubscribeTopicEventsRequestAlpha1>>,
    ) -> Answer<Messages<SubscribeTopicEventsResponseAlpha1>> {
        subscribe::subscribe(self, request.into_inner()).await.map(Response::new)
    }

    async fn invoke_binding(&self, request: Request<InvokeBindingRequest>) -> Answer<InvokeBindingResponse> {
        let caller = Caller::of(&request);
        self.call_binding(caller, request.into_inner()).await
    }

    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Answer<GetSecretResponse> {
        self.answer(self.read_secret(request.into_inner()).await)
    }

    async fn get_bulk_secret(&self, request: Request<GetBulkSecretRequest>) -> Answer<GetBulkSecretResponse> {
        self.answer(self.read_secrets(request.into_inner()).await)
    }

    async fn get_configuration_alpha1(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Answer<GetConfigurationResponse> {
        self.get_configuration(request).await
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Answer<GetConfigurationResponse> {
        self.answer(configuration::get(&self.scope, request.into_inner()).await)
    }

    async fn subscribe_configuration_alpha1(
        &self,
        request: Request<SubscribeConfigurationRequest>,
    ) -> Answer<Messages<SubscribeConfigurationResponse>> {
        self.subscribe_configuration(request).await
    }

    async fn subscribe_configuration(
        &self,
        request: Request<SubscribeConfigurationRequest>,
    ) -> Answer<Messages<SubscribeConfigurationResponse>> {
        self.answer(configuration::subscribe(self, request.into_inner()).await)
    }

    async fn unsubscribe_configuration_alpha1(
        &self,
        request: Request<UnsubscribeConfigurationRequest>,
    ) -> Answer<UnsubscribeConfigurationResponse> {
        self.unsubscribe_configuration(request).await
    }

    async fn unsubscribe_configuration(
        &self,
        request: Request<UnsubscribeConfigurationRequest>,
    ) -> Answer<UnsubscribeConfigurationResponse> {
        self.answer(configuration::unsubscribe(self, request.into_inner()).await)
    }

    async fn try_lock_alpha1(&self, request: Request<TryLockRequest>) -> Answer<TryLockResponse> {
        self.answer(self.take_lock(request.into_inner()).await)
    }

    async fn unlock_alpha1(&self, request: Request<UnlockRequest>) -> Answer<UnlockResponse> {
        self.answer(self.give_lock_back(request.into_inner()).await)
    }

    async fn get_metadata(&self, _: Request<GetMetadataRequest>) -> Answer<GetMetadataResponse> {
        Ok(Response::new(metadata::get(self)))
    }

    async fn set_metadata(&self, request: Request<SetMetadataRequest>) -> Answer<()> {
        self.answer(metadata::set(self, request.into_inner()))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Answer<()> {
        self.answer(self.api.shut_down(crate::dapr::Caller::Outside).map(|_| ()))
    }

    async fn schedule_job_alpha1(&self, request: Request<ScheduleJobRequest>) -> Answer<ScheduleJobResponse> {
        self.schedule_job(request).await
    }

    async fn schedule_job(&self, request: Request<ScheduleJobRequest>) -> Answer<ScheduleJobResponse> {
        let scheduled = job::schedule(&self.scope, request.into_inner()).await;
        self.answer(scheduled.map(|()| ScheduleJobResponse {}))
    }

    async fn get_job_alpha1(&self, request: Request<GetJobRequest>) -> Answer<GetJobResponse> {
        self.get_job(request).await
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Answer<GetJobResponse> {
        let job = job::get(&self.scope, &request.into_inner().name).await;
        self.answer(job.map(|job| GetJobResponse { job: Some(job) }))
    }

    async fn delete_job_alpha1(&self, request: Request<DeleteJobRequest>) -> Answer<DeleteJobResponse> {
        self.delete_job(request).await
    }

    async fn delete_job(&self, request: Request<DeleteJobRequest>) -> Answer<DeleteJobResponse> {
        let deleted = job::delete(&self.scope, &request.into_inner().name).await;
        self.answer(deleted.map(|()| DeleteJobResponse {}))
    }

    async fn delete_jobs_by_prefix_alpha1(
        &self,
        request: Request<DeleteJobsByPrefixRequestAlpha1>,
    ) -> Answer<DeleteJobsByPrefixResponseAlpha1> {
        let deleted = job::delete_prefix(&self.scope, request.into_inner().name_prefix).await;
        self.answer(deleted.map(|()| DeleteJobsByPrefixResponseAlpha1 {}))
    }

    async fn delete_jobs_by_prefix(
        &self,
        request: Request<DeleteJobsByPrefixRequest>,
    ) -> Answer<DeleteJobsByPrefixResponse> {
        let deleted = job::delete_prefix(&self.scope, request.into_inner().name_prefix).await;
        self.answer(deleted.map(|()| DeleteJobsByPrefixResponse {}))
    }

    async fn list_jobs_alpha1(&self, _: Request<ListJobsRequestAlpha1>) -> Answer<ListJobsResponseAlpha1> {
        self.answer(job::all(&self.scope).await.map(|jobs| ListJobsResponseAlpha1 { jobs }))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Answer<ListJobsResponse> {
        self.answer(job::all(&self.scope).await.map(|jobs| ListJobsResponse { jobs }))
    }
}
