"""Where a report is written: what is at that place already stays what it is."""

from __future__ import annotations

import os
import stat
import threading

import pytest

from batchrunner.cli.report import write_report
from batchrunner.errors import InvalidSpecError
from patience import PATIENCE

PAGE = "<!doctype html>\n" + "x" * 200_000


def write(file):
    write_report(lambda: PAGE, dict, name="nightly", file=str(file), output="html")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    """As for a device: there is nothing to replace."""
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()

    write(pipe)

    reader.join(PATIENCE)
    assert read == [PAGE]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    """A web server may serve the file under another name."""
    (tmp_path / "www").mkdir()
    (tmp_path / "www/last.html").write_text("an older one")
    (tmp_path / "link.html").symlink_to("www/last.html")

    write(tmp_path / "link.html")

    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "www/last.html").read_text() == PAGE
    assert sorted(one.name for one in (tmp_path / "www").iterdir()) == ["last.html"]


def test_a_folder_and_a_circle_of_links_are_refused_with_the_way_out(tmp_path):
    """`-O .` is an easy slip."""
    (tmp_path / "circle").symlink_to("circle")

    with pytest.raises(InvalidSpecError, match=r"is a folder; name a file in it: --file .*\.html"):
        write(tmp_path)
    with pytest.raises(InvalidSpecError, match=r"circle cannot be written: .*--file"):
        write(tmp_path / "circle")
