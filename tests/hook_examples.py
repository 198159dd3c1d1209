"""The hooks of the tests, as users write them."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path


class Diary:
    """Writes a line for each event into `path`."""

    def __init__(self, path="diary.jsonl"):
        self.path = Path(path)

    def _write(self, name, event):
        with self.path.open("a") as file:
            file.write(json.dumps([name, asdict(event)]) + "\n")

    def on_run_start(self, event):
        self._write("on_run_start", event)

    def on_shard_committed(self, event):
        self._write("on_shard_committed", event)

    def on_dead_letter(self, event):
        self._write("on_dead_letter", event)

    def on_run_end(self, event):
        self._write("on_run_end", event)


class Deadly(Diary):
    """Kills the driver when the first shard is committed."""

    def on_shard_committed(self, event):
        super().on_shard_committed(event)
        if not Path("killed").exists():
            Path("killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Chatty:
    """Prints where a program reads the report, and ends its thread."""

    def on_run_start(self, event):
        sys.stdout.write("{ not json\n")
        raise SystemExit(7)

    def on_run_end(self, event):
        sys.stdout.write("{ nor this\n")
        raise KeyboardInterrupt


class Hangs:
    """Never returns."""

    def on_run_start(self, event):
        threading.Event().wait()


class Forks(Diary):
    """Forks at each shard, and returns in both processes."""

    def on_shard_committed(self, event):
        super().on_shard_committed(event)
        if os.fork():
            os.wait()


class HangsAtFirst:
    """Its constructor never returns."""

    def __init__(self):
        threading.Event().wait()

    def on_run_end(self, event):
        pass


class ForksAtFirst(Diary):
    """Its constructor forks, and returns in both processes."""

    def __init__(self, path="diary.jsonl"):
        super().__init__(path)
        if os.fork():
            os.wait()


class HangsInAPool:
    """Leaves a task in a pool, for which the interpreter waits, and it never ends."""

    def on_run_end(self, event):
        ThreadPoolExecutor().submit(threading.Event().wait)


class HangsAtExit:
    """Registers what never returns for the end of the interpreter."""

    def on_run_end(self, event):
        atexit.register(threading.Event().wait)


class ClosesStreams:
    """Closes the descriptors of the process."""

    def on_run_end(self, event):
        os.close(1)
        os.close(2)
