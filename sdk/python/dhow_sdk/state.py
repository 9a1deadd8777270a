"""Keys and values. Values are JSON; `get_bytes` and `set_bytes` take any."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wit_world.imports import state as wit

from .errors import Conflict, call

# Writes that lost a race before an update is given up.
_ATTEMPTS = 20


@dataclass
class StateItem:
    """A value, its version, and when it disappears by itself (seconds since 1970)."""

    value: Any
    etag: str
    expires_at: int | None


@dataclass
class Page:
    """One page of keys, ascending. If there are `more`, ask for those after the last one."""

    keys: list[str]
    more: bool


def _options(etag: str | None, first_write: bool, ttl_seconds: int | None, is_json: bool) -> wit.SetOptions:
    concurrency = wit.Concurrency.FIRST_WRITE if first_write else wit.Concurrency.LAST_WRITE
    return wit.SetOptions(etag=etag, concurrency=concurrency, ttl_seconds=ttl_seconds, json=is_json)


class State:
    """A state store. Its keys are the app's own unless the component's `keyPrefix` says otherwise."""

    def __init__(self, store: str = "statestore") -> None:
        self.store = store

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default` when there is no such key."""
        item = self.get_item(key)
        return default if item is None else item.value

    def get_item(self, key: str) -> StateItem | None:
        """The value with its etag."""
        item = self.get_bytes(key)
        return item and StateItem(json.loads(item.value), item.etag, item.expires_at)

    def get_bytes(self, key: str) -> StateItem | None:
        """The value as it is stored, with its etag."""
        item = call(wit.get, self.store, key)
        return item and StateItem(item.value, item.etag, item.expires_at)

    def set(
        self,
        key: str,
        value: Any,
        *,
        etag: str | None = None,
        first_write: bool = False,
        ttl_seconds: int | None = None,
    ) -> None:
        """Writes a value. With `etag` only over that version, with `first_write` only where there is none; otherwise
        `Conflict`."""
        data = json.dumps(value).encode()
        call(wit.set, self.store, key, data, _options(etag, first_write, ttl_seconds, True))

    def set_bytes(
        self,
        key: str,
        value: bytes,
        *,
        etag: str | None = None,
        first_write: bool = False,
        ttl_seconds: int | None = None,
    ) -> None:
        """The same with bytes of any kind."""
        call(wit.set, self.store, key, value, _options(etag, first_write, ttl_seconds, False))

    def update(self, key: str, change: Callable[[Any], Any], default: Any = None) -> Any:
        """Reads, changes and writes a value, again if somebody else wrote it in between; the new value."""
        for attempt in range(1, _ATTEMPTS + 1):
            item = self.get_item(key)
            value = change(default if item is None else item.value)
            try:
                self.set(key, value, etag=item.etag if item else None, first_write=item is None)
                return value
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def delete(self, key: str, *, etag: str | None = None) -> None:
        """Deletes a key, with an etag only in that version. A key that is not there is no error."""
        call(wit.delete, self.store, key, etag)

    def transaction(self) -> "Transaction":
        """Collects operations that `commit` carries out, all or none. As a context manager it commits at the end."""
        return Transaction(self.store)

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> Page:
        """Keys that begin with `prefix`."""
        page = call(wit.list_keys, self.store, prefix, after, limit)
        return Page(page.keys, page.more)

    def increment(self, key: str, delta: int = 1) -> int:
        """Adds to the number that is stored, which nobody can come between; a missing key counts as 0."""
        return call(wit.increment, self.store, key, delta)

    def query(self, query: dict[str, Any]) -> tuple[list[tuple[str, Any]], str]:
        """Searches values, in the language of Dapr's state API: keys with values, and the token of the next page."""
        page = call(wit.query, self.store, json.dumps(query))
        return [(found.key, json.loads(found.value)) for found in page.results], page.token


class Transaction:
    """Operations that are carried out together."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._operations: list[wit.Operation] = []

    def set(
        self,
        key: str,
        value: Any,
        *,
        etag: str | None = None,
        first_write: bool = False,
        ttl_seconds: int | None = None,
    ) -> "Transaction":
        """Will write a value."""
        options = _options(etag, first_write, ttl_seconds, True)
        self._operations.append(wit.Operation_Set((key, json.dumps(value).encode(), options)))
        return self

    def delete(self, key: str, *, etag: str | None = None) -> "Transaction":
        """Will delete a key."""
        self._operations.append(wit.Operation_Delete((key, etag)))
        return self

    def commit(self) -> None:
        """Carries out all operations in order, or none."""
        call(wit.transact, self._store, self._operations)

    def __enter__(self) -> "Transaction":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None:
            self.commit()
