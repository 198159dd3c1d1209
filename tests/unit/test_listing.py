"""What a row of a sink of files may be: its file is written as it is, or the row fails and no other one."""

from __future__ import annotations

import hashlib
import json

import pytest

from batchrunner.formats.file_paths import checked_path, folded, folders_of
from batchrunner.formats.listing import Listed, Listing, frames, listed_in
from batchrunner.formats.registry import format_named, part_suffix

GOOD = [
    "a",
    "a/b/c.JPG",
    "ä/€ 𝄞.pdf",
    "a b",
    "a.b.c",
    "sub/part-00001.png",
    "parts/a",
    "x" * 255,
    "C:\\x",
    "-",
]
BAD = {
    "../a": "'..'",
    "a/../../b": "'..'",
    "./a": "'.'",
    "/etc/passwd": "absolute",
    "s3://bucket/a": "absolute",
    "a//b": "empty name",
    "a/": "empty name",
    "": "is empty",
    "a\nb": "control character",
    "a\0": "control character",
    "a\x9f": "control character",
    ".hidden/a": "begins with '.'",
    "a/_b": "begins with '_'",
    "_SUCCESS": "begins with '_'",
    "part-00001.jsonl": "a part's name",
    "part-00001.x/a": "a part's name",
    "part-1.x": "a part's name",
    "PART-x/a": "a part's name",
    "ä" * 128: "255 bytes",
    "a/" * 512 + "b": "1,024 bytes",
    "\ud800": "surrogates",
}


def row(path="a", data=b"x", **others):
    return {"path": path, "bytes": data, **others}


def taken_apart(*rows):
    return [(json.loads(bytes(line)), bytes(data)) for line, data in frames(Listing().encode(rows))]


def facts(data):
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_row_is_a_line_and_the_bytes_of_its_file():
    """Columns stay, in value and order; the bytes are none of them."""
    data = bytes(range(256))
    rows = [row("a", data, n=1, s="ä"), {"k": None, "bytes": b"", "path": "b"}]

    (first, one), (second, none) = taken_apart(*rows)

    assert (one, none) == (data, b"")
    assert first == {"path": "a", "n": 1, "s": "ä", **facts(data)}
    assert list(second) == ["k", "path", "size", "sha256"]


@pytest.mark.parametrize("path", GOOD)
def test_a_path_below_the_sink_is_kept_as_it_is(path):
    """Whatever its letters are: a path is never rewritten."""
    assert checked_path(path) == path
    assert taken_apart(row(path))[0][0]["path"] == path


@pytest.mark.parametrize(("path", "why"), BAD.items())
def test_a_path_that_may_lead_elsewhere_or_hide_fails_its_row(path, why):
    """Nothing is written out of the sink, over a record, or where a reader skips it."""
    with pytest.raises(ValueError, match=why):
        Listing().encode([row(path)])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"bytes": b"x"}, "needs a 'path'"),
        (row(7), "needs a 'path'"),
        ({"path": "a"}, "needs 'bytes'"),
        (row(data="text"), "of type str"),
        (row(data=None), "of type NoneType"),
        (row(size=2), "'size' of a sink of files is that of the file, 1"),
        (row(sha256="0"), "'sha256' of a sink of files is"),
        (row(data=bytes((64 << 20) + 1)), "67,108,865 bytes; at most 67,108,864"),
        (row(score=float("nan")), "'score'"),
        ("a", "must be a dict"),
    ],
)
def test_a_row_without_a_file_or_with_other_facts_fails(bad, why):
    """What cannot be listed exactly is no row of the part."""
    with pytest.raises(ValueError, match=why):
        Listing().encode([bad])


def test_facts_that_are_those_of_the_file_may_be_there():
    """Rows of a source of files have a size, too."""
    assert taken_apart(row(size=1))[0][0] == {"path": "a", **facts(b"x")}


def test_a_part_has_the_lines_alone():
    """The bytes are in their files, and not stored twice."""
    rows = [row("a"), row("b", b"12", n=1)]
    lines = Listing().in_part(Listing().encode(rows)).splitlines()

    assert [listed_in(line) for line in lines] == [
        Listed("a", *facts(b"x").values()),
        Listed("b", *facts(b"12").values()),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"path": "a", "size": "1", "sha256": "x"}',
        b'{"path": "../a", "size": 1, "sha256": ""}',
    ],
)
def test_a_damaged_line_lists_no_file(line):
    """A driver moves and removes what a part lists: nothing out of the sink."""
    with pytest.raises(ValueError, match=r"lists no file|the path"):
        listed_in(line)


def test_a_sink_of_files_has_parts_of_lines_and_a_source_has_none():
    """One word in the spec, for two formats."""
    made = format_named("files")

    assert (part_suffix("files", "none"), made.of_parts.publishes_files) == (".jsonl", True)
    assert (made.publishes_files, made.keeps_schema, made.of_parts.keeps_schema) == (
        False,
        True,
        False,
    )


@pytest.mark.parametrize(
    ("one", "other"), [("A/b.JPG", "a/B.jpg"), ("é", "e\u0301"), ("É.x", "e\u0301.X"), ("ß", "SS")]
)
def test_paths_that_some_disks_take_for_one_are_one(one, other):
    """They would be one file after a copy to such a disk."""
    assert folded(one) == folded(other)
    assert folded(one) != folded(one + "x")


def test_the_folders_of_a_path_come_innermost_first():
    """A file may have the name of none of them."""
    assert list(folders_of("a/b/c")) == ["a/b", "a"]
    assert list(folders_of("a")) == []
