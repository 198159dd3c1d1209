"""The page kit of reports: one HTML file that needs nothing else and asks nothing of any network.

The policy in the page allows the scripts and styles in it by their hashes, and nothing more. So a row
that became markup by a mistake of ours could still neither run nor send anything.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import orjson

from batchrunner.views.report_markup import Html, cut, el, join

_STYLES = ("uPlot.min.css", "report.css")
_SCRIPTS = ("uPlot.iife.min.js", "kit.js", "charts.js", "shard_map.js", "report.js")
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    '<rect width="16" height="16" rx="4" fill="{color}"/></svg>'
)
_TONES = {"good": "#1a7f64", "busy": "#2f6fb3", "warn": "#b26a00", "bad": "#c0392b"}


def page(*, title: str, tone: str, body: Iterable[str], data: Any) -> str:
    """Return a whole page: *body*, and *data* for its scripts, which they find packed in it.

    *tone* is good, busy, warn or bad; it colours the icon.
    """
    styles, scripts = _assets(_STYLES), _assets(_SCRIPTS)
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(styles, scripts)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el(
            "link", rel="icon", href=f"data:image/svg+xml,{quote(_ICON.format(color=_TONES[tone]))}"
        ),
        el("title", title),
        *(el("style", Html(text)) for text in styles),
    ]
    end = [
        el("script", Html(packed(data)), type="application/octet-stream", id="data"),
        *(el("script", Html(text)) for text in scripts),
    ]
    markup = el("html", el("head", *head), el("body", el("main", *body), *end), lang="en")
    return f"<!doctype html>\n{markup}\n"


def packed(data: Any) -> str:
    """Return *data* as JSON, deflated, in base64: 10,000 shards take 150 KB instead of 600."""
    return base64.b64encode(zlib.compress(orjson.dumps(data), 9)).decode()


def sources_hash() -> str:
    """Return a hash of all that decides how a report looks: the assets and the modules of reports."""
    here = files("batchrunner.views")
    modules = sorted(one.name for one in here.iterdir() if one.name.startswith("report_"))
    texts = [here.joinpath(name).read_bytes() for name in modules]
    texts += [text.encode() for text in _assets((*_STYLES, *_SCRIPTS))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


@cache
def _assets(names: Sequence[str]) -> tuple[str, ...]:
    folder = files("batchrunner.views").joinpath("assets")
    return tuple(folder.joinpath(name).read_text("utf-8") for name in names)


def _policy(styles: Iterable[str], scripts: Iterable[str]) -> str:
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_source, scripts))}",
            f"style-src {' '.join(map(_source, styles))}",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def section(title: str, *children: str, id_: str, note: str = "") -> Html:
    """Return a section under a heading; *note* stands beside the heading."""
    heading = el("h2", title, id=f"{id_}-title")
    small = el("p", note, class_="note") if note else Html()
    return el("section", heading, small, *children, id=id_, aria_labelledby=f"{id_}-title")


def command(line: str, *, label: str) -> Html:
    """Return a command to paste, with a button that copies it where scripts run."""
    button = el(
        "button", "Copy", type="button", class_="copy", hidden=True, aria_label=f"Copy: {line}"
    )
    return el("div", el("span", label, class_="label"), el("code", line), button, class_="command")


def quotation(text: str, *, most: int) -> Html:
    """Return *text* as it stands, its lines kept; of a long one, the first *most* characters."""
    return el("pre", el("bdi", cut(text.rstrip(), most)), tabindex=0)


def facts(pairs: Iterable[tuple[str, str]], *, class_: str = "facts") -> Html:
    """Return names and values."""
    each = (el("div", el("dt", name), el("dd", value)) for name, value in pairs)
    return el("dl", *each, class_=class_)


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, label: str, numbers: Iterable[int] = ()
) -> Html:
    """Return a table that scrolls within itself where it is wider than the screen.

    *numbers* are the columns to set flush right.
    """
    right = set(numbers)
    head = el("tr", *(_cell("th", text, n in right) for n, text in enumerate(heads)))
    body = (
        el("tr", *(_cell("td", text, n in right) for n, text in enumerate(row))) for row in rows
    )
    whole = el("table", el("thead", head), el("tbody", join(body)))
    return el("div", whole, class_="wide", role="region", tabindex=0, aria_label=label)


def _cell(tag: str, text: str, is_number: bool) -> Html:
    return el(
        tag, text, class_="number" if is_number else None, scope="col" if tag == "th" else None
    )


def chart(id_: str, *, label: str, caption: str, height: str = "") -> Html:
    """Return the place of a chart that a script draws; *caption* says in words what it shows."""
    place = el("div", class_=f"chart {height}".strip(), id=id_, role="img", aria_label=label)
    return el("figure", place, el("figcaption", caption, id=f"{id_}-caption"))
