"""A trial on the command line: `run --limit` and `run --sample`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import spec_words

if TYPE_CHECKING:
    from batchrunner.runner import BatchRunner
    from batchrunner.spec import BatchSpec


@dataclass(frozen=True, slots=True)
class Trial:
    """What `--limit` and `--sample` ask for; neither means the run itself."""

    limit: int | None = None
    sample: str | None = None

    def __bool__(self) -> bool:
        return self.limit is not None or self.sample is not None

    def runner(self, spec: BatchSpec) -> BatchRunner:
        """Return the runner of this trial of *spec*; without one, that of the spec itself.

        Raises:
            InvalidSpecError: The spec can have no trial, or the sample is no amount.
        """
        from batchrunner.runner import BatchRunner

        runner = BatchRunner(spec)
        return runner.trial(limit=self.limit, sample=self.sample) if self else runner

    def words(self, spec: str, *, real: BatchSpec, sink: str) -> str:
        """Return the words by which commands find this trial, to paste: *spec* with its *sink*."""
        words = spec_words(spec)
        if self:
            words += f" --set {shlex.quote(f'sink.uri={sink}')}"
            words += " --set checkpoint_dir=null" if real.checkpoint_dir else ""
        return words

    def ending(self, spec: str) -> list[str]:
        """Return the last lines of a trial: that the run is as it was, and its command."""
        again = f"the run: batchrunner run {spec_words(spec)}"
        return ["a trial: the run itself is as it was", again] if self else []


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--limit` and `--sample` to *command*, which gets them as one `Trial`."""
    limit = click.option(
        "--limit",
        type=click.IntRange(1),
        metavar="N",
        help="A trial with the first N rows: output beside the sink, in _trial-<its name>; starts over "
        "each time; the run itself, its sink and the analytics store stay as they are.",
    )
    sample = click.option(
        "--sample",
        metavar="N|SHARE",
        help="A trial with N rows, or a share of the bytes such as 0.01 or 1%, from 32 places all over "
        "the source: the same ones each time, and little is read to find them. Of a compressed file, "
        "its first rows.",
    )
    return limit(sample(command))


def trial_of(limit: int | None, sample: str | None) -> Trial:
    """Return the trial that the options ask for.

    Raises:
        UsageError: They ask for two.
    """
    if limit is not None and sample is not None:
        raise click.UsageError("--limit and --sample are two trials: give one of them")
    return Trial(limit, sample)
