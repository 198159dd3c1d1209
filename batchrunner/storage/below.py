"""A folder of a storage as a storage of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from batchrunner.errors import StorageError
from batchrunner.storage.contract import Entry, Staged, Storage
from batchrunner.storage.keys import plain_folder, plain_key


class Below:
    """A `Storage` of the objects below *folder* in *storage*; keys are relative to the folder.

    Staged bytes belong to the whole *storage*, and so do `garbage` and `clean`.
    """

    def __init__(self, storage: Storage, folder: str) -> None:
        self._storage, self._folder = storage, plain_folder(folder)

    @property
    def uri(self) -> str:
        return f"{self._storage.uri}/{self._folder}".rstrip("/")

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        folder = self._folder + plain_folder(prefix)
        yield from map(self._inside, self._storage.list(folder, recursive=recursive))

    def head(self, key: str) -> Entry | None:
        entry = self._storage.head(self._full(key))
        return None if entry is None else self._inside(entry)

    def get(self, key: str) -> bytes:
        return self._storage.get(self._full(key))

    def open(self, entry: Entry) -> BinaryIO:
        return self._storage.open(self._outside(entry))

    def put(self, key: str, data: bytes) -> None:
        self._storage.put(self._full(key), data)

    def put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        won = self._storage.put_if_absent({self._full(key): data for key, data in objects.items()})
        return self._short(won)

    def stage(self) -> Staged:
        return self._storage.stage()

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        try:
            full = {self._full(key): one for key, one in objects.items()}
        except StorageError:
            for staged, _ in objects.values():
                staged.discard()
            raise
        return self._short(self._storage.publish(full))

    def intents(self, key: str) -> tuple[bytes, ...]:
        return self._storage.intents(self._full(key))

    def remove_intents(self, keys: Iterable[str]) -> None:
        self._storage.remove_intents([self._full(key) for key in keys])

    def delete(self, keys: Iterable[str]) -> None:
        self._storage.delete([self._full(key) for key in keys])

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        return self._short(self._storage.delete_exactly([self._outside(one) for one in entries]))

    def move(self, entry: Entry, target: str) -> bool:
        return self._storage.move(self._outside(entry), self._full(target))

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:
        return self._storage.garbage(intents=intents)

    def clean(self, *, intents: bool = False) -> None:
        self._storage.clean(intents=intents)

    def check_conditional_writes(self) -> None:
        self._storage.check_conditional_writes()

    def _full(self, key: str) -> str:
        return self._folder + plain_key(key)

    def _short(self, keys: Iterable[str]) -> frozenset[str]:
        return frozenset(key.removeprefix(self._folder) for key in keys)

    def _inside(self, entry: Entry) -> Entry:
        key = entry.key.removeprefix(self._folder)
        return Entry(key, entry.size, entry.identity, entry.modified)

    def _outside(self, entry: Entry) -> Entry:
        return Entry(self._full(entry.key), entry.size, entry.identity, entry.modified)
