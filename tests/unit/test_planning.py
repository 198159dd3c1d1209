"""Shards and their ids over the life of a source: given once, kept for ever, all rows once."""

import io
import json
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner import BatchSpec
from batchrunner.checkpoint import Generation, PlanFacts
from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.plan import Slicer, first_generation, next_generation
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import InputChangedError, InvalidSpecError
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.registry import FileKind
from batchrunner.shard import Slicing
from shards import one_slice

JSONL, PARQUET = FileKind("jsonl"), FileKind("parquet")
MIB = 1 << 20


@dataclass
class Folder:
    """Files of JSON lines, with listings of them; each change gives a file new rows."""

    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    removed: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    versions: int = 0
    opened: list[str] = field(default_factory=list)

    def put(self, name, rows):
        self.versions += 1
        lines = (json.dumps({"of": self.versions, "n": n}) for n in range(rows))
        text = "".join(f"{line}\n" for line in lines).encode()
        self.files[f"/in/{name}"] = (str(self.versions), text)

    def remove(self, name):
        if f"/in/{name}" in self.files:
            self.removed[f"/in/{name}"] = self.files.pop(f"/in/{name}")

    def bring_back(self, name):
        """Undo a removal: the very same file, as a mount does that comes back."""
        if f"/in/{name}" in self.removed:
            self.files[f"/in/{name}"] = self.removed.pop(f"/in/{name}")

    def listed(self):
        return [
            SourceFile(uri, len(data), identity, JSONL)
            for uri, (identity, data) in sorted(self.files.items())
        ]

    def open(self, file):
        self.opened.append(file.uri)
        identity, data = self.files[file.uri]
        assert identity == file.identity
        return io.BytesIO(data)

    def rows(self, shard):
        """Return what a worker reads; the file must be the one that was planned."""
        return [row for piece in shard.slices for row in self._rows(piece)]

    def _rows(self, piece):
        identity, data = self.files[piece.uri]
        assert (piece.identity, piece.size) == (identity, len(data))
        chunks = read_jsonl(io.BytesIO(data), piece, compression=None, columns=None)
        return [row for chunk in chunks for row in chunk.rows(0, len(chunk))]


def a_spec(*, limit=None, shard=None, **sink):
    source = {"uri": "/in", "limit": limit, "shard": shard}
    return BatchSpec(capability="a:b", source=source, sink={"uri": "/out", **sink})


def first(folder, **fields):
    return first_generation(a_spec(**fields), folder.listed(), Slicer(folder.open))


def after(folder, generations, *, accept=True, **fields):
    return next_generation(
        a_spec(**fields),
        StoredPlan.of(generations),
        folder.listed(),
        slicer=Slicer(folder.open),
        accept_vanished=accept,
    )


def sources(plan):
    return [(shard.id, piece.uri.removeprefix("/in/")) for shard in plan for piece in shard.slices]


NAMES = st.sampled_from(["a", "b", "c", "d"])
CHANGES = st.lists(
    st.tuples(st.just("put"), NAMES, st.integers(0, 6))
    | st.tuples(st.sampled_from(["remove", "bring_back"]), NAMES),
    max_size=4,
)
SHARDINGS = st.sampled_from(
    [None, {"rows": 1}, {"rows": 4}, {"bytes": 4096}, {"files": 1}, {"files": 3}]
)


@given(history=st.lists(CHANGES, min_size=1, max_size=5), shard=SHARDINGS)
@settings(max_examples=150)
def test_whatever_happens_to_a_source_every_row_is_in_one_active_shard(history, shard):
    """New, changed, emptied, vanished and returning files: no row lost, none twice, no id reused."""
    folder, generations, known = Folder(), [], {}
    for changes in history:
        for change, *arguments in changes:
            getattr(folder, change)(*arguments)

        if generations:
            made = after(folder, generations, shard=shard)
        else:
            made = first(folder, shard=shard)
        generations += [made] if made else []
        plan = StoredPlan.of(generations)

        ids = [one.id for one in made.shards] if made else []
        assert ids == list(range(len(known), len(known) + len(ids)))
        known.update({one.id: one for one in (*plan.active, *plan.retired) if one.id in ids})
        assert {one.id: one for one in (*plan.active, *plan.retired)} == known
        assert sorted((row["of"], row["n"]) for one in plan.active for row in folder.rows(one)) == [
            (int(version), n)
            for version, data in sorted(folder.files.values(), key=lambda f: int(f[0]))
            for n in range(data.count(b"\n"))
        ]
        assert after(folder, generations, accept=False, shard=shard) is None


@given(history=st.lists(CHANGES, min_size=1, max_size=5), limit=st.integers(1, 12))
@settings(max_examples=100)
def test_with_a_limit_never_more_rows_are_taken_and_none_twice(history, limit):
    """Whatever the source does."""
    folder, generations = Folder(), []
    for changes in history:
        for change, *arguments in changes:
            getattr(folder, change)(*arguments)
        made = (
            after(folder, generations, limit=limit) if generations else first(folder, limit=limit)
        )
        generations += [made] if made else []

        active = StoredPlan.of(generations).active
        taken = [(row["of"], row["n"]) for one in active for row in folder.rows(one)]
        assert len(taken) == len(set(taken)) <= limit
        assert len(taken) == sum(one.rows for one in active)


@given(rows=st.lists(st.integers(0, 5), max_size=5), limit=st.integers(1, 30))
def test_a_new_run_takes_the_first_rows(rows, limit):
    """As many as there are, up to the limit, and opens no file behind it."""
    folder = Folder()
    for number, count in enumerate(rows):
        folder.put(f"{number}", count)

    plan = first(folder, limit=limit)

    taken = [(row["of"] - 1, row["n"]) for shard in plan.shards for row in folder.rows(shard)]
    assert taken == [(f, n) for f, count in enumerate(rows) for n in range(count)][:limit]
    assert set(folder.opened) == {shard.first.uri for shard in plan.shards}


def three_files():
    folder = Folder()
    for name in ("b", "a", "c"):
        folder.put(name, 2)
    return folder


def test_ids_follow_the_order_of_the_source():
    """So parts sort as their rows do."""
    assert sources(first(three_files()).shards) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_new_file_gets_the_next_ids_wherever_it_sorts():
    """Renumbering would make every part one of another file."""
    folder = three_files()
    generations = [first(folder)]
    folder.put("aa", 2)

    added = after(folder, generations)

    assert (sources(added.shards), added.retired) == ([(3, "aa")], ())


def test_a_changed_file_retires_its_shards_and_gets_new_ones():
    """Its published parts stay as they are, out of the way."""
    folder = three_files()
    generations = [first(folder, shard={"rows": 1})]
    folder.put("b", 1)

    generations.append(after(folder, generations, shard={"rows": 1}))

    plan = StoredPlan.of(generations)
    assert generations[1].retired == (2, 3)
    assert sources(plan.active) == [(0, "a"), (1, "a"), (4, "c"), (5, "c"), (6, "b")]
    assert sources(plan.retired) == [(2, "b"), (3, "b")]
    assert (plan.later, plan.generations) == ((generations[1],), 2)


def test_a_changed_file_of_a_pack_retires_that_shard_and_no_other():
    """Its neighbours get new shards with it, since its part has their rows; the rest stays."""
    folder = Folder()
    for name in "abcdef":
        folder.put(name, 2)
    generations = [first(folder, shard={"files": 2})]
    folder.put("c", 1)
    folder.put("g", 1)

    generations.append(after(folder, generations, shard={"files": 2}))

    plan = StoredPlan.of(generations)
    assert generations[1].retired == (1,)
    assert sources(plan.active) == [
        *[(0, "a"), (0, "b"), (2, "e"), (2, "f")],
        *[(3, "c"), (3, "d"), (4, "g")],
    ]


def test_a_vanished_file_of_a_pack_takes_only_its_own_rows_out():
    """The others of its shard are read again."""
    folder = Folder()
    for name in "abcd":
        folder.put(name, 2)
    generations = [first(folder, shard={"files": 4})]
    folder.remove("b")

    generations.append(after(folder, generations, shard={"files": 4}))

    assert sources(StoredPlan.of(generations).active) == [(1, "a"), (1, "c"), (1, "d")]


@pytest.mark.parametrize("change", ["size", "identity"])
def test_either_size_or_identity_shows_that_a_file_changed(change):
    """A disk may give a changed file its old time, an ETag may repeat."""
    folder = three_files()
    generations = [first(folder)]
    identity, data = folder.files["/in/b"]
    new = (identity, data[:-17]) if change == "size" else ("other", data)
    folder.files["/in/b"] = new

    assert after(folder, generations).retired == (1,)


def test_vanished_files_are_named_and_nothing_is_planned():
    """A mount that is not there looks like a source without files."""
    folder = three_files()
    generations = [first(folder)]
    folder.remove("a")
    folder.remove("c")
    folder.put("d", 1)

    with pytest.raises(InputChangedError) as refusal:
        after(folder, generations, accept=False)

    assert "2 source file(s) of the plan are gone:\n  /in/a\n  /in/c\n" in str(refusal.value)
    assert "--accept-changes" in str(refusal.value)


def test_of_a_thousand_vanished_files_a_few_are_named():
    """The message must fit on a screen."""
    folder = Folder()
    for number in range(1000):
        folder.put(f"{number:03d}", 1)
    generations = [first(folder)]
    folder.files.clear()

    with pytest.raises(InputChangedError, match="and 990 more") as refusal:
        after(folder, generations, accept=False)

    assert len(str(refusal.value).splitlines()) < 15


def test_vanished_files_that_are_accepted_are_retired():
    """Their rows go out of the output."""
    folder = three_files()
    generations = [first(folder)]
    folder.remove("a")

    generations.append(after(folder, generations))

    assert generations[1] == Generation(generations[0].facts, (), (0,))
    assert after(folder, generations, accept=False) is None


def test_a_vanished_file_that_comes_back_gets_new_ids():
    """Its old part has gone out of the way."""
    folder = three_files()
    generations = [first(folder)]
    folder.remove("a")
    generations.append(after(folder, generations))
    folder.bring_back("a")

    assert sources(after(folder, generations).shards) == [(3, "a")]


def test_new_files_are_cut_as_the_first_ones_were():
    """Whatever the spec would choose by now: only the first plan decides."""
    folder = three_files()
    generations = [first(folder, shard={"rows": 1})]
    folder.put("d", 3)

    added = after(folder, generations, shard={"files": 1})

    assert sources(added.shards) == [(6, "d"), (7, "d"), (8, "d")]
    assert added.facts == generations[0].facts


def of_size(*sizes, kind=JSONL):
    return [SourceFile(f"/in/{n}", size, "1", kind) for n, size in enumerate(sizes)]


def plan_of(files, **fields):
    return first_generation(a_spec(**fields), files, Slicer(pytest.fail))


@pytest.mark.parametrize(
    ("total", "shard"),
    [
        (1, MIB),
        (100 * MIB, MIB),
        (1024 * MIB, 4 * MIB),
        (8 * 1024 * MIB, 32 * MIB),
        (1024 * 1024 * MIB, 32 * MIB),
    ],
)
def test_by_default_there_are_some_hundred_shards_of_1_to_32_mib(total, shard):
    """Enough to spread and to lose little, not so many that each costs more than its work."""
    plan = plan_of(of_size(total))

    assert (plan.facts.unit, plan.facts.count) == ("bytes", shard)
    assert len(plan.shards) == max(1, round(total / shard))


def test_a_few_small_files_are_a_shard_each():
    """As many workers find work."""
    assert sources(plan_of(of_size(5, 5, 5)).shards) == [(0, "0"), (1, "1"), (2, "2")]


@pytest.mark.parametrize(
    ("shard", "facts"),
    [
        ({"bytes": 4096}, ("bytes", 4096)),
        ({"files": 1}, ("files", 1)),
        ({"row_groups": 3}, ("row_groups", 3)),
        ({"rows": 7}, ("rows", 7)),
    ],
)
def test_the_spec_may_say_how_large_a_shard_is(shard, facts):
    """By exactly one measure."""
    plan = plan_of([], shard=shard)

    assert (plan.facts.unit, plan.facts.count) == facts


def test_row_groups_are_for_parquet():
    """JSON lines have none."""
    with pytest.raises(InvalidSpecError, match="row_groups is for Parquet"):
        plan_of(of_size(5), shard={"row_groups": 1})


@pytest.mark.parametrize(("shards", "width"), [(1, 5), (100_000, 5), (100_001, 6)])
def test_names_have_as_many_digits_as_the_first_plan_needs(shards, width):
    """At least five, so that a few more files later still sort."""
    plan = plan_of(of_size(shards * 4096), shard={"bytes": 4096})

    assert (len(plan.shards), plan.facts.width) == (shards, width)


@pytest.mark.parametrize(
    ("kind", "sink", "expected"),
    [
        (JSONL, {}, ("jsonl", "none")),
        (PARQUET, {}, ("parquet", "snappy")),
        (JSONL, {"format": "parquet"}, ("parquet", "snappy")),
        (PARQUET, {"format": "jsonl", "compression": "zst"}, ("jsonl", "zst")),
        (FileKind("jsonl", "gz"), {}, ("jsonl", "none")),
    ],
)
def test_parts_are_written_as_the_sink_says_or_else_as_the_source_is(kind, sink, expected):
    """Compression is not inherited: what reads the source need not read the sink."""
    facts = plan_of(of_size(5, kind=kind), **sink).facts

    assert (facts.format, facts.compression) == expected


UNFIT = [
    (
        JSONL,
        {"schema": {"id": "string"}},
        "sink.schema: a schema needs the format parquet, csv or tsv; .*jsonl",
    ),
    (JSONL, {"compression": "gzip"}, "sink.compression: the format jsonl takes .* none, gz, zst; "),
    (PARQUET, {"compression": "gz"}, "sink.compression: the format parquet takes .*; .* parquet: "),
]


@pytest.mark.parametrize(("kind", "sink", "message"), UNFIT)
def test_what_the_format_of_the_source_does_not_take_is_refused(kind, sink, message):
    """A schema that nothing applies, or a part that cannot be written."""
    with pytest.raises(InvalidSpecError, match=message):
        plan_of(of_size(5, kind=kind), **sink)


def test_what_the_format_of_the_parts_so_far_does_not_take_is_refused():
    """Accepting the change of the spec does not make other parts of them."""
    folder = three_files()
    generations = [first(folder)]

    with pytest.raises(InvalidSpecError, match=r"sink\.schema: a schema needs the format parquet"):
        after(folder, generations, schema={"id": "string"})


def test_a_shard_knows_its_file_as_it_was_listed():
    """A worker reads that very file, or none."""
    [shard] = plan_of(of_size(77)).shards

    assert shard == one_slice(0, "/in/0", Slicing.BYTES, 0, 77, 77, "1", None, 77)


def test_parquet_is_planned_from_footers():
    """Whole files need not even that."""
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": list(range(10))}), buffer, row_group_size=4)
    data = buffer.getvalue().to_pybytes()
    files = of_size(len(data), len(data), kind=PARQUET)

    plan = first_generation(
        a_spec(shard={"row_groups": 1}), files, Slicer(lambda _: io.BytesIO(data))
    )

    assert [(shard.first.uri, shard.first.start, shard.rows) for shard in plan.shards] == [
        (uri, start, rows) for uri in ("/in/0", "/in/1") for start, rows in ((0, 4), (1, 4), (2, 2))
    ]
    assert len(plan_of(files).shards) == 2


def test_a_stored_plan_without_shards_is_a_plan():
    """The source had empty files only; more may come."""
    plan = StoredPlan.of([Generation(PlanFacts(5, "jsonl", "none", "bytes", 1), ())])

    assert (plan.active, plan.retired, plan.generations) == ((), (), 1)


def test_two_surveys_of_one_run_read_a_file_once():
    """The second is made under the lease, a moment after the first; rows are counted by reading all."""
    folder = Folder()
    folder.put("a", 6)
    spec, slicer = a_spec(shard={"rows": 2}), Slicer(folder.open)

    plans = [first_generation(spec, folder.listed(), slicer) for _ in range(2)]
    assert plans[0] == plans[1]
    assert folder.opened == ["/in/a"]

    folder.put("a", 4)
    changed = first_generation(spec, folder.listed(), slicer)
    assert ([shard.rows for shard in changed.shards], len(folder.opened)) == ([2, 2], 2)
