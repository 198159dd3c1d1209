"""A storage in this process's memory, for tests: `memory://name`, the same for every opener."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES, Entry, Options, Staged, Storage
from batchrunner.storage.keys import STAGING, plain_folder, plain_intent, plain_key
from batchrunner.storage.schemes import SCHEMES


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    identity: str
    intent: bytes | None = None
    written: int = 0


@dataclass(slots=True)
class _SharedObjects:
    """The objects that all storages of one name share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    objects: dict[str, _Object] = field(default_factory=dict)
    staged: set[MemoryStaged] = field(default_factory=set)
    writes: int = 0

    def write(self, key: str, data: bytes, *, intent: bytes | None = None) -> None:
        """Write an object; the caller holds the lock."""
        self.writes += 1
        identity = hashlib.sha256(data).hexdigest()[:32]
        self.objects[key] = _Object(data, identity, intent, self.writes)


class MemoryStaged(io.BytesIO):
    """A staged object, which is its own file; it keeps its bytes when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.is_left = True

    @property
    def file(self) -> BinaryIO:
        return self

    def close(self) -> None:
        if not self.closed:
            self.data = self.getvalue()
        super().close()

    def discard(self) -> None:
        self.close()
        self.data = b""
        self.is_left = False


_memories: dict[str, _SharedObjects] = {}


class MemoryStorage:
    """A `Storage` at `memory://name` or a folder in it; objects last as long as this process."""

    def __init__(self, root: str) -> None:
        name, _, prefix = root.strip("/").partition("/")
        self.uri = f"memory://{root.strip('/')}"
        self._memory = _memories.setdefault(name, _SharedObjects())
        self._prefix = f"{prefix}/" if prefix else ""

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        folder = self._prefix + plain_folder(prefix)
        with self._memory.lock:
            inside = sorted(key for key in self._memory.objects if key.startswith(folder))
            entries = [
                self._entry(key) for key in inside if recursive or "/" not in key[len(folder) :]
            ]
        yield from entries

    def head(self, key: str) -> Entry | None:
        with self._memory.lock:
            full = self._full(key)
            return self._entry(full) if full in self._memory.objects else None

    def get(self, key: str) -> bytes:
        data = self._object(key).data
        if len(data) > MAX_DOCUMENT_BYTES:
            raise StorageError(
                f"{self.uri}/{key}: {len(data)} bytes are too many for a document, at most "
                f"{MAX_DOCUMENT_BYTES} are read"
            )
        return data

    def open(self, entry: Entry) -> BinaryIO:
        stored = self._object(entry.key)
        if stored.identity != entry.identity:
            raise ObjectChangedError(
                f"{self.uri}/{entry.key}: it is not the object that was listed"
            )
        return io.BytesIO(stored.data)

    def put(self, key: str, data: bytes) -> None:
        full = self._full(key)
        with self._memory.lock:
            self._memory.write(full, data)

    def put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        return frozenset(key for key, data in objects.items() if self._put_new(key, data))

    def stage(self) -> MemoryStaged:
        staged = MemoryStaged()
        with self._memory.lock:
            self._memory.staged.add(staged)
        return staged

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        won = set()
        try:
            for key, (staged, intent) in objects.items():
                if self._publish(key, cast(MemoryStaged, staged), plain_intent(intent).encode()):
                    won.add(key)
        finally:
            for staged, _ in objects.values():
                staged.discard()
        return frozenset(won)

    def intents(self, key: str) -> tuple[bytes, ...]:
        with self._memory.lock:
            stored = self._memory.objects.get(self._full(key))
        return () if stored is None or stored.intent is None else (stored.intent,)

    def remove_intents(self, keys: Iterable[str]) -> None:
        """Do nothing: an intent is part of its object."""

    def delete(self, keys: Iterable[str]) -> None:
        with self._memory.lock:
            for key in keys:
                self._memory.objects.pop(self._full(key), None)

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        with self._memory.lock:
            return frozenset(entry.key for entry in entries if not self._delete_one(entry))

    def move(self, entry: Entry, target: str) -> bool:
        old, new = self._full(entry.key), self._full(target)
        with self._memory.lock:
            if not self._is_still(entry):
                return False
            self._memory.objects[new] = self._memory.objects.pop(old)
            return True

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:  # noqa: ARG002 -- an intent is part of its object
        with self._memory.lock:
            count = sum(one.is_left for one in self._memory.staged)
        return [Entry(f"{STAGING}/{number}", 0, str(number)) for number in range(count)]

    def clean(self, *, intents: bool = False) -> None:  # noqa: ARG002 -- an intent is part of its object
        with self._memory.lock:
            self._memory.staged.clear()

    def check_conditional_writes(self) -> None:
        """Do nothing: every write is made under the lock."""

    def _full(self, key: str) -> str:
        return self._prefix + plain_key(key)

    def _entry(self, full: str) -> Entry:
        stored = self._memory.objects[full]
        key = full.removeprefix(self._prefix)
        return Entry(key, len(stored.data), stored.identity, float(stored.written))

    def _is_still(self, entry: Entry) -> bool | None:
        """Return whether the object is unchanged since *entry* was listed; None if it is gone.

        An object that was written again with the same bytes has changed, if *entry* has a time.
        """
        full = self._full(entry.key)
        if full not in self._memory.objects:
            return None
        now = self._entry(full)
        return now == entry and entry.modified in (0.0, now.modified)

    def _delete_one(self, entry: Entry) -> bool:
        still = self._is_still(entry)
        if still:
            del self._memory.objects[self._full(entry.key)]
        return still is not False

    def _object(self, key: str) -> _Object:
        with self._memory.lock:
            stored = self._memory.objects.get(self._full(key))
        if stored is None:
            raise ObjectNotFoundError(f"{self.uri}/{key}: there is nothing")
        return stored

    def _put_new(self, key: str, data: bytes) -> bool:
        full = self._full(key)
        with self._memory.lock:
            if full not in self._memory.objects:
                self._memory.write(full, data)
            return self._memory.objects[full].data == data

    def _publish(self, key: str, staged: MemoryStaged, intent: bytes) -> bool:
        full = self._full(key)
        if not staged.closed:
            raise ValueError("close the staged file before it is published")
        with self._memory.lock:
            if staged not in self._memory.staged:
                raise ObjectNotFoundError(f"{self.uri}/{key}: what was staged for it is gone")
            if full in self._memory.objects:
                return False
            self._memory.write(full, staged.data, intent=intent)
            return True


def open_memory(root: str, _: Options) -> Storage:
    """Open the storage at `memory://root`: a name, and perhaps a folder in it."""
    return MemoryStorage(root)


# Registered only if a test imports this module: a command's objects would be gone when it ends.
SCHEMES.setdefault("memory", "batchrunner.testing.memory:open_memory")
