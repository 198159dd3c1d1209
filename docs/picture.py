"""Makes the picture in the README: the report of a real run that was killed twice, and went on.

    .venv/bin/python docs/picture.py

Some of its rows fail, on purpose. The picture carries the hash of what the page is made of:
`tests/unit/test_picture.py` fails once that has changed, and names this command.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from playwright.sync_api import sync_playwright

from batchrunner.views.report_page import sources_hash

PICTURE = Path(__file__).parent / "assets/report.png"
KEY = b"report-sources"
_SHARDS, _ROWS = 480, 24
_WIDTH, _HEIGHT = 1100, 2000
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"

_CAPABILITY = """\
import random
import time


class Embed:
    def __call__(self, rows):
        time.sleep(0.02 * random.lognormvariate(0, 0.4))
        for row in rows:
            if row["id"] % 4001 == 3999:
                raise ValueError(f"document {row['id']} has no text")
        return [{**row, "vector": [row["id"] % 7, row["id"] % 5]} for row in rows]
"""

_SPEC = """\
name: nightly-embeddings
capability: {target: "embedding:Embed", version: "1"}
source: {uri: documents, shard: {files: 1}}
sink: embeddings
execution: {engine: local, batch_size: 8}
"""


def main() -> None:
    """Run, kill, go on, and take the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        for share in (0.3, 0.62):
            _killed(folder, at=int(share * _SHARDS))
        _batchrunner(folder, "run", "nightly.yaml")
        _batchrunner(folder, "report", "nightly.yaml", "--file", "report.html")
        picture = _taken(folder / "report.html")
    PICTURE.write_bytes(with_text(picture, KEY, sources_hash().encode()))


def _prepare(folder: Path) -> None:
    (folder / "documents").mkdir()
    (folder / "embedding.py").write_text(_CAPABILITY)
    (folder / "nightly.yaml").write_text(_SPEC)
    for shard in range(_SHARDS):
        lines = (f'{{"id": {shard * _ROWS + row}, "text": "a document"}}\n' for row in range(_ROWS))
        (folder / f"documents/part-{shard:04d}.jsonl").write_text("".join(lines))


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "batchrunner", *arguments]


def _batchrunner(folder: Path, *arguments: str) -> None:
    subprocess.run(_command(*arguments), cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command


def _killed(folder: Path, *, at: int) -> None:
    """Run until *at* shards are committed, then kill the driver, and all that it has started."""
    driver = subprocess.Popen(_command("run", "nightly.yaml"), cwd=folder, start_new_session=True)  # noqa: S603 - our own command
    sentinels = folder / "embeddings/_checkpoint/sentinels"
    while not sentinels.exists() or len(os.listdir(sentinels)) < at:  # noqa: PTH208 - thousands of times
        if driver.poll() is not None:
            sys.exit("the run ended before it could be killed")
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()


def _taken(page: Path) -> bytes:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = chromium.new_page(viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light")
        tab.goto(page.as_uri())
        tab.wait_for_function("document.documentElement.dataset.ready !== undefined")
        end = tab.evaluate("document.getElementById('workers').getBoundingClientRect().bottom")
        picture = tab.screenshot(clip={"x": 0, "y": 0, "width": _WIDTH, "height": end + 12})
        chromium.close()
    return picture


def with_text(png: bytes, key: bytes, text: bytes) -> bytes:
    """Return *png* with a text chunk: *text* under *key*."""
    body = b"tEXt" + key + b"\0" + text
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png.removesuffix(_END) + chunk + _END


if __name__ == "__main__":
    main()
