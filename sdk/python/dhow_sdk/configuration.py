"""Values that operators change while apps run."""

from dataclasses import dataclass

from wit_world.imports import configuration as wit

from .errors import call, names, pairs


@dataclass
class Item:
    """One value; `version` is empty where the store keeps none."""

    value: str
    version: str
    metadata: dict[str, str]


class Configuration:
    """A configuration store."""

    def __init__(self, store: str) -> None:
        self.store = store

    def get(self, *keys: str, metadata: dict[str, str] | None = None) -> dict[str, Item]:
        """The values of these keys, or of all if none is named. Keys that do not exist are left out."""
        items = call(wit.get, self.store, list(keys), pairs(metadata))
        return {item.key: Item(item.value, item.version, names(item.metadata)) for item in items}

    def value(self, key: str, default: str | None = None) -> str | None:
        """One value."""
        item = self.get(key).get(key)
        return default if item is None else item.value
