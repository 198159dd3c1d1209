"""Streams are captured and given back while other threads print."""

from __future__ import annotations

import subprocess
import sys
import weakref

from batchrunner.worker.capture import listen, stop_listening
from patience import PATIENCE

_PROGRAM = """
import sys, threading
from batchrunner.worker.capture import listen, stop_listening

ended = threading.Event()

def prints():
    while not ended.is_set():
        print("z" * 20_000)

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=prints) for _ in range(3)]
for thread in threads:
    thread.start()
listener = [].append
for _ in range(20_000):
    listen(listener)
    stop_listening(listener)
ended.set()
for thread in threads:
    thread.join()
print("whole", file=sys.stderr)
"""


def test_a_thread_that_prints_meanwhile_does_not_crash_the_process():
    """`print` does not own the stream that it writes to: one that is freed under it is a crash in C."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"whole\n")


def test_a_stream_that_was_captured_is_never_freed():
    """The one above is seen only if the two meet; and a process with a thousand runs has one stream."""
    heard: list[str] = []
    seen = []
    for _ in range(2):
        listen(heard.append)
        seen.append(weakref.ref(sys.stdout))
        stop_listening(heard.append)

    assert seen[0]() is seen[1]() is not None
