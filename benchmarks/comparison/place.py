"""The folder that a contestant works in, and what can be done to it between two runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.comparison.contestants import Contestant
from benchmarks.inputs import Row, rows, write_source

_JOBS = Path(__file__).parent / "jobs"
Ids = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Job:
    """How much there is to do.

    Attributes:
        rows: In all files together.
        files: How many.
    """

    rows: int
    files: int

    @property
    def rows_a_file(self) -> int:
        return self.rows // self.files

    @property
    def bad_row(self) -> int:
        """The id of the row that has no result, in the scenario that has one."""
        return self.rows // 2 + self.rows_a_file // 2


class Folder:
    """See above; `home` is where it is."""

    def __init__(self, home: Path, *, contestant: Contestant, job: Job) -> None:
        self.home, self._contestant, self._job = home, contestant, job
        self._kept = home.with_name(f"{home.name}-kept")

    def lay(self) -> None:
        """Begin with a source, the user's files, and nothing else."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        job, format_ = self._job, self._contestant.format
        write_source(self.home / "in", rows=job.rows, files=job.files, format=format_)
        for name in ("work.py", *self._contestant.files.split()):
            shutil.copy2(_JOBS / name, self.home)
        (self.home / "calls").mkdir()

    def keep(self) -> None:
        """Keep everything as it is now."""
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(self.home, self._kept)

    def go_back(self) -> None:
        """Have everything as it was kept."""
        shutil.rmtree(self.home)
        shutil.copytree(self._kept, self.home)

    def add_file(self) -> None:
        """Add a file to the source, behind all others."""
        suffix = self._contestant.format
        path = self.home / "in" / f"in-{self._job.files:05d}.{suffix}"
        self._write_rows(path, first=self._job.rows)

    def spoil_a_row(self) -> None:
        """Write a text into the source that the function refuses."""
        number = self._job.bad_row // self._job.rows_a_file
        path = self.home / "in" / f"in-{number:05d}.{self._contestant.format}"
        self._write_rows(path, first=number * self._job.rows_a_file)

    def change_code(self) -> None:
        """Change the function as an editor does."""
        path = self.home / "work.py"
        path.write_text(path.read_text().replace("VERSION = 1\n", "VERSION = 2\n"))

    def fix_code(self) -> None:
        """Let the function take the bad row."""
        path = self.home / "work.py"
        path.write_text(path.read_text().replace('if text.startswith("!"):', "if not text:"))

    def wanted(self, count: int, *, spoilt: bool, without: bool) -> list[Row]:
        """Return the first *count* rows of the source, *without* the bad one or with it *spoilt*."""
        found = rows(0, count)
        return [
            row
            for row in (self._spoilt(found) if spoilt else found)
            if not (without and row["id"] == self._job.bad_row)
        ]

    def calls_folder(self, run: int) -> Path:
        """Return where run number *run* of this folder's history notes its calls."""
        folder = self.home / "calls" / str(run)
        folder.mkdir(exist_ok=True)
        return folder

    def calls(self, run: int) -> Ids:
        """Return the ids that the function was called with in run number *run*."""
        noted = [np.fromfile(path, "<i8") for path in self.calls_folder(run).iterdir()]
        return np.concatenate([np.array([], "<i8"), *noted])

    def _write_rows(self, path: Path, *, first: int) -> None:
        found = list(self._spoilt(rows(first, self._job.rows_a_file)))
        if self._contestant.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(found), path)
        else:
            path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in found))

    def _spoilt(self, found: Iterator[Row]) -> Iterator[Row]:
        for row in found:
            bad = row["id"] == self._job.bad_row
            yield {**row, "text": f"!{row['text']}"} if bad else row
