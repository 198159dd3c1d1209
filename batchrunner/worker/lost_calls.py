"""The errors that stand for a call without an answer."""

from __future__ import annotations


class CallLostError(Exception):
    """The call has no answer: it ended its process, or exceeded the time limit."""

    type_name = "CapabilityDied"


class CallTimedOutError(CallLostError):
    """The call exceeded the time limit."""

    type_name = "CapabilityTimedOut"


class CallStoppedError(Exception):
    """The run stops, and leaves no time for what the call would have to wait for: its rows were not tried."""
