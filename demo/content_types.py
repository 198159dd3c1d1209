"""The capability of `specs/images-s3.yaml`: what files are by their content, by a model of 3 MB on the CPU."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

Row = dict[str, Any]


class ContentTypes:
    """Name each file's type, and whether its name says the same. Needs `pip install magika`."""

    def __init__(self) -> None:
        from magika import Magika

        self._model = Magika()  # once for each worker; the wheel ships its weights

    def __call__(self, rows: list[Row]) -> list[Row]:
        return [self._described(row) for row in rows]

    def _described(self, row: Row) -> Row:
        found = self._model.identify_bytes(row["bytes"])
        ending = PurePosixPath(row["path"]).suffix.removeprefix(".").lower()
        return {
            "path": row["path"],
            "size": row["size"],
            "modified": row["modified"],
            "label": found.output.label,
            "mime_type": found.output.mime_type,
            "score": found.score,
            "name_agrees": ending in found.output.extensions,
        }
