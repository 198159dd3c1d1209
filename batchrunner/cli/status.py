"""`batchrunner status`."""

from __future__ import annotations

import click

from batchrunner.cli.rendering import output_option, print_record


@click.command("status")
@click.argument("place")
@output_option
def command(place: str, output: str) -> None:
    """Tell how far a run is. PLACE is its spec, or its checkpoint folder or s3:// URI.

    Reads the checkpoint alone: no Ray, no source, no sink, on any machine.
    """
    from batchrunner.checkpoint import Checkpoint
    from batchrunner.cli.places import checkpoint_of
    from batchrunner.status import status_of

    print_record(status_of(Checkpoint.current(checkpoint_of(place))).to_dict(), output)
