"""A part being made: rows go in, bytes come out staged, counted and hashed on their way."""

from __future__ import annotations

import hashlib
import io
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from batchrunner.checkpoint import PlanFacts
from batchrunner.errors import ShardFailedError
from batchrunner.formats.naming import PARQUET
from batchrunner.storage import Staged
from batchrunner.worker.letters import DeadLetter

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.analytics import CompletedRun

FixSchema = Callable[["pa.Schema"], "pa.Schema"]
"""Given the schema of the first rows of a part, returns the one that all parts have."""


class CountedFile(io.RawIOBase):
    """A binary file, written front to back, that knows the size and hash of what went through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0
        self._leads_nowhere = False

    def lead_nowhere(self) -> None:
        """Swallow what comes from now on: a Parquet writer writes its footer when it is forgotten."""
        self._leads_nowhere = True

    def write(self, data: Any) -> int:
        if self._leads_nowhere:
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


class Writer(Protocol):
    """Turns what a capability returned, made ready for the sink, into the bytes of a part."""

    def append(self, rows: Any) -> None:
        """Add rows."""

    def close(self) -> None:
        """Write what is still held."""


class LinesWriter:
    """Writes JSON lines, compressed or not."""

    def __init__(self, file: CountedFile, *, compression: str) -> None:
        self._out: Any = file
        if compression != "none":
            import pyarrow as pa

            codec = {"gz": "gzip", "zst": "zstd"}[compression]
            self._out = pa.CompressedOutputStream(pa.PythonFile(file, "w"), codec)

    def append(self, rows: bytes) -> None:
        self._out.write(rows)

    def close(self) -> None:
        self._out.close()


class Part:
    """One attempt at one part.

    Attributes:
        staged: Where its bytes are.
        rows_in: Rows read so far.
        rows_out: Rows written so far.
        letters: The rows set aside so far; None as long as there is none.
        runs: To be recorded before it is published.
        source_hash: Of what was read, once all is; empty where none is kept.
    """

    def __init__(self, staged: Staged, facts: PlanFacts, *, fix_schema: FixSchema) -> None:
        self.staged, self.rows_in, self.rows_out = staged, 0, 0
        self.letters: Letters | None = None
        self.runs: list[CompletedRun] = []
        self.source_hash = ""
        self.write_id = uuid.uuid4().hex
        self._began = time.monotonic()
        self._is_parquet = facts.format == PARQUET
        self._counted = CountedFile(staged.file)
        self._writer = self._new_writer(facts, fix_schema)

    def _new_writer(self, facts: PlanFacts, fix_schema: FixSchema) -> Writer:
        if not self._is_parquet:
            return LinesWriter(self._counted, compression=facts.compression)
        from batchrunner.formats.parquet import ParquetPart

        return ParquetPart(self._counted, compression=facts.compression, fix_schema=fix_schema)

    def discard(self) -> None:
        """Give it all up."""
        self._counted.lead_nowhere()
        self.staged.discard()
        if self.letters is not None:
            self.letters.staged.discard()

    def append(self, rows: Any, *, count: int) -> None:
        """Add *count* rows, as lines or as a table."""
        self.rows_out += count
        if count:
            self._writer.append(rows)

    def finish(self) -> PartFacts:
        """Write the end, and look at what stands there before anyone relies on it.

        Raises:
            ShardFailedError: The bytes are not what was written.
        """
        self._writer.close()
        if self.letters is not None:
            self.letters.staged.file.close()
        file = self.staged.file
        size = file.seek(0, io.SEEK_END)
        rows = _rows_in_footer(file) if self._is_parquet else self.rows_out
        file.close()
        if (size, rows) != (self._counted.size, self.rows_out):
            raise ShardFailedError(
                f"the part has {size:,} bytes and {rows:,} rows where {self._counted.size:,} and "
                f"{self.rows_out:,} were written; look at the disk"
            )
        seconds = round(time.monotonic() - self._began, 3)
        return PartFacts(size, self._counted.sha256(), self.write_id, seconds)


class Letters:
    """The dead letters of one attempt, staged."""

    def __init__(self, staged: Staged) -> None:
        self.staged, self.count = staged, 0
        self._hash = hashlib.sha256()

    def append(self, letters: Iterable[DeadLetter]) -> None:
        """Add *letters*."""
        lines = [letter.to_line() for letter in letters]
        data = b"".join(lines)
        self.staged.file.write(data)
        self._hash.update(data)
        self.count += len(lines)

    def sha256(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a part once its bytes are complete; the words of `Sentinel`."""

    bytes: int
    sha256: str
    write_id: str
    seconds: float


def _rows_in_footer(file: BinaryIO) -> int:
    from batchrunner.formats.parquet import count_rows

    return count_rows(file)
