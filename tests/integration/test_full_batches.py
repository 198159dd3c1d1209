"""A batch is as large as the spec says, however small the files are, and the output is the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

import exact
from batchrunner import BatchRunner
from batchrunner.shard import Shard, Slice, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import open_storage
from batchrunner.verify import Checks, verify
from batchrunner.worker.reading import read_shards
from batchrunner.worker.steps import MOST_SHARDS
from builders import a_source, a_spec, parts, read_part, rows, rows_out, write_jsonl
from small_files import dead_letters, made, small_files

EACH_FILE = {"files": 1}
MANY = {"retry": {"max_attempts": 1}, "max_row_errors": 1.0}


def the_source(folder, shard=EACH_FILE):
    return {"uri": str(folder / "in"), "shard": shard}


def one_to_one(name, **kwargs):
    return {"target": f"capabilities:{name}", "one_to_one": True, "fn_kwargs": kwargs}


def local(size, batch_format="rows"):
    return {"engine": "local", "batch_size": size, "batch_format": batch_format}


def sizes(folder):
    return [int(line) for line in (folder / "sizes").read_text().split()]


def mean(numbers):
    return sum(numbers) / len(numbers)


@pytest.mark.parametrize(
    ("engine", "batch_format"),
    # A batch is made by the same worker on either engine: of Ray, one format says all there is.
    [*(("local", f) for f in ("rows", "numpy", "pandas", "pyarrow")), ("ray", "rows")],
)
def test_small_files_fill_batches(request, tmp_path, engine, batch_format):
    """A model was called 5,000 times with 10 rows where 196 calls would do."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_source(tmp_path / "in", shards=260, rows_per_shard=10)
    spec = a_spec(
        tmp_path,
        capability=one_to_one("notes_sizes", path=str(tmp_path / "sizes")),
        source=the_source(tmp_path),
        execution={**local(64, batch_format), "engine": engine, "concurrency": 1},
    )

    assert BatchRunner(spec).run().ok

    assert sorted(row["id"] for row in rows_out(tmp_path / "out")) == list(range(2600))
    assert [len(read_part(part)) for part in parts(tmp_path / "out")] == [10] * 260
    assert max(sizes(tmp_path)) == 64
    assert mean(sizes(tmp_path)) > (60 if engine == "local" else 40)  # groups end with small ones


def test_files_packed_into_one_shard_fill_batches_without_a_word(tmp_path):
    """Whatever number of rows comes back, it belongs to that shard."""
    a_source(tmp_path / "in", shards=200, rows_per_shard=10)
    spec = a_spec(
        tmp_path,
        capability={
            "target": "capabilities:notes_sizes",
            "fn_kwargs": {"path": str(tmp_path / "sizes")},
        },
        source=the_source(tmp_path, {"bytes": "1MiB"}),
        execution=local(256),
    )

    assert BatchRunner(spec).run().ok

    assert len(parts(tmp_path / "out")) == 1
    assert rows_out(tmp_path / "out") == rows(0, 2000)
    assert sizes(tmp_path) == [256] * 7 + [208]


def test_a_batch_has_no_more_shards_than_may_be_open(tmp_path):
    """Each has a file open; and a worker that dies leaves as many suspects."""
    a_source(tmp_path / "in", shards=100, rows_per_shard=1)
    spec = a_spec(
        tmp_path,
        capability=one_to_one("notes_sizes", path=str(tmp_path / "sizes")),
        source=the_source(tmp_path),
    )

    assert BatchRunner(spec).run().ok
    assert max(sizes(tmp_path)) == MOST_SHARDS


FORMATS = ["rows", "numpy", "pandas", "pyarrow"]
BY_ROWS = ["fails_for_bad", "fails_later_for_bad", "fails_in_pieces_for_bad"]
SHARDS = [EACH_FILE, {"rows": 20}, {"bytes": 4096}, None]


@pytest.mark.parametrize("on_row_error", ["record", "fail"])
@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("seed", [1, pytest.param(range(2, 40), marks=pytest.mark.soak)])
def test_nothing_depends_on_which_shards_share_a_batch(
    tmp_path, batch_format, source, sink, on_row_error, seed
):
    """Not a byte of a part, not a type in it, and no dead letter: types come from the rows before."""
    for number in [seed] if isinstance(seed, int) else seed:
        folder = tmp_path / str(number)
        rng = random.Random(f"{batch_format} {source} {sink} {on_row_error} {number}")
        small_files(folder, rng, source)
        target = rng.choice(BY_ROWS) if batch_format == "rows" else "fails_for_bad"
        common = {
            "sink": sink,
            "source": the_source(folder, rng.choice(SHARDS)),
            "errors": {**MANY, "on_row_error": on_row_error},
        }
        apart = made(
            folder,
            "apart",
            capability=f"capabilities:{target}",
            execution=local(rng.choice([1, 3, 1000]), batch_format),
            **common,
        )
        together = made(
            folder,
            "together",
            capability=one_to_one(target),
            execution=local(rng.choice([2, 7, 16, 64, 1000]), batch_format),
            **common,
        )
        assert together[:2] == apart[:2]
        # Which of a shard's bad rows it fails for is another one with other batches.
        assert len(together[2]) == len(apart[2])
        assert together[2] == apart[2] or on_row_error == "fail"


@pytest.mark.parametrize("source", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("target", "is_one_to_one"),
    [
        ("fails_for_a_bad_row", False),
        ("fails_for_a_bad_row", True),
        ("fan_out_and_drop", False),
        ("later_by_row", False),
    ],
)
def test_mode_row_is_the_same_in_full_batches(tmp_path, source, target, is_one_to_one):
    """Each row gives none, one or many, and they go to the part of their shard."""
    small_files(tmp_path, random.Random(4), source)
    common = {"sink": "jsonl", "source": the_source(tmp_path), "errors": MANY}
    capability = {"target": f"capabilities:{target}", "mode": "row", "one_to_one": is_one_to_one}
    one, many = (
        made(tmp_path, f"out-{size}", capability=capability, execution=local(size), **common)
        for size in (1, 100)
    )
    assert many == one


def test_a_row_that_gives_none_or_two_fails_if_each_is_to_give_one(tmp_path):
    """In mode row, too, what is declared is checked."""
    a_source(tmp_path / "in", shards=6, rows_per_shard=3)
    capability = {**one_to_one("fan_out_and_drop"), "mode": "row"}
    spec = a_spec(tmp_path, capability=capability, source=the_source(tmp_path), errors=MANY)

    report = BatchRunner(spec).run()

    assert (report.rows_in, report.rows_out, report.rows_failed) == (18, 6, 12)
    assert [row["id"] for row in rows_out(tmp_path / "out")] == [1, 4, 7, 10, 13, 16]


@pytest.mark.parametrize("target", ["drops_bad", "doubles_bad"])
def test_another_number_of_rows_costs_the_row_that_gave_it(tmp_path, target):
    """The batch has failed, is halved, and the guilty row is found; no other row is moved."""
    for number in range(8):
        some = rows(number * 10, 10)
        some[3] |= {"bad": True} if number in (2, 5) else {}
        write_jsonl(tmp_path / f"in/{number}.jsonl", some)
    spec = a_spec(
        tmp_path,
        capability=one_to_one(target),
        source=the_source(tmp_path),
        execution=local(32),
        errors=MANY,
    )

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_in, report.rows_out, report.rows_failed) == (0, 80, 78, 2)
    for number, part in enumerate(parts(tmp_path / "out")):
        kept = [n for n in range(number * 10, number * 10 + 10) if n not in (23, 53)]
        assert [row["id"] for row in read_part(part)] == kept
    found = dead_letters(tmp_path / "out")
    assert [(name, error, json.loads(raw)["id"]) for name, _, _, error, _, raw in found] == [
        ("2.jsonl", "RowCountError", 23),
        ("5.jsonl", "RowCountError", 53),
    ]
    assert all("rows for 1; by capability.one_to_one" in message for *_, message, _ in found)


@pytest.mark.parametrize(
    ("target", "errors", "error"),
    [
        ("exits_on_bad", {"batch_timeout": 60}, "CapabilityDied"),
        pytest.param(
            "hangs_on_bad", {"batch_timeout": 3}, "CapabilityTimedOut", marks=pytest.mark.long
        ),
    ],
)
def test_a_deadly_row_costs_itself_among_the_rows_of_other_shards(tmp_path, target, errors, error):
    """Its process dies with the rows of five files; four of them have nothing to do with it."""
    for number in range(10):
        some = rows(number * 10, 10)
        some[3] |= {"bad": True} if number == 7 else {}
        write_jsonl(tmp_path / f"in/{number}.jsonl", some)
    spec = a_spec(
        tmp_path,
        capability=one_to_one(target),
        source=the_source(tmp_path),
        execution=local(50),
        errors={**MANY, **errors},
    )

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 99, 1)
    assert [row["id"] for row in rows_out(tmp_path / "out")] == [n for n in range(100) if n != 73]
    [(name, _, _, type_, _, raw)] = dead_letters(tmp_path / "out")
    assert (name, type_, json.loads(raw)["id"]) == ("7.jsonl", error, 73)


@pytest.mark.parametrize("mode", ["batch", "row"])
def test_a_file_that_changes_fails_its_shard_only(tmp_path, mode):
    """Its rows share batches with those of the shards beside it, which are committed."""
    a_source(tmp_path / "in", shards=60, rows_per_shard=10)
    changed = tmp_path / "in/in-040.jsonl"
    capability = {**one_to_one("changes_a_file", path=str(changed)), "mode": mode}
    execution = local(25)
    if mode == "row":
        capability |= {"target": "capabilities:changes_a_file_by_row"}
    spec = a_spec(tmp_path, capability=capability, source=the_source(tmp_path), execution=execution)

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.shards_committed) == (1, 59)
    ids = [row["id"] for row in rows_out(tmp_path / "out")]
    assert ids == [n for n in range(600) if not 400 <= n < 410]


def test_a_file_of_a_pack_that_changes_is_named(tmp_path):
    """The shard is known by its first file: the one to mend is another. It costs its own rows."""
    a_source(tmp_path / "in", shards=40, rows_per_shard=10)
    changed = tmp_path / "in/in-030.jsonl"
    spec = a_spec(
        tmp_path,
        capability=one_to_one("changes_a_file", path=str(changed)),
        source=the_source(tmp_path, {"bytes": "1MiB"}),
        execution=local(25),
    )

    report = BatchRunner(spec).run()

    assert report.exit_code == 1
    ids = sorted(row["id"] for row in rows_out(tmp_path / "out"))
    assert ids == [*range(300), *range(310, 400)]
    assert ["in-030.jsonl" in failure.reason for failure in report.failures.values()] == [True]


def test_shards_that_were_not_tried_are_not_committed(tmp_path):
    """A capability that fails for everything ends the run: the rows beside those tried are not made."""
    a_source(tmp_path / "in", shards=50, rows_per_shard=10)
    spec = a_spec(
        tmp_path,
        capability=one_to_one("fails_always"),
        source=the_source(tmp_path),
        execution=local(100),
        errors={"max_row_errors": 3},
    )

    report = BatchRunner(spec).run()

    assert report.exit_code != 0
    assert report.shards_committed == 0
    assert not parts(tmp_path / "out")


def test_less_memory_than_a_batch_of_many_shards_takes_is_found(tmp_path):
    """As a GPU that is full: the batch is halved, and so are the later ones, at no row's cost."""
    a_source(tmp_path / "in", shards=60, rows_per_shard=10)
    capability = one_to_one("runs_out_of_memory_above", most=40)
    spec = a_spec(
        tmp_path, capability=capability, source=the_source(tmp_path), execution=local(100)
    )

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out) == (0, 600)
    assert rows_out(tmp_path / "out") == rows(0, 600)


def test_the_failed_rows_of_a_pack_are_retried(tmp_path):
    """Each of its own file, and each goes through once."""
    for number in range(20):
        some = rows(number * 10, 10)
        some[3] |= {"bad": True} if number in (4, 15) else {}
        write_jsonl(tmp_path / f"in/{number:02}.jsonl", some)
    kwargs = {"path": str(tmp_path / "fixed")}
    capability = {"target": "capabilities:raises_on_bad_until", "fn_kwargs": kwargs}
    spec = a_spec(
        tmp_path,
        capability=capability,
        source=the_source(tmp_path, {"bytes": "1MiB"}),
        errors=MANY,
    )
    assert BatchRunner(spec).run().rows_failed == 2
    assert [name for name, *_ in dead_letters(tmp_path / "out")] == ["04.jsonl", "15.jsonl"]

    assert BatchRunner(spec).retry(rows=True).rows_failed == 2
    (tmp_path / "fixed").touch()
    assert BatchRunner(spec).retry(rows=True).rows_failed == 0

    assert sorted(row["id"] for row in rows_out(tmp_path / "out")) == list(range(200))


@pytest.mark.parametrize("batch_format", FORMATS[1:])
def test_a_row_that_is_retried_has_the_columns_that_it_had_among_its_neighbours(
    tmp_path, batch_format
):
    """A fix that works in a run works for the rows it was made for: none of their files has a note."""
    for number in range(20):
        some = [{**row, "note": "yes"} if number % 3 == 0 else row for row in rows(number * 10, 10)]
        some[3] |= {"bad": True} if number in (4, 16) else {}
        write_jsonl(tmp_path / f"in/{number:02}.jsonl", some)
    kwargs = {"path": str(tmp_path / "fixed"), "column": "note"}
    capability = {"target": "capabilities:fails_for_bad_until", "fn_kwargs": kwargs}
    spec = a_spec(
        tmp_path,
        capability=capability,
        source=the_source(tmp_path, {"bytes": "1MiB"}),
        execution=local(64, batch_format),
        errors=MANY,
    )
    assert BatchRunner(spec).run().rows_failed == 2

    (tmp_path / "fixed").touch()
    assert BatchRunner(spec).retry(rows=True).rows_failed == 0

    assert by_id(rows_out(tmp_path / "out")) == by_id(
        json.loads(line)
        for path in sorted((tmp_path / "in").iterdir())
        for line in path.read_text().splitlines()
    )


@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("seed", [1, pytest.param(range(2, 40), marks=pytest.mark.soak)])
def test_rows_that_failed_come_out_of_a_retry_as_of_a_run_that_they_do_not_fail(
    tmp_path, batch_format, sink, seed
):
    """In value and type: what stands beside a row when it is read again is not what it was."""
    for number in [seed] if isinstance(seed, int) else seed:
        folder = tmp_path / str(number)
        rng = random.Random(f"{batch_format} {sink} {number}")
        small_files(folder, rng, "jsonl")
        fixed = folder / "fixed"
        capability = {
            "target": "capabilities:fails_for_bad_until",
            "fn_kwargs": {"path": str(fixed)},
        }
        if batch_format == "rows":
            capability = {**capability, "target": "capabilities:raises_on_bad_until"}
        how = {
            "capability": capability,
            "source": the_source(folder, rng.choice(SHARDS)),
            "execution": local(rng.choice([1, 3, 1000]), batch_format),
            "errors": MANY,
        }
        made(folder, "out", sink=sink, **how)
        fixed.touch()
        spec = a_spec(folder, sink={"uri": str(folder / "out"), "format": sink}, **how)
        BatchRunner(spec).retry(rows=True)
        made(folder, "at-once", sink=sink, **how)

        retried, at_once = (dead_letters(folder / name) for name in ("out", "at-once"))
        if sink == "jsonl" or not any(error == "SchemaError" for *_, error, _, _ in at_once):
            # Else the rows that are first in the sink decide whose types others contradict.
            assert by_id(exact_rows(folder / "out")) == by_id(exact_rows(folder / "at-once"))
            assert retried == at_once


def by_id(found):
    return sorted(found, key=lambda row: row["id"])


def exact_rows(sink):
    paths = sorted(sink.glob("part-*"))
    if sink.exists() and any(path.suffix == ".jsonl" for path in paths):
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if value is not None}
        for path in paths
        for row in exact.rows(pq.read_table(path))
    ]


def test_of_a_pack_only_the_files_with_failed_rows_are_opened(tmp_path):
    """One bad row of a million files would read them all again."""
    path = write_jsonl(tmp_path / "b.jsonl", rows(0, 3))
    gone = [tmp_path / "a.jsonl", tmp_path / "c.jsonl"]
    slices = [
        Slice(str(at), Slicing.DEAD_LETTERS, 7, 1, 1, "identity") for at in (gone[0], path, gone[1])
    ]
    [entry] = open_storage(str(tmp_path)).list()
    slices[1] = replace(slices[1], size=entry.size, identity=entry.identity)
    at = len(json.dumps(rows(0, 1)[0])) + 1

    first, end = read_shards(
        [Shard(9, slices)],
        SourceSpec(uri=str(tmp_path)),
        to_retry=lambda *_: {1: frozenset({at})},
    )

    assert (first.number, first.chunk.rows(0, 1)) == (1, rows(1, 1))
    assert (end.chunk, end.failure) == (None, None)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "pyarrow"])
def test_a_key_that_some_files_lack_is_a_column_of_the_batch(tmp_path, batch_format):
    """A file of ten rows has fewer keys than a large one: each was a batch of its own, some without it."""
    for number in range(30):
        some = [
            {**row, "note": "yes"} if number % 3 == 0 and row["id"] % 2 else row
            for row in rows(number * 10, 10)
        ]
        write_jsonl(tmp_path / f"in/{number:02}.jsonl", some)
    kwargs = {"path": str(tmp_path / "sizes")}
    target = {"target": "capabilities:notes_sizes_of_notes", "fn_kwargs": kwargs}
    spec = a_spec(
        tmp_path,
        capability={**target, "deterministic": True},
        source=the_source(tmp_path, {"bytes": "1MiB"}),
        execution=local(64, batch_format),
    )

    assert BatchRunner(spec).run().ok
    assert sizes(tmp_path) == [64] * 4 + [44]

    texts = [path.read_text() for path in sorted((tmp_path / "in").iterdir())]
    assert rows_out(tmp_path / "out") == [
        json.loads(x) for text in texts for x in text.splitlines()
    ]
    assert verify(spec, checks=Checks(replay=1)).findings == ()
    assert sizes(tmp_path) == 2 * ([64] * 4 + [44])
