"""The text of a spec that is stored with its run: complete enough to run it again, without secrets."""

from __future__ import annotations

import re
from typing import Any

from batchrunner.spec.diagnosis import Page, visible
from batchrunner.spec.layers import Layers, Variation
from batchrunner.spec.override import shown
from batchrunner.spec.secrets import HIDDEN, hides
from batchrunner.spec.tree import Node
from batchrunner.spec.yaml_text import block

_REFERENCE = re.compile(r"""(["']?)\$\{\w+(:\?[^}]*)?\}\1""")


def kept_text(layers: Layers, root: Node, variation: Variation) -> str:
    """Return the text of a spec as written, with its `${VAR}` and with `"***"` for literal secrets.

    Of several texts, it is what they make together, after a comment that names them.
    """
    if len(layers.pages) == 1:
        return _without_secrets(layers.pages[0])
    names = dict.fromkeys(page.origin for page in layers.pages if not page.is_option)
    made_of = [visible(name) for name in names]
    made_of += [f"profile {variation.profile}"] if variation.profile else []
    made_of += [f"{variation.given_by} {visible(shown(text))}" for text in variation.overrides]
    return f"# made of {', '.join(made_of)}\n{block(_plain(root, layers))}"


def _plain(node: Node, layers: Layers, *, secret: bool = False, under: object = None) -> Any:
    if isinstance(node.value, dict):
        return {
            key: _plain(child, layers, secret=secret or hides(key, under=under), under=key)
            for key, child in node.children.items()
        }
    if isinstance(node.value, list):
        return [_plain(child, layers, secret=secret) for child in node.children.values()]
    written = node.value if node.written is None else node.written
    is_hidden = secret or _is_hidden(node, layers.pages[node.layer])
    if node.end == node.start or not is_hidden or _REFERENCE.fullmatch(str(written)):
        return written
    return HIDDEN


def _is_hidden(node: Node, page: Page) -> bool:
    return any(start <= node.start and node.end <= end for start, end in page.secrets)


def _without_secrets(page: Page) -> str:
    """Return the text of *page* with `"***"` for each literal secret; a `${VAR}` stays."""
    parts, at = [], 0
    for start, end in sorted(page.secrets):
        secret = page.text[start:end].rstrip()  # the span of a block ends after its line break
        if start >= at and not _REFERENCE.fullmatch(secret):
            parts += [page.text[at:start], f'"{HIDDEN}"']
            at = start + len(secret)
    return "".join(parts) + page.text[at:]
