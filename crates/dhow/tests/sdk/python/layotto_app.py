"""A program with stubs that Google's compiler made of Layotto's protocol files: it calls the API, and is called back."""

import importlib
import os
import sys
import tempfile
import time
import urllib.request
from concurrent import futures

import grpc
import grpc_tools
from checks import Seen, check, equal, eventually, raises, run
from google.protobuf.any_pb2 import Any
from grpc_tools import protoc

PROTO = sys.argv[1]
FILES = ['runtime/v1/runtime', 'runtime/v1/appcallback', 'runtime/v1/lifecycle', 'extension/v1/s3/oss',
         'extension/v1/cryption/cryption', 'extension/v1/delay_queue/delay_queue']

made = tempfile.mkdtemp()
wellknown = os.path.join(os.path.dirname(grpc_tools.__file__), '_proto')
status = protoc.main(['protoc', f'-I{PROTO}', f'-I{wellknown}', f'--python_out={made}', f'--grpc_python_out={made}']
                     + [f'{PROTO}/spec/proto/{file}.proto' for file in FILES])
equal(status, 0)
sys.path.insert(0, made)


def module(file):
    return importlib.import_module('spec.proto.' + file.replace('/', '.'))


runtime, runtime_grpc = module('runtime/v1/runtime_pb2'), module('runtime/v1/runtime_pb2_grpc')
callback, callback_grpc = module('runtime/v1/appcallback_pb2'), module('runtime/v1/appcallback_pb2_grpc')
oss, oss_grpc = module('extension/v1/s3/oss_pb2'), module('extension/v1/s3/oss_pb2_grpc')
cryption = module('extension/v1/cryption/cryption_pb2')
cryption_grpc = module('extension/v1/cryption/cryption_pb2_grpc')
delay = module('extension/v1/delay_queue/delay_queue_pb2')
delay_grpc = module('extension/v1/delay_queue/delay_queue_pb2_grpc')

channel = grpc.insecure_channel('127.0.0.1:' + os.environ['DAPR_GRPC_PORT'])
layotto = runtime_grpc.RuntimeStub(channel)
orders = Seen()


class Callbacks(callback_grpc.AppCallbackServicer):
    def ListTopicSubscriptions(self, request, context):
        return callback.ListTopicSubscriptionsResponse(
            subscriptions=[callback.TopicSubscription(pubsub_name='pubsub', topic='orders')])

    def OnTopicEvent(self, request, context):
        orders.add(request)
        return callback.TopicEventResponse()


@check
def state():
    items = [runtime.StateItem(key='book1', value=b'100'), runtime.StateItem(key='book2', value=b'7')]
    layotto.SaveState(runtime.SaveStateRequest(store_name='statestore', states=items))
    found = layotto.GetState(runtime.GetStateRequest(store_name='statestore', key='book1'))
    equal(found.data, b'100')
    error = raises(grpc.RpcError, layotto.GetState, runtime.GetStateRequest(store_name='nope', key='a'))
    equal(error.code(), grpc.StatusCode.INVALID_ARGUMENT)


@check
def locks_and_ids():
    def owned(kind, **more):
        return kind(store_name='lockstore', resource_id='till', lock_owner='me', **more)

    equal(layotto.TryLock(owned(runtime.TryLockRequest, expire=10)).success, True)
    kept = layotto.LockKeepAlive(owned(runtime.LockKeepAliveRequest, expire=10))
    equal(kept.status, runtime.LockKeepAliveResponse.SUCCESS)
    equal(layotto.Unlock(owned(runtime.UnlockRequest)).status, runtime.UnlockResponse.SUCCESS)
    options = runtime.SequencerOptions(increment=runtime.SequencerOptions.STRONG)
    request = runtime.GetNextIdRequest(store_name='ids', key='order', options=options)
    equal([layotto.GetNextId(request).next_id for _ in range(3)], [1, 2, 3])


@check
def configuration():
    def item(content):
        return runtime.ConfigurationItem(key='mood', content=content, group='shop')

    def save(content):
        layotto.SaveConfiguration(runtime.SaveConfigurationRequest(store_name='configstore', items=[item(content)]))

    save('good')
    request = runtime.GetConfigurationRequest(store_name='configstore', group='shop', keys=['mood'])
    equal([found.content for found in layotto.GetConfiguration(request).items], ['good'])
    subscription = runtime.SubscribeConfigurationRequest(store_name='configstore', group='shop', keys=['mood'])
    seen, stop = Seen(), futures.Future()

    def requests():
        yield subscription
        stop.result()

    changes = layotto.SubscribeConfiguration(requests())
    watcher = futures.ThreadPoolExecutor(1)
    watcher.submit(lambda: [seen.add(change.items[0].content) for change in changes])
    # The subscription has no answer of its own: it is in force when a change arrives.
    eventually('a change', lambda: save(f'better {time.monotonic()}') or seen.items)
    equal(seen.items[0].startswith('better'), True)
    changes.cancel()
    stop.set_result(None)


@check
def events():
    layotto.PublishEvent(runtime.PublishEventRequest(pubsub_name='pubsub', topic='orders', data=b'{"n":1}',
                                                     data_content_type='application/json'))
    event = orders.wait(1)[0]
    equal((event.data, event.source, event.type), (b'{"n":1}', 'runtime', 'com.runtime.event.sent'))
    queue = delay_grpc.DelayQueueStub(channel)
    queue.PublishDelayMessage(delay.DelayMessageRequest(component_name='pubsub', topic='orders', data=b'later',
                                                        delay_in_seconds=1))
    equal(orders.wait(2)[1].data, b'later')


@check
def files_and_objects():
    content = bytes(range(256)) * 4096

    def pieces():
        yield runtime.PutFileRequest(store_name='papers', name='dir/large', metadata={'FileMode': '438'})
        for start in range(0, len(content), 100_000):
            yield runtime.PutFileRequest(data=content[start:start + 100_000])

    layotto.PutFile(pieces())
    found = layotto.GetFile(runtime.GetFileRequest(store_name='papers', name='dir/large'))
    equal(b''.join(piece.data for piece in found) == content, True)
    objects = oss_grpc.ObjectStorageServiceStub(channel)
    part = objects.GetObject(oss.GetObjectInput(store_name='papers', key='dir/large', start=1, end=3))
    equal(b''.join(piece.body for piece in part), bytes([1, 2, 3]))
    listed = objects.ListObjects(oss.ListObjectsInput(store_name='papers', prefix='dir/', maxKeys=10))
    equal([found.key for found in listed.contents], ['dir/large'])


@check
def encryption():
    vault = cryption_grpc.CryptionServiceStub(channel)
    secret = vault.Encrypt(cryption.EncryptRequest(component_name='vault', plain_text=b'secret', key_id='orders'))
    plain = vault.Decrypt(cryption.DecryptRequest(component_name='vault', cipher_text=secret.cipher_text))
    equal((plain.plain_text, plain.key_id), (b'secret', 'orders'))


@check
def greetings():
    data = Any(type_url='mine', value=b'7')
    answer = layotto.SayHello(runtime.SayHelloRequest(service_name='helloworld', name='ada', data=data))
    equal((answer.hello, answer.data), ('greeting, ada', data))


server = grpc.server(futures.ThreadPoolExecutor(4))
callback_grpc.add_AppCallbackServicer_to_server(Callbacks(), server)
server.add_insecure_port('127.0.0.1:' + os.environ['APP_PORT'])
server.start()
# The API is ready when the subscriptions are in force.
health = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0/healthz"


def ready():
    try:
        return urllib.request.urlopen(health).status == 204
    except OSError:
        return False


eventually('the API', ready)
run()
