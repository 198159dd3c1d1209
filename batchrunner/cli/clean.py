"""`batchrunner clean`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import storage_options
from batchrunner.cli.rendering import output_option, print_records
from batchrunner.cli.terminal import say

if TYPE_CHECKING:
    from batchrunner.views.garbage import Garbage

_DEFAULT = "/_checkpoint"


@click.command("clean")
@click.argument("place")
@click.option("--force", is_flag=True, help="Remove what is listed.")
@storage_options("a PLACE that is no spec")
@output_option
def command(place: str, force: bool, storage_options: dict[str, Any], output: str) -> None:
    """List what dead drivers and workers of a run left behind; with --force, remove it.

    PLACE is its spec, or its checkpoint folder or s3:// URI. Output, records and rows set aside
    stay; so does everything while a driver runs.
    """
    garbage = _garbage(place, storage_options)
    found = garbage.listed()
    if force and found:
        found = garbage.remove()
    print_records([one.to_dict() for one in found], output)
    size = f"{len(found):,} objects, {sum(one.bytes for one in found):,} bytes"
    if not found:
        say("nothing is left behind")
    elif force:
        say(f"removed: {size}")
    elif runner := garbage.runner():
        say(f"found: {size}; {runner} may still need them")
    else:
        say(f"found: {size}\nnext: batchrunner clean --force {shlex.quote(place)}")


def _garbage(place: str, storage_options: dict[str, Any]) -> Garbage:
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.cli.options import is_spec
    from batchrunner.spec import BatchSpec
    from batchrunner.storage import open_storage
    from batchrunner.views.garbage import Garbage
    from batchrunner.worker.work import checkpoint_storage

    if is_spec(place):
        spec = BatchSpec.from_yaml(place)
        sink = open_storage(spec.sink.uri, storage_options=spec.sink.storage_options)
        return Garbage(Checkpoint.current(checkpoint_storage(spec)), sink=sink)
    storage = open_storage(place, storage_options=storage_options)
    if storage.uri.endswith(_DEFAULT):
        sink = open_storage(storage.uri.removesuffix(_DEFAULT), storage_options=storage_options)
        return Garbage(Checkpoint.current(storage), sink=sink)
    return Garbage(Checkpoint.current(storage), sink=None)
