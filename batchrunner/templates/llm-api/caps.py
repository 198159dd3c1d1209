"""A capability that calls an API: asynchronous, so that many calls wait at the same time."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import aiohttp

_PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each retry, unless the server asks for more or less."""


class Chat:
    """Answers prompts. Built once per worker.

    OPENAI_BASE_URL says where, OPENAI_API_KEY is the key; neither is stored with the run.
    """

    def __init__(self, *, model: str, system: str) -> None:
        base = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8399/v1")
        self.url = f"{base.rstrip('/')}/chat/completions"
        self.headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', 'none')}"}
        self.model, self.system = model, system

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with the model's answer and what it cost."""
        messages = [
            {"role": "system", "content": self.system},
            {"role": "user", "content": row["prompt"]},
        ]
        said = await self.ask({"model": self.model, "messages": messages, "temperature": 0})
        return {
            **row,
            "answer": said["choices"][0]["message"]["content"],
            "tokens": said["usage"]["total_tokens"],
        }

    async def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request; repeat it while the server is busy, or not there."""
        async with aiohttp.ClientSession(headers=self.headers) as session:
            for pause in _PAUSES:
                seconds = pause
                try:
                    async with session.post(self.url, json=body) as answer:
                        if answer.status not in (408, 429) and answer.status < 500:
                            return await content_of(answer)
                        seconds = float(answer.headers.get("Retry-After", pause))
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(seconds)
            async with session.post(self.url, json=body) as answer:
                return await content_of(answer)


async def content_of(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return what the server answered; an error of the API fails the row, with its text."""
    if answer.status >= 400:
        raise RuntimeError(f"the API answered {answer.status}: {(await answer.text())[:200]}")
    content: dict[str, Any] = await answer.json()
    return content
