"""Findings, and the checks that make them: side by side, each with a deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from batchrunner.errors import BatchRunnerError, describe

_REMOVING_SECONDS = 5.0
"""How much longer a check may take to remove what it has made."""


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
        leaves: What it makes and removes itself; "" if nothing.
    """

    name: str
    look: Callable[[], Sequence[CheckResult]]
    leaves: str = ""


def results_of(checks: Sequence[Check], *, seconds: float) -> Iterator[CheckResult]:
    """Start all *checks* at once, and yield their findings in order, as soon as they are there.

    A check that takes more than *seconds* is left behind, in a thread that does not keep the process
    alive: it costs its own line only. One that makes objects gets some seconds more to remove them.
    """
    answers = [_started(check) for check in checks]
    end = time.monotonic() + seconds
    for check, answer in zip(checks, answers, strict=True):
        try:
            yield from answer.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            left = end + _REMOVING_SECONDS - time.monotonic()
            is_tidy = not check.leaves or _comes(answer, within=left)
            yield _unanswered(check, seconds, is_tidy=is_tidy)


def _unanswered(check: Check, seconds: float, *, is_tidy: bool) -> CheckResult:
    slow = "see whether it hangs or is slow: --timeout waits longer"
    fact = f"no answer within {seconds:g} s"
    if is_tidy:
        return fail(check.name, fact, slow)
    return fail(check.name, f"{fact}; it may have left {check.leaves}", f"remove that, and {slow}")


def _comes(answer: queue.Queue[Sequence[CheckResult]], *, within: float) -> bool:
    try:
        answer.get(timeout=max(0.0, within))
    except queue.Empty:
        return False
    return True


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
