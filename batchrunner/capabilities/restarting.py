"""An engine that may die under its calls, and what it costs them: one call that kills it costs itself only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from batchrunner.errors import CapabilityImportError, describe

Engine = TypeVar("Engine")
Answer = TypeVar("Answer")


class Restarting(Generic[Engine]):
    """Holds an engine that answers many calls at once, and builds it again when it has died.

    A death fails all calls that are in flight, and does not say which of them was its cause. So each is made
    once more, one after the other, before any new one: then a death is that of the call that meets it.
    """

    def __init__(self, build: Callable[[], Engine], *, death: type[Exception]) -> None:
        """Build the engine; its calls raise *death*, and only they, once it has died."""
        self._build, self._death = build, death
        self._engine: Engine | None = build()
        self._alone, self._calm = asyncio.Lock(), asyncio.Event()
        self._calm.set()
        self._suspects = 0

    async def call(self, use: Callable[[Engine], Awaitable[Answer]]) -> Answer:
        """Return what *use* makes of the engine; it is used a second time if the engine dies meanwhile.

        Raises:
            CapabilityImportError: The engine cannot be built again.
            Exception: *use* raised it; the engine's death, if it died in this call alone.
        """
        await self._calm.wait()
        try:
            return await self._used(use)
        except self._death:
            self._calm.clear()
            self._suspects += 1
        try:
            async with self._alone:
                return await self._used(use)
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._calm.set()

    async def _used(self, use: Callable[[Engine], Awaitable[Answer]]) -> Answer:
        engine = self._living()
        try:
            return await use(engine)
        except self._death:
            if engine is self._engine:  # else it has been built again since
                self._engine = None
            raise

    def _living(self) -> Engine:
        if self._engine is None:
            try:
                self._engine = self._build()
            except CapabilityImportError:
                raise
            except Exception as error:
                raise CapabilityImportError(
                    f"the engine died, and cannot be built again: {describe(error)}"
                ) from error
        return self._engine
