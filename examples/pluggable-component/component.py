"""A component in a process of its own: state, messages, events and secrets in this process's memory.

    pip install grpcio-tools
    python component.py ../../proto /tmp/dapr-components-sockets/shelf.sock

makes the types state.shelf, pubsub.shelf, bindings.shelf and secretstores.shelf.
"""

import importlib
import os
import queue
import signal
import sys
import tempfile
import threading
import uuid
from concurrent import futures

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO, SOCKET = sys.argv[1], sys.argv[2]


def stubs(*names):
    """Modules that Google's compiler makes of Dapr's protocol for components."""
    made = tempfile.mkdtemp()
    wellknown = os.path.join(os.path.dirname(grpc_tools.__file__), '_proto')
    files = [f'{PROTO}/dapr/proto/components/v1/{name}.proto' for name in names]
    status = protoc.main(['protoc', f'-I{PROTO}', f'-I{wellknown}', f'--python_out={made}',
                          f'--grpc_python_out={made}', *files])
    assert status == 0, 'protoc failed'
    # Packages of their own, before Dapr's SDK if that is installed, too.
    for folder, _, _ in os.walk(made):
        open(os.path.join(folder, '__init__.py'), 'w').close()
    sys.path.insert(0, made)
    return [importlib.import_module(f'dapr.proto.components.v1.{name}_pb2{kind}')
            for name in names for kind in ('', '_grpc')]


(common, _, state, state_grpc, pubsub, pubsub_grpc, bindings, bindings_grpc, secrets, secrets_grpc) = stubs(
    'common', 'state', 'pubsub', 'bindings', 'secretstore')


def instance(context):
    """Which component of this type is meant."""
    return dict(context.invocation_metadata()).get('x-component-instance', '')


class Store(state_grpc.StateStoreServicer, state_grpc.TransactionalStateStoreServicer):
    def __init__(self):
        self.lock = threading.Lock()
        self.stores = {}

    def Init(self, request, context):
        with self.lock:
            self.stores.setdefault(instance(context), {})
        return state.InitResponse()

    def Features(self, request, context):
        return common.FeaturesResponse(feature=['ETAG', 'TRANSACTIONAL'])

    def Ping(self, request, context):
        return common.PingResponse()

    def store(self, context):
        if instance(context) not in self.stores:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, 'Init was not called')
        return self.stores[instance(context)]

    @staticmethod
    def check(store, request, context):
        etag, found = request.etag.value, store.get(request.key, (b'', ''))[1]
        first = request.options.concurrency == state.StateOptions.CONCURRENCY_FIRST_WRITE
        if etag and etag != found or not etag and first and found:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f'the etag of {request.key} is {found!r}')

    def Get(self, request, context):
        with self.lock:
            value, etag = self.store(context).get(request.key, (b'', ''))
        return state.GetResponse(data=value, etag=state.Etag(value=etag) if etag else None)

    def Set(self, request, context):
        with self.lock:
            store = self.store(context)
            self.check(store, request, context)
            store[request.key] = (request.value, uuid.uuid4().hex)
        return state.SetResponse()

    def Delete(self, request, context):
        with self.lock:
            store = self.store(context)
            self.check(store, request, context)
            store.pop(request.key, None)
        return state.DeleteResponse()

    def Transact(self, request, context):
        with self.lock:
            store = dict(self.store(context))
            for operation in request.operations:
                step = getattr(operation, operation.WhichOneof('request'))
                self.check(store, step, context)
                if operation.HasField('set'):
                    store[step.key] = (step.value, uuid.uuid4().hex)
                else:
                    store.pop(step.key, None)
            self.stores[instance(context)] = store
        return state.TransactionalStateResponse()


class Broker(pubsub_grpc.PubSubServicer):
    def __init__(self):
        self.queues = {}

    def Init(self, request, context):
        return pubsub.PubSubInitResponse()

    def Features(self, request, context):
        return common.FeaturesResponse()

    def Ping(self, request, context):
        return common.PingResponse()

    def queue(self, topic):
        return self.queues.setdefault(topic, queue.Queue())

    def Publish(self, request, context):
        self.queue(request.topic).put(request)
        return pubsub.PublishResponse()

    def PullMessages(self, requests, context):
        topic = next(requests).topic.name
        waiting, mine = {}, self.queue(topic)

        def settle():
            for ack in requests:
                message = waiting.pop(ack.ack_message_id, None)
                if message is not None and ack.HasField('ack_error'):
                    mine.put(message)
            for message in list(waiting.values()):
                mine.put(message)

        threading.Thread(target=settle, daemon=True).start()
        while context.is_active():
            try:
                message = mine.get(timeout=0.1)
            except queue.Empty:
                continue
            id = uuid.uuid4().hex
            waiting[id] = message
            yield pubsub.PullMessagesResponse(data=message.data, topic_name=topic, metadata=message.metadata,
                                              content_type=message.content_type, id=id)


class Bell(bindings_grpc.OutputBindingServicer, bindings_grpc.InputBindingServicer):
    """What is sent with the operation `ring` comes back as an event."""

    def __init__(self):
        self.rung = queue.Queue()

    def Init(self, request, context):
        # Both services have the same form of it.
        return bindings.OutputBindingInitResponse()

    def Ping(self, request, context):
        return common.PingResponse()

    def ListOperations(self, request, context):
        return bindings.ListOperationsResponse(operations=['ring', 'pid'])

    def Invoke(self, request, context):
        if request.operation == 'pid':
            return bindings.InvokeResponse(data=str(os.getpid()).encode())
        self.rung.put(request.data)
        return bindings.InvokeResponse(metadata={'rung': 'yes'})

    def Read(self, requests, context):
        threading.Thread(target=lambda: [None for _ in requests], daemon=True).start()
        while context.is_active():
            try:
                yield bindings.ReadResponse(data=self.rung.get(timeout=0.1), message_id=uuid.uuid4().hex)
            except queue.Empty:
                pass


class Secrets(secrets_grpc.SecretStoreServicer):
    def Init(self, request, context):
        self.secrets = {'db': {'password': 'hunter2'}, **{
            name: {name: value} for name, value in request.metadata.properties.items()}}
        return secrets.SecretStoreInitResponse()

    def Features(self, request, context):
        return common.FeaturesResponse(feature=['MULTIPLE_KEY_VALUES_PER_SECRET'])

    def Ping(self, request, context):
        return common.PingResponse()

    def Get(self, request, context):
        return secrets.GetSecretResponse(data=self.secrets.get(request.key, {}))

    def BulkGet(self, request, context):
        return secrets.BulkGetSecretResponse(data={
            name: secrets.SecretResponse(secrets=values) for name, values in self.secrets.items()})


server = grpc.server(futures.ThreadPoolExecutor(32))
store, bell = Store(), Bell()
state_grpc.add_StateStoreServicer_to_server(store, server)
state_grpc.add_TransactionalStateStoreServicer_to_server(store, server)
pubsub_grpc.add_PubSubServicer_to_server(Broker(), server)
bindings_grpc.add_OutputBindingServicer_to_server(bell, server)
bindings_grpc.add_InputBindingServicer_to_server(bell, server)
secrets_grpc.add_SecretStoreServicer_to_server(Secrets(), server)
os.makedirs(os.path.dirname(SOCKET), exist_ok=True)
if os.path.exists(SOCKET):
    os.remove(SOCKET)
server.add_insecure_port(f'unix:{SOCKET}')
server.start()
print(f'listening on {SOCKET}', flush=True)
signal.signal(signal.SIGTERM, lambda *_: server.stop(2))
server.wait_for_termination()
