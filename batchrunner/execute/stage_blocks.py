"""Blocks as they lie in Ray's object store: tables and arrays to be mapped, all else as bytes to be read.

What Ray keeps for several readers cannot be changed, and a batch can: so rows and frames are pickled whole,
and each reader gets its own. Rows are pickled in runs, of which a reader of a few rows reads only its own.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchrunner.worker.batch import InputTypes
from batchrunner.worker.blocks import Block, Part

_RUN = 64
"""Rows pickled together."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring rows of one part, as bytes.

    Attributes:
        data: The pickled content, which Ray keeps outside of its own pickle.
        rows: Their number.
        types: The types of the part.
    """

    data: Any
    rows: int
    types: InputTypes

    def part(self) -> Part:
        """Return the rows as the reader's own."""
        content = pickle.loads(self.data)  # noqa: S301 - written by our workers
        return Part(content, self.rows, self.types)


Packed = tuple[Part | _Run, ...]


def pack(block: Block) -> Packed:
    """Return *block* as it is put into the object store."""
    return tuple(one for part in block.parts for one in _packed(part))


def unpack(packed: Packed, start: int, stop: int) -> Block:
    """Return rows *start* to *stop*; what is pickled is the caller's own."""
    parts: list[Part] = []
    for part in _cut(packed, start, stop):
        if parts and _goes_on(parts[-1], part):
            parts[-1].content.extend(part.content)
            parts[-1] = replace(parts[-1], rows=parts[-1].rows + part.rows)
        else:
            parts.append(part)
    return Block(tuple(parts))


def _goes_on(part: Part, after: Part) -> bool:
    """Return whether *after* has rows of the same part, of which runs were made."""
    both = isinstance(part.content, list) and isinstance(after.content, list)
    return both and part.types is after.types


def _packed(part: Part) -> Iterator[Part | _Run]:
    if part.table is not None or _is_plain_arrays(part.content):
        yield part
    elif isinstance(part.content, list):
        for start in range(0, part.rows, _RUN):
            yield _run(part.slice(start, min(start + _RUN, part.rows)))
    else:
        yield _run(part)


def _is_plain_arrays(content: Any) -> bool:
    return isinstance(content, Mapping) and all(
        getattr(getattr(column, "dtype", None), "kind", "O") != "O" for column in content.values()
    )


def _run(part: Part) -> _Run:
    from ray import cloudpickle

    data = cloudpickle.dumps(part.content, protocol=5)  # type: ignore[no-untyped-call]  # Ray is half typed
    return _Run(pickle.PickleBuffer(data), part.rows, part.types)


def _cut(packed: Packed, start: int, stop: int) -> Iterator[Part]:
    first = 0
    for one in packed:
        last = first + one.rows
        if max(first, start) < min(last, stop):
            part = one.part() if isinstance(one, _Run) else one
            yield part.slice(max(start - first, 0), min(stop, last) - first)
        first = last
