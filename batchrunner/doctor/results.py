"""Findings, and the checks that make them: side by side, each with a deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from batchrunner.errors import BatchRunnerError, describe


class CheckStatus(StrEnum):
    """What a finding means for a run."""

    OK = "ok"
    WARN = "warn"
    """A run starts, and may be slow or fail later."""
    FAIL = "fail"
    """A run would stop."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the checklist.

    Attributes:
        check: What was looked at, in a word or two.
        status: What it means.
        fact: What was found.
        way_out: What to do about it; "" if there is nothing to do.
    """

    check: str
    status: CheckStatus
    fact: str
    way_out: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the finding as plain JSON."""
        return {name: str(value) for name, value in asdict(self).items()}


def ok(check: str, fact: str) -> CheckResult:
    """Return a finding that nothing is to be done about."""
    return CheckResult(check, CheckStatus.OK, fact)


def warn(check: str, fact: str, way_out: str) -> CheckResult:
    """Return a finding that a run may suffer from."""
    return CheckResult(check, CheckStatus.WARN, fact, way_out)


def fail(check: str, fact: str, way_out: str = "") -> CheckResult:
    """Return a finding that would stop a run."""
    return CheckResult(check, CheckStatus.FAIL, fact, way_out)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: What, in a word or two.
        look: Looks, and returns what it found. A `BatchRunnerError` of it is a failure.
    """

    name: str
    look: Callable[[], Sequence[CheckResult]]


def results_of(checks: Sequence[Check], *, seconds: float) -> Iterator[CheckResult]:
    """Start all *checks* at once, and yield their findings in order, as soon as they are there.

    A check that takes more than *seconds* is left behind, in a thread that does not keep the process
    alive: it costs its own line only.
    """
    answers = [_started(check) for check in checks]
    end = time.monotonic() + seconds
    for check, answer in zip(checks, answers, strict=True):
        try:
            yield from answer.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            yield fail(
                check.name,
                f"no answer within {seconds:g} s",
                "see whether it hangs or is slow: --timeout waits longer",
            )


def _started(check: Check) -> queue.Queue[Sequence[CheckResult]]:
    answer: queue.Queue[Sequence[CheckResult]] = queue.Queue()
    threading.Thread(target=lambda: answer.put(_looked(check)), daemon=True).start()
    return answer


def _looked(check: Check) -> Sequence[CheckResult]:
    try:
        return check.look()
    except BatchRunnerError as error:
        return [fail(check.name, str(error))]
    except Exception as error:  # noqa: BLE001 - one broken check must not cost the others their lines
        return [fail(check.name, f"the check itself failed: {describe(error)}")]
