"""What a component in a process of its own is good for, through Dapr's API; and that it may die and come back."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from checks import Seen, check, equal, eventually, raises, run

COMPONENT = sys.argv[1:]
BASE = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0"
orders, bells = Seen(), Seen()
refused = []


class App(BaseHTTPRequestHandler):
    def do_GET(self):
        subscriptions = [{'pubsubname': 'messages', 'topic': 'orders', 'route': '/orders'}]
        self.answer(200, json.dumps(subscriptions) if self.path == '/dapr/subscribe' else '')

    def do_OPTIONS(self):
        self.answer(200 if self.path == '/bell' else 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length'] or 0))
        if self.path == '/orders':
            data = json.loads(body)['data']
            # The first attempt fails, and the message comes again.
            if data not in refused:
                refused.append(data)
                return self.answer(500)
            orders.add(data)
        else:
            bells.add(body)
        self.answer(200, '{}')

    def answer(self, status, body=''):
        self.send_response(status)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


def ask(path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, {'content-type': 'application/json'}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.status, answer.headers.get('etag'), answer.read()


@check
def state():
    ask('/state/shelf', [{'key': 'book', 'value': {'left': 1}}])
    status, etag, body = ask('/state/shelf/book')
    equal((status, json.loads(body)), (200, {'left': 1}))
    equal(ask('/state/shelf/none')[0], 204)
    stale = [{'key': 'book', 'value': 2, 'etag': 'another', 'options': {'concurrency': 'first-write'}}]
    equal(raises(urllib.error.HTTPError, ask, '/state/shelf', stale).code, 409)
    ask('/state/shelf', [{'key': 'book', 'value': 3, 'etag': etag}])
    steps = [{'operation': 'upsert', 'request': {'key': 'a', 'value': 1}},
             {'operation': 'delete', 'request': {'key': 'book'}}]
    ask('/state/shelf/transaction', {'operations': steps})
    found = json.loads(ask('/state/shelf/bulk', {'keys': ['a', 'book']})[2])
    equal([entry.get('data') for entry in found], [1, None])


@check
def messages():
    ask('/publish/messages/orders', {'id': 7})
    equal(orders.wait(), [{'id': 7}])
    equal(refused, [{'id': 7}])


@check
def bindings():
    ask('/bindings/bell', {'operation': 'ring', 'data': 'ding'})
    equal(bells.wait(), [b'"ding"'])
    error = raises(urllib.error.HTTPError, ask, '/bindings/bell', {'operation': 'dance'})
    equal(error.code, 500)


@check
def secrets():
    equal(json.loads(ask('/secrets/vault/db')[2]), {'password': 'hunter2'})
    equal(json.loads(ask('/secrets/vault/apikey')[2]), {'apikey': 'from-init'})


@check
def a_process_that_died_is_used_again_when_it_is_back():
    os.kill(int(ask('/bindings/bell', {'operation': 'pid'})[2]), signal.SIGKILL)
    write = [{'key': 'after', 'value': 'death'}]
    equal(raises(urllib.error.HTTPError, ask, '/state/shelf', write).code, 500)
    again = subprocess.Popen(COMPONENT, stdout=subprocess.PIPE)
    try:
        again.stdout.readline()
        # The new process knows nothing: it refuses all that comes before Init.
        eventually('state is back', lambda: saved(write))
        equal(ask('/state/shelf/after')[2], b'"death"')
        ask('/publish/messages/orders', {'id': 8})
        equal(orders.wait(2)[1], {'id': 8})
    finally:
        again.kill()


def saved(write):
    try:
        return ask('/state/shelf', write)[0] == 204
    except urllib.error.HTTPError:
        return False


server = ThreadingHTTPServer(('127.0.0.1', int(os.environ['APP_PORT'])), App)
threading.Thread(target=server.serve_forever, daemon=True).start()
run()
