"""Every row once, end to end: what fails is read again as it stood, whatever stands around it."""

import gzip
import itertools
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import capabilities
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.verify import Checks, verify
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows_out

JUNK = [b"", b"", b"", b"  ", b"\r", b"nope", b"{", b'{"id": 1, "id": 2}', b'{"id": "\xff"}']
NO_ROWS = JUNK[5:]
LOOKED_AT = 64
"""How many lines are looked at together, where not all of a block are rows."""


def dead_letters(folder):
    return list(read_dead_letters(Checkpoint(open_storage(str(folder / "out/_checkpoint")))))


def ids_out(folder):
    return [row["id"] for row in rows_out(folder / "out")]


@pytest.mark.parametrize("batch_size", [10, 1])
def test_twenty_thousand_rows_among_blank_lines_survive_calls_that_fail_once(tmp_path, batch_size):
    """Each retried batch was read one line off: 7-10 rows lost and as many doubled, exit 0."""
    dice = random.Random(23)
    lines = [b'{"id": %d}' % n for n in range(20_000)]
    for _ in range(50):
        lines.insert(dice.randrange(len(lines)), dice.choice([b"", b" ", b"\r"]))
    for last in range(LOOKED_AT - 1, len(lines), 20 * LOOKED_AT):
        lines.insert(last, b"")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    capabilities.STUMBLED.clear()
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:stumbles_once", "fn_kwargs": {"share": 0.02}},
        execution={"engine": "local", "batch_size": batch_size},
    )

    report = BatchRunner(spec).run()

    assert len(capabilities.STUMBLED) > 200 // batch_size
    assert (report.rows_in, report.rows_out, report.rows_failed) == (20_000, 20_000, 0)
    assert ids_out(tmp_path) == list(range(20_000))


def a_messy_file(folder, kind):
    """300 rows and what stands between them; returns {position: id or None} of rows and bad rows."""
    folder.mkdir()
    dice = random.Random(kind)
    if kind == "parquet":
        return a_messy_table(folder / "a.parquet", dice)
    data, places = b"\xef\xbb\xbf", {}
    for number in range(300):
        some = dice.choices(JUNK, k=dice.choice([0, 0, 1, 4])) if number < 150 else []
        if number >= 150 and data.count(b"\n") % LOOKED_AT == LOOKED_AT - 1:
            some = [b""]
        for junk in some:
            if junk in NO_ROWS:
                places[len(data)] = (None, junk)
            data += junk + b"\n"
        line = b'{"id": %d}' % number + dice.choice([b"", b"\r", b" "])
        places[len(data)] = (number, line)
        data += line + b"\n"
    packed = {"gz": gzip.compress, "zst": lambda x: pa.compress(x, "zstd", asbytes=True)}
    name = "a.jsonl" if kind == "jsonl" else f"a.jsonl.{kind}"
    (folder / name).write_bytes(packed[kind](data) if kind in packed else data.rstrip(b"\n"))
    return places


def a_messy_table(path, dice):
    texts = [dice.choice([b"ok", b"\xc3\xa4", None, None, b"\xff"]) for _ in range(300)]
    table = pa.table({"id": range(300), "text": pa.array(texts, pa.binary()).view(pa.string())})
    pq.write_table(table, path, row_group_size=70)
    shown = '{"id":%d,"text":%s}'
    text = {b"ok": '"ok"', b"\xc3\xa4": '"ä"', None: "null", b"\xff": '{"base64": "/w=="}'}
    return {
        n: (None if texts[n] == b"\xff" else n, (shown % (n, text[texts[n]])).encode())
        for n in range(300)
    }


CASES = [
    *itertools.product(["jsonl"], ["batch", "row"], [1, 7, 1000], ["rows"]),
    *itertools.product(["jsonl", "parquet"], ["batch"], [1, 7, 1000], ["pyarrow"]),
    *itertools.product(["parquet"], ["batch", "row"], [7], ["rows"]),
    *itertools.product(["gz", "zst"], ["batch"], [7], ["rows"]),
]


@pytest.mark.parametrize(("kind", "mode", "size", "shape"), CASES)
def test_rows_that_fail_are_the_ones_set_aside_and_the_ones_tried_again(
    tmp_path, kind, mode, size, shape
):
    """By where they stand and how they look; all others are there once, in order."""
    places = a_messy_file(tmp_path / "in", kind)
    mended = tmp_path / "mended"
    kwargs = {"mended": str(mended), "share": 0.2}
    fine = [n for n, _ in places.values() if n is not None and n % 7 != 3]
    late = [n for n, _ in places.values() if n is not None and n % 7 == 3]
    spec = a_spec(
        tmp_path,
        source={
            "uri": str(tmp_path / "in"),
            **({"shard": {"rows": 110}} if shape == "pyarrow" else {}),
        },
        sink={"uri": str(tmp_path / "out"), "format": "jsonl"},
        capability={"target": "capabilities:stumbles", "mode": mode, "fn_kwargs": kwargs},
        execution={"engine": "local", "batch_size": size, "batch_format": shape},
        errors={"max_row_errors": 1000, "retry": {"max_attempts": 2}},
    )

    first = BatchRunner(spec).run()

    assert first.ok
    assert ids_out(tmp_path) == fine
    expected = {at: raw for at, (n, raw) in places.items() if n is None or n % 7 == 3}
    assert {one["at"]: raw_of(one) for one in dead_letters(tmp_path)} == expected
    assert len(dead_letters(tmp_path)) == len(expected) == first.rows_failed

    mended.touch()
    second = BatchRunner(spec).retry(rows=True)

    unreadable = {at: raw for at, (n, raw) in places.items() if n is None}
    assert ids_out(tmp_path) == fine + late
    assert {one["at"]: raw_of(one) for one in dead_letters(tmp_path)} == unreadable
    assert (second.rows_in, second.rows_failed) == (len(places), len(unreadable))


def raw_of(dead_letter):
    import base64

    if "raw" in dead_letter:
        return dead_letter["raw"].encode()
    return base64.b64decode(dead_letter["raw_base64"])


BEYOND = {
    "a date after the year 9999": ("DATE '20000-01-01'", "date32"),
    "no end": ("'infinity'::DATE", "date32"),
    "an instant after the year 9999": ("TIMESTAMP '20000-01-01 00:00:00'", "timestamp"),
    "a string that is no text": ("x", "base64"),
}


@pytest.mark.parametrize("shape", ["rows", "pandas", "numpy", "pyarrow"])
@pytest.mark.parametrize("what", BEYOND)
def test_a_value_that_python_cannot_hold_costs_one_row_at_most(tmp_path, what, shape):
    """It ended the run, again and again; where the format can hold it, it goes through."""
    import duckdb

    (tmp_path / "in").mkdir()
    path = tmp_path / "in/a.parquet"
    sql, kept_as = BEYOND[what]
    if sql == "x":
        text = pa.array([b"\xff\xfe" if n == 43 else b"ok" for n in range(100)])
        pq.write_table(pa.table({"id": range(100), "v": text.view(pa.string())}), path)
    else:
        values = f"SELECT i AS id, CASE i WHEN 43 THEN {sql} ELSE '2020-01-01' END AS v"
        duckdb.sql(f"{values} FROM range(100) t(i)").write_parquet(str(path))
    spec = a_spec(
        tmp_path,
        capability="capabilities:echo",
        execution={"engine": "local", "batch_format": shape, "batch_size": 30},
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        errors={"max_row_errors": 1},
    )

    report = BatchRunner(spec).run()

    found = dead_letters(tmp_path)
    assert (report.exit_code, report.rows_in) == (0, 100)
    ids = pq.read_table(tmp_path / "out", columns=["id"])["id"].to_pylist()
    assert ids == [n for n in range(100) if n != 43 or not found]
    if shape == "rows" or kept_as == "base64":
        [dead_letter] = found
        assert (dead_letter["at"], dead_letter["stage"]) == (43, "read")
        assert kept_as in dead_letter["raw"]
        assert json.loads(dead_letter["raw"])["id"] == 43


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_the_columns_of_hive_folders_are_columns_of_the_rows(tmp_path, file_format):
    """As Ray Data has them; `none` leaves them out. `verify` knows them, too."""
    for day in ("2026-01-01", "2026-01-02"):
        folder = tmp_path / f"in/date={day}"
        folder.mkdir(parents=True)
        table = pa.table({"id": [1, 2], "text": ["a", "b"]})
        if file_format == "parquet":
            pq.write_table(table, folder / "a.parquet")
        else:
            lines = [json.dumps(row) + "\n" for row in table.to_pylist()]
            (folder / "a.jsonl").write_text("".join(lines))

    def out(**source):
        sink = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        spec = a_spec(
            tmp_path,
            capability={"target": "capabilities:echo", "deterministic": True},
            source={"uri": str(tmp_path / "in"), **source},
            sink={"uri": str(sink), "format": "jsonl"},
        )
        assert BatchRunner(spec).run().ok
        keys = ("id",) if source.get("partitioning") else ("id", "date")
        assert verify(spec, checks=Checks(keys=keys, replay=1)).findings == ()
        return rows_out(sink)

    days = ["2026-01-01"] * 2 + ["2026-01-02"] * 2
    assert [row["date"] for row in out()] == days
    assert out(columns=["date", "id"]) == [
        {"id": n, "date": day} for n, day in zip([1, 2, 1, 2], days, strict=True)
    ]
    assert all("date" not in row for row in out(partitioning="none"))
