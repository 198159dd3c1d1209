"""What a model without a model answers: a function of the request, and of each value in it."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

CREATED = 1_700_000_000


def digest_of(body: Any) -> str:
    """Return a hash of all values of *body*: 1 and 1.0 are two, and so are true and 1."""
    text = json.dumps(body, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def answer(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to POST *path*, such as `/embeddings`."""
    head = {"model": body["model"], "created": CREATED}
    return {**head, **_ANSWERS[path](body, digest_of(body))}


def _chat(body: dict[str, Any], digest: str) -> dict[str, Any]:
    content = _structured(body) if "response_format" in body else f"{_said(body)} \u2603 {digest}"
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    answered = {"id": f"chatcmpl-{digest[:24]}", "object": "chat.completion", "choices": [choice]}
    return {**answered, "usage": _usage(body, content), "metadata": body.get("metadata")}


def _said(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    parts = [{"text": content}] if isinstance(content, str) else content
    return " ".join(part.get("text", "[a picture]") for part in parts)


def _structured(body: dict[str, Any]) -> str:
    fields = body["response_format"]["json_schema"]["schema"]["properties"]
    dice = random.Random(digest_of(body))
    kinds = {"integer": lambda: dice.getrandbits(200), "number": dice.random, "string": dice.random}
    return json.dumps({name: kinds[field["type"]]() for name, field in fields.items()})


def _completion(body: dict[str, Any], digest: str) -> dict[str, Any]:
    text = f"{body['prompt']} {digest}"
    choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
    answered = {"id": f"cmpl-{digest[:24]}", "object": "text_completion", "choices": [choice]}
    return {**answered, "usage": _usage(body, text)}


def _embeddings(body: dict[str, Any], digest: str) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(digest, index)}
        for index in range(len(texts))
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "data": data, "usage": usage}


def _vector(digest: str, index: int) -> list[float]:
    dice = random.Random(f"{digest} {index}")
    return [dice.gauss(0, 1) for _ in range(8)] + [-0.0, 1.0, 5e-324, 1.7976931348623157e308]


def _usage(body: dict[str, Any], content: str) -> dict[str, int]:
    prompt, completion = len(json.dumps(body)) // 4, len(content) // 4
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**counts, "total_tokens": prompt + completion}


_ANSWERS = {"/chat/completions": _chat, "/completions": _completion, "/embeddings": _embeddings}
PATHS = tuple(_ANSWERS)
