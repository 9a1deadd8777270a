"""Operations of outside systems."""

from dataclasses import dataclass

from wit_world.imports import binding as wit

from .errors import call, names, pairs


@dataclass
class Answer:
    """What an operation answered; `data` is None where it has no answer."""

    data: bytes | None
    metadata: dict[str, str]


class Binding:
    """An output binding."""

    def __init__(self, name: str) -> None:
        self.name = name

    def invoke(self, operation: str, data: bytes = b"", metadata: dict[str, str] | None = None) -> Answer:
        """Carries out an operation, such as `create` or `exec`."""
        answer = call(wit.invoke, self.name, operation, data, pairs(metadata))
        return Answer(answer.data, names(answer.metadata))
