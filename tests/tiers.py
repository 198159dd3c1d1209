"""Which tier a test is in: exactly one. `make` runs the tiers (docs/decisions/0037-three-test-tiers.md).

A test says what it needs and what it is by marks (`ray`, `s3`, `browser`, `sweep`, `smoke`, `soak`), most of
them without being asked: a fixture that is a server brings its mark, and so does a parameter
`engine` that is "ray".
"""

from __future__ import annotations

from collections.abc import Collection

UNIT, LOCAL, SMOKE, BROWSER, RAY, S3, SWEEP, SOAK = TIERS = (
    "unit",
    "local",
    "smoke",
    "browser",
    "ray",
    "s3",
    "sweep",
    "soak",
)

SERVERS = {
    "local_ray": RAY,
    "moto": S3,
    "seaweedfs": S3,
    "rclone": S3,
    "proxy": S3,
    "chromium": BROWSER,
}
"""Fixtures that start a server or a browser, and the mark of a test that uses one."""

LONG = "long"
"""The mark of a local test that starts many commands: it runs beside the sweeps, so that `make test`
stays short."""

WITHOUT_SERVERS = {UNIT, LOCAL}


def marks_of(fixtures: Collection[str], *, engine: object = None) -> set[str]:
    """Return the marks that follow from the *fixtures* of a test and its parameter *engine*."""
    marks = {SERVERS[name] for name in fixtures if name in SERVERS}
    return marks | {RAY} if engine == "ray" else marks


def tier_of(folder: str, marks: Collection[str]) -> str:
    """Return the tier of a test that lies in *folder* below `tests/` and has *marks*.

    Raises:
        ValueError: It lies in `unit/` and needs a server.
    """
    if folder == SOAK:  # it is not even read when another tier is run
        return SOAK
    # The dearest first, except that a smoke test stands for its whole kind in `make test`.
    for tier in (SOAK, SMOKE, SWEEP, RAY, S3, BROWSER):
        if tier in marks:
            if folder == UNIT and tier != SOAK:
                raise ValueError(f"unit/ is for tests without Ray, network or sweep: not {tier}")
            return tier
    if LONG in marks and folder != UNIT:
        return SWEEP
    return UNIT if folder == UNIT else LOCAL
