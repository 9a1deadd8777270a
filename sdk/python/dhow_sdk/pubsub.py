"""Messages to topics."""

import json
from typing import Any

from componentize_py_types import Err
from wit_world.imports import pubsub as wit

from .errors import DhowError, call, exception, pairs


class PubSub:
    """A broker."""

    def __init__(self, name: str = "pubsub") -> None:
        self.name = name

    def publish(self, topic: str, value: Any, metadata: dict[str, str] | None = None) -> None:
        """Publishes a value as JSON. When it returns, the broker has the message."""
        call(wit.publish, self.name, topic, _message(value, metadata))

    def publish_bytes(
        self, topic: str, data: bytes, content_type: str | None = None, metadata: dict[str, str] | None = None
    ) -> None:
        """Publishes bytes of any kind."""
        call(wit.publish, self.name, topic, wit.Message(data, content_type, pairs(metadata)))

    def publish_many(self, topic: str, values: list[Any]) -> list[DhowError | None]:
        """Publishes several values as JSON; what became of each, in their order."""
        answers = call(wit.publish_many, self.name, topic, [_message(value, None) for value in values])
        return [exception(answer.value) if isinstance(answer, Err) else None for answer in answers]


def _message(value: Any, metadata: dict[str, str] | None) -> wit.Message:
    return wit.Message(json.dumps(value).encode(), "application/json", pairs(metadata))
