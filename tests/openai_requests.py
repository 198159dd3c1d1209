"""Lines of an OpenAI batch file, of every kind that there is, and with values that get lost elsewhere."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "share": {"type": "number"},
        "name": {"type": "string"},
    },
    "required": ["n", "share", "name"],
    "additionalProperties": False,
}
TEXTS = (
    "plain",
    "caf\u00e9 \u4f60\u597d \U0001f389 \u202eabc \u0000 \x1f \u2028",
    'quo"te \\ \n tab\t',
    "half of a pair \ud83d",
    "",
)


def requests(number: int) -> list[dict[str, Any]]:
    """Return *number* requests, the same ones each time."""
    return [_request(at, random.Random(at)) for at in range(number)]


def write(path: Path, lines: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _request(at: int, dice: random.Random) -> dict[str, Any]:
    make = (_chat, _completion, _embedding, _structured, _picture)[at % 5]
    path, body = make(f"{TEXTS[at // 5 % len(TEXTS)]} {at}", dice)
    url = f"/v1/{path}"
    return {"custom_id": f"request-{at} \u2603", "method": "POST", "url": url, "body": body}


def _chat(text: str, dice: random.Random) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    odd = {
        "unknown_to_all": [None, True, 2**70, -0.0, 1e-300, {"": []}],
        "top_k": dice.getrandbits(99),
    }
    return "chat/completions", {
        "model": "m",
        "messages": messages,
        "temperature": dice.random(),
        "metadata": {"huge": str(2**70), text[:10]: ""},
        "seed": -(2**63),
        **odd,
    }


def _completion(text: str, dice: random.Random) -> tuple[str, dict[str, Any]]:
    return "completions", {"model": "m", "prompt": text, "max_tokens": dice.randint(1, 99)}


def _embedding(text: str, dice: random.Random) -> tuple[str, dict[str, Any]]:
    given = [text, "b"] if dice.random() < 0.5 else text or "a"
    return "embeddings", {"model": "m", "input": given, "encoding_format": "float"}


def _structured(text: str, _: random.Random) -> tuple[str, dict[str, Any]]:
    wanted = {"name": "answer", "schema": SCHEMA, "strict": True}
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return "chat/completions", {**body, "response_format": _format(wanted)}


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": wanted}


def _picture(text: str, dice: random.Random) -> tuple[str, dict[str, Any]]:
    data = base64.b64encode(dice.randbytes(6000)).decode()  # larger than a dead letter keeps
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    content = [{"type": "text", "text": text}, picture]
    return "chat/completions", {"model": "m", "messages": [{"role": "user", "content": content}]}
