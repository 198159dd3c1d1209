"""One driver that is forced past the lease: `python driver_job.py FOLDER MUTANT`."""

from __future__ import annotations

import sys
from pathlib import Path

import mutants
from batchrunner.checkpoint.lease import Lease
from batchrunner.driver import session
from batchrunner.errors import BatchRunnerError
from batchrunner.runner import BatchRunner
from builders import a_spec

CAPABILITY = {
    "target": "capabilities:with_pid",
    "version": "1",
}


def main(folder: Path, mutant: str) -> int:
    mutants.apply(mutant)
    session.acquire_lease = lambda storage, owner, **_: Lease(1, owner)
    session.release_lease = lambda storage, lease: None
    try:
        report = BatchRunner(a_spec(folder, capability=CAPABILITY)).run()
    except BatchRunnerError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}")
        return error.exit_code
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
