"""Makes what came out of the last stage ready for the sink, and finds the rows that the sink refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from batchrunner.user_code import blamed, contained
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.blocks import Block, Part
from batchrunner.worker.calling import Piece, Pieces, Ready
from batchrunner.worker.stage_pool import Span
from batchrunner.worker.tickets import Origins, Stretch

Get = Callable[[Span], Block]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Neighbouring rows that are converted together, with their origins."""

    part: Part
    origins: Origins


class Output:
    """Converts the output of one ticket at a time."""

    def __init__(self, get: Get, ready: Ready, *, stage: str) -> None:
        """Convert by *ready* what *get* gets out of the store; the last *stage* is blamed for what fails."""
        self._get, self._ready, self._stage = get, ready, stage

    def none(self) -> Piece:
        """Return the output of no row."""
        return Piece(*self._ready([], InputTypes()))

    def pieces(
        self,
        outputs: Sequence[Stretch],
        failed: Mapping[int, Exception],
        *,
        types: Callable[[InputTypes], InputTypes],
    ) -> tuple[Pieces, dict[int, Exception]]:
        """Return the *outputs* for the sink, without rows whose origins have *failed*; and what has failed.

        Args:
            outputs: What came out of the last stage, in order.
            failed: Rows that a stage failed: the error by origin.
            types: Returns what the sink expects of rows with these types.

        Raises:
            Exception: The sink refuses rows whose origins are not known.
            RowsLostError: The output is not in the store any more.
        """
        rows = list(_grouped(self._read(outputs)))
        refused = dict(failed)
        while True:
            pieces: Pieces = []
            before = len(refused)
            for some in rows:
                for one in _without(some, refused):
                    pieces += self._converted(one, types(one.part.types), refused)
            # Of a row with several output rows, all count or none: those made ready before it was refused, too.
            if len(refused) == before:
                return pieces, refused

    def _read(self, outputs: Sequence[Stretch]) -> Iterator[_Rows]:
        for stretch in outputs:
            at = 0
            for part in self._get(stretch.span).parts:
                origins = None if stretch.origins is None else stretch.origins[at : at + part.rows]
                yield _Rows(part, origins)
                at += part.rows

    def _converted(
        self, rows: _Rows, types: InputTypes, refused: dict[int, Exception]
    ) -> list[Piece]:
        """Return *rows* ready for the sink; note those that it refuses in *refused*."""
        try:
            ready = contained(partial(self._ready, rows.part.content, types))
        except Exception as error:
            if rows.origins is None:
                raise blamed(error, self._stage) from error
            failure = blamed(error, self._stage)
        else:
            return [Piece(*ready)]
        first, last = rows.origins[0], rows.origins[-1]
        if first == last:
            refused[first] = failure
            return []
        return [piece for half in _halves(rows) for piece in self._converted(half, types, refused)]


def _grouped(rows: Iterator[_Rows]) -> Iterator[_Rows]:
    """Join neighbouring lists of dicts: each column of theirs is converted as a whole."""
    for is_list, some in groupby(rows, key=lambda one: isinstance(one.part.content, list)):
        if not is_list:
            yield from some
            continue
        for _, alike in groupby(some, key=lambda one: (one.part.types, one.origins is None)):
            yield _joined(list(alike))


def _joined(rows: Sequence[_Rows]) -> _Rows:
    if len(rows) == 1:
        return rows[0]
    content = [row for one in rows for row in one.part.content]
    origins = None
    if rows[0].origins is not None:
        origins = tuple(origin for one in rows for origin in one.origins or ())
    return _Rows(Part(content, len(content), rows[0].part.types), origins)


def _without(rows: _Rows, failed: Mapping[int, Exception]) -> Iterator[_Rows]:
    """Yield *rows* without those whose origins have *failed*."""
    if rows.origins is None or not failed or not any(o in failed for o in rows.origins):
        yield rows
        return
    at = 0
    for has_failed, some in groupby(rows.origins, key=lambda origin: origin in failed):
        count = sum(1 for _ in some)
        if not has_failed:
            yield _cut(rows, at, at + count)
        at += count


def _halves(rows: _Rows) -> list[_Rows]:
    """Return about half of *rows* each, cut between two origins."""
    origins = rows.origins or ()
    cuts = [n for n in range(1, len(origins)) if origins[n] != origins[n - 1]]
    at = min(cuts, key=lambda cut: abs(cut - len(origins) // 2))
    return [_cut(rows, 0, at), _cut(rows, at, len(origins))]


def _cut(rows: _Rows, start: int, stop: int) -> _Rows:
    origins = None if rows.origins is None else rows.origins[start:stop]
    return _Rows(rows.part.slice(start, stop), origins)
