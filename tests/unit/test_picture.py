"""The picture in the README is of the report as it is."""

from __future__ import annotations

import re
from pathlib import Path

from batchrunner.views.report_page import sources_hash

PICTURE = Path(__file__).parents[2] / "docs/assets/report.png"


def test_the_picture_is_of_the_present_report():
    """A picture of how it once looked is a promise that the command does not keep."""
    made_of = re.search(rb"tEXtreport-sources\0(\w{64})", PICTURE.read_bytes())

    assert made_of is not None
    assert made_of[1].decode() == sources_hash(), (
        "the report has changed since the picture in the README was taken: "
        "run .venv/bin/python docs/picture.py, look at docs/assets/report.png, and commit it"
    )


def test_the_picture_is_small():
    """It is fetched with the README."""
    assert PICTURE.stat().st_size <= 200_000
