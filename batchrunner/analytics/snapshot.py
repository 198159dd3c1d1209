"""One moment of a store: which files count, and which of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchrunner.analytics.catalog import Catalog, newest_catalog
from batchrunner.analytics.layout import compaction_in, is_written, schema_key
from batchrunner.analytics.record import RUNS, Columns
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.table_files import (
    UnreadableFileError,
    arrow_schema,
    fitted,
    open_parquet,
)
from batchrunner.errors import ObjectNotFoundError, StorageError
from batchrunner.storage import Entry, Storage

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

Files = Mapping[str, Entry]
"""The files of a table, by key."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one read has found out so far, for when it has to begin again with a newer catalog.

    It keeps its listings: what they showed is still where it was, or a newer catalog has it. So
    what is left to read only shrinks, however often compactions are faster.

    Attributes:
        files: Listings, by table.
        gone: Keys of files in them that were deleted since.
        rows: Of written files, by table.
        torn: Compacted files that turned out to be torn when they were read, by key, and why.
    """

    files: dict[str, Files] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    torn: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store held at one moment: every run in it once and whole, whatever happens since.

    Attributes:
        storage: Of the store.
        files: By table.
        catalog: Which compacted files count, and which others don't any more.
        schemas: Columns of every table.
        memory: What the same read has found out before.
        held: Compacted files by table, open from the start, for they may be replaced.
        passed_over: Files that hold no rows of ours, by key, and why: told to people.
    """

    storage: Storage
    files: Mapping[str, Files]
    catalog: Catalog
    schemas: Mapping[str, Columns]
    memory: Memory
    held: dict[str, CompactedFiles] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Close what is held."""
        for files in self.held.values():
            files.close()

    def columns(self, table: str) -> Columns:
        """Return the columns of *table*, of which there are files.

        Raises:
            StorageError: Nothing says what they are: its schema is lost.
        """
        if table in self.schemas:
            return self.schemas[table]
        raise StorageError(
            f"{self.storage.uri}/{schema_key(table, 1)} is missing: restore it from a copy, or open "
            "the store anew and record a run of that table, which makes it anew"
        )

    @property
    def damaged(self) -> bool:
        """Whether a compacted file that the catalog names is lost, as far as they were opened."""
        names = self.catalog.files.values()
        return bool(self.passed_over) and any(
            key in self.passed_over for keys in names for key in keys
        )

    def written(self, table: str) -> dict[str, Entry]:
        """Return the files of *table* as `write` made them that may count, by key."""
        found = {}
        # What is replaced is in the compacted files: where one is lost, each run is looked for.
        replaced = frozenset() if self.damaged else self.catalog.replaced
        for key, entry in self.files[table].items():
            if is_written(key) and key not in replaced:
                found[key] = entry
            elif not is_written(key) and compaction_in(key) is None:
                self.passed_over[key] = f"{self.storage.uri}/{key} is foreign: not named by us"
        return found

    @contextmanager
    def compacted(
        self, table: str, *, keys: Iterable[str] | None = None
    ) -> Iterator[CompactedFiles]:
        """Open the compacted files of *table*, or those of them under *keys*, for the block.

        Raises:
            ObjectNotFoundError: One was replaced and deleted since: take another snapshot.
        """
        if keys is None and table in self.held:
            yield self.held[table]
            return
        opened = CompactedFiles(self.columns(table))
        try:
            for key in self.catalog.files.get(table, ()) if keys is None else keys:
                self._open(key, opened)
            yield opened
        finally:
            opened.close()

    def hold(self) -> None:
        """Open the compacted files of the tables that were listed; `close` closes them.

        Raises:
            ObjectNotFoundError: One was replaced and deleted since: take another snapshot.
        """
        for table in self.files.keys() & self.schemas.keys():
            self.held[table] = CompactedFiles(self.schemas[table])
            for key in self.catalog.files.get(table, ()):
                self._open(key, self.held[table])

    def _open(self, key: str, opened: CompactedFiles) -> None:
        if key in self.memory.torn:
            self.passed_over[key] = self.memory.torn[key]
            return
        entry = self.files.get(key.partition("/")[0], {}).get(key) or self.storage.head(key)
        if entry is None:
            self.explain_loss(key)
            return
        try:
            opened.add(open_parquet(self.storage, entry))
        except UnreadableFileError as error:
            self.passed_over[key] = str(error)

    def explain_loss(self, key: str) -> None:
        """Pass over a file that should be there and is not.

        Raises:
            ObjectNotFoundError: A compaction replaced it: take another snapshot.
        """
        place = f"{self.storage.uri}/{key}"
        if newest_catalog(self.storage).number != self.catalog.number:
            raise ObjectNotFoundError(f"{place}: replaced by a compaction meanwhile")
        self.passed_over[key] = f"{place} is missing: somebody removed it; restore it from a copy"


class CompactedFiles:
    """Compacted files of a table, open, so that on a disk they outlive being deleted."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._open: list[pa.PythonFile] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, file: pa.PythonFile) -> None:
        """Add one more."""
        self._open.append(file)

    def rows(self, place: int, columns: Iterable[str]) -> pa.Table:
        """Return *columns* of one file, absent ones as NULL.

        Without a dataset, whose import costs more than a short read.
        """
        import pyarrow.parquet as pq

        schema = arrow_schema({name: self._columns[name] for name in columns})
        return fitted(pq.ParquetFile(self._open[place]).read(schema.names), schema)

    def dataset(self) -> ds.Dataset:
        """Return their rows, to be read as far as they are needed; absent columns are NULL."""
        import pyarrow.dataset as ds

        parquet = ds.ParquetFileFormat()
        fragments = [parquet.make_fragment(file) for file in self._open]
        return ds.FileSystemDataset(fragments, arrow_schema(self._columns), parquet)

    def close(self) -> None:
        """Close them. Idempotent."""
        while self._open:
            self._open.pop().close()


@contextmanager
def take_snapshot(
    storage: Storage,
    schemas: Schemas,
    *,
    memory: Memory,
    tables: Iterable[str] | None = None,
    held: bool = True,
) -> Iterator[Snapshot]:
    """Yield what the store holds now in *tables*, all by default, and in `runs`.

    Compacted files are *held* open from the start for who reads them all.

    The order is what makes it true. Files are listed before the catalog is read, since a
    compaction deletes only what an earlier catalog has replaced. `runs` comes before the payload,
    since a writer does it last. Columns come at the end, since a writer claims them first.

    Raises:
        ObjectNotFoundError: A compaction was faster: take another one, with the same *memory*.
    """
    files = {RUNS: _listed(storage, RUNS, memory)}
    wanted = schemas.all() if tables is None else tables
    files |= {table: _listed(storage, table, memory) for table in wanted if table != RUNS}
    snapshot = Snapshot(storage, files, newest_catalog(storage), schemas.all(), memory)
    with closing(snapshot):
        if held:
            snapshot.hold()
        yield snapshot


def _listed(storage: Storage, table: str, memory: Memory) -> Files:
    if table not in memory.files:
        memory.files[table] = {entry.key: entry for entry in storage.list(table)}
    return {key: entry for key, entry in memory.files[table].items() if key not in memory.gone}
