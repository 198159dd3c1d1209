"""The schemas of the tables: all writers agree on them without reading data."""

from __future__ import annotations

from collections.abc import Mapping

from batchrunner.analytics.layout import SCHEMAS, read_json, schema_key, schema_place, to_bytes
from batchrunner.analytics.record import Columns, ColumnType
from batchrunner.errors import NewerFormatError, SchemaConflictError, StorageError
from batchrunner.storage import Storage

_RIVALS = 100
"""`claim` fails after so many tries in each of which another writer added columns first."""


class Schemas:
    """The schemas of a store's tables: numbered documents, of which the last is the current one.

    Each document repeats the one before, adds columns, and is put if absent. So all writers agree
    on the type of a column, however many add it at once, and a reader that reads the schemas after
    it listed the files has every column of these files.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._claimed: dict[str, Columns] = {}
        self._read: dict[str, Columns] = {}

    def claim(self, table: str, columns: Columns) -> None:
        """Add the *columns* that *table* lacks. Durable and idempotent.

        Makes no request if this object claimed them before; else it lists the schemas and reads or
        writes documents, and its cost does not grow with the table.

        Raises:
            SchemaConflictError: A column has another type already.
        """
        if not self._new_in(table, columns):
            return
        for _ in range(_RIVALS):
            number, self._claimed[table] = self._latest(table)
            new = self._new_in(table, columns)
            if not new:
                return
            merged = {**self._claimed[table], **new}
            key = schema_key(table, number + 1)
            if self._storage.put_if_absent({key: to_bytes({"columns": merged})}):
                self._claimed[table] = merged
                return
        raise StorageError(
            f"{self._storage.uri}: {_RIVALS} other writers added columns to {table!r} first; call again"
        )

    def all(self) -> dict[str, Columns]:
        """Return the current columns of every table, sorted by table."""
        return {table: self._columns(table, number) for table, number in self._newest().items()}

    def _new_in(self, table: str, columns: Columns) -> Columns:
        claimed = self._claimed.get(table, {})
        by_lower = {name.lower(): name for name in claimed}
        for name, kind in columns.items():
            same = by_lower.setdefault(name.lower(), name)
            if same != name:
                raise SchemaConflictError(
                    f"table {table!r}: {name!r} and {same!r} are one column to SQL; rename one"
                )
            if claimed.get(name, kind) != kind:
                raise SchemaConflictError(
                    f"table {table!r}: column {name!r} is {claimed[name]} in {self._storage.uri}, "
                    f"and {kind} in these records; a column keeps its type: give it a new name"
                )
        return {name: kind for name, kind in columns.items() if name not in claimed}

    def _latest(self, table: str) -> tuple[int, Columns]:
        number = self._newest().get(table, 0)
        return number, self._columns(table, number) if number else {}

    def _newest(self) -> Mapping[str, int]:
        places = (schema_place(entry.key) for entry in self._storage.list(SCHEMAS))
        return dict(sorted(place for place in places if place))  # the highest of a table is last

    def _columns(self, table: str, number: int) -> Columns:
        key = schema_key(table, number)
        if key not in self._read:
            self._read[key] = self._read_columns(key)
        return self._read[key]

    def _read_columns(self, key: str) -> Columns:
        fields = read_json(self._storage, key)
        try:
            return {name: ColumnType(kind) for name, kind in fields["columns"].items()}
        except (KeyError, AttributeError) as error:
            raise StorageError(
                f"{self._storage.uri}/{key} is damaged, it has no columns: restore it from a copy"
            ) from error
        except ValueError as error:
            raise NewerFormatError(
                f"{self._storage.uri}/{key}: {error}; install the later version of batchrunner that wrote it"
            ) from error
