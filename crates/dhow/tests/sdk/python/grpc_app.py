"""The server half of Dapr's Python SDK over gRPC, asked through the client half."""

import json
import os
import threading
import urllib.request

from checks import Seen, check, contains, equal, eventually, listens, raises, run
from dapr.clients import DaprClient
from dapr.clients.grpc._jobs import Job
from dapr.ext.grpc import (
    App,
    BindingRequest,
    InvokeMethodRequest,
    InvokeMethodResponse,
    JobEvent,
    Rule,
    SubscriptionMessage,
)
from dapr.clients.grpc._response import TopicEventResponse
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import StringValue
from grpc import RpcError, StatusCode

os.environ['DAPR_API_METHOD_INVOCATION_PROTOCOL'] = 'grpc'

app = App()
orders, blue, other, dead, ticks, jobs, health = (Seen() for _ in range(7))
attempts = []


@app.method('greet')
def greet(request: InvokeMethodRequest):
    metadata = {name: values[0] for name, values in request.metadata.items()}
    answer = InvokeMethodResponse(f'hello {request.text()}', 'text/plain')
    answer.headers = (('x-answer', 'yes'), ('x-caller', metadata.get('dapr-caller-app-id', '')),
                      ('x-mine', metadata.get('x-mine', '')), ('x-token', metadata.get('dapr-api-token', '')),
                      ('x-traced', str('traceparent' in metadata)))
    return answer


@app.method('json')
def as_json(request: InvokeMethodRequest):
    return json.dumps({'got': json.loads(request.text()), 'type': request.content_type})


@app.method('proto')
def proto(request: InvokeMethodRequest):
    value = StringValue()
    request.unpack(value)
    return StringValue(value=value.value.upper())


@app.method('fail')
def fail(request: InvokeMethodRequest):
    raise RuntimeError('I cannot')


@app.subscribe('pubsub', 'orders', metadata={'mine': 'yes'})
def on_order(event: SubscriptionMessage):
    orders.add((event.data(), event.data_content_type(), event.source(), event.type(), event.extensions()))


@app.subscribe('pubsub', 'colors', disable_topic_validation=True)
def on_color(event: SubscriptionMessage):
    other.add(event.data())


@app.subscribe('pubsub', 'colors', rule=Rule('event.type == "blue"', 1))
def on_blue(event: SubscriptionMessage):
    blue.add(event.data())


@app.subscribe('pubsub', 'poison', dead_letter_topic='graves')
def on_poison(event: SubscriptionMessage):
    return TopicEventResponse('drop')


@app.subscribe('pubsub', 'graves')
def on_grave(event: SubscriptionMessage):
    dead.add(event.data())


@app.subscribe('pubsub', 'stubborn')
def on_stubborn(event: SubscriptionMessage):
    attempts.append(event.id())
    return TopicEventResponse('success' if len(attempts) > 2 else 'retry')


@app.binding('tick')
def on_tick(request: BindingRequest):
    ticks.add((request.data, dict(request.metadata)))


@app.job_event('soon')
def on_job(event: JobEvent):
    jobs.add((event.name, event.get_data_as_string()))


app.register_health_check(lambda: health.add('asked'))

port = int(os.environ['APP_PORT'])
threading.Thread(target=app.run, args=(port, '127.0.0.1'), daemon=True).start()
dapr = DaprClient()


@check
def invoke():
    eventually('the app', lambda: listens(port))
    answer = dapr.invoke_method('py-grpc', 'greet', 'you', 'text/plain', metadata=(('x-mine', 'kept'),))
    equal((answer.text(), answer.content_type), ('hello you', 'text/plain'))
    headers = {key: value[0] if isinstance(value, list) else value for key, value in answer.headers.items()}
    equal(headers['x-answer'], 'yes')
    equal((headers['x-caller'], headers['x-mine']), ('py-grpc', 'kept'))
    equal(headers['x-token'], os.environ.get('APP_API_TOKEN', ''))
    equal(headers['x-traced'], 'True')


@check
def invoke_with_json_and_messages():
    answer = dapr.invoke_method('py-grpc', 'json', '{"a": [1]}', 'application/json')
    equal(json.loads(answer.text()), {'got': {'a': [1]}, 'type': 'application/json'})
    answer = dapr.invoke_method('py-grpc', 'proto', StringValue(value='shout'))
    value = StringValue()
    answer.unpack(value)
    equal(value.value, 'SHOUT')


@check
def invoke_refusals():
    error = raises(RpcError, dapr.invoke_method, 'py-grpc', 'fail', 'x', 'text/plain')
    equal(error.code(), StatusCode.UNKNOWN)
    contains(error.details(), 'I cannot')
    error = raises(RpcError, dapr.invoke_method, 'py-grpc', 'nothing', 'x', 'text/plain')
    contains(error.details(), 'nothing method not implemented')
    error = raises(RpcError, dapr.invoke_method, 'nobody', 'x', 'x', 'text/plain')
    contains(error.details(), 'failed to invoke, id: nobody')


def subscribed():
    """The sidecar asks for subscriptions when the port answers."""
    components = dapr.get_metadata()
    url = f'http://127.0.0.1:{os.environ["DAPR_HTTP_PORT"]}/v1.0/metadata'
    request = urllib.request.Request(url, headers={'dapr-api-token': os.environ.get('DAPR_API_TOKEN', '')})
    found = json.load(urllib.request.urlopen(request))
    equal(found['id'], components.application_id)
    return found.get('subscriptions')


@check
def subscriptions_are_told():
    found = {entry['topic']: entry for entry in eventually('subscriptions', subscribed)}
    equal(sorted(found), ['colors', 'graves', 'orders', 'poison', 'stubborn'])
    equal({entry['type'] for entry in found.values()}, {'PROGRAMMATIC'})
    equal(found['orders']['metadata'], {'mine': 'yes'})
    equal(found['poison']['deadLetterTopic'], 'graves')


@check
def events():
    dapr.publish_event('pubsub', 'orders', '{"id": 7}', data_content_type='application/json')
    [(data, content_type, source, kind, extensions)] = orders.wait()
    equal((data, content_type), ({'id': 7}, 'application/json'))
    equal((source, kind), ('py-grpc', 'com.dapr.event.sent'))
    assert extensions.get('traceparent'), extensions
    dapr.publish_events('pubsub', 'orders', ['a', 'b'], data_content_type='text/plain')
    equal(sorted(item[0] for item in orders.wait(3)[1:]), ['a', 'b'])


@check
def events_are_routed():
    dapr.publish_event('pubsub', 'colors', 'sea', publish_metadata={'cloudevent.type': 'blue'})
    dapr.publish_event('pubsub', 'colors', 'fire', publish_metadata={'cloudevent.type': 'red'})
    equal(blue.wait(), ['sea'])
    equal(other.wait(), ['fire'])


@check
def dropped_events_go_to_the_dead_letters():
    dapr.publish_event('pubsub', 'poison', 'apple')
    equal(dead.wait(), ['apple'])


@check
def events_are_tried_again():
    dapr.publish_event('pubsub', 'stubborn', 'x')
    eventually('the third attempt', lambda: len(attempts) == 3)
    equal(len(set(attempts)), 1)


@check
def input_bindings():
    [(data, metadata), *_] = ticks.wait()
    assert metadata, metadata


@check
def job_events():
    data = Any()
    data.Pack(StringValue(value='wake up'))
    dapr.schedule_job(Job(name='soon', due_time='0s', data=data))
    [(name, text), *_] = jobs.wait()
    equal(name, 'soon')
    contains(text, 'wake up')


@check
def health_checks():
    health.wait()


run()
