"""Named secrets."""

from wit_world.imports import secrets as wit

from .errors import call, names, pairs


class Secrets:
    """A secret store."""

    def __init__(self, store: str) -> None:
        self.store = store

    def get(self, name: str, metadata: dict[str, str] | None = None) -> dict[str, str] | None:
        """The values of a secret by name, or None; a secret of one value has its own name."""
        secret = call(wit.get, self.store, name, pairs(metadata))
        return None if secret is None else names(secret)

    def value(self, name: str, metadata: dict[str, str] | None = None) -> str | None:
        """The value of a secret that has one."""
        return (self.get(name, metadata) or {}).get(name)

    def all(self, metadata: dict[str, str] | None = None) -> dict[str, dict[str, str]]:
        """All secrets that the app may read."""
        return {name: names(secret) for name, secret in call(wit.get_all, self.store, pairs(metadata))}
