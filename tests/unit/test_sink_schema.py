"""The schema that parts agree on: it grows, and nothing depends on which part comes first."""

import threading
from itertools import permutations

import pyarrow as pa
import pytest

from batchrunner.checkpoint import Checkpoint
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import grown
from batchrunner.storage import open_storage
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.schema import RowTypes, SinkSchema


def schema(**fields):
    return pa.schema(list(fields.items()))


@pytest.fixture
def checkpoint(tmp_path):
    return Checkpoint(open_storage(str(tmp_path)))


def a_worker(checkpoint, declared=None):
    """What a process has, which looks by itself."""
    return SinkSchema(checkpoint, declared=declared)


def hints(types, *schemas):
    """The types that *types* gives the output of a capability that gets columns of *schemas*."""
    return types.expected(InputTypes(schemas)).hints


FIRST = schema(id=pa.int64(), meta=pa.struct([("src", pa.string())]))
LANG = schema(id=pa.int64(), meta=pa.struct([("src", pa.string()), ("lang", pa.string())]))
SCORE = schema(id=pa.int64(), score=pa.float64())


def test_a_part_has_the_columns_of_the_first_one_and_its_own(checkpoint):
    """So it is the same part whatever others have added meanwhile."""
    for order in permutations([LANG, SCORE]):
        first, *others = [a_worker(checkpoint) for _ in range(3)]
        assert first.settle(FIRST) == FIRST
        settled = [one.settle(own) for one, own in zip(others, order, strict=True)]
        made = dict(zip(map(id, order), settled, strict=True))
        assert made[id(LANG)] == LANG
        assert made[id(SCORE)] == schema(
            id=pa.int64(), meta=FIRST.field("meta").type, score=pa.float64()
        )


def test_what_all_parts_have_together_is_kept(checkpoint):
    """Readers of all parts together need it."""
    for own in (FIRST, LANG, SCORE):
        a_worker(checkpoint).settle(own)

    assert a_worker(checkpoint).agreed() == schema(
        id=pa.int64(), meta=LANG.field("meta").type, score=pa.float64()
    )


def test_two_that_add_one_column_of_two_types_do_not_both_add_it(checkpoint):
    """Also when the second knows nothing of the first: its addition comes second."""
    one, other = a_worker(checkpoint), a_worker(checkpoint)
    for worker in (one, other):
        worker.settle(FIRST)

    one.settle(schema(late=pa.int64()))

    with pytest.raises(SchemaError, match="column 'late': string here, but int64"):
        other.settle(schema(late=pa.string()))
    assert other.settle(schema(later=pa.string())).names == ["id", "meta", "later"]


def test_a_column_of_nulls_is_no_column_yet(checkpoint):
    """It is null in every part that lacks it, and a type comes with the first value."""
    a_worker(checkpoint).settle(FIRST)

    assert a_worker(checkpoint).settle(schema(id=pa.int64(), x=pa.null())) == FIRST
    assert a_worker(checkpoint).settle(schema(x=pa.int8())).field("x").type == pa.int8()


def test_a_part_without_columns_settles_nothing(checkpoint):
    """Its rows were all dropped, or have none; the next one with columns is the first."""
    assert a_worker(checkpoint).settle(schema()) == schema()
    assert a_worker(checkpoint).agreed() is None
    a_worker(checkpoint).settle(FIRST)
    assert a_worker(checkpoint).settle(schema()) == FIRST


def test_a_worker_waits_for_the_first_part(checkpoint):
    """Else the types of all would be those of the fastest worker."""
    first, fast = a_worker(checkpoint), a_worker(checkpoint)
    fast.waits = True
    settled = []
    thread = threading.Thread(target=lambda: settled.append(fast.settle(schema(late=pa.int8()))))
    thread.start()
    thread.join(0.2)
    assert not settled

    first.settle(FIRST)

    thread.join(60)
    assert settled == [schema(id=pa.int64(), meta=FIRST.field("meta").type, late=pa.int8())]


def test_a_worker_does_not_wait_for_ever(checkpoint, monkeypatch):
    """The rows of the first shard may take hours, or be dropped."""
    monkeypatch.setattr("batchrunner.worker.schema._PATIENCE_SECONDS", 0.05)
    fast = a_worker(checkpoint)
    fast.waits = True

    assert fast.settle(FIRST) == FIRST
    assert not fast.waits


def test_what_is_declared_is_what_every_part_has(checkpoint):
    """And nothing is added to it."""
    worker = a_worker(checkpoint, declared={"id": "int64"})

    assert worker.settle(FIRST) == worker.agreed() == schema(id=pa.int64())
    assert checkpoint.schemas() == []


def test_rows_go_on_from_the_types_of_those_before_them(checkpoint):
    """In their shard and those before it, whether or not a part has been written."""
    types = RowTypes(a_worker(checkpoint))
    types.turn_to(1)
    types.accept([FIRST.empty_table(), LANG.empty_table()])
    types.turn_to(2)
    types.accept([SCORE.empty_table()])

    types.turn_to(1)
    assert hints(types) == (LANG,)
    types.turn_to(3)
    with pytest.raises(SchemaError, match="column 'id': string here, but int64"):
        types.accept([schema(id=pa.string()).empty_table()])
    assert hints(types, FIRST) == (FIRST, grown(LANG, SCORE))
    types.begin()
    assert hints(types) == ()


EMPTY = schema(id=pa.int64(), m=pa.struct([]))
FULL = schema(id=pa.int64(), m=pa.struct([("a", pa.int64())]))


def test_an_object_that_is_always_empty_has_the_fields_that_others_know(checkpoint):
    """It is an object all the same; alone, Parquet has no type for it, and no two workers agree on that."""
    with pytest.raises(SchemaError, match="column 'm': Parquet has no type for struct<>"):
        a_worker(checkpoint).settle(EMPTY)
    assert checkpoint.schemas() == []

    a_worker(checkpoint).settle(schema(id=pa.int64(), m=pa.null()))
    a_worker(checkpoint).settle(FULL)

    assert a_worker(checkpoint).settle(EMPTY) == FULL


def test_a_row_is_refused_for_an_empty_object_once_nothing_more_will_be_known(checkpoint):
    """One row, and not its shard."""
    types = RowTypes(a_worker(checkpoint))
    types.begin(is_final=True)
    types.turn_to(1)

    with pytest.raises(SchemaError, match="column 'm': Parquet has no type for struct<>"):
        types.accept([EMPTY.empty_table()])
    types.accept([FULL.empty_table()])
    types.accept([EMPTY.empty_table()])


def test_a_shard_that_failed_decides_no_type(checkpoint):
    """Its rows are in no part: those that follow would be refused for the type of nothing."""
    types = RowTypes(a_worker(checkpoint))
    types.turn_to(1)
    types.accept([schema(v=pa.int64()).empty_table()])
    types.drop(1)

    types.turn_to(2)
    types.accept([schema(v=pa.float64()).empty_table()])
    assert hints(types) == (schema(v=pa.float64()),)
