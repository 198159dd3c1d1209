"""The words of a part's dictionaries: Arrow reads a column back only if its indices reach them all."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa


class Words:
    """Counts the words of the columns of one part."""

    def __init__(self) -> None:
        self._seen: dict[str, set[object]] = {}

    def within(self, schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.Schema:
        """Return *schema* with indices that reach all words so far, those of *tables* included."""
        narrow = [field for field in schema if _is_narrow(field.type)]
        if not narrow:
            return schema
        for table in tables:
            for field in narrow:
                if field.name in table.column_names:
                    self._see(field.name, table.column(field.name))
        for field in narrow:
            if len(self._seen.get(field.name, ())) > _reach(field.type.index_type):
                schema = schema.set(schema.get_field_index(field.name), _widened(field))
        return schema

    def _see(self, name: str, column: pa.ChunkedArray) -> None:
        if pa.types.is_dictionary(column.type):
            words = [word for chunk in column.chunks for word in chunk.dictionary.to_pylist()]
        else:
            words = column.unique().to_pylist()
        self._seen.setdefault(name, set()).update(words)


def _is_narrow(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) and kind.index_type.bit_width < 32)


def _reach(index: pa.DataType) -> int:
    signs = 1 if pa.types.is_signed_integer(index) else 0
    return int(2 ** (index.bit_width - signs))


def _widened(field: pa.Field) -> pa.Field:
    kind = pa.dictionary(pa.int32(), field.type.value_type, ordered=field.type.ordered)
    return pa.field(field.name, kind)
