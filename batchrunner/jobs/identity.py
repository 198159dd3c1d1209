"""The identity of a run: its key, which is the same if the run is, and its edition."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any

from batchrunner.analytics.completed_run import RUN_WANTED
from batchrunner.errors import InvalidRecordError, InvalidSpecError

Inputs = Mapping[str, Any]
"""The arguments of `capability.run`, by name: models, datasets, metrics, config and more."""

KINDS = ("datasets", "models", "metrics")


def run_key(capability: Any, inputs: Inputs, *, edition: str = "") -> str:
    """Return the key of the logical run: 32 hex digits, the same in every process.

    It depends on the capability's id, the config (the capability's own if none is given), the ids of
    datasets, models and metrics, in order, further arguments of `run`, and the edition. It does not
    depend on resources, the store, or objects in memory.

    Raises:
        InvalidSpecError: An argument has no identity that another process could compare.
    """
    config = inputs.get("config")
    if config is None and hasattr(capability, "_create_config"):
        config = capability._create_config()  # noqa: SLF001 - part of the capabilities' protocol
    named = (*KINDS, "config", "use_cache")
    decisive = {
        "capability": str(capability.id),
        "config": _plain(config, what="config"),
        **{kind: ids_of(inputs.get(kind), kind=kind) for kind in KINDS},
        "more": {name: _plain(inputs[name], what=name) for name in inputs if name not in named},
        **({"edition": edition} if edition else {}),  # without one, keys are as before
    }
    text = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def ids_of(items: Iterable[Any] | None, *, kind: str) -> list[str]:
    """Return the ids of datasets, models or metrics: `metadata["id"]`, or else their own `id`.

    Raises:
        InvalidSpecError: An item has no id; the message names it.
    """
    return [_id_of(item, f"{kind}[{index}]") for index, item in enumerate(items or ())]


def _id_of(item: Any, what: str) -> str:
    if isinstance(item, str):
        return item
    holders = (getattr(item, "metadata", None), item)
    ids = (h.get("id") if isinstance(h, Mapping) else getattr(h, "id", None) for h in holders)
    name = next((value for value in ids if value is not None), None)
    if name is None:
        raise InvalidSpecError(
            f"{what} ({type(item).__name__}) has no id, which decides whether two jobs are "
            'the same run: give it metadata={"id": …}, or use the backend "ray-simple"'
        )
    return str(name)


def _plain(value: Any, *, what: str) -> Any:
    """Return *value* in a JSON form that is the same in every process."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, what=what)
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"), what=what)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: _plain(getattr(value, f.name), what=what) for f in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, what=what) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(inner, what=what) for inner in value]
        return items if isinstance(value, list | tuple) else sorted(items, key=repr)
    raise InvalidSpecError(
        f"{what} holds a {type(value).__name__}, which cannot be compared across processes: use "
        'plain values, a dataclass or a pydantic model, or the backend "ray-simple"'
    )


_EDITION = re.compile(r"(?:[^\W_][\w.:+-]*)?")
_MOST_LETTERS = 100


def checked_edition(edition: object) -> str:
    """Return *edition* after a check: a word or a date; "" is the first edition.

    Raises:
        InvalidSpecError: It is neither a word nor a date, or too long.
    """
    if not isinstance(edition, str) or not _EDITION.fullmatch(edition):
        raise InvalidSpecError(
            'edition must be a word or a date, such as "2" or "2026-05" (letters, digits and . : + - _, '
            f"a letter or a digit first), not {edition!r:.200}"
        )
    if len(edition) > _MOST_LETTERS:
        raise InvalidSpecError(
            f"edition must have at most {_MOST_LETTERS} letters, not {len(edition)}"
        )
    return edition


def run_uid_of(run_uid: str, edition: str) -> str:
    """Return the `run_uid` of a run in its *edition*.

    Each edition needs its own: the store keeps the first record of a `run_uid`, and drops the others.
    """
    return f"{run_uid}-{edition}" if edition else run_uid


def call_of(call: Callable[[], Any], edition: str) -> Callable[[], Any]:
    """Wrap *call*, so that its run has the *edition*. Can be pickled if *call* can."""
    return partial(_in_edition, call, edition) if edition else call


def _in_edition(call: Callable[[], Any], edition: str) -> _RunOfEdition:
    return _RunOfEdition(checked_run(call()), edition)


class _RunOfEdition:
    """Gives the user's run, and its records, the `run_uid` of an edition."""

    def __init__(self, run: Any, edition: str) -> None:
        self._run = run
        self.run_uid = run_uid_of(run.run_uid, edition)

    def extract(self) -> Sequence[Any]:
        """Return the records of the run, with the `run_uid` of this edition."""
        original = self._run.run_uid
        return [
            # A record of another run stays unchanged: the store refuses it and gives the reason.
            record.model_copy(update={"run_uid": self.run_uid})
            if getattr(record, "run_uid", None) == original
            else record
            for record in self._run.extract()
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)


def checked_run(run: Any) -> Any:
    """Return *run*, the result of a capability's `run()`, after a check.

    Raises:
        InvalidRecordError: It is no run; the message says what `run()` must return.
    """
    if inspect.iscoroutine(run):
        run.close()  # or Python warns that it was never awaited
        raise InvalidRecordError(
            f"run() returned a coroutine: write `def run`, call asyncio.run() in it, and {RUN_WANTED}"
        )
    if not isinstance(run, type) and _is_run(run):
        return run
    shown = "None" if run is None else f"a {type(run).__name__}"
    raise InvalidRecordError(f"run() returned {shown}; {RUN_WANTED}")


def _is_run(run: Any) -> bool:
    named = hasattr(run, "run_uid") and hasattr(run, "capability_id")
    return named and callable(getattr(run, "extract", None))
