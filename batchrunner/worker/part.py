"""One attempt at a part: writes its rows to a staged file, and counts and hashes the bytes."""

from __future__ import annotations

import hashlib
import io
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from batchrunner.checkpoint import PlanFacts
from batchrunner.checkpoint.bundles import Bundle, reopened
from batchrunner.checkpoint.dead_letters import DeadLetterFile
from batchrunner.errors import ShardFailedError
from batchrunner.formats.contract import Settle
from batchrunner.formats.format_error import writing_in
from batchrunner.formats.listing import frames, listed_in
from batchrunner.shard import EarlyEnd
from batchrunner.storage import Staged
from batchrunner.worker.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun


class CountedFile(io.RawIOBase):
    """A binary file, written from start to end, that counts and hashes the bytes written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0
        self._is_discarded = False

    def discard(self) -> None:
        """Ignore later writes: a Parquet writer writes its footer when it is garbage-collected."""
        self._is_discarded = True

    def write(self, data: Any) -> int:
        if self._is_discarded:
            return len(data)
        self._hash.update(data)
        written = self._file.write(data)
        self.size += written
        return written

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True


class Part:
    """One attempt at one part.

    Attributes:
        staged: The staged file with its bytes, not visible to readers yet.
        rows_in: Rows read so far, failed ones included.
        rows_out: Rows written so far.
        has_columns: Whether a row written so far has a column.
        dead_letters: The dead letters of the rows that failed so far; None if none failed.
        runs: Capability runs to record before the part is published.
        usage: What the calls have used that its rows and dead letters came of.
        source_hash: Hash of the bytes read from the source, set at the end; empty if none is
            needed.
        bundle: The bundle of the files that the part lists, once it is finished; None for none.
        early_end: Where the shard ended early, set at the end; None if it was read completely.
    """

    def __init__(
        self,
        stage: Callable[[], Staged],
        facts: PlanFacts,
        *,
        settle: Settle,
        stage_bundle: Callable[[], Staged],
    ) -> None:
        self.staged, self.rows_in, self.rows_out = stage(), 0, 0
        self.has_columns = False
        self._stage, self._replaced = stage, list[Staged]()
        self.dead_letters: DeadLetterFile | None = None
        self.runs: list[CompletedRun] = []
        self.usage: Usage = NO_USAGE
        self.source_hash = ""
        self.early_end: EarlyEnd | None = None
        self.write_id = uuid.uuid4().hex
        self._format, self._name = facts.part_format, facts.format
        self._counted = CountedFile(self.staged.file)
        self.bundle: Bundle | None = None
        self._stage_bundle = stage_bundle
        self._files: _Files | None = None
        with writing_in(self._name):
            self._writer = self._format.writer(
                self._counted, compression=facts.compression, settle=settle, restart=self._restart
            )

    def _restart(self) -> tuple[BinaryIO, CountedFile]:
        """Return the file written so far, and a new file to write its rows and later ones to."""
        written, self.staged = self.staged, self._stage()
        self._replaced.append(written)
        self._counted = CountedFile(self.staged.file)
        return written.file, self._counted

    def discard(self) -> None:
        """Remove all staged files of the part."""
        self._counted.discard()  # first: the writer may write until it is garbage-collected
        self.staged.discard()
        self._drop_replaced()
        if self._files is not None:
            self._files.discard()
        if self.bundle is not None:
            self.bundle.close()
        if self.dead_letters is not None:
            self.dead_letters.staged.discard()

    def append(self, rows: Any, *, count: int) -> None:
        """Write *rows*, which are *count* rows as lines (bytes) or as a table.

        Raises:
            FormatError: The format's code raised. `finish` and the constructor raise it, too.
        """
        self.rows_out += count
        if count:
            self.has_columns |= not self._format.keeps_schema or rows.num_columns > 0
            with writing_in(self._name):
                self._writer.append(self._listed(rows) if self._format.publishes_files else rows)

    def _listed(self, rows: bytes) -> bytes:
        """Write the files of *rows* to the bundle; return the lines that list them."""
        if self._files is None:
            self._files = _Files(self._stage_bundle(), self._stage_bundle())
        lines = []
        for line, data in frames(rows):
            lines.append(line)
            self._files.append(listed_in(line).path, data)
        return b"".join(lines)

    def _drop_replaced(self) -> None:
        for staged in self._replaced:
            staged.discard()

    def finish(self) -> PartFacts:
        """Write the end of the part, and compare the file with the counts of what was written.

        Called before the part is published, so that it detects a disk that lost bytes without an
        error.

        Raises:
            ShardFailedError: The size of the file or its number of rows differs from what was
                written.
        """
        with writing_in(self._name):
            self._writer.close()
        self._drop_replaced()
        if self.dead_letters is not None:
            self.dead_letters.staged.file.close()
        file = self.staged.file
        size = file.seek(0, io.SEEK_END)
        with writing_in(self._name):
            rows = self._format.rows_in_part(file)
        rows = self.rows_out if rows is None else rows
        if self._files is not None:
            self.bundle = self._files.finish(reopened(file))
        file.close()
        if (size, rows) != (self._counted.size, self.rows_out):
            raise ShardFailedError(
                f"the part has {size:,} bytes and {rows:,} rows where {self._counted.size:,} and "
                f"{self.rows_out:,} were written: check the worker's disk, then run `batchrunner retry SPEC`"
            )
        return PartFacts(size, self._counted.sha256(), self.write_id)


class _Files:
    """Writes the bundle of one attempt: the bytes of its files, one after the other; and their paths."""

    def __init__(self, staged: Staged, paths: Staged) -> None:
        self._staged, self._paths, self._size = staged, paths, 0

    def append(self, path: str, data: memoryview) -> None:
        self._paths.file.write(f"{path}\n".encode())  # a path has no line break in it
        self._staged.file.write(data)
        self._size += len(data)

    def finish(self, lines: BinaryIO | None) -> Bundle:
        """Return the bundle; *lines* is the part, open for reading.

        Raises:
            ShardFailedError: The size of the file differs from what was written.
        """
        file = self._staged.file
        size = file.seek(0, io.SEEK_END)
        data = reopened(file)
        file.close()
        self._paths.file.close()
        bundle = Bundle(self._staged, size, lines, data, self._paths)
        if size != self._size:
            bundle.discard()
            raise ShardFailedError(
                f"the bundle of its files has {size:,} bytes where {self._size:,} were written: check the "
                "worker's disk, then run `batchrunner retry SPEC`"
            )
        return bundle

    def discard(self) -> None:
        self._staged.discard()
        self._paths.discard()


@dataclass(frozen=True, slots=True)
class PartFacts:
    """The facts of a finished part, with the names of the fields of `Sentinel`."""

    bytes: int
    sha256: str
    write_id: str
