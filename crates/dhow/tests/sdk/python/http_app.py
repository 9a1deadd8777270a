"""An app of Flask with Dapr's extension, asked through the client half of the Python SDK."""

import json
import logging
import os
import threading
import urllib.error
import urllib.request

import grpc
from checks import Seen, check, contains, equal, eventually, listens, raises, run
from dapr.clients import DaprClient
from dapr.clients.exceptions import DaprInternalError
from dapr.conf import settings
from dapr.ext.flask import DaprApp
from flask import Flask, Response, jsonify, request

app = Flask('app')
dapr_app = DaprApp(app)
logging.getLogger('werkzeug').setLevel(logging.ERROR)
orders, raw, dead, ticks, jobs, values, bulk = (Seen() for _ in range(7))
attempts = []


@app.route('/healthz')
def healthz():
    return 'well'


@app.route('/echo/<path:path>', methods=['GET', 'POST', 'PUT', 'DELETE', 'PATCH'])
def echo(path):
    answer = jsonify(method=request.method, path=request.full_path, body=request.get_data(as_text=True),
                     headers={name.lower(): value for name, value in request.headers})
    answer.headers['x-answer'] = 'yes'
    return answer


@app.route('/fail')
def fail():
    return Response('{"why": "tea"}', status=418, mimetype='application/json')


@app.route('/stream')
def stream():
    return Response((f'data: {n}\n\n' for n in range(3)), mimetype='text/event-stream')


@dapr_app.subscribe(pubsub='pubsub', topic='orders', route='/orders', metadata={'mine': 'yes'})
def on_order():
    orders.add((request.get_json(), dict(request.headers)))
    return jsonify(status='SUCCESS')


@dapr_app.subscribe(pubsub='pubsub', topic='raw', metadata={'rawPayload': 'true'})
def on_raw():
    raw.add(request.get_json())
    return ''


@dapr_app.subscribe(pubsub='pubsub', topic='poison', dead_letter_topic='graves')
def on_poison():
    return jsonify(status='DROP')


@dapr_app.subscribe(pubsub='pubsub', topic='lost', dead_letter_topic='graves', route='/lost')
def on_lost():
    return 'no such thing', 404


@dapr_app.subscribe(pubsub='pubsub', topic='graves')
def on_grave():
    dead.add(request.get_json()['data'])
    return ''


@dapr_app.subscribe(pubsub='pubsub', topic='stubborn')
def on_stubborn():
    attempts.append(request.get_json()['id'])
    if len(attempts) == 1:
        return 'not now', 503
    return jsonify(status='SUCCESS' if len(attempts) > 2 else 'RETRY')


@app.route('/tick', methods=['OPTIONS', 'POST'])
def on_tick():
    if request.method == 'POST':
        ticks.add(dict(request.headers))
    return ''


@app.route('/job/<name>', methods=['POST'])
def on_job(name):
    jobs.add((name, request.get_json()))
    return ''


@app.route('/configuration/<store>/<key>', methods=['POST'])
def on_value(store, key):
    values.add((store, key, request.get_json()['items'][key]['value']))
    return ''


port = int(os.environ['APP_PORT'])
threading.Thread(target=lambda: app.run('127.0.0.1', port, threaded=True), daemon=True).start()
dapr = DaprClient()
API = f'http://127.0.0.1:{os.environ["DAPR_HTTP_PORT"]}'
TOKEN = os.environ.get('DAPR_API_TOKEN', '')


def ask(method, path, body=None, **headers):
    """The plain HTTP API, for what the SDK does not have."""
    headers = {name.replace('_', '-'): value for name, value in headers.items()}
    headers.setdefault('dapr-api-token', TOKEN)
    data = None if body is None else body.encode()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(API + path, data, headers, method=method))
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.read().decode(), answer.headers


@check
def invoke():
    eventually('the app', lambda: listens(port))
    answer = dapr.invoke_method('py-http', 'echo/a/b', 'body', 'text/plain', http_verb='POST',
                                metadata=(('x-mine', 'kept'),), http_querystring=(('q', '1 2'), ('r', 'é')))
    found = json.loads(answer.text())
    equal((found['method'], found['body']), ('POST', 'body'))
    equal(found['path'], '/echo/a/b?q=1+2&r=%C3%A9')
    headers = found['headers']
    equal((headers['x-mine'], headers['content-type']), ('kept', 'text/plain'))
    equal((headers['dapr-caller-app-id'], headers['dapr-callee-app-id']), ('py-http', 'py-http'))
    equal(headers.get('dapr-api-token', ''), os.environ.get('APP_API_TOKEN', ''))
    assert headers['traceparent']
    equal({name.lower(): value for name, value in answer.headers.items()}['x-answer'], ['yes'])
    for verb in ['GET', 'PUT', 'DELETE', 'PATCH']:
        equal(json.loads(dapr.invoke_method('py-http', 'echo/x', http_verb=verb).text())['method'], verb)


@check
def invoke_refusals():
    error = raises(DaprInternalError, dapr.invoke_method, 'py-http', 'fail', http_verb='GET')
    equal((error.status_code, json.loads(error.raw_response_bytes)), (418, {'why': 'tea'}))
    error = raises(DaprInternalError, dapr.invoke_method, 'py-http', 'nothing', http_verb='GET')
    equal(error.status_code, 404)
    error = raises(DaprInternalError, dapr.invoke_method, 'nobody', 'x', http_verb='GET')
    equal((error.status_code, error.error_code), (500, 'ERR_DIRECT_INVOKE'))
    contains(error.message, 'failed to invoke, id: nobody, err:')


@check
def invoke_with_a_header_and_a_stream():
    status, text, _ = ask('GET', '/echo/bare', dapr_app_id='py-http')
    equal((status, json.loads(text)['path']), (200, '/echo/bare?'))
    status, text, headers = ask('GET', '/v1.0/invoke/py-http/method/stream')
    equal((status, text), (200, 'data: 0\n\ndata: 1\n\ndata: 2\n\n'))
    contains(headers['content-type'], 'text/event-stream')
    status, text, _ = ask('GET', '/echo/bare')
    equal((status, json.loads(text)['errorCode']), (404, 'ERR_DIRECT_INVOKE'))


@check
def subscriptions_are_told():
    def subscribed():
        return json.loads(ask('GET', '/v1.0/metadata')[1]).get('subscriptions')

    found = {entry['topic']: entry for entry in eventually('subscriptions', subscribed)}
    equal(sorted(found), ['graves', 'lost', 'orders', 'poison', 'raw', 'stubborn'])
    equal({entry['type'] for entry in found.values()}, {'PROGRAMMATIC'})
    equal(found['orders']['rules'], [{'path': '/orders'}])
    equal(found['orders']['metadata'], {'mine': 'yes'})
    equal(found['poison']['deadLetterTopic'], 'graves')
    connection = json.loads(ask('GET', '/v1.0/metadata')[1])['appConnectionProperties']
    health = {'healthCheckPath': '/healthz', 'healthProbeInterval': '5s', 'healthProbeTimeout': '500ms',
              'healthThreshold': 3}
    equal(connection, {'port': port, 'protocol': 'http', 'channelAddress': '127.0.0.1', 'health': health})


@check
def events():
    dapr.publish_event('pubsub', 'orders', '{"id": 7}', data_content_type='application/json')
    [(event, headers)] = orders.wait()
    equal(event['data'], {'id': 7})
    equal({name: event[name] for name in ['specversion', 'type', 'source', 'topic', 'pubsubname', 'datacontenttype']},
          {'specversion': '1.0', 'type': 'com.dapr.event.sent', 'source': 'py-http', 'topic': 'orders',
           'pubsubname': 'pubsub', 'datacontenttype': 'application/json'})
    equal(event['traceid'], event['traceparent'])
    assert event['id'] and event['time']
    headers = {name.lower(): value for name, value in headers.items()}
    equal(headers['content-type'], 'application/cloudevents+json')
    equal(headers.get('dapr-api-token', ''), os.environ.get('APP_API_TOKEN', ''))
    dapr.publish_event('pubsub', 'orders', b'\x00\xff', data_content_type='application/octet-stream')
    equal(orders.wait(2)[1][0]['data_base64'], 'AP8=')


@check
def raw_events():
    dapr.publish_event('pubsub', 'raw', 'bare', publish_metadata={'rawPayload': 'true'})
    [event] = raw.wait()
    equal((event['data_base64'], event['datacontenttype']), ('YmFyZQ==', 'application/octet-stream'))


@check
def dropped_and_unknown_events_go_to_the_dead_letters():
    dapr.publish_event('pubsub', 'poison', 'apple')
    dapr.publish_event('pubsub', 'lost', 'glove')
    equal(sorted(dead.wait(2)), ['apple', 'glove'])


@check
def events_are_tried_again():
    dapr.publish_event('pubsub', 'stubborn', 'x')
    eventually('the third attempt', lambda: len(attempts) == 3)
    equal(len(set(attempts)), 1)


@check
def input_bindings():
    headers = {name.lower(): value for name, value in ticks.wait()[0].items()}
    assert 'readtimeutc' in headers, headers


@check
def job_events():
    equal(ask('POST', '/v1.0/jobs/soon', '{"dueTime": "0s", "data": {"wake": "up"}}')[0], 204)
    equal(jobs.wait()[0], ('soon', {'wake': 'up'}))


@check
def configuration_changes_are_posted():
    status, text, _ = ask('GET', '/v1.0/configuration/configstore/subscribe?key=greeting')
    equal(status, 200)
    subscription = json.loads(text)['id']
    with open('configuration.new', 'w') as file:
        json.dump({'greeting': 'new'}, file)
    os.rename('configuration.new', 'configuration.json')
    contains(values.wait(), ('configstore', 'greeting', 'new'))
    status, text, _ = ask('GET', f'/v1.0/configuration/configstore/{subscription}/unsubscribe')
    equal((status, json.loads(text)), (200, {'ok': True}))


@check
def tokens():
    if not TOKEN:
        return
    for token in ['', 'wrong']:
        status, text, headers = ask('GET', '/v1.0/metadata', dapr_api_token=token)
        equal((status, text.strip()), (401, 'invalid api token'))
        contains(headers['content-type'], 'text/plain')
    for path in ['/v1.0/healthz', '/v1.0/healthz/outbound']:
        equal(ask('GET', path, dapr_api_token='')[0], 204)
    settings.DAPR_API_TOKEN = 'wrong'
    error = raises(grpc.RpcError, DaprClient().get_state, 'statestore', 'k')
    settings.DAPR_API_TOKEN = TOKEN
    equal((error.code(), error.details()), (grpc.StatusCode.UNAUTHENTICATED, 'authentication error: api token mismatch'))


# The sidecar tells its program to end.
run(dapr.shutdown)
