"""The analytics store, broken on purpose: a sweep that does not notice proves nothing."""

from __future__ import annotations

import mutants
from batchrunner.analytics import compaction
from batchrunner.storage.disk.storage import LocalStorage


def apply(name: str) -> None:
    """Break this process."""
    if name:
        globals()[name]()


def no_fsync() -> None:
    mutants.no_fsync()


def runs_first() -> None:
    """Rows of `runs` before the payload: a run is seen that has none."""
    real = LocalStorage.put_if_absent
    held: dict[str, bytes] = {}

    def put_if_absent(self, objects):
        if any(key.startswith(("score/run-", "score/set-")) for key in objects):
            held.update(objects)
            return frozenset(objects)
        won = real(self, objects)
        if any(key.startswith(("runs/run-", "runs/set-")) for key in objects):
            won |= real(self, dict(held))
            held.clear()
        return won

    LocalStorage.put_if_absent = put_if_absent


def deletes_at_once() -> None:
    """A compaction that deletes its inputs before the catalog counts."""
    real = compaction.publish_catalog

    def publish(storage, catalog):
        storage.delete(catalog.replaced)
        return real(storage, catalog)

    compaction.publish_catalog = publish


def catalog_first() -> None:
    """A catalog that counts before its files are there."""
    real = compaction._write

    def write(snapshot, selected, limits):
        storage = snapshot.storage
        put, held = storage.put_if_absent, {}
        storage.put_if_absent = held.update
        catalog, created = real(snapshot, selected, limits)
        del storage.put_if_absent
        compaction.publish_catalog(storage, catalog)
        put(held)
        return catalog, created

    compaction._write = write
