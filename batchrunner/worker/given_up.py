"""The first dead letters of shards that are given up: no sentinel names them, they explain a failure.

They lie among those that attempts set aside, under a name of the attempt's own, and are garbage as those
are once their shard is committed.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.record_lines import record_lines
from batchrunner.errors import DamagedOutputError, StorageError
from batchrunner.worker.letters import DeadLetter, letter_in
from batchrunner.worker.part import Letters

_log = logging.getLogger(__name__)

_NAME = re.compile(r"errors/(?P<stem>[^.]+)\.given-up\.\d+\.\w+\.jsonl")


def keep_letters(
    checkpoint: Checkpoint, stem: str, letters: Sequence[DeadLetter], *, epoch: int
) -> None:
    """Make the *letters* of one attempt durable: those of an attempt that is given up, at its end.

    Never raises for storage: what failed the shard is told in any case.
    """
    # Of several attempts that of the latest driver counts: by its epoch, as clocks differ. A task that
    # Ray runs again leaves a second one; either tells of the same rows.
    name = f"{stem}.given-up.{epoch:08d}.{uuid.uuid4().hex}.jsonl"
    try:
        kept = Letters(checkpoint.records.stage())
        kept.append(letters)
        kept.staged.file.close()
        checkpoint.publish_letters({name: kept.staged})
    except StorageError as error:
        _log.warning("the rows that failed %s are not kept: %s", stem, error)


def kept_letters(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the keys of the letters kept last, by the stem of their shard's part: one listing."""
    # By stem, and then by epoch: of each shard the last one is kept.
    keys = sorted(entry.key for entry in checkpoint.records.list("errors"))
    return {match["stem"]: match[0] for match in map(_NAME.fullmatch, keys) if match}


def letters_under(checkpoint: Checkpoint, key: str) -> Iterator[dict[str, Any]]:
    """Yield the letters under *key*.

    Raises:
        DamagedOutputError: They are not whole.
    """
    try:
        for line in record_lines(checkpoint.records, key):
            yield letter_in(line)
    except ValueError as error:
        raise DamagedOutputError(f"{key} is damaged; batchrunner retry makes it anew") from error
