"""`batchrunner status`: prints how far a run is."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.options import (
    checkpoint_of,
    is_spec,
    spec_options,
    spec_words,
    storage_options,
)
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
    name = spec_words(place)
    status = status_of(checkpoint, place=name, spec=name if is_spec(place) else "SPEC")
    print_record(status.to_dict(), output)
