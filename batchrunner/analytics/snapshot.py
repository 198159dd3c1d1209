"""A snapshot of a store: the files that hold its runs at one moment."""

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
class ReadCache:
    """Listings and rows that a read keeps for its retries with a newer catalog.

    Listings stay valid: each listed file still exists, or a newer catalog names the file that has
    its rows. So each retry has less left to read, however many compactions come in between.

    Attributes:
        files: Listed files, by table.
        deleted: Keys of listed files that were deleted since.
        rows: Rows of files that `write` made, by table.
        torn: Compacted files that proved torn when they were read: the reason, by key.
    """

    files: dict[str, Files] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    torn: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The runs of a store at one moment, each once and whole, whatever happens since.

    Attributes:
        storage: The storage of the store.
        files: Listed files, by table.
        catalog: Names the compacted files, and the files that they replace.
        schemas: Columns of every table.
        cache: Kept for the retries of this read.
        opened: Compacted files by table, opened in advance, as a compaction may delete them.
        passed_over: Files that are torn, missing or foreign: the reason for the warning, by key.
    """

    storage: Storage
    files: Mapping[str, Files]
    catalog: Catalog
    schemas: Mapping[str, Columns]
    cache: ReadCache
    opened: dict[str, CompactedFiles] = field(default_factory=dict)
    passed_over: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Close the files that `open_compacted` opened."""
        for files in self.opened.values():
            files.close()

    def columns(self, table: str) -> Columns:
        """Return the columns of *table*, which must have at least one file.

        Raises:
            StorageError: Its schema is missing.
        """
        if table in self.schemas:
            return self.schemas[table]
        raise StorageError(
            f"{self.storage.uri}/{schema_key(table, 1)} is missing: restore it from a copy, or open "
            "the store anew and record a run of that table, which writes it again"
        )

    @property
    def damaged(self) -> bool:
        """Whether one of the compacted files opened so far is missing or torn."""
        names = self.catalog.files.values()
        return bool(self.passed_over) and any(
            key in self.passed_over for keys in names for key in keys
        )

    def written(self, table: str) -> dict[str, Entry]:
        """Return the files of *table* that `write` made and that are to be read, by key.

        Passes over foreign files.
        """
        files = {}
        # The rows of replaced files are in compacted ones. If one of those is lost, the replaced
        # files may be all that is left, so they are read again; each run still has one home, and so
        # appears once.
        replaced = frozenset() if self.damaged else self.catalog.replaced
        for key, entry in self.files[table].items():
            if is_written(key) and key not in replaced:
                files[key] = entry
            elif not is_written(key) and compaction_in(key) is None:
                self.passed_over[key] = (
                    f"{self.storage.uri}/{key} has no name of this store's; move it out of the store"
                )
        return files

    @contextmanager
    def compacted(
        self, table: str, *, keys: Iterable[str] | None = None
    ) -> Iterator[CompactedFiles]:
        """Open the compacted files of *table*, or only those at *keys*, for the block.

        Raises:
            ObjectNotFoundError: One was replaced and deleted since: take another snapshot.
        """
        if keys is None and table in self.opened:
            yield self.opened[table]
            return
        opened = CompactedFiles(self.columns(table))
        try:
            for key in self.catalog.files.get(table, ()) if keys is None else keys:
                self._open(key, opened)
            yield opened
        finally:
            opened.close()

    def open_compacted(self) -> None:
        """Open the compacted files of all listed tables; `close` closes them.

        Raises:
            ObjectNotFoundError: One was replaced and deleted since: take another snapshot.
        """
        for table in self.files.keys() & self.schemas.keys():
            self.opened[table] = CompactedFiles(self.schemas[table])
            for key in self.catalog.files.get(table, ()):
                self._open(key, self.opened[table])

    def _open(self, key: str, opened: CompactedFiles) -> None:
        if key in self.cache.torn:
            self.passed_over[key] = self.cache.torn[key]
            return
        entry = self.files.get(key.partition("/")[0], {}).get(key) or self.storage.head(key)
        if entry is None:
            self.pass_over_missing(key)
            return
        try:
            opened.add(open_parquet(self.storage, entry))
        except UnreadableFileError as error:
            self.passed_over[key] = str(error)

    def pass_over_missing(self, key: str) -> None:
        """Pass over a file that the catalog or `runs` names and that is missing.

        Raises:
            ObjectNotFoundError: A compaction replaced it: take another snapshot.
        """
        # Compactions delete only what a catalog has replaced: without a newer one, none deleted it.
        place = f"{self.storage.uri}/{key}"
        if newest_catalog(self.storage).number != self.catalog.number:
            raise ObjectNotFoundError(f"{place}: replaced by a compaction meanwhile; read again")
        self.passed_over[key] = (
            f"{place} is missing: it was removed by hand; restore it from a copy"
        )


class CompactedFiles:
    """Open compacted files of a table. On a disk an open file can be read after its deletion."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._open: list[pa.PythonFile] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, file: pa.PythonFile) -> None:
        """Add an open *file*, which `close` closes."""
        self._open.append(file)

    def rows(self, place: int, columns: Iterable[str]) -> pa.Table:
        """Return *columns* of file number *place*; those that it lacks are NULL."""
        # Without `pyarrow.dataset`: its import takes longer than a short read.
        import pyarrow.parquet as pq

        schema = arrow_schema({name: self._columns[name] for name in columns})
        return fitted(
            pq.ParquetFile(self._open[place]).read(schema.names, use_threads=False), schema
        )

    def dataset(self) -> ds.Dataset:
        """Return a dataset of the rows of all files; columns that a file lacks are NULL.

        Reads only what the caller scans.
        """
        import pyarrow.dataset as ds

        parquet = ds.ParquetFileFormat()
        fragments = [parquet.make_fragment(file) for file in self._open]
        return ds.FileSystemDataset(fragments, arrow_schema(self._columns), parquet)

    def close(self) -> None:
        """Close all files. Idempotent."""
        while self._open:
            self._open.pop().close()


@contextmanager
def take_snapshot(
    storage: Storage,
    schemas: Schemas,
    *,
    cache: ReadCache,
    tables: Iterable[str] | None = None,
    open_all: bool = True,
) -> Iterator[Snapshot]:
    """Yield a snapshot of *tables*, all by default, and of `runs`.

    With *open_all*, every compacted file is opened at once, for reads that need all of them.

    The order is what makes it true. Files are listed before the catalog is read, since a
    compaction deletes only what an earlier catalog has replaced. `runs` comes before the payload,
    since a writer writes it last. Columns come at the end, since a writer claims them first.

    Raises:
        ObjectNotFoundError: A compaction removed a file: take another snapshot with this *cache*.
    """
    files = {RUNS: _listed(storage, RUNS, cache)}
    wanted = schemas.all() if tables is None else tables
    files |= {table: _listed(storage, table, cache) for table in wanted if table != RUNS}
    snapshot = Snapshot(storage, files, newest_catalog(storage), schemas.all(), cache)
    with closing(snapshot):
        if open_all:
            snapshot.open_compacted()
        yield snapshot


def _listed(storage: Storage, table: str, cache: ReadCache) -> Files:
    if table not in cache.files:
        cache.files[table] = {entry.key: entry for entry in storage.list(table)}
    return {key: entry for key, entry in cache.files[table].items() if key not in cache.deleted}
