"""Arrow IPC of every type, through every batch format: as it was, or a dead letter that names its column.

Tables are made in memory, or by polars and pandas, so what is compared was never read by the product.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from test_value_corpus import FORMATS, ONE_QUICKLY, identity, names_a_column, names_a_value, run

import corpus
import damage
import exact
from batchrunner import BatchRunner
from batchrunner.errors import ShardFailedError
from batchrunner.formats.arrow_file import Arrow
from batchrunner.formats.contract import Sharding
from batchrunner.formats.damaged_file import MEND
from batchrunner.shard import Slice
from batchrunner.verify import Checks, verify
from builders import a_spec, parts, rows, rows_out
from command import batchrunner
from exact import REFUSED
from forks import in_child
from killing import killed_with_parts

ARROW = Arrow()
WRITERS = (
    (pa.ipc.new_file, None, "arrow"),
    (pa.ipc.new_stream, "lz4", "arrows"),
    (pa.ipc.new_file, "zstd", "feather"),
)
LONG = "longer than what a view holds in itself"


def only_in_arrow():
    """Types that Parquet's writers do not make."""
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))
    return {
        "string-view-list": pa.array([[LONG], None, ["b", None]], pa.list_(pa.string_view())),
        "struct-of-view": pa.array([{"a": LONG}, None], pa.struct([("a", pa.string_view())])),
        "list-view": pa.array([[LONG], None, ["b", None]], pa.list_view(pa.string())),
        "large-list-view": pa.array([[1], None, [2, None]], pa.large_list_view(pa.int8())),
        "decimal32": pa.array([Decimal("1.23"), None], pa.decimal32(5, 2)),
        "bool8": pa.array([1, None, 0], pa.bool8()),
        "opaque": pa.array([b"1", None], pa.opaque(pa.binary(), "a type", "a vendor")),
        "words-of-int": pa.array([7, None, 8, 7]).dictionary_encode(),
        "list-of-nothing": pa.array([[], None], pa.list_(pa.int8(), 0)),
        "struct-of-nothing": pa.array([{}, None], pa.struct([])),
        "run-ends": runs,
        "run-ends-in-struct": pa.StructArray.from_arrays([runs], ["r"]),
    }


NO_PARQUET = {
    **dict.fromkeys(("run-ends", "run-ends-in-struct"), ("pandas", "pyarrow")),
    **dict.fromkeys(("list-of-nothing", "struct-of-nothing"), FORMATS),
}
"""Columns that Parquet has no type for, in these batch formats: each row is a dead letter."""


def write(path, table, new, compression, *, rows_each=3):
    options = pa.ipc.IpcWriteOptions(compression=compression, unify_dictionaries=False)
    with new(str(path), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows_each)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Files by path, each with the table that it holds."""
    folder = tmp_path_factory.mktemp("arrow") / "in"
    folder.mkdir()
    flat = {**corpus.integers(), **corpus.reals(), **corpus.texts(), **corpus.times()}
    flat |= {**corpus.decimals(), **corpus.others(), **only_in_arrow()}
    found = {}
    for number, (name, array) in enumerate(sorted({**flat, **corpus.nested()}.items())):
        new, compression, ending = WRITERS[number % len(WRITERS)]
        table = pa.table({"id": pa.array(range(len(array)), pa.int64()), "v": array})
        path = folder / f"{name}.{ending}"
        write(path, table, new, compression)
        found[path] = table
    return found


@pytest.mark.parametrize("batch_format", ONE_QUICKLY)
def test_arrow_to_parquet_is_exact_in_value_and_type(tmp_path, tables, batch_format):
    """A column that is passed on is the column that was there."""
    for path, source in tables.items():
        (part,), dead = run(tmp_path / path.stem, path, "parquet", batch_format=batch_format)
        gone, plain = {at for _, at in dead}, decoded(source, batch_format)
        if batch_format in NO_PARQUET.get(path.stem, ()):
            assert gone == set(range(source.num_rows)), path.stem
        else:
            assert gone == exact.beyond(plain, batch_format), (path.stem, dead)
            kept = [row for at, row in enumerate(exact.rows(plain)) if at not in gone]
            written = pq.read_table(part)
            assert exact.rows(written) == kept, path.stem
            assert not kept or written.schema == kept_by_parquet(plain), path.stem
        assert all(names_a_column(message, source) for message in dead.values()), dead


def decoded(table, batch_format="rows"):
    """The table with the type that the values of its column have by themselves."""
    column, kind = table.column("v"), table.schema.field("v").type
    if pa.types.is_dictionary(kind) and not is_text(kind.value_type):
        return table.set_column(1, "v", column.cast(kind.value_type))
    if kind == pa.bool8() and batch_format in ("rows", "numpy"):
        return table.set_column(1, "v", pa.array(column.to_pylist()))
    return (
        table.set_column(1, "v", pa.array(column.to_pylist())) if "run_end" in str(kind) else table
    )


def kept_by_parquet(table):
    """The types that the table is to have; a reader gives plain text for a dictionary's large text."""
    schema = exact.stored(table.schema)
    if not pa.types.is_dictionary(schema.field("v").type):
        return schema
    out = io.BytesIO()
    pq.write_table(table.cast(schema), out)
    return pq.read_table(out).schema


def is_text(kind):
    return "string" in str(kind) or "binary" in str(kind)


@pytest.mark.parametrize("batch_format", ONE_QUICKLY)
def test_arrow_to_json_is_exact_and_the_same_in_every_format(tmp_path, tables, batch_format):
    """What JSON has a word for is written by the one rule for its type; the rest is refused by name."""
    made, dead = run(tmp_path, next(iter(tables)).parent, "jsonl", batch_format=batch_format)

    by_id = {}
    for line in (line for part in made for line in part.read_text().splitlines()):
        by_id.setdefault(json.loads(line)["id"], []).append(json.loads(line))
    want = {path.name: exact.objects(decoded(table)) for path, table in tables.items()}
    assert sum(map(len, by_id.values())) + len(dead) == sum(map(len, want.values()))
    for (name, at), message in dead.items():
        assert want[name][at] is REFUSED, (name, at, message)
        source = next(table for path, table in tables.items() if path.name == name)
        assert names_a_value(message, source), message
    kept = [row for objects in want.values() for row in objects if row is not REFUSED]
    made_rows = [row for some in by_id.values() for row in some]
    assert sorted(map(repr, made_rows)) == sorted(map(repr, kept))


def frames():
    columns = corpus.polars_columns()
    return {name: pl.DataFrame({"v": column}) for name, column in columns.items()}


POLARS: dict[str, Callable] = {
    "old.arrow": lambda frame, path: frame.write_ipc(path, compat_level=pl.CompatLevel.oldest()),
    "zstd.arrow": lambda frame, path: frame.write_ipc(path, compression="zstd"),
    "lz4.arrow": lambda frame, path: frame.write_ipc(path, compression="lz4"),
    "stream.arrows": lambda frame, path: frame.write_ipc_stream(path),
}


@pytest.mark.parametrize("ending", POLARS)
def test_what_polars_writes_comes_out_as_polars_reads_it(tmp_path, ending):
    """Another library writes the file, and reads the output: neither is Arrow's code."""
    (tmp_path / "in").mkdir()
    for name, frame in frames().items():
        POLARS[ending](frame, tmp_path / "in" / f"{name}.{ending}")
    for name, frame in frames().items():
        source = tmp_path / "in" / f"{name}.{ending}"
        (part,), dead = run(tmp_path / name, source, "parquet", batch_format="pyarrow")
        assert dead == {}
        assert repr(pl.read_parquet(part)["v"].to_list()) == repr(frame["v"].to_list())


def test_what_pandas_writes_as_feather_is_read(tmp_path):
    """An index that pandas keeps in the metadata is the column that it is in the file."""
    frame = corpus.pandas_frames()["nullable"]
    (tmp_path / "in").mkdir()
    frame.to_feather(tmp_path / "in/a.feather")
    (part,), dead = run(tmp_path, tmp_path / "in", "parquet", batch_format="pandas")

    assert dead == {}
    pd.testing.assert_frame_equal(pd.read_parquet(part).astype(frame.dtypes), frame)


def a_file(new=pa.ipc.new_file, *, count=30, each=10, compression=None):
    table = pa.Table.from_pylist([{**row, "n": [row["id"]] * 3} for row in rows(0, count)])
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=each)
    return out.getvalue()


WHOLE = Sharding("files", 1)


def read(data, *, columns=None, sharding=WHOLE):
    """Rows and bad rows of a file by number; a string if it fails."""
    found = []
    cuts = ARROW.cut(
        len(data), compression=None, sharding=sharding, limit=None, opened=lambda: io.BytesIO(data)
    )
    try:
        for cut in cuts:
            piece = Slice("a.arrow", cut.slicing, cut.start, cut.stop, len(data), "1", cut.rows)
            how = {"compression": None, "columns": columns, "partition": ()}
            for chunk in ARROW.read(io.BytesIO(data), piece, **how):
                found += zip(chunk.positions(), chunk.rows(0, len(chunk)), strict=True)
                found += [(bad.position.at, bad.reason) for bad in chunk.bad]
    except ShardFailedError as error:
        return str(error)
    return [row for _, row in sorted(found, key=lambda item: item[0])]


SEED = 6
"""Without the check of the layout, its damage kills the process in a file and in a stream."""


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_a_file_cut_short_anywhere_fails(new):
    """Between two record batches, too, where pyarrow reads a stream as if it were whole."""
    data = a_file(new, count=9, each=3)
    for length in range(1, len(data)):
        found = read(data[:length])
        assert isinstance(found, str), length
        assert "a.arrow cannot be read as Arrow: " in found
        assert MEND in found


def test_an_end_of_numbers_is_not_taken_for_the_end_of_a_stream():
    """-1 and padding are the bytes of the mark that ends a stream."""
    table = pa.table({"v": pa.array([-1], pa.int32())})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    data = out.getvalue()

    assert data[-16:-8] == data[-8:] == b"\xff\xff\xff\xff\0\0\0\0"
    assert read(data) == [{"v": -1}]
    assert "the mark at the end of a stream is missing" in read(data[:-8])


def test_two_streams_in_a_file_are_not_read_as_one():
    """Whoever joined them with `cat` would lose the second in silence."""
    data = a_file(pa.ipc.new_stream)

    assert f"its stream ends {len(data):,} bytes before the file" in read(data * 2)


@pytest.mark.parametrize(
    "data", [b"", b"FEA1" + bytes(40), b"PAR1" + bytes(40), b'{"id": 1}\n' * 9]
)
def test_what_is_no_arrow_is_said_to_be_none(data):
    """With the file and the way out, whatever it is."""
    assert MEND in read(data)
    if data.startswith(b"FEA1"):
        assert "it is Feather 1" in read(data)


def test_a_value_that_is_none_of_its_type_costs_its_row():
    """Bytes that are no text, in a file that is otherwise whole."""
    data = a_file().replace(b"row 17", b"row \xff7")
    found = read(data)

    assert [at for at, row in enumerate(found) if isinstance(row, str)] == [17]
    assert "column 'text': " in found[17]
    for sharding in (Sharding("rows", 4), Sharding("bytes", 1)):
        assert read(data, sharding=sharding) == found


def test_damaged_offsets_fail_the_file():
    """Pyarrow would follow them out of its buffers."""
    data = bytearray(a_file(count=8, each=8))
    offsets = b"".join(n.to_bytes(4, "little") for n in range(0, 45, 5))
    at = bytes(data).index(offsets)
    data[at + 8 : at + 12] = (10**9).to_bytes(4, "little")

    assert "column 'text' is damaged in the record batch from row 0: " in read(bytes(data))


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_a_row_count_that_flipped_is_no_plan_of_a_billion_shards(new):
    """The driver's memory would end the run before a worker could say which file it is."""
    data = a_file(new, count=9, each=3)
    metadata = data.index((3).to_bytes(8, "little"))  # the length of the first batch
    for at in range(metadata, len(data) - 8):
        if data[at : at + 8] == (3).to_bytes(8, "little"):
            changed = data[:at] + (3 + (1 << 40)).to_bytes(8, "little") + data[at + 8 :]
            found = read(changed, sharding=Sharding("rows", 2))
            assert isinstance(found, str) or len(found) == 9


def of_many_layouts(new, compression):
    """A file of views, words, lists and runs: what points into other buffers."""
    words = [LONG, None, "b", LONG + "!"]
    numbers = [[1, 2], None, [], [3]]
    table = pa.table(
        {
            "text": words,
            "view": pa.array(words, pa.string_view()),
            "word": pa.array(words).dictionary_encode(),
            "list": pa.array([[word] for word in words], pa.list_(pa.string_view())),
            "views": pa.array(numbers, pa.list_view(pa.int64())),
            "words": pa.ListArray.from_arrays([0, 1, 2, 3, 4], pa.array(words).dictionary_encode()),
            "map": pa.array([[("k", LONG)], None, [], [("l", None)]], pa.map_("str", "str")),
            "object": pa.array([{"a": word, "b": [1]} for word in words]),
        }
    )
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    return out.getvalue()


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_no_damage_ends_the_process(new, compression):
    """A worker that dies by a file would be tried again, and die again."""

    def read_damaged():
        whole, chance = of_many_layouts(new, compression), random.Random(SEED)
        for _ in range(100):
            data = bytearray(whole)
            for _ in range(chance.choice([1, 2, 8])):
                data[chance.randrange(len(data))] = chance.choice([0, 255, chance.randrange(256)])
            for sharding in (Sharding("files", 1), Sharding("rows", 2)):
                read(bytes(data), sharding=sharding)

    assert not in_child(read_damaged)


class Reads(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


def test_columns_that_are_not_asked_for_are_not_read():
    """A table of embeddings has a thousand bytes of them for each id."""
    table = pa.table({"id": range(1000), "wide": [bytes(1000)] * 1000})
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    file = Reads(out.getvalue())
    size = len(out.getvalue())
    piece = Slice("a.arrow", "file", 0, size, size, "1")
    chunks = ARROW.read(file, piece, compression=None, columns=("id",), partition=())

    assert sum(len(chunk) for chunk in chunks) == 1000
    assert file.count < 30_000 < size


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_a_slice_reads_its_own_record_batches(new):
    """And the metadata of those before, which say which rows they are."""
    data = a_file(new, count=1000, each=100)
    cuts = ARROW.cut(
        len(data),
        compression=None,
        sharding=Sharding("bytes", len(data) // 5),
        limit=None,
        opened=lambda: io.BytesIO(data),
    )
    for cut in cuts:
        file = Reads(data)
        piece = Slice("a.arrow", cut.slicing, cut.start, cut.stop, len(data), "1", cut.rows)
        list(ARROW.read(file, piece, compression=None, columns=None, partition=()))
        assert file.count < len(data) * 0.6

    assert len(cuts) > 3


def test_dictionaries_that_grow_or_are_replaced_are_those_of_their_batch(tmp_path):
    """A stream may send another dictionary before each batch, or add words to it."""
    words = [
        pa.array(some).dictionary_encode() for some in (["a", "b"], ["a", "b", "c"], ["z", "a"])
    ]
    (tmp_path / "in").mkdir()
    for deltas in (True, False):
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        path = str(tmp_path / f"in/{deltas}.arrows")
        with pa.ipc.new_stream(path, pa.schema([("v", words[0].type)]), options=options) as writer:
            for some in words:
                writer.write_batch(pa.record_batch([some], ["v"]))
    for shard in (None, {"rows": 1}, {"rows": 4}):
        spec = a_spec(
            tmp_path,
            capability="capabilities:echo",
            source={"uri": str(tmp_path / "in"), "shard": shard},
            sink={"uri": str(tmp_path / f"out{shard}"), "format": "jsonl"},
        )
        assert BatchRunner(spec).run().ok
        assert [row["v"] for row in rows_out(tmp_path / f"out{shard}")] == list("ababcza") * 2


def write_sources(folder, *, each=30):
    (folder / "in").mkdir(parents=True, exist_ok=True)
    for number, (new, compression, ending) in enumerate(WRITERS):
        content = [{**row, "bad": row["id"] in (3, 35)} for row in rows(number * each, each)]
        table = pa.Table.from_pylist(content)
        write(folder / f"in/{number}.{ending}", table, new, compression, rows_each=8)


def test_bad_and_failed_rows_are_tried_again_by_their_numbers(tmp_path):
    """In a file and in a stream, in a slice that begins in the middle of a record batch."""
    write_sources(tmp_path)
    path = tmp_path / "in/0.arrow"
    path.write_bytes(path.read_bytes().replace(b"row 21", b"row \xff1"))
    mended = tmp_path / "mended"
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(mended)}},
        source={"uri": str(tmp_path / "in"), "shard": {"rows": 7}},
        sink={"uri": str(tmp_path / "out"), "format": "jsonl"},
        errors={"max_row_errors": 5},
    )
    first = BatchRunner(spec).run()
    mended.touch()
    again = BatchRunner(spec).retry(rows=True)

    assert (first.rows_in, first.rows_out, first.rows_failed) == (90, 87, 3)
    assert (again.rows_in, again.rows_out, again.rows_failed) == (90, 89, 1)
    assert sorted(row["id"] for row in rows_out(tmp_path / "out")) == [*range(21), *range(22, 90)]
    assert verify(spec, checks=Checks(keys=("id",))).ok


@pytest.mark.parametrize("batch_format", ["rows", "pyarrow"])
def test_verify_counts_keys_and_replays(tmp_path, batch_format):
    """By a reader that goes by the messages of a file, not by its footer."""
    write_sources(tmp_path)
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:echo", "deterministic": True},
        source={"uri": str(tmp_path / "in"), "shard": {"rows": 7}},
        execution={"engine": "local", "batch_format": batch_format},
    )
    assert BatchRunner(spec).run().ok
    assert {part.suffix for part in parts(tmp_path / "out")} == {".parquet"}
    assert verify(spec, checks=Checks(keys=("id",), replay=1)).ok

    def with_another_id(path):
        table = pq.read_table(path)
        pq.write_table(table.set_column(0, "id", pa.array([99, *range(1, len(table))])), path)
        return len(table)

    damage.rewritten_by(tmp_path / "out", 0, with_another_id)
    kinds = {str(f.kind) for f in verify(spec, checks=Checks(keys=("id",), replay=1)).findings}
    assert kinds >= {"key_missing", "replay"}


@pytest.mark.long
def test_a_killed_run_is_finished_by_the_next_and_a_changed_file_made_again(tmp_path):
    """Every row once, checked by keys."""
    write_sources(tmp_path)
    spec = {
        "capability": {"target": "capabilities:slow", "version": "1", "deterministic": True},
        "source": {"uri": "in", "shard": {"rows": 5}},
        "sink": "out",
        "execution": {"engine": "local", "batch_size": 5},
    }
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    before = killed_with_parts(tmp_path)
    resumed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    write(tmp_path / "in/0.arrow", pa.Table.from_pylist([{"id": 1000}]), pa.ipc.new_file, None)
    changed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    checked = batchrunner("verify", "spec.yaml", "--key", "id", "--replay", "1", cwd=tmp_path)

    assert 3 <= before < 18
    codes = (resumed.returncode, changed.returncode, checked.returncode)
    assert codes == (0, 0, 0), resumed.stderr + changed.stderr + checked.stdout
    found = [n for part in parts(tmp_path / "out") for n in pq.read_table(part)["id"].to_pylist()]
    assert sorted(found) == [*range(30, 90), 1000]


def test_parts_of_arrow_are_parquet_unless_the_spec_says_more(tmp_path):
    """Whose types are Arrow's."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.feather", pa.table({"v": [1]}), pa.ipc.new_file, None)
    run(tmp_path, tmp_path / "in", None)

    assert [path.name for path in parts(tmp_path / "out")] == ["part-00000.parquet"]
    assert Path(tmp_path / "out/_SUCCESS").exists()
    assert identity(1) == 1
