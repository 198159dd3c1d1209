"""Usage: the numbers by which a capability says what an answer cost, such as tokens.

In OpenAI's words (https://platform.openai.com/docs/api-reference/chat/object): `usage` has `prompt_tokens`,
`completion_tokens` and `total_tokens`; other services say `input_tokens` and `output_tokens`. Any other
number above 0 and below 2^63 counts as well, by its name, which is text that UTF-8 holds; one in a mapping
inside, by its path with dots. All else is no usage.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Final

from batchrunner.checkpoint.totals import MOST, Usage, added
from batchrunner.user_code import CallRaisedError, portable

__all__ = [
    "COST",
    "NO_USAGE",
    "Usage",
    "added",
    "amounts_in",
    "charging",
    "path_of",
    "portable_with_usage",
    "priced",
    "tokens_in",
    "usage_in",
    "usage_of_error",
    "usages_in",
]

NO_USAGE: Final[Usage] = {}
KEY: Final = "usage"
"""Where usage is in an answer, by default; and the attribute of an exception that has it."""

COST: Final = "cost"
"""The name of the amount that is money."""

_TOKENS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_LONGEST_NAME = 48
_MOST_NAMES = 12


def path_of(text: str | None) -> tuple[str, ...]:
    """Return the names on the way to the usage, of `capability.usage`."""
    return tuple(text.split(".")) if text else (KEY,)


def usage_in(answer: Any, path: tuple[str, ...] = (KEY,)) -> Usage:
    """Return the usage in *answer*, {} if it has none: a row, rows, or a batch in any format.

    Never raises: what is not there, or is another thing, is no usage.
    """
    try:
        return NO_USAGE if _has_none(answer, path[0]) else _usage_in(answer, path)
    except Exception:  # noqa: BLE001 - an answer is the user's, and so may be the code of its classes
        return NO_USAGE


def usages_in(content: Any, path: tuple[str, ...] = (KEY,)) -> list[Usage]:
    """Return the usage of each row of *content*, a batch in any format; [] if it has none. Never raises."""
    try:
        if isinstance(content, list):
            return [amounts_in(_at(row, path)) for row in content]
        is_columns = isinstance(content, Mapping)
        column = content.get(path[0]) if is_columns else _column(content, path[0])
        return [amounts_in(_at(value, path[1:])) for value in _values(column)]
    except Exception:  # noqa: BLE001 - as in `usage_in`
        return []


def _has_none(answer: Any, name: str) -> bool:
    """Return whether *answer* surely has no usage: most answers have none, and none may be slow for it."""
    if type(answer) is dict:
        return name not in answer
    if type(answer) is not list:
        return False
    for row in answer:  # noqa: SIM110 - a third of the time of `any`
        if type(row) is not dict or name in row:
            return False
    return True


def _usage_in(answer: Any, path: tuple[str, ...]) -> Usage:
    if isinstance(answer, list | tuple):
        of_rows = (_at(row, path) for row in answer)
        return added(*(amounts_in(found) for found in of_rows if found is not None))
    if not isinstance(answer, Mapping):
        return _in_column(_column(answer, path[0]), path[1:])
    found = answer.get(path[0])
    is_column = found is not None and not isinstance(found, Mapping)
    return _in_column(found, path[1:]) if is_column else amounts_in(_at(answer, path))


def _at(row: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        row = row.get(name) if isinstance(row, Mapping) else None
    return row


def _column(table: Any, name: str) -> Any:
    """Return column *name* of a table of Arrow or pandas; None if it has none."""
    if name in getattr(table, "column_names", ()):
        return table.column(name).to_pylist()
    return table[name] if name in getattr(table, "columns", ()) else None


def _in_column(column: Any, path: tuple[str, ...]) -> Usage:
    return added(*(amounts_in(_at(value, path)) for value in _values(column)))


def _values(column: Any) -> Iterable[Any]:
    return () if column is None or isinstance(column, str | bytes) else column


def usage_of_error(error: BaseException) -> Usage:
    """Return the usage that *error* has as attribute: a call that failed may have cost, too."""
    if isinstance(error, CallRaisedError) and error.__cause__ is not None:
        error = error.__cause__  # what it stands for
    try:
        return amounts_in(getattr(error, KEY, None))
    except Exception:  # noqa: BLE001 - as in `usage_in`
        return NO_USAGE


@contextmanager
def charging(usage: Usage) -> Iterator[None]:
    """Let what is raised in the block, for an answer whose call used *usage*, say so (`usage_of_error`)."""
    try:
        yield
    except Exception as error:
        if not usage:
            raise
        try:
            error.usage = usage  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001 - the class may be the user's, and have slots
            raise _portable(error, usage) from None
        raise


def portable_with_usage(error: Exception) -> CallRaisedError:
    """Return what stands for *error* in another process, with what its call used."""
    return _portable(error, usage_of_error(error))


def _portable(error: Exception, usage: Usage) -> CallRaisedError:
    made = portable(error)
    made.usage = usage  # type: ignore[attr-defined]
    return made


def amounts_in(found: Any) -> Usage:
    """Return the amounts in *found*, if it is a mapping; {} for anything else."""
    if not isinstance(found, Mapping):
        return NO_USAGE
    return dict(sorted(_amounts(found, ""), key=_by_importance)[:_MOST_NAMES])


def _amounts(found: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not prefix:
            yield from _amounts(value, f"{name}.")
        elif len(name) <= _LONGEST_NAME and _is_utf8(name) and (amount := _amount(value)):
            yield name, amount


def _is_utf8(name: str) -> bool:
    return name.isascii() or name == name.encode(errors="ignore").decode()


def _amount(value: object) -> float:
    """Return *value* as a plain number, numpy's too; 0 if it is none, not above 0, or too large to be stored."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return 0
    amount = int(value) if isinstance(value, Integral) else float(value)
    return amount if 0 < amount <= MOST else 0


def _by_importance(amount: tuple[str, float]) -> tuple[bool, bool]:
    """Order what is priced before details of it: a sentinel has room for a few names only."""
    return amount[0] != COST, "." in amount[0]


def beyond(usage: Usage, earlier: Usage) -> Usage:
    """Return by how much *usage* is more than *earlier*, which it has grown from."""
    grown = {name: amount - earlier.get(name, 0) for name, amount in usage.items()}
    return {name: amount for name, amount in grown.items() if amount}


def tokens_in(usage: Usage) -> float | None:
    """Return the tokens in *usage*: the total, else the sum of what is known; None if there are none."""
    if "total_tokens" in usage:
        return usage["total_tokens"]
    known = [usage[name] for name in _TOKENS if name in usage]
    return min(sum(known), MOST) if known else None


def priced(usage: Usage, prices: Mapping[str, float]) -> Usage:
    """Return *usage* with its cost at *prices*, each for one unit; without prices, as it is.

    Prices win over a cost that the answer names: the user gave them.
    """
    known = [usage[name] * price for name, price in prices.items() if name in usage]
    return {**usage, COST: min(sum(known), MOST)} if known else usage
