"""What stands in the sink, held against the plan and the sentinels: each case has one verdict."""

import itertools

import pytest

from batchrunner.checkpoint import Generation, PlanFacts, Sentinel, Sentinels
from batchrunner.driver.sink_state import check_unused, examine, parts_in
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import DamagedOutputError, ForeignOutputError
from batchrunner.shard import Slicing
from batchrunner.storage import Entry
from shards import one_slice

FACTS = PlanFacts(5, "jsonl", "none", "bytes", 4096)
ACTIVE, RETIRED, UNKNOWN = 0, 1, 2
SIZE = 100


def a_plan(*, active=(ACTIVE,), retired=(RETIRED,)):
    shards = [
        one_slice(n, f"/in/{n}", Slicing.FILE, 0, 9, 9, "1") for n in sorted([*active, *retired])
    ]
    return StoredPlan.of([Generation(FACTS, tuple(shards)), Generation(FACTS, (), tuple(retired))])


def a_sentinel(shard, **changes):
    values = {"run_uid": "mine", "shard": shard, "part": FACTS.part(shard), "bytes": SIZE}
    rest = dict.fromkeys(("sha256", "write_id", "session"), "x")
    counts = dict.fromkeys(("rows_in", "rows_out", "rows_failed"), 1)
    return Sentinel(**{**values, **rest, **counts, "seconds": 0.1, **changes})


def parts_of(shard, part):
    sizes = {"absent": None, "present": SIZE, "wrong size": SIZE - 1, "empty": 0}
    size = sizes[part]
    return {} if size is None else {FACTS.part(shard): Entry(FACTS.part(shard), size, "1")}


def sentinels_of(shard, sentinel):
    made = {
        "good": {shard: a_sentinel(shard)},
        "of another run": {shard: a_sentinel(shard, run_uid="theirs")},
        "of another part": {shard: a_sentinel(shard, part=FACTS.part(77))},
    }.get(sentinel, {})
    damaged = {shard: "sentinels/x is damaged"} if sentinel == "damaged" else {}
    return Sentinels(made, damaged, frozenset(made))


def verdict(shard, part, sentinel):
    """Return "foreign", "damaged", or what the output is, in a word."""
    parts, sentinels = parts_of(shard, part), sentinels_of(shard, sentinel)
    try:
        output = examine(a_plan(), parts, sentinels, run_uid="mine")
    except ForeignOutputError:
        return "foreign"
    except DamagedOutputError:
        return "damaged"
    words = {
        "committed": output.committed,
        "to seal": output.unadopted,
        "to retire": output.retired,
    }
    return ", ".join(word for word, those in words.items() if those) or "nothing"


PARTS = ["absent", "present", "wrong size", "empty"]
SENTINELS = ["absent", "good", "damaged", "of another run", "of another part"]


def expected(shard, part, sentinel):
    """The rules, as the reference page words them."""
    if shard == UNKNOWN:  # a part that belongs to no shard: refused, never deleted
        return "nothing" if part == "absent" else "foreign"
    if shard == RETIRED:  # its part does not count any more, nor does what is said of it
        return "nothing" if part == "absent" else "to retire"
    if sentinel == "absent":  # a part without a sentinel: its worker died in between
        return "nothing" if part == "absent" else "to seal"
    return "committed" if (part, sentinel) == ("present", "good") else "damaged"


@pytest.mark.parametrize(
    ("shard", "part", "sentinel"),
    list(itertools.product([ACTIVE, RETIRED, UNKNOWN], PARTS, SENTINELS)),
)
def test_every_state_of_a_shard_has_its_verdict(shard, part, sentinel):
    """Committed only when part and sentinel agree; what is odd is refused, never repaired."""
    assert verdict(shard, part, sentinel) == expected(shard, part, sentinel)


def examined(parts, sentinels, plan):
    return examine(plan, parts, sentinels, run_uid="mine")


def test_what_is_found_is_named_by_id_and_by_name():
    """The session that comes next works from it."""
    plan = a_plan(active=(0, 2, 3, 4), retired=(1,))
    parts = {**parts_of(0, "present"), **parts_of(1, "empty"), **parts_of(2, "present")}
    good = {n: a_sentinel(n) for n in (0, 1, 9)}
    parts |= parts_of(3, "wrong size")

    output = examined(parts, Sentinels(good, {}, frozenset({0, 1})), plan)

    assert dict(output.committed) == {0: good[0]}
    assert (output.unadopted, output.retired, output.unindexed) == (
        (2, 3),
        ("part-00001.jsonl",),
        {0},
    )


def test_everything_that_is_damaged_is_reported_at_once():
    """A user who has to restore files wants the whole list, with what is wrong with each."""
    plan = a_plan(active=range(4), retired=())
    parts = {**parts_of(1, "wrong size"), **parts_of(2, "present"), **parts_of(3, "present")}
    good = {0: a_sentinel(0), 1: a_sentinel(1), 2: a_sentinel(2, run_uid="theirs")}

    with pytest.raises(DamagedOutputError) as refusal:
        examined(parts, Sentinels(good, {3: "sentinels/x is damaged"}, frozenset()), plan)

    assert str(refusal.value).splitlines()[:5] == [
        "4 committed shard(s) in the sink are damaged:",
        "  part-00000.jsonl: the part is gone; its sentinel says 100 bytes",
        "  part-00001.jsonl: it has 99 bytes; its sentinel says 100",
        "  part-00002.jsonl: its sentinel is of another run or part",
        "  sentinels/x is damaged",
    ]
    assert "verify --repair" in str(refusal.value)
    assert "--fresh" in str(refusal.value)


def test_of_many_damaged_shards_some_are_shown():
    """A lost disk must not scroll everything else away."""
    plan = a_plan(active=range(1000), retired=())
    good = {n: a_sentinel(n) for n in range(1000)}

    with pytest.raises(DamagedOutputError, match=r"1000 committed[\s\S]*and 980 more") as refusal:
        examined({}, Sentinels(good, {}, frozenset()), plan)

    assert len(str(refusal.value).splitlines()) == 23


def test_parts_that_belong_to_no_run_are_named():
    """Another program wrote them; to delete them is not ours."""
    parts = parts_of(UNKNOWN, "present") | {
        "part-00000.jsonl.gz": Entry("part-00000.jsonl.gz", 1, "1")
    }

    with pytest.raises(ForeignOutputError) as refusal:
        examined(parts, Sentinels({}, {}, frozenset()), a_plan())

    assert "2 part(s) that belong to no shard:\n  part-00000.jsonl.gz\n  part-00002.jsonl" in str(
        refusal.value
    )


def entries(*keys):
    return [Entry(key, 1, "1") for key in keys]


OTHERS = ["README.md", "part-1.jsonl", "part-00000", "my-part-00000.jsonl", "spart-00000.jsonl"]


def test_what_is_no_part_by_its_name_is_left_alone():
    """People keep notes beside their data."""
    found = entries(
        *OTHERS, "part-00000.jsonl", "part-1234567.parquet", "_SUCCESS", "_manifest.json"
    )

    assert list(parts_in(found)) == ["part-00000.jsonl", "part-1234567.parquet"]
    check_unused("out", entries(*OTHERS))


@pytest.mark.parametrize(
    "key", ["part-00000.jsonl", "part-00007.parquet", "_SUCCESS", "_manifest.json"]
)
def test_a_new_run_does_not_write_beside_another_one(key):
    """Their rows would be mixed for ever."""
    with pytest.raises(ForeignOutputError, match=rf"the sink out holds .*\n  {key}\n"):
        check_unused("out", entries("README.md", key))
