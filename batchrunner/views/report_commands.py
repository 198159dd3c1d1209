"""The commands that a report names, written so that they can be pasted."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from batchrunner.views.report_reading import RunFacts

UNKNOWN = "SPEC"
"""Stands for a spec whose place is not known."""


@dataclass(frozen=True, slots=True)
class NextStep:
    """A command, and when to run it."""

    label: str
    command: str


@dataclass(frozen=True, slots=True)
class CommandNames:
    """How commands name a run.

    Attributes:
        spec: The spec, as it is written on a command line; `SPEC` if its place is not known.
        any: What `status`, `errors`, `logs` and `report` take: the spec, or the checkpoint.
        folder: The folder that *spec* is relative to, written for a shell; empty for the current one.
    """

    spec: str
    any: str
    folder: str = ""

    @classmethod
    def of(cls, documents: RunFacts, *, spec: str = "") -> CommandNames:
        """Return the names of a run; *spec* is written for a shell.

        Without a *spec*, it is the one that the last session was started with, in its folder.
        """
        if spec:
            return cls(spec, spec)
        uri, (started_with, folder) = shlex.quote(documents.uri), documents.started_with
        return cls(started_with or UNKNOWN, uri, shlex.quote(folder) if folder else "")

    def on_spec(self, command: str) -> str:
        """Return the line for a *command* that takes a spec alone."""
        line = f"batchrunner {command} {self.spec}"
        return f"cd {self.folder} && {line}" if self.folder else line

    def on_any(self, command: str) -> str:
        """Return the line for a *command* that takes a spec or a checkpoint."""
        return f"batchrunner {command} {self.any}"
