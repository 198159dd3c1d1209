"""Records: flat rows, one class per table."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol, Union, get_args, get_origin
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field

from batchrunner.errors import InvalidRecordError

RUNS = "runs"
"""Name of the table that the store itself fills, with at least one row for each run."""

_TABLE = re.compile(r"[a-z][a-z0-9_]{0,99}")
_MARK = "#run_uid="


class ColumnType(StrEnum):
    """The type of a column's values. Every column may be NULL."""

    BOOL = "bool"
    INT64 = "int64"
    DOUBLE = "double"
    STRING = "string"
    BINARY = "binary"
    TIMESTAMP = "timestamp"
    """Microseconds, in UTC."""


Columns = Mapping[str, ColumnType]

Row = dict[str, Any]
"""A row of a table: its values by column."""

_TYPES = {  # in this order: bool is a subclass of int
    bool: ColumnType.BOOL,
    int: ColumnType.INT64,
    float: ColumnType.DOUBLE,
    str: ColumnType.STRING,
    bytes: ColumnType.BINARY,
    datetime: ColumnType.TIMESTAMP,
}


class RecordLike(Protocol):
    """A record that the store accepts: any pydantic model with a `table_name` and a `run_uid`."""

    table_name: ClassVar[str]

    @property
    def run_uid(self) -> str:
        """Name of the run that the record belongs to."""

    def model_dump(self) -> dict[str, Any]:
        """Return the values of the record by field name."""


class Record(BaseModel):
    """Base class of records: `class Score(Record, table_name="score"): value: float`.

    Fields are str, int, float, bool, bytes, datetime, or one of these or None. Add fields freely,
    with a default; never change the type of one.

    Attributes:
        run_uid: Name of the run that the record belongs to.
        created_at: When it was made, in UTC. For information only: the store decides nothing by it.

    Raises:
        InvalidRecordError: A subclass is defined without a table or with a nested field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table_name: ClassVar[str]

    run_uid: str = Field(min_length=1)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def __init_subclass__(cls, *, table_name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if table_name is not None:
            cls.table_name = table_name

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if _is_being_unpickled():  # cloudpickle makes an empty class, and fills it afterwards
            return
        if table_of(cls) == RUNS:
            raise InvalidRecordError(
                f"{cls.__qualname__}: the store itself fills the table {RUNS!r}; use another table_name"
            )
        columns_of(cls)


def _is_being_unpickled() -> bool:
    """Return whether cloudpickle is making the class: it sends classes of a notebook to workers."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "_make_skeleton_class":
        frame = frame.f_back
    return frame is not None


def table_of(kind: type) -> str:
    """Return the name of the table for records of class *kind*.

    Raises:
        InvalidRecordError: *kind* names no table, or its name is not valid.
    """
    name = getattr(kind, "table_name", None)
    if name is None:
        raise InvalidRecordError(
            f'{kind.__qualname__} names no table; write class {kind.__name__}(Record, table_name="…")'
        )
    return checked_table(name)


def checked_table(name: object) -> str:
    """Return *name* if it is a valid name of a table.

    Raises:
        InvalidRecordError: *name* is not valid.
    """
    if not isinstance(name, str) or not _TABLE.fullmatch(name):
        raise InvalidRecordError(
            f"{name!r} cannot be a table's name: write up to 100 small letters, digits and '_', "
            "a letter first"
        )
    return name


def columns_of(kind: type[Any]) -> dict[str, ColumnType]:
    """Return the columns for records of class *kind*, in the order of its fields.

    Raises:
        InvalidRecordError: The type of a field is nested or has no column type.
    """
    columns = {name: _type_of(field.annotation) for name, field in kind.model_fields.items()}
    wrong = [name for name, column in columns.items() if column is None]
    if wrong:
        allowed = ", ".join(python.__name__ for python in _TYPES)
        raise InvalidRecordError(
            f"{kind.__qualname__}.{wrong[0]} is {kind.model_fields[wrong[0]].annotation}; a column "
            f"holds one of {allowed}, or None: make more than one record of what is nested"
        )
    return {name: column for name, column in columns.items() if column is not None}


def _type_of(annotation: Any) -> ColumnType | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_of(arguments[0])
    if origin in (Union, types.UnionType):
        return _one({_type_of(one) for one in arguments if one is not types.NoneType})
    if origin is Literal:
        return _one({_type_of(type(value)) for value in arguments if value is not None})
    if not isinstance(annotation, type):
        return None
    return next((column for kind, column in _TYPES.items() if issubclass(annotation, kind)), None)


def _one(kinds: Iterable[ColumnType | None]) -> ColumnType | None:
    unique = set(kinds)
    if unique == {ColumnType.INT64, ColumnType.DOUBLE}:  # `int | float` fits the wider one
        return ColumnType.DOUBLE
    return unique.pop() if len(unique) == 1 else None


def columns_of_all(records: Iterable[RecordLike]) -> dict[str, ColumnType]:
    """Return the columns of all *records*, which belong to one table.

    Raises:
        InvalidRecordError: Two classes of records give a column different types.
    """
    merged: dict[str, ColumnType] = {}
    for kind in dict.fromkeys(type(record) for record in records):
        for name, column in columns_of(kind).items():
            if merged.setdefault(name, column) != column:
                raise InvalidRecordError(
                    f"table {table_of(kind)!r}: {name} is {merged[name]} in one class of records "
                    f"and {column} in {kind.__qualname__}; give it one type, or two names"
                )
    return merged


@dataclass(frozen=True, slots=True)
class CapabilityRunRef:
    """The address of a recorded run: a few hundred bytes, however much the run produced.

    Attributes:
        run_uid: Name of the run.
        capability_id: Name of the capability.
        store_uri: URI of the run in its analytics store. Absolute; stays valid when the store is
            compacted; holds no credentials: pass those to `open_store`.
        outputs_uri: URI of the run's files, else of its report, else None.
    """

    run_uid: str
    capability_id: str
    store_uri: str
    outputs_uri: str | None = None


def run_uri(store: str, run_uid: str) -> str:
    """Return the URI of a run in the store at URI *store*."""
    return f"{store}{_MARK}{quote(run_uid, safe='')}"


def split_run_uri(uri: str) -> tuple[str, str | None]:
    """Return the URI of the store in *uri*, and the `run_uid` if *uri* has one."""
    store, mark, run_uid = uri.partition(_MARK)
    return store, unquote(run_uid) if mark else None


def run_uid_of(run: str | CapabilityRunRef) -> str:
    """Return the `run_uid` of a run given by its `run_uid`, its URI or its ref."""
    return run.run_uid if isinstance(run, CapabilityRunRef) else split_run_uri(run)[1] or run
