"""How hard a text is to read: Flesch's formula of 1948, over batches of rows."""

from __future__ import annotations

import re
from typing import Any

Row = dict[str, Any]


def readability(rows: list[Row]) -> list[Row]:
    """Give each row its scores. One that raises costs only itself: see `batchrunner errors`."""
    return [{"id": row["id"], **scores(row["text"])} for row in rows]


def scores(text: str) -> Row:
    words = re.findall(r"[A-Za-z]+", text)
    sentences = len(re.findall(r"[.!?](?:\s|$)", text))
    syllables = sum(len(re.findall(r"[aeiouy]+", word.lower())) or 1 for word in words)
    ease = 206.835 - 1.015 * len(words) / max(sentences, 1) - 84.6 * syllables / len(words)
    return {"words": len(words), "sentences": sentences, "ease": round(ease, 1)}
