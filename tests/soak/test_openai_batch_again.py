"""Ten thousand lines of an OpenAI batch file, killed twice: `make soak`."""

from __future__ import annotations

import pytest

import openai_batch
import openai_requests

pytestmark = pytest.mark.soak


def test_ten_thousand_requests_that_are_killed_twice_are_answered_once_and_exact(tmp_path):
    """The size that a user brings, through refusals, faults, resets and torn answers."""
    requests = openai_requests.requests(10_000)

    kept, lines = openai_batch.killed_twice(tmp_path, requests, after=[3000, 7000])

    assert 0 < len(kept[0]) < len(kept[1]) < len(lines)
    assert openai_batch.found(lines) == openai_batch.expected(requests)
    openai_batch.check_against_the_schema(lines, requests)
