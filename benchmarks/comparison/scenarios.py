"""The scenarios, in an order in which each starts from what the one before kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison.contestants import Contestant
from benchmarks.comparison.found import Found, found_in
from benchmarks.comparison.place import Folder, Job
from benchmarks.comparison.processes import Ended, Processes

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

TITLES = {
    "nothing": "Nothing happens",
    "bad row": "One row raises",
    "bad row, tolerant": "One row raises, with the option to go on",
    "bad row, fixed": "One row raised, the code is fixed, run again",
    "killed": "`kill -9` at half, run again",
    "again": "Run again when all is done",
    "new file": "A file is added to the source, run again",
    "code": "The code changes after the end, run again",
    "killed, code": "`kill -9` at half, the code changes, run again",
}
"""By key: what is done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario, after its last run.

    Attributes:
        exit_code: Of the last run.
        seconds: Of the last run, as a process, from start to exit.
        ratio: Those seconds by those of the contestant's first, undisturbed run.
        computed: Rows that the function was called with in the last run.
        again: Of these, those that it had been called with before.
        found: What the output holds.
        says: What the last run printed about its failure, if it failed.
    """

    exit_code: int
    seconds: float
    ratio: float
    computed: int
    again: int
    found: Found
    says: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Trial:
    """One contestant, in all scenarios."""

    def __init__(self, contestant: Contestant, *, job: Job, home: Path, python: Path) -> None:
        self._contestant, self._job = contestant, job
        self._folder = Folder(home, contestant=contestant, job=job)
        self._processes = Processes(home, contestant=contestant, python=python)
        self._first_seconds: float | None = None

    def outcomes(self) -> Iterator[tuple[str, Outcome]]:
        """Go through the scenarios; those that say so start from what an undisturbed run left."""
        self._folder.lay()
        yield "nothing", self._run()
        self._folder.keep()
        scenarios = {
            "again": self._again,
            "new file": self._new_file,
            "code": self._new_code,
            "killed": self._killed,
            "killed, code": self._killed_and_new_code,
            "bad row": self._bad_row,
            "bad row, fixed": self._fixed,
            "bad row, tolerant": self._tolerant,
        }
        for key, scenario in scenarios.items():
            if key in (self._contestant.scenarios or TITLES) and (outcome := scenario()):
                yield key, outcome

    def _again(self) -> Outcome:
        self._folder.go_back()
        return self._run(2)

    def _new_file(self) -> Outcome:
        self._folder.go_back()
        self._folder.add_file()
        rows = self._job.rows + self._job.rows_a_file
        return self._run(2, line=self._contestant.more, rows=rows)

    def _new_code(self) -> Outcome:
        self._folder.go_back()
        self._folder.change_code()
        return self._run(2)

    def _bad_row(self) -> Outcome:
        self._folder.lay()
        self._folder.spoil_a_row()
        return self._run(spoilt=True, without=True)

    def _fixed(self) -> Outcome:
        """Go on from the bad row."""
        self._folder.fix_code()
        return self._run(2, line=self._contestant.fixed, spoilt=True)

    def _tolerant(self) -> Outcome | None:
        if not self._contestant.tolerant:
            return None
        self._folder.lay()
        self._folder.spoil_a_row()
        return self._run(line=self._contestant.tolerant, spoilt=True, without=True)

    def _killed(self) -> Outcome:
        self._kill()
        return self._run(2)

    def _killed_and_new_code(self) -> Outcome:
        self._kill()
        self._processes.end_all()  # an edit takes longer than they live
        self._folder.change_code()
        return self._run(2)

    def _kill(self) -> None:
        self._folder.lay()
        self._processes.run_and_kill(self._folder.calls_folder(1), at=self._job.rows // 2)

    def _run(
        self,
        run: int = 1,
        *,
        line: str = "",
        rows: int = 0,
        spoilt: bool = False,
        without: bool = False,
    ) -> Outcome:
        """Start the line as run number *run* of this folder, and see what came of it."""
        line = line or self._contestant.line
        ended = self._processes.run(self._folder.calls_folder(run), line=line)
        self._processes.end_all()
        wanted = self._folder.wanted(rows or self._job.rows, spoilt=spoilt, without=without)
        table = self._contestant.is_table
        found = found_in(self._folder.home / "out", expected=wanted, is_table=table)
        return self._outcome(ended, run=run, found=found)

    def _outcome(self, ended: Ended, *, run: int, found: Found) -> Outcome:
        self._first_seconds = self._first_seconds or ended.seconds
        calls = self._folder.calls(run)
        earlier = [self._folder.calls(number) for number in range(1, run)]
        before = np.concatenate([np.array([], "<i8"), *earlier])
        fresh = np.setdiff1d(calls, before)
        return Outcome(
            exit_code=ended.code,
            seconds=round(ended.seconds, 2),
            ratio=round(ended.seconds / self._first_seconds, 2),
            computed=len(calls),
            again=len(calls) - len(fresh),
            found=found,
            says=_last_error(ended.talk).replace(str(self._folder.home), ".") if ended.code else "",
        )


def _last_error(talk: str) -> str:
    """Return the last line of *talk* that names an error, or else its last line."""
    plain = _COLOURS.sub("", talk).replace("\r", "\n")
    lines = [line.strip() for line in plain.splitlines() if line.strip() and "raylet" not in line]
    errors = [line for line in lines if re.search(r"Error\b", line)]
    return ["", *lines, *errors][-1][:300]
