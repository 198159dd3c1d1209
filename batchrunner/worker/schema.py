"""The schema of a Parquet sink: declared by the spec, or extended by one part after the other.

The first part with rows fixes the columns that every part has. Later parts may add to the schema (a
type for a column of nulls, a column, a field) but never change it. An addition is durable before
the part that needs it.

Rows whose types contradict the schema become dead letters, so the speed of workers must not decide
which part comes first. The first shard is therefore handed out first, and other workers wait for
its schema. They wait for a limited time, since its rows may take long, or the capability may drop
them all.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.worker.batch import InputTypes, grown_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0


class SinkSchema:
    """The schema that all parts agree on, stored if absent as numbered generations.

    Attributes:
        declared: The schema that the spec declares; None if it declares none.
        waits: Whether `settle` first waits for the first part, which another worker writes.
    """

    def __init__(self, checkpoint: Checkpoint, *, declared: Mapping[str, str] | None) -> None:
        self._checkpoint = checkpoint
        self._generations: list[pa.Schema] = []
        self._next_look = 0.0
        self.declared: pa.Schema | None = None
        self.waits = False
        self._strict: pa.Schema | None = None
        self._plain: pa.Schema | None = None
        if declared is not None:
            from batchrunner.formats.declared import as_written, declared_schema, refuses_nulls

            schema = declared_schema(declared)
            self.declared = as_written(schema)
            self._strict = schema if refuses_nulls(schema) else None

    def fitted(self, table: pa.Table) -> pa.Table:
        """Return *table* in the declared schema; without one, in types that Parquet can store.

        Raises:
            SchemaError: A declared type cannot hold a value exactly, or does not allow a null.
        """
        if self._plain is not None and table.schema.equals(self._plain, check_metadata=True):
            return table  # the usual case: this schema was checked with an earlier batch
        from batchrunner.formats.conform import conform, without_null_words
        from batchrunner.formats.declared import check_nulls
        from batchrunner.formats.parquet_types import has_words, storable

        own = storable(table.schema)
        table = without_null_words(table)
        if self.declared is None:
            self._plain = None if has_words(own) else own
            return conform(table, own)
        table = conform(table, self.declared)
        if self._strict is not None:
            check_nulls(table, self._strict)
        return table

    def agreed_lately(self) -> pa.Schema | None:
        """Do as `agreed`, but read the checkpoint at most once a second until it has a schema."""
        if self.declared is None and not self._generations:
            if time.monotonic() < self._next_look:
                return None
            self._next_look = time.monotonic() + _LOOK_SECONDS
        return self.agreed()

    def refresh(self) -> None:
        """Drop the cached generations, so that the next call reads them again."""
        self._next_look = 0.0
        self._generations = []

    def agreed(self) -> pa.Schema | None:
        """Return the declared schema, or else the agreed one; None if no part has had rows yet."""
        if self.declared is not None:
            return self.declared
        if not self._generations:
            self._read()
        return self._generations[-1] if self._generations else None

    def settle(self, own: pa.Schema) -> pa.Schema:
        """Add the columns *own* of a part to the agreed schema, durably; return the part's schema.

        The part's schema has the columns that every part has, and those of *own*. A new column with
        only nulls is left out: readers get nulls either way.

        Raises:
            SchemaError: The type of a column, or of a field in it, conflicts with the agreed one or
                does not exist in Parquet.
        """
        from batchrunner.formats.schemas import grown

        if self.declared is not None:
            return self.declared
        if self.agreed() is None and len(own):
            self._wait()
        own = self._writable(own)
        if not self._generations and not len(own):
            return own
        self._agree(own)
        # Every part has the columns of the first generation. Later generations only fix the types
        # of columns that some parts have.
        return grown(self._generations[0], own)

    def _writable(self, own: pa.Schema) -> pa.Schema:
        from batchrunner.formats.parquet_types import check_writable
        from batchrunner.formats.schemas import filled, without_nulls

        agreed = self.agreed()
        if agreed is not None:
            own = filled(without_nulls(own, but=self._generations[0]), agreed)
        # Before the types are agreed on: one that Parquet lacks would fail all later parts.
        check_writable(own, is_final=True)
        return own

    def declare(self) -> None:
        """Store the declared schema as the agreed one, in case a later spec declares none.

        Raises:
            SchemaError: The schema of earlier parts conflicts with it.
        """
        if self.declared is not None:
            self._read()
            self._agree(self.declared)

    def check_declared(self) -> None:
        """Compare the declared schema with that of the parts so far; store nothing.

        Raises:
            SchemaError: The schema of earlier parts conflicts with it.
        """
        from batchrunner.formats.schemas import grown

        self._read()
        if self.declared is not None and self._generations:
            grown(self._generations[-1], self.declared)

    def check_final(self, own: pa.Schema) -> None:
        """Check that Parquet has a type for each column of *own*, merged with the agreed schema.

        Raises:
            SchemaError: Parquet has no type for a column.
        """
        self._writable(own)

    def _wait(self) -> None:
        """Wait at most `_PATIENCE_SECONDS` for the first part to fix the schema."""
        deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.02
        while self.waits and self.agreed() is None and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
        self.waits = False  # once: if the first shard has no rows, each part would wait in vain

    def _agree(self, own: pa.Schema) -> None:
        """Store the agreed schema with *own* added as the next generation, durably.

        Puts only if absent: if two workers add at the same time, the second one merges its columns
        with the first one's generation and tries the next number.
        """
        from batchrunner.formats.schemas import grown

        while True:
            number = len(self._generations)
            merged = grown(self._generations[-1], own) if number else own
            if number and merged is self._generations[-1]:
                return
            if self._checkpoint.add_schema(merged.serialize().to_pybytes(), number=number):
                self._generations.append(merged)
                return
            self._read()

    def _read(self) -> None:
        self._generations = self._checkpoint.schemas()


class RowTypes:
    """The types that the rows of a worker must have: those agreed on, then those of earlier rows.

    Not safe in several threads.
    """

    def __init__(self, schema: SinkSchema | None) -> None:
        """Compare rows with *schema*; None if the sink has no types."""
        self._schema = schema
        self._running: dict[int, pa.Schema] = {}
        self._latest: pa.Schema | None = None
        self._shard = -1
        self._is_final = False

    def begin(self, *, is_final: bool = False) -> None:
        """Reset the types: the next attempt begins with the agreed ones.

        Args:
            is_final: Whether to refuse rows with objects that are always empty, for which Parquet
                has no type. In a first attempt, later rows or parts may still add fields to them.
        """
        self._running, self._latest, self._is_final = {}, None, is_final

    def drop(self, shard: int) -> None:
        """Drop the types of *shard*, which failed: its rows will be in no part."""
        self._running.pop(shard, None)
        self._latest = None

    def turn_to(self, shard: int) -> None:
        """Set the shard of the rows in the next calls."""
        self._shard = shard

    def expected(self, types: InputTypes) -> InputTypes:
        """Return *types*, of what the capability gets, with those that its output has to have."""
        if self._schema is None:
            return types
        if self._schema.declared is not None:
            return replace(types, schemas=(self._schema.declared, *types.schemas))
        return replace(types, earlier=self._of_shard(), grow=True)

    def accept(self, rows: Sequence[Any]) -> None:
        """Check the types of the tables *rows*, and require them of later rows of the shard.

        Raises:
            SchemaError: The type of a column conflicts with that of earlier rows.
        """
        if self._schema is None or self._schema.declared is not None or not rows:
            return
        whole = grown_by(self._of_shard(), [table.schema for table in rows])
        if self._is_final:
            self._schema.check_final(whole)
        self._running[self._shard] = self._latest = whole

    def accept_all(self, rows: Mapping[int, Sequence[Any]]) -> None:
        """Do as `accept` for the rows of several shards, given by shard id; for all or for none.

        Raises:
            SchemaError: The type of a column conflicts with that of earlier rows.
        """
        before = dict(self._running), self._latest
        try:
            for shard, tables in rows.items():
                self.turn_to(shard)
                self.accept(tables)
        except BaseException:
            self._running, self._latest = before
            raise

    def _of_shard(self) -> pa.Schema | None:
        """Return the types of the shard's rows so far; before the first, those that it must have.

        Those are the types of the worker's earlier shards, whose parts settle first, or else the
        agreed ones.
        """
        if self._shard not in self._running and self._schema is not None:
            return self._schema.agreed_lately() if self._latest is None else self._latest
        return self._running.get(self._shard)
