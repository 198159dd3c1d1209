"""What the user's code raises is an `Exception` to us; what a signal raises in it stays what it is."""

from __future__ import annotations

import asyncio
import pickle
import signal
import sys
import threading
from contextlib import contextmanager
from functools import partial

import pytest

from batchrunner.errors import describe
from batchrunner.user_code import CallRaisedError, contained


class OwnError(BaseException):
    pass


def raises(error):
    raise error


def is_interrupted(number=signal.SIGINT):
    signal.raise_signal(number)


@contextmanager
def handler(number, action):
    before = signal.signal(number, action)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize(
    "error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, OwnError]
)
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_what_the_code_itself_raises_is_an_exception_that_says_what(error, in_main_thread):
    """The engines call it from the main thread, or from another."""
    found = []

    def call():
        try:
            contained(partial(raises, error("seven")))
        except Exception as caught:  # noqa: BLE001 - the claim is that it is one
            found.append(caught)

    thread = threading.Thread(target=call)
    call() if in_main_thread else thread.start()
    if not in_main_thread:
        thread.join()

    [caught] = found
    assert (type(caught), describe(caught)) == (CallRaisedError, f"{error.__name__}: seven")
    again = pickle.loads(pickle.dumps(caught))
    assert (again.type_name, str(again)) == (error.__name__, "seven")
    assert "in raises" in again.traceback


def test_an_exception_comes_out_as_it_is():
    """Its type decides what happens next."""
    error = ValueError("seven")

    with pytest.raises(ValueError, match="seven") as caught:
        contained(partial(raises, error))

    assert caught.value is error


def test_an_interrupt_ends_the_call_as_an_interrupt():
    """By Python's own handler, as a library user has it, and as Ray's cancel simulates it."""
    with handler(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        contained(is_interrupted)


def test_a_termination_that_a_handler_raises_ends_the_call():
    """Ray's workers have such a handler, and so have many programs."""

    def leave(*_):
        sys.exit(3)

    with handler(signal.SIGTERM, leave), pytest.raises(SystemExit) as caught:
        contained(partial(is_interrupted, signal.SIGTERM))

    assert caught.value.code == 3


@pytest.mark.parametrize("instead", [None, ValueError("swallowed"), SystemExit(0)])
def test_an_interrupt_that_the_code_swallows_ends_the_call_all_the_same(instead):
    """`except BaseException` around a model call must neither hide Ctrl-C nor make it a bad row."""

    def call():
        try:
            is_interrupted()
        except BaseException as error:
            if instead is not None:
                raise instead from error
        return 1

    with handler(signal.SIGINT, signal.default_int_handler), pytest.raises(KeyboardInterrupt):
        contained(call)


def test_a_signal_that_interrupts_nothing_changes_nothing():
    """The command line only notes the first one; the call goes on to its end."""
    noted = []
    with handler(signal.SIGINT, lambda *_: noted.append(1)):
        assert contained(lambda: is_interrupted() or "end") == "end"
        with pytest.raises(CallRaisedError):
            contained(lambda: is_interrupted() or raises(KeyboardInterrupt()))

    assert noted == [1, 1]


@pytest.mark.parametrize("action", [signal.SIG_IGN, signal.SIG_DFL, signal.default_int_handler])
def test_the_handlers_are_as_before_after_a_call(action):
    """Whatever the call raised."""
    with handler(signal.SIGINT, action):
        contained(lambda: None)
        with pytest.raises(CallRaisedError):
            contained(partial(raises, SystemExit()))

        assert signal.getsignal(signal.SIGINT) == action


def test_a_handler_that_the_code_installs_stays():
    """A model server may want signals for itself."""

    def own(*_):
        pass

    with handler(signal.SIGINT, signal.default_int_handler):
        contained(partial(signal.signal, signal.SIGINT, own))

        assert signal.getsignal(signal.SIGINT) is own
