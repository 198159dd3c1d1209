"""The durable memory of a run: what is written comes back, and what is not whole is never believed."""

import dataclasses
import json
import time
import uuid
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.checkpoint import (
    Checkpoint,
    Generation,
    PlanFacts,
    RunPlace,
    RunRecord,
    Sentinel,
)
from batchrunner.checkpoint.plan_file import plan_from_bytes, plan_to_bytes
from batchrunner.errors import DamagedOutputError, LeaseHeldError, NewerFormatError
from batchrunner.shard import Shard, Slice, Slicing
from batchrunner.storage.json_documents import sealed
from batchrunner.testing.memory import MemoryStorage
from shards import one_slice

COUNT = st.integers(0, 2**63 - 1)
TEXT = st.text()
SENTINELS = st.builds(
    Sentinel,
    run_uid=TEXT,
    shard=COUNT,
    part=TEXT,
    rows_in=COUNT,
    rows_out=COUNT,
    rows_failed=COUNT,
    bytes=COUNT,
    sha256=TEXT,
    write_id=TEXT,
    session=TEXT,
    seconds=st.floats(0, 1e9),
    usage=st.dictionaries(TEXT, st.floats(0, 1e9) | COUNT, max_size=3),
)
RUN_RECORDS = st.builds(
    RunRecord,
    run_uid=TEXT,
    name=TEXT,
    created_at=TEXT,
    created_by=TEXT,
    spec=TEXT,
    decisive=st.dictionaries(TEXT, TEXT, max_size=3),
    fingerprint=TEXT,
)
SLICES = st.builds(
    Slice,
    uri=TEXT,
    slicing=st.sampled_from(Slicing),
    start=COUNT,
    stop=COUNT,
    size=COUNT,
    identity=TEXT,
    rows=st.none() | COUNT,
    weight=COUNT,
    modified=st.none() | COUNT,
)
SHARDS = st.builds(Shard, id=COUNT, slices=st.lists(SLICES, min_size=1, max_size=3).map(tuple))
GENERATIONS = st.builds(
    Generation,
    facts=st.builds(
        PlanFacts,
        width=st.integers(5, 19),
        format=st.sampled_from(["jsonl", "parquet"]),
        compression=TEXT,
        unit=TEXT,
        count=COUNT,
    ),
    shards=st.lists(SHARDS, max_size=4, unique_by=lambda shard: shard.id).map(tuple),
    retired=st.lists(COUNT, max_size=3).map(tuple),
    identities=st.dictionaries(TEXT, TEXT, max_size=3),
    place=st.builds(RunPlace, sink=TEXT, checkpoint=TEXT),
)
FACTS = PlanFacts(5, "jsonl", "none", "bytes", 4096)
MAY_BE_ABSENT = {
    "version",
    *("errors", "errors_sha256", "source_hash"),
    *("worker", "began", "reading", "calling", "writing"),  # of version 1
    *("slices", "slice_rows", "slice_total", "files"),  # of version 2
    "usage",  # of version 3
}
FOREIGN = [b"", b"null", b"[]", b"7", b'"text"', b"{}", b'{"version": 1}', b"\xff\xfe", b"PAR1PAR1"]


def a_sentinel(shard=0, **changes):
    values = {
        "run_uid": "r" * 32,
        "shard": shard,
        "part": FACTS.part(shard),
        "rows_in": 4,
        "rows_out": 3,
        "rows_failed": 0,
        "bytes": 100,
        "sha256": "0" * 64,
        "write_id": "w" * 32,
        "session": "s" * 32,
        "seconds": 0.5,
    }
    return Sentinel(**{**values, **changes})


def a_run_record(**changes):
    return RunRecord(
        **{
            **dict.fromkeys(["run_uid", "name", "created_at", "created_by"], "x"),
            "spec": "",
            "decisive": {"a": "1"},
            "fingerprint": "f",
            **changes,
        }
    )


def a_generation(*ids, retired=()):
    shards = [one_slice(n, f"/in/{n}", Slicing.FILE, 0, 9, 9, "1", None, 9) for n in ids]
    return Generation(FACTS, tuple(shards), retired)


@given(record=SENTINELS | RUN_RECORDS)
def test_a_record_comes_back_as_it_was_written(record):
    """Every field, whatever is in it."""
    assert type(record).from_bytes(record.to_bytes(), key="k") == record


@pytest.mark.parametrize(
    ("record", "word"),
    [(a_sentinel(7), "sentinel"), (a_run_record(spec='a: "{1}"\n'), "record of the run")],
)
def test_a_record_that_is_cut_short_is_damaged_at_every_length(record, word):
    """A disk that lost power may keep any part of it; none may be taken for the whole."""
    data = record.to_bytes()
    for length in range(len(data)):
        with pytest.raises(DamagedOutputError, match=f"k is damaged.* no whole {word}$"):
            type(record).from_bytes(data[:length], key="k")


@pytest.mark.parametrize("kind", [Sentinel, RunRecord])
@pytest.mark.parametrize("data", FOREIGN)
def test_what_is_no_record_is_damaged(kind, data):
    """A user put a file there, or a tool did."""
    with pytest.raises(DamagedOutputError, match="k is damaged"):
        kind.from_bytes(data, key="k")


@pytest.mark.parametrize("record", [a_sentinel(), a_run_record()])
def test_every_field_must_be_there_and_of_its_type(record):
    """A wrong one is named, so that it can be looked for."""
    whole = dataclasses.asdict(record)
    for name in whole.keys() - MAY_BE_ABSENT:
        less = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(DamagedOutputError):
            type(record).from_bytes(sealed(orjson.dumps(less)), key="k")
        for wrong in (None, [], "x" if not isinstance(whole[name], str) else 1):
            with pytest.raises(DamagedOutputError, match=f"k is damaged: its {name} is no"):
                type(record).from_bytes(sealed(orjson.dumps({**whole, name: wrong})), key="k")


@pytest.mark.parametrize("record", [a_sentinel(7), a_run_record()])
def test_a_record_that_was_edited_is_damaged(record):
    """Any byte of it, also a digit that makes another valid number."""
    data = record.to_bytes()
    for at, byte in enumerate(data):
        changed = data[:at] + bytes([byte ^ 1]) + data[at + 1 :]
        with pytest.raises(DamagedOutputError, match="k is damaged"):
            type(record).from_bytes(changed, key="k")


def test_a_sentinel_of_version_1_is_read_without_the_times_that_it_lacks():
    """A run goes on under a newer release, and its report says what is not known."""
    later = ("worker", "began", "reading", "calling", "writing")
    fields = dataclasses.asdict(a_sentinel(source_hash="h"))
    old = {key: value for key, value in fields.items() if key not in later} | {"version": 1}

    read = Sentinel.from_bytes(sealed(orjson.dumps(old)), key="k")

    assert (read.source_hash, read.worker, read.began, read.calling) == ("h", "", 0.0, 0.0)
    assert read.version == 1


def test_a_sentinel_of_version_3_is_read_without_usage():
    """What its calls used is not known, and not nothing."""
    fields = dataclasses.asdict(a_sentinel(usage={"prompt_tokens": 2**60, "cost": 0.1}))
    assert (
        Sentinel.from_bytes(a_sentinel(usage=fields["usage"]).to_bytes(), key="k").usage
        == fields["usage"]
    )

    old = {key: value for key, value in fields.items() if key != "usage"} | {"version": 3}
    assert Sentinel.from_bytes(sealed(orjson.dumps(old)), key="k").usage == {}


@pytest.mark.parametrize("record", [a_sentinel(), a_run_record()])
def test_a_record_of_a_later_version_is_refused_by_name(record):
    """Its fields may mean something else, or be unknown: it is not guessed at."""
    newest = record.version
    later = {**dataclasses.asdict(record), "version": newest + 1, "colour": "blue"}

    refusal = rf"k has format version {newest + 1}.* reads up to {newest}:"
    with pytest.raises(NewerFormatError, match=refusal):
        type(record).from_bytes(sealed(orjson.dumps(later)), key="k")


@given(generation=GENERATIONS)
def test_a_generation_of_the_plan_comes_back_as_it_was_written(generation):
    """Also one that only retires shards."""
    assert plan_from_bytes(plan_to_bytes(generation), key="k") == generation


def test_a_plan_that_is_cut_short_is_damaged_at_every_length():
    """Half a plan would lose half of the rows in silence."""
    data = plan_to_bytes(a_generation(*range(100), retired=(1,)))
    for length in range(0, len(data), 3):
        with pytest.raises(DamagedOutputError, match="k is damaged"):
            plan_from_bytes(data[:length], key="k")


def a_table(metadata):
    buffer = pa.BufferOutputStream()
    table = pa.table({"id": [1]})
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "data",
    [
        *FOREIGN,
        a_table(None),
        a_table({"other": "x"}),
        a_table({"batchrunner": "no json"}),
        a_table({"batchrunner": '{"retired": []}'}),
        a_table({"batchrunner": '{"version": 1, "retired": [], "colour": 1}'}),
        a_table(
            {
                "batchrunner": json.dumps(
                    {
                        "version": 1,
                        "retired": [],
                        "width": 5,
                        "format": "jsonl",
                        "compression": "none",
                        "unit": "bytes",
                        "count": 1,
                    }
                )
            }
        ),
    ],
)
def test_what_is_no_plan_is_damaged(data):
    """Parquet files look alike from outside."""
    with pytest.raises(DamagedOutputError, match="k is damaged"):
        plan_from_bytes(data, key="k")


def test_a_plan_of_version_2_is_read_with_one_slice_a_shard():
    """Its run goes on after an update."""
    data = (Path(__file__).parents[1] / "data/plan-v2/0002.parquet").read_bytes()

    plan = plan_from_bytes(data, key="k")

    assert plan == Generation(
        FACTS,
        (
            one_slice(3, "/in/a.jsonl", Slicing.BYTES, 0, 50, 100, "17", None, 50),
            one_slice(4, "/in/a.jsonl", Slicing.BYTES, 50, 100, 100, "17", None, 50),
            one_slice(5, "/in/b.parquet", Slicing.FILE, 0, 9, 9, "1", 3, 9),
            one_slice(6, "/in/a.jsonl", Slicing.DEAD_LETTERS, 1, 2, 100, "17", 2, 7),
        ),
        retired=(0,),
        identities={"/in/c": "5"},
        place=RunPlace("/out", "/out/_checkpoint"),
    )


def test_a_plan_of_a_later_version_is_refused_by_name():
    """As every record."""
    with pytest.raises(NewerFormatError, match="k has format version 4"):
        plan_from_bytes(a_table({"batchrunner": '{"version": 4, "retired": []}'}), key="k")


def edited(plan, change):
    """The plan as a tool would write it again, with *change* made to its columns and header."""
    table = pq.read_table(pa.BufferReader(plan))
    columns, header = table.to_pydict(), json.loads(table.schema.metadata[b"batchrunner"])
    change(columns, header)
    table = pa.table(columns, schema=table.schema)
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"batchrunner": json.dumps(header)}), buffer)
    return buffer.getvalue().to_pybytes()


A_WHOLE_PLAN = dataclasses.replace(
    a_generation(0, 1, 2, retired=(7,)), identities={"/in/9": "5"}, place=RunPlace("/out", "/ck")
)


@pytest.mark.parametrize(
    "change",
    [
        lambda columns, _: columns["stop"].__setitem__(1, 8),
        lambda columns, _: columns["identity"].__setitem__(0, "2"),
        lambda columns, _: columns["rows"].__setitem__(0, 5),
        lambda columns, _: [column.pop() for column in columns.values()],
        lambda _, header: header["retired"].append(1),
        lambda _, header: header["identities"].update({"/in/0": "9"}),
        lambda _, header: header["place"].update(sink="/other"),
        lambda _, header: header.update(count=4097),
        lambda _, header: header.update(version=1),
        lambda _, header: header.pop("check"),
    ],
)
def test_a_plan_that_was_edited_is_damaged(change):
    """It decides which rows are read: one number other, and rows are lost or come twice."""
    plan = plan_to_bytes(A_WHOLE_PLAN)
    assert plan_from_bytes(edited(plan, lambda *_: None), key="k") == A_WHOLE_PLAN

    with pytest.raises(DamagedOutputError, match="k is damaged: it was changed after"):
        plan_from_bytes(edited(plan, change), key="k")


def test_no_flipped_bit_makes_another_plan():
    """A disk may flip any: the plan is then the same, or damaged."""
    plan = plan_to_bytes(A_WHOLE_PLAN)
    damaged = 0
    for at in range(0, len(plan), 3):
        flipped = plan[:at] + bytes([plan[at] ^ 1 << at % 8]) + plan[at + 1 :]
        try:
            assert plan_from_bytes(flipped, key="k") == A_WHOLE_PLAN
        except DamagedOutputError:
            damaged += 1
    assert damaged > len(plan) // 10


def test_a_plan_of_version_1_has_no_checksum():
    """It is read as before."""
    plan = plan_to_bytes(a_generation(0, 1, retired=(7,)))

    def as_of_version_1(_, header):
        for added in ("check", "identities", "place"):
            del header[added]
        header["version"] = 1

    assert plan_from_bytes(edited(plan, as_of_version_1), key="k") == a_generation(
        0, 1, retired=(7,)
    )


def test_parts_sort_in_the_order_of_their_shards():
    """With as many digits as the first plan needed, and more when there are more."""
    facts = dataclasses.replace(FACTS, width=6)

    assert facts.part(7) == "part-000007.jsonl"
    assert facts.part(12_345_678) == "part-12345678.jsonl"
    assert FACTS.stem(100_000) == "part-100000"


class Counting(MemoryStorage):
    """Counts the reads of single objects, by folder."""

    def __init__(self):
        super().__init__(uuid.uuid4().hex)
        self.reads = []

    def get(self, key):
        self.reads.append(key.partition("/")[0])
        return super().get(key)


@pytest.fixture
def storage():
    return Counting()


@pytest.fixture
def checkpoint(storage):
    return Checkpoint(storage)


def publish(checkpoint, *shards, **changes):
    made = {n: a_sentinel(n, **changes) for n in shards}
    checkpoint.publish({FACTS.stem(n): sentinel for n, sentinel in made.items()})
    return made


def reads_of_sentinels(storage):
    count, storage.reads = storage.reads.count("sentinels"), []
    return count


def test_what_was_asked_for_is_kept_with_every_change_of_it(checkpoint):
    """The last one counts; the others stay to be looked at."""
    assert checkpoint.run() is None
    checkpoint.begin(a_run_record(name="first"))
    for n in range(12):
        checkpoint.accept_change(a_run_record(name=f"change {n}"))

    assert checkpoint.run().name == "change 11"
    keys = [entry.key for entry in checkpoint.storage.list("changes")]
    assert keys == [f"changes/{n:04d}.json" for n in range(1, 13)]


def test_two_drivers_cannot_both_begin_a_run(checkpoint):
    """The second would work under a name that no other process knows."""
    checkpoint.begin(a_run_record(run_uid="a"))

    with pytest.raises(LeaseHeldError, match=r"run\.json was written by another driver"):
        checkpoint.begin(a_run_record(run_uid="b"))

    assert checkpoint.run().run_uid == "a"


def test_generations_come_back_in_order_and_none_is_replaced(checkpoint):
    """Two drivers that both add the next one would give one id to two shards."""
    for n in range(12):
        checkpoint.add_generation(a_generation(n), number=n)

    with pytest.raises(LeaseHeldError):
        checkpoint.add_generation(a_generation(99), number=3)

    assert [one.shards[0].id for one in checkpoint.generations()] == list(range(12))


def test_the_first_schema_counts_for_all_and_so_does_each_addition(checkpoint):
    """Of two workers that propose one at once, one comes second, and reads what is there."""
    assert checkpoint.schemas() == []
    schemas = [pa.schema([(f"c{n}", pa.int64())]) for n in range(12)]
    stored = [schema.serialize().to_pybytes() for schema in schemas]

    assert checkpoint.add_schema(stored[0], number=0)
    assert not checkpoint.add_schema(stored[1], number=0)
    assert all(checkpoint.add_schema(stored[number], number=number) for number in range(1, 12))
    assert not checkpoint.add_schema(stored[0], number=3)

    assert checkpoint.schemas() == schemas


def test_of_two_sentinels_the_first_counts_and_both_are_reported(checkpoint):
    """They are of the same part."""
    publish(checkpoint, 1, session="a")

    counting = checkpoint.publish({FACTS.stem(n): a_sentinel(n, session="b") for n in (1, 2)})

    assert {stem: one.session for stem, one in counting.items()} == {
        "part-00001": "a",
        "part-00002": "b",
    }
    assert checkpoint.sentinel("part-00001", run_uid="r" * 32).session == "a"
    assert checkpoint.sentinel("part-00003", run_uid="r" * 32) is None
    assert set(checkpoint.find(["part-00002", "part-00003"], run_uid="r" * 32)) == {"part-00002"}


def test_folded_sentinels_are_not_read_one_by_one(storage, checkpoint):
    """That is what a sentinel index is for: 100,000 reads on S3 take a minute."""
    made = publish(checkpoint, *range(50))
    checkpoint.fold(made, name="one")

    found = checkpoint.sentinels()

    assert (found.good, found.damaged, found.unindexed) == (made, {}, frozenset())
    assert reads_of_sentinels(storage) == 0


def test_what_is_not_folded_yet_is_read(storage, checkpoint):
    """And is told, so that it can be folded now."""
    folded = publish(checkpoint, *range(5))
    checkpoint.fold(folded, name="one")
    loose = publish(checkpoint, 7, 8)

    found = checkpoint.sentinels()

    assert (found.good, found.unindexed) == ({**folded, **loose}, {7, 8})
    assert reads_of_sentinels(storage) == 2


def test_ledgers_add_up(storage, checkpoint):
    """Every session writes its own."""
    made = {}
    for n in range(5):
        new = publish(checkpoint, 2 * n, 2 * n + 1)
        checkpoint.fold(new, name=f"session-{n}")
        made.update(new)

    assert checkpoint.sentinels().good == made
    assert reads_of_sentinels(storage) == 0


def test_a_copy_of_a_sentinel_that_was_made_anew_does_not_count(storage, checkpoint):
    """The sentinel index copies; the sentinel is the authority."""
    checkpoint.fold(publish(checkpoint, 1, 2), name="one")
    storage.delete(["sentinels/part-00001.json"])
    publish(checkpoint, 1, session="another")

    found = checkpoint.sentinels()

    assert (found.good[1].session, found.unindexed) == ("another", {1})


def test_a_copy_of_a_sentinel_that_is_gone_does_not_count(storage, checkpoint):
    """A user who removed it wants the shard to run again."""
    checkpoint.fold(publish(checkpoint, 1, 2), name="one")
    storage.delete(["sentinels/part-00001.json"])

    assert set(checkpoint.sentinels().good) == {2}


def test_only_what_is_there_is_folded(checkpoint, storage):
    """A copy without an original would be of no use."""
    checkpoint.fold({9: a_sentinel(9)}, name="one")
    checkpoint.fold({}, name="two")

    assert checkpoint.sentinels().good == {}
    assert list(storage.list("sentinel_index")) == []


def test_a_damaged_ledger_is_harmless(storage, checkpoint):
    """At whatever length it was cut, whatever else stands there: the sentinels are read instead."""
    made = publish(checkpoint, 1, 2, 3)
    checkpoint.fold(made, name="one")
    whole = storage.get("sentinel_index/one.jsonl")
    lines = [
        b"[1]",
        b"[1,2,3]",
        b'["x",{}]',
        b'{"a":1}',
        b'["x",{"version":2}]',
        b"\xff",
        b"[[],[]]",
    ]

    for data in [*FOREIGN, *lines, *(whole[:length] for length in range(0, len(whole), 5))]:
        storage.put("sentinel_index/one.jsonl", data)
        assert checkpoint.sentinels().good == made


def test_a_damaged_sentinel_is_named_and_the_others_are_read(storage, checkpoint):
    """So that all that is damaged can be reported at once."""
    made = publish(checkpoint, *range(4))
    storage.put("sentinels/part-00001.json", b"torn")
    storage.put("sentinels/part-00002.json", a_sentinel(3).to_bytes())

    found = checkpoint.sentinels()

    assert found.good == {0: made[0], 3: made[3]}
    assert "sentinels/part-00001.json is damaged" in found.damaged[1]
    assert found.damaged[2] == f"{storage.uri}/sentinels/part-00002.json is of shard 3"
    assert found.unindexed == {0, 3}


def test_what_is_not_a_sentinel_by_name_is_left_alone(storage, checkpoint):
    """Editors and file managers leave things behind."""
    made = publish(checkpoint, 1)
    for name in (".DS_Store", "part-00002.json~", "part-1.json", "part-00003.json.bak", "notes"):
        storage.put(f"sentinels/{name}", b"x")

    found = checkpoint.sentinels()

    assert (found.good, found.damaged) == (made, {})


def test_ten_thousand_sentinels_are_read_in_about_a_second(storage, checkpoint):
    """One by one after a crash; and in an instant, when they are folded."""
    made = publish(checkpoint, *range(10_000))

    began = time.process_time()
    found = checkpoint.sentinels()
    one_by_one = time.process_time() - began
    checkpoint.fold(found.good, name="one")
    began = time.process_time()
    again = checkpoint.sentinels()
    folded = time.process_time() - began

    assert found.good == again.good == made
    assert (len(found.unindexed), len(again.unindexed)) == (10_000, 0)
    assert one_by_one < 10
    assert folded < one_by_one
