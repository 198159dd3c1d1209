"""The rows of the benchmarks: the same ones on every machine and every day."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson

Row = dict[str, Any]
Writer = Callable[[Path, int, int], None]

_LANGUAGES = ("en", "de", "fr", "ja", "pt")
_WORDS = (
    "river stone lantern orchard signal margin copper winter meadow harbour engine paper thread "
    "glass über straße café naïve señor 東京 データ summit valley kernel basket ladder mirror"
)
_TEXTS = 1009


@cache
def _texts() -> tuple[str, ...]:
    """Return texts of 60 to 250 characters, about 155 on average."""
    dice, words = random.Random(20), _WORDS.split()
    return tuple(" ".join(dice.choices(words, k=dice.randint(10, 36))) for _ in range(_TEXTS))


def rows(first: int, count: int) -> Iterator[Row]:
    """Yield *count* rows, of about 200 bytes as JSON, with ids from *first*."""
    texts = _texts()
    for n in range(first, first + count):
        text = f"{n * 2654435761 % 2**32:08x} {texts[n % _TEXTS]}"
        yield {"id": n, "lang": _LANGUAGES[n % len(_LANGUAGES)], "text": text}


def write_source(folder: Path, *, rows: int, files: int, format: str) -> Path:  # noqa: A002 - the word of the spec
    """Write *rows* rows into *files* files of *folder*, evenly, and return the folder."""
    folder.mkdir(parents=True)
    write = {"jsonl": _write_jsonl, "parquet": _write_parquet}[format]
    bounds = [rows * n // files for n in range(files + 1)]
    orders = [
        (folder / f"in-{n:05d}.{format}", bounds[n], bounds[n + 1] - bounds[n])
        for n in range(files)
    ]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(write, orders)
    return folder


def _write_jsonl(path: Path, first: int, count: int) -> None:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows(first, count)))


def _write_parquet(path: Path, first: int, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows(first, count))), path)
