"""`FaultyStorage`: a storage that fails on purpose at a chosen call.

faults = Faults(at=7, kind=FaultKind.LOST)
with faulty_scheme("memory", faults):
    BatchRunner(spec).run()             # all of whose storages are memory://
assert faults.fired
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any, BinaryIO, Self, TypeVar, cast

from batchrunner.errors import StorageError
from batchrunner.storage.contract import Entry, Options, Staged, Storage
from batchrunner.storage.schemes import SCHEMES, opener_of

T = TypeVar("T")
K = TypeVar("K")


class FaultKind(StrEnum):
    """What happens at the call that is to fail."""

    FAIL = "fail"
    """It does nothing, and raises."""
    LOST = "lost"
    """It does its work, and raises: the answer was lost."""
    TORN = "torn"
    """It does part of its work, some of the objects or bytes, and raises."""
    DELAY = "delay"
    """It waits, and then does its work."""


@dataclass(slots=True)
class Faults:
    """Counts the calls of all storages that share it, and decides which of them fail.

    Attributes:
        at: The call that fails, counted from 1; 0 for none.
        kind: How it fails.
        lasts: Whether all later calls fail, too: the store is down.
        seconds: How long a delayed call waits.
        calls: Names of the methods called so far, in order.
        fired: How many calls failed or were delayed.
    """

    at: int = 0
    kind: FaultKind = FaultKind.FAIL
    lasts: bool = False
    seconds: float = 0.01
    calls: list[str] = field(default_factory=list)
    fired: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def next(self, call: str) -> FaultKind | None:
        """Count *call*; return how it fails, or None."""
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
            if number != self.at and not (self.lasts and 0 < self.at < number):
                return None
            self.fired += 1
            return self.kind

    def around(self, call: str, whole: Callable[[], T], *, half: Callable[[], Any]) -> T:
        """Count *call* and run *whole*, its work; if it is to fail, run as much as its kind says.

        A torn call runs *half*, which does part of the work.

        Raises:
            StorageError: *call* is to fail.
        """
        kind = self.next(call)
        if kind is FaultKind.DELAY:
            time.sleep(self.seconds)
        if kind is FaultKind.LOST:
            whole()
        if kind is FaultKind.TORN:
            half()
        if kind in (None, FaultKind.DELAY):
            return whole()
        raise StorageError(f"injected: {call} failed ({kind})")


class FaultyStaged:
    """A staged object whose writes may fail."""

    def __init__(self, inner: Staged, faults: Faults) -> None:
        self.inner = inner
        self.file = cast(BinaryIO, FaultyFile(inner.file, faults))

    def discard(self) -> None:
        self.inner.discard()


class FaultyFile:
    """A binary file whose reads and writes may fail; other methods are those of the file itself."""

    def __init__(self, inner: Any, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        return self._faults.around(
            "write",
            lambda: cast(int, self._inner.write(data)),
            half=lambda: self._inner.write(view[: len(view) // 2]),
        )

    def read(self, *size: Any) -> bytes:
        return self._faults.around(
            "read", lambda: cast(bytes, self._inner.read(*size)), half=lambda: None
        )

    def readinto(self, buffer: Any) -> int:
        return self._faults.around(
            "read", lambda: cast(int, self._inner.readinto(buffer)), half=lambda: None
        )

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FaultyStorage:
    """A `Storage` that passes calls on to *inner*, except those that *faults* makes fail.

    These raise `StorageError`, as every storage does when its own attempts are used up.
    """

    def __init__(self, inner: Storage, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    @property
    def uri(self) -> str:
        return self._inner.uri

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        def whole() -> Sequence[Entry]:
            return list(self._inner.list(prefix, recursive=recursive))

        yield from self._call("list", whole)

    def head(self, key: str) -> Entry | None:
        return self._call("head", lambda: self._inner.head(key))

    def get(self, key: str) -> bytes:
        return self._call("get", lambda: self._inner.get(key))

    def open(self, entry: Entry) -> BinaryIO:
        opened = self._call("open", lambda: self._inner.open(entry))
        return cast(BinaryIO, FaultyFile(opened, self._faults))

    def put(self, key: str, data: bytes) -> None:
        self._call("put", lambda: self._inner.put(key, data))

    def put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        return self._faults.around(
            "put_if_absent",
            lambda: self._inner.put_if_absent(objects),
            half=lambda: self._inner.put_if_absent(_half(objects)),
        )

    def stage(self) -> FaultyStaged:
        return FaultyStaged(self._call("stage", self._inner.stage), self._faults)

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        inner = {
            key: (cast(FaultyStaged, staged).inner, intent)
            for key, (staged, intent) in objects.items()
        }
        try:
            return self._faults.around(
                "publish",
                lambda: self._inner.publish(inner),
                half=lambda: self._inner.publish(_half(inner)),
            )
        finally:
            for staged, _ in inner.values():
                staged.discard()

    def intents(self, key: str) -> tuple[bytes, ...]:
        return self._call("intents", lambda: self._inner.intents(key))

    def remove_intents(self, keys: Iterable[str]) -> None:
        self._some("remove_intents", keys, self._inner.remove_intents)

    def delete(self, keys: Iterable[str]) -> None:
        self._some("delete", keys, self._inner.delete)

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        return self._some("delete_exactly", entries, self._inner.delete_exactly)

    def move(self, entry: Entry, target: str) -> bool:
        return self._call("move", lambda: self._inner.move(entry, target))

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:
        return self._call("garbage", lambda: self._inner.garbage(intents=intents))

    def clean(self, *, intents: bool = False) -> None:
        self._call("clean", lambda: self._inner.clean(intents=intents))

    def check_conditional_writes(self) -> None:
        self._call("check_conditional_writes", self._inner.check_conditional_writes)

    def _call(self, call: str, whole: Callable[[], T]) -> T:
        return self._faults.around(call, whole, half=lambda: None)

    def _some(self, call: str, those: Iterable[K], act: Callable[[Iterable[K]], T]) -> T:
        named = dict.fromkeys(those)
        return self._faults.around(call, lambda: act(named), half=lambda: act(_half(named)))


def _half(objects: Mapping[K, T]) -> dict[K, T]:
    """Return the first half of *objects*, rounded up: a single object is kept."""
    return dict(islice(objects.items(), (len(objects) + 1) // 2))


@contextmanager
def faulty_scheme(scheme: str, faults: Faults) -> Iterator[None]:
    """Inject *faults* into every storage that is opened as `scheme://` inside the block.

    A storage that is still in use after the block fails no more.
    """
    real, open_root = SCHEMES[scheme], opener_of(scheme)

    def opened(root: str, options: Options) -> Storage:
        return FaultyStorage(open_root(root, options), faults)

    SCHEMES[scheme] = opened
    try:
        yield
    finally:
        SCHEMES[scheme] = real
        faults.at = 0
