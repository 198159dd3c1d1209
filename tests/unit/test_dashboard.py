"""The Grafana dashboard shows metrics that exist, and Grafana can load it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import batchrunner
from batchrunner.views.metrics import METRICS

DASHBOARD = json.loads((Path(batchrunner.__file__).parent / "dashboards/grafana.json").read_text())
PANELS = DASHBOARD["panels"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


def queries():
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])
    yield from (variable.get("definition", "") for variable in VARIABLES.values())


def test_each_metric_of_the_dashboard_is_one_that_a_run_sets():
    """A panel without data looks like a run without rows."""
    named = {name for query in queries() for name in re.findall(r"ray_(\w+)", query)}

    assert named <= METRICS.keys()
    assert METRICS.keys() - named == set()  # and each has its place


def test_each_panel_is_of_one_run():
    """Two runs added up are neither."""
    for panel in PANELS:
        for target in panel["targets"]:
            assert '{run="$run", run_uid="$run_uid"}' in target["expr"], panel["title"]
    assert {"datasource", "run", "run_uid"} == VARIABLES.keys()


def test_the_dashboard_has_what_grafana_asks_for():
    """Imported by hand, at night, it must load at the first try."""
    assert DASHBOARD["schemaVersion"] >= 36
    assert all(DASHBOARD[key] for key in ("title", "uid", "time", "templating", "panels"))
    assert "id" not in DASHBOARD  # of another Grafana's database
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel.keys() >= {"title", "gridPos", "targets", "fieldConfig", "options"}
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


def test_no_panel_covers_another():
    """Grafana would move it, and the picture of the docs would be another one."""
    cells = {panel["id"]: set(cells_of(panel["gridPos"])) for panel in PANELS}

    assert all(not one & other for one, other in combinations(cells.values(), 2))
    assert all(x < 24 for places in cells.values() for x, _ in places)


def cells_of(place):
    for x in range(place["x"], place["x"] + place["w"]):
        yield from ((x, y) for y in range(place["y"], place["y"] + place["h"]))


def test_the_page_lists_each_metric():
    """What is exported and not written down is found by accident."""
    page = (Path(__file__).parents[2] / "docs/how-to/metrics.md").read_text()

    for name in METRICS:
        assert f"`{name}`" in page or f"`{name.removeprefix('batchrunner')}`" in page, name
