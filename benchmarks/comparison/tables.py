"""The tables of the README and of the page on the comparison: `python -m benchmarks.comparison.tables`.

They stand between `<!-- comparison -->` and `<!-- /comparison -->`, `<!-- comparison in short -->` and
`<!-- comparison in full -->` likewise; nothing in them is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.comparison.by_hand import BY_HAND, READ, RUN_BATCH
from benchmarks.comparison.contestants import CONTESTANTS
from benchmarks.comparison.scenarios import TITLES

CHECKOUT = Path(__file__).parents[2]
RESULTS = CHECKOUT / "benchmarks" / "results" / "comparison.json"
PAGES = (CHECKOUT / "README.md", CHECKOUT / "docs" / "explanation" / "comparison.md")
_IN_SUMMARY = ("bad row", "bad row, fixed", "killed", "again", "new file", "code", "killed, code")
_IN_SHORT = ("bad row", "killed", "new file", "code", "killed, code")
_COLUMNS_IN_SHORT = (
    "batchrunner",
    "Ray Data, CheckpointConfig",
    "datatrove",
    "Daft, checkpoint",
)
_REFUSED = 4

Results = Mapping[str, Any]
Outcome = Mapping[str, Any]


def in_short(results: Results) -> str:
    """Return the table of the README, to be read in ten seconds: what came of it, and no counts."""
    outcomes = {one["name"]: one["outcomes"] for one in results["contestants"]}
    rows = [
        [TITLES[key], *(_short(_summed(outcomes[name], key)) for name in _COLUMNS_IN_SHORT)]
        for key in _IN_SHORT
    ]
    return _table(["", *_COLUMNS_IN_SHORT], rows)


def summary(results: Results) -> str:
    """Return the first table of the page: a column for each contestant that can resume, or is safe."""
    named = [one.name for one in CONTESTANTS if one.in_summary]
    columns = [one for one in results["contestants"] if one["name"] in named]
    rows = [
        [TITLES[key], *(_summed(one["outcomes"], key) for one in columns), READ.get(key, "")]
        for key in _IN_SUMMARY
    ]
    return _table(["", *(one["name"] for one in columns), RUN_BATCH], rows)


def in_full(results: Results) -> str:
    """Return a table for each scenario, with every contestant that took part in it."""
    sections = []
    for key, title in TITLES.items():
        taking_part = [one for one in results["contestants"] if key in one["outcomes"]]
        rows = [_full(one["name"], one["outcomes"][key], key) for one in taking_part]
        sections.append(f"### {title}\n\n{_table(_HEADER, rows)}")
    return "\n".join([_settings(results), *sections])


def filled(page: str, results: Results) -> str:
    """Return *page* with what belongs between its markers."""
    for name, made in _MADE.items():
        between = rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"
        page = re.sub(between, partial(_always, made(results)), page, flags=re.DOTALL)
    return page


_MADE: Mapping[str, Callable[[Results], str]] = {
    "comparison in short": in_short,
    "comparison": summary,
    "comparison in full": in_full,
}


def main() -> None:
    """Write the tables into the pages."""
    results = json.loads(RESULTS.read_text())
    for path in PAGES:
        path.write_text(filled(path.read_text(), results))


_HEADER = (
    "contestant",
    "exit code",
    "rows missing",
    "rows twice",
    "result is null",
    "of the old code",
    "of the new code",
    "computed",
    "of these, again",
    "by hand",
)


def _full(name: str, outcome: Outcome, key: str) -> list[str]:
    found = outcome["found"]
    counts = [found[name] for name in ("lost", "doubled", "without_result", "old", "new")]
    return [
        name,
        str(outcome["exit_code"]),
        *(f"{count:,}" for count in (*counts, outcome["computed"], outcome["again"])),
        BY_HAND.get(name, {}).get(key, ""),
    ]


def _summed(outcomes: Mapping[str, Outcome], key: str) -> str:
    if key not in outcomes:
        return "not measured"
    text = _verdict(outcomes[key], key)
    tolerant = outcomes.get("bad row, tolerant") if key == "bad row" else None
    return f"{text}; with its option to go on: {_verdict(tolerant, key)}" if tolerant else text


def _always(text: str, _: re.Match[str]) -> str:
    return text


def _short(text: str) -> str:
    """Leave out what is in the full table: counts beside a verdict, and which rows are lacking."""
    text = re.sub(r"; [\d,]+ (computed again|rows missing)", "", text)
    text = re.sub(r"[\d,]+ rows of the old code, [\d,]+ of the new", "old and new code mixed", text)
    return text.replace("; nothing is changed", "").replace("goes on: each", "each")


def _verdict(outcome: Outcome, key: str) -> str:
    """Say what came of it; bold if a run that reported success left the output wrong."""
    found = outcome["found"]
    flaws = list(_flaws(found, key))
    code = outcome["exit_code"]
    if code == _REFUSED:
        return f"refused, exit {code}; nothing is changed"
    if code:
        return "; ".join([f"stops, exit {code}", *_missing(found)])
    text = ", ".join(flaws) or _good(found, key)
    again = f"; {outcome['again']:,} computed again" if outcome["again"] else ""
    return (f"**{text}**" if flaws else text) + again


def _good(found: Mapping[str, int], key: str) -> str:
    if key == "bad row":
        null = ", the bad one with null" if found["without_result"] else ", the bad one kept apart"
        return f"goes on: each other row once{null}"
    if "code" in key:
        return "each row once, all of the new code"
    return "each row once"


def _flaws(found: Mapping[str, int], key: str) -> Iterable[str]:
    yield from _missing(found)
    if found["doubled"]:
        yield f"{found['doubled']:,} rows twice"
    if found["old"] and found["new"]:
        yield f"{found['old']:,} rows of the old code, {found['new']:,} of the new"
    elif "code" in key and found["old"]:
        yield "all rows of the old code"
    if found["wrong"] or found["unreadable"]:
        yield f"{found['wrong'] + found['unreadable']:,} rows damaged"


def _missing(found: Mapping[str, int]) -> list[str]:
    return [f"{found['lost']:,} rows missing"] if found["lost"] else []


def _settings(results: Results) -> str:
    rows = [
        [
            one["name"],
            one["settings"],
            ", ".join(f"{name} {version}" for name, version in one["versions"].items()),
            f"{one['rows']:,} in {one['files']} files",
        ]
        for one in results["contestants"]
    ]
    return _table(["contestant", "as", "versions", "rows"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
