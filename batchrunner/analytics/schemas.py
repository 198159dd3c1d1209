"""The columns of the tables: agreed on by all writers, without a look at any data."""

from __future__ import annotations

from collections.abc import Mapping

from batchrunner.analytics.layout import SCHEMAS, read_json, schema_key, schema_place, to_bytes
from batchrunner.analytics.record import Columns, ColumnType
from batchrunner.errors import NewerFormatError, SchemaConflictError, StorageError
from batchrunner.storage import Storage

_RIVALS = 100
"""How many other writers may add columns to one table while we do."""


class Schemas:
    """The schemas of a store's tables: numbered records, the highest counts.

    Each repeats the one before and adds columns; it is created only if absent. So all writers
    agree on the type of a column, however many meet it for the first time at once, and a reader
    that looks here after it listed files knows every column in them.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[str, Columns] = {}
        self._read: dict[str, Columns] = {}

    def claim(self, table: str, columns: Columns) -> None:
        """See to it that *table* has these columns, durably.

        Costs nothing when this object saw them before; else a listing and a record, however much
        the table holds.

        Raises:
            SchemaConflictError: A column has another type already.
        """
        if not self._new_in(table, columns):
            return
        for _ in range(_RIVALS):
            number, self._known[table] = self._latest(table)
            new = self._new_in(table, columns)
            if not new:
                return
            merged = {**self._known[table], **new}
            key = schema_key(table, number + 1)
            if self._storage.put_if_absent({key: to_bytes({"columns": merged})}):
                self._known[table] = merged
                return
        raise StorageError(f"{self._storage.uri}: the schema of {table!r} changes all the time")

    def all(self) -> dict[str, Columns]:
        """Return the columns of every table, as they are now, sorted by table."""
        return {table: self._columns(table, number) for table, number in self._newest().items()}

    def _new_in(self, table: str, columns: Columns) -> Columns:
        known = self._known.get(table, {})
        folded = {name.lower(): name for name in known}
        for name, kind in columns.items():
            same = folded.setdefault(name.lower(), name)
            if same != name:
                raise SchemaConflictError(
                    f"table {table!r}: {name!r} and {same!r} are one column to SQL; rename one"
                )
            if known.get(name, kind) != kind:
                raise SchemaConflictError(
                    f"table {table!r}: column {name!r} is {known[name]} in {self._storage.uri}, "
                    f"and {kind} in these records; a column keeps its type: give it a new name"
                )
        return {name: kind for name, kind in columns.items() if name not in known}

    def _latest(self, table: str) -> tuple[int, Columns]:
        number = self._newest().get(table, 0)
        return number, self._columns(table, number) if number else {}

    def _newest(self) -> Mapping[str, int]:
        places = (schema_place(entry.key) for entry in self._storage.list(SCHEMAS))
        return dict(sorted(place for place in places if place))  # of each table the last

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
                f"{self._storage.uri}/{key} is damaged: it has no columns"
            ) from error
        except ValueError as error:
            raise NewerFormatError(f"{self._storage.uri}/{key}: {error}") from error
