"""Runs SQL on a snapshot, in a DuckDB that can access the tables and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.written_files import FILE, rows_written, runs_written
from batchrunner.errors import CannotStartError, ObjectNotFoundError, QueryError

if TYPE_CHECKING:
    import pyarrow as pa

_LOCKED_DOWN = (
    "SET TimeZone = 'UTC'",
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET lock_configuration = true",
)


_NO_SELECT = (
    "this is no SELECT, and nothing else is run here: write one SELECT. In place of the statement PIVOT, "
    "write SELECT * FROM table PIVOT (sum(value) FOR name IN ('a', 'b'))"
)
_SOURCES = frozenset({"BASE_TABLE", "TABLE_FUNCTION", "SHOW_REF"})
_GONE = ("ObjectNotFoundError", "ObjectChangedError")


@dataclass(frozen=True, slots=True)
class Question:
    """One SQL statement.

    Attributes:
        sql: Its text.
        tables: Names of tables that it reads, in lower case; None if the parser does not show them.
    """

    sql: str
    tables: frozenset[str] | None


def question(sql: str) -> Question:
    """Parse *sql* without running it.

    Raises:
        CannotStartError: DuckDB is not installed.
        QueryError: *sql* is not exactly one SELECT, or has an error.
    """
    with _database() as connection:
        (parsed,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    tree = orjson.loads(parsed)
    if tree["error"]:
        if tree["error_type"] == "not implemented":  # DuckDB serializes nothing but SELECT
            raise QueryError(_NO_SELECT)
        raise QueryError(f"the query cannot be run: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise QueryError("write one SELECT: neither none nor several")
    sources = list(_sources(tree["statements"]))
    named = {node["table_name"].lower() for node in sources if node["type"] == "BASE_TABLE"}
    unseen = any(node["type"] != "BASE_TABLE" or node["schema_name"] for node in sources)
    return Question(sql, None if unseen else frozenset(named))


def _sources(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a parsed statement that produce rows, such as tables."""
    if isinstance(tree, dict) and tree.get("type") in _SOURCES:
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(inner, dict | list):
            yield from _sources(inner)


def answer(asked: Question, snapshot: Snapshot) -> pa.Table:
    """Return the rows that *asked* selects from the tables of *snapshot*.

    Raises:
        QueryError: The SQL cannot be run.
        ObjectNotFoundError: A compaction removed a file since: take another snapshot.
    """
    import pyarrow.dataset as ds

    whole = asked.tables is None or RUNS in asked.tables
    runs = runs_written(snapshot, whole=whole)
    with ExitStack() as opened:  # outlives the database, which reads the files until it is closed
        tables = [t for t in snapshot.schemas if t in snapshot.files and (whole or t != RUNS)]
        compacted = {table: opened.enter_context(snapshot.compacted(table)) for table in tables}
        with _database() as connection:
            for table, files in compacted.items():
                written = rows_written(snapshot, table, runs=runs).drop_columns([FILE])
                connection.register(table, ds.dataset([files.dataset(), ds.dataset(written)]))
            return connection.sql(asked.sql).to_arrow_table()


@contextmanager
def _database() -> Iterator[Any]:
    try:
        import duckdb
    except ImportError as error:
        raise CannotStartError("SQL needs DuckDB: pip install 'batchrunner[query]'") from error
    try:
        with duckdb.connect(":memory:") as connection:
            for setting in _LOCKED_DOWN:
                connection.execute(setting)
            yield connection
    except duckdb.Error as error:
        if any(gone in str(error) for gone in _GONE):  # raised while DuckDB was reading
            raise ObjectNotFoundError(
                f"a file was removed while it was read, query again: {error}"
            ) from error
        raise QueryError(f"the query cannot be run: {error}") from error
