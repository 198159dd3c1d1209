"""Hooks: code of yours, or of a package, that a run calls about what happens to it."""

from batchrunner.hooks.contract import (
    DeadLetterKept,
    EndState,
    Hook,
    RunEnded,
    RunInfo,
    RunStarted,
    ShardCommitted,
)

__all__ = [
    "DeadLetterKept",
    "EndState",
    "Hook",
    "RunEnded",
    "RunInfo",
    "RunStarted",
    "ShardCommitted",
]
