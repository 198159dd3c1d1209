"""Every error that this package raises on purpose, grouped by what the caller does next.

BatchRunnerError
├── InvalidSpecError            2   fix the spec or the command line; nothing was started  (also a ValueError)
│   ├── InvalidRecordError          a record, or its class, is not flat or does not fit its run
│   ├── QueryError                  the SQL cannot be run as written
│   └── RunNotFoundError            the analytics store has no such run
├── CannotStartError            3   fix the environment, then run the same line again
│   ├── CapabilityImportError       the capability cannot be imported or built
│   ├── UnsafeStorageError          the storage cannot publish exactly once
│   ├── NewerFormatError            a later version of batchrunner wrote this; install that one
│   └── RayUnavailableError         Ray cannot start, be reached, or schedule the workers
├── RunRefusedError             4   decide: what exists is not what the spec asks for; nothing was changed
│   ├── SpecChangedError            the spec or the capability's code changed
│   ├── InputChangedError           a source file vanished, or changed while it was read
│   ├── LeaseHeldError              another driver runs this checkpoint
│   ├── SchemaConflictError         a column of a table has another type than before
│   ├── DamagedOutputError          a sentinel without its part, or a part that differs from it
│   └── ForeignOutputError          the sink holds objects that this run did not write
│       └── TakenPathError              other bytes have the path of a file that a part lists
├── ShardFailedError            1   one shard failed; the others are kept
├── RunStoppedError            75   stopped on purpose with work left; run the same line again
├── JobError                    1   a job did not succeed; `job_id` says which
│   ├── JobFailedError              it failed; the message and `traceback` say why
│   ├── JobCancelledError           a user cancelled it
│   └── JobTimeoutError        75   it is still running: wait again  (also a TimeoutError)
├── BackpressureError          75   too much at once; repeat the same call in a moment  (also a RuntimeError)
├── NoJobBackendError           3   call configure_job_backend first  (also a RuntimeError)
├── UnknownJobError             2   there is no such job  (also a KeyError)
└── StorageError                3   storage failed a request; often temporary, so retry  (also an OSError)
    ├── ObjectNotFoundError         nothing under that key
    ├── StorageAccessError          no credentials, the wrong ones, or no permission
    └── ObjectChangedError          the object is not the one that was listed

The number is the exit code of the command line. Every constructor takes the message as its one
positional argument, so that errors survive pickling: Ray moves them between processes.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class _Place(NamedTuple):
    line: int
    column: int
    message: str


class SpecProblem(_Place):
    """One problem of a spec, for programs; line and column count from 1.

    Attributes:
        file: The file of that line; "--set" or "overrides" for a value that was given there.
    """

    file: str = ""

    @classmethod
    def in_file(cls, file: str, place: tuple[int, int], message: str) -> SpecProblem:
        """Return a problem of *file* at *place*, which is a line and a column."""
        problem = cls(*place, message)
        problem.file = file
        return problem


class BatchRunnerError(Exception):
    """Base class: catch it to catch every error that this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class InvalidSpecError(BatchRunnerError, ValueError):
    """The spec cannot be run as written; nothing was started. Fix it.

    Attributes:
        problems: Each problem, with its place in the text of the spec; () when there is no text.
    """

    exit_code = 2
    problems: tuple[SpecProblem, ...] = ()


class InvalidRecordError(InvalidSpecError):
    """A record, or its class, is not flat, or does not fit its run. Change the dataclass."""


class QueryError(InvalidSpecError):
    """The SQL cannot be run as written. Correct the query."""


class RunNotFoundError(InvalidSpecError):
    """The analytics store has no such run. List its runs to find the ref."""


class CannotStartError(BatchRunnerError):
    """The environment lacks what the run needs. Provide it, and run the same line again."""

    exit_code = 3


class CapabilityImportError(CannotStartError):
    """The capability cannot be imported, found in its module or built. Correct its name or code."""


class UnsafeStorageError(CannotStartError):
    """The storage would let a second writer replace a published object. Choose another one."""


class NewerFormatError(CannotStartError):
    """A later version of batchrunner wrote this. Install that version."""


class RayUnavailableError(CannotStartError):
    """Ray cannot start, be reached or schedule the workers. Change the cluster or spec."""


class RunRefusedError(BatchRunnerError):
    """Continuing might lose or mix rows, so the user has to decide. Nothing was changed."""

    exit_code = 4


class SpecChangedError(RunRefusedError):
    """The checkpoint is of another spec or other code. Undo the change, or pass --fresh."""


class InputChangedError(RunRefusedError):
    """The source differs from the one that was planned. Restore it, or pass --fresh."""


class LeaseHeldError(RunRefusedError):
    """Another driver runs this checkpoint. Wait for it, or stop it."""


class SchemaConflictError(RunRefusedError):
    """A column of a table has another type than before; nothing was written. Rename the column."""


class DamagedOutputError(RunRefusedError):
    """Committed output is missing or differs from its sentinel.

    Restore it, or let `verify --repair` move it away, so that `run` computes it again.
    """


class ForeignOutputError(RunRefusedError):
    """The sink holds objects that this run did not write. Choose another sink, or remove them."""


class TakenPathError(ForeignOutputError):
    """Other bytes have the path of a file that a part lists; `retry` makes the shard again."""


class ShardFailedError(BatchRunnerError):
    """One shard failed; `__cause__` says why. The other shards are kept; retry after a fix."""


class RunStoppedError(BatchRunnerError):
    """The run stopped on purpose before its end. Committed shards are safe; run it again."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: schedulers take it for "try again later"


class JobError(BatchRunnerError):
    """A job did not succeed.

    Attributes:
        job_id: Id of the job.
    """

    def __init__(self, message: str, *, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailedError(JobError):
    """The job failed; the message and the traceback say why.

    Attributes:
        traceback: The worker's traceback as plain text; "" when there is none.
    """

    def __init__(self, message: str, *, job_id: str = "", traceback: str = "") -> None:
        super().__init__(message, job_id=job_id)
        self.traceback = traceback
        if traceback:  # a note, so that Python prints it below this error's own traceback
            self.add_note(f"On the worker:\n{traceback}")


class JobCancelledError(JobError):
    """A user cancelled the job. Submit it again if that was a mistake."""


class JobTimeoutError(JobError, TimeoutError):
    """The job has not ended yet and is still running. Wait again."""

    exit_code = 75


class BackpressureError(BatchRunnerError, RuntimeError):
    """There are too many calls at once. Nothing was done; repeat the same call in a moment."""

    exit_code = 75


class NoJobBackendError(BatchRunnerError, RuntimeError):
    """No job backend is configured in this process. Call `configure_job_backend` first."""

    exit_code = 3


class UnknownJobError(BatchRunnerError, KeyError):
    """There is no such job. List the jobs to find its id."""

    exit_code = 2

    def __str__(self) -> str:
        """Return the message itself: a KeyError would quote it."""
        return str(self.args[0])


class StorageError(BatchRunnerError, OSError):
    """Storage failed a request. It is often temporary: retry, then check the message."""

    exit_code = 3


class ObjectNotFoundError(StorageError):
    """There is no object under that key. Check the path."""


class StorageAccessError(StorageError):
    """Credentials are missing or wrong, or lack a permission. Correct them."""


class ObjectChangedError(StorageError):
    """The object under that key is not the one that was listed. List again."""


def describe(error: BaseException) -> str:
    """Return type and message of *error* in one line, cut to a length that fits a report."""
    # A stand-in for another error, such as `CallRaisedError`, carries the name of its type.
    name = getattr(error, "type_name", type(error).__name__)
    text = " ".join(f"{name}: {error}".split()).rstrip(":")
    return text if len(text) <= 500 else f"{text[:500]}…"
