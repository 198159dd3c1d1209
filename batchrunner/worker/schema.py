"""The schema of a Parquet sink: declared, or grown by the parts that come.

The first part with rows fixes the columns that every part has. Later parts may add to it (a type for what
was null, a column, a field), never change it. What is agreed on is durable before a part that needs it.

Which part comes first should not depend on how fast workers are, for rows of another type than the first
are set aside. So the first shard is handed out first, and other workers wait for its schema: not for ever,
since its rows may take long, or may all be dropped.
"""

from __future__ import annotations

import time
from functools import reduce
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 10.0


class SinkSchema:
    """What all parts agree on. The checkpoint holds it, put there by whoever came first with it.

    Attributes:
        declared: By the spec; None for nothing.
        waits: The first shard is another worker's, whose part is to come first.
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
        """Return *table* in the declared columns; without any, in the types that Parquet keeps.

        Raises:
            SchemaError: A value does not fit exactly, or is null where none may be.
        """
        if self._plain is not None and table.schema.equals(self._plain, check_metadata=True):
            return table  # as most batches, which differ in nothing but their rows
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

    def known_lately(self) -> pa.Schema | None:
        """As `known`, but look no more than once a second as long as it is not."""
        if self.declared is None and not self._generations:
            if time.monotonic() < self._next_look:
                return None
            self._next_look = time.monotonic() + _LOOK_SECONDS
        return self.known()

    def look_again(self) -> None:
        """Learn what others have agreed on since."""
        self._next_look = 0.0
        self._generations = []

    def known(self) -> pa.Schema | None:
        """Return all that is agreed on, or None when no part has had rows yet."""
        if self.declared is not None:
            return self.declared
        if not self._generations:
            self._read()
        return self._generations[-1] if self._generations else None

    def settle(self, own: pa.Schema) -> pa.Schema:
        """Agree on the columns of a part; return those that it is to have.

        These are the columns that every part has, and its *own* beyond them. A column of nothing but
        nulls that not every part has is left out: it is null either way.

        Raises:
            SchemaError: A column, or a field in it, has another type than was agreed on, or none that
                Parquet has: what nobody can write is not agreed on.
        """
        from batchrunner.formats.schemas import grown

        if self.declared is not None:
            return self.declared
        if self.known() is None and len(own):
            self._wait()
        own = self._writable(own)
        if not self._generations and not len(own):
            return own
        self._agree(own)
        return grown(self._generations[0], own)

    def _writable(self, own: pa.Schema) -> pa.Schema:
        from batchrunner.formats.parquet_types import check_writable
        from batchrunner.formats.schemas import filled, without_nulls

        known = self.known()
        if known is not None:
            own = filled(without_nulls(own, but=self._generations[0]), known)
        check_writable(own, is_final=True)
        return own

    def declare(self) -> None:
        """Make the declared schema one that counts, so that it does after it is declared no more.

        Raises:
            SchemaError: Parts have other types.
        """
        if self.declared is not None:
            self._read()
            self._agree(self.declared)

    def check_declared(self) -> None:
        """Hold the declared schema against that of the parts so far; change nothing.

        Raises:
            SchemaError: Parts have other types.
        """
        from batchrunner.formats.schemas import grown

        self._read()
        if self.declared is not None and self._generations:
            grown(self._generations[-1], self.declared)

    def check_final(self, own: pa.Schema) -> None:
        """Refuse columns that Parquet has no type for, by all that is known.

        Raises:
            SchemaError: There is one.
        """
        self._writable(own)

    def _wait(self) -> None:
        """Give the first part a while to be there."""
        deadline, pause = time.monotonic() + _PATIENCE_SECONDS, 0.02
        while self.waits and self.known() is None and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
        self.waits = False

    def _agree(self, own: pa.Schema) -> None:
        """Make what *own* adds durable. Whoever adds at the same time adds to that, or we to theirs."""
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
    """Which types the rows of a worker's shards have: what is agreed on, and what came before a row.

    Not safe in several threads.
    """

    def __init__(self, schema: SinkSchema | None) -> None:
        """Hold rows against *schema*; None for a sink that has none."""
        self._schema = schema
        self._running: dict[int, pa.Schema] = {}
        self._latest: pa.Schema | None = None
        self._shard = -1
        self._is_final = False

    def begin(self, *, is_final: bool = False) -> None:
        """Forget the shards so far: those that come begin with what is agreed on.

        Args:
            is_final: Nothing more will be known of objects that are always empty, for which
                Parquet has no type: a row that has one is refused.
        """
        self._running, self._latest, self._is_final = {}, None, is_final

    def forget(self, shard: int) -> None:
        """Let *shard*, which failed, decide nothing: its rows are in no part."""
        self._running.pop(shard, None)
        self._latest = None

    def turn_to(self, shard: int) -> None:
        """Let what is asked next be about *shard*."""
        self._shard = shard

    def hints(self, types: tuple[pa.Schema, ...]) -> tuple[pa.Schema, ...]:
        """Return the schemas whose types values are to have if they fit, those that count most first.

        Args:
            types: Those of the columns that the capability was given.
        """
        if self._schema is None:
            return types
        if self._schema.declared is not None:
            return (self._schema.declared, *types)
        running = self._of_shard()
        return types if running is None else (*types, running)

    def accept(self, rows: Sequence[Any]) -> None:
        """Take *rows*, each some ready for the sink, for the next ones of the shard.

        Raises:
            SchemaError: A column has another type than before.
        """
        if self._schema is None or self._schema.declared is not None or not rows:
            return
        from batchrunner.formats.schemas import grown

        running = self._of_shard()
        schemas = [table.schema for table in rows]
        first, *others = schemas if running is None else (running, *schemas)
        whole = reduce(grown, others, first)
        if self._is_final:
            self._schema.check_final(whole)
        self._running[self._shard] = self._latest = whole

    def _of_shard(self) -> pa.Schema | None:
        """Return what the rows of the shard so far have; of its first ones, what came before them.

        That is what the shards before it in this worker have: their parts come before its own.
        """
        if self._shard not in self._running and self._schema is not None:
            return self._schema.known_lately() if self._latest is None else self._latest
        return self._running.get(self._shard)
