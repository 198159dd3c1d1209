"""Files that others collected to break parsers, below the folder that OUTSIDE_CORPORA names.

They are not ours to ship: `git clone https://github.com/nst/JSONTestSuite` and
`https://github.com/apache/arrow-testing` there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from batchrunner.errors import ShardFailedError
from batchrunner.formats.contract import RecordReader, Sharding
from batchrunner.formats.registry import file_kind, format_named
from batchrunner.shard import Slice, Slicing
from forks import in_child

ROOT = Path(os.environ.get("OUTSIDE_CORPORA", "/nowhere"))


def files_of(folder, *patterns):
    found = sorted(path for pattern in patterns for path in ROOT.joinpath(folder).glob(pattern))
    return found or [
        pytest.param(None, marks=pytest.mark.skip("OUTSIDE_CORPORA has no such files"))
    ]


def read(path):
    """Rows and bad rows of a file, by position; a string if it fails."""
    data = path.read_bytes()
    made = format_named(file_kind(path.name).format)
    piece = Slice(path.name, Slicing.FILE, 0, len(data), len(data), "1")
    found = []
    try:
        chunks = made.read(io.BytesIO(data), piece, compression=None, columns=None, partition=())
        for chunk in chunks:
            found += zip(chunk.positions(), chunk.rows(0, len(chunk)), strict=True)
            found += [(bad.position.at, None) for bad in chunk.bad]
    except ShardFailedError as error:
        return str(error)
    reader = made.second_reader()
    assert isinstance(reader, RecordReader)
    records = reader.records(io.BytesIO(data), piece, wanted=None, compression=None)
    assert [at for some in records for at, _ in some] == sorted(at for at, _ in found)
    return [row for _, row in sorted(found, key=lambda item: item[0])]


def parsed(path):
    """What the standard library makes of a file: strictly, as the rules of rows say."""

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def refused(name):
        raise ValueError(name)

    text = path.read_bytes().decode().removeprefix("\ufeff")
    return json.loads(text, object_pairs_hook=unique, parse_constant=refused)


def rows_of(value):
    """A row for each object, None for another value."""
    values = value if isinstance(value, list) else [value]
    return [each if isinstance(each, dict) else None for each in values]


@pytest.mark.parametrize(
    "path",
    files_of("JSONTestSuite", "test_parsing/*", "test_transform/*"),
    ids=lambda p: getattr(p, "name", "none"),
)
def test_json_that_breaks_parsers_is_rows_or_refused(path):
    """What a strict parser takes comes out as it was; what it refuses is never a file of good rows."""
    found = read(path)
    try:
        want = rows_of(parsed(path))
    except (ValueError, AssertionError, RecursionError):
        assert isinstance(found, str) or None in found, found
    else:
        assert repr(found) == repr(want)


ARROW = "arrow-testing/data/arrow-ipc-"
GOLDEN = files_of(f"{ARROW}stream/integration", "*/*.stream", "*/*.arrow_file")
FUZZED = files_of(".", f"{ARROW}file/c*", f"{ARROW}stream/c*")
WHOLE = Sharding("files", 1)
REFUSED = ("duplicate_fieldnames", "interval.")
"""Names that stand twice, and types that pyarrow has no values for."""


def tables_of(path, sharding=WHOLE):
    data = path.read_bytes()
    made, how = format_named("arrow"), {"compression": None, "columns": None, "partition": ()}
    cuts = made.cut(
        len(data), compression=None, sharding=sharding, limit=None, opened=lambda: io.BytesIO(data)
    )
    return [
        chunk
        for cut in cuts
        for chunk in made.read(
            io.BytesIO(data),
            Slice(path.name, cut.slicing, cut.start, cut.stop, len(data), "1", cut.rows),
            **how,
        )
    ]


@pytest.mark.parametrize("sharding", [WHOLE, Sharding("rows", 3), Sharding("bytes", 1)], ids=str)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p and f"{p.parent.name}/{p.name}")
def test_files_that_all_of_arrows_libraries_agree_on_are_read_as_they_are(path, sharding):
    """Of each version since 0.14, in both orders of bytes, with dictionaries shared and compressed."""
    data = path.read_bytes()
    new = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    with new(io.BytesIO(data)) as reader:
        want = reader.read_all()
    if any(name in path.name for name in REFUSED) or len(set(want.column_names)) < want.num_columns:
        with pytest.raises(ShardFailedError):
            tables_of(path)
        return
    chunks = tables_of(path, sharding)
    good = {number for chunk in chunks for number in chunk.positions()}
    bad = {row.position.at for chunk in chunks for row in chunk.bad}
    assert good | bad == set(range(want.num_rows))
    for number in bad:
        with pytest.raises(pa.ArrowInvalid):
            pa.concat_tables([want.slice(number, 1)]).combine_chunks().validate(full=True)
    if not bad and chunks:
        assert pa.concat_tables([chunk.content for chunk in chunks]).equals(want)


@pytest.mark.parametrize("path", FUZZED, ids=lambda p: p and p.name)
def test_files_that_broke_arrow_are_read_or_refused(path):
    """None of them ends the process, or is taken for something that it is not."""

    def read_all():
        for sharding in (WHOLE, Sharding("rows", 3)):
            with contextlib.suppress(ShardFailedError):
                for chunk in tables_of(path, sharding):
                    chunk.content.to_string()

    assert not in_child(read_all)
