"""Markup for pages made of hostile text: what is not markup already is escaped, wherever it is put."""

from __future__ import annotations

import html
from collections.abc import Iterable

_KEPT = "\n\t\u200c\u200d"
"""Not printable for Python, but harmless in a page; the last two join letters and emoji."""


class Html(str):
    """Markup. Any other text becomes markup by `el`, which escapes it."""

    __slots__ = ()


def el(tag: str, *children: str, **attributes: str | float | bool | None) -> Html:
    """Return the element *tag* with *children* and *attributes*.

    A child that is no `Html` is text: it is escaped, and what could reverse or hide its neighbours is
    shown as an escape. `class_` is `class`, `data_x` is `data-x`; an attribute that is None or False
    is left out.
    """
    written = "".join(
        _attribute(name, value)
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


_VOID = frozenset({"meta", "link", "br"})


def join(children: Iterable[str]) -> Html:
    """Return *children* one after another, as markup."""
    return Html("".join(child if isinstance(child, Html) else escaped(child) for child in children))


def escaped(text: str) -> Html:
    """Return *text* as markup that shows it: every sign of it, and nothing but it."""
    return Html(html.escape(shown(text)))


def shown(text: str) -> str:
    """Return *text* with an escape for each sign that could reverse or hide its neighbours."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def cut(text: str, most: int) -> str:
    """Return *text*, or its first *most* characters and how many there are.

    Fewer, where they would take more than twice as many bytes in a page.
    """
    left = 2 * most
    for number, char in enumerate(text):
        left -= len(escaped(char).encode())
        if number >= most or left < 0:
            return f"{text[:number]}… ({len(text):,} characters)"
    return text


def _visible(char: str) -> str:
    if char.isprintable() or char in _KEPT:
        return char
    return char.encode("unicode_escape").decode()


def _attribute(name: str, value: str | float | bool) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(str(value))}"'
