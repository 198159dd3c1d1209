"""Errors in a format's code. It may be the user's, so messages name the format and the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BatchRunnerError, InvalidSpecError, describe
from batchrunner.formats.contract import Cut, Format, RecordReader, TableReader
from batchrunner.formats.schema_error import SchemaError
from batchrunner.user_code import contained, place_in_code, traceback_of

if TYPE_CHECKING:
    import pyarrow as pa

_READS = ("count_part", "count_rows", "records", "part_records", "row_of", "tables")
_COUNTS = ("count_part", "count_rows")
_END = object()


class FormatError(Exception):
    """The writer of a format raised. The shard fails: which row is at fault is unknown.

    Attributes:
        traceback: Of the format's code; may be empty.
    """

    traceback = ""


def blamed(error: Exception, name: str) -> str:
    """Return the message for an *error* of the format *name*, with the line of its code."""
    place = place_in_code(error)
    return f"the format {name} raised {describe(error)}" + (f", at {place}" if place else "")


@contextmanager
def writing_in(name: str) -> Iterator[None]:
    """Turn an exception of the writer of the format *name* in the block into a FormatError.

    Batchrunner's own errors pass unchanged: a full disk fails below the writer, and a value that does
    not fit the schema fails above it.
    """
    try:
        yield
    except (BatchRunnerError, SchemaError):
        raise
    except Exception as error:
        failure = FormatError(blamed(error, name))
        failure.traceback = traceback_of(error)
        raise failure from error


@contextmanager
def refused(what: str, name: str) -> Iterator[None]:
    """Turn an exception of the format *name* into an InvalidSpecError that begins with *what*."""
    try:
        yield
    except BatchRunnerError:
        raise
    except Exception as error:
        raise InvalidSpecError(f"{what}: {blamed(error, name)}") from error


def fault_of_cut(slices: Any) -> str:
    """Return what is wrong with the *slices* that `Format.cut` returned; "" if nothing is.

    Bytes after the last slice are not checked: until they are read, they may be blank lines. `verify`
    counts the rows in them.
    """
    if not isinstance(slices, list) or not all(isinstance(piece, Cut) for piece in slices):
        return f"it returned {slices!r:.80}; it must return a list of Cut"
    for before, piece in pairwise([None, *slices]):
        end = before.stop if before else 0
        # Slices that count other things, such as rows after row groups, cannot be compared.
        follows = piece.start == end or (before and before.slicing is not piece.slicing)
        if not follows or piece.stop < piece.start:
            return (
                f"slices must join: one goes from {piece.start:,} to {piece.stop:,}, and the ones before "
                f"it end at {end:,}"
            )
    return ""


def second_reader_of(made: Format) -> RecordReader | TableReader:
    """Return a second reader of source files in the format *made*.

    Raises:
        InvalidSpecError: The format makes none, or raises.
    """
    return _checked(made, made.second_reader)


def part_reader_of(
    made: Format, *, types: Callable[[], pa.Schema | None], compression: str
) -> RecordReader | TableReader:
    """Return a second reader of parts in the format *made*; see `Format.part_reader`.

    Raises:
        InvalidSpecError: The format makes none, or raises.
    """
    return _checked(made, partial(made.part_reader, types=types, compression=compression))


def _checked(
    made: Format, make: Callable[[], RecordReader | TableReader]
) -> RecordReader | TableReader:
    name = type(made).__name__
    with refused("it has no second reader", name):
        reader = make()
    if not isinstance(reader, RecordReader | TableReader):
        raise InvalidSpecError(
            f"{name}.second_reader returned {reader!r:.80}; it must return a RecordReader or a "
            "TableReader, of batchrunner.formats.contract"
        )
    if not type(reader).__module__.startswith(f"{__package__}."):
        _contain(reader, name)
    return reader


def _contain(reader: RecordReader | TableReader, name: str) -> None:
    """Turn whatever the methods of *reader* raise, even SystemExit, into a ValueError."""
    for method in _READS:
        if call := getattr(reader, method, None):
            setattr(reader, method, _contained_method(call, f"{name}'s second reader", method))


def _contained_method(method: Callable[..., Any], name: str, called: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        result = _read(lambda: method(*arguments, **named), name)
        if called in _COUNTS and not isinstance(result, int):
            raise ValueError(f"{name} returned {result!r:.80} from {called}; it must return an int")
        return _steps(result, name) if isinstance(result, Iterator) else result

    return call


def _steps(steps: Iterator[Any], name: str) -> Iterator[Any]:
    while (step := _read(lambda: next(steps, _END), name)) is not _END:
        yield step


def _read(call: Callable[[], Any], name: str) -> Any:
    try:
        return contained(call)
    except (BatchRunnerError, OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(blamed(error, name)) from error
