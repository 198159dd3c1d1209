"""Every error this package raises on purpose, grouped by what the reader does next.

BatchRunnerError
├── InvalidSpecError            2   fix the spec or the command line; nothing was started  (also a ValueError)
│   ├── InvalidRecordError          a record, or its class, is not flat or does not fit its run
│   ├── QueryError                  the SQL cannot be run as written
│   └── RunNotFoundError            the analytics store knows no such run
├── CannotStartError            3   fix the environment, then the same line again
│   ├── CapabilityImportError       the capability cannot be imported or built
│   ├── UnsafeStoreError            the store cannot publish exactly once
│   ├── NewerFormatError            a later version of batchrunner wrote this; install that one
│   └── RayUnavailableError         Ray cannot start, be reached, or schedule the workers
├── RunRefusedError             4   decide: what is there is not what was asked for; nothing was touched
│   ├── SpecChangedError            the spec or the capability's code changed
│   ├── InputChangedError           a source file vanished, or changed while it was read
│   ├── LeaseHeldError              another driver runs this checkpoint
│   ├── SchemaConflictError         a column of a table has another type than before
│   ├── DamagedOutputError          a sentinel without its part, or a part that differs from it
│   └── ForeignOutputError          the sink holds objects that no run of ours wrote
├── ShardFailedError            1   one shard failed; the others are kept
├── RunStoppedError            75   stopped on purpose with work left: the same line again
├── JobError                    1   a job did not end as wished; `job_id` says which
│   ├── JobFailedError              it failed; the message and `traceback` say why
│   ├── JobCancelledError           somebody cancelled it
│   └── JobTimeoutError        75   it has not ended yet and goes on: wait again  (also a TimeoutError)
├── BackpressureError          75   too much at once: the same call again, in a moment  (also a RuntimeError)
├── NoJobBackendError           3   configure_job_backend comes first  (also a RuntimeError)
├── UnknownJobError             2   there is no such job  (also a KeyError)
└── StorageError                3   storage did not do what was asked; often passes  (also an OSError)
    ├── ObjectNotFoundError         nothing under that key
    ├── StorageAccessError          no credentials, the wrong ones, or no permission
    └── ObjectChangedError          the object is not the one that was listed

The number is the exit code of the command line. Every message is one string, so that errors
survive pickling: Ray moves them between processes.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class SpecProblem(NamedTuple):
    """One thing that is wrong with a spec, for programs; line and column count from 1."""

    line: int
    column: int
    message: str


class BatchRunnerError(Exception):
    """Base class: catch this to catch everything raised on purpose."""

    exit_code: ClassVar[int] = 1


class InvalidSpecError(BatchRunnerError, ValueError):
    """The spec cannot be run as written; nothing was started.

    Attributes:
        problems: Each thing that is wrong, where it stands in the text of a spec; () when no text is
            meant.
    """

    exit_code = 2
    problems: tuple[SpecProblem, ...] = ()


class InvalidRecordError(InvalidSpecError):
    """A record, or its class, is not flat, or does not fit its run."""


class QueryError(InvalidSpecError):
    """The SQL cannot be run as written."""


class RunNotFoundError(InvalidSpecError):
    """The analytics store knows no such run."""


class CannotStartError(BatchRunnerError):
    """The environment lacks something that the run needs."""

    exit_code = 3


class CapabilityImportError(CannotStartError):
    """The capability cannot be imported, found in its module, or built."""


class UnsafeStorageError(CannotStartError):
    """The store would let a second writer replace a published object."""


class NewerFormatError(CannotStartError):
    """A later version of batchrunner wrote this."""


class RayUnavailableError(CannotStartError):
    """Ray cannot start, cannot be reached, or cannot schedule what the spec asks for."""


class RunRefusedError(BatchRunnerError):
    """Going on might lose or mix rows: someone has to decide. Nothing was touched."""

    exit_code = 4


class SpecChangedError(RunRefusedError):
    """The checkpoint is of another spec, or of other code."""


class InputChangedError(RunRefusedError):
    """The source is not what the plan was made of."""


class LeaseHeldError(RunRefusedError):
    """Another driver runs this checkpoint."""


class SchemaConflictError(RunRefusedError):
    """A column of a table has another type than before; nothing was written."""


class DamagedOutputError(RunRefusedError):
    """Committed output is missing or differs from its sentinel."""


class ForeignOutputError(RunRefusedError):
    """The sink holds objects that this run did not write."""


class ShardFailedError(BatchRunnerError):
    """One shard could not be made; `__cause__` says why."""


class RunStoppedError(BatchRunnerError):
    """The run stopped on purpose before its end; committed shards are safe."""

    exit_code = 75


class JobError(BatchRunnerError):
    """A job did not end as its caller wished.

    Attributes:
        job_id: Which one.
    """

    def __init__(self, message: str, *, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailedError(JobError):
    """The job failed.

    Attributes:
        traceback: The worker's, as plain text; "" when there is none.
    """

    def __init__(self, message: str, *, job_id: str = "", traceback: str = "") -> None:
        super().__init__(message, job_id=job_id)
        self.traceback = traceback
        if traceback:
            self.add_note(f"On the worker:\n{traceback}")


class JobCancelledError(JobError):
    """The job was cancelled."""


class JobTimeoutError(JobError, TimeoutError):
    """The job has not ended yet; it goes on."""

    exit_code = 75


class BackpressureError(BatchRunnerError, RuntimeError):
    """Too much at once. Nothing was done; the same call may work in a moment."""

    exit_code = 75


class NoJobBackendError(BatchRunnerError, RuntimeError):
    """No job backend is configured in this process."""

    exit_code = 3


class UnknownJobError(BatchRunnerError, KeyError):
    """There is no such job."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message itself: a KeyError would quote it."""
        return str(self.args[0])


class StorageError(BatchRunnerError, OSError):
    """Storage did not do what was asked."""

    exit_code = 3


class ObjectNotFoundError(StorageError):
    """There is no object under that key."""


class StorageAccessError(StorageError):
    """No credentials, the wrong ones, or no permission."""


class ObjectChangedError(StorageError):
    """The object under that key is not the one that was listed."""


def describe(error: BaseException) -> str:
    """Return type and message of *error* in one line, short enough for a report."""
    name = getattr(error, "type_name", type(error).__name__)  # of what it stands for
    text = " ".join(f"{name}: {error}".split()).rstrip(":")
    return text if len(text) <= 500 else f"{text[:500]}…"
