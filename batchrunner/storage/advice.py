"""Says how far a file will be read, so that a storage far away fetches no more than that."""

from __future__ import annotations

from typing import BinaryIO, Protocol, runtime_checkable


@runtime_checkable
class Advised(Protocol):
    """A file that reads ahead, but not far beyond what it is advised to."""

    def advise(self, stop: int) -> None:
        """Expect no read from the byte *stop* on, but for the end of a line. Any read stays right."""


def advise(file: BinaryIO, *, stop: int) -> None:
    """Advise *file* that it is read up to *stop*, if it cares."""
    if isinstance(file, Advised):
        file.advise(stop)
