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
from batchrunner.checkpoint.dead_letters import DeadLetter, dead_letter_in
from batchrunner.checkpoint.documents import record_lines
from batchrunner.errors import DamagedOutputError, StorageError
from batchrunner.worker.part import DeadLetterFile

_log = logging.getLogger(__name__)

_NAME = re.compile(r"errors/(?P<stem>[^.]+)\.given-up\.\d+\.\w+\.jsonl")


def keep_dead_letters(
    checkpoint: Checkpoint, stem: str, dead_letters: Sequence[DeadLetter], *, epoch: int
) -> None:
    """Make the *dead letters* of one attempt durable: those of an attempt that is given up, at its end.

    Never raises for storage: what failed the shard is told in any case.
    """
    # Of several attempts that of the latest driver counts: by its epoch, as clocks differ. A task that
    # Ray runs again leaves a second one; either tells of the same rows.
    name = f"{stem}.given-up.{epoch:08d}.{uuid.uuid4().hex}.jsonl"
    try:
        kept = DeadLetterFile(checkpoint.records.stage())
        kept.append(dead_letters)
        kept.staged.file.close()
        checkpoint.publish_dead_letters({name: kept.staged})
    except StorageError as error:
        _log.warning("the rows that failed %s are not kept: %s", stem, error)


def kept_dead_letters(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the keys of the dead letters kept last, by the stem of their shard's part: one listing."""
    # By stem, and then by epoch: of each shard the last one is kept.
    keys = sorted(entry.key for entry in checkpoint.records.list("errors"))
    return {match["stem"]: match[0] for match in map(_NAME.fullmatch, keys) if match}


def dead_letters_under(checkpoint: Checkpoint, key: str) -> Iterator[dict[str, Any]]:
    """Yield the dead letters under *key*.

    Raises:
        DamagedOutputError: They are not whole.
    """
    try:
        for line in record_lines(checkpoint.records, key):
            yield dead_letter_in(line)
    except ValueError as error:
        raise DamagedOutputError(f"{key} is damaged; batchrunner retry makes it anew") from error
