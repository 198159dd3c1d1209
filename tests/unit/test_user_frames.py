"""Which line of an error's way is the user's own."""

import json
from functools import partial

import pytest

from batchrunner.checkpoint.dead_letters import one_line
from batchrunner.user_code import CallRaisedError, contained, place_in_code, traceback_of

NO_JSON = partial(json.loads, "no JSON")
"""Raises in the standard library."""


def function_in(file, *, line, inner=NO_JSON):
    """A function that calls *inner* on that *line* of *file*."""
    scope = {}
    source = "\n" * (line - 2) + "def call(inner):\n    return inner()\n"
    exec(compile(source, file, "exec"), scope)  # noqa: S102 - of a file that is not there
    return partial(scope["call"], inner)


def error_of(call):
    """What *call* raises, as a worker gets it: with no frame of this test."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever
        contained(call)
    error = caught.value
    return error.with_traceback(error.__traceback__.tb_next)


INSTALLED = "/x/lib/python3.11/site-packages/model/net.py"
WAYS = {
    "raised by the standard library": (function_in("/jobs/caps.py", line=9), "/jobs/caps.py:9"),
    "the innermost of two": (
        function_in("/jobs/caps.py", line=9, inner=function_in("/jobs/more.py", line=7)),
        "/jobs/more.py:7",
    ),
    "raised by a package": (
        function_in("/jobs/caps.py", line=9, inner=function_in(INSTALLED, line=7)),
        "/jobs/caps.py:9",
    ),
    "raised by what was compiled": (
        function_in("/jobs/caps.py", line=9, inner=function_in("pyarrow/table.pxi", line=7)),
        "/jobs/caps.py:9",
    ),
    "all of it installed": (
        function_in(INSTALLED, line=9, inner=function_in("/x/dist-packages/y.py", line=7)),
        f"{INSTALLED}:9",
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_place_is_the_innermost_line_of_the_users_own_code(way):
    """Of a capability that is a package itself, the line that was called."""
    call, place = WAYS[way]

    assert place_in_code(error_of(call)) == place


def test_an_error_of_another_process_has_its_place_in_its_text():
    """Its frames do not travel."""
    error = error_of(function_in("/jobs/caps.py", line=4))
    travelled = CallRaisedError("JSONDecodeError", str(error), traceback_of(error))

    assert place_in_code(travelled) == "/jobs/caps.py:4"
    assert traceback_of(travelled) == traceback_of(error)


def test_a_traceback_begins_with_the_users_first_frame():
    """What called it is no business of theirs."""
    text = traceback_of(error_of(function_in("/jobs/caps.py", line=4)))

    assert text.startswith('Traceback (most recent call last):\n  File "/jobs/caps.py", line 4')
    assert "user_code.py" not in text


def test_a_long_traceback_keeps_its_end():
    """Where the error is."""
    text = traceback_of(ValueError("x" * 9000 + "the end"))

    assert len(text) < 5000
    assert text.endswith("the end\n")


def test_what_a_row_holds_does_not_act_on_the_terminal():
    """The author of a row would act on the operator's terminal."""
    assert one_line("a\x1b]52;c;x\x07\n b\u202e ü", most=50) == "a\\x1b]52;c;x\\x07 b\\u202e ü"
    assert one_line("12345", most=3) == "123…"
