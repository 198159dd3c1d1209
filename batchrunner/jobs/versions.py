"""Versions on both sides: pickles made by one Python are not for another."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version

from batchrunner import __version__
from batchrunner.errors import CannotStartError


@cache
def versions_here() -> Mapping[str, str]:
    """Return the versions that a client and its workers have to agree on."""
    return {
        "python": platform.python_version(),
        "ray": version("ray"),
        "batchrunner": __version__,
    }


def difference(client: Mapping[str, str]) -> str:
    """Return how this worker differs from its *client*, in a line; "" when it does not.

    Raises:
        CannotStartError: It differs so that the client's pickles may mean something else here.
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
    return f"the client's and the worker's versions differ: {listed} (client, worker)"


def _minor(text: str) -> list[str]:
    return text.split(".")[:2]
