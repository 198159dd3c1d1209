"""JSON lines on a storage that takes long: to read them, or to write them."""

import time

from batchrunner.formats.jsonl import JsonLines

SECONDS = 0.15


class SlowReading(JsonLines):
    """Waits for each file."""

    def read(self, file, piece, **options):
        time.sleep(SECONDS)
        yield from super().read(file, piece, **options)


class SlowWriting(JsonLines):
    """Waits for each batch of rows."""

    def writer(self, file, **options):
        return _Slow(super().writer(file, **options))


class _Slow:
    def __init__(self, part):
        self._part = part

    def append(self, rows):
        time.sleep(SECONDS)
        self._part.append(rows)

    def __getattr__(self, name):
        return getattr(self._part, name)
