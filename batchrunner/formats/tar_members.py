"""Walks through the members of a tar file and groups them into samples, front to back.

The headers are parsed by `tarfile`; the walk is our own, since `tarfile` takes a header that it cannot
parse, and a file that ends without an end, for the end of the archive.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from batchrunner.errors import ShardFailedError
from batchrunner.formats.chunk import MAX_ROW_BYTES
from batchrunner.formats.compression import ByteStream

_BLOCK = tarfile.BLOCKSIZE
_READ_BYTES = 1 << 20
_JUMP_BYTES = 512 << 10
"""What to read on rather than to jump over: a request to S3 for each member takes longer than its bytes."""
_MAX_HEADER_BYTES = 1 << 20
_GNU_MAGIC = b"ustar  \0"
_GNU_FOLDER, _GNU_LABEL = b"D", b"V"
_GLOBAL = ("path", "linkpath", "size", "hdrcharset")


@dataclass(slots=True)
class Sample:
    """Neighbouring members with one key.

    Attributes:
        at: Offset of the first header of the first member.
        key: The names of the members up to the first dot of the base name.
        members: The bytes of each member by the rest of its name, in lower case; empty if there is a fault,
            or the bytes were skipped.
        sizes: The size of each member.
        fault: Why it is no row; "" if it is one.
        end: One past the last byte of the last member, padding included.
    """

    at: int
    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    fault: str = ""
    end: int = 0


def samples(
    stream: ByteStream, *, start: int = 0, stop: int | None = None, skips: bool = False
) -> Iterator[Sample]:
    """Yield the samples whose first header lies in [*start*, *stop*), one in memory at a time.

    Args:
        stream: At byte *start*, where a header begins.
        start: Offset of the first header.
        stop: Where to end; None for the end of the archive, behind which only zeros may follow.
        skips: Whether to leave the bytes of members out. *stream* must be a file then, which can seek.

    Raises:
        ShardFailedError: The file is damaged, cut short, or no tar. The message does not name it.
    """
    walk = _Walk(_Forward(stream, at=start, seeks=skips))
    sample: Sample | None = None
    while (info := walk.next()) is not None:
        if not is_data(info):
            continue
        key, extension = key_and_extension(info.name)
        if sample is not None and sample.key != key:
            yield sample
            sample = None
        if sample is None:
            if stop is not None and info.offset >= stop:
                return
            sample = Sample(info.offset, key)
        _add(sample, info, extension, None if skips else walk)
        sample.end = walk.offset
    if sample is not None:
        yield sample


def _add(sample: Sample, info: tarfile.TarInfo, extension: str, walk: _Walk | None) -> None:
    sample.fault = sample.fault or _fault(sample, info, extension)
    sample.sizes[extension] = info.size
    if sample.fault:
        sample.members.clear()  # what cannot become a row is not held
    elif walk is not None:
        sample.members[extension] = walk.content(info.size)


def _fault(sample: Sample, info: tarfile.TarInfo, extension: str) -> str:
    if fault := _fault_of(info, extension):
        return fault
    if extension in sample.sizes or extension == "__key__":
        return f"{info.name!r}: the sample has a column {extension!r} already: rename one of the members"
    if (size := sum(sample.sizes.values()) + info.size) > MAX_ROW_BYTES:
        return (
            f"the sample has {size:,} bytes or more; at most {MAX_ROW_BYTES:,} are read: split it"
        )
    return ""


def _fault_of(info: tarfile.TarInfo, extension: str) -> str:
    name = repr(info.name)  # which also shows what is no text
    if not _is_text(info.name):
        return f"the name {name} is no UTF-8: rename the member"
    if info.islnk() or info.issym():
        return (
            f"{name} is a link to {info.linkname!r}: make the tar with --dereference and "
            "--hard-dereference"
        )
    if info.issparse() or not info.isreg():
        return f"{name} is no plain file: make the tar of plain files, without --sparse"
    if not extension:
        return f"{name} has no extension, which would name its column: rename it, or leave it out"
    return ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_data(info: tarfile.TarInfo) -> bool:
    """Return whether a member is data: folders, hidden names and `__meta__` of WebDataset are not."""
    if info.isdir() or info.type in (_GNU_FOLDER, _GNU_LABEL):
        return False
    *folders, base = info.name.split("/")
    names = [*(name for name in folders if name not in ("", ".", "..")), base]
    is_meta = names[0].startswith("__") and names[0].endswith("__")
    return not is_meta and not any(name.startswith(".") for name in names)


def key_and_extension(name: str) -> tuple[str, str]:
    """Return what the *name* of a member has up to the first dot of its base name, and the rest."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


class _Walk:
    """The members of an archive, one after the other; raises for whatever is no archive."""

    def __init__(self, stream: _Forward) -> None:
        self._stream = stream
        self._tar = _Headers(fileobj=cast(Any, stream), mode="r")
        self._tar.offset = stream.tell()

    @property
    def offset(self) -> int:
        """Where the next header begins."""
        return self._tar.offset

    def next(self) -> tarfile.TarInfo | None:
        """Return the next member; None at the end of the archive.

        Raises:
            ShardFailedError: There is no next header, and no end.
        """
        at = self._tar.offset
        self._stream.seek(at)
        try:
            info = self._tar.tarinfo.fromtarfile(self._tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in its stub
            self._end(at)
            return None
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise ShardFailedError(f"{_no_header(at)}: {error}") from error
        if self._tar.offset <= at:
            raise ShardFailedError(f"{_no_header(at)}: the size of a member is negative")
        if bad := [key for key in self._tar.pax_headers if key in _GLOBAL]:
            # A worker that begins in the middle of the file would not know it.
            raise ShardFailedError(
                f"a header sets {bad[0]!r} for all members, which is not supported"
            )
        info.name = _without_times(info.name, self._stream.header)
        return info

    def content(self, size: int) -> bytes:
        """Return the *size* bytes of the member that `next` returned."""
        return self._stream.exactly(size)

    def _end(self, at: int) -> None:
        # Behind the first block of zeros, another archive may follow that tar does not show.
        while block := self._stream.read(_READ_BYTES):
            if block.strip(b"\0"):
                raise ShardFailedError(
                    f"there is data behind the end of the archive at byte {at:,}, such as a second "
                    "archive: join them with `tar --concatenate`"
                )
        if self._stream.tell() % _BLOCK:
            raise ShardFailedError("it ends inside a block: it is cut short")


class _Headers(tarfile.TarFile):
    """What `TarInfo.fromtarfile` needs: a place in a file, and the global headers so far."""

    def next(self) -> None:
        """Read nothing: the constructor would read the first member."""


def _without_times(name: str, header: bytes) -> str:
    """Return *name* without what `tarfile` takes for its first folders in a *header* of GNU tar.

    With `--incremental`, that has times where POSIX has a prefix of the name.
    """
    if header[257:265] != _GNU_MAGIC:
        return name
    times = header[345:500].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return name.removeprefix(f"{times}/") if times else name


def _no_header(at: int) -> str:
    return f"there is no header of a member at byte {at:,}, and no end of the archive"


class _Forward:
    """A stream that is read front to back, with the file's offsets.

    Attributes:
        header: The block that `read` returned last, if it was one.
    """

    def __init__(self, stream: ByteStream, *, at: int, seeks: bool) -> None:
        self._stream, self._at, self._seeks = stream, at, seeks
        self.header = b""

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int) -> None:
        if self._seeks and offset - self._at > _JUMP_BYTES:
            self._at = cast(BinaryIO, self._stream).seek(offset)
        while self._at < offset:
            if not self.read(min(offset - self._at, _READ_BYTES)):
                raise ShardFailedError(
                    f"it ends at byte {self._at:,}, inside a member: it is cut short"
                )

    def read(self, size: int) -> bytes:
        """Return *size* bytes, or fewer at the end."""
        if size > _MAX_HEADER_BYTES:
            raise ShardFailedError(f"the header before byte {self._at:,} has {size:,} bytes")
        data = self._read(size)
        self.header = data if size == _BLOCK else self.header
        return data

    def exactly(self, size: int) -> bytes:
        data = self._read(size)
        if len(data) < size:
            raise ShardFailedError(
                f"it ends at byte {self._at:,}, inside a member: it is cut short"
            )
        return data

    def _read(self, size: int) -> bytes:
        pieces, rest = [], size
        while rest and (data := self._stream.read(rest)):
            pieces.append(data)
            rest -= len(data)
        self._at += size - rest
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
