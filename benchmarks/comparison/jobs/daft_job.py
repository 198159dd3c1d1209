"""For Daft on its own runner. Words on the line: `overwrite`, `tolerant`."""

from __future__ import annotations

import sys

import daft
import work
from daft import col


@daft.func(on_error="log" if "tolerant" in sys.argv else "raise")
def length(row_id: int, text: str) -> int:
    return work.length(row_id, text)


def main() -> None:
    rows = daft.read_json("in").with_column("n", length(col("id"), col("text")))
    rows.write_json("out", write_mode="overwrite" if "overwrite" in sys.argv else "append")


if __name__ == "__main__":
    main()
