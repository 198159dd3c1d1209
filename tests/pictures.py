"""Pictures, made here: bytes of formats that a model knows."""

from __future__ import annotations

import random
import struct
import zlib


def png(seed: int, *, pixels: int = 24) -> bytes:
    """A square of coloured noise."""
    noise = random.Random(seed)
    lines = b"".join(b"\0" + noise.randbytes(3 * pixels) for _ in range(pixels))
    head = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
