"""`python -m benchmarks.requests`: what a small run asks of a disk and of a bucket, and constructs.

Four shards of JSONL on the local engine: a first run, a run that resumes after two shards, and one
that finds nothing to do, each in a process of its own. The bucket is on SeaweedFS, on loopback.

On the disk, calls count that are about a path below the run's folder; what C code does past `os` and
`open` is not seen. "refused" are those that an error answers. Requests are counted as they are sent,
retries too. A session that takes longer than 5 s also renews its lease.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

from batchrunner import BatchRunner, BatchSpec
from batchrunner.storage import open_storage
from batchrunner.storage.s3 import calls as s3_calls
from batchrunner.testing.s3_servers import seaweedfs_server
from benchmarks.capabilities import PAUSE
from benchmarks.places import in_memory

SHARDS, ROWS = 4, 10
_CALLS = {
    "mkdir": "mkdir",
    "link": "link",
    "rename": "rename",
    "replace": "rename",
    "unlink": "unlink",
    "remove": "unlink",
    "rmdir": "rmdir",
    "listdir": "list",
    "scandir": "list",
    "stat": "stat",
    "lstat": "stat",
}
_HALF_SECONDS = 4.0
"""The time of a run that is to end in its second shard; a process needs one or two to get there."""


def main() -> None:
    """Print a table for the disk and one for the bucket."""
    with in_memory() as place:
        _print_table("disk", _three_runs(str(place.folder), {}))
    with seaweedfs_server() as server:
        _print_table("S3", _three_runs(f"s3://{server.bucket}/house", server.storage_options))


def _three_runs(root: str, options: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """Return what each run below *root* counts."""
    whole, half = (_a_spec(f"{root}/{name}", options) for name in ("whole", "half"))
    first = _in_a_process(_counts, whole)
    _run_half(half)
    return {
        "first run": first,
        f"resume after {SHARDS // 2}": _in_a_process(_counts, half),
        "no-op run": _in_a_process(_counts, whole),
    }


def _a_spec(root: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write a source below *root* and return the fields of a spec over it."""
    storage = open_storage(root, storage_options=options)
    for shard in range(SHARDS):
        lines = [json.dumps({"id": shard * ROWS + n, "text": "row"}) + "\n" for n in range(ROWS)]
        storage.put(f"in/{shard}.jsonl", "".join(lines).encode())
    return {
        "capability": "benchmarks.capabilities:echo",
        "source": {"uri": f"{root}/in", "storage_options": options},
        "sink": {"uri": f"{root}/out", "storage_options": options},
        "execution": {"engine": "local"},
    }


def _run_half(spec: dict[str, Any]) -> None:
    """Run two shards of *spec*: its time ends while the second one is worked on."""
    limited = {**spec, "execution": {**spec["execution"], "max_runtime": _HALF_SECONDS}}
    committed = _in_a_process(_shards_in_time, limited)
    if committed != SHARDS // 2:
        raise SystemExit(f"{committed} shards were committed in {_HALF_SECONDS} s: run it again")


def _shards_in_time(spec: dict[str, Any]) -> int:
    os.environ[PAUSE] = str(_HALF_SECONDS + 1)
    return BatchRunner(BatchSpec(**spec)).run().shards_new


def _in_a_process(work: Callable[..., Any], spec: dict[str, Any]) -> Any:
    """Return what *work* makes of *spec* in a new process: nothing is connected or cached there."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, spec).result()


def _counts(spec: dict[str, Any]) -> Counter[str]:
    """Run *spec* and return how often it did what."""
    watch = Watch(spec["sink"]["uri"].removesuffix("/out"))
    watch.begin()
    report = BatchRunner(BatchSpec(**spec)).run()
    if not report.ok:
        raise SystemExit(f"the run did not end well: {report}")
    return Counter({"shards committed": report.shards_new}) + Counter(watch.events)


class Watch:
    """Records what this process does from now on. Nothing is restored: use it in a child process.

    Attributes:
        events: What happened, one entry each time; appending is safe in threads, adding is not.
    """

    def __init__(self, root: str) -> None:
        """Watch the files below *root*, which is a folder or the URI of a bucket."""
        self.events: list[str] = []
        self._root = root
        self._opened = threading.local()

    def begin(self) -> None:
        for name, counted_as in _CALLS.items():
            setattr(os, name, self._watched(getattr(os, name), counted_as))
        os.fsync = self._watched_fsync(os.fsync)
        sys.addaudithook(self._audit)
        for kind in _checkpoints_and_storages():
            kind.__init__ = self._watched_init(kind.__name__, kind.__init__)
        self._watch_requests()

    def _watched(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            path = str(args[0]) if args else ""
            if not path.startswith(self._root):
                return real(*args, **kwargs)
            what = "mkdir of .staging" if (name, Path(path).name) == ("mkdir", ".staging") else name
            try:
                answer = real(*args, **kwargs)
            except OSError:
                self.events.append(f"{what}, refused")
                raise
            self.events.append(what)
            return answer

        return call

    def _watched_fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(fd: int) -> None:
            if str(Path(f"/proc/self/fd/{fd}").readlink()).startswith(self._root):
                is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
                self.events.append("fsync of a folder" if is_folder else "fsync of a file")
            real(fd)

        return fsync

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Record every way to open a file: Python announces them all as the event "open"."""
        if event != "open" or not str(args[0]).startswith(self._root):
            return
        path, mode, flags = args
        # A file whose opener is our own is announced twice, the second time by os.open.
        is_announced = mode is None and getattr(self._opened, "path", None) == path
        self._opened.path = path if mode is not None else None
        if not is_announced:
            self.events.append(_kind_of_open(flags))

    def _watched_init(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def init(this: Any, *args: Any, **kwargs: Any) -> None:
            self.events.append(f"new {name}")
            real(this, *args, **kwargs)

        return init

    def _watch_requests(self) -> None:
        real = s3_calls._call  # noqa: SLF001 - every request goes through it

        async def call(fs: Any, method: str, **parameters: Any) -> Any:
            self.events.append(f"request {''.join(map(str.title, method.split('_')))}")
            return await real(fs, method, **parameters)

        s3_calls._call = call  # noqa: SLF001 - likewise


def _kind_of_open(flags: int) -> str:
    if flags & os.O_DIRECTORY:
        return "open a folder"
    return "create a file" if flags & os.O_CREAT else "open a file"


def _checkpoints_and_storages() -> Iterator[type]:
    """Yield the classes to count, found by what they are: their modules may move."""
    for room in ("batchrunner.checkpoint", "batchrunner.storage"):
        for module in walk_packages(import_module(room).__path__, f"{room}."):
            import_module(module.name)
    modules = [module for name, module in sys.modules.items() if name.startswith("batchrunner.")]
    classes = {c for module in modules for c in vars(module).values() if isinstance(c, type)}
    for one in sorted(classes, key=lambda c: c.__name__):
        is_protocol = getattr(one, "_is_protocol", False)
        is_storage = {"put_if_absent", "publish"} <= vars(one).keys() and not is_protocol
        if is_storage or one.__name__ == "Checkpoint":
            yield one


def _print_table(place: str, runs: dict[str, Counter[str]]) -> None:
    for counts in runs.values():
        asked = [name for name in counts if not name.startswith(("new ", "shards "))]
        counts["all of them, new objects aside"] = sum(counts[name] for name in asked)
    names = sorted({name for counts in runs.values() for name in counts})
    print(f"| {place} |", " | ".join(runs), "|")
    print("|---" * (1 + len(runs)) + "|")
    for name in names:
        print(f"| {name} |", " | ".join(str(counts[name]) for counts in runs.values()), "|")
    print()


if __name__ == "__main__":
    main()
