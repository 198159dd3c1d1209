"""The first dead letters of shards that are given up: no sentinel names them, they explain a failure.

They lie among those that attempts set aside, under a name of the attempt's own, and are garbage as those
are once their shard is committed.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.record_lines import record_lines
from batchrunner.errors import DamagedOutputError, StorageError
from batchrunner.worker.letters import DeadLetter
from batchrunner.worker.part import Letters

_log = logging.getLogger(__name__)

_NAME = re.compile(r"errors/(?P<stem>[^.]+)\.given-up\.(?P<at>\d+)\.\w+\.jsonl")


def keep_letters(checkpoint: Checkpoint, stem: str, letters: Sequence[DeadLetter]) -> None:
    """Make the *letters* of one attempt durable: those of an attempt that is given up, at its end.

    Never raises for storage: what failed the shard is told in any case.
    """
    # By time: of several attempts, in sessions one after the other, the last one counts.
    name = f"{stem}.given-up.{time.time_ns():020d}.{uuid.uuid4().hex}.jsonl"
    try:
        kept = Letters(checkpoint.records.stage())
        kept.append(letters)
        kept.staged.file.close()
        checkpoint.publish_letters({name: kept.staged})
    except StorageError as error:
        _log.warning("the rows that failed %s are not kept: %s", stem, error)


def kept_letters(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the keys of the letters kept last, by the stem of their shard's part: one listing."""
    keys = sorted(entry.key for entry in checkpoint.records.list("errors"))
    found = [match for match in map(_NAME.fullmatch, keys) if match]
    return {match["stem"]: match[0] for match in sorted(found, key=lambda match: match["at"])}


def letters_under(checkpoint: Checkpoint, key: str) -> Iterator[dict[str, Any]]:
    """Yield the letters under *key*.

    Raises:
        DamagedOutputError: They are not whole.
    """
    try:
        for line in record_lines(checkpoint.records, key):
            yield orjson.loads(line)
    except ValueError as error:
        raise DamagedOutputError(f"{key} is damaged; batchrunner retry makes it anew") from error
