"""The registry of formats: by name, and by the suffix of a file.

A format is loaded when it is first used. There are three ways to add one: `register` in this process,
an entry point of an installed package in the group `batchrunner.formats`, or "package.module:Class"
in place of a name.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from batchrunner.errors import InvalidSpecError, describe
from batchrunner.formats.compression import SHORT, SUFFIXES
from batchrunner.formats.contract import Format, RowFormat, TableFormat
from batchrunner.formats.format_error import blamed
from batchrunner.formats.format_options import with_options
from batchrunner.user_code import contained

_log = logging.getLogger(__name__)

BUILT_IN: Mapping[str, str] = {
    "jsonl": "batchrunner.formats.jsonl:JsonLines",
    "parquet": "batchrunner.formats.parquet:Parquet",
    "text": "batchrunner.formats.text:Text",
    "csv": "batchrunner.formats.csv_format:Csv",
    "tsv": "batchrunner.formats.csv_format:Tsv",
    "files": "batchrunner.formats.files:Files",
    "tar": "batchrunner.formats.tar:Tar",
    "json": "batchrunner.formats.json_files:Json",
    "arrow": "batchrunner.formats.arrow_file:Arrow",
}
DEFAULT = "jsonl"

_GROUP = "batchrunner.formats"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")

_targets: dict[str, Any] = dict(BUILT_IN)
"""By name: "module:attribute", or the format itself. Needs no lock: each change sets one key."""
_formats: dict[str, Format] = {}
_with_options: dict[tuple[str, str], Format] = {}
"""By name and options: one for each, as a format that is stateless serves all files."""
_has_entry_points = False
_installed: set[str] = set()
"""Names from entry points of installed packages, which the spec may not use."""
_broken: set[str] = set()
"""Names in `_installed` whose format could not be loaded."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """The format of a file, and the compression of the whole file (Parquet compresses inside)."""

    format: str
    compression: str | None = None
    options: str = ""
    """The options of the format, as JSON; "" for none."""

    @property
    def reader(self) -> Format:
        """The format with its options."""
        return format_named(self.format, self.options)


def register(name: str, target: str | Format | type[Format]) -> None:
    """Add a format to those of this process, and of the workers of the runs that it drives.

    Idempotent. Another driver of the same run, and `batchrunner` on the command line, must register
    it too; a package does so with an entry point in the group `batchrunner.formats`, and a spec
    can name "package.module:Class" as its format.

    Args:
        name: The name of the format in specs.
        target: "package.module:attribute", or the format: a subclass of `RowFormat` or
            `TableFormat`, or an instance. Workers of Ray get it by pickle.

    Raises:
        InvalidSpecError: The name has other characters than letters, digits, '.', '_' and '-', or
            another format has it.
    """
    if not _NAME.fullmatch(name):
        raise InvalidSpecError(
            f"a format cannot be called {name!r}; use letters, digits, '.', '_' and '-'"
        )
    if _targets.setdefault(name, target) != target:
        raise InvalidSpecError(
            f"the format {name!r} is registered already, as {_targets[name]!r}; use another name"
        )


def registered() -> dict[str, Any]:
    """Return the formats of this process that are not built in, for `take_over` in its workers."""
    left_out = BUILT_IN.keys() | _broken
    return {name: target for name, target in _targets.items() if name not in left_out}


def take_over(formats: Mapping[str, Any]) -> None:
    """Register the *formats* of the driver in this worker, in place of others with the same names.

    A worker process may have served another driver before, which used a name for another format.
    """
    for name, target in formats.items():
        if _targets.get(name) is not target:
            _targets[name] = target
            _formats.pop(name, None)
            for key in [key for key in _with_options if key[0] == name]:
                del _with_options[key]


def is_target(name: str) -> bool:
    """Return whether *name* is not a registered name but "package.module:attribute"."""
    return ":" in name


def is_known(name: str) -> bool:
    """Return whether there is a format called *name*, without loading it."""
    return name in _targets or is_target(name) or name in _with_entry_points()


def format_names() -> list[str]:
    """Return the names of all formats, also of installed packages, without loading them."""
    return list(_with_entry_points())


def format_named(name: str, options: str = "") -> Format:
    """Return the format called *name*, which may be "package.module:Class". Loads it on first use.

    Args:
        name: The name.
        options: JSON with the keyword arguments of the class; "" for none.

    Raises:
        InvalidSpecError: There is none, or it cannot be imported, or it does not take the options.
    """
    if options:
        key = name, options
        if key not in _with_options:
            _with_options[key] = with_options(name, format_named(name), json.loads(options))
        return _with_options[key]
    if name not in _formats:
        if not is_known(name):
            raise InvalidSpecError(unknown(name))
        _formats[name] = _loaded(name, _targets.get(name, name))
    return _formats[name]


def unknown(name: str) -> str:
    """Return the error message for an unknown format, with the ways out."""
    return (
        f"there is no format {name!r}; use {' or '.join(_targets)}, install the package that has "
        'it, or name "package.module:Class"'
    )


def _with_entry_points() -> Mapping[str, Any]:
    """Return all formats by name, those of installed packages included."""
    global _has_entry_points  # noqa: PLW0603 - read once a process: it looks through all packages
    if not _has_entry_points:
        from importlib.metadata import entry_points

        for point in entry_points(group=_GROUP):
            if _targets.setdefault(point.name, point.value) is point.value:
                _installed.add(point.name)
        _has_entry_points = True
    return _targets


def _loaded(name: str, target: Any) -> Format:
    made = _imported(name, target) if isinstance(target, str) else target
    if isinstance(made, type) and issubclass(made, Format):
        made = _built(name, made)
    if not isinstance(made, RowFormat | TableFormat):
        raise InvalidSpecError(
            f"the format {name!r} is {made!r}; it must be a subclass of RowFormat or "
            "TableFormat, of batchrunner.formats, or an instance of one"
        )
    suffixes = getattr(made, "suffixes", None)
    if not isinstance(suffixes, tuple) or not all(isinstance(s, str) and s for s in suffixes):
        raise InvalidSpecError(
            f"the format {name!r}: {type(made).__name__}.suffixes is {suffixes!r}; it must be a tuple "
            "of ends of file names, such as ('.csv',)"
        )
    return made


def _built(name: str, kind: type[Format]) -> Format:
    try:
        return contained(kind)
    except Exception as error:  # the user's code may raise anything
        raise InvalidSpecError(
            f"the format {name!r}: {kind.__name__}() cannot be made: {blamed(error, name)}; it needs "
            "all methods of its base class, and takes no arguments"
        ) from error


def _imported(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(contained(partial(importlib.import_module, module)), attribute)
    except Exception as error:  # importing runs the user's code, which may raise anything
        raise InvalidSpecError(
            f"the format {name!r}: {target} cannot be imported: {describe(error)}; install it where "
            "the driver and its workers run"
        ) from error


def file_kind(
    name: str,
    *,
    format: str | None = None,  # noqa: A002 - the spec's word
    options: str = "",
    says_it: bool = False,
) -> FileKind | None:
    """Return the format and compression of the file *name*; None if the name does not show them.

    With *format*, the name has to show only the compression, unless *says_it*; if it shows another
    format, the result is None, unless that one gives way. A *format* without suffixes takes any name,
    and undoes no compression.
    """
    if format is not None and not format_named(format).suffixes:
        return FileKind(format, options=options)
    stem, compression = _split_compression(name.lower())
    named = _named_by(stem, format)
    if format and not says_it and named not in (None, format) and format_named(named).gives_way:
        named = None
    kind = named if says_it else format or named
    if kind is None or named not in (None, kind) or format not in (None, kind):
        return None
    if compression and compression not in format_named(kind).outer:
        return None
    return FileKind(kind, compression, options)


def _named_by(stem: str, format: str | None) -> str | None:  # noqa: A002 - the spec's word
    if format is not None and stem.endswith(format_named(format).suffixes):
        return format
    # Last, the formats of installed packages: it is slow to find and load them.
    return _taking(stem, _targets) or _taking(stem, _with_entry_points())


def _taking(stem: str, names: Iterable[str]) -> str | None:
    return next((n for n, made in _loadable(names) if stem.endswith(made.suffixes)), None)


def _loadable(names: Iterable[str]) -> Iterator[tuple[str, Format]]:
    """Yield the formats called *names*; skip broken ones of installed packages, with a warning.

    These must not end the run of a spec that does not name them.
    """
    for name in list(names):
        if name in _broken:
            continue
        try:
            made = format_named(name)
        except InvalidSpecError as error:
            if name not in _installed:
                raise
            _broken.add(name)
            _log.warning("a format of an installed package is left out: %s", error)
        else:
            yield name, made


def has_dotted_suffixes() -> bool:
    """Return whether the text after the first dot of a name decides its kind, in all formats loaded."""
    return all(end[0] == "." for made in _formats.values() for end in made.suffixes)


def parts_format(source_format: str) -> str:
    """Return the format of the parts of a run over files of *source_format*, if the spec names none."""
    return format_named(source_format).written_as or source_format


def part_suffix(format: str, compression: str) -> str:  # noqa: A002 - the spec's word
    """Return the end of a part's name, such as `.jsonl.gz`.

    Raises:
        InvalidSpecError: There is no such format.
    """
    made = format_named(format).of_parts
    around = (end for end, one in SUFFIXES.items() if one == compression and one in made.outer)
    return made.suffixes[0] + next(around, "")


def part_suffixes() -> Iterator[str]:
    """Yield the suffixes that parts can have, in all formats that this process has found so far."""
    for name, made in _loadable({**_targets, **_formats}):
        for compression in made.of_parts.compressions:
            yield part_suffix(name, compression)


_COMPRESSED = (*SHORT, *SUFFIXES)


def _split_compression(name: str) -> tuple[str, str | None]:
    if not name.endswith(_COMPRESSED):
        return name, None
    name = next((name.removesuffix(s) + end for s, end in SHORT.items() if name.endswith(s)), name)
    for suffix, compression in SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), compression
    return name, None
