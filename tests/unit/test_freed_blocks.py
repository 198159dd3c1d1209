"""Blocks of lines come and go by the megabyte; the kernel does not clear their pages each time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from command import ENVIRONMENT
from patience import PATIENCE

_FAULTS = """
import resource, sys
from batchrunner.worker.freed_blocks import keep_freed_blocks

if sys.argv[1] == "kept":
    keep_freed_blocks()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    blocks = [b"x" * (1 << 20) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word):
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, word],
        check=True,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives blocks back")
def test_pages_of_freed_blocks_are_used_again():
    """A page fault costs about a microsecond, and each block has 256 of them."""
    assert faults("kept") < faults("given back") / 5
