"""What is in a picture: brightness, contrast, and a hash that near duplicates share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def describe(row: dict[str, Any]) -> dict[str, Any]:
    """Describe the picture that the row names by its path."""
    pixels = read_ppm(HERE / row["path"])
    grey = pixels.mean(axis=2)
    return {
        "path": row["path"],
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "brightness": round(float(grey.mean()), 2),
        "contrast": round(float(grey.std()), 2),
        "colour": "#{:02x}{:02x}{:02x}".format(*pixels.reshape(-1, 3).mean(axis=0).astype(int)),
        "hash": difference_hash(grey),
    }


def read_ppm(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read the simplest format there is. For PNG, JPEG and others: `numpy.array(PIL.Image.open(path))`."""
    header, _, pixels = path.read_bytes().partition(b"\n")
    if not header.startswith(b"P6 ") or not header.endswith(b" 255"):
        raise ValueError(f"{path.name} is no PPM with 8 bits a colour")
    _, width, height, _ = header.split()
    return np.frombuffer(pixels, np.uint8).reshape(int(height), int(width), 3)


def difference_hash(grey: np.ndarray[Any, Any]) -> str:
    """Return 64 bits: whether each of 8 x 9 patches is darker than the next."""
    rows, columns = np.array_split(grey, 8, axis=0), 9
    small = np.array([[p.mean() for p in np.array_split(row, columns, axis=1)] for row in rows])
    bits = (small[:, :-1] < small[:, 1:]).ravel()
    return np.packbits(bits).tobytes().hex()
