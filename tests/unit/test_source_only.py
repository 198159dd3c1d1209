"""A format that is read and not written, and one whose suffix other files have, too."""

from pathlib import Path

import pytest

from batchrunner import BatchSpec
from batchrunner.driver.plan import Slicer, first_generation
from batchrunner.driver.source_files import list_source
from batchrunner.errors import InvalidSpecError
from batchrunner.formats import SourceOnly, register, registry
from batchrunner.formats.jsonl import JsonLines
from batchrunner.formats.registry import FileKind, file_kind
from batchrunner.spec import SourceSpec


class Notes(SourceOnly, JsonLines):
    """Lines of JSON in files whose suffix says little."""

    suffixes = (".note",)
    gives_way = True


@pytest.fixture(autouse=True)
def notes(monkeypatch):
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    monkeypatch.setattr(registry, "_formats", dict(registry._formats))
    register("notes", Notes)


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text('{"id": 1}\n')
    return folder


def kinds(uri: object, **source: object) -> dict[str, str]:
    listing = list_source(SourceSpec(uri=str(uri), **source))
    return {Path(file.uri).name: file.kind.format for file in listing.files}


def facts(folder: Path, **sink: object) -> object:
    spec = BatchSpec(source=str(folder), sink={"uri": f"{folder}/out", **sink})
    return first_generation(spec, list_source(spec.source).files, Slicer.of(spec)).facts


def test_the_parts_of_such_a_source_have_the_format_it_names(tmp_path):
    """The user need not know which formats can be written."""
    assert facts(files(tmp_path, "a.note")).format == "jsonl"
    assert facts(tmp_path, compression="gz").compression == "gz"
    assert facts(tmp_path, format="parquet").format == "parquet"


def test_a_sink_of_such_a_format_is_refused(tmp_path):
    """Before a shard has run, with the format to use."""
    with pytest.raises(InvalidSpecError, match=r"notes is read, not written; use jsonl"):
        facts(files(tmp_path, "a.note"), format="notes")


def test_a_suffix_that_says_little_is_no_contradiction(tmp_path):
    """A spec that reads such files by another format, as before there was this one, goes on."""
    files(tmp_path, "a.note")

    assert file_kind("a.note") == FileKind("notes")
    assert file_kind("a.note", format="jsonl") == FileKind("jsonl")
    assert kinds(tmp_path / "*", format="jsonl") == {"a.note": "jsonl"}
    assert kinds(tmp_path / "a.note", format="jsonl") == {"a.note": "jsonl"}


def test_files_whose_suffix_says_little_are_passed_over_beside_others(tmp_path):
    """What lies beside the data, such as a description of it, is no data, and ends no run."""
    files(tmp_path, "a.note", "b.jsonl")
    listing = list_source(SourceSpec(uri=str(tmp_path)))

    assert kinds(tmp_path) == {"b.jsonl": "jsonl"}
    assert "passed over 1 file(s) whose names say no format (a.note)" in listing.notes[0]
    assert kinds(tmp_path / "*") == {"b.jsonl": "jsonl"}
    assert kinds(tmp_path, format="notes") == {"a.note": "notes"}
    assert list_source(SourceSpec(uri=str(tmp_path), format="jsonl")).notes
    assert kinds(tmp_path / "*.note") == {"a.note": "notes"}
