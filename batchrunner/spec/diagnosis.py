"""Problems of a text, each with its place, its line and a caret under the culprit."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batchrunner.errors import InvalidSpecError, SpecProblem
from batchrunner.spec.secrets import HIDDEN, redact_uri

MAX_SHOWN = 100
"""Problems of one text that are told; the rest is counted."""

_WIDTH = 200
_BEFORE_CARET = 140

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        offset: The culprit's place, in characters from the start of the text.
        message: The fact and the way out; holds no value, which might be a secret.
    """

    offset: int
    message: str


@dataclass(frozen=True, slots=True)
class Page:
    """A text to point into.

    Attributes:
        origin: The file's name, as the user gave it.
        text: What the file holds.
        secrets: What is not to be shown, in offsets of *text*.
    """

    origin: str
    text: str
    secrets: Sequence[Span] = ()


def diagnosis(problems: Iterable[Problem], page: Page) -> InvalidSpecError:
    """Return the error that names every problem, in the order of the text, each once, counted."""
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem.offset)
    told = [_told(problem, page) for problem in ordered[:MAX_SHOWN]]
    if len(ordered) > MAX_SHOWN:
        told.append(f"... and {len(ordered) - MAX_SHOWN} more")
    count = f"{counted(len(ordered))} in {visible(page.origin)}"
    error = InvalidSpecError("\n".join([*told, count]))
    error.problems = tuple(
        SpecProblem(*place(page.text, problem.offset), visible(problem.message))
        for problem in ordered[:MAX_SHOWN]
    )
    return error


def counted(errors: int) -> str:
    """Return "1 error" or "7 errors"."""
    return "1 error" if errors == 1 else f"{errors} errors"


def place(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of *offset*, from 1, as editors count them."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def visible(text: str) -> str:
    """Return *text* with everything that could steer a terminal written as an escape."""
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def _told(problem: Problem, page: Page) -> str:
    line, column = place(page.text, problem.offset)
    before, after = _around(problem.offset, page)
    caret = "".join("\t" if char == "\t" else " " * cells(char) for char in before) + "^"
    where = f"{visible(page.origin)}:{line}:{column}"
    return f"{where}: {visible(problem.message)}\n  {before}{after}\n  {caret}"


def _around(offset: int, page: Page) -> tuple[str, str]:
    """Return what to show of the line before and from *offset*, at most `_WIDTH` characters."""
    start = page.text.rfind("\n", 0, offset) + 1
    end = page.text.find("\n", offset)
    end = len(page.text) if end < 0 else end
    end -= page.text[end - 1 : end] == "\r" and end > offset
    before = _shown(page, (max(start, offset - _WIDTH), offset))
    after = _shown(page, (offset, min(end, offset + _WIDTH)))
    if len(before) + len(after) <= _WIDTH and end - start <= _WIDTH:
        return before, after
    if len(before) > _BEFORE_CARET or offset - start > _WIDTH:
        before = "…" + before[-_BEFORE_CARET + 1 :]
    room = _WIDTH - len(before)
    return before, after if len(after) <= room else after[: room - 1] + "…"


def _shown(page: Page, span: Span) -> str:
    shown, at = [], span[0]
    for start, end in sorted(page.secrets):
        if end > at and start < span[1]:
            shown += [page.text[at : max(start, at)], HIDDEN]
            at = end
    return visible(redact_uri("".join(shown) + page.text[at : span[1]]))


def cells(char: str) -> int:
    """Return how many cells of a terminal *char* takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
