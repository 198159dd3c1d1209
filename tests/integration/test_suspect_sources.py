"""A source that is read as it is, and may be less than the user thinks: pointed out from its listing."""

import gzip

import pytest

from batchrunner import BatchRunner
from batchrunner.driver.source_files import list_source
from batchrunner.spec import SourceSpec
from builders import a_source, a_spec


def notes_on(uri, **source):
    return list_source(SourceSpec(uri=str(uri), **source)).notes


@pytest.fixture
def chain(tmp_path):
    """A run of three shards, one of which fails, and a spec that reads its output."""
    a_source(tmp_path / "in", shards=3)
    first = a_spec(tmp_path, source=str(tmp_path / "in"), capability="capabilities:fails_on_5")
    assert not BatchRunner(first).run(progress="off").ok
    return tmp_path


def test_the_output_of_a_run_that_has_not_finished_is_pointed_out(chain, caplog):
    """Its parts are whole, and there are fewer of them than there will be."""
    second = a_spec(chain, source=str(chain / "out"), sink=str(chain / "second"), name="second")
    runner = BatchRunner(second)
    count = len(list((chain / "out").glob("part-*")))
    said = (
        f"source: {chain}/out is the output of a run that has not finished: {count} file(s) of it "
        "are there; run this again once it has"
    )

    assert said in str(runner.plan())
    assert runner.run(progress="off").ok
    assert caplog.messages.count(said) == 1


@pytest.mark.parametrize("where", ["out", "out/part-*.jsonl", "", "out/**"])
def test_it_is_pointed_out_however_the_folder_is_named(chain, where):
    """By a glob, and as a folder in the source."""
    (chain / "in").rename(chain / "_in")

    assert [n.partition(" is the output")[0] for n in notes_on(chain / where)] == [
        f"source: {chain}/out"
    ]


def test_a_finished_output_is_a_source_like_any_other(chain):
    """With `_SUCCESS`, or without an owner, there is nothing to say."""
    (chain / "out/_SUCCESS").write_bytes(b"")
    assert notes_on(chain / "out") == ()

    (chain / "out/_SUCCESS").unlink()
    (chain / "out/_owner.json").unlink()
    assert notes_on(chain / "out") == ()


@pytest.mark.parametrize(
    "name", ["b.parquet", "b.arrow", "b.tar", "b.json", "b.jsonl.gz", "b.csv.zst", "b.tgz"]
)
def test_files_of_0_bytes_that_no_program_writes_are_pointed_out(tmp_path, name):
    """A failed upload leaves such a file, and its rows would be missed by no count."""
    (tmp_path / name).write_bytes(b"")

    said = (
        f"source: 1 file(s) of 0 bytes ({tmp_path}/{name}) count as files without rows; a failed "
        "upload leaves such files"
    )
    assert notes_on(tmp_path) == (said,)
    assert notes_on(tmp_path / name) == notes_on(tmp_path)


@pytest.mark.parametrize("name", ["b.jsonl", "b.txt", "b.csv", "b.tsv"])
def test_plain_text_of_0_bytes_is_a_file_without_rows(tmp_path, name):
    """As a program writes it that had nothing to say."""
    (tmp_path / name).write_bytes(b"")

    assert notes_on(tmp_path) == ()


def test_only_the_files_of_0_bytes_are_named_and_the_first_of_them(tmp_path):
    """One that holds no row is as its program wrote it."""
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "b.jsonl").write_bytes(b"")
    for number in range(5):
        (tmp_path / f"c{number}.jsonl.gz").write_bytes(b"")

    named = ", ".join(f"{tmp_path}/c{number}.jsonl.gz" for number in range(3))
    assert notes_on(tmp_path)[0].startswith(f"source: 5 file(s) of 0 bytes ({named}, ...) count")


def test_a_file_of_0_bytes_that_is_a_row_is_no_suspect(tmp_path):
    """In `files`, whatever it is called."""
    (tmp_path / "b.parquet").write_bytes(b"")

    assert notes_on(tmp_path, format="files") == ()
