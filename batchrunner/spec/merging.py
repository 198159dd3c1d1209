"""Merges the trees of the texts that make one spec: mappings are merged, all else is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from pydantic import BaseModel

from batchrunner.spec.diagnosis import Problem, section_of
from batchrunner.spec.section import Section
from batchrunner.spec.tree import Node

HOOKS: Final = "hooks"
_OFF: Final = object()
"""The value of a hook that is switched off, until all texts are merged: a later one may give it again."""


def merged(base: Node, over: Node, model: type[BaseModel] | None) -> Node:
    """Return *base* with the values of *over*, both read as a section *model*, if that is not None.

    A short form, such as `source: in.jsonl`, is written out before a mapping is merged into it. What
    is merged keeps its place in *base*, so that an error names the file that began the section.
    """
    base = _written_out(base, model) if isinstance(over.value, dict) else base
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    children, keys = dict(base.children), dict(base.keys)
    for name, child in over.children.items():
        if name in children:
            field = model.model_fields.get(str(name)) if model else None
            inner = section_of(field.annotation) if field else None
            merge = _merged_hooks if name == HOOKS and model else merged
            children[name] = merge(children[name], child, inner)
        else:
            children[name] = child
        if children[name].layer == child.layer:
            keys[str(name)] = over.keys[str(name)]
    return _with(base, children, keys)


def _merged_hooks(base: Node, over: Node, model: type[BaseModel] | None) -> Node:
    """Merge hooks: null over an inherited one switches it off; elsewhere null is no options."""
    both = merged(base, over, model)
    if both is over:
        return over
    off = {
        name: child._replace(value=_OFF)
        for name, child in over.children.items()
        if child.value is None and name in base.children
    }
    return _with(both, {**both.children, **off}, dict(both.keys))


def settled(root: Node) -> Node:
    """Return the merged tree *root* without the hooks that are switched off."""
    hooks = root.children.get(HOOKS)
    if hooks is None or not isinstance(hooks.value, dict):
        return root
    off = [str(name) for name, child in hooks.children.items() if child.value is _OFF]
    return _with(root, {**root.children, HOOKS: without(hooks, *off)}, dict(root.keys))


def without(node: Node, *names: str) -> Node:
    """Return the mapping *node* without the keys *names*."""
    children = {name: child for name, child in node.children.items() if name not in names}
    return _with(node, children, {name: node.keys[str(name)] for name in children})  # type: ignore[misc]


def grafted(node: Node, steps: Sequence[tuple[str, int]]) -> Node:
    """Return a mapping that holds *node* at the path *steps*: names of keys, with their offsets."""
    for name, offset in reversed(steps):
        holder = Node({}, offset, node.end, layer=node.layer)
        node = _with(holder, {name: node}, {name: offset})
    return node


def in_layer(node: Node, layer: int) -> Node:
    """Return *node* as a value of the text number *layer*."""
    children = {name: in_layer(child, layer) for name, child in node.children.items()}
    fault = replace(node.fault, layer=layer) if node.fault else None
    return node._replace(children=children, layer=layer, fault=fault)


def places_of(node: Node) -> Node:
    """Return *node* with the places of its values only, to keep: no value, so no secret."""
    children = {name: places_of(child) for name, child in node.children.items()}
    return Node(
        None,
        node.start,
        node.end,
        children,
        dict(node.keys),
        from_environment=node.from_environment,
        layer=node.layer,
    )


def faults_of(node: Node) -> Iterator[Problem]:
    """Yield the variables that cannot be replaced, of all values of *node*."""
    if node.fault:
        yield node.fault
    for child in node.children.values():
        yield from faults_of(child)


def _written_out(node: Node, model: type[BaseModel] | None) -> Node:
    if node.value is None or isinstance(node.value, dict):
        return node
    name = model.short_field(node.value) if model and issubclass(model, Section) else None
    return grafted(node, [(name, node.start)]) if name else node


def _with(node: Node, children: dict[str | int, Node], keys: dict[str, int]) -> Node:
    values = {name: child.value for name, child in children.items()}
    height = 1 + max((child.height for child in children.values()), default=0)
    return node._replace(value=values, children=children, keys=keys, height=height)
