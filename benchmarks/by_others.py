"""The same work as users of polars and of Daft write it, by columns."""

from __future__ import annotations

from pathlib import Path

from benchmarks.race import CHECKOUT

DAFT_PYTHON = CHECKOUT / ".bench" / "contestants" / "bin" / "python"
"""Daft needs another pyarrow than batchrunner: `python -m benchmarks.comparison` builds it a home."""


def polars_jsonl(source: Path, out: Path) -> None:
    """Stream all files into one."""
    import polars as pl

    out.mkdir()
    pl.scan_ndjson(source / "*.jsonl").with_columns(_length()).sink_ndjson(out / "all.jsonl")


def polars_parquet(source: Path, out: Path) -> None:
    """Stream all files into one."""
    import polars as pl

    out.mkdir()
    pl.scan_parquet(source / "*.parquet").with_columns(_length()).sink_parquet(out / "all.parquet")


def _length():
    import polars as pl

    return pl.col("text").str.len_chars().alias("n")


def daft_jsonl(source: Path, out: Path) -> None:
    """On its own runner, all by default."""
    import daft

    rows = daft.read_json(f"{source}/*.jsonl")
    rows.with_column("n", daft.col("text").length()).write_json(str(out))


def daft_parquet(source: Path, out: Path) -> None:
    """On its own runner, all by default."""
    import daft

    rows = daft.read_parquet(f"{source}/*.parquet")
    rows.with_column("n", daft.col("text").length()).write_parquet(str(out))
