"""The client half of Dapr's Python SDK, every block, without an app port."""

import json
import os
import threading
import uuid

import grpc
from checks import PATIENCE, Seen, check, contains, equal, eventually, raises, run
from dapr.clients import BulkPublishEntry, DaprClient
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.grpc._jobs import ConstantFailurePolicy, DropFailurePolicy, Job
from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._response import TopicEventResponse
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions
from dapr.clients.health import DaprHealth
from google.protobuf.any_pb2 import Any

Code = grpc.StatusCode
dapr = DaprClient()


def refused(code, reason, message, function, *args, **kwargs):
    """The call fails as Dapr has it: exception, gRPC code, ErrorInfo and text."""
    error = raises(grpc.RpcError, function, *args, **kwargs)
    if not isinstance(error, DaprGrpcError):
        error = DaprGrpcError(error)
    equal(error.code(), code)
    contains(error.details(), message)
    if reason:
        equal(error.error_code(), reason)
        equal(error.status_details().error_info['domain'], 'dapr.io')
    return error


# --- state


@check
def state_save_get_delete():
    for value in ['text', '{"a": 1}', b'\x00\xff', '']:
        dapr.save_state('statestore', 'one', value)
        found = dapr.get_state('statestore', 'one')
        equal(found.data, value if isinstance(value, bytes) else value.encode())
        assert found.etag
    dapr.delete_state('statestore', 'one')
    absent = dapr.get_state('statestore', 'one')
    equal((absent.data, absent.etag), (b'', ''))
    dapr.delete_state('statestore', 'never there')


@check
def state_bulk():
    dapr.save_bulk_state('statestore', [StateItem(key=k, value=v) for k, v in [('b1', '1'), ('b2', '2')]])
    items = dapr.get_bulk_state('statestore', ['b1', 'b2', 'absent'], parallelism=2).items
    equal({item.key: item.data for item in items}, {'b1': b'1', 'b2': b'2', 'absent': b''})
    equal({item.key for item in items if item.etag}, {'b1', 'b2'})


@check
def state_transaction():
    dapr.save_state('statestore', 'gone', 'x')
    operations = [
        TransactionalStateOperation(key='t1', data='1'),
        TransactionalStateOperation(key='t2', data='2'),
        TransactionalStateOperation(key='gone', operation_type=TransactionOperationType.delete),
    ]
    dapr.execute_state_transaction('statestore', operations)
    keys = ['t1', 't2', 'gone']
    equal([dapr.get_state('statestore', key).data for key in keys], [b'1', b'2', b''])
    # All or nothing.
    operations = [
        TransactionalStateOperation(key='t1', data='changed'),
        TransactionalStateOperation(key='t2', data='changed', etag='4711'),
    ]
    refused(Code.INTERNAL, None, 'etag', dapr.execute_state_transaction, 'statestore', operations)
    equal([dapr.get_state('statestore', key).data for key in keys], [b'1', b'2', b''])


@check
def state_etags():
    first = StateOptions(concurrency=Concurrency.first_write, consistency=Consistency.strong)
    dapr.save_state('statestore', 'e', '1')
    old = dapr.get_state('statestore', 'e').etag
    dapr.save_state('statestore', 'e', '2', etag=old, options=first)
    stale = 'possible etag mismatch. error from state store'
    refused(Code.ABORTED, None, stale, dapr.save_state, 'statestore', 'e', '3', etag=old)
    refused(Code.ABORTED, None, stale, dapr.save_state, 'statestore', 'e', '3', etag=old, options=first)
    refused(Code.ABORTED, None, stale, dapr.delete_state, 'statestore', 'e', etag=old)
    equal(dapr.get_state('statestore', 'e').data, b'2')
    dapr.delete_state('statestore', 'e', etag=dapr.get_state('statestore', 'e').etag)
    equal(dapr.get_state('statestore', 'e').data, b'')


@check
def state_first_write_makes_a_key_once():
    first = StateOptions(concurrency=Concurrency.first_write, consistency=Consistency.eventual)
    dapr.save_state('statestore', 'once', '1', options=first)
    refused(Code.ABORTED, None, 'etag mismatch', dapr.save_state, 'statestore', 'once', '2', options=first)
    equal(dapr.get_state('statestore', 'once').data, b'1')


@check
def state_ttl():
    dapr.save_state('statestore', 'short', '1', state_metadata={'ttlInSeconds': '1'})
    equal(dapr.get_state('statestore', 'short').data, b'1')
    eventually('the end of the value', lambda: dapr.get_state('statestore', 'short').data == b'')
    bad = {'ttlInSeconds': 'soon'}
    refused(Code.INTERNAL, None, 'ttl', dapr.save_state, 'statestore', 'short', '1', state_metadata=bad)


@check
def state_refusals():
    gone = 'state store nostore is not found'
    reason = 'DAPR_STATE_NOT_FOUND'
    error = refused(Code.INVALID_ARGUMENT, reason, gone, dapr.get_state, 'nostore', 'k')
    equal(error.status_details().error_info['metadata']['appID'], 'py-client')
    refused(Code.INVALID_ARGUMENT, reason, gone, dapr.save_state, 'nostore', 'k', 'v')
    refused(Code.INVALID_ARGUMENT, reason, gone, dapr.delete_state, 'nostore', 'k')
    refused(Code.INVALID_ARGUMENT, reason, gone, dapr.get_bulk_state, 'nostore', ['k'])
    operations = [TransactionalStateOperation(key='k', data='v')]
    refused(Code.INVALID_ARGUMENT, reason, gone, dapr.execute_state_transaction, 'nostore', operations)
    refused(Code.INVALID_ARGUMENT, reason, gone, dapr.query_state, 'nostore', '{}')
    bars = "can't contain '||'"
    refused(Code.INVALID_ARGUMENT, 'DAPR_STATE_ILLEGAL_KEY', bars, dapr.save_state, 'statestore', 'a||b', 'v')
    querying = "doesn't support"
    refused(Code.INTERNAL, 'DAPR_STATE_QUERYING_NOT_SUPPORTED', querying, dapr.query_state, 'statestore', '{}')


# --- pub/sub


@check
def publish_and_stream():
    topic = 'stream'
    subscription = dapr.subscribe('pubsub', topic)
    dapr.publish_event('pubsub', topic, '{"n": 1}', data_content_type='application/json')
    message = subscription.next_message()
    equal(message.data(), {'n': 1})
    equal((message.topic(), message.pubsub_name(), message.source()), (topic, 'pubsub', 'py-client'))
    equal((message.type(), message.spec_version()), ('com.dapr.event.sent', '1.0'))
    equal(message.data_content_type(), 'application/json')
    uuid.UUID(message.id())
    subscription.respond_success(message)
    # No content type is text.
    dapr.publish_event('pubsub', topic, 'plain')
    message = subscription.next_message()
    equal((message.data_content_type(), message.data()), ('text/plain', 'plain'))
    subscription.respond_success(message)
    # A CloudEvent goes through as it is.
    event = {'specversion': '1.0', 'id': 'mine', 'source': 'me', 'type': 'my.type', 'data': {'x': 1},
             'datacontenttype': 'application/json', 'myextension': 'kept'}
    dapr.publish_event('pubsub', topic, json.dumps(event),
                       data_content_type='application/cloudevents+json')
    message = subscription.next_message()
    equal((message.id(), message.source(), message.type()), ('mine', 'me', 'my.type'))
    equal(message.data(), {'x': 1})
    equal(message.extensions().get('myextension'), 'kept')
    subscription.respond_success(message)
    # Metadata replaces fields of the envelope.
    dapr.publish_event('pubsub', topic, 'x', publish_metadata={
        'cloudevent.id': 'own', 'cloudevent.source': 'elsewhere', 'cloudevent.type': 'own.type'})
    message = subscription.next_message()
    equal((message.id(), message.source(), message.type()), ('own', 'elsewhere', 'own.type'))
    subscription.respond_success(message)
    subscription.close()


@check
def a_stream_gets_raw_payloads():
    subscription = dapr.subscribe('pubsub', 'raw', metadata={'rawPayload': 'true'})
    dapr.publish_event('pubsub', 'raw', b'\x01\x02', publish_metadata={'rawPayload': 'true'})
    message = subscription.next_message()
    equal(message.raw_data(), b'\x01\x02')
    equal(message.data_content_type(), 'application/octet-stream')
    subscription.respond_success(message)
    subscription.close()


@check
def a_message_is_retried_and_dropped_to_the_dead_letters():
    dead = dapr.subscribe('pubsub', 'dead')
    subscription = dapr.subscribe('pubsub', 'mortal', dead_letter_topic='dead')
    dapr.publish_event('pubsub', 'mortal', 'poison')
    message = subscription.next_message()
    subscription.respond_drop(message)
    buried = dead.next_message()
    equal((buried.data(), buried.id()), ('poison', message.id()))
    dead.respond_success(buried)
    dead.close()
    subscription.close()


@check
def publish_bulk_to_a_handler():
    seen = Seen()

    def handle(message):
        seen.add((message.data(), message.data_content_type()))
        return TopicEventResponse('success')

    close = dapr.subscribe_with_handler('pubsub', 'bulk', handle)
    answer = dapr.publish_events('pubsub', 'bulk', ['one', 'two'], data_content_type='text/plain')
    equal(answer.failed_entries, [])
    entry = BulkPublishEntry(event='{"n": 3}', content_type='application/json', entry_id='3')
    equal(dapr.publish_events('pubsub', 'bulk', [entry]).failed_entries, [])
    expected = [('one', 'text/plain'), ('two', 'text/plain'), ({'n': 3}, 'application/json')]
    equal(sorted(seen.wait(3), key=str), sorted(expected, key=str))
    close()


@check
def each_stream_of_a_topic_gets_its_messages():
    first, second = dapr.subscribe('pubsub', 'twice'), dapr.subscribe('pubsub', 'twice')
    dapr.publish_event('pubsub', 'twice', 'for both')
    for subscription in [first, second]:
        message = subscription.next_message()
        equal(message.data(), 'for both')
        subscription.respond_success(message)
        subscription.close()


@check
def publish_refusals():
    refused(Code.INVALID_ARGUMENT, 'DAPR_PUBSUB_NOT_FOUND', 'pubsub nobus is not found',
            dapr.publish_event, 'nobus', 't', 'x')
    refused(Code.INVALID_ARGUMENT, 'DAPR_PUBSUB_NAME_EMPTY', 'pubsub name is empty',
            dapr.publish_event, '', 't', 'x')
    refused(Code.INVALID_ARGUMENT, 'DAPR_PUBSUB_TOPIC_NAME_EMPTY', 'topic is empty in pubsub pubsub',
            dapr.publish_event, 'pubsub', '', 'x')
    error = raises(grpc.RpcError, dapr.publish_events, 'nobus', 't', ['x'])
    contains(error.details(), 'nobus')
    error = raises(Exception, dapr.subscribe, 'nobus', 't')
    contains(str(error), 'nobus')


# --- secrets, configuration, locks


@check
def secrets():
    equal(dict(dapr.get_secret('secretstore', 'password').secret), {'password': 'hunter2'})
    equal(dapr.get_bulk_secret('secretstore').secrets['db:user'], {'db:user': 'sa'})
    refused(Code.INVALID_ARGUMENT, None, 'failed finding secret store with key nosecrets',
            dapr.get_secret, 'nosecrets', 'password')
    refused(Code.INTERNAL, None, 'failed getting secret with key nothing from secret store secretstore',
            dapr.get_secret, 'secretstore', 'nothing')


@check
def configuration():
    items = dapr.get_configuration('configstore', ['greeting']).items
    equal({key: item.value for key, item in items.items()}, {'greeting': 'hello'})
    items = dapr.get_configuration('configstore', []).items
    equal(sorted(items), ['greeting', 'limit'])
    equal((items['limit'].value, items['limit'].version), ('10', 'v2'))
    refused(Code.INVALID_ARGUMENT, None, 'configuration store noconfig not found',
            dapr.get_configuration, 'noconfig', ['x'])


@check
def configuration_changes():
    seen = Seen()
    subscription = dapr.subscribe_configuration(
        'configstore', ['greeting'],
        lambda _, answer: seen.add({key: item.value for key, item in answer.items.items()}))
    with open('configuration.json') as file:
        values = json.load(file)
    values['greeting'] = 'changed'
    with open('configuration.new', 'w') as file:
        json.dump(values, file)
    os.rename('configuration.new', 'configuration.json')
    contains(seen.wait(), {'greeting': 'changed'})
    equal(dapr.unsubscribe_configuration('configstore', subscription), True)


@check
def locks():
    assert dapr.try_lock('lockstore', 'door', 'me', 60).success
    assert not dapr.try_lock('lockstore', 'door', 'you', 60).success
    status = lambda owner, resource='door': dapr.unlock('lockstore', resource, owner).status.name
    equal(status('you'), 'lock_belongs_to_others')
    equal(status('me'), 'success')
    equal(status('me'), 'lock_does_not_exist')
    with dapr.try_lock('lockstore', 'door', 'you', 60) as lock:
        assert lock
    equal(status('you'), 'lock_does_not_exist')
    assert dapr.try_lock('lockstore', 'short', 'me', 1).success
    eventually('the end of the lock', lambda: dapr.try_lock('lockstore', 'short', 'you', 60).success)
    refused(Code.INVALID_ARGUMENT, None, 'lock store nolocks not found', dapr.try_lock, 'nolocks', 'd', 'me', 1)
    refused(Code.INVALID_ARGUMENT, None, 'lock store nolocks not found', dapr.unlock, 'nolocks', 'd', 'me')


# --- bindings, jobs, invocation


@check
def bindings():
    named = {'fileName': 'note.txt'}
    dapr.invoke_binding('files', 'create', 'what I wrote', named)
    equal(dapr.invoke_binding('files', 'get', '', named).text(), 'what I wrote')
    contains(dapr.invoke_binding('files', 'list', '', {}).text(), 'note.txt')
    dapr.invoke_binding('files', 'delete', '', named)
    refused(Code.INTERNAL, None, 'note.txt', dapr.invoke_binding, 'files', 'get', '', named)
    refused(Code.INTERNAL, None, "couldn't find output binding nobinding",
            dapr.invoke_binding, 'nobinding', 'create', 'x')
    refused(Code.INTERNAL, None, 'files', dapr.invoke_binding, 'files', 'fly', 'x')


@check
def jobs():
    data = Any()
    data.type_url = 'type.googleapis.com/google.protobuf.StringValue'
    data.value = b'\n\x02hi'
    job = Job(name='later', schedule='@every 1h', repeats=3, data=data, ttl='24h',
              failure_policy=ConstantFailurePolicy(max_retries=2, interval_seconds=5))
    dapr.schedule_job(job)
    found = dapr.get_job('later')
    equal((found.name, found.schedule, found.repeats), ('later', '@every 1h', 3))
    equal(found.data.value, data.value)
    equal((found.failure_policy.max_retries, found.failure_policy.interval_seconds), (2, 5))
    refused(Code.ALREADY_EXISTS, 'DAPR_SCHEDULER_SCHEDULE_JOB', 'later', dapr.schedule_job, job)
    dapr.schedule_job(Job(name='later', due_time='1h', failure_policy=DropFailurePolicy()), overwrite=True)
    equal(dapr.get_job('later').schedule, None)
    dapr.delete_job('later')
    refused(Code.INTERNAL, 'DAPR_SCHEDULER_GET_JOB', 'later', dapr.get_job, 'later')
    # What it thinks of a schedule, Dapr says in the scheduler's words.
    error = raises(DaprGrpcError, dapr.schedule_job, Job(name='never', schedule='at noon'))
    contains(error.details(), 'at noon')


@check
def invocation_without_a_port():
    error = raises(Exception, dapr.invoke_method, 'nobody', 'x', http_verb='GET')
    contains(str(error), 'ERR_DIRECT_INVOKE')
    contains(str(error), 'failed to invoke, id: nobody')


# --- the sidecar


@check
def health_and_metadata():
    DaprHealth.wait_for_sidecar()
    dapr.wait(1)
    dapr.set_metadata('color', 'blue')
    metadata = dapr.get_metadata()
    equal(metadata.application_id, 'py-client')
    equal(metadata.extended_metadata['color'], 'blue')
    assert metadata.extended_metadata['daprRuntimeVersion']
    components = {component.name: component for component in metadata.registered_components}
    equal(components['statestore'].type, 'state.in-memory')
    equal(components['statestore'].version, 'v1')
    contains(components['statestore'].capabilities, 'ETAG')
    contains(components['statestore'].capabilities, 'TRANSACTIONAL')
    equal(set(components), {'statestore', 'pubsub', 'secretstore', 'configstore', 'lockstore', 'files', 'tick'})


@check
def what_is_not_there_yet_says_so():
    from dapr.clients.grpc.conversation import ConversationInput
    error = raises(Exception, dapr.converse_alpha1, 'echo', [ConversationInput(content='hi')])
    equal(error.code(), Code.UNIMPLEMENTED)
    contains(error.details().lower(), 'conversation')


@check
def metadata_of_a_call_and_many_at_once():
    found = []

    def work(number):
        for turn in range(20):
            key = f'many-{number}'
            dapr.save_state('statestore', key, str(turn))
            equal(dapr.get_state('statestore', key).data, str(turn).encode())
        found.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    equal(sorted(found), list(range(8)))


run()
