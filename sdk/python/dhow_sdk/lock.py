"""Mutual exclusion across apps and hosts, with expiry."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from wit_world.imports import lock as wit

from .errors import call


class Lock:
    """A lock store."""

    def __init__(self, store: str = "lockstore") -> None:
        self.store = store

    @contextmanager
    def hold(self, resource: str, expiry_seconds: int) -> Iterator[bool]:
        """Holds a lock during a `with` block, for so many seconds at most; whether it was free to take."""
        owner = os.urandom(16).hex()
        held = self.try_lock(resource, owner, expiry_seconds)
        try:
            yield held
        finally:
            if held:
                self.unlock(resource, owner)

    def try_lock(self, resource: str, owner: str, expiry_seconds: int) -> bool:
        """Takes the lock; false when somebody holds it, be it the same owner."""
        return call(wit.try_lock, self.store, resource, owner, expiry_seconds)

    def unlock(self, resource: str, owner: str) -> bool:
        """Gives the lock back; false if it was not the owner's any more."""
        return call(wit.unlock, self.store, resource, owner) == wit.Unlocked.RELEASED
