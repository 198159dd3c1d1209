"""Which rows a tar holds, which of its samples are none, and which files are no tar."""

import contextlib
import io
import json
import re
import tarfile
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import ShardFailedError
from batchrunner.formats import tar_members
from batchrunner.formats.contract import Sharding
from batchrunner.formats.registry import FileKind, file_kind
from batchrunner.formats.tar import Tar
from batchrunner.shard import Slice, Slicing
from tars import compressed, member, tar_of

TAR = Tar()


def a_shard(data, slicing=Slicing.FILE, start=0, stop=None):
    return Slice("in.tar", slicing, start, len(data) if stop is None else stop, len(data), "1")


def read(data, shard=None, *, compression=None, columns=None):
    """Return rows and, by position, the reasons of bad ones."""
    file, shard = io.BytesIO(data), shard or a_shard(data)
    chunks = list(TAR.read(file, shard, compression=compression, columns=columns, partition=()))
    rows = [row for chunk in chunks for row in chunk.rows(0, len(chunk))]
    return rows, {bad.position.at: bad.reason for chunk in chunks for bad in chunk.bad}


def again(data):
    """Return what the second reader finds: rows, and how many are none."""
    reader, rows, bad = TAR.second_reader(), [], 0
    file = io.BytesIO(data)
    for some in reader.records(file, a_shard(data), wanted=None, compression=None):
        for _, record in some:
            try:
                rows.append(reader.row_of(record))
            except ValueError:
                bad += 1
    return rows, bad


def test_members_with_one_key_are_one_row():
    """The key ends at the first dot of the base name; the rest is the column, in lower case."""
    data = tar_of(
        member("./a.b/01.jpg", b"\xff"),
        member("./a.b/01.seg.PNG", b""),
        member("./a.b/02.jpg", b"2"),
        member("c/02.jpg", b"3"),
    )
    rows = [
        {"__key__": "./a.b/01", "jpg": b"\xff", "seg.png": b""},
        {"__key__": "./a.b/02", "jpg": b"2"},
        {"__key__": "c/02", "jpg": b"3"},
    ]

    assert read(data) == (rows, {})
    assert again(data) == (rows, 0)


def test_folders_and_hidden_names_are_no_rows_and_part_no_sample():
    """Such as what macOS adds, and what WebDataset keeps for itself."""
    data = tar_of(
        member("in/", b"", type=tarfile.DIRTYPE),
        member("in/._1.jpg", b"x"),
        member("in/1.jpg", b"1"),
        member("in/.git/config.txt", b"x"),
        member("in/1.cls", b"0"),
        member("__meta__/info.json", b"x"),
    )
    rows = [{"__key__": "in/1", "jpg": b"1", "cls": b"0"}]

    assert read(data) == (rows, {})
    assert again(data) == (rows, 0)


def test_what_git_archive_and_others_say_of_all_members_is_passed_over():
    """A comment is no member; both readers have the samples at the same offsets."""
    said = tarfile.TarInfo.create_pax_global_header({"comment": "0a1b"})
    data = tar_of(said, member("1.jpg", b"1"), said, member("2.jpg", b"2"))

    assert offsets(data) == offsets_again(data) == [1024, 3072]
    assert again(data) == (read(data)[0], 0)


BAD = {
    "no extension": ([member("README", b"x")], "'README' has no extension"),
    "two of one column": (
        [member("1.jpg", b"1"), member("1.JPG", b"2"), member("1.txt", b"3")],
        "'1.JPG': the sample has a column 'jpg' already",
    ),
    "a column of ours": ([member("1.__key__", b"x")], "column '__key__' already"),
    "a link": (
        [member("1.txt", b"3"), member("1.jpg", b"", type=tarfile.SYMTYPE, linkname="../0.jpg")],
        "'1.jpg' is a link to '../0.jpg': make the tar with --dereference",
    ),
    "a hard link": (
        [member("1.jpg", b"", type=tarfile.LNKTYPE, linkname="0.jpg")],
        "'1.jpg' is a link to '0.jpg'",
    ),
    "a pipe": ([member("1.jpg", b"", type=tarfile.FIFOTYPE)], "'1.jpg' is no plain file"),
    "no text": ([member("\udcff.jpg", b"x")], r"the name '\udcff.jpg' is no UTF-8"),
}


@pytest.mark.parametrize(("members", "reason"), BAD.values(), ids=BAD)
def test_a_sample_that_is_no_row_is_one_dead_letter(members, reason):
    """It is named, and the samples around it are rows: nothing is passed over in silence."""
    before, after = member("0.jpg", b"0"), member("2.jpg", b"2")
    data = tar_of(before, *members, after)
    rows, bad = read(data)

    assert [row["__key__"] for row in rows] == ["0", "2"]
    assert list(bad) == [len(before)]
    assert reason in bad[len(before)]
    assert again(data) == (rows, 1)


def test_a_dead_letter_shows_the_members_and_their_sizes():
    """Their bytes are in the file; a person looks for the name."""
    data = tar_of(member("a/1.jpg", b"12345"), member("a/1.jpg", b"1"))
    (chunk,) = TAR.read(
        io.BytesIO(data), a_shard(data), compression=None, columns=None, partition=()
    )

    assert json.loads(chunk.bad[0].position.raw) == {"__key__": "a/1", "jpg": 1}
    assert str(chunk.bad[0].position) == "byte 0"


def test_a_sample_that_is_too_large_is_a_dead_letter_and_is_not_held(monkeypatch):
    """A worker has 256 MiB beside the model."""
    monkeypatch.setattr(tar_members, "MAX_ROW_BYTES", 9)
    rows, bad = read(tar_of(member("1.a", b"12345"), member("1.b", b"12345"), member("2.a", b"")))

    assert [row["__key__"] for row in rows] == ["2"]
    assert "10 bytes or more; at most 9 are read" in bad[0]


DAMAGED = {
    "no tar": (b"x" * 2048, "no header of a member at byte 0"),
    "no end": (tar_of(member("1.jpg", b"1"), end=b""), "no header of a member at byte 1,024"),
    "cut in a member": (tar_of(member("1.jpg", bytes(5000)))[:2000], "ends at byte 2,000, inside"),
    "cut in a header": (tar_of(member("1.jpg", b"1"))[:300], "no header of a member at byte 0"),
    "cut in its end": (tar_of(member("1.jpg", b"1"))[:-3], "ends inside a block"),
    "another tar behind": (tar_of([], member("1.jpg", b"1")) * 2, "data behind the end"),
    "bits that flipped": (
        tar_of(member("1.jpg", b"1"), member("2.jpg", b"1").replace(b"2.jpg", b"3.jpg")),
        "no header of a member at byte 1,024",
    ),
    "names for all": (
        tarfile.TarInfo.create_pax_global_header({"path": "x.jpg"}) + tar_of(member("1.jpg", b"1")),
        "sets 'path' for all members",
    ),
}


@pytest.mark.parametrize(("data", "reason"), DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("compression", [None, *TAR.outer])
def test_a_damaged_file_fails_its_shard_and_is_named(data, reason, compression):
    """Rows behind the damage are not lost in silence, as tarfile and WebDataset lose them."""
    data = compressed(data, compression)
    with pytest.raises(ShardFailedError, match="cannot be read as a tar: ") as failure:
        read(data, compression=compression)
    assert reason in str(failure.value)
    for sharding in (Sharding("rows", 1), Sharding("files", 1)):
        (whole,) = TAR.cut(
            len(data),
            compression=compression,
            sharding=sharding,
            limit=None,
            opened=lambda: io.BytesIO(data),
        )
        assert whole.slicing is Slicing.FILE


@pytest.mark.parametrize("compression", TAR.outer)
def test_a_compressed_file_that_is_cut_short_fails_its_shard(compression):
    """Wherever it is cut."""
    whole = compressed(tar_of(*[member(f"{n}.jpg", b"1") for n in range(9)]), compression)
    for size in range(1, len(whole)):
        with pytest.raises(ShardFailedError, match="cannot be read"):
            read(whole[:size], compression=compression)


def test_a_tar_without_samples_has_no_rows():
    """Two blocks of zeros are an archive."""
    assert read(bytes(1024)) == ([], {})
    assert read(bytes(10_240)) == ([], {})


def test_only_rows_cut_a_file():
    """Other cuts would read all headers, which a plan must not do without being asked."""
    data = tar_of(*[member(f"{n}.jpg", b"1") for n in range(5)])

    def cut(unit, compression=None):
        return TAR.cut(
            len(data),
            compression=compression,
            sharding=Sharding(unit, 2),
            limit=None,
            opened=lambda: io.BytesIO(data),
        )

    assert [piece.rows for piece in cut("rows")] == [2, 2, 1]
    assert [piece.slicing for piece in (*cut("bytes"), *cut("files"), *cut("rows", "gz"))] == [
        Slicing.FILE
    ] * 3


@pytest.mark.parametrize(("size", "jumps"), [(9000, 0), (1 << 20, 6)])
def test_only_large_members_are_jumped_over_to_find_the_headers(size, jumps):
    """In a bucket each jump is a request, and bytes that are read on come by the megabyte."""
    data = tar_of(*[member(f"{n}.bin", bytes(size)) for n in range(6)])
    seeks = []

    class Counted(io.BytesIO):
        def seek(self, *to):
            seeks.append(to)
            return super().seek(*to)

    pieces = TAR.cut(
        len(data),
        compression=None,
        sharding=Sharding("rows", 2),
        limit=None,
        opened=lambda: Counted(data),
    )

    assert ([piece.rows for piece in pieces], len(seeks)) == ([2, 2, 2], jumps)


def test_the_names_of_compressed_tars_are_known():
    """Also the short ones."""
    names = {
        "a.tar": None, "a.tar.gz": "gz", "A.TGZ": "gz", "a.tar.zst": "zst", "a.tzst": "zst",
        "a.tar.bz2": "bz2", "a.tbz2": "bz2", "a.tar.xz": "xz", "a.txz": "xz",
    }  # fmt: skip
    assert {name: file_kind(name) for name in names} == {
        name: FileKind("tar", compression) for name, compression in names.items()
    }


NAMES = st.text(st.sampled_from("abÄ€ "), min_size=1, max_size=8) | st.integers(1, 300).map(
    "d".__mul__
)
ENDS = st.sampled_from(["jpg", "JPG", "seg.png", "txt", "€"])
MEMBERS = st.lists(st.tuples(NAMES, NAMES, ENDS, st.binary(max_size=1500)), max_size=8)
LAYOUTS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


@given(members=MEMBERS, layout=LAYOUTS, time=st.sampled_from([0, 1.5, 8**12]))
def test_whatever_tarfile_writes_is_read_by_both_readers_as_it_was(members, layout, time):
    """In each of the three layouts, with long names and names beyond ASCII."""
    data, held = an_archive(members, layout, time)
    rows, bad = read(data)
    expected = [by_name(group) for _, group in groupby(held, lambda one: one[0])]

    assert rows == [row for row in expected if row]
    assert len(bad) == expected.count(None)
    assert again(data) == (rows, len(bad))
    assert offsets(data) == offsets_again(data)


def offsets(data):
    """Where the first reader finds samples, good or bad."""
    chunks = TAR.read(io.BytesIO(data), a_shard(data), compression=None, columns=None, partition=())
    return sorted(
        at for c in chunks for at in (*c.positions(), *(bad.position.at for bad in c.bad))
    )


def offsets_again(data):
    """Where the second one does."""
    reader = TAR.second_reader()
    records = reader.records(io.BytesIO(data), a_shard(data), wanted=None, compression=None)
    return [at for some in records for at, _ in some]


def an_archive(members, layout, time):
    """Return an archive, and the key, column and content of what the layout had room for."""
    out, held = io.BytesIO(), []
    with tarfile.open(fileobj=out, mode="w", format=layout) as made:
        for folder, stem, end, content in members:
            info = tarfile.TarInfo(f"{folder}/{stem}.{end}")
            info.size, info.mtime = len(content), time
            with contextlib.suppress(ValueError):  # no room for the name, or the time
                made.addfile(info, io.BytesIO(content))
                held.append((f"{folder}/{stem}", end.lower(), content))
    return out.getvalue(), held


def by_name(group):
    """The row of some members; None if two are one column."""
    members = list(group)
    row = {end: content for _, end, content in members}
    return {"__key__": members[0][0], **row} if len(row) == len(members) else None


EDITS = st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=9)), max_size=4)


@given(members=MEMBERS, layout=LAYOUTS, edits=EDITS, size=st.integers(0, 4000))
def test_whatever_is_in_a_file_fails_its_shard_at_most(members, layout, edits, size):
    """Not the worker, and not the plan: headers with checksums that fit, and any field in them."""
    data = bytearray(an_archive(members, layout, 1.5)[0][: size or None])
    for at, some in edits:
        data[at : at + len(some)] = some
    whole = bytes(with_checksums(data))
    with contextlib.suppress(ShardFailedError):
        read(whole)
    with contextlib.suppress(OSError, ValueError):
        again(whole)
    for limit in (None, 1):
        TAR.cut(
            len(whole),
            compression=None,
            sharding=Sharding("rows", 1),
            limit=limit,
            opened=lambda: io.BytesIO(whole),
        )


def with_checksums(data):
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return data


# Parts

TEXT = st.text(max_size=6) | st.text(st.sampled_from("ab./_\0 ä"), max_size=6)
ROWS = st.lists(
    st.tuples(TEXT, st.dictionaries(TEXT, st.binary(max_size=600), max_size=3)), max_size=5
).map(lambda rows: [{"__key__": key, **columns} for key, columns in rows])


@given(rows=ROWS)
def test_a_row_is_read_back_as_it_was_or_is_refused(rows):
    """Whatever the names are: no member gets into another sample, or under another name."""
    kept = [row for row in rows if can_be_written(row)]
    apart = [
        row for at, row in enumerate(kept) if not at or kept[at - 1]["__key__"] != row["__key__"]
    ]
    data = a_part(apart)

    assert read(data) == (apart, {})
    assert again(data) == (apart, 0)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        assert [info.name for info in opened] == [
            f"{row['__key__']}.{name}" for row in apart for name in row if name != "__key__"
        ]
    assert offsets(data) == offsets_again(data)


def can_be_written(row):
    try:
        return bool(TAR.encode([row]))
    except ValueError:
        return False


def a_part(*batches, compression="none"):
    """Return a part of *batches* of rows, or of single rows."""
    out = io.BytesIO()
    out.close = lambda: None
    writer = TAR.writer(out, compression=compression, settle=None, restart=None)
    for rows in batches:
        if rows:
            writer.append(TAR.encode([rows] if isinstance(rows, dict) else rows))
    writer.close()
    return out.getvalue()


REFUSED = [
    ({"jpg": b"1"}, "a sample needs a __key__"),
    ({"__key__": 1, "jpg": b"1"}, "this row has 1"),
    ({"__key__": "a"}, "has no column beside __key__"),
    ({"__key__": "a", "txt": "1"}, "the value of 'txt' is of type str, and a tar holds bytes"),
    ({"__key__": "a", "txt": None}, "of type NoneType"),
    ({"__key__": "a.b", "jpg": b""}, "'a.b.jpg' would not be read back"),
    ({"__key__": "a", "JPG": b""}, "would not be read back as the column 'JPG'"),
    ({"__key__": "a", "b/c": b""}, "would not be read back"),
    ({"__key__": ".git/a", "jpg": b""}, "would not be read back"),
    ({"__key__": "__x__", "jpg": b""}, None),
    ({"__key__": "", "jpg": b""}, "would not be read back"),
    ({"__key__": "a\0b", "jpg": b""}, "would not be read back"),
    ({"__key__": "a\ud800", "jpg": b""}, "surrogates not allowed"),
]


@pytest.mark.parametrize(("row", "reason"), REFUSED, ids=[repr(row) for row, _ in REFUSED])
def test_a_row_that_would_be_another_is_refused(row, reason):
    """With the column, and the way out."""
    if reason is None:
        assert read(a_part(row)) == ([row], {})
        return
    with pytest.raises(ValueError, match=re.escape(reason)):
        TAR.encode([row])


def test_rows_that_would_be_one_sample_are_refused():
    """Also where one batch ends and the next begins."""
    rows = [{"__key__": "a", "jpg": b"1"}, {"__key__": "a", "cls": b"2"}]

    with pytest.raises(ValueError, match="two rows with the __key__ 'a' follow each other"):
        TAR.encode(rows)
    with pytest.raises(ValueError, match="two rows with the __key__ 'a' follow each other"):
        a_part(*rows)
    assert len(read(a_part(rows[0], {"__key__": "b", "jpg": b"1"}, rows[1]))[0]) == 3


def test_a_part_depends_on_its_rows_alone():
    """Another attempt, at another time, on another machine, writes the same bytes."""
    row = {"__key__": "ä" * 200, "jpg": b"1"}

    assert a_part(row) == a_part(row)
    with tarfile.open(fileobj=io.BytesIO(a_part(row))) as opened:
        (info,) = opened
    assert (info.mtime, info.uid, info.mode, info.uname) == (0, 0, 0o644, "")
