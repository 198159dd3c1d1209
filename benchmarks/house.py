"""`python -m benchmarks.house [PACKAGE_DIR ...]`: facts of a package's source, as a Markdown table.

Reads the files and imports nothing, so that two checkouts can stand side by side. Everything goes
by name, which has limits:

* A room is a folder at the top of the package, or a loose module there; `__init__` and `__main__`
  together are one, the front door. An arrow is an import from one room to another, counted once,
  wherever it stands: in a function or below TYPE_CHECKING too. An import by text is not seen.
* A function has one call site if its name is defined once in the package and occurs once more, as
  a name or an attribute. A name that several classes define, or that is also a variable, is left
  out; what tests and users call does not count as a call site. Dunder methods are left out.
* Pragmas are comments that begin with `noqa`, `type:`, `ruff:` and the like.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from os.path import commonprefix
from pathlib import Path

_FRONT_DOOR = "(front door)"
_PRAGMA = re.compile(r"#\s*(noqa|type:|ruff:|mypy:|pragma)")
_NO_ACTOR = re.compile(r"(?i)(?<![a-z])(whoever|somebody|nobody|anybody)(?![a-z])")
_TELLING = re.compile(r"(?i)(?<![a-z])(tells?|told|telling)(?![a-z])")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """One file.

    Attributes:
        name: Below the package, as "storage.disk.links".
        folder: Its folder, relative to the package; "" at the top.
        text: What it says.
    """

    name: str
    folder: str
    text: str

    @property
    def room(self) -> str:
        room = self.name.partition(".")[0]
        return _FRONT_DOOR if room in ("__init__", "__main__") else room

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    def comments(self) -> list[str]:
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [token.string for token in tokens if token.type == tokenize.COMMENT]

    def imports(self, package: str) -> Iterator[str]:
        """Yield the names below *package* that are imported here, as "storage.seam.Entry"."""
        for node in self.nodes:
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            yield from (n.removeprefix(f"{package}.") for n in names if n.startswith(f"{package}."))


class House:
    """The modules of a package, and what can be counted of them."""

    def __init__(self, package: Path) -> None:
        self._package = package.resolve().name
        self.modules = [_read(path, package) for path in sorted(package.rglob("*.py"))]
        self.rooms = {module.room for module in self.modules}

    def facts(self) -> dict[str, float]:
        """Return each fact under its name, in the order of the table."""
        lines = sum(len(module.lines) for module in self.modules)
        comments = [comment for module in self.modules for comment in module.comments()]
        for_people = [comment for comment in comments if not _PRAGMA.match(comment)]
        lengths = [f.end_lineno - f.lineno + 1 for f in self._functions()]
        return {
            "rooms": len(self.rooms),
            "folders": len({module.folder for module in self.modules} - {""}),
            "imports between rooms": len(self.arrows()),
            "… without `testing`": sum(source != "testing" for source, _ in self.arrows()),
            "files": len(self.modules),
            "lines": lines,
            "files of 60 lines or less": sum(len(m.lines) <= 60 for m in self.modules),
            "modules over 300 lines": sum(len(m.lines) > 300 for m in self.modules),
            "functions": len(lengths),
            "functions over 40 lines": sum(length > 40 for length in lengths),
            "functions with one call site": len(self.called_once()),
            "comments per 1,000 lines": round(1000 * len(comments) / lines, 1),
            "… without pragmas": round(1000 * len(for_people) / lines, 1),
            "lines with whoever, somebody, nobody, anybody": self._lines_with(_NO_ACTOR),
            "lines with tell, tells, told, telling": self._lines_with(_TELLING),
            "class names in more than one module": len(self.ambiguous()),
            "module names of one room, 2 letters apart": len(self.alike(_two_letters_apart)),
            "module names of one room, another ending": len(self.alike(_another_ending)),
        }

    def arrows(self) -> set[tuple[str, str]]:
        """Return which room imports from which."""
        targets = [(m.room, name) for m in self.modules for name in m.imports(self._package)]
        arrows = {(room, self._room_of(name)) for room, name in targets}
        return {(source, target) for source, target in arrows if source != target}

    def called_once(self) -> list[str]:
        """Return the names of functions that are defined once and used once."""
        defined = Counter(function.name for function in self._functions())
        nodes = (node for module in self.modules for node in module.nodes)
        used = Counter(getattr(node, "id", None) or getattr(node, "attr", None) for node in nodes)
        once = [name for name, count in defined.items() if count == used[name] == 1]
        return sorted(name for name in once if not name.startswith("__"))

    def ambiguous(self) -> dict[str, list[str]]:
        """Return the modules of each class name that several have; `_Row` counts as `Row`."""
        homes = defaultdict(list)
        for module in self.modules:
            classes = (node.name for node in module.nodes if isinstance(node, ast.ClassDef))
            for name in {name.lstrip("_") for name in classes}:
                homes[name].append(module.name)
        return {name: homes[name] for name in sorted(homes) if len(homes[name]) > 1}

    def alike(self, rule) -> list[str]:
        """Return the pairs of modules of one room whose last names are alike by *rule*."""
        names = [(m.room, m.name.rpartition(".")[2]) for m in self.modules]
        pairs = combinations(sorted(names), 2)
        return [f"{r}: {a}, {b}" for (r, a), (room, b) in pairs if r == room and rule(a, b)]

    def _room_of(self, name: str) -> str:
        room = name.partition(".")[0]
        return room if room in self.rooms else _FRONT_DOOR

    def _functions(self) -> list[ast.FunctionDef]:
        return [n for module in self.modules for n in module.nodes if isinstance(n, _FUNCTIONS)]

    def _lines_with(self, words: re.Pattern[str]) -> int:
        return sum(bool(words.search(line)) for module in self.modules for line in module.lines)


def _read(path: Path, package: Path) -> Module:
    *folders, name = path.relative_to(package).with_suffix("").parts
    return Module(".".join([*folders, name]), "/".join(folders), path.read_text(encoding="utf-8"))


def _two_letters_apart(one: str, other: str) -> bool:
    return one != other and min(len(one), len(other)) > 3 and _distance(one, other) <= 2


def _another_ending(one: str, other: str) -> bool:
    """Return whether two names begin with the same 4 letters or more and end in 3 others at most."""
    shared = len(commonprefix([one, other]))  # noqa: RUF071 - letters are what is compared
    return one != other and shared >= 4 and max(len(one), len(other)) - shared <= 3


def _distance(one: str, other: str) -> int:
    """Return how many letters have to be added, removed or replaced (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row = row, [i]
        for j, against in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != against)))
    return row[-1]


def main() -> None:
    """Print the facts of each package in a column of its own, then the names behind them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house")
    parser.add_argument("packages", nargs="*", type=Path, default=[Path("batchrunner")])
    packages = parser.parse_args().packages
    houses = [House(package) for package in packages]
    columns = [house.facts() for house in houses]
    print("| fact |", " | ".join(map(str, packages)), "|")
    print("|---" * (1 + len(packages)) + "|")
    for fact in columns[0]:
        print(f"| {fact} |", " | ".join(f"{column[fact]:,}" for column in columns), "|")
    print("\nOf", packages[-1], end=":\n\n")
    for name, modules in houses[-1].ambiguous().items():
        print(f"* class {name}: {', '.join(modules)}")
    for rule in (_two_letters_apart, _another_ending):
        print(f"* {rule.__name__.strip('_').replace('_', ' ')}:", "; ".join(houses[-1].alike(rule)))


if __name__ == "__main__":
    main()
