"""Parse YAML text into plain values with their offsets: bounded, and without side effects.

It works on the parser's events, because PyYAML's own composer recurses and expands aliases first, so that
a limit would only be checked after the work.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import yaml

from batchrunner.spec.diagnosis import Page, Problem, Span, line_and_column
from batchrunner.spec.interpolation import InterpolationError, has_reference, interpolated, unbraced
from batchrunner.spec.secrets import first_possible_secret, hides, redact_uri
from batchrunner.spec.tree import (
    CORE,
    MAX_CHARACTERS,
    MAX_DEPTH,
    MAX_NODES,
    Node,
    ParsedText,
    Within,
    resolved,
    shown,
)

LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*%")
_MAX_KEY = 60
_NOTHING = ("", "~", "null")

ALONE = Within()
"""The place of a text that makes a spec alone."""


class _RefusedError(Exception):
    """The text exceeds a limit. Parsing stops at once: the limit bounds the cost of going on."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(offset, message)
        self.problem = Problem(offset, message)


def read_document(
    text: str, *, origin: str, environ: Mapping[str, str], within: Within = ALONE
) -> ParsedText:
    """Parse one YAML document; the result lists the problems that need no model to detect.

    Variables that cannot be replaced are `Node.fault`s, and among the problems only without a root.
    """
    builder = _TreeBuilder(text, environ, within)
    root = None
    try:
        _check(text)
        root = builder.document()
    except _RefusedError as error:
        builder.problems.append(replace(error.problem, layer=within.layer))
    except yaml.MarkedYAMLError as error:
        builder.add_syntax_error(error)
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ):  # the parser in pure Python raises these, too
        builder.add_syntax_error(None)
    page = Page(origin, text, tuple(builder.secrets))
    problems = tuple(builder.problems if root else [*builder.problems, *builder.faults])
    return ParsedText(
        root, problems, page, builder.unbraced, nodes=builder.nodes, characters=builder.characters
    )


def _check(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise _RefusedError(0, "the text is larger than 1 MiB: a spec names data, it holds none")
    if bad := _NOT_YAML.search(text):
        message = f"the character U+{ord(bad[0]):04X} is not allowed; in double quotes, escape it"
        raise _RefusedError(bad.start(), message)
    # The parser compares each %TAG with all before it: 4 s for 1 MiB of them.
    if directive := _DIRECTIVE.match(text):
        raise _RefusedError(
            directive.end() - 1, "directives (%) are not supported: remove the line"
        )


class _TreeBuilder:
    """Builds the nodes of one text, and collects its problems and secrets on the way."""

    def __init__(self, text: str, environ: Mapping[str, str], within: Within) -> None:
        self.problems: list[Problem] = []
        self.faults: list[Problem] = []
        self.secrets: list[Span] = []
        self.unbraced: dict[str, str] = {}
        self.nodes, self.characters = within.nodes, within.characters
        self._text, self._environ, self._within = text, environ, within
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=LOADER)
        self._read_to = 0
        # Start of the value of a secret key, while it is parsed: a syntax error hides all after it.
        self._hidden_from: int | None = None
        self._under: object = None  # the key of the mapping that is parsed
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}

    def document(self) -> Node | None:
        self._next()
        if isinstance(event := self._next(), yaml.StreamEndEvent):
            return None
        root = self._node(self._next(), depth=self._within.depth, secret=self._within.secret)
        self._next()
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            self._complain(_start(event), "a second document starts here; a spec is one document")
        return root

    def add_syntax_error(self, error: yaml.MarkedYAMLError | None) -> None:
        """Add the syntax error that ends the parsing.

        The text has no meaning from here on, so all that may be a secret is hidden.
        """
        mark = (error.problem_mark or error.context_mark) if error else None
        ends = mark.index if mark else self._read_to
        at, message = _syntax_problem(error, ends)
        guesses = (
            first_possible_secret(self._text, place, since=self._read_to) for place in (at, ends)
        )
        hidden = [start for start in (*guesses, self._hidden_from) if start is not None]
        if hidden:
            self.secrets.append((min(hidden), len(self._text)))
        tab = self._text[at : at + 1] == "\t"
        message = "a tab cannot indent YAML: use spaces" if tab else message
        hint = '; "${...}" needs quotes inside [ ] and { }, or when ": " is in it'
        self._complain(
            at, message + (hint if "${" in self._text[max(at - 50, 0) : at + 50] else "")
        )

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self._read_to = event.end_mark.index if event.end_mark else self._read_to
        return event

    def _complain(self, offset: int, message: str) -> None:
        self.problems.append(Problem(offset, message, self._within.layer))

    def _count(self, event: yaml.Event, *, depth: int, nodes: int, characters: int) -> None:
        self.nodes += nodes
        self.characters += characters
        if depth > MAX_DEPTH:
            raise _RefusedError(_start(event), f"nested deeper than {MAX_DEPTH} levels")
        if self.nodes > MAX_NODES or self.characters > MAX_CHARACTERS:
            limits = f"{MAX_NODES:,} values or 1 MiB, every alias written out"
            raise _RefusedError(_start(event), f"the spec is larger than {limits}")

    def _node(self, event: yaml.Event, *, depth: int, secret: bool) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth=depth, secret=secret)
        before = self.nodes, self.characters
        self._count(event, depth=depth, nodes=1, characters=len(getattr(event, "value", "")))
        anchor = getattr(event, "anchor", None)
        if anchor:  # None while its value is open, so that an alias inside is refused
            self._anchors[anchor] = None
        node = self._built(event, depth=depth, secret=secret)
        if anchor:
            # What each alias to it costs.
            size = self.nodes - before[0], self.characters - before[1]
            self._anchors[anchor] = (node, *size)
        return node

    def _built(self, event: yaml.Event, *, depth: int, secret: bool) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, secret=secret)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, depth=depth, secret=secret)
        return self._mapping(event, depth=depth, secret=secret)

    def _alias(self, event: yaml.AliasEvent, *, depth: int, secret: bool) -> Node:
        start, end = _start(event), self._read_to
        name = str(event.anchor)
        anchored = self._anchors.get(name)
        if anchored is None:
            inside = name in self._anchors
            what = "a value cannot hold itself" if inside else "no anchor of that name stands above"
            self._complain(start, f"the alias *{name[:_MAX_KEY]} leads nowhere: {what}")
            return Node(None, start, end, broken=True, layer=self._within.layer)
        node, nodes, characters = anchored
        depth += node.height
        self._count(event, depth=depth, nodes=nodes, characters=characters)
        if secret:
            self.secrets.append((node.start, node.end))
        return node._replace(start=start, end=end)

    def _scalar(self, event: yaml.ScalarEvent, *, secret: bool) -> Node:
        start, end = _start(event), self._read_to
        fault, layer = None, self._within.layer
        # The text as written, before variables are replaced: only that is ever shown.
        if end > start and (secret or _has_credentials(event.value)):
            self.secrets.append((start, end))
        try:
            value = resolved(event.value, tag=event.tag, plain=not event.style)
            if not isinstance(value, str) or "$" not in value:
                return Node(value, start, end, layer=layer)
            text = interpolated(value, self._environ)
            if name := unbraced(value):
                self.unbraced[text] = name
            named = has_reference(value)
            return Node(text, start, end, from_environment=named, written=event.value, layer=layer)
        except InterpolationError as error:
            at = max(start, self._text.find(error.reference, start, end))
            fault = Problem(at, error.message, layer)
            self.faults.append(fault)
        except ValueError as error:
            self._complain(start, str(error))
        return Node(
            event.value, start, end, broken=True, written=event.value, fault=fault, layer=layer
        )

    def _sequence(self, event: yaml.SequenceStartEvent, *, depth: int, secret: bool) -> Node:
        broken = self._wrong_tag(event, "seq")
        children: dict[str | int, Node] = {}
        while not isinstance(inner := self._next(), yaml.SequenceEndEvent):
            children[len(children)] = self._node(inner, depth=depth + 1, secret=secret)
        values = [child.value for child in children.values()]
        return self._collection(event, values, children, broken=broken)

    def _mapping(self, event: yaml.Event, *, depth: int, secret: bool) -> Node:
        broken = self._wrong_tag(event, "map")
        children: dict[str | int, Node] = {}
        keys: dict[str, int] = {}
        while not isinstance(inner := self._next(), yaml.MappingEndEvent):
            at = _start(inner)
            key = self._key(inner, depth=depth + 1)
            name = getattr(inner, "value", None)
            is_hidden = secret or hides(name, under=self._under)
            child = self._item(name, depth=depth + 1, secret=is_hidden)
            # Checked after its value was read, since the parser only goes forwards.
            if key in keys:
                first = "line {}, column {}".format(*line_and_column(self._text, keys[key]))
                self._complain(at, f'duplicate key "{key[:_MAX_KEY]}"; the first is at {first}')
            elif key is not None:
                children[key], keys[key] = child, at
        values = {key: children[key].value for key in keys}
        return self._collection(event, values, children, broken=broken)._replace(keys=keys)

    def _item(self, name: object, *, depth: int, secret: bool) -> Node:
        outer, since = self._hidden_from, self._read_to
        if secret and outer is None:
            self._hidden_from = since
        event = self._next()
        # Options are hidden by their keys. Without keys, after a typo, the value may be a secret.
        if str(name).endswith("_options") and not _may_be_options(event):
            secret, self._hidden_from = True, since if outer is None else outer
        above, self._under = self._under, name
        node = self._node(event, depth=depth, secret=secret)
        self._hidden_from, self._under = outer, above
        return node

    def _key(self, event: yaml.Event, *, depth: int) -> str | None:
        """Return the key in *event*; if it is not a valid key, add the problem and return None."""
        if not isinstance(event, yaml.ScalarEvent):
            self._node(event, depth=depth, secret=True)
            self._complain(_start(event), "a key must be a plain string")
            return None
        self._count(event, depth=depth, nodes=1, characters=len(event.value))
        if event.value == "<<" and not event.style:
            message = "merge keys (<<) are not supported: write the keys out"
        elif event.tag is None and self._is_string(event):
            return str(event.value)
        else:
            message = "a key must be a string: put it in quotes"
        self._complain(_start(event), message)
        return None

    @staticmethod
    def _is_string(event: yaml.ScalarEvent) -> bool:
        try:
            return isinstance(resolved(event.value, tag=None, plain=not event.style), str)
        except ValueError:
            return False

    def _wrong_tag(self, event: yaml.Event, kind: str) -> bool:
        tag = getattr(event, "tag", None)
        if tag in {None, "!", CORE + kind}:
            return False
        self._complain(_start(event), f"the tag {shown(tag)[:_MAX_KEY]} is not supported")
        return True

    def _collection(
        self,
        event: yaml.Event,
        value: object,
        children: dict[str | int, Node],
        *,
        broken: bool,
    ) -> Node:
        height = 1 + max((child.height for child in children.values()), default=0)
        start, layer = _start(event), self._within.layer
        return Node(
            value, start, self._read_to, children, height=height, broken=broken, layer=layer
        )


def _syntax_problem(error: yaml.MarkedYAMLError | None, ends: int) -> tuple[int, str]:
    """Return offset and message of the syntax error *error*; the parser stopped at *ends*."""
    if error is None:
        return ends, "this is not YAML"
    problem, opened = str(error.problem), error.context_mark
    if opened and "quoted scalar" in str(error.context) and problem.startswith("found unexpected"):
        return opened.index, "the quote that opens here is not closed"
    return ends, problem


def _may_be_options(event: yaml.Event) -> bool:
    """Return whether *event* starts a mapping or is empty. A lone value may be a secret."""
    is_lone = isinstance(event, yaml.ScalarEvent) and event.value not in _NOTHING
    return not is_lone and not isinstance(event, yaml.SequenceStartEvent)


def _has_credentials(value: str) -> bool:
    return "://" in value and redact_uri(value) != value


def _start(event: yaml.Event) -> int:
    return event.start_mark.index if event.start_mark else 0
