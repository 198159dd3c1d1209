"""A process that writes to a store or compacts it, to be killed: `python store_actor.py JSON`.

The JSON has `uri`, `storage_options`, `act` and what `act` takes.
"""

from __future__ import annotations

import json
import sys

from batchrunner.analytics import background_compaction, open_store
from batchrunner.testing.analytics_contract import a_run


def main(uri: str, storage_options: dict, act: str, **arguments) -> None:
    # Compactions in the background ten times as often as by default.
    background_compaction.COMPACTION_TRIGGER, background_compaction.WRITES_PER_CHECK = 8, 4
    store = open_store(uri, storage_options=storage_options)
    ACTS[act](store, **arguments)


def write(store, *, names: list[str]) -> None:
    """One call for each run."""
    for name in names:
        store.write([a_run(name)])


def write_on(store, *, name: str) -> None:
    """Runs for ever: one alone, then some in a set."""
    number = 0
    while True:
        store.write([a_run(f"{name}-{number}")])
        store.write([a_run(f"{name}-{number + one}") for one in range(20)])
        number += 10


def compact_on(store) -> None:
    while True:
        store.compact()


ACTS = {"write": write, "write_on": write_on, "compact_on": compact_on}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
