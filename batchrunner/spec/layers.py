"""Reads the texts that make one spec: the file, those that it extends, a profile, and options.

Later ones count: the file that is extended, the file itself, the profile of each in the same order,
then the options in theirs. The limits of size and depth hold for all of them together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel

from batchrunner.errors import InvalidSpecError
from batchrunner.spec.diagnosis import Page, Problem, nearest, visible
from batchrunner.spec.merging import faults_of, grafted, in_layer, merged, settled, without
from batchrunner.spec.override import BadOverrideError, Override
from batchrunner.spec.spec_file import read_text
from batchrunner.spec.text import read_document
from batchrunner.spec.tree import MAX_CHARACTERS, Node, Within

EXTENDS, PROFILES = "extends", "profiles"
_MAX_FILES = 20


@dataclass(frozen=True, slots=True)
class Variation:
    """How a spec is to differ from its file.

    Attributes:
        profile: Name of one of the file's `profiles`; "" for none.
        overrides: Each as `key=value`, the value in YAML.
        given_by: What messages call an override.
    """

    profile: str = ""
    overrides: Sequence[str] = ()
    given_by: str = "--set"

    def __bool__(self) -> bool:
        return bool(self.profile or self.overrides)


@dataclass(frozen=True, slots=True)
class Layers:
    """The texts of a spec, and the tree that they make together.

    Attributes:
        root: None if a text could not be parsed to its end, or the first holds no mapping.
        is_empty: The first holds nothing at all.
        pages: The texts, by the `layer` of nodes and problems; the first is the file itself.
        problems: What needs no model to detect.
        unbraced: Maps each value with a `$NAME` without braces to that name.
    """

    root: Node | None
    is_empty: bool
    pages: tuple[Page, ...]
    problems: tuple[Problem, ...]
    unbraced: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Main:
    """The file that the user named: its text, and its name as *origin*."""

    text: str
    origin: str


def read_layers(
    main: Main, *, model: type[BaseModel], environ: Mapping[str, str], variation: Variation
) -> Layers:
    """Read all texts that make the spec *main*, with *variation*, and merge their trees.

    A file that cannot be read or parsed is a problem of the result, where it is named.
    """
    reader = _LayerReader(environ)
    files = reader.files(main)
    overlays = [*reader.profile(files, variation.profile), *reader.options(variation)]
    root = None
    if files and not reader.is_torn:
        root = without(files[-1], EXTENDS, PROFILES)
        for layer in [*(without(file, EXTENDS, PROFILES) for file in files[-2::-1]), *overlays]:
            root = merged(root, layer, model)
        # What the whole lacks is missing in the file that the user named.
        root = settled(root)._replace(start=files[0].start, layer=0)
        reader.problems += faults_of(root)
    found = tuple(reader.pages), tuple(reader.problems)
    return Layers(root, reader.is_empty, *found, reader.unbraced)


@dataclass
class _LayerReader:
    environ: Mapping[str, str]
    pages: list[Page] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unbraced: dict[str, str] = field(default_factory=dict)
    is_empty: bool = False
    is_torn: bool = False
    """A file could not be parsed to its end: what else is missing would follow from that."""
    _nodes: int = 0
    _characters: int = 0
    _length: int = 0

    def files(self, main: Main) -> list[Node]:
        """Return the trees of *main* and of the files that it extends, in this order."""
        trees: list[Node] = []
        chain: list[str] = []
        file: Main | None = main
        while file is not None:
            tree = self._read(file.text, origin=file.origin)
            self.is_torn = tree is None and bool(self.problems)
            if tree is None or not isinstance(tree.value, dict):
                self.is_empty = tree is None or tree.value is None
                self._no_mapping(is_main=not trees)
                break
            trees.append(tree)
            chain.append(file.origin)
            file = self._extended(tree, chain)
        return trees

    def profile(self, files: Sequence[Node], name: str) -> list[Node]:
        """Return the trees of the profile *name*, that of the file which is extended first."""
        if not name or not files:
            return []
        found: list[Node] = []
        names: list[str] = []
        for profiles in (
            file.children[PROFILES] for file in files[::-1] if PROFILES in file.children
        ):
            if not isinstance(profiles.value, dict):
                self._complain(profiles, "profiles: must be a mapping of names to parts of a spec")
                continue
            names += map(str, profiles.children)
            found += self._of_one_file(profiles, name)
        if name not in names:
            self._no_profile(name, list(dict.fromkeys(names)))
        return found

    def options(self, variation: Variation) -> list[Node]:
        """Return the trees of the overrides, in their order."""
        trees = [self._option(text, given_by=variation.given_by) for text in variation.overrides]
        return [tree for tree in trees if tree is not None]

    def _read(self, text: str, *, origin: str, depth: int = 0, secret: bool = False) -> Node | None:
        within = Within(len(self.pages), depth, secret, self._nodes, self._characters)
        parsed = read_document(text, origin=origin, environ=self.environ, within=within)
        self._nodes, self._characters = parsed.nodes, parsed.characters
        self.pages.append(parsed.page)
        self.problems += parsed.problems
        self.unbraced.update(parsed.unbraced)
        return parsed.root

    def _complain(self, node: Node, message: str) -> None:
        self.problems.append(Problem(node.start, message, node.layer))

    def _no_mapping(self, *, is_main: bool) -> None:
        if not is_main and not self.is_torn:
            what = "a spec to extend holds a mapping at its top"
            self.problems.append(Problem(0, what, len(self.pages) - 1))

    def _extended(self, tree: Node, chain: Sequence[str]) -> Main | None:
        node = tree.children.get(EXTENDS)
        if node is None:
            return None
        # No variables: messages and records name the file, and never show a variable's value.
        named = node.fault is not None or node.from_environment
        if named or not isinstance(node.value, str) or not node.value or "\0" in node.value:
            self._complain(node, "extends: must be the name of a file, without ${...}")
            return None
        path = os.path.normpath(os.path.join(os.path.dirname(chain[-1]), node.value))  # noqa: PTH118, PTH120 - as the user wrote it
        if os.path.realpath(path) in map(os.path.realpath, chain):
            way = " -> ".join(map(visible, [*chain, path]))
            self._complain(node, f"extends: the files extend each other: {way}")
            return None
        return self._opened(node, path, files=len(chain))

    def _opened(self, node: Node, path: str, *, files: int) -> Main | None:
        if files >= _MAX_FILES:
            self._complain(node, f"extends: a spec is made of at most {_MAX_FILES} files")
            return None
        if Path(path).exists() and not Path(path).is_file():
            self._complain(
                node, f"extends: {path}: the spec cannot be read: this is no regular file"
            )
            return None
        try:
            text = read_text(path)
        except InvalidSpecError as error:
            self._complain(node, f"extends: {error}")
            return None
        self._length += len(text)
        if self._length + len(self.pages[0].text) > MAX_CHARACTERS:
            self._complain(node, "extends: the files are larger than 1 MiB together")
            return None
        return Main(text, path)

    def _of_one_file(self, profiles: Node, name: str) -> list[Node]:
        node = profiles.children.get(name)
        if node is None or node.value is None:
            return []
        if not isinstance(node.value, dict):
            self._complain(node, f"profiles.{name}: must be a mapping, a part of a spec")
            return []
        self.pages.append(replace(self.pages[node.layer], profile=name))
        return [in_layer(node, len(self.pages) - 1)]

    def _no_profile(self, name: str, names: Sequence[str]) -> None:
        near = nearest(name, names)
        hint = f'did you mean "{near}"?' if near else f"it has {', '.join(names) or 'none'}"
        what = (
            f"{self.pages[0].origin} has no such profile; {hint} (--profile or BATCHRUNNER_PROFILE)"
        )
        self.problems.append(Problem(0, what, len(self.pages)))
        self.pages.append(Page("--profile", name, is_option=True))

    def _option(self, text: str, *, given_by: str) -> Node | None:
        try:
            override = Override.of(text)
        except BadOverrideError as error:
            self.problems.append(Problem(error.offset, str(error), len(self.pages)))
            self.pages.append(Page(given_by, text, ((error.offset, len(text)),), is_option=True))
            return None
        before = len(self.problems)
        node = self._read(
            override.padded, origin=given_by, depth=len(override.steps), secret=override.is_secret
        )
        page = self.pages[-1]
        # Of a secret value, also the keys in it.
        secrets = ((override.start, len(text)),) if override.is_secret else page.secrets
        self.pages[-1] = replace(page, text=text, secrets=secrets, is_option=True)
        if node is None and len(self.problems) > before:
            return None
        empty = Node(None, len(text), len(text), layer=len(self.pages) - 1)
        return grafted(node or empty, override.steps)
