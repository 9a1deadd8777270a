"""HTTP requests to the app: `IncomingHandler = on_request(f)` makes a function of a request and a response the app."""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Err, Ok
from wit_world.imports import streams
from wit_world.imports import wasi_http_types as wit

# Bytes of one read; a write of wasi:io takes at most 4096.
_READ = 64 << 10
_WRITE = 4096


@dataclass
class Request:
    """A request, read whole. Names of headers are in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body out of JSON."""
        return json.loads(self.body)


@dataclass
class Response:
    """A response; of the app, or of another one that it invoked."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(value: Any, status: int = 200) -> "Response":
        """A value as JSON."""
        return Response(json.dumps(value).encode(), status, {"content-type": "application/json"})

    def json(self) -> Any:
        """The body out of JSON."""
        return json.loads(self.body)


def on_request(answer: Callable[[Request], Response]) -> type:
    """Serves HTTP. An exception is printed to the app's log and answered with 500."""

    class IncomingHandler:
        def handle(self, request: wit.IncomingRequest, response_out: wit.ResponseOutparam) -> None:
            try:
                response = answer(_read(request))
            except Exception as error:
                traceback.print_exception(error, file=sys.stderr)
                response = Response.of({"error": type(error).__name__}, 500)
            _write(response, response_out)

    return IncomingHandler


def _read(request: wit.IncomingRequest) -> Request:
    method = request.method()
    name = method.value if isinstance(method, wit.Method_Other) else type(method).__name__.removeprefix("Method_").upper()
    target = urlsplit(request.path_with_query() or "/")
    headers = {name.lower(): value.decode("latin-1") for name, value in request.headers().entries()}
    body = bytearray()
    incoming = request.consume()
    with incoming.stream() as stream:
        while True:
            try:
                body += stream.blocking_read(_READ)
            except Err as error:
                if isinstance(error.value, streams.StreamError_Closed):
                    break
                raise
    return Request(name, target.path, parse_qs(target.query), headers, bytes(body))


def _write(response: Response, response_out: wit.ResponseOutparam) -> None:
    fields = wit.Fields.from_list([(name, value.encode("latin-1")) for name, value in response.headers.items()])
    outgoing = wit.OutgoingResponse(fields)
    outgoing.set_status_code(response.status)
    body = outgoing.body()
    wit.ResponseOutparam.set(response_out, Ok(outgoing))
    with body.write() as stream:
        for at in range(0, len(response.body), _WRITE):
            stream.blocking_write_and_flush(response.body[at : at + _WRITE])
    wit.OutgoingBody.finish(body, None)
