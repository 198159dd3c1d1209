"""Tables for a notebook: escaped, without scripts, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_CELL = "text-align:left;padding:2px 12px 2px 0;vertical-align:top;white-space:pre-wrap"
_FAINT = f"{_CELL};opacity:.7;font-weight:normal"


def facts_html(title: str, facts: Mapping[str, Any]) -> str:
    """Return *facts* as a table of names and values; an empty value is left out.

    No colour is set: text and background stay those of the page.
    """
    shown = {name: text for name, value in facts.items() if (text := _shown(value))}
    rows = (f"{_cell(name, 'th', _FAINT)}{_cell(text)}" for name, text in shown.items())
    return _table(title, rows)


def records_html(title: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> str:
    """Return *records* as a table with a head."""
    head = "".join(_cell(column, "th", _FAINT) for column in columns)
    rows = ("".join(_cell(_shown(value)) for value in record) for record in records)
    return _table(title, [head, *rows])


def _table(title: str, rows: Iterable[str]) -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div><strong>{escape(title)}</strong><table><tbody>{body}</tbody></table></div>"


def _cell(text: str, tag: str = "td", style: str = _CELL) -> str:
    return f'<{tag} style="{style}">{escape(text)}</{tag}>'


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
