"""Catalogs: numbered documents that name the compacted files and the files that these replace."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from batchrunner.analytics.layout import (
    CATALOGS,
    catalog_key,
    catalog_number,
    claim_key,
    claim_number,
    read_json,
    to_bytes,
)
from batchrunner.errors import StorageError
from batchrunner.storage import Storage

_KEPT = 2
"""Catalogs that are not deleted: the newest, and the one that a reader may be opening now."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The state of the store after a compaction.

    Attributes:
        number: Counts compactions; 0 is the catalog of a store that never had one.
        files: Keys of the compacted files that count, by table. No run is in two of them.
        replaced: Keys of files that no longer count: all their runs are in `files`. The next
            compaction may delete them.
        small: Those of `files` that are not full, by table: later compactions may merge them.
    """

    number: int = 0
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    small: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the record."""
        replaced = sorted(self.replaced)
        return to_bytes(
            {
                "number": self.number,
                "files": self.files,
                "replaced": replaced,
                "small": self.small,
            }
        )


def newest_catalog(storage: Storage) -> Catalog:
    """Return the catalog that counts now.

    Raises:
        ObjectNotFoundError: A newer one replaced it meanwhile: try again.
        NewerFormatError: A later version wrote it.
        StorageError: It is damaged.
    """
    numbers = _numbers(entry.key for entry in storage.list(CATALOGS))
    if not numbers:
        return Catalog()
    key = catalog_key(numbers[-1])
    fields = read_json(storage, key)
    try:
        files = _by_table(fields["files"])
        # Catalogs of earlier versions have no `small`: of each table, only the last was not full.
        last = {table: keys[-1:] for table, keys in files.items()}
        small = _by_table(fields.get("small", last))
        return Catalog(numbers[-1], files, frozenset(fields["replaced"]), small)
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{storage.uri}/{key} is damaged: restore it from a copy") from error


def publish_catalog(storage: Storage, catalog: Catalog) -> bool:
    """Put *catalog* if its number is absent, so that it counts; return whether it was.

    Atomic and durable: of two compactions with the same number exactly one publishes.
    """
    key = catalog_key(catalog.number)
    if key not in storage.put_if_absent({key: catalog.to_bytes()}):
        return False
    listed = [entry.key for entry in storage.list(CATALOGS)]
    claims = [claim for claim in listed if (claim_number(claim) or inf) <= catalog.number]
    old = [number for number in _numbers(listed) if number <= catalog.number - _KEPT]
    storage.delete([*claims, *map(catalog_key, old)])
    return True


def claim_catalog(storage: Storage, number: int) -> bool:
    """Claim to be the writer that makes catalog *number*; return whether this call was the first.

    Decides nothing: a claim only spares other writers the same work. `publish_catalog` removes it.
    """
    key = claim_key(number)
    return key in storage.put_if_absent({key: uuid.uuid4().bytes})


def _by_table(keys: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {table: tuple(each) for table, each in keys.items()}


def _numbers(keys: Iterable[str]) -> list[int]:
    numbers = map(catalog_number, keys)
    return sorted(number for number in numbers if number is not None)
