"""What a client asks for, checked and pickled before anything starts."""

from __future__ import annotations

import getpass
import inspect
import platform
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from batchrunner.errors import CapabilityImportError, InvalidSpecError, describe
from batchrunner.execute.import_paths import import_paths
from batchrunner.jobs.editions import call_of
from batchrunner.jobs.outcome import now_text
from batchrunner.jobs.resources import Resources
from batchrunner.jobs.versions import versions_here

LARGE_BYTES = 64 << 20
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class Request:
    """One call of `submit_capability`.

    Attributes:
        capability: What to run.
        inputs: What to call its `run` with.
        name: For people.
        resources: What it needs.
        payload: The call, pickled.
        edition: Tells it from the same run made before.
        created_at: When.
        created_by: user@host.
        nonce: Names this very request, so that it can be sent twice.
        versions: Of this process.
        import_paths: Of this process.
    """

    capability: Any
    inputs: Mapping[str, Any]
    name: str
    resources: Resources
    payload: bytes
    edition: str = ""
    created_at: str = field(default_factory=now_text)
    created_by: str = field(default_factory=lambda: f"{_user()}@{platform.node()}")
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)
    versions: Mapping[str, str] = field(default_factory=versions_here)
    import_paths: tuple[str, ...] = field(default_factory=import_paths)

    @property
    def max_retries(self) -> int:
        """What the capability itself says, for a backend that does not."""
        return int(getattr(self.capability, "default_max_retries", 0))


def checked_name(name: object, capability: Any) -> str:
    """Return the job's name: *name*, or the capability's id.

    Raises:
        InvalidSpecError: It is no name.
    """
    text = str(capability.id) if name is None else name
    if not isinstance(text, str) or not text.strip():
        raise InvalidSpecError(f"job_name must be some text, not {name!r}")
    if len(text.encode(errors="replace")) > _MAX_NAME:
        raise InvalidSpecError(f"job_name must have at most {_MAX_NAME} bytes")
    return text.strip()


def check_call(capability: Any, inputs: Mapping[str, Any]) -> None:
    """Check that *capability* is one, and that its `run` takes *inputs*.

    Raises:
        InvalidSpecError: It is not, or does not.
    """
    if not callable(getattr(capability, "run", None)) or not hasattr(capability, "id"):
        raise InvalidSpecError(
            f"a capability is an object with `id` and `run(...)`; this is {capability!r:.200}"
        )
    if inspect.iscoroutinefunction(capability.run):
        raise InvalidSpecError(
            f"capability {capability.id}: run() is `async`, and nobody would await it: write "
            "`def run`, and call asyncio.run() in it"
        )
    if inputs.get("use_cache"):
        raise InvalidSpecError(
            "use_cache=True is not possible in a job: a worker's local cache is neither durable nor "
            'shared. The backend "ray" runs no run twice; results are in the analytics store'
        )
    try:
        inspect.signature(capability.run).bind(**inputs)
    except TypeError as error:
        raise InvalidSpecError(f"capability {capability.id}: run() {error}") from error


def pickled_call(capability: Any, inputs: Mapping[str, Any], *, edition: str = "") -> bytes:
    """Return the call as bytes, for a worker.

    Warns when they are many.

    Raises:
        CapabilityImportError: Part of it cannot be pickled; the message says which.
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
    return data


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
    return "the job cannot be sent to a worker: it cannot be pickled"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as nobody in particular
        return "unknown"
