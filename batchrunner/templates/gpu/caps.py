"""Two stages: texts are counted on CPUs, and a model in a class, loaded once per worker, is on the GPU if there is one."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import numpy as np

_BUCKETS = 4096
_log = logging.getLogger(__name__)


def count_trigrams(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the ids with the counts of the trigrams of each text: what a model's tokenizer would do."""
    return {"id": batch["id"], "counts": np.stack([_trigrams(text) for text in batch["text"]])}


class Embedder:
    """Embeds texts: counts of their trigrams, projected to *width* numbers by fixed random weights.

    A stand-in for a model of yours, with the same parts: weights on a device, batches moved there and back.
    """

    def __init__(self, *, width: int) -> None:
        weights = np.random.default_rng(7).standard_normal((_BUCKETS, width)).astype(np.float32)
        self.device = _device()
        self.weights = _moved(weights, self.device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the ids with an embedding of unit length each."""
        vectors = _moved(batch["counts"], self.device) @ self.weights
        vectors = vectors.cpu().numpy() if self.device else vectors
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return {"id": batch["id"], "embedding": vectors / np.maximum(lengths, 1e-9)}


def _device() -> str:
    """Return torch's name of the GPU, or "" for numpy on the CPU, and log which and why."""
    try:
        import torch
    except ImportError:
        _log.warning("no GPU is used: torch is not installed here; running on the CPU with numpy")
        return ""
    if not torch.cuda.is_available():
        _log.warning("no GPU is used: torch sees none here (set GPUS=1?); running on the CPU")
        return ""
    _log.warning("running on the GPU %s", torch.cuda.get_device_name())
    return "cuda"


def _moved(array: np.ndarray[Any, Any], device: str) -> Any:
    if not device:
        return array
    import torch

    return torch.from_numpy(array).to(device)


def _trigrams(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    counts = np.zeros(_BUCKETS, np.float32)
    for start in range(len(text) - 2):
        digest = hashlib.blake2b(text[start : start + 3].lower().encode(), digest_size=4).digest()
        counts[int.from_bytes(digest, "big") % _BUCKETS] += 1
    return counts
