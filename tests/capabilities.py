"""The users' code of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path


def double(rows):
    return [{**row, "id": 2 * row["id"]} for row in rows]


def echo(rows):
    return rows


def fan_out_and_drop(row):
    """Row n becomes n % 3 rows."""
    return [{**row, "copy": copy} for copy in range(row["id"] % 3)]


def even_or_none(row):
    return row if row["id"] % 2 == 0 else None


def too_long_for_csv(row):
    """The first row has a text that no reader of CSV takes; the last one brings a column."""
    text = "x" * (17 << 20) if row["id"] == 0 else "y"
    return {"id": row["id"], "text": text} | ({"late": "L"} if row["id"] == 3 else {})


def keep_nothing(rows):
    return []


def one_shard_empty(rows):
    """The second of the crash sweep's shards loses all its rows, the others have two of each."""
    return [row for row in rows if not 4 <= row["id"] < 8 for _ in range(2)]


def with_pid(rows):
    """No two attempts give the same bytes."""
    return [{**row, "by": f"{os.getpid()}-{time.monotonic_ns()}"} for row in rows]


def in_pieces(rows):
    """A generator of batches."""
    for row in rows:
        yield [row]


def shout_columns(batch):
    """Written for Ray Data: changes a batch of numpy columns in place and adds one."""
    batch["id"] *= 2
    batch["length"] = [len(text) for text in batch["text"]]
    return batch


def shout_frame(frame):
    frame["id"] *= 2
    return frame[frame["id"] > 2]


def shout_table(table):
    import pyarrow.compute as pc

    return table.set_column(0, "id", pc.multiply(table["id"], 2))


async def later(rows):
    await asyncio.sleep(0.001 * (rows[0]["id"] % 7))
    return double(rows)


async def answers_after_a_while(row):
    await asyncio.sleep(0.02)
    return row


async def later_by_row(row):
    await asyncio.sleep(0)
    return even_or_none(row)


async def later_in_pieces(rows):
    for row in rows:
        await asyncio.sleep(0)
        yield [row]


class Scaled:
    """A model that takes its weights from its constructor."""

    def __init__(self, factor, *, path=None):
        self.factor = factor
        if path is not None:
            with open(path, "a") as file:
                file.write(f"{os.getpid()}\n")

    def __call__(self, rows, plus=0):
        return [{**row, "id": row["id"] * self.factor + plus} for row in rows]


class Unbuildable:
    def __init__(self):
        raise FileNotFoundError("weights.bin")

    def __call__(self, rows):
        return rows


def fails_on_5(rows):
    if any(row["id"] == 5 for row in rows):
        raise ValueError("five is right out")
    return rows


def fails_always(rows):
    raise ValueError("every row is wrong")


def returns_a_number(rows):
    return 7


def returns_nan(rows):
    return [{**row, "score": float("nan")} for row in rows]


def changes_type(rows):
    """Text in every shard but the first."""
    return [{**row, "id": row["id"] if row["id"] < 4 else str(row["id"])} for row in rows]


def nullable(rows):
    return [{**row, "note": None if row["id"] < 4 else "x"} for row in rows]


def slow(rows):
    time.sleep(0.1)
    return rows


def slow_files(rows):
    """Make a file of each row, with other bytes each time."""
    time.sleep(0.1)
    return [{"path": f"{row['id'] % 3}/{row['id']}.bin", "bytes": os.urandom(9)} for row in rows]


class LogsCalls:
    """Writes down which rows it saw, to show what is computed again."""

    def __init__(self, path):
        self.path = path

    def __call__(self, rows):
        with open(self.path, "a") as file:
            file.write("".join(f"{row['id']}\n" for row in rows))
        return rows


class Doubled:
    def __call__(self, rows):
        return double(rows)


def fails_until(rows, path):
    """Fails on the second shard until there is a file at *path*."""
    if not os.path.exists(path):
        return fails_on_5(rows)
    return rows


def waits_in_its_second_batch(rows, path):
    """Waits for a file at *path* with the rows from the fifth on, as a call that hangs for a while."""
    deadline = time.monotonic() + 240
    while rows[0]["id"] >= 4 and not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    return rows


def slows_down_and_raises_on_bad(rows, path):
    """As `raises_on_bad`; slow, and from row 40 on very slow, until there is a file at *path*."""
    deadline = time.monotonic() + (240 if rows[0]["id"] >= 40 else 0.4)
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)
    return raises_on_bad(rows)


def kills_its_task(rows, folder, times):
    """Dies in the middle of the job, so many *times* in all, counted in *folder*."""
    die(rows, folder, times)
    return rows


def dies_at_its_ninth_call(rows, folder):
    """Notes each call; dies once, and notes what was committed by then."""
    with open(f"{folder}/calls", "a+") as calls:
        calls.write(f"{rows[0]['id']}\n")
        calls.seek(0)
        number = len(calls.readlines())
    time.sleep(0.3)
    if number == 9:
        committed = os.listdir(f"{folder}/out/_checkpoint/sentinels")
        with open(f"{folder}/committed", "w") as file:
            file.write("\n".join(committed))
        os.kill(os.getpid(), 9)
    return rows


class KillsItsActor:
    def __init__(self, folder, times):
        self.folder, self.times = folder, times

    def __call__(self, rows):
        die(rows, self.folder, self.times)
        return rows


def die(rows, folder, times):
    if not any(row["id"] % 7 == 5 for row in rows):
        return
    for n in range(times):
        try:
            open(f"{folder}/death-{n}", "x").close()
        except FileExistsError:
            continue
        os.kill(os.getpid(), 9)


def very_slow(rows):
    time.sleep(600)
    return rows


def slow_by_row(rows):
    time.sleep(0.005 * len(rows))
    return rows


class SlowModel:
    def __call__(self, rows):
        return slow(rows)


def raises_on_bad(rows):
    """Fails for rows marked bad; the others go through."""
    if bad := [row["id"] for row in rows if row.get("bad")]:
        raise ValueError(f"row {bad[0]} is bad")
    return rows


def counts_calls(rows, path):
    """As `raises_on_bad`, with a line for each call, of how many rows it had."""
    with open(path, "a") as file:
        file.write(f"{len(rows)}\n")
    return raises_on_bad(rows)


def wrong_type_on_bad(row):
    return 7 if row.get("bad") else row


def exits_on_bad(rows):
    if any(row.get("bad") for row in rows):
        os._exit(3)
    return rows


def crashes_on_bad(rows):
    """As a segmentation fault in a library ends a process: no Python code runs any more."""
    if any(row.get("bad") for row in rows):
        os.kill(os.getpid(), signal.SIGKILL)
    return rows


def exits_with_0_on_bad(rows):
    if any(row.get("bad") for row in rows):
        os._exit(0)
    return rows


class ModelThatExits:
    """As `exits_on_bad`, for actors; says in a file that it was built."""

    def __init__(self, path):
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, rows):
        return exits_on_bad(rows)


def hangs_on_bad(rows):
    while any(row.get("bad") for row in rows):
        time.sleep(60)
    return rows


def runs_out_of_memory_above(rows, most):
    """As a GPU does: the batch was too large, the rows are fine."""
    if len(rows) > most:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return rows


def drops_shard(rows, path):
    """Fails whole shards from row 8 to 11 until there is a file at *path*."""
    if not os.path.exists(path) and any(8 <= row["id"] < 12 for row in rows):
        raise ConnectionError("the service is away")
    return rows


def fails_while_bad(rows, path):
    """As `raises_on_bad`, until there is a file at *path*."""
    return rows if os.path.exists(path) else raises_on_bad(rows)


class LogsCallsSlowly(LogsCalls):
    def __call__(self, rows):
        time.sleep(0.15)
        return super().__call__(rows)


def keeps_its_secrets(rows, api_key, url):
    """Fails on a row, and says nothing of what it was given."""
    assert "SECRET" in api_key + url
    return fails_on_5(rows)


def a_little_slow(rows):
    """A minute of work for two million rows and two workers."""
    time.sleep(0.06)
    return rows


def without_ids(rows):
    return [{"text": row["text"]} for row in rows]


class OwnEndError(BaseException):
    """No `Exception`, and raised by the user's code alone."""


ENDS = {
    "exit-0": lambda: sys.exit(0),
    "exit-5": lambda: sys.exit(5),
    "interrupt": lambda: _raise(KeyboardInterrupt("of the row")),
    "cancelled": lambda: _raise(asyncio.CancelledError("of the row")),
    "generator-exit": lambda: _raise(GeneratorExit("of the row")),
    "own": lambda: _raise(OwnEndError("of the row")),
}
"""What ends a thread, a loop or a process when a row raises it, by what the row says in `ends`."""


def raises_on_id_0(rows):
    """Fails for the first row."""
    if rows[0]["id"] == 0:
        raise ValueError("the first row")
    return rows


def _raise(error):
    raise error


def ends_by_row(row):
    if "ends" in row:
        ENDS[row["ends"]]()
    return row


def ends(rows):
    return [ends_by_row(row) for row in rows]


def ends_in_pieces(rows):
    for row in rows:
        yield [ends_by_row(row)]


def ends_when_read(rows):
    """What it returns raises, when that is made ready for the sink."""
    return LazyRows(rows)


class LazyRows(list):
    def __iter__(self):
        return map(ends_by_row, list.__iter__(self))


def ends_with_a_message_that_ends(rows):
    if any("ends" in row for row in rows):
        raise EndsInItsMessageError(rows[0]["ends"])
    return rows


class EndsInItsMessageError(Exception):
    def __str__(self):
        return sys.exit(0)


async def ends_later(rows):
    await asyncio.sleep(0)
    return ends(rows)


async def ends_later_by_row(row):
    await asyncio.sleep(0)
    return ends_by_row(row)


async def ends_later_in_pieces(rows):
    for row in rows:
        await asyncio.sleep(0)
        yield [ends_by_row(row)]


async def ends_in_a_task_of_its_own(rows):
    """Then asyncio lets `SystemExit` out of the loop by itself, past the code that awaits the task."""
    return await asyncio.create_task(ends_later(rows))


class EndsAsRuns:
    id = "ends"

    def run(self, *, config, **_):
        ends_by_row(config)
        from batchrunner.analytics import CompletedRun

        return CompletedRun(f"run-{config['id']}", self.id, ())


class EndsWhenBuilt:
    def __init__(self, end):
        ENDS[end]()

    def __call__(self, rows):
        return rows


def takes_all_memory_on_bad(rows):
    """By asking for it only: the kernel gives no page before it is written."""
    import numpy as np

    hoard = [np.zeros(2**26, "u1") for row in rows if row.get("bad") for _ in range(2**12)]
    return rows[: len(rows) + len(hoard)]


def counts_calls_without_memory(rows, path):
    """As `counts_calls`, with the error of a row that takes all memory."""
    try:
        return counts_calls(rows, path)
    except ValueError as error:
        raise MemoryError from error


def hoards_memory_on_bad(rows):
    """For good: what it got stays with it, and no other row has the little that it needs."""
    while any(row.get("bad") for row in rows):
        HOARD.append(bytearray(2**23))
    return rows[: len(bytearray(2**26))]


HOARD = []


def waits_for_a_file(rows, path):
    """Takes its time, until there is a file at *path*; says in others who is at work."""
    with open(f"{path}-by-{os.getpid()}", "w"):
        pass
    while not os.path.exists(path):
        time.sleep(0.01)
    return rows


def hangs(rows, path):
    """Never returns; says in others who is at work."""
    with open(f"{path}-by-{os.getpid()}", "w"):
        pass
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def logs_and_hangs(rows, path):
    """Warns in a line that is longer than a terminal is wide, then never returns."""
    time.sleep(0.5)  # so that there is a bar
    logging.getLogger("capabilities").warning("a long warning %sits end", "word " * 30)
    hangs(rows, path)


def waits_for_a_word(rows, folder):
    """Before the rows of 100 and more: say so, and wait until there is an answer."""
    if rows[0]["id"] >= 100:
        Path(folder, "waiting").touch()
        deadline = time.monotonic() + 600
        while not Path(folder, "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    return rows


STUMBLED = set()


def stumbles(rows, mended, share):
    """Fail for each seventh id until *mended* exists, and once for a share of the calls.

    Like any code, it may spoil its rows before it fails.
    """
    ids = _ids(rows)
    once = (mended, ids[0])
    if ids[0] % 100 < share * 100 and once not in STUMBLED:
        STUMBLED.add(once)
        _spoil(rows)
        raise TimeoutError("try again")
    if any(number % 7 == 3 for number in ids) and not os.path.exists(mended):
        _spoil(rows)
        raise ValueError("not yet")
    return rows


def _ids(rows):
    if isinstance(rows, dict):
        return [rows["id"]]
    return [row["id"] for row in rows] if isinstance(rows, list) else rows["id"].to_pylist()


def _spoil(rows):
    for row in rows if isinstance(rows, list) else []:
        row.clear()
    if isinstance(rows, dict):
        rows.clear()


def stumbles_once(rows, share):
    """Fail at the first call for a share of the batches."""
    first = rows[0]["id"]
    if (first * 2_654_435_761) % 100 < share * 100 and first not in STUMBLED:
        STUMBLED.add(first)
        _spoil(rows)
        raise TimeoutError("try again")
    return rows


def removes_at_99(rows, path):
    """Remove *path* when a row has the id 99, in place of a person who does so meanwhile."""
    if any(row["id"] == 99 for row in rows):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    return rows


def prints_from_threads(rows, path):
    """Prints from three threads at once and logs; before the last row, waits for *path*."""
    number = rows[0]["id"]
    threads = [
        threading.Thread(target=print, args=(f"printed {number} by {who} to its end",))
        for who in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logging.getLogger("capabilities").warning("logged %d %sto its end", number, "word " * 40)
    return waits_for_a_file(rows, path) if number == 59 else rows


def prints_a_lot(rows, path):
    """Prints more than a buffer holds, to both streams; waits for *path* at its third row."""
    for stream in (sys.stdout, sys.stderr):
        print(f"printed {rows[0]['id']} {'word ' * 2_000}", file=stream, flush=True)
    return waits_for_a_file(rows, path) if rows[0]["id"] == 2 else rows


def waits_at_the_end(rows, path):
    """Waits for *path* before the rows from 8 on."""
    return waits_for_a_file(rows, path) if rows[0]["id"] >= 8 else rows


def waits_once_committed(rows, path):
    """Takes longer over row 4 than finished parts wait for each other; waits for *path* before row 24."""
    if rows[0]["id"] == 4:
        time.sleep(1.2)
    return waits_for_a_file(rows, path) if rows[0]["id"] >= 24 else rows


def echo_unless_13(row, *, gate):
    """Waits for the file *gate* before row 35: a run can be looked at while it goes on."""
    while row["id"] == 35 and not Path(gate).exists():
        time.sleep(0.05)
    if row["id"] == 13:
        raise ValueError("unlucky")
    return row


def terminates_its_driver(rows):
    """A supervisor that stops the run while it works: the driver is this process."""
    if rows[0]["id"] == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)  # the work of a shard
    return rows


def fails_for_bad(batch):
    """As `raises_on_bad`, for a batch in any format; the others go through."""
    if any(bads_of(batch)):
        raise ValueError("a row is bad")
    return batch


def fails_for_bad_until(batch, path, column="id"):
    """As `fails_for_bad`, until there is a file at *path*; always for a batch without *column*."""
    if batch["id"] is None or batch[column] is None:
        raise ValueError("it has a column less")
    return batch if os.path.exists(path) else fails_for_bad(batch)


def bads_of(batch):
    if isinstance(batch, list):
        return [row.get("bad") for row in batch]
    names = getattr(batch, "column_names", batch)
    bads = batch["bad"] if "bad" in names else []
    return [bad is not None and str(bad) == "True" for bad in bads]


def fails_for_a_bad_row(row):
    return fails_for_bad([row])


async def fails_later_for_bad(rows):
    await asyncio.sleep(0)
    return fails_for_bad(rows)


def fails_in_pieces_for_bad(rows):
    for row in rows:
        yield fails_for_bad([row])


def drops_bad(rows):
    """Returns a row less for each that is bad."""
    return [row for row in rows if not row.get("bad")]


def doubles_bad(rows):
    return [row for row in rows for _ in range(1 + bool(row.get("bad")))]


def notes_sizes(batch, path):
    """Writes down how many rows each call had."""
    rows = len(batch) if isinstance(batch, list) else len(batch["id"])
    with open(path, "a") as file:
        file.write(f"{rows}\n")
    return batch


def notes_sizes_of_notes(batch, path):
    """As `notes_sizes`, for columns; fails without one called note."""
    assert len(batch["note"]) == len(batch["id"])
    return notes_sizes(batch, path)


def changes_a_file(rows, path):
    """Replaces the file at *path* with another at the first call."""
    if os.path.exists(path) and os.path.getsize(path):
        open(path, "w").close()
    return rows


def changes_a_file_by_row(row, path):
    return changes_a_file([row], path)[0]


def raises_on_bad_until(rows, path):
    """As `raises_on_bad`, until there is a file at *path*."""
    return rows if os.path.exists(path) else raises_on_bad(rows)


def dawdles(batch, seconds, mended=""):
    """Takes *seconds* for a row, and refuses some rows as long as there is no file *mended*."""
    column = [row["id"] for row in batch] if isinstance(batch, list) else batch["id"]
    ids = [int(one) for one in (column.to_pylist() if hasattr(column, "to_pylist") else column)]
    time.sleep(seconds * len(ids))
    if not os.path.exists(mended) and any(one % 50 == 13 for one in ids):
        raise ValueError("refused")
    return batch


def _note_ids(rows, path):
    with open(path, "a") as file:
        file.write("".join(f"{row['id']}\n" for row in rows))


async def dawdles_asynchronously(rows, seconds, path):
    """Takes *seconds* for a row, and notes in *path* which rows it was called with."""
    _note_ids(rows, path)
    await asyncio.sleep(seconds * len(rows))
    return rows
