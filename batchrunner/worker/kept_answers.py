"""The answers of rows, kept until their shards have their receipts: none is asked for again before.

A batch is submitted again in parts when a row of it failed or its types conflict, and a shard is read again in
another attempt. The rows are then found by where they stand in their files.

What is kept in memory is bounded: more than that goes to a temporary file.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO

from batchrunner.checkpoint.answers import JournaledAnswer, answer_in, digest_of
from batchrunner.formats.chunk import Chunk, Row
from batchrunner.worker.answer_journal import AnswerJournal, Places
from batchrunner.worker.batch import Batch, ChunkRows
from batchrunner.worker.row_calls import Answered, RowCall

MOST_BYTES = 16 << 20
"""About how many bytes of answers are kept in memory."""

_ROW_BYTES = 600
"""About what a row takes that is kept, without its answer."""
_PACKED_TOGETHER = 1024

_Key = tuple[int, int]
"""The number of the row's slice in its shard, and where it stands in the file of that slice."""


@dataclass(frozen=True, slots=True)
class _Pack:
    """Answers in the temporary file, of rows from *first* to *last* in the order of their keys."""

    first: _Key
    last: _Key
    offset: int
    size: int


@dataclass(slots=True)
class _OfShard:
    """What is kept of one shard: rows in memory, packs of answers, and those in the journal from before."""

    calls: dict[_Key, RowCall] = field(default_factory=dict)
    packs: list[_Pack] = field(default_factory=list)
    packed_to: _Key = (-1, -1)
    journaled: Places = field(default_factory=dict)


class KeptAnswers:
    """The rows of shards that have no receipt yet, on their way through the capability or answered."""

    def __init__(
        self, journal: AnswerJournal | None = None, *, most_bytes: int = MOST_BYTES
    ) -> None:
        """Keep answers; in *journal* also for other workers, after a crash of this one."""
        self._journal = journal
        self._shards: dict[int, _OfShard] = {}
        self._most_bytes, self._bytes = most_bytes, 0
        self._file: IO[bytes] | None = None
        self._located: tuple[Chunk, Sequence[int]] | None = None

    def begin(self) -> None:
        """Look, before some shards begin, for what other workers journaled of them.

        Raises:
            StorageError: The checkpoint cannot be listed.
        """
        if self._journal is not None:
            self._journal.look()

    def calls(self, batch: Batch) -> list[RowCall]:
        """Return a call for each row of *batch*: the one that is known, or a new one.

        Raises:
            UnreadableRowError: A row has a value that Python cannot hold.
        """
        # Rows of a retry are mostly answered, and are not read for nothing.
        rows = None if batch.is_retry else iter(batch.rows())
        return [call for piece in batch.pieces for call in self._of_piece(piece, rows)]

    def _of_piece(self, piece: ChunkRows, rows: Iterator[Row] | None) -> Iterator[RowCall]:
        kept = self._of_shard(piece.shard.id)
        places = self._places(piece.chunk)
        for index in range(piece.start, piece.stop):
            row = next(rows) if rows else None
            key = (piece.number, places[index])
            call = kept.calls.get(key) or self._unpacked(kept, key)
            if call is None:
                call = RowCall(row, partial(_read_again, piece.chunk, index))
                kept.calls[key] = call
                if self._journal is not None:
                    self._in_journal(self._journal, piece.shard.id, key, call)
            yield call

    def _of_shard(self, shard: int) -> _OfShard:
        kept = self._shards.get(shard)
        if kept is None:
            kept = self._shards[shard] = _OfShard()
            if self._journal is not None:
                kept.journaled = self._journal.known(shard)
        return kept

    def _in_journal(self, journal: AnswerJournal, shard: int, key: _Key, call: RowCall) -> None:
        """Give *call* the journaled answer of its row; if there is none, journal the one that it gets."""
        digest = digest_of(call.peek())  # now: the capability may change the row
        line = self._shards[shard].journaled.pop(key, None)
        known = answer_in(line) if line else None
        if known is not None and known.row == digest:  # else the file has changed since
            call.answer = Answered(known.rows, known.usage)
            return

        def keep(answer: Answered) -> None:
            journal.add(shard, JournaledAnswer(*key, digest, answer.rows, answer.usage))

        call.keep = keep

    def _places(self, chunk: Chunk) -> Sequence[int]:
        if self._located is None or self._located[0] is not chunk:
            self._located = chunk, chunk.positions()
        return self._located[1]

    def grow(self, nbytes: int, *, rows: int) -> None:
        """Note that *rows* rows have been answered, with about *nbytes* of output."""
        self._bytes += nbytes + _ROW_BYTES * rows
        if self._bytes > self._most_bytes:
            self._bytes = 0
            # What cannot be written stays in memory: a full disk, or an answer that cannot be pickled.
            with contextlib.suppress(Exception):
                for kept in self._shards.values():
                    self._pack(kept)

    def _pack(self, kept: _OfShard) -> None:
        """Move the answers of *kept* to the file."""
        self._file = self._file or tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        answered = sorted((key, call.answer) for key, call in kept.calls.items() if call.answer)
        for start in range(0, len(answered), _PACKED_TOGETHER):
            some = answered[start : start + _PACKED_TOGETHER]
            data = pickle.dumps(some)
            offset = self._file.seek(0, 2)
            self._file.write(data)
            kept.packs.append(_Pack(some[0][0], some[-1][0], offset, len(data)))
            kept.packed_to = max(kept.packed_to, some[-1][0])
            for key, _ in some:
                del kept.calls[key]

    def _unpacked(self, kept: _OfShard, key: _Key) -> RowCall | None:
        """Take the pack with the row of *key* back into memory; return its call, None if there is none."""
        if not kept.packs or key > kept.packed_to:  # as usual: a row that comes for the first time
            return None
        for pack in [p for p in kept.packs if p.first <= key <= p.last]:
            kept.packs.remove(pack)
            for known, answer in self._read(pack):
                kept.calls[known] = _answered(answer)
        return kept.calls.get(key)

    def _read(self, pack: _Pack) -> Sequence[tuple[_Key, Answered]]:
        assert self._file is not None  # noqa: S101 - for the type checker
        self._file.seek(pack.offset)
        some: Sequence[tuple[_Key, Answered]] = pickle.loads(self._file.read(pack.size))  # noqa: S301 - our own, of this process
        return some

    def forgive(self) -> None:
        """Forget the failed attempts at all rows: their shards are attempted again."""
        for kept in self._shards.values():
            for call in kept.calls.values():
                call.forgive()

    def forget(self, shards: Collection[int], *, committed: Collection[int]) -> None:
        """Drop what is kept of *shards*; of those *committed*, also what is journaled."""
        if self._journal is not None and committed:
            self._journal.drop(committed)
        for shard in shards:
            self._shards.pop(shard, None)
        if self._file is not None and not any(kept.packs for kept in self._shards.values()):
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Write what is to be journaled, within some seconds."""
        if self._journal is not None:
            self._journal.close()


def _answered(answer: Answered) -> RowCall:
    call = RowCall(None, dict)
    call.answer = answer
    return call


def _read_again(chunk: Chunk, index: int) -> Row:
    [row] = chunk.reread(index, index + 1)
    return row
