"""What the scripts of a report draw: small columns, never more than a page can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchrunner.views.report_cells import STATE_WORDS, Cell, ShardState, cells_of, group_for
from batchrunner.views.report_data import RunReport
from batchrunner.views.report_histogram import histogram_of
from batchrunner.views.report_lanes import Block, lanes_of
from batchrunner.views.report_markup import shown
from batchrunner.views.report_page import packed
from batchrunner.views.report_times import Axis, gaps_of, rates_of, timed

_NAME, _WHY = 60, 300


def drawing_of(report: RunReport, *, most: int = 300_000) -> dict[str, Any]:
    """Return the data for the scripts of the page of *report*.

    The map has a cell for each shard, or, where they are too many or too different to fit into
    *most* bytes, for several.
    """
    rest = {"time": _time(report), "histogram": _histogram(report)}
    group = group_for(len(report.shards))
    while True:
        cells = cells_of(report.shards, group=group)
        drawing = {**rest, "map": _map(cells, report.axis, group=group)}
        if len(cells) <= 1 or len(packed(drawing)) <= most:
            return drawing
        group *= 2


def _time(report: RunReport) -> dict[str, Any] | None:
    sentinels, axis = timed(report.documents.sentinels.values()), report.axis
    if not sentinels:
        return None
    rates, lanes = rates_of(axis, sentinels), lanes_of(axis, sentinels)
    began = [(s.number, axis.at(s.began)) for s in report.sessions if s.began and s.kind == "run"]
    return {
        "length": _short(axis.length),
        "spans": [[span.start, span.stop, span.at] for span in axis.spans],
        "gaps": gaps_of(axis),
        "sessions": began,
        "step": rates.step,
        "x": [_short(x) for x in rates.x],
        "y": [None if y is None else _short(y) for y in rates.y],
        "workers": [shown(worker)[-_NAME:] for worker in lanes.workers],
        "left_out": lanes.left_out,
        "blocks": _blocks(lanes.blocks, report),
        "failures": [[lane, _short(at)] for lane, at in lanes.failures],
    }


def _blocks(blocks: Sequence[Block], report: RunReport) -> dict[str, list[Any]]:
    now = {shard.id for shard in report.shards if shard.state is ShardState.NOW}
    return {
        "lane": [block.lane for block in blocks],
        "start": [_short(block.start) for block in blocks],
        "stop": [_short(block.stop) for block in blocks],
        "shards": [block.shards for block in blocks],
        "shard": [block.shard for block in blocks],
        "failed": [block.failed for block in blocks],
        "now": [int(block.shard in now) for block in blocks],
    }


def _histogram(report: RunReport) -> dict[str, Any] | None:
    histogram = histogram_of(sentinel.seconds for sentinel in report.documents.sentinels.values())
    if histogram is None:
        return None
    return {"edges": [_short(e) for e in histogram.edges], "counts": histogram.counts}


def _map(cells: Sequence[Cell], axis: Axis, *, group: int) -> dict[str, Any]:
    shards = [cell.example for cell in cells]
    sources = {uri: n for n, uri in enumerate(dict.fromkeys(shard.source for shard in shards))}
    return {
        "group": group,
        "words": {str(state): word for state, word in STATE_WORDS.items()},
        "states": "".join(cell.state for cell in cells),
        "first": [cell.shards[0].id for cell in cells],
        "count": [len(cell.shards) for cell in cells] if group > 1 else [],
        **_sums(cells),
        "session": [shard.session for shard in shards],
        "began": [_short(axis.at(shard.began)) if shard.began else None for shard in shards],
        "slicing": [shard.slicing for shard in shards],
        "start": [shard.start for shard in shards],
        "length": [shard.stop - shard.start for shard in shards],
        "source": [sources[shard.source] for shard in shards],
        "sources": [_tail(uri) for uri in sources],
        "why": {
            str(n): shown(shard.why[:_WHY])[:_WHY] for n, shard in enumerate(shards) if shard.why
        },
    }


def _sums(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    return {
        "rows_in": [sum(shard.rows_in for shard in cell.shards) for cell in cells],
        "rows_out": [sum(shard.rows_out for shard in cell.shards) for cell in cells],
        "failed": [sum(shard.rows_failed for shard in cell.shards) for cell in cells],
        "seconds": [_short(sum(shard.seconds for shard in cell.shards)) for cell in cells],
    }


def _tail(uri: str) -> str:
    uri = shown(uri)
    return uri if len(uri) <= _NAME else f"…{uri[-_NAME:]}"


def _short(number: float) -> float:
    """Return *number* with as many digits as a screen can show."""
    return round(number, 2) if abs(number) >= 10 else round(number, 4)
