"""The options that say which analytics store or place a command is about, and how to reach it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import click

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.location import checkpoint_storage
from batchrunner.spec import BatchSpec
from batchrunner.storage import open_storage


def _json_object(_: click.Context, __: click.Parameter, value: str) -> dict[str, Any]:
    """Read a mapping, written as JSON; what is wrong with it is told without quoting it."""
    with contextlib.suppress(ValueError):
        found = json.loads(value)
        if isinstance(found, dict):
            return found
    raise click.BadParameter("write a JSON object, such as '{\"anon\": false}'")


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which store to read."""
    place = click.option(
        "--store",
        required=True,
        envvar="BATCHRUNNER_STORE",
        show_envvar=True,
        metavar="URI",
        help="The analytics store: a folder or s3://bucket/prefix.",
    )
    return place(storage_options("the store")(command))


def storage_options(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add what a place is reached with; *of* says which place."""
    return click.option(
        "--storage-options",
        callback=_json_object,
        default="{}",
        metavar="JSON",
        envvar="BATCHRUNNER_STORAGE_OPTIONS",
        show_envvar=True,
        help=f"fsspec's options of {of}, as JSON. The variable keeps secrets out of `ps`.",
    )


def checkpoint_of(place: str, storage_options: Mapping[str, Any]) -> Checkpoint:
    """Open the checkpoint of *place*: a spec, or the checkpoint's folder or URI.

    A spec has options of its own; *storage_options* are for the others.
    """
    if is_spec(place):
        return Checkpoint.current(checkpoint_storage(BatchSpec.from_yaml(place)))
    return Checkpoint.current(open_storage(place, storage_options=storage_options))


def is_spec(place: str) -> bool:
    """Tell whether *place* names a spec."""
    return place.endswith((".yaml", ".yml"))
