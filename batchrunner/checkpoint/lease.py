"""The lease: the right of one driver to run, which another takes over once its owner is dead.

A driver claims the next epoch by creating an object of that number; of two that try, one gets it.
The lease saves work and shows which driver runs. It is not a lock: a part and its sentinel are
published only if absent, which is safe with any number of drivers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson

from batchrunner.errors import DamagedOutputError, LeaseHeldError, ObjectNotFoundError
from batchrunner.storage.contract import Storage

RENEW_SECONDS = 5.0
STALE_SECONDS = 30.0
"""If the counter of a lease on another machine does not change for so long, by our own clock, its
owner counts as dead."""

_KEY = re.compile(r"lease/(\d{8,})\.json")

_ours: set[str] = set()
"""Sessions of this process that hold a lease."""


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """Identifies a driver process, even after another one has reused its pid."""

    session: str
    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def this_process(cls, session: str) -> LeaseOwner:
        pid = os.getpid()
        return cls(session, platform.node(), _boot(), pid, _started(pid))

    def is_here(self) -> bool:
        """Return whether the owner runs, or ran, where this process can see it."""
        return self.is_known and (self.host, self.boot) == (platform.node(), _boot())

    @property
    def is_known(self) -> bool:
        """Return whether the lease names its owner: a damaged one does not."""
        return self.pid > 0

    def is_alive(self) -> bool:
        """Return whether the owner still runs. Call it only if the owner `is_here`.

        A lease may name this process, but a session that is over or never began: then the release or
        the claim reached the store, and the answer was lost. Its owner counts as dead.
        """
        if self.pid == os.getpid() and self.session not in _ours:
            return False
        return _started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Lease:
    """The stored lease: which driver owns it, and a counter that shows that the driver is alive."""

    epoch: int
    owner: LeaseOwner
    counter: int = 0
    released: bool = False
    version: int = 1

    @property
    def key(self) -> str:
        return f"lease/{self.epoch:08d}.json"

    def to_bytes(self) -> bytes:
        return orjson.dumps(dataclasses.asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Lease:
        why = f"the lease is damaged: {data[:80]!r}"
        try:
            fields = orjson.loads(data)
            lease = cls(**{**fields, "owner": LeaseOwner(**fields["owner"])})
            numbers = lease.epoch > 0 and lease.owner.pid > 0
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedOutputError(why) from error
        if not numbers:
            raise DamagedOutputError(why)
        return lease

    @classmethod
    def unreadable(cls, epoch: int, data: bytes) -> Lease:
        """Return a stand-in for a damaged lease, which names no owner; equal for the same *data*.

        Its owner is treated as one on another machine: alive if the object changes, since each renewal
        replaces it.
        """
        return cls(epoch, LeaseOwner(hashlib.sha256(data).hexdigest(), "", "", 0, ""))

    def __str__(self) -> str:
        if not self.owner.is_known:
            return f"an unknown driver (epoch {self.epoch}; {self.key} is damaged)"
        return f"process {self.owner.pid} on {self.owner.host} (epoch {self.epoch})"


def current_lease(storage: Storage) -> Lease | None:
    """Return the lease of the latest epoch, or None when there was never one.

    A damaged lease still shows its epoch, by its key: see `Lease.unreadable`.
    """
    epochs = _epochs(storage)
    return _read(storage, epochs[-1]) if epochs else None


def all_leases(storage: Storage, *, readers: int) -> list[Lease]:
    """Return the leases of all epochs, the first one first. One listing, and a read for each."""
    with ThreadPoolExecutor(readers) as pool:
        found = pool.map(lambda claim: _read_if_there(storage, claim), _epochs(storage))
        return [lease for lease in found if lease]


def lease_before(storage: Storage, lease: Lease) -> Lease | None:
    """Return the lease of the epoch before that of *lease*, or None when there is none."""
    earlier = [claim for claim in _epochs(storage) if claim[0] < lease.epoch]
    return _read(storage, earlier[-1]) if earlier else None


def _epochs(storage: Storage) -> list[tuple[int, str]]:
    matches = ((_KEY.fullmatch(entry.key), entry.key) for entry in storage.list("lease"))
    return sorted((int(match[1]), key) for match, key in matches if match)


def _read_if_there(storage: Storage, claim: tuple[int, str]) -> Lease | None:
    with contextlib.suppress(ObjectNotFoundError):
        return _read(storage, claim)
    return None


def _read(storage: Storage, claim: tuple[int, str]) -> Lease:
    epoch, key = claim
    data = storage.get(key)
    with contextlib.suppress(DamagedOutputError):
        lease = Lease.from_bytes(data)
        if lease.epoch == epoch:  # a copy under another name would free an epoch that is claimed
            return lease
    return Lease.unreadable(epoch, data)


def acquire_lease(
    storage: Storage, owner: LeaseOwner, *, waiting: Callable[[Lease], None] = lambda _: None
) -> Lease:
    """Claim the next epoch.

    A released lease, or one whose owner died on this machine, is taken over at once. A lease of
    another machine, or a damaged one, is taken over if it does not change for `STALE_SECONDS`;
    *waiting* is called with it before that wait.

    Raises:
        LeaseHeldError: The owner is alive, or another driver claimed the epoch first.
    """
    last = current_lease(storage)
    if last and not last.released:
        _refuse_if_alive(storage, last, waiting=waiting)
    mine = Lease(last.epoch + 1 if last else 1, owner)
    _ours.add(owner.session)  # before another thread can see the claim and take its owner for dead
    won = frozenset[str]()
    try:
        won = storage.put_if_absent({mine.key: mine.to_bytes()})
    finally:
        if not won:
            _ours.discard(owner.session)
    if not won:
        raise _held(current_lease(storage) or mine)
    return mine


def _refuse_if_alive(storage: Storage, last: Lease, *, waiting: Callable[[Lease], None]) -> None:
    if last.owner.is_here():
        if last.owner.is_alive():
            raise _held(last)
        return
    # Another machine's clock proves nothing, so no time is stored: only whether the counter moves, seen
    # by our own clock, shows that the owner is alive.
    waiting(last)
    deadline = time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(RENEW_SECONDS, STALE_SECONDS) / 5)
        now = current_lease(storage)
        if now != last:
            if now and now.released and now.epoch == last.epoch:
                return  # it ended while we waited, and left the next epoch free
            raise _held(now or last)


def _held(lease: Lease) -> LeaseHeldError:
    return LeaseHeldError(
        f"another driver runs this checkpoint: {lease}. Wait for it, or stop it; committed shards "
        "are shared either way"
    )


def check_lease(storage: Storage, lease: Lease) -> None:
    """Check that no newer epoch was claimed, and that this one is still there: one listing.

    Raises:
        LeaseHeldError: A newer epoch was claimed, or the lease is gone: this driver must stop.
    """
    epochs = _epochs(storage)
    if epochs and epochs[-1][0] > lease.epoch:
        raise _held(_read(storage, epochs[-1]))
    # If the checkpoint was removed, a driver that went on would make its folders again, and declare the
    # run complete without what was in them.
    if not epochs or epochs[-1][0] < lease.epoch:
        raise LeaseHeldError(
            f"{storage.uri}/{lease.key}, the lease of this driver, is gone: the checkpoint was removed "
            "or replaced while the driver ran. Bring it back, or run with --fresh to start over"
        )


def renew_lease(storage: Storage, lease: Lease) -> Lease:
    """Advance the lease's counter, which shows that its owner is alive, and return the new lease.

    Raises:
        LeaseHeldError: A newer epoch was claimed, or the lease is gone: this driver must stop.
    """
    # Before the write: a driver that was displaced must not look alive to the one that displaced it.
    check_lease(storage, lease)
    renewed = dataclasses.replace(lease, counter=lease.counter + 1)
    storage.put(renewed.key, renewed.to_bytes())
    return renewed


def release_lease(storage: Storage, lease: Lease) -> None:
    """Mark the lease as released. A newer epoch, if there is one, is not touched."""
    _ours.discard(lease.owner.session)
    with contextlib.suppress(ObjectNotFoundError):
        storage.put(lease.key, dataclasses.replace(lease, released=True).to_bytes())


def _boot() -> str:
    """Return an id of this boot and this container; "" where the kernel has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when process *pid* started, in the kernel's clock ticks, or "" if it does not run."""
    try:
        # The command's name may hold anything, so count fields from the parenthesis that ends it.
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self").exists() else _answers(pid)
    state, started = after_name[0], after_name[19]
    return "" if state in "ZX" else started


def _answers(pid: int) -> str:
    """Return "runs" if process *pid* exists, else "": for systems without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "runs"
    return "runs"
