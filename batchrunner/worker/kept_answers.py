"""The answers of rows, kept until their shards have their receipts: none is asked for again before.

A batch is submitted again in parts when a row of it failed or its types conflict, and a shard is read again in
another attempt. The rows are then found by where they stand in their files.

What is kept in memory is bounded: more than that goes to a temporary file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, repeat

from batchrunner.checkpoint.answers import JournaledAnswer, answer_in, digest_of
from batchrunner.formats.chunk import Chunk, Row
from batchrunner.worker.answer_journal import AnswerJournal, Places
from batchrunner.worker.answer_packs import (
    NO_ANSWER,
    PACKED_TOGETHER,
    Key,
    Pack,
    PackFile,
    StoredPack,
)
from batchrunner.worker.batch import Batch, ChunkRows
from batchrunner.worker.row_call import Answered, RowCall
from batchrunner.worker.rows_in_turn import Stretch

MOST_BYTES = 16 << 20
"""About how many bytes of answers are kept in memory."""

_ROW_BYTES = 600
"""About what a row takes that is kept, without its answer."""


@dataclass(slots=True)
class _OfShard:
    """What is kept of one shard: rows in memory, packs of answers, and those in the journal from before.

    Attributes:
        seen_to: The last key of which anything is kept.
    """

    calls: dict[Key, RowCall] = field(default_factory=dict)
    packs: list[Pack | StoredPack] = field(default_factory=list)
    seen_to: Key = (-1, -1)
    journaled: Places = field(default_factory=dict)

    def open_pack(self) -> Pack:
        """Return the pack that the next answers go to."""
        pack = self.packs[-1] if self.packs else None
        if not isinstance(pack, Pack) or len(pack) >= PACKED_TOGETHER:
            pack = Pack()
            self.packs.append(pack)
        return pack


class KeptAnswers:
    """The rows of shards that have no receipt yet, on their way through the capability or answered."""

    def __init__(
        self, journal: AnswerJournal | None = None, *, most_bytes: int = MOST_BYTES
    ) -> None:
        """Keep answers; in *journal* also for other workers, after a crash of this one."""
        self._journal = journal
        self._shards: dict[int, _OfShard] = {}
        self._most_bytes, self._bytes = most_bytes, 0
        self._file = PackFile()
        self._located: list[tuple[Chunk, Sequence[int]]] = []

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
        calls = [call for piece in batch.pieces for call in self._of_piece(piece, rows)]
        del self._located[:-1]  # the next batch may go on in the last chunk
        return calls

    def _of_piece(self, piece: ChunkRows, rows: Iterator[Row] | None) -> Iterator[RowCall]:
        kept, chunk = self._of_shard(piece.shard.id), piece.chunk
        known, number = kept.calls, piece.number
        for index, place in enumerate(self._places(piece), piece.start):
            row = next(rows) if rows else None
            key = (number, place)
            if key > kept.seen_to:  # as usual: a row that comes for the first time
                call, kept.seen_to = None, key
            else:
                call = known.get(key) or self._unpacked(kept, key)
            if call is None:
                call = known[key] = RowCall(row, partial(_read_again, chunk, index))
                if self._journal is not None:
                    self._in_journal(self._journal, piece.shard.id, key, call)
            yield call

    def stretch(self, batch: Batch) -> Stretch | None:
        """Return the rows of *batch* if all come for the first time, and none can be in a journal; `keep` then keeps their answers.

        Raises:
            UnreadableRowError: A row has a value that Python cannot hold.
        """
        if batch.is_retry or self._journal is not None or not all(map(self._is_new, batch.pieces)):
            return None
        return Stretch(batch.rows(), partial(_read_row_again, batch))

    def _is_new(self, piece: ChunkRows) -> bool:
        return (piece.number, self._places(piece)[0]) > self._of_shard(piece.shard.id).seen_to

    def keep(self, batch: Batch, stretch: Stretch) -> None:
        """Keep what has come so far of *stretch*, the rows of *batch*."""
        rows, start = iter(stretch.outcomes.rows), 0
        for piece in batch.pieces:
            stop = min(start + len(piece), len(stretch.outcomes))
            if start < stop:
                self._keep_piece(piece, stretch, range(start, stop), rows)
            start = stop
        del self._located[:-1]

    def _keep_piece(
        self, piece: ChunkRows, stretch: Stretch, indices: range, rows: Iterator[Row]
    ) -> None:
        kept, outcomes = self._of_shard(piece.shard.id), stretch.outcomes
        pack, places = kept.open_pack(), self._places(piece)[: len(indices)]
        counts = outcomes.counts[indices.start : indices.stop]
        pack.rows.extend(islice(rows, sum(counts)))
        for index in (*stretch.calls, *outcomes.left):
            if index not in indices:
                continue
            at = index - indices.start
            if index in outcomes.failed:
                kept.calls[piece.number, places[at]] = stretch.calls[index]
            if index in outcomes.failed or index in outcomes.left:
                counts[at] = NO_ANSWER
            elif index in outcomes.usages:
                pack.usages[len(pack) + at] = outcomes.usages[index]
        pack.numbers.extend(repeat(piece.number, len(counts)))
        pack.places.extend(places)
        pack.counts.extend(counts)
        kept.seen_to = piece.number, places[-1]

    def _of_shard(self, shard: int) -> _OfShard:
        kept = self._shards.get(shard)
        if kept is None:
            kept = self._shards[shard] = _OfShard()
            if self._journal is not None:
                kept.journaled = self._journal.known(shard)
        return kept

    def _in_journal(self, journal: AnswerJournal, shard: int, key: Key, call: RowCall) -> None:
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

    def _places(self, piece: ChunkRows) -> Sequence[int]:
        """Return where the rows of *piece* stand in their file."""
        found = next((some for chunk, some in self._located if chunk is piece.chunk), None)
        if found is None:
            found = piece.chunk.positions()
            self._located.append((piece.chunk, found))
        return found[piece.start : piece.stop]

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
        for n, pack in enumerate(kept.packs):
            if isinstance(pack, Pack):
                kept.packs[n] = self._file.store(pack)
        answered = sorted(key for key, call in kept.calls.items() if call.answer)
        for start in range(0, len(answered), PACKED_TOGETHER):
            some, pack = answered[start : start + PACKED_TOGETHER], Pack()
            for key in some:
                if answer := kept.calls[key].answer:
                    pack.add(key, answer)
            kept.packs.append(self._file.store(pack))
            for key in some:
                del kept.calls[key]

    def _unpacked(self, kept: _OfShard, key: Key) -> RowCall | None:
        """Take the pack with the row of *key* apart; return its call, None if there is none."""
        for pack in [p for p in kept.packs if p.first <= key <= p.last]:
            kept.packs.remove(pack)
            for known, answer in pack.unpacked().answers():
                kept.calls[known] = _answered(answer)
        return kept.calls.get(key)

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
        if not any(kept.packs for kept in self._shards.values()):
            self._file.close()

    def close(self) -> None:
        """Write what is to be journaled, within some seconds, and remove the file."""
        self._file.close()
        if self._journal is not None:
            self._journal.close()


def _answered(answer: Answered) -> RowCall:
    call = RowCall(None, dict)
    call.answer = answer
    return call


def _read_again(chunk: Chunk, index: int) -> Row:
    [row] = chunk.reread(index, index + 1)
    return row


def _read_row_again(batch: Batch, index: int) -> Row:
    [row] = batch.single(index).rows()
    return row
