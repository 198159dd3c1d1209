"""`batchrunner status`: prints how far a run is."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.options import checkpoint_of, spec_options, storage_options
from batchrunner.cli.rendering import output_option, print_record


@click.command("status")
@click.argument("place")
@spec_options
@storage_options("a PLACE that is no spec")
@output_option
def command(place: str, storage_options: dict[str, Any], output: str) -> None:
    """Print how far a run is. PLACE is its spec, or its checkpoint folder or s3:// URI.

    Reads the checkpoint alone: no Ray, no source, no sink, on any machine.
    """
    from batchrunner.views.status import status_of

    checkpoint = checkpoint_of(place, storage_options)
    print_record(status_of(checkpoint).to_dict(), output)
