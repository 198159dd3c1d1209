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
"""Number of newest catalogs that are kept: a reader may still be opening the last but one."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The state of the store after a compaction.

    Attributes:
        number: Number of the compaction; 0 for a store that was never compacted.
        files: Keys of the compacted files to read, by table. In a table, no run is in two of them.
        replaced: Keys of files that readers ignore, as all their runs are in `files`. The next
            compaction may delete them.
        small: Keys of the compacted files that are not full, by table: later compactions may merge
            them.
    """

    number: int = 0
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()
    small: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the catalog as a JSON document."""
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
    """Return the current catalog, which is the newest; an empty one if there is none.

    Raises:
        ObjectNotFoundError: It was deleted meanwhile, as newer ones replaced it: try again.
        NewerFormatError: A later version of batchrunner wrote it.
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
    """Write *catalog* unless its number is taken; return whether it is now the current one.

    Atomic and durable: of two compactions with the same number exactly one publishes. Deletes old
    catalogs and claims afterwards.
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
    """Claim the making of catalog *number*; return whether no other writer has claimed it.

    A hint only: it saves other writers the same work. `publish_catalog` removes it.
    """
    key = claim_key(number)
    return key in storage.put_if_absent({key: uuid.uuid4().bytes})


def _by_table(keys: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {table: tuple(each) for table, each in keys.items()}


def _numbers(keys: Iterable[str]) -> list[int]:
    numbers = map(catalog_number, keys)
    return sorted(number for number in numbers if number is not None)
