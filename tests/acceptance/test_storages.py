"""A storage that is no part of the package: named in a spec, and found by every process that needs it."""

import json
import re
import sys
from pathlib import Path

import pytest

from batchrunner.errors import CannotStartError, InvalidSpecError
from batchrunner.spec import SinkSpec
from batchrunner.storage import open_storage, register
from batchrunner.storage.schemes import SCHEMES
from builders import a_source, write_jsonl
from command import ENVIRONMENT, a_spec_file, batchrunner

PAGE = Path(__file__).parents[2] / "docs/how-to/write-a-storage.md"


@pytest.fixture
def package(tmp_path):
    """The storage of the page, installed as a package is: with an entry point, on the path."""
    folder = tmp_path / "site"
    (folder / "sqlite_storage-1.dist-info").mkdir(parents=True)
    code = re.search(
        r"^```python file=sqlite_storage\.py\n(.*?)^```$",
        PAGE.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    (folder / "sqlite_storage.py").write_text(code[1])
    metadata = "Metadata-Version: 2.1\nName: sqlite-storage\nVersion: 1\n"
    (folder / "sqlite_storage-1.dist-info/METADATA").write_text(metadata)
    entry_point = "[batchrunner.storages]\nsqlite = sqlite_storage:open_sqlite\n"
    (folder / "sqlite_storage-1.dist-info/entry_points.txt").write_text(entry_point)
    return folder


@pytest.fixture
def registry():
    """The registry, as it was before when the test is over."""
    before = dict(SCHEMES)
    yield SCHEMES
    SCHEMES.clear()
    SCHEMES.update(before)


@pytest.mark.parametrize(
    "engine", ["local", pytest.param("ray", marks=pytest.mark.ray)], ids=["local", "ray"]
)
def test_a_run_on_a_storage_from_outside_is_run_resumed_and_verified(tmp_path, package, engine):
    """By the command line and, on Ray, in workers: processes in which nothing was registered."""
    a_source(tmp_path / "in", shards=2)
    sink = {"uri": "sqlite://box/out", "storage_options": {"file": str(tmp_path / "store.db")}}
    spec = a_spec_file(tmp_path, sink=sink, execution={"engine": engine})
    path = {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{package}"}

    def done(*arguments):
        process = batchrunner(*arguments, spec, cwd=tmp_path, **path)
        assert process.returncode == 0, process.stderr
        return process.stdout

    done("validate")
    done("run")
    write_jsonl(tmp_path / "in/in-9.jsonl", [{"id": 9, "text": "late"}])
    assert json.loads(done("run", "-o", "json"))["shards_new"] == 1
    done("verify")


def test_a_scheme_is_registered_for_the_spec_and_for_opening_at_once(
    tmp_path, package, registry, monkeypatch
):
    """One registry: what can be opened can be named, and the opener is imported when it is needed."""
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.delitem(sys.modules, "sqlite_storage", raising=False)  # by another test
    with pytest.raises(InvalidSpecError, match=r"not supported \(shelf://\).*`shelf` in the group"):
        SinkSpec(uri="shelf://box/a")

    register("shelf", "sqlite_storage:open_sqlite")
    register("shelf", "sqlite_storage:open_sqlite")

    assert SinkSpec(uri="SHELF://box//a/").uri == "shelf://box/a"
    assert "sqlite_storage" not in sys.modules
    storage = open_storage("shelf://box/a", storage_options={"file": str(tmp_path / "a.db")})
    assert storage.uri == "sqlite://box/a"


@pytest.mark.parametrize("scheme", ["s3", "S3A", "file", "no scheme", ""])
def test_a_scheme_that_is_taken_or_malformed_is_not_registered(registry, scheme):
    """Otherwise one process would read from another place than the next."""
    with pytest.raises(ValueError, match=r"opener already|is not a scheme"):
        register(scheme, "sqlite_storage:open_sqlite")


def test_an_opener_that_is_not_installed_is_named(registry):
    """On a worker, most likely."""
    register("shelf", "no_such_module:open_shelf")

    with pytest.raises(CannotStartError, match=r"no_such_module:open_shelf.*where the workers run"):
        open_storage("shelf://box")


@pytest.mark.parametrize(
    ("opener", "says"),
    [
        ("sqlite_storage:TABLE", "which is no function but a str"),
        (
            "sqlite_storage:open_nothing",
            "sqlite_storage:open_nothing raised TypeError.*root and the",
        ),
        (
            "sqlite_storage:open_badly",
            "sqlite_storage:open_badly raised KeyError: 'ghost'.*correct",
        ),
    ],
)
def test_a_mistake_in_an_opener_names_scheme_and_function(
    package, registry, monkeypatch, opener, says
):
    """It is the author's mistake, not an internal error of batchrunner."""
    monkeypatch.syspath_prepend(str(package))
    with (package / "sqlite_storage.py").open("a") as file:
        file.write("def open_nothing():\n    pass\n")
        file.write("def open_badly(root, options):\n    {}['ghost']\n")
    register("shelf", opener)
    sys.modules.pop("sqlite_storage", None)  # of the test before: another file

    with pytest.raises(CannotStartError, match=f"shelf://.*{says}"):
        open_storage("shelf://box", storage_options={"ghost": 1})


def test_a_storage_option_that_an_opener_misses_is_named_as_one(package, registry, monkeypatch):
    """The spec, or `--storage-options`, is to be corrected."""
    monkeypatch.syspath_prepend(str(package))
    register("shelf", "sqlite_storage:open_sqlite")

    with pytest.raises(InvalidSpecError, match="shelf://box needs the storage option 'file'"):
        open_storage("shelf://box")


def test_entry_points_are_read_for_no_scheme_that_is_registered(monkeypatch):
    """They cost the metadata of every installed package; `validate` has half a second."""

    def entry_points(**_):
        raise AssertionError("read")

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)

    assert [SinkSpec(uri=uri).uri for uri in ("s3a://b/x", "/x")] == ["s3://b/x", "/x"]
    with pytest.raises(InvalidSpecError, match="Assertion failed, read"):
        SinkSpec(uri="gs://b/x")
