"""Tar files made by hand, sample by sample."""

import bz2
import gzip
import lzma
import tarfile

import pyarrow as pa


def member(name, content, **fields):
    """The bytes of one member: headers, content and padding."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)


def sample(row):
    """The members of one sample: a row of a `__key__` and bytes."""
    columns = {name: value for name, value in row.items() if name != "__key__"}
    return b"".join(member(f"{row['__key__']}.{n}", value) for n, value in columns.items())


def tar_of(*pieces, compression=None, end=bytes(1024)):
    """A tar of *pieces*, each the bytes of members or a list of rows, and its *end*."""
    raw = [one if isinstance(one, bytes) else b"".join(map(sample, one)) for one in pieces]
    return compressed(b"".join(raw) + end, compression)


def compressed(data, compression):
    made = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    if compression == "zst":
        return pa.Codec("zstd").compress(data, asbytes=True)
    return made[compression](data) if compression in made else data
