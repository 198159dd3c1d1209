"""The layers, as a test: a module may import only from layers below its own."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "batchrunner"

LAYERS = [  # lowest first; units that share a line do not know each other
    {"errors", "user_code"},
    {"capability", "shard"},
    {"spec", "storage"},
    {"formats"},
    {"checkpoint", "analytics"},
    {"worker"},
    {"plan", "execute", "session", "progress"},
    {"recording", "packages"},
    {"opening", "finishing", "driving", "report", "set_aside", "status", "logs"},
    {"runner", "verify", "leftovers"},
    {"jobs"},
    {"cli"},
    {"__init__", "__main__", "testing"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
RAY_USERS = {"execute", "jobs"}
PIPE_ENDS = {PACKAGE / "worker" / "isolated.py"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def units_imported_by(path):
    ours = (name.split(".")[1:2] for name in imports(path) if name.split(".")[0] == "batchrunner")
    return {unit for names in ours for unit in names}


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path):
    """A module knows only the layers below it."""
    unit = unit_of(path)
    not_below = {u for u in units_imported_by(path) - {unit} if RANK.get(u, 99) >= RANK[unit]}

    assert unit in ("__init__", "testing") or not_below == set()


def test_only_the_driver_side_knows_ray():
    """The worker, and everything it stands on, runs in any engine."""
    users = {
        unit_of(path) for path in modules() if "ray" in {n.split(".")[0] for n in imports(path)}
    }

    assert users == RAY_USERS


def test_nothing_imports_the_testing_package():
    """What ships for tests is not part of the product."""
    assert not {path for path in modules() if "testing" in units_imported_by(path)} - {
        path for path in modules() if unit_of(path) == "testing"
    }


def test_every_unit_has_a_layer():
    """A new module has a place, or the map is wrong."""
    assert {unit_of(path) for path in modules()} == RANK.keys()


def test_yaml_and_pickle_are_loaded_in_few_places():
    """Nothing read from a checkpoint, a sink or a store is ever unpickled.

    What `execute` and `jobs` unpickle came through Ray, from a process of the same
    user; what the worker does, by a pipe.
    """
    for path in modules():
        names = set(imports(path))
        assert "pickle" not in names or unit_of(path) in RAY_USERS or path in PIPE_ENDS, path
        assert "yaml" not in names or unit_of(path) == "spec", path
