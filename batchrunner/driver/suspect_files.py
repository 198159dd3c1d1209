"""Points out files of a source that are read, and may be less than the user thinks: from its listing alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchrunner.driver.file_table import SourceFiles
from batchrunner.formats.registry import FileKind

_SHOWN = 3


def some(names: Sequence[str]) -> str:
    """Return the first of *names*."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def unfinished_outputs(files: SourceFiles, folders: Sequence[str]) -> Iterator[str]:
    """Yield a note for each of *folders*, outputs of runs that are not complete, that *files* lie in."""
    import pyarrow.compute as pc

    for folder in folders:
        count = pc.sum(pc.starts_with(files.column("uri"), f"{folder}/")).as_py()
        if count:
            yield (
                f"source: {folder} is the output of a run that has not finished: {count:,} file(s) of it "
                "are there; run this again once it has"
            )


def files_of_no_bytes(files: SourceFiles) -> Iterator[str]:
    """Yield a note if any of *files* has 0 bytes though those of its kind have some even without rows."""
    import pyarrow.compute as pc

    if not any(map(_needs_bytes, files.used_kinds())):
        return
    bare = files.where(pc.equal(files.column("size"), 0))
    bare = bare.of_kinds([kind for kind in bare.used_kinds() if _needs_bytes(kind)])
    if len(bare):
        yield (
            f"source: {len(bare):,} file(s) of 0 bytes ({some(bare[: _SHOWN + 1].column('uri').to_pylist())}) "
            "count as files without rows; a failed upload leaves such files"
        )


def _needs_bytes(kind: FileKind) -> bool:
    return kind.compression is not None or kind.reader.needs_bytes
