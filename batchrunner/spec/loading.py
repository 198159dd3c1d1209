"""Turn the texts of a spec into a validated spec, or into one error with every problem."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

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
from batchrunner.spec.kept import kept_text
from batchrunner.spec.layers import Layers, Main, Variation, read_layers
from batchrunner.spec.merging import places_of
from batchrunner.spec.section import Section
from batchrunner.spec.tree import Node

AnySection = TypeVar("AnySection", bound=Section)

_NO_CAPABILITY = 'the key "capability" is missing: it names the code to run'


@dataclass(frozen=True, slots=True)
class SpecText:
    """The text that a spec was made from.

    Attributes:
        text: As written, with its `${VAR}`; secrets that were spelled out are `***`.
        from_environment: Paths of the values that refer to variables.
        pages: The texts that the spec is made of, to point into; none once it was changed in Python.
        places: Where in them each value is.
    """

    text: str
    from_environment: frozenset[Loc]
    pages: tuple[Page, ...] = field(default=(), repr=False)
    places: Node | None = field(default=None, repr=False)

    def changed(self, fields: Iterable[str]) -> SpecText:
        """Return the text of a copy with other *fields*: it ends with a comment that names them."""
        note = f"# changed in Python: {', '.join(sorted(fields))}\n"
        return SpecText(f"{self.text.rstrip()}\n{note}", self.from_environment)

    def refusal(self, loc: Loc, message: str) -> InvalidSpecError:
        """Return an error, *message* for the value at *loc*, with its line if `places` is set."""
        complaint = Complaint(loc, "value", f"{'.'.join(map(str, loc))}: {message}")
        if self.places is None:
            return InvalidSpecError(complaint.message)
        return diagnosis(_located([complaint], self.places), *self.pages)


def checked(
    model: type[AnySection], main: Main, *, environ: Mapping[str, str], variation: Variation
) -> tuple[AnySection, SpecText]:
    """Return the spec that *main*, varied, describes, and its `SpecText`.

    Raises:
        InvalidSpecError: The texts have problems: the error lists all.
    """
    # The parser drops the mark, and each column would be off by one.
    main = Main(main.text.lstrip("\ufeff"), main.origin)
    layers = read_layers(main, model=model, environ=environ, variation=variation)
    if layers.root is None:
        raise _no_mapping(layers)
    problems = [*layers.problems, *_without_capability(layers.root)]
    spec = None
    try:
        values: dict[str, Any] = {**layers.root.value}  # type: ignore[dict-item]
        if values.get("name") is None:
            values["name"] = _name(main.origin)
        spec = model.model_validate(values, context={UNBRACED: layers.unbraced})
    except ValidationError as error:
        problems += _located(complaints(error, model), layers.root)
    if spec is None or problems:
        # Raised out here, since pydantic's error as its cause would show every value.
        raise diagnosis(problems, *layers.pages)
    from_environment = frozenset(_from_environment(layers.root, model))
    kept = kept_text(layers, layers.root, variation)
    return spec, SpecText(kept, from_environment, layers.pages, places_of(layers.root))


def _no_mapping(layers: Layers) -> InvalidSpecError:
    if layers.problems:
        return diagnosis(layers.problems, *layers.pages)
    what = "is empty" if layers.is_empty else "holds no mapping at its top"
    name = visible(layers.pages[0].origin)
    return InvalidSpecError(f"{name}: {what}: write at least capability, source and sink")


def _name(origin: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(origin).stem)
    return re.sub(r"^[._-]+|[._-]+$", "", stem) or "batch"


def _without_capability(root: Node) -> Iterator[Problem]:
    written = root.children.get("capability")
    if written is None and not root.broken:
        yield Problem(root.start, _NO_CAPABILITY, root.layer)
    elif written and written.value is None and not written.broken:
        yield Problem(root.keys["capability"], _NO_CAPABILITY, written.layer)


def _located(refused: Iterable[Complaint], root: Node) -> Iterator[Problem]:
    for complaint in refused:
        node, key, layer, broken = root, root.start, root.layer, root.broken
        for step in complaint.loc:
            # A step may have no node: a short form omits its key, and a missing key is not written.
            if child := node.children.get(step):
                key = node.keys.get(str(step), child.start)
                node, layer, broken = child, child.layer, broken or child.broken
        if not broken:
            at = node.start if complaint.at == "value" else key
            yield Problem(at, complaint.message, layer)


def _from_environment(node: Node, model: type[BaseModel] | None, loc: Loc = ()) -> Iterator[Loc]:
    if node.from_environment:
        yield loc
    for step, child in node.children.items():
        field = model.model_fields.get(str(step)) if model else None
        section = section_of(field.annotation) if field else None
        omitted = _omitted(section, child.value)
        yield from _from_environment(child, section, (*loc, step, *([omitted] if omitted else [])))


def _omitted(section: type[BaseModel] | None, value: object) -> str | None:
    """Return the key that *value*, if it is a short form of *section*, leaves out."""
    if section is None or not issubclass(section, Section) or isinstance(value, dict):
        return None
    return section.short_field(value)
