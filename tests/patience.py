"""How long a test waits for what has to happen, and what "soon" is allowed to be."""

PATIENCE = 240
"""Seconds for a process to end or a condition to come true: no healthy machine takes so long.

A busy one (load 50 on 2 cores) does in 25 s what takes one second here. Where a test asserts that
something comes *soon*, the wrong way of doing it has to take longer than this, or has to be seen by
something other than a clock.
"""
