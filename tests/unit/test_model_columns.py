"""A pydantic model as `sink.schema`: its columns hold exactly what `model_dump` of it gives."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, Optional, Union

import pydantic
import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, RootModel
from pydantic.alias_generators import to_camel

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.columns import rows_to_table
from batchrunner.formats.conform import conform
from batchrunner.formats.declared import declared_schema
from batchrunner.spec import BatchSpec, SinkSpec
from batchrunner.spec.fingerprint import decisive_fields

Price = Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Labels(RootModel[list[str]]):
    pass


class Message(BaseModel):
    role: Literal["user", "assistant"]
    content: str | None = None


class Everything(BaseModel):
    text: str
    whole: int
    real: float
    yes: bool
    raw: bytes
    day: dt.date
    naive: dt.datetime
    aware: AwareDatetime
    clock: dt.time
    span: dt.timedelta
    price: Decimal = Field(max_digits=10, decimal_places=2)
    large: Annotated[Decimal, Field(max_digits=50, decimal_places=0)]
    key: uuid.UUID
    colour: Colour
    level: Level
    sort: Literal[1, 2]
    user: UserId
    maybe: Optional[int]  # noqa: UP045 - as written by many
    either: Price | None
    limited: Annotated[int, Field(gt=0)]
    messages: list[Message]
    scores: tuple[float, ...]
    prices: list[Price]
    counts: dict[str, int]
    labels: Labels
    renamed: int = Field(serialization_alias="is_now")
    aliased: int = Field(alias="other")
    inside: int = Field(exclude=True)

    @pydantic.computed_field
    @property
    def doubled(self) -> int:
        return 2 * self.whole


TEXTS = {
    "text": "string",
    "whole": "int64",
    "real": "double",
    "yes": "bool",
    "raw": "binary",
    "day": "date32[day]",
    "naive": "timestamp[us]",
    "aware": "timestamp[us, tz=UTC]",
    "clock": "time64[us]",
    "span": "duration[us]",
    "price": "decimal128(10, 2)",
    "large": "decimal256(50, 0)",
    "key": "extension<arrow.uuid>",
    "colour": "string",
    "level": "int64",
    "sort": "int64",
    "user": "int64",
    "maybe": "int64",
    "either": "decimal128(10, 2)",
    "limited": "int64",
    "messages": "list<struct<role: string, content: string>>",
    "scores": "list<double>",
    "prices": "list<decimal128(10, 2)>",
    "counts": "map<string, int64>",
    "labels": "list<string>",
    "is_now": "int64",
    "other": "int64",
    "doubled": "int64",
}


def test_each_field_of_a_model_is_a_column():
    """Under the name that it is dumped by, and as text, so that YAML can say the same run."""
    sink = SinkSpec(uri="/out", schema=Everything)

    assert list(sink.schema_.items()) == list(TEXTS.items())
    assert sink == SinkSpec(uri="/out", schema=TEXTS)
    in_python = BatchSpec(source="/in", sink=sink)
    in_yaml = BatchSpec(source="/in", sink={"uri": "/out", "schema": TEXTS})
    assert decisive_fields(in_python, code=None) == decisive_fields(in_yaml, code=None)


def test_what_a_model_dumps_fits_its_columns_exactly():
    """Types that its own values do not fit would set every row aside."""
    row = Everything(
        text="a", whole=1, real=0.1, yes=True, raw=b"\0", day=dt.date(2026, 1, 2),
        naive=dt.datetime(2026, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001 - the point of it
        aware=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), clock=dt.time(1, 2), span=dt.timedelta(1),
        price=Decimal("12345678.90"), large=Decimal(10) ** 40, key=uuid.UUID(int=5), colour=Colour.RED,
        level=Level.HIGH, sort=2, user=UserId(7), maybe=None, either=Decimal("0.01"), limited=1,
        messages=[Message(role="user"), Message(role="assistant", content="b")], scores=(0.5, 1.0),
        prices=[Decimal("1.50")], counts={"a": 1}, labels=Labels(["x"]), renamed=1, other=2, inside=3,
    )  # fmt: skip
    dumped = {**row.model_dump(by_alias=True), "colour": "red"}
    schema = declared_schema(SinkSpec(uri="/out", schema=Everything).schema_)

    table = conform(rows_to_table([dumped], hints=[schema], lenient=True), schema)

    (kept,) = table.to_pylist(maps_as_pydicts="strict")
    assert kept == {**dumped, "scores": [0.5, 1.0]}


class Node(BaseModel):
    inner: list[Node]


def a_model(annotation):
    return pydantic.create_model(
        "Row", __config__=ConfigDict(arbitrary_types_allowed=True), x=annotation
    )


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Decimal, r"Row\.x: Decimal needs Field\(max_digits=\.\.\., decimal_places=\.\.\.\)"),
        (
            Annotated[Decimal, Field(max_digits=80, decimal_places=0)],
            r"decimal256\(80, 0\): the precision must",
        ),
        (set[int], "a set has no order"),
        (tuple[int, int], "a tuple of a fixed length"),
        (int | str, "one of int, str: a column has one type"),
        (Union[int, float, None], "one of int, float"),  # noqa: UP007 - as written by many
        (Literal["a", 1], "all strings, all whole numbers"),
        (Any, "no type of Arrow's for Any"),
        (dict, "no type of Arrow's for dict"),
        (list, "no type of Arrow's for list"),
        (complex, "no type of Arrow's for complex"),
        (Node, r"Row\.x\.inner: Node holds itself"),
        (pydantic.create_model("Nothing"), "Parquet has no type for a struct without fields"),
    ],
)
def test_a_field_without_one_type_is_refused_by_name(annotation, message):
    """A guess would be wrong for some rows, after hours."""
    with pytest.raises(InvalidSpecError, match=f"schema: .*{message}"):
        SinkSpec(uri="/out", schema=a_model(annotation))


def test_a_model_needs_fields_of_different_names_and_known_types():
    """Aliases may clash, a root has no name, and a name may never be defined."""

    class Clash(BaseModel):
        a: int
        b: int = Field(serialization_alias="a")

    class Unfinished(BaseModel):
        a: Later  # noqa: F821 - the point of it

    for model, message in [
        (Clash, 'two fields are called "a"'),
        (Labels, "Labels has no fields, but one root"),
        (pydantic.create_model("Nothing"), "must have a column"),
        (Unfinished, "Unfinished: Later is not defined yet"),
    ]:
        with pytest.raises(InvalidSpecError, match=message):
            SinkSpec(uri="/out", schema=model)


def test_the_names_of_an_alias_generator_are_those_of_the_columns():
    """They are what `model_dump(by_alias=True)` gives."""

    class Camel(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel)
        first_name: str

    assert SinkSpec(uri="/out", schema=Camel).schema_ == {"firstName": "string"}
