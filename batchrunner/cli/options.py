"""Options shared by commands: an analytics store, a checkpoint, and how to reach them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchrunner.checkpoint import Checkpoint


def _json_object(_: click.Context, __: click.Parameter, value: str) -> dict[str, Any]:
    """Parse a JSON object. The error does not quote *value*, which may hold secrets."""
    with contextlib.suppress(ValueError):
        options = json.loads(value)
        if isinstance(options, dict):
            return options
    raise click.BadParameter("write a JSON object, such as '{\"anon\": false}'")


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--store` and its `--storage-options` to *command*."""
    store = click.option(
        "--store",
        required=True,
        envvar="BATCHRUNNER_STORE",
        show_envvar=True,
        metavar="URI",
        help="The analytics store: a folder or s3://bucket/prefix.",
    )
    return store(storage_options("the store")(command))


def storage_options(of: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--storage-options`; *of* is what they open, for the help."""
    return click.option(
        "--storage-options",
        callback=_json_object,
        default="{}",
        metavar="JSON",
        envvar="BATCHRUNNER_STORAGE_OPTIONS",
        show_envvar=True,
        help=f"fsspec's options of {of}, as JSON. The variable keeps secrets out of `ps`.",
    )


def report_options(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--file` and `-o` to a command that makes the report *name*."""
    file = click.option(
        "-O",
        "--file",
        metavar="FILE",
        help=f"Where to write it; - for stdout.  [default: {name}-report.html, and JSON to stdout]",
    )
    output = click.option(
        "-o",
        "--output",
        type=click.Choice(("html", "json")),
        default="html",
        show_default=True,
        help="A page for people, or its values for programs.",
    )
    return lambda command: file(output(command))


def checkpoint_of(place: str, storage_options: Mapping[str, Any]) -> Checkpoint:
    """Open the checkpoint of *place*: a spec, or the checkpoint's folder or URI.

    A spec has storage options of its own; *storage_options* are for a folder or a URI.
    """
    # Imported here: `--help` must not wait for pydantic and fsspec.
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.checkpoint.location import checkpoint_storage
    from batchrunner.spec import BatchSpec
    from batchrunner.storage import open_storage

    if is_spec(place):
        return Checkpoint.current(checkpoint_storage(BatchSpec.from_yaml(place)))
    return Checkpoint.current(open_storage(place, storage_options=storage_options))


def is_spec(place: str) -> bool:
    """Return whether *place* names a spec."""
    return place.endswith((".yaml", ".yml"))
