"""Turn a file or a text into a validated spec, or into one error with every problem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.diagnosis import (
    Complaint,
    Loc,
    Page,
    Problem,
    complaints,
    diagnosis,
    section_of,
    visible,
)
from batchrunner.spec.fields import UNBRACED
from batchrunner.spec.secrets import HIDDEN
from batchrunner.spec.section import Section
from batchrunner.spec.text import read_document
from batchrunner.spec.tree import MAX_CHARACTERS, Node, ParsedText

AnySection = TypeVar("AnySection", bound=Section)

_REFERENCE = re.compile(r"""(["']?)\$\{\w+(:\?[^}]*)?\}\1""")
_NO_CAPABILITY = 'the key "capability" is missing: it names the code to run'


@dataclass(frozen=True, slots=True)
class SpecText:
    """The text that a spec was made from.

    Attributes:
        text: As written, with its `${VAR}`; secrets that were spelled out are `***`.
        from_environment: Paths of the values that refer to variables.
        page: The file's name and its content, to point into; None once the spec was changed in Python.
    """

    text: str
    from_environment: frozenset[Loc]
    page: Page | None = field(default=None, repr=False)

    def changed(self, fields: Iterable[str]) -> SpecText:
        """Return the text of a copy with other *fields*: it ends with a comment that names them."""
        note = f"# changed in Python: {', '.join(sorted(fields))}\n"
        return SpecText(f"{self.text.rstrip()}\n{note}", self.from_environment)

    def refusal(self, loc: Loc, message: str) -> InvalidSpecError:
        """Return an error, *message* for the value at *loc*, with its line if `page` is set."""
        complaint = Complaint(loc, "value", f"{'.'.join(map(str, loc))}: {message}")
        if self.page is None:
            return InvalidSpecError(complaint.message)
        document = read_document(self.page.text, origin=self.page.origin, environ={})
        problems = _located([complaint], document.root) if document.root else ()
        return diagnosis(problems, self.page)


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of the file at *path*, which may have at most 1 MiB.

    Raises:
        InvalidSpecError: It cannot be read, is larger, or is not UTF-8.
    """
    name = visible(os.fsdecode(path))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "this is no file's name"
        raise InvalidSpecError(f"{name}: the spec cannot be read: {reason}") from error
    if len(data) > MAX_CHARACTERS:
        raise InvalidSpecError(f"{name}: larger than 1 MiB: a spec names data, it holds none")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name}: not UTF-8 from byte {error.start} on: save it as UTF-8"
        raise InvalidSpecError(message) from error


def checked(
    model: type[AnySection], text: str, *, origin: str, environ: Mapping[str, str]
) -> tuple[AnySection, SpecText]:
    """Return the spec that *text* describes, and its `SpecText`.

    Raises:
        InvalidSpecError: The text has problems: the error lists all.
    """
    text = text.lstrip("\ufeff")  # the parser drops it, and each column would be off by one
    document = read_document(text, origin=origin, environ=environ)
    if document.root is None or not isinstance(document.root.value, dict):
        raise _no_mapping(document)
    problems = [*document.problems, *_without_capability(document.root)]
    spec = None
    try:
        values = {"name": _name(origin), **document.root.value}
        spec = model.model_validate(values, context={UNBRACED: document.unbraced})
    except ValidationError as error:
        problems += _located(complaints(error, model), document.root)
    if spec is None or problems:
        # Raised out here, since pydantic's error as its cause would show every value.
        raise diagnosis(problems, document.page)
    from_environment = frozenset(_from_environment(document.root, model))
    return spec, SpecText(_without_secrets(document.page), from_environment, document.page)


def _without_secrets(page: Page) -> str:
    """Return the text of *page* with `"***"` for each literal secret; a `${VAR}` stays."""
    parts, at = [], 0
    for start, end in sorted(page.secrets):
        secret = page.text[start:end].rstrip()  # the span of a block ends after its line break
        if start >= at and not _REFERENCE.fullmatch(secret):
            parts += [page.text[at:start], f'"{HIDDEN}"']
            at = start + len(secret)
    return "".join(parts) + page.text[at:]


def _no_mapping(document: ParsedText) -> InvalidSpecError:
    if document.problems:
        return diagnosis(document.problems, document.page)
    empty = document.root is None or document.root.value is None
    what = "is empty" if empty else "holds no mapping at its top"
    name = visible(document.page.origin)
    return InvalidSpecError(f"{name}: {what}: write at least capability, source and sink")


def _name(origin: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(origin).stem)
    return re.sub(r"^[._-]+|[._-]+$", "", stem) or "batch"


def _without_capability(root: Node) -> Iterator[Problem]:
    written = root.children.get("capability")
    if written is None and not root.broken:
        yield Problem(root.start, _NO_CAPABILITY)
    elif written and written.value is None and not written.broken:
        yield Problem(root.keys["capability"], _NO_CAPABILITY)


def _located(refused: Iterable[Complaint], root: Node) -> Iterator[Problem]:
    for complaint in refused:
        node, key, broken = root, root.start, root.broken
        for step in complaint.loc:
            # A step may have no node: a short form omits its key, and a missing key is not written.
            if child := node.children.get(step):
                key = node.keys.get(str(step), child.start)
                node, broken = child, broken or child.broken
        if not broken:
            yield Problem(node.start if complaint.at == "value" else key, complaint.message)


def _from_environment(node: Node, model: type[BaseModel] | None, loc: Loc = ()) -> Iterator[Loc]:
    if node.from_environment:
        yield loc
    for step, child in node.children.items():
        field = model.model_fields.get(str(step)) if model else None
        section = section_of(field.annotation) if field else None
        bare = section is not None and not isinstance(child.value, dict)
        omitted = getattr(section, "stands_for", None) if bare else None
        yield from _from_environment(child, section, (*loc, step, *([omitted] if omitted else [])))
