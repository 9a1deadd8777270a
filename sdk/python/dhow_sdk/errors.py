"""Why a block did not do what it was asked; one exception for each error of dhow:runtime/types."""

from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from componentize_py_types import Err
from wit_world.imports import dhow_runtime_types as types

P = ParamSpec("P")
R = TypeVar("R")


class DhowError(Exception):
    """Any error of a block. Its text is for people and holds no secret."""


class Denied(DhowError):
    """The manifest does not grant it; the text says what to add."""


class NotFound(DhowError):
    """There is no component, app or job of that name for this app."""


class Conflict(DhowError):
    """Somebody else was faster: the etag is not the stored one, or the name is taken."""


class Invalid(DhowError):
    """The request makes no sense; a repetition will not help."""


class Unsupported(DhowError):
    """The component is not able to do this at all."""


class Unavailable(DhowError):
    """The component or app cannot be reached now; a later attempt may succeed."""


class Failed(DhowError):
    """It failed in a way that a repetition will not mend."""


_KINDS: dict[type, type[DhowError]] = {
    types.Error_Denied: Denied,
    types.Error_NotFound: NotFound,
    types.Error_Conflict: Conflict,
    types.Error_Invalid: Invalid,
    types.Error_Unsupported: Unsupported,
    types.Error_Unavailable: Unavailable,
    types.Error_Failed: Failed,
}


def exception(error: Any) -> DhowError:
    """The exception for an error of the interface."""
    return _KINDS.get(type(error), Failed)(error.value)


def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function of the interface, with its error as an exception."""
    try:
        return function(*args, **kwargs)
    except Err as error:
        raise exception(error.value) from None


def pairs(metadata: dict[str, str] | None) -> list[tuple[str, str]]:
    """Metadata as the interface takes them."""
    return list((metadata or {}).items())


def names(metadata: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Metadata as the interface gives them."""
    return dict(metadata)
