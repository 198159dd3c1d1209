"""Describes the problems of a spec: in our words, not pydantic's, with the line and a caret."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from batchrunner.errors import InvalidSpecError, SpecProblem
from batchrunner.spec.secrets import HIDDEN, redact_uri

MAX_SHOWN = 100
"""Most problems of one text that are shown; the rest is only counted."""

_WIDTH = 200
_BEFORE_CARET = 140
_MAX_KEY = 60

_PHRASES = {
    "bool_": "must be true or false",
    "dict_type": "must be a mapping",
    "finite_number": "must be finite",
    "float_": "must be a number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_": "must be a whole number",
    "literal_error": "must be {expected}",
    "model_": "must be a mapping",
    "string_type": "must be a string: put it in quotes",
    "string_unicode": "must be Unicode text",
    "too_long": "has too many items",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
"""Our wording, by the beginning of pydantic's error type."""

# So that `greater_than_equal` is not taken for `greater_than`.
_LONGEST_FIRST = sorted(_PHRASES, key=len, reverse=True)
_NOT_WRITTEN = {"<one>", "<several>", "<fixed>", "<range>", "[key]"}
"""Steps of pydantic's paths that are not keys in the spec: our tags in unions, and its `[key]`."""

_OF_FILES = ("extends", "profiles")
"""Keys at the top of a file that say what it is made of, and are no fields of the spec."""

LACKS_CODE: Final = "lacks_code"
"""pydantic's type of the error that a section lacks one of two keys."""

Loc = tuple[int | str, ...]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in the text of a spec.

    Attributes:
        offset: Its place, in characters from the start of the text.
        message: What is wrong and how to fix it; never a value, which might be a secret.
        layer: Number of the text, of those that make the spec.
    """

    offset: int
    message: str
    layer: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """The text of a spec, for messages to quote.

    Attributes:
        origin: The file's name, as the user gave it.
        text: The content of the file.
        secrets: Spans of *text* that are shown as `***`.
        profile: The profile of the file that the page stands for; "" for the file itself.
        is_option: The page is one option, `key=value`, which has no lines.
    """

    origin: str
    text: str
    secrets: Sequence[Span] = ()
    profile: str = ""
    is_option: bool = False


@dataclass(frozen=True, slots=True)
class Complaint:
    """A value or key that pydantic refused.

    Attributes:
        loc: Keys and indices from the top to the refused value, or to the section that lacks a key.
        at: What the caret marks: "value"; "key", if that is wrong; "section", if it lacks a key.
        message: The path and the problem; never a value.
    """

    loc: Loc
    at: str
    message: str


def diagnosis(problems: Iterable[Problem], *pages: Page) -> InvalidSpecError:
    """Return an error that lists all *problems* once, in the order of the text, and counts them.

    Args:
        problems: The problems, each in the page of its `layer`.
        pages: The texts of the spec; the first is the file that the user named.
    """
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: (problem.layer, problem.offset))
    shown = [(problem, pages[problem.layer]) for problem in ordered[:MAX_SHOWN]]
    paragraphs = [_rendered(problem, page) for problem, page in shown]
    if len(ordered) > MAX_SHOWN:
        paragraphs.append(f"... and {len(ordered) - MAX_SHOWN} more")
    files = {pages[problem.layer].origin for problem in ordered}
    is_one = len(files) == 1 and not any(pages[problem.layer].is_option for problem in ordered)
    where = files.pop() if is_one else pages[0].origin
    count = f"{counted(len(ordered))} in {visible(where)}"
    error = InvalidSpecError("\n".join([*paragraphs, count]))
    error.problems = tuple(_for_programs(problem, page) for problem, page in shown)
    return error


def _for_programs(problem: Problem, page: Page) -> SpecProblem:
    place = line_and_column(page.text, problem.offset)
    return SpecProblem.in_file(page.origin, place, visible(problem.message))


def complaints(error: ValidationError, model: type[BaseModel]) -> Iterator[Complaint]:
    """Yield a complaint for each problem in *error*, which pydantic raised for *model*."""
    for details in error.errors(include_url=False, include_input=False):
        kind, loc = details["type"], details["loc"]
        if kind == "missing" and isinstance(loc[-1], int):
            yield _complaint(_written(loc[:-1]), "value", "has too few items")
        elif kind == "missing":
            missing = f"the key {_quoted(loc[-1])} is missing"
            yield _complaint(_written(loc[:-1]), "section", missing)
        elif kind == LACKS_CODE:
            yield _complaint(_written(loc), "section", str(details["msg"]))
        elif kind == "extra_forbidden":
            # The message names the section, and the caret stands under the key.
            where = _written(loc[:-1])
            unknown = _complaint(where, "key", _unknown(str(loc[-1]), where, model))
            yield replace(unknown, loc=(*where, loc[-1]))
        else:
            yield _complaint(_written(loc), "value", _phrase(kind, details))


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model among the types of *annotation*, or None."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the pydantic model of *annotation*, or of the items of a list in it, or None."""
    within = map(_section_in, get_args(annotation))
    return section_of(annotation) or next(filter(None, within), None)


def counted(errors: int) -> str:
    """Return "1 error" or "7 errors"."""
    return "1 error" if errors == 1 else f"{errors} errors"


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of *offset*, from 1, as editors count them."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def visible(text: str) -> str:
    """Return *text* with everything that could steer a terminal written as an escape."""
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def cells(char: str) -> int:
    """Return how many cells of a terminal *char* takes."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the word of *known* that *name* was probably meant to be, or None."""
    import difflib  # slow to import, and only a typo needs it

    return next(iter(difflib.get_close_matches(name.lower()[:_MAX_KEY], known, n=1)), None)


def _rendered(problem: Problem, page: Page) -> str:
    line, column = line_and_column(page.text, problem.offset)
    before, after = _around(problem.offset, page)
    # Tabs stay tabs and wide characters take two cells, so that the caret stands under its target.
    caret = "".join("\t" if char == "\t" else " " * cells(char) for char in before) + "^"
    where = visible(page.origin) if page.is_option else f"{visible(page.origin)}:{line}:{column}"
    return f"{where}: {visible(problem.message)}\n  {before}{after}\n  {caret}"


def _around(offset: int, page: Page) -> tuple[str, str]:
    """Return the line's text before and after *offset*, cut to `_WIDTH` characters together."""
    start = page.text.rfind("\n", 0, offset) + 1
    end = page.text.find("\n", offset)
    end = len(page.text) if end < 0 else end
    end -= page.text[end - 1 : end] == "\r" and end > offset
    # Only what is near is read and redacted: a line may be as long as the file.
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


def _written(loc: Loc) -> Loc:
    return tuple(step for step in loc if step not in _NOT_WRITTEN)


def _complaint(where: Loc, at: str, what: str) -> Complaint:
    path = ".".join(str(step)[:_MAX_KEY] for step in where)
    return Complaint(where, at, f"{path}: {what}" if path else what)


def _phrase(kind: str, details: Any) -> str:
    prefix = next((prefix for prefix in _LONGEST_FIRST if kind.startswith(prefix)), None)
    if prefix is None:
        return str(details["msg"])
    return _PHRASES[prefix].format_map({**details.get("ctx", {})})


def _unknown(key: str, parents: Loc, model: type[BaseModel]) -> str:
    if key in _OF_FILES:
        return f"unknown key {_quoted(key)}; it stands at the top of a file only"
    section: type[BaseModel] | None = model
    for parent in parents:
        if not isinstance(parent, int):  # an item of a list is of the section that the list is of
            section = section and _section_in(_fields(section).get(parent))
    allowed = list(_fields(section)) if section else []
    near = nearest(key, allowed if parents else [*allowed, *_OF_FILES])
    # Prefer an exact match in another section to a near one here: the key is at the wrong level.
    elsewhere = [path for path in _paths(model) if path.rpartition(".")[2] == key]
    hint = f"known here: {', '.join(allowed)}"
    if near or elsewhere:
        best = [*elsewhere, near][0]
        hint = f"did you mean {_quoted(best)}?"
        if parents and best == key:
            hint = "it stands at the top of the spec"
    return f"unknown key {_quoted(key)}; {hint}"


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _paths(model: type[BaseModel]) -> Iterator[str]:
    for name, annotation in _fields(model).items():
        yield name
        if section := section_of(annotation):
            yield from (f"{name}.{path}" for path in _paths(section))


def _quoted(key: object) -> str:
    return json.dumps(redact_uri(str(key))[:_MAX_KEY], ensure_ascii=False)
