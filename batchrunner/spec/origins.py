"""Where each value of a spec is from: a line of a file, a profile, an option, a variable, a default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchrunner.spec.diagnosis import Page, line_and_column, visible
from batchrunner.spec.tree import Node

DEFAULT = "default"
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)")

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins of the values of one spec.

    Attributes:
        pages: The texts that the spec is made of.
        places: Where in them each value is; None for a spec made in Python.
    """

    pages: Sequence[Page]
    places: Node | None

    def of(self, loc: Loc) -> str:
        """Return where the value at *loc* is from; of what a short form implies, the short form's."""
        node = self.places
        if node is None:
            return "Python"
        for depth, step in enumerate(loc, start=1):
            child = node.children.get(step)
            if child is None:
                stands_for_it = depth == len(loc) and depth > 1 and _is_short(node, loc)
                return self._said(node) if stands_for_it else DEFAULT
            node = child
        return self._said(node)

    def _said(self, node: Node) -> str:
        page = self.pages[node.layer]
        variables = list(dict.fromkeys(self._variables(node, page)))
        return ", ".join([_place(page, node), *(f"${{{name}}}" for name in variables)])

    def _variables(self, node: Node, page: Page) -> Iterator[str]:
        if node.from_environment:
            yield from _VARIABLE.findall(page.text[node.start : node.end])
        for child in node.children.values():
            yield from self._variables(child, self.pages[child.layer])


def _is_short(node: Node, loc: Loc) -> bool:
    """Return whether *node* is a bare value, of which *loc* is the field that it stands for."""
    return not node.keys and loc[-1] in {"uri", "stages" if node.children else "target"}


def _place(page: Page, node: Node) -> str:
    if page.is_option:
        return page.origin
    line, _ = line_and_column(page.text, node.start)
    where = f"{visible(page.origin)}:{line}"
    return f"profile {page.profile}, {where}" if page.profile else where


def leaves(value: Mapping[str, object], loc: Loc = ()) -> Iterator[tuple[Loc, object]]:
    """Yield path and value of all that is no mapping, or an empty one."""
    for key, inner in value.items():
        at = (*loc, key)
        if isinstance(inner, Mapping) and inner:
            yield from leaves(inner, at)
        else:
            yield at, inner
