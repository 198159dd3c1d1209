"""The layers, as a test: a module may import only from layers below its own."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "batchrunner"

LAYERS = [  # lowest first; rooms that share a line do not know each other
    {"array_buffers", "errors", "user_code"},
    {"templates"},
    {"capability", "shard"},
    {"formats", "storage", "hooks"},
    {"spec"},
    {"checkpoint", "analytics", "capabilities"},
    {"worker"},
    {"driver", "execute"},
    {"views"},
    {"runner", "verify", "doctor"},
    {"jobs"},
    {"cli"},
    {"__init__", "__main__", "testing"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
RAY_USERS = {"execute", "jobs"}
PIPE_ENDS = {PACKAGE / "worker" / "call_process.py"}
UNNAMED_FILES = {PACKAGE / "worker" / "answer_packs.py"}


TEMPLATES = PACKAGE / "templates"


def modules():
    """All but the files that `init` copies: those are the user's, who imports all there is."""
    return [p for p in sorted(PACKAGE.rglob("*.py")) if TEMPLATES not in p.parents[1:]]


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def rooms_imported_by(path):
    ours = (name.split(".")[1:2] for name in imports(path) if name.split(".")[0] == "batchrunner")
    return {room for names in ours for room in names}


def imported_from_above(path):
    room = room_of(path)
    return {
        other for other in rooms_imported_by(path) - {room} if RANK.get(other, 99) >= RANK[room]
    }


def test_imports_point_downwards():
    """A module knows only the layers below it."""
    offenders = {
        path.relative_to(PACKAGE).as_posix(): not_below
        for path in modules()
        if room_of(path) not in ("__init__", "testing") and (not_below := imported_from_above(path))
    }

    assert offenders == {}


def test_only_the_driver_side_knows_ray():
    """The worker, and everything it stands on, runs in any engine."""
    users = {
        room_of(path) for path in modules() if "ray" in {n.split(".")[0] for n in imports(path)}
    }

    assert users == RAY_USERS


def test_nothing_imports_the_testing_package():
    """What ships for tests is not part of the product."""
    assert not {path for path in modules() if "testing" in rooms_imported_by(path)} - {
        path for path in modules() if room_of(path) == "testing"
    }


def test_every_room_has_a_layer():
    """A new module has a place, or the map is wrong."""
    assert {room_of(path) for path in modules()} == RANK.keys()


def test_yaml_and_pickle_are_loaded_in_few_places():
    """Nothing read from a checkpoint, a sink or a store is ever unpickled.

    What `execute` and `jobs` unpickle came through Ray, from a process of the same
    user; what the worker does, by a pipe, or from a file without a name of the same process.
    """
    allowed = PIPE_ENDS | UNNAMED_FILES
    for path in modules():
        names = set(imports(path))
        assert "pickle" not in names or room_of(path) in RAY_USERS or path in allowed, path
        assert "yaml" not in names or room_of(path) == "spec", path


def compared_with(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            yield from (one.value for one in ast.walk(node) if isinstance(one, ast.Constant))


def test_only_formats_asks_which_format_a_file_has():
    """A new format is one file: nothing else has to hear of it. `cli` prints in some of its own."""
    offenders = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if room_of(path) not in ("formats", "cli") and {"jsonl", "parquet"} & {*compared_with(path)}
    }

    assert offenders == set()


def test_second_readers_share_no_code_with_the_first():
    """A count by the code that wrote the rows is no second opinion."""
    shared = {f"batchrunner.{name}" for name in ("formats.contract", "formats.chunk", "shard")}
    readers = [path for path in modules() if path.stem.endswith("_second_reader")]

    assert {"jsonl_second_reader", "parquet_second_reader"} <= {path.stem for path in readers}
    shared |= {f"batchrunner.formats.{path.stem}" for path in readers}  # with each other, they may
    for path in readers:
        ours = {name for name in imports(path) if name.split(".")[0] == "batchrunner"}
        assert ours <= shared, path
