"""What arrives as calls: messages, jobs that are due, events of input bindings.

Each function makes the class that an exported interface needs out of a function; the app gives it the interface's name:
`TopicHandler = on_message(f)`, `JobHandler = on_job(f)`, `BindingHandler = on_binding(f)`.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from componentize_py_types import Err

from .errors import names


class Drop(Exception):
    """Raised by a handler of messages: the message is over, and goes to the dead-letter topic if there is one."""


@dataclass
class _Data:
    data: bytes
    content_type: str

    def text(self) -> str:
        """The data as text."""
        return self.data.decode()

    def json(self) -> Any:
        """The data out of JSON."""
        return json.loads(self.data)


@dataclass
class Event(_Data):
    """A message, taken out of its CloudEvent."""

    id: str
    source: str
    type: str
    subject: str | None
    pubsub: str
    topic: str
    path: str
    attributes: dict[str, str]
    metadata: dict[str, str]


@dataclass
class Due(_Data):
    """A job that is due."""

    name: str


@dataclass
class BindingEvent(_Data):
    """An event of an input binding."""

    name: str
    metadata: dict[str, str]


def on_message(handle: Callable[[Event], None]) -> type:
    """Takes messages. `Drop` ends one; any other exception makes it come again, as the resiliency policy says."""
    from wit_world.exports import topic_handler as wit

    class TopicHandler:
        def handle(self, event: wit.Event) -> None:
            message = Event(
                event.data, event.content_type, event.id, event.source, event.type, event.subject, event.pubsub,
                event.topic, event.path, names(event.attributes), names(event.metadata),
            )
            try:
                handle(message)
            except Drop as why:
                raise Err(wit.Outcome_Drop(str(why))) from None
            except Exception as error:
                raise Err(wit.Outcome_Retry(_reason(error))) from None

    return TopicHandler


def on_job(handle: Callable[[Due], None]) -> type:
    """Takes jobs. After an exception the job's failure policy decides."""

    class JobHandler:
        def handle(self, due: Any) -> None:
            _answer(handle, Due(due.data, due.content_type, due.name))

    return JobHandler


def on_binding(handle: Callable[[BindingEvent], None]) -> type:
    """Takes events of input bindings. After an exception the event comes again."""

    class BindingHandler:
        def handle(self, event: Any) -> None:
            _answer(handle, BindingEvent(event.data, event.content_type, event.name, names(event.metadata)))

    return BindingHandler


def _answer(handle: Callable[[Any], None], given: Any) -> None:
    try:
        handle(given)
    except Exception as error:
        raise Err(_reason(error)) from None


def _reason(error: Exception) -> str:
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {error}"
