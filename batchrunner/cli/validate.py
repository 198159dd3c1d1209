"""`batchrunner validate`."""

from __future__ import annotations

import click


@click.command("validate")
@click.argument("spec", type=click.Path(dir_okay=False))
def command(spec: str) -> None:
    """Check SPEC and look for its capability, without importing it or touching any storage."""
    from batchrunner.capability import check_target
    from batchrunner.errors import InvalidSpecError
    from batchrunner.plan.source import format_by_names
    from batchrunner.spec import BatchSpec

    loaded = BatchSpec.from_yaml(spec)
    if loaded.capability is None:
        raise InvalidSpecError(f"{spec}: there is no capability; name one: package.module:function")
    if parts := loaded.sink.format or format_by_names(loaded.source):
        loaded.sink.check_parts(parts)
    check_target(loaded.capability.target)
    click.echo(f"{spec}: ok", err=True)
