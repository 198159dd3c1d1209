"""The request of a job, which is checked and pickled before anything starts."""

from __future__ import annotations

import getpass
import inspect
import math
import platform
import uuid
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from batchrunner import __version__
from batchrunner.errors import CannotStartError, CapabilityImportError, InvalidSpecError, describe
from batchrunner.execute.payload import import_paths
from batchrunner.jobs.identity import KINDS, call_of
from batchrunner.jobs.outcome import now_text
from batchrunner.spec.fields import size_in_bytes

Resources = dict[str, Any]
"""Resources by Ray's names: num_cpus, num_gpus, memory, accelerator_type, resources."""

_NAMES = ("num_cpus", "num_gpus", "memory", "accelerator_type", "resources")


def resources_of(asked: Mapping[str, Any] | None, *, config: Any, capability: Any) -> Resources:
    """Return the resources of a job, after a check.

    CPUs and GPUs are those *asked* for, else the `num_cpus` and `num_gpus` of *config*, else the
    `default_num_cpus` and `default_num_gpus` of *capability*, else one CPU. Names that are no options
    of Ray are custom resources.

    Raises:
        InvalidSpecError: *asked* is no mapping, or an amount is out of range.
    """
    if asked is not None and not isinstance(asked, Mapping):
        raise InvalidSpecError(
            f"resources must be a mapping, such as {{'num_gpus': 1}}, not {asked!r}"
        )
    wanted = dict(asked or {})
    for name, default in (("num_cpus", 1), ("num_gpus", 0)):
        if wanted.get(name) is None:
            hint = getattr(config, name, None)
            if hint is None:
                hint = getattr(capability, f"default_{name}", None)
            wanted[name] = default if hint is None else hint
    custom = {**(wanted.get("resources") or {})}
    custom.update({name: wanted[name] for name in wanted if name not in _NAMES})
    return {
        "num_cpus": _amount("num_cpus", wanted["num_cpus"]),
        "num_gpus": _amount("num_gpus", wanted["num_gpus"], whole_above_one=True),
        "memory": _memory(wanted.get("memory")),
        "accelerator_type": wanted.get("accelerator_type"),
        "resources": {name: _amount(name, amount) for name, amount in custom.items()},
    }


def _amount(name: str, value: Any, *, whole_above_one: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value < 0:
        raise InvalidSpecError(f"resources: {name} must be 0 or more, not {value!r}")
    if whole_above_one and value > 1 and value != int(value):
        raise InvalidSpecError(f"resources: {name} above 1 must be whole, not {value!r}")
    return float(value)


def _memory(value: Any) -> int | None:
    try:
        return None if value is None else size_in_bytes(int(value) if _is_whole(value) else value)
    except ValueError as error:
        raise InvalidSpecError(f"resources: memory {error}, not {value!r}") from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


@cache
def versions_here() -> Mapping[str, str]:
    """Return the versions of Python, Ray and batchrunner in this process."""
    return {
        "python": platform.python_version(),
        "ray": version("ray"),
        "batchrunner": __version__,
    }


def difference(client: Mapping[str, str]) -> str:
    """Return, in a line, how this worker's versions differ from the *client*'s; "" if they agree.

    Raises:
        CannotStartError: The client has another minor version of Python, whose pickles may not be
            readable here.
    """
    here = versions_here()
    differing = [name for name in here if name in client and here[name] != client[name]]
    if not differing:
        return ""
    listed = ", ".join(f"{name} {client[name]} and {here[name]}" for name in differing)
    if _minor(here["python"]) != _minor(client.get("python", here["python"])):
        raise CannotStartError(
            f"the worker cannot read what the client sent: {listed} (client, worker). "
            "Use one minor version of Python on both sides"
        )
    return (
        f"the client's and the worker's versions differ: {listed} (client, worker); install the same "
        "ones on both sides"
    )


def _minor(text: str) -> list[str]:
    return text.split(".")[:2]


LARGE_BYTES = 64 << 20
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class JobRequest:
    """The request of a job, made by `submit_capability`. It holds no secret, as it is stored.

    Attributes:
        key: The key of the logical run; "" if the backend does not deduplicate.
        name: The name of the job in listings and messages.
        capability_id: The id of the capability.
        resources: The resources that the job needs.
        max_retries: How often the job is retried after its worker is lost.
        created_at: When it was submitted, by the client's clock; listings are sorted by it.
        created_by: user@host.
        versions: The client's versions of Python, Ray and batchrunner.
        nonce: A random id: two requests with the same nonce are one request, sent twice.
    """

    key: str
    name: str
    capability_id: str
    resources: Resources = field(default_factory=dict)
    max_retries: int = 0
    created_at: str = field(default_factory=now_text)
    created_by: str = field(default_factory=lambda: f"{_user()}@{platform.node()}")
    versions: Mapping[str, str] = field(default_factory=lambda: dict(versions_here()))
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class PickledCall:
    """The call that a worker makes. No part of the request: it may be large and hold secrets.

    Attributes:
        payload: The call, pickled; only a worker unpickles it.
        import_paths: The client's import paths; a worker adds those that exist there, too.
    """

    payload: bytes = field(repr=False)
    import_paths: tuple[str, ...] = field(default_factory=import_paths)


def checked_name(name: object, capability: Any) -> str:
    """Return the job's name: *name*, or the capability's id.

    Raises:
        InvalidSpecError: The name is empty, too long, or no string.
    """
    text = str(capability.id) if name is None else name
    if not isinstance(text, str) or not text.strip():
        raise InvalidSpecError(f"job_name must be some text, not {name!r}")
    if len(text.encode(errors="replace")) > _MAX_NAME:
        raise InvalidSpecError(f"job_name must have at most {_MAX_NAME} bytes; give a shorter one")
    return text.strip()


def check_call(capability: Any, inputs: Mapping[str, Any]) -> None:
    """Check that *capability* can be submitted, and that its `run` takes *inputs*.

    Raises:
        InvalidSpecError: It is a class, or lacks `id` or `run`; its `run` is async or does not take
            *inputs*; *inputs* have `use_cache`, or datasets, models or metrics that are no list.
    """
    # `run` as a class method or static method is allowed: such a class is itself a capability.
    run = inspect.getattr_static(capability, "run", None)
    if isinstance(capability, type) and inspect.isfunction(run):
        name = capability.__qualname__
        raise InvalidSpecError(
            f"a capability is an object, and {name} is a class: give an instance, such as {name}()"
        )
    if not callable(getattr(capability, "run", None)) or not hasattr(capability, "id"):
        raise InvalidSpecError(
            f"a capability is an object with `id` and `run(...)`; this is {capability!r:.200}"
        )
    if inspect.iscoroutinefunction(capability.run):
        raise InvalidSpecError(
            f"capability {capability.id}: run() is `async`, and no worker awaits it: write "
            "`def run`, and call asyncio.run() in it"
        )
    if inputs.get("use_cache"):
        raise InvalidSpecError(
            "use_cache=True is not possible in a job: a worker's local cache is neither durable nor "
            'shared. The backend "ray" runs no run twice; results are in the analytics store'
        )
    for kind in KINDS:
        _check_list(kind, inputs.get(kind))
    try:
        inspect.signature(capability.run).bind(**inputs)
    except TypeError as error:
        raise InvalidSpecError(f"capability {capability.id}: run() {error}") from error


def _check_list(kind: str, items: Any) -> None:
    # A string is a sequence, too: each of its letters would pass for an item with an id.
    if isinstance(items, str | bytes):
        raise InvalidSpecError(
            f"{kind} must be a list, not one text: write {kind}=[{items!r:.200}]"
        )
    if items is not None and not isinstance(items, Iterable):
        raise InvalidSpecError(f"{kind} must be a list, not {items!r:.200}")


def pickled_call(capability: Any, inputs: Mapping[str, Any], *, edition: str = "") -> PickledCall:
    """Pickle the call of `capability.run` for a worker. Warns if it is large.

    Raises:
        CapabilityImportError: The call cannot be pickled; the message names the argument at fault.
    """
    from ray import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(call_of(partial(capability.run, **inputs), edition))  # type: ignore[no-untyped-call]  # Ray is half typed
    except Exception as error:  # pickling runs the user's code, which may raise anything
        raise CapabilityImportError(_unpicklable({"capability": capability, **inputs})) from error
    if len(data) > LARGE_BYTES:
        warnings.warn(
            f"the job {capability.id} carries {len(data) >> 20} MiB of pickled objects to its "
            "worker; pass a URI and load it there",
            stacklevel=4,
        )
    return PickledCall(data)


def _unpicklable(parts: Mapping[str, Any]) -> str:
    from ray import cloudpickle

    for what, part in parts.items():
        try:
            cloudpickle.dumps(part)  # type: ignore[no-untyped-call]  # as above
        except Exception as error:  # noqa: BLE001 - as above
            kind = type(part)
            return (
                f"the job cannot be sent to a worker: its {what}, a {kind.__module__}."
                f"{kind.__qualname__}, cannot be pickled: {describe(error)}. Make such things "
                "(files, locks, connections, generators) inside run(), or pass a URI"
            )
    return "the job cannot be sent to a worker: it cannot be pickled. Pass plain values or URIs to run()"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user without a name
        return "unknown"
