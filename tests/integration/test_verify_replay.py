"""`verify --replay`: what the capability gives again, by other readers, is what the parts hold."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import damage
from batchrunner import BatchRunner
from batchrunner.errors import InputChangedError, InvalidSpecError, SpecChangedError
from batchrunner.verify import Checks, repair, verify
from builders import a_source, a_spec, rows, write_jsonl

ALL = Checks(replay=1)


def deterministic(target: str, **fields) -> dict:
    return {"target": f"capabilities:{target}", "deterministic": True, **fields}


def a_run(folder, *, target="double", **changes):
    """Three shards of ten rows."""
    a_source(folder / "in", shards=3, rows_per_shard=10)
    spec = a_spec(folder, capability=deterministic(target), **changes)
    assert BatchRunner(spec).run().ok
    return spec


def sink(folder, **fields) -> dict:
    return {"uri": str(folder / "out"), **fields}


SINKS = [{}, {"compression": "gz"}, {"compression": "zst"}, {"format": "parquet"}]


@pytest.mark.parametrize("kind", SINKS, ids=str)
def test_a_value_that_the_capability_does_not_give_is_named_with_its_place(tmp_path, kind):
    """Shard, row, column and both values: enough to look at it."""
    spec = a_run(tmp_path, sink=sink(tmp_path, **kind))
    damage.rewritten(
        tmp_path / "out", 1, lambda some: [*some[:7], {**some[7], "text": "forged"}, *some[8:]]
    )

    plain, deep = verify(spec), verify(spec, checks=ALL)

    assert plain.findings == ()
    (finding,) = deep.findings
    assert (str(finding.kind), finding.shard) == ("replay", 1)
    assert finding.why == (
        'row 7, column \'text\': the part has "forged", the capability gives "row 17"'
    )
    assert deep.notes == ("replayed 3 of 3 shards: 0, 1, 2",)


CHANGES = {
    "a row less": (lambda some: some[:-1], "row 9: the part has no such row"),
    "a row more": (lambda some: [*some, some[0]], "row 10: the capability gives no such row"),
    "two rows swapped": (
        lambda some: [some[1], some[0], *some[2:]],
        "row 0, column 'id': the part has 2, the capability gives 0",
    ),
}


@pytest.mark.parametrize("kind", SINKS, ids=str)
@pytest.mark.parametrize("name", CHANGES)
def test_rows_that_are_too_few_too_many_or_out_of_order_are_found(tmp_path, name, kind):
    """Order within a part is promised, too."""
    change, why = CHANGES[name]
    spec = a_run(tmp_path, sink=sink(tmp_path, **kind))
    damage.rewritten(tmp_path / "out", 0, change)

    assert [finding.why for finding in verify(spec, checks=ALL).findings] == [why]


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        (None, 0),
        ("", None),
        ([1], [1.0]),
        ({"a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_in_json_values_of_another_type_are_other_values(tmp_path, value, other):
    """1, 1.0 and true are three things, at any depth."""
    write_jsonl(tmp_path / "in/0.jsonl", [{"id": 1, "v": value}])
    spec = a_spec(tmp_path, capability=deterministic("echo"))
    assert BatchRunner(spec).run().ok
    assert verify(spec, checks=ALL).findings == ()

    damage.rewritten(tmp_path / "out", 0, lambda some: [{**some[0], "v": other}])

    (finding,) = verify(spec, checks=ALL).findings
    assert "column 'v'" in finding.why


def floats(*values: float) -> pa.Table:
    return pa.table({"x": pa.array(values), "deep": [[{"y": value}] for value in values]})


def test_in_parquet_nan_is_nan_and_zero_has_a_sign(tmp_path):
    """Bit for bit where bits mean something; two NaNs mean the same."""
    (tmp_path / "in").mkdir()
    pq.write_table(floats(math.nan, 0.0, 1.0), tmp_path / "in/0.parquet")
    execution = {"engine": "local", "batch_format": "pyarrow"}
    spec = a_spec(tmp_path, capability=deterministic("echo"), execution=execution)
    assert BatchRunner(spec).run().ok
    assert verify(spec, checks=ALL).findings == ()

    for column in ("x", "deep"):
        table = floats(math.nan, 0.0, 1.0)
        forged = floats(math.nan, -0.0, 1.0).column(column)
        table = table.set_column(table.column_names.index(column), column, forged)
        damage.rewritten_by(tmp_path / "out", 0, lambda path, table=table: _kept(table, path))
        (finding,) = verify(spec, checks=ALL).findings
        assert finding.why.startswith(f"row 1, column {column!r}")


def _kept(table: pa.Table, path) -> int:
    pq.write_table(table, path)
    return len(table)


def test_a_column_of_another_type_in_a_part_is_found(tmp_path):
    """Its values look the same when they are printed."""
    spec = a_run(tmp_path, sink=sink(tmp_path, format="parquet"))

    def narrowed(path):
        table = pq.read_table(path)
        return _kept(table.set_column(0, "id", table.column("id").cast(pa.int32())), path)

    damage.rewritten_by(tmp_path / "out", 1, narrowed)

    (finding,) = verify(spec, checks=ALL).findings
    assert finding.why == "row 0, column 'id': int32 in the part, int64 from the capability"


@pytest.mark.parametrize("kind", [{}, {"format": "parquet"}], ids=str)
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
@pytest.mark.parametrize("batch_format", ["rows", "pyarrow", "pandas", "numpy"])
def test_a_whole_run_has_no_finding_in_any_batch_format(tmp_path, batch_format, source, kind):
    """An alarm that cries wolf is switched off."""
    (tmp_path / "in").mkdir()
    some = [{"id": n, "text": f"row {n}", "x": n / 3, "ok": n % 3 == 0} for n in range(500)]
    if source == "jsonl":
        write_jsonl(tmp_path / "in/0.jsonl", some)
    else:
        pq.write_table(pa.Table.from_pylist(some), tmp_path / "in/0.parquet", row_group_size=70)
    for number, shard in enumerate([{"rows": 130}, {"files": 1}]):
        spec = a_spec(
            tmp_path,
            capability=deterministic("echo"),
            source={"uri": str(tmp_path / "in"), "shard": shard, "limit": 470},
            sink={"uri": str(tmp_path / f"out{number}"), **kind},
            execution={"engine": "local", "batch_format": batch_format, "batch_size": 64},
        )
        assert BatchRunner(spec).run().ok

        found = verify(spec, checks=Checks(keys=("id",), replay=1))

        assert found.findings == ()
        assert "keys (id): 470 in the source, 470 in the output" in found.notes[0]


IRREGULAR = st.fixed_dictionaries(
    {"id": st.integers(0, 99)},
    optional={
        "a": st.none() | st.integers(-9, 9) | st.floats(0, 1),
        "b": st.none() | st.text(max_size=3) | st.booleans(),
        "c": st.lists(st.integers(0, 3), max_size=2),
        "d": st.fixed_dictionaries({"x": st.integers(0, 3)}, optional={"y": st.text(max_size=2)}),
    },
)


@settings(max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    content=st.lists(IRREGULAR, min_size=1, max_size=30),
    batch_format=st.sampled_from(["rows", "pyarrow", "pandas", "numpy"]),
    batch_size=st.sampled_from([1, 4, 1000]),
    kind=st.sampled_from([{}, {"format": "parquet"}]),
)
def test_rows_of_irregular_objects_are_replayed_as_they_were_made(
    content, batch_format, batch_size, kind
):
    """Absent, null and of another kind: the capability gets what it got."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_jsonl(folder / "in/0.jsonl", content)
        spec = a_spec(
            folder,
            capability=deterministic("echo"),
            sink=sink(folder, **kind),
            errors={"max_row_errors": 100, "retry": {"max_attempts": 1}},
            execution={"engine": "local", "batch_format": batch_format, "batch_size": batch_size},
        )
        assert BatchRunner(spec).run().ok

        assert verify(spec, checks=ALL).findings == ()


CAPABILITIES = {
    "fan-out": {"target": "fan_out_and_drop", "mode": "row"},
    "filter": {"target": "even_or_none", "mode": "row"},
    "generator": {"target": "in_pieces"},
    "class": {"target": "Scaled", "fn_constructor_kwargs": {"factor": 3}, "fn_kwargs": {"plus": 1}},
    "coroutine": {"target": "later"},
    "asynchronous generator": {"target": "later_in_pieces"},
    "nothing left": {"target": "keep_nothing"},
}


@pytest.mark.parametrize("kind", [{}, {"format": "parquet"}], ids=str)
@pytest.mark.parametrize("name", CAPABILITIES)
def test_every_kind_of_capability_can_be_replayed(tmp_path, name, kind):
    """Also one whose rows no key can be followed through."""
    a_source(tmp_path / "in", shards=2, rows_per_shard=10)
    spec = a_spec(
        tmp_path, capability=deterministic(**CAPABILITIES[name]), sink=sink(tmp_path, **kind)
    )
    assert BatchRunner(spec).run().ok

    assert verify(spec, checks=ALL).findings == ()


def test_rows_set_aside_are_left_out_and_those_tried_again_are_replayed(tmp_path):
    """Where they stand is known, so that the others can be held against the part."""
    flag = tmp_path / "mended"
    some = [{"id": n, "bad": n % 5 == 2} for n in range(40)]
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/0.jsonl", some)
    table = pa.Table.from_pylist(some)
    (tmp_path / "other").mkdir()
    pq.write_table(table, tmp_path / "other/0.parquet")
    for source in ("in", "other"):
        flag.unlink(missing_ok=True)
        spec = a_spec(
            tmp_path,
            source=str(tmp_path / source),
            sink=str(tmp_path / f"out-{source}"),
            capability=deterministic("fails_while_bad", fn_kwargs={"path": str(flag)}),
            errors={"max_row_errors": 50, "retry": {"max_attempts": 1}},
        )
        assert BatchRunner(spec).run().rows_failed == 8
        assert verify(spec, checks=Checks(keys=("id",), replay=1)).findings == ()
        flag.touch()
        assert BatchRunner(spec).retry(rows=True).rows_failed == 0

        found = verify(spec, checks=Checks(keys=("id",), replay=1))

        assert found.findings == ()
        assert "replayed 2 of 2 shards: 0, 1" in found.notes


def test_a_row_that_the_capability_refuses_now_is_found(tmp_path):
    """The part has rows that it can not have got from there."""
    flag = tmp_path / "mended"
    flag.touch()
    write_jsonl(tmp_path / "in/0.jsonl", [{"id": n, "bad": n == 3} for n in range(9)])
    spec = a_spec(
        tmp_path, capability=deterministic("fails_while_bad", fn_kwargs={"path": str(flag)})
    )
    assert BatchRunner(spec).run().rows_failed == 0
    flag.unlink()

    (finding,) = verify(spec, checks=ALL).findings

    assert "the capability fails for the row at" in finding.why
    assert "row 3 is bad" in finding.why


def test_the_same_share_is_chosen_each_time_and_never_nothing(tmp_path):
    """So that a finding can be reproduced."""
    spec = a_run(tmp_path)

    first, again = (verify(spec, checks=Checks(replay=0.01)).notes for _ in range(2))

    assert first == again
    assert first[0].startswith("replayed 1 of 3 shards: ")


def test_shards_are_replayed_from_files_that_have_only_another_time(tmp_path):
    """Before, a `touch` was enough for "no shard was replayed", and 0."""
    spec = a_run(tmp_path)
    damage.rewritten(tmp_path / "out", 1, lambda some: some[::-1])
    for path in (tmp_path / "in").iterdir():
        os.utime(path)

    found = verify(spec, checks=ALL)

    assert [(str(f.kind), f.shard) for f in found.findings] == [("replay", 1)]
    assert found.notes == ("replayed 3 of 3 shards: 0, 1, 2",)


def test_shards_whose_file_changed_are_not_chosen_and_not_ok(tmp_path):
    """The others are replayed; the share is one of those."""
    spec = a_run(tmp_path)
    write_jsonl(tmp_path / "in/in-001.jsonl", rows(50, 10))

    found = verify(spec, checks=ALL)

    assert (found.findings, found.left_out, found.ok) == ((), 1, False)
    assert found.notes[1:] == ("replayed 2 of 3 shards: 0, 2",)


def test_a_replay_of_which_every_file_changed_is_refused(tmp_path):
    """No shard was replayed: that is no success."""
    spec = a_run(tmp_path)
    for path in (tmp_path / "in").iterdir():
        write_jsonl(path, rows(50, 10))

    with pytest.raises(InputChangedError, match="batchrunner run"):
        verify(spec, checks=ALL)


def test_code_that_is_not_that_of_the_run_is_refused_by_name(tmp_path, monkeypatch):
    """Its rows are others, and a repair would take sound parts away."""
    module = tmp_path / "replayed_code.py"
    module.write_text("def keep(rows):\n    return rows\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    a_source(tmp_path / "in")
    named = {"target": "replayed_code:keep", "deterministic": True}
    spec = a_spec(tmp_path, capability=named)
    assert BatchRunner(spec).run().ok
    assert verify(spec, checks=ALL).ok
    module.write_text("def keep(rows):\n    return [{**row, 'more': 1} for row in rows]\n")

    with pytest.raises(SpecChangedError, match=r"replayed_code.*keep changed") as refused:
        verify(spec, checks=ALL)
    with pytest.raises(SpecChangedError):
        repair(spec, checks=ALL)

    assert "the code that made the output" in str(refused.value)
    assert verify(spec, checks=Checks(keys=("id",))).ok


def test_arguments_that_are_not_those_of_the_run_are_refused(tmp_path):
    """They decide the rows as the code does."""
    a_run(tmp_path)
    other = a_spec(tmp_path, capability=deterministic("double", fn_kwargs={"x": 1}))

    with pytest.raises(SpecChangedError, match=r"capability\.fn_kwargs\.x: none -> 1"):
        verify(other, checks=ALL)


def test_other_code_that_was_handed_over_is_refused(tmp_path):
    """A spec that names no capability is replayed with the function itself."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability=deterministic("echo"))
    assert BatchRunner(spec, capability=keeps).run().ok

    assert verify(spec, checks=Checks(replay=1, capability=keeps)).ok
    with pytest.raises(SpecChangedError, match=r"capability\.code"):
        verify(spec, checks=Checks(replay=1, capability=reverses))


def keeps(batch):
    return batch


def reverses(batch):
    return batch[::-1]


def test_only_a_capability_that_says_so_is_replayed(tmp_path):
    """Others give other rows each time; the message shows what to write."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability="capabilities:with_pid")

    with pytest.raises(InvalidSpecError, match="deterministic: true"):
        verify(spec, checks=ALL)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, math.nan])
def test_a_share_is_above_nothing_and_at_most_all(tmp_path, share):
    """A typing error must not check nothing and say ok."""
    with pytest.raises(InvalidSpecError, match="the share to replay"):
        verify(a_spec(tmp_path), checks=Checks(replay=share))


def test_capability_runs_are_not_replayed(tmp_path):
    """Each would be one more run in the analytics store."""
    spec = a_spec(
        tmp_path,
        capability=deterministic("double", mode="run"),
        analytics_store=str(tmp_path / "store"),
    )

    with pytest.raises(InvalidSpecError, match="capability runs are not replayed"):
        verify(spec, checks=ALL)


def test_a_capability_of_this_process_is_handed_over_for_a_replay(tmp_path):
    """As it was for the run."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability={"target": "in:memory", "deterministic": True})

    def shout(some):
        return [{**row, "text": row["text"].upper()} for row in some]

    assert BatchRunner(spec, capability=shout).run().ok

    assert verify(spec, checks=Checks(replay=1, capability=shout)).findings == ()
    with pytest.raises(SpecChangedError, match=r"capability\.code"):
        verify(spec, checks=Checks(replay=1, capability=list))


class Counts:
    """Gives the same rows each time, and knows how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return batch


def test_what_an_object_does_to_itself_in_a_replay_is_no_other_code(tmp_path):
    """Verified twice, then run again: it is the same capability."""
    a_source(tmp_path / "in")
    spec, counts = a_spec(tmp_path, capability=deterministic("echo")), Counts()
    assert BatchRunner(spec, capability=counts).run().ok

    for _ in range(2):
        assert verify(spec, checks=Checks(replay=1, capability=counts)).ok

    assert counts.calls == 9
    assert BatchRunner(spec, capability=counts).run().ok


def test_nothing_is_written_by_a_replay(tmp_path):
    """It runs beside drivers and without a lease."""
    spec = a_run(tmp_path, sink=sink(tmp_path, format="parquet"))

    def content():
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    before = content()
    assert verify(spec, checks=Checks(keys=("text",), replay=1)).ok

    assert content() == before


@pytest.mark.parametrize("kind", [{}, {"format": "parquet"}], ids=str)
@pytest.mark.parametrize("source", ["jsonl", "parquet"])
def test_columns_that_stand_in_names_of_folders_are_keys_and_are_replayed(tmp_path, source, kind):
    """They are columns of the rows like any other."""
    for date in ("2026-01-01", "2026-01-02"):
        folder = tmp_path / f"in/date={date}"
        folder.mkdir(parents=True)
        some = rows(0, 20)
        if source == "jsonl":
            write_jsonl(folder / "0.jsonl", some)
        else:
            pq.write_table(pa.Table.from_pylist(some), folder / "0.parquet")
    spec = a_spec(tmp_path, capability=deterministic("echo"), sink=sink(tmp_path, **kind))
    checks = Checks(keys=("id", "date"), replay=1)
    assert BatchRunner(spec).run().ok
    assert verify(spec, checks=checks).findings == ()

    damage.rewritten(
        tmp_path / "out", 0, lambda some: [{**some[0], "date": "2026-01-02"}, *some[1:]]
    )

    kinds = {str(finding.kind) for finding in verify(spec, checks=checks).findings}
    assert kinds == {"key_missing", "key_doubled", "replay"}
