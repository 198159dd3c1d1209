"""The last lines of a terminal, which are drawn again and again; text goes above them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

_CLEAR_DOWN = "\x1b[J"
_CLEAR_LINE = "\x1b[K"


@dataclass(frozen=True, slots=True)
class DrawnLine:
    """A line as it is sent to the terminal.

    Attributes:
        text: The line with its colours.
        cells: How many cells it takes.
    """

    text: str
    cells: int


class Region:
    """Draws lines at the end of a terminal. Not safe in several threads: its owner has a lock.

    The cursor stays visible, at the beginning of the line below: so no death of this process, SIGKILL
    included, leaves a terminal without one, and `^C` is echoed where it is erased. Each change is one
    write, so that text of another process does not come between.

    Attributes:
        drawn: The lines that are drawn now.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.drawn: Sequence[DrawnLine] = ()

    def size(self) -> tuple[int, int]:
        """Return how many columns and lines can be drawn in.

        The last column stays free, since terminals differ in where the cursor is after it; of the lines,
        one stays for the cursor and one for the text above.
        """
        try:
            columns, lines = os.get_terminal_size(self._file.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        fallback = shutil.get_terminal_size()
        return (columns or fallback.columns) - 1, (lines or fallback.lines) - 2

    def draw(self, lines: Sequence[DrawnLine], *, above: str = "") -> None:
        """Draw *lines* in place of those before, below the whole lines of text *above*.

        Raises:
            OSError: The terminal is gone.
        """
        # Overwritten, not erased and written: that would flicker.
        begin = self.to_top() + (f"{_CLEAR_DOWN}{above}" if above else "")
        shown = "".join(f"{line.text}{_CLEAR_LINE}\n" for line in lines)
        self._file.write(f"{begin}{shown}{_CLEAR_DOWN}")
        self._file.flush()
        self.drawn = lines

    def forget(self) -> None:
        """Leave what is drawn where it is: the cursor is no longer below it."""
        self.drawn = ()

    def to_top(self) -> str:
        """Return the codes that move the cursor to the first line drawn."""
        columns = self.size()[0] + 1
        # A terminal that became narrower has broken the lines that are too long for it now.
        lines = sum(max(1, -(-line.cells // columns)) for line in self.drawn)
        return f"\r\x1b[{lines}A" if lines else "\r"

    def erasing(self) -> str:
        """Return the codes that erase what is drawn."""
        return f"{self.to_top()}{_CLEAR_DOWN}"

    def is_in_front(self) -> bool:
        """Return whether this process may draw: not in the background, where a shell has its prompt."""
        try:
            return os.tcgetpgrp(self._file.fileno()) == os.getpgrp()
        except (OSError, ValueError):  # no controlling terminal: there is no shell to disturb
            return True
