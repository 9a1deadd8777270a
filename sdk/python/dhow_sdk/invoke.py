"""Requests to other apps, wherever they run."""

import json
from typing import Any

from wit_world.imports import invoke as wit

from .errors import call
from .http import Response


def invoke(
    app_id: str,
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    value: Any = None,
) -> Response:
    """Sends a request to an app and waits for the whole answer; `value` is sent as JSON. That the app answers 404 or
    500 is an answer and no error."""
    headers = dict(headers or {})
    if value is not None:
        headers.setdefault("content-type", "application/json")
        body = json.dumps(value).encode()
    named = [(name, text.encode()) for name, text in headers.items()]
    answer = call(wit.call, app_id, wit.Request(method, path, named, body))
    told = {name: text.decode("latin-1") for name, text in answer.headers}
    return Response(answer.body, answer.status, told)
