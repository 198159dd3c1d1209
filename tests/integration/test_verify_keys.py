"""`verify --key`: rows that are lost or doubled while all counts agree are found, and nothing else is."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import damage
from batchrunner import BatchRunner
from batchrunner.errors import CannotStartError, InputChangedError, InvalidSpecError
from batchrunner.verify import Checks, repair, verify
from batchrunner.verify.key_check import SHOWN
from builders import a_source, a_spec, parts, read_part, rows, rows_out, write_jsonl

BY_ID = Checks(keys=("id",))


def kinds(spec, checks=BY_ID) -> set[str]:
    return {str(finding.kind) for finding in verify(spec, checks=checks).findings}


def a_run(folder, **changes):
    """Three shards of ten rows, kept as they are."""
    a_source(folder / "in", shards=3, rows_per_shard=10)
    spec = a_spec(folder, **{"capability": "capabilities:echo", **changes})
    assert BatchRunner(spec).run().ok
    return spec


def one_lost_one_doubled(some):
    """The sixth row goes, the seventh comes twice: no count changes."""
    return [*some[:5], some[6], *some[6:]]


def test_a_row_lost_and_one_doubled_are_named_though_every_count_is_right(tmp_path):
    """What no checksum and no count can see, because it was written and recorded that way."""
    spec = a_run(tmp_path)
    damage.rewritten(tmp_path / "out", 1, one_lost_one_doubled)

    plain, deep = verify(spec), verify(spec, checks=BY_ID)

    assert plain.findings == ()
    assert [(str(f.kind), f.shard, f.part, f.why) for f in deep.findings] == [
        (
            "key_missing",
            1,
            "part-00001.jsonl",
            "id 15: 1 in the shard's rows of the source, 0 in the part",
        ),
        (
            "key_doubled",
            1,
            "part-00001.jsonl",
            "id 16: 1 in the shard's rows of the source, 2 in the part",
        ),
    ]
    assert deep.notes == (
        "keys (id): 30 in the source, 30 in the output; 1 missing, 1 doubled, 0 unknown",
    )


def test_a_key_that_no_row_of_the_source_has_is_unknown(tmp_path):
    """It comes from somewhere else, or was altered on its way."""
    spec = a_run(tmp_path, sink={"uri": str(tmp_path / "out"), "format": "parquet"})
    damage.rewritten(
        tmp_path / "out", 2, lambda some: [{**row, "id": row["id"] % 100 or 777} for row in some]
    )
    assert kinds(spec) == set()
    damage.rewritten(
        tmp_path / "out",
        2,
        lambda some: [{**row, "id": row["id"] + 100} for row in some[:1]] + some[1:],
    )

    assert kinds(spec) == {"key_missing", "key_unknown"}


def test_a_row_in_the_part_of_another_shard_is_found(tmp_path):
    """All keys are there, once; but not where they belong, so that the next change loses them."""
    spec = a_run(tmp_path)
    first, second = (read_part(path)[0] for path in parts(tmp_path / "out")[:2])
    damage.rewritten(tmp_path / "out", 0, lambda some: [second, *some[1:]])
    damage.rewritten(tmp_path / "out", 1, lambda some: [first, *some[1:]])

    found = [(str(f.kind), f.shard) for f in verify(spec, checks=BY_ID).findings]

    assert found == [("key_missing", 0), ("key_doubled", 0), ("key_missing", 1), ("key_doubled", 1)]


def test_of_many_keys_the_first_are_named_and_the_others_counted_by_shard(tmp_path):
    """A thousand lines help no reader; each shard is named all the same."""
    spec = a_run(tmp_path)
    for number in range(3):
        damage.rewritten(
            tmp_path / "out", number, lambda some: [{**row, "id": -row["id"] - 1} for row in some]
        )

    found = verify(spec, checks=BY_ID)

    missing = [f for f in found.findings if f.kind == "key_missing"]
    assert len(missing) == SHOWN + 1
    assert (missing[-1].shard, missing[-1].why) == (2, "10 more keys are missing")
    assert "30 missing, 0 doubled, 30 unknown" in found.notes[0]


def test_several_columns_name_a_row_together(tmp_path):
    """Neither `id` nor `text` alone shows that their pairs were mixed up."""
    spec = a_run(tmp_path)

    def mixed(some):
        return [
            {**some[0], "text": some[1]["text"]},
            {**some[1], "text": some[0]["text"]},
            *some[2:],
        ]

    damage.rewritten(tmp_path / "out", 0, mixed)

    assert kinds(spec, Checks(keys=("id",))) == kinds(spec, Checks(keys=("text",))) == set()
    assert kinds(spec, Checks(keys=("id", "text"))) == {"key_missing", "key_unknown"}


def test_what_keys_find_is_repaired_by_making_those_shards_again(tmp_path):
    """The way out is the one for any damage."""
    spec = a_run(tmp_path)
    damage.rewritten(tmp_path / "out", 1, one_lost_one_doubled)

    done = repair(spec, checks=BY_ID)
    assert BatchRunner(spec).run().ok

    assert done.to_recompute == [1]
    assert kinds(spec) == set()
    assert rows_out(tmp_path / "out") == rows(0, 30)


def test_rows_set_aside_are_not_missed_until_they_are_tried_again(tmp_path):
    """They are accounted for one by one: by where they stand, not by how many they are."""
    flag = tmp_path / "mended"
    for number in range(3):
        some = [{"id": n, "bad": n % 4 == 1} for n in range(number * 10, number * 10 + 10)]
        write_jsonl(tmp_path / f"in/{number}.jsonl", some)
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(flag)}},
        errors={"max_row_errors": 50, "retry": {"max_attempts": 1}},
    )
    assert BatchRunner(spec).run().rows_failed == 8
    assert kinds(spec) == set()
    flag.touch()
    assert BatchRunner(spec).retry(rows=True).rows_failed == 0
    assert kinds(spec) == set()
    assert len(list((tmp_path / "out").glob("part-*"))) == 6

    damage.rewritten(tmp_path / "out", 4, lambda some: [{**some[0], "id": 10}, *some[1:]])

    found = verify(spec, checks=BY_ID).findings
    assert [(f.kind, f.shard) for f in found] == [("key_missing", 4), ("key_doubled", 4)]


def test_the_first_row_after_a_byte_order_mark_can_be_tried_again(tmp_path):
    """It stands at byte 3, and no line break before it."""
    flag = tmp_path / "mended"
    path = write_jsonl(tmp_path / "in/0.jsonl", [{"id": n, "bad": n == 0} for n in range(5)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(flag)}},
        errors={"max_row_errors": 5, "retry": {"max_attempts": 1}},
    )
    assert BatchRunner(spec).run().rows_failed == 1
    flag.touch()
    assert BatchRunner(spec).retry(rows=True).rows_failed == 0

    found = verify(spec, checks=BY_ID)

    assert found.findings == ()
    assert "keys (id): 5 in the source, 5 in the output" in found.notes[0]


def test_a_dead_letter_whose_row_is_in_the_output_all_the_same_is_doubled(tmp_path):
    """A wrong position keeps back one row, and another is tried again that had gone through."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=10)
    spec = a_spec(tmp_path, capability="capabilities:fails_on_5", errors={"max_row_errors": 5})
    assert BatchRunner(spec).run().ok
    damage.rewritten(
        tmp_path / "out",
        0,
        lambda some: [{**row, "id": row["id"] + (row["id"] == 4)} for row in some],
    )

    found = verify(spec, checks=BY_ID).findings

    assert [(f.kind, f.why.partition(":")[0]) for f in found] == [
        ("key_missing", "id 4"),
        ("key_doubled", "id 5"),
    ]
    assert found[1].why.endswith("in dead letters: 1")


def test_shards_that_are_not_committed_are_not_missed(tmp_path):
    """A run that was stopped is not broken."""
    spec = a_run(tmp_path)
    damage.delete(tmp_path / "out")
    damage.deleted_sentinel(tmp_path / "out")
    (tmp_path / "out/_SUCCESS").unlink()

    found = verify(spec, checks=BY_ID)

    assert found.findings == ()
    assert "keys (id): 20 in the source, 20 in the output" in found.notes[1]


def test_a_shard_whose_source_changed_is_left_out_and_told(tmp_path):
    """The keys of a file that is gone are unknown; the others are compared."""
    spec = a_run(tmp_path)
    write_jsonl(tmp_path / "in/in-001.jsonl", rows(50, 3))
    damage.rewritten(tmp_path / "out", 2, one_lost_one_doubled)

    found = verify(spec, checks=BY_ID)

    assert {f.shard for f in found.findings} == {2}
    assert "keys (id) of 2 of 3 committed shards: 20 in the source, 20 in the output" in "".join(
        found.notes
    )
    assert [note for note in found.notes if "in-001" in note] == [found.notes[0]]
    assert found.left_out == 1


def test_keys_that_agree_are_not_ok_when_a_shard_could_not_be_looked_at(tmp_path):
    """Who asks whether each row is there must not read "ok" of half of them."""
    spec = a_run(tmp_path)
    write_jsonl(tmp_path / "in/in-001.jsonl", rows(50, 3))

    found = verify(spec, checks=BY_ID)

    assert (found.findings, found.left_out, found.ok) == ((), 1, False)
    assert verify(spec).ok


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_keys_of_which_none_can_be_compared_are_refused(tmp_path, how):
    """There is nothing left to say about them; the message names a file and the way out."""
    spec = a_run(tmp_path)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
        if how == "changed":
            write_jsonl(path, rows(50, 3))

    with pytest.raises(InputChangedError, match=r"in-000\.jsonl: it .*batchrunner run"):
        verify(spec, checks=BY_ID)


def test_other_defects_are_told_also_when_no_key_can_be_compared(tmp_path):
    """A damaged part is worth more than a refusal."""
    spec = a_run(tmp_path)
    for path in (tmp_path / "in").iterdir():
        write_jsonl(path, rows(50, 3))
    damage.cut(tmp_path / "out")

    found = verify(spec, checks=BY_ID)

    assert [str(f.kind) for f in found.findings] == ["size"]
    assert (found.left_out, found.ok) == (2, False)


@pytest.mark.parametrize("how", ["touched", "copied"])
def test_keys_are_compared_in_files_that_have_only_another_time(tmp_path, how):
    """Before, a `touch` made every defect invisible, and the command ended with 0."""
    spec = a_run(tmp_path / "here")
    folder = tmp_path / "here"
    damage.rewritten(folder / "out", 1, one_lost_one_doubled)
    before = verify(spec, checks=BY_ID)
    if how == "copied":
        folder = tmp_path / "there"
        shutil.copytree(tmp_path / "here", folder, copy_function=shutil.copyfile)
    for path in (folder / "in").iterdir():
        os.utime(path)

    found = verify(a_spec(folder, capability="capabilities:echo"), checks=BY_ID)

    assert {str(f.kind) for f in found.findings} == {"key_missing", "key_doubled"}
    assert (found.findings, found.notes) == (before.findings, before.notes)


def test_a_shard_whose_source_rotted_after_the_run_is_left_out_whole(tmp_path):
    """With half of its keys, the rest would seem to be doubled; the note says what is wrong."""
    path = tmp_path / "in/0.jsonl.gz"
    path.parent.mkdir()
    some = [{**row, "text": "x" * 300_000} for row in rows(0, 10)]  # more than is read at once
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in some).encode()))
    write_jsonl(tmp_path / "in/1.jsonl", rows(10, 10))
    spec = a_spec(tmp_path, capability="capabilities:echo")
    assert BatchRunner(spec).run().ok
    times = path.stat()
    damage.flip(path, 8 * (path.stat().st_size - 6))  # of its checksum, which stands at its end
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    found = verify(spec, checks=BY_ID)

    assert found.findings == ()
    note = "keys (id) of 1 of 2 committed shards: 10 in the source, 10 in the output"
    assert note in "\n".join(found.notes)
    assert (found.left_out, found.ok) == (1, False)
    assert any("shard 0" in note and "not compared" in note for note in found.notes)


def test_a_part_that_is_damaged_is_told_once_not_key_by_key(tmp_path):
    """A thousand missing keys would only say again what one line says."""
    spec = a_run(tmp_path)
    damage.cut(tmp_path / "out")

    assert kinds(spec) == {"size"}


def test_lines_of_a_part_that_are_no_rows_are_found(tmp_path):
    """They have a line end, so that the count is right."""
    spec = a_run(tmp_path)
    text = parts(tmp_path / "out")[0].read_text()
    rewritten = text.replace('"id":3', '"id":3:')

    def torn(path):
        path.write_text(rewritten)
        return text.count("\n")

    damage.rewritten_by(tmp_path / "out", 0, torn)

    assert verify(spec).findings == ()
    assert kinds(spec) == {"rows_out", "key_missing"}


@pytest.mark.parametrize("side", ["source", "output"])
@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
def test_a_column_that_is_nowhere_is_refused_by_name(tmp_path, side, sink):
    """A slip of the pen must not read as "all keys agree"."""
    target = "capabilities:" + ("echo" if side == "source" else "without_ids")
    spec = a_run(tmp_path, capability=target, sink={"uri": str(tmp_path / "out"), "format": sink})
    column = "nothing" if side == "source" else "id"

    with pytest.raises(InvalidSpecError, match=f"no row of the {side} has a column '{column}'"):
        verify(spec, checks=Checks(keys=(column,)))


def test_a_column_that_was_not_read_cannot_be_a_key(tmp_path):
    """The capability never saw it."""
    source = {"uri": str(tmp_path / "in"), "columns": ["id"]}
    spec = a_run(tmp_path, source=source)

    assert kinds(spec) == set()
    with pytest.raises(InvalidSpecError, match=r"source\.columns leaves"):
        verify(spec, checks=Checks(keys=("text",)))


def test_without_duckdb_the_message_says_what_to_install(tmp_path, monkeypatch):
    """Plain `verify` needs no database."""
    spec = a_run(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)

    assert verify(spec).ok
    with pytest.raises(CannotStartError, match=r"pip install 'batchrunner\[query\]'"):
        verify(spec, checks=BY_ID)


COLUMNS = {
    "nanoseconds": pa.array([1, 2, 10**18 + 1, None], pa.timestamp("ns")),
    "seconds with a zone": pa.array([1, 2, 253402300799, None], pa.timestamp("s", "Europe/Berlin")),
    "dates": pa.array([1, 2, 3, None], pa.date32()),
    "decimals": pa.array(
        [Decimal("1.10"), Decimal("2.00"), None, Decimal("1E+3")], pa.decimal128(9, 2)
    ),
    "bytes": pa.array([b"\x00\xff", b"", None, b"abc"]),
    "unsigned": pa.array([2**64 - 1, 0, None, 2**63], pa.uint64()),
    "floats": pa.array([0.1, float("nan"), float("-inf"), None]),
    "half floats": pa.array([0.5, 1.0, None, 2.0], pa.float32()).cast(pa.float16()),
    "dictionary": pa.array(["a", "b", None, "a"]).dictionary_encode(),
    "views": pa.array(["a", "b", None, "a"], pa.string_view()),
    "structs": pa.array([{"a": 1}, {"a": None}, None, {"a": 3}]),
    "lists": pa.array([[1.5], [], None, [None]]),
    "durations": pa.array([1, 2, None, 3], pa.duration("ms")),
    "bools": pa.array([True, False, None, True]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_keys_of_every_type_are_compared_by_value(tmp_path, name):
    """From Parquet to Parquet nothing is translated."""
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": COLUMNS[name], "n": range(4)}), tmp_path / "in/0.parquet")
    execution = {"engine": "local", "batch_format": "pyarrow"}
    spec = a_spec(tmp_path, capability="capabilities:echo", execution=execution)
    assert BatchRunner(spec).run().ok
    assert kinds(spec) == set()

    def swapped(path):
        table = pq.read_table(path)
        pq.write_table(pa.concat_tables([table.slice(1, 1), table.slice(1)]), path)
        return 4

    damage.rewritten_by(tmp_path / "out", 0, swapped)

    assert kinds(spec) == {"key_missing", "key_doubled"}


@dataclass(frozen=True)
class Case:
    """A job: its source, how it is cut, and what its sink is."""

    lines: tuple[bytes, ...]
    bom: bool
    final_newline: bool
    line_end: bytes
    suffix: str
    shard: dict
    limit: int | None
    sink: dict
    batch_size: int
    copies: int
    gaps: tuple[int, ...]


KEYS: list[st.SearchStrategy] = [
    st.integers(-(2**63), 2**63 - 1) | st.none(),
    st.text(max_size=6) | st.none(),
    st.integers(0, 9),
    st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    st.booleans(),
    st.fixed_dictionaries({"a": st.integers(0, 5)}, optional={"b": st.text(max_size=2)}),
    st.lists(st.integers(0, 3), max_size=3),
]
MIXED = st.one_of(st.integers(), st.text(max_size=6), st.booleans(), st.none(), st.floats(0, 1))
NO_ROWS = st.sampled_from([b"", b"  \t", b"not json", b"[]", b'{"id": 1, "id": 2}', b"\xff", b"7"])


@st.composite
def cases(draw) -> Case:
    sink = draw(
        st.sampled_from([{}, {"compression": "gz"}, {"compression": "zst"}, {"format": "parquet"}])
    )
    key = draw(st.sampled_from(KEYS + ([] if "format" in sink else [MIXED])))
    row = st.fixed_dictionaries(
        {"id": key, "n": st.integers(0, 99), "bad": st.sampled_from([False] * 9 + [True])}
    )
    line = row.map(lambda r: json.dumps(r).encode())
    odd = draw(st.sampled_from([line, NO_ROWS]))
    return Case(
        lines=tuple(draw(st.lists(st.one_of(line, line, line, odd), min_size=1, max_size=60))),
        bom=draw(st.booleans()),
        final_newline=draw(st.booleans()),
        line_end=draw(st.sampled_from([b"\n", b"\r\n"])),
        suffix=draw(st.sampled_from(["", ".gz", ".zst"])),
        shard=draw(st.sampled_from([{"files": 1}, {"rows": 7}, {"rows": 40}, {"bytes": 4096}])),
        limit=draw(st.sampled_from([None, None, 1, 30, 500])),
        sink=sink,
        batch_size=draw(st.sampled_from([1, 7, 1000])),
        copies=draw(st.sampled_from([1, 1, 9, 65])),
        gaps=tuple(draw(st.lists(st.sampled_from([0, 63, 127, 191, 300]), max_size=2))),
    )


def the_source(folder: Path, case: Case) -> Path:
    lines = [*case.lines] * case.copies
    for gap in case.gaps:
        lines.insert(gap, b"")
    text = case.line_end.join(lines) + case.line_end * case.final_newline
    text = b"\xef\xbb\xbf" * case.bom + text
    path = folder / f"in/0.jsonl{case.suffix}"
    path.parent.mkdir()
    if case.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(text)
    else:
        path.write_bytes(gzip.compress(text) if case.suffix else text)
    return path


def the_spec(folder: Path, case: Case):
    return a_spec(
        folder,
        source={"uri": str(the_source(folder, case)), "shard": case.shard, "limit": case.limit},
        sink={"uri": str(folder / "out"), **case.sink},
        capability={
            "target": "capabilities:fails_while_bad",
            "fn_kwargs": {"path": str(folder / "mended")},
            "deterministic": True,
        },
        errors={"max_row_errors": 100_000, "retry": {"max_attempts": 1}},
        execution={"engine": "local", "batch_size": case.batch_size},
    )


AN_EMPTY_LINE = Case(
    lines=tuple(
        b'{"id": %d, "n": 1, "bad": %s}' % (n, b"true" if n % 20 == 3 else b"false")
        for n in range(150)
    ),
    bom=False,
    final_newline=True,
    line_end=b"\n",
    suffix="",
    shard={"files": 1},
    limit=None,
    sink={},
    batch_size=7,
    copies=1,
    gaps=(63,),
)
"""Once, rows that were read again after it were those before the rows that had failed."""


EVERYTHING = Checks(keys=("id", "n"), replay=1)
KEPT = {"folder": "/dev/shm" if Path("/dev/shm").is_dir() else None}


@pytest.mark.sweep
@example(case=AN_EMPTY_LINE, seed=0)
@settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(case=cases(), seed=st.integers(0, 2**32))
def test_no_whole_run_has_a_finding_and_no_swapped_key_goes_unseen(case, seed):
    """Whatever stands between the rows, however they are cut, also after rows were tried again."""
    with tempfile.TemporaryDirectory(dir=KEPT["folder"]) as folder:
        spec, out = the_spec(Path(folder), case), Path(folder) / "out"
        assert BatchRunner(spec).run().ok
        checks = EVERYTHING if rows_out(out) else Checks()
        assert verify(spec, checks=checks).findings == ()
        (Path(folder) / "mended").touch()
        assert BatchRunner(spec).retry(rows=True).ok
        checks = EVERYTHING if rows_out(out) else Checks()
        assert verify(spec, checks=checks).findings == ()
        if swap_a_key(out, random.Random(seed)):
            assert verify(spec).findings == ()
            assert {"key_missing", "replay"} < kinds(spec, checks)


def swap_a_key(out: Path, chance: random.Random) -> bool:
    """Give one row the key of another one; return whether there are two."""
    places = [(n, at) for n, path in enumerate(parts(out)) for at in range(len(read_part(path)))]
    number, at = chance.choice(places or [(0, 0)])
    row = read_part(parts(out)[number])[at] if places else {}
    others = [other for other in rows_out(out) if other["id"] != row["id"]]
    if not others:
        return False
    other = chance.choice(others)
    change: Callable = lambda some: [*some[:at], {**row, "id": other["id"]}, *some[at + 1 :]]  # noqa: E731
    damage.rewritten(out, number, change)
    return True
