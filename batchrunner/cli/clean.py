"""`batchrunner clean`: lists or removes the garbage of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    load_spec,
    spec_options,
    spec_words,
    storage_options,
)
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say

if TYPE_CHECKING:
    from batchrunner.views.garbage import Garbage

_BELOW_SINK = "/_checkpoint"
"""Where a checkpoint lies below its sink when the spec names no `checkpoint_dir`."""


@click.command("clean")
@click.argument("place")
@spec_options
@click.option("--force", is_flag=True, help="Remove what is listed.")
@storage_options("a PLACE that is no spec")
@output_option
def command(place: str, force: bool, storage_options: dict[str, Any], output: str) -> None:
    """List what dead drivers and workers of a run left behind; with --force, remove it.

    PLACE is its spec, or its checkpoint folder or s3:// URI. Output, records and dead letters stay;
    so does everything while a driver runs.
    """
    garbage = _garbage(place, storage_options)
    items = garbage.listed()
    if force and items:
        items = garbage.remove()
    print_records([item.to_dict() for item in items], output)
    size = f"{len(items):,} objects, {sum(item.bytes for item in items):,} bytes"
    if not items:
        say("nothing is left behind")
    elif force:
        say(f"removed: {size}")
    elif lease := garbage.active_lease():
        say(f"found: {size}; {lease} may still need them")
    else:
        say(f"found: {size}\nnext: batchrunner clean --force {spec_words(place)}")


def _garbage(place: str, storage_options: dict[str, Any]) -> Garbage:
    from batchrunner.checkpoint import RunLocation
    from batchrunner.storage import open_storage
    from batchrunner.views.garbage import Garbage

    if is_spec(place):
        location = RunLocation.of(load_spec(place))
        return Garbage(location.checkpoint, sink=location.sink)
    checkpoint = checkpoint_of(place, storage_options)
    uri = checkpoint.storage.uri
    # A checkpoint elsewhere does not name its sink, so what is staged in the sink stays.
    if not uri.endswith(_BELOW_SINK):
        return Garbage(checkpoint, sink=None)
    sink = open_storage(uri.removesuffix(_BELOW_SINK), storage_options=storage_options)
    return Garbage(checkpoint, sink=sink)
