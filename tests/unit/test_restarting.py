"""An engine in a process of its own, which a call may kill: that call fails, and no other."""

from __future__ import annotations

import asyncio
import sys
from functools import partial

import pytest

from batchrunner.capabilities.restarting import Restarting
from batchrunner.errors import CapabilityImportError

ENGINE = """
import sys
for line in sys.stdin:
    if line.strip() == "poison":
        sys.exit(1)
    print(line.strip().upper(), flush=True)
"""


class DeadError(Exception):
    """The engine has died."""


class Engine:
    """Answers lines by a real process; all that wait when it dies are told so."""

    built = 0

    def __init__(self, most=100):
        type(self).built += 1
        if type(self).built > most:
            raise OSError("no GPU is left")
        self.process, self.waiting = None, []

    async def ask(self, text):
        if self.process is None:
            self.process = asyncio.ensure_future(self.start())
        process = await self.process
        await asyncio.sleep(0)  # so that many are in flight
        try:
            process.stdin.write(f"{text}\n".encode())
            self.waiting.append(answer := asyncio.get_running_loop().create_future())
            return await answer
        except ConnectionError as error:
            raise DeadError from error

    async def start(self):
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ENGINE, stdin=pipe, stdout=pipe
        )
        self.reader = asyncio.create_task(self.read(process))
        return process

    async def read(self, process):
        async for line in process.stdout:
            self.waiting.pop(0).set_result(line.decode().strip())
        await process.wait()
        for answer in reversed(self.waiting):  # the guilty call learns it last
            answer.set_exception(DeadError())


@pytest.fixture(autouse=True)
def none_built():
    Engine.built = 0


async def answers(texts, *, late=(), **how):
    """Ask for *texts* at once, and for those *late* when the engine has been built again."""
    held = Restarting(partial(Engine, **how), death=DeadError)

    async def answer(text, *, built=1):
        while Engine.built < built:  # noqa: ASYNC110 - an engine knows of no loop when it is built
            await asyncio.sleep(0)
        return await held.call(lambda engine: engine.ask(text))

    calls = [*map(answer, texts), *(answer(text, built=2) for text in late)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    if held._engine is not None and held._engine.process is not None:
        (await held._engine.process).stdin.close()
        await held._engine.reader
    return found


def test_the_call_that_kills_the_engine_fails_alone():
    """The others, which were in flight, are made once more; later ones wait for them."""
    texts = [f"row {number}" for number in range(40)]
    texts[7] = texts[23] = "poison"

    found = asyncio.run(answers(texts))

    dead = [number for number, answer in enumerate(found) if isinstance(answer, DeadError)]
    assert dead == [7, 23]
    assert [a for n, a in enumerate(found) if n not in dead] == [
        text.upper() for n, text in enumerate(texts) if n not in dead
    ]
    assert Engine.built <= 4  # at first, and after each death


def test_a_call_that_comes_while_others_are_made_again_kills_none_of_them():
    """It waits: a second death would be that of a call that is not its cause."""
    found = asyncio.run(answers(["poison", *"abcdefgh"], late=["poison", *"ijk"]))

    assert [type(answer) is DeadError for answer in found].count(True) == 2
    assert found[1:9] + found[10:] == [*"ABCDEFGHIJK"]


def test_an_engine_that_cannot_be_built_again_ends_the_run():
    """Its rows are not to fail one after the other, each after minutes."""
    found = asyncio.run(answers(["poison", "a"], most=1))

    assert {type(answer) for answer in found} == {CapabilityImportError}
    assert str(found[0]) == "the engine died, and cannot be built again: OSError: no GPU is left"
