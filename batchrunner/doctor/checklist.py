"""The checklist: which checks there are, with a spec and without."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from batchrunner.doctor.clusters import capability_check, ray_check
from batchrunner.doctor.machine import machine_checks
from batchrunner.doctor.results import Check, CheckResult, fail, ok, results_of
from batchrunner.doctor.storages import storage_checks
from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec
from batchrunner.spec.secrets import looks_secret, remember, scrubbed


def examine(load: Callable[[], BatchSpec] | None, *, seconds: float) -> Iterator[CheckResult]:
    """Yield what there is to say about this machine, and about what the spec that *load* reads needs.

    Nothing is changed: objects and folders of its own are removed. Each check has *seconds*, and all
    run side by side. No value of a variable and no secret of the spec is in a finding.
    """
    remember(dict(_secret_variables()))
    spec = None
    if load is not None:
        try:
            spec = load()
        except InvalidSpecError as error:
            yield fail("spec", scrubbed(str(error)))
        else:
            yield ok("spec", f"{spec.name} is valid")
    # The checks that end a child when time is up do so before they are left behind.
    checks = _checks(spec, with_ray=spec is not None or load is None, seconds=0.9 * seconds)
    for finding in results_of(checks, seconds=seconds):
        yield CheckResult(
            finding.check, finding.status, scrubbed(finding.fact), scrubbed(finding.way_out)
        )


def _secret_variables() -> Iterator[tuple[str, str]]:
    """Yield the variables whose values are secret by their names; a path, as in PWD, is none."""
    for name, value in os.environ.items():
        if looks_secret(name) and name != "RAY_AUTH_MODE" and not Path(value).exists():
            yield name, value


def _checks(spec: BatchSpec | None, *, with_ray: bool, seconds: float) -> list[Check]:
    checks = machine_checks()
    if spec is not None:
        checks += [capability_check(spec, seconds=seconds), *storage_checks(spec)]
    if with_ray:  # a spec that cannot be read names no Ray
        checks.append(ray_check(spec, seconds=seconds))
    return checks
