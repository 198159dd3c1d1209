"""What decides the output, as it is now, to be compared with what did when the run began."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from batchrunner.capability import Code, check_target, code_of, is_plain_function
from batchrunner.capability.legacy_hash import hash_of_object, hash_of_target
from batchrunner.capability.run_time import (
    DynamicImports,
    remember_side_effects,
    without_side_effects,
)
from batchrunner.driver.source_files import Place
from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, redact_uri
from batchrunner.spec.fingerprint import decisive_fields, has_legacy_code, legacy_code_field
from batchrunner.storage import Entry, locate, open_storage

_log = logging.getLogger(__name__)

_MOST_TOLD = 5
_NO_CLASS = (
    "these build a class, and the capability is none; write fn_kwargs, which come with every call"
)


@dataclass(frozen=True)
class AskedFor:
    """A spec and the object that was handed over with it, if one was: looked at when asked.

    Attributes:
        spec: The spec.
        handed_over: The function, class or object itself, in place of the target; or None.
    """

    spec: BatchSpec
    handed_over: Any = field(default=None, repr=False)

    @cached_property
    def code(self) -> Code:
        """The code; nothing of it where `capability.version` stands in for it.

        Raises:
            CapabilityImportError: It cannot be found or parsed.
            InvalidSpecError: It is a function, and the spec has arguments to build a class with.
        """
        code = self._look()
        return replace(code, values=without_side_effects(self.handed_over, code.values))

    def _look(self) -> Code:
        named = self.spec.capability
        check_constructor(self.spec, self.handed_over)
        if named is not None and named.version is not None:
            return Code()
        targets = [] if self.handed_over is not None or named is None else [named.target]
        for target in targets:
            check_target(target)
        loaders = named.inputs.values() if named else ()
        return code_of([*targets, *loaders], handed_over=self.handed_over)

    @cached_property
    def decisive(self) -> dict[str, str]:
        """All that decides the output: dotted paths and their values; without secrets.

        Raises:
            CapabilityImportError: The code cannot be found or parsed.
            InvalidSpecError: One of `capability.files` is not there.
        """
        return decisive_fields(self.spec, code=self.code, files=self._files)

    @cached_property
    def _files(self) -> dict[str, str]:
        return code_files(self.spec)

    def compared_with(self, old: Mapping[str, str]) -> Mapping[str, str]:
        """Return what to compare with *old*: as it was told when *old* was written.

        A checkpoint of before knows the code as one hash. It is gone on with as long as that is
        the same, and told apart from the next change on that somebody accepts.
        """
        if not has_legacy_code(old):
            return self.decisive
        named = self.spec.capability
        if self.handed_over is not None or named is None:
            code = hash_of_object(self.handed_over)
        else:
            code = hash_of_target(named.target)
        kept = {p: text for p, text in self.decisive.items() if not p.startswith("capability.code")}
        return {**kept, **legacy_code_field(code)}

    @contextmanager
    def at_work(self) -> Iterator[Callable[[], None]]:
        """Have the capability called in this process meanwhile: what it does to itself is no change.

        Gives what to call once it is imported: that warns of modules which nothing told of. So does
        the end.
        """
        warn = partial(self._warn_of_dynamic_imports, DynamicImports(self.code.modules))
        try:
            yield warn
        finally:
            warn()
            if self.handed_over is not None and self.spec.execution.engine == "local":
                after = self._look().values
                remember_side_effects(self.handed_over, before=self.code.values, after=after)

    def _warn_of_dynamic_imports(self, imports: DynamicImports) -> None:
        files = set(map(Path, self._files))
        modules = [
            m for m in imports.new() if m.origin and not files & {m.origin, *m.origin.parents}
        ]
        if modules and not self.code.is_empty:
            _log.warning(
                "imported in a way that cannot be seen before it runs, so a change is not noticed: "
                "%s. Name these files in capability.files, or give capability.version",
                _listed([f"{module.name} ({module.origin})" for module in modules]),
            )

    def warn_of_unseen(self) -> None:
        """Say once what of an object that was handed over is not looked at."""
        unseen = [".".join(("capability.code", *path)) for path in self.code.opaque]
        if unseen:
            _log.warning(
                "not looked at but for its type, so a change of it is not noticed: %s. "
                "capability.version or capability.files can stand in for it",
                _listed(unseen),
            )


def check_constructor(spec: BatchSpec, handed_over: Any = None) -> None:
    """Check that there is a class for `fn_constructor_kwargs`, as far as that can be told by now.

    Raises:
        InvalidSpecError: The capability is a function: nothing would take them.
    """
    named = spec.capability
    if named is None or not named.fn_constructor_kwargs:
        return
    if handed_over is None:
        is_class = not is_plain_function(named.target)
    else:
        is_class = isinstance(handed_over, type)
    if not is_class:
        raise spec.refusal(("capability", "fn_constructor_kwargs"), _NO_CLASS)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    return ", ".join(names[:_MOST_TOLD]) + more


def code_files(spec: BatchSpec) -> dict[str, str]:
    """Return what the files of the capability hold, by their absolute name.

    Of a local file: a hash of its content, which is read. Elsewhere: size and ETag.

    Raises:
        InvalidSpecError: One of `capability.files` names no file, or one that cannot be read.
        StorageError: A store cannot be reached.
    """
    found: dict[str, str] = {}
    for uri in (spec.capability.files if spec.capability else None) or ():
        files = dict(_elsewhere(uri, spec) if "://" in uri else _on_disk(uri))
        if not files:
            raise InvalidSpecError(
                f"capability.files: {redact_uri(uri)}: there is no such file, and nothing in such "
                "a folder; check the path"
            )
        found |= files
    return found


def _on_disk(path: str) -> Iterator[tuple[str, str]]:
    if Path(path).exists():  # also when its name looks like a glob
        names = _below(path)
    else:
        place = Place.of(path)
        pattern, root = place.pattern, place.root.rstrip("/") + "/"
        names = (n for n in _below(place.root) if pattern and pattern.fullmatch(n[len(root) :]))
    for name in names:
        yield name, _hash(name)


def _below(path: str) -> Iterator[str]:
    """Yield the files below folder *path*, or itself; through links, each folder once."""
    if Path(path).is_file():
        yield path
        return
    seen = set()
    for folder, inside, files in os.walk(path, followlinks=True, onerror=_refuse):
        real = Path(folder).resolve()
        if real in seen:  # a link upwards would never end
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if name != "__pycache__")
        names = (f"{folder.rstrip('/')}/{name}" for name in sorted(files))
        yield from (name for name in names if Path(name).is_file() or Path(name).is_symlink())


def _refuse(error: OSError) -> NoReturn:
    reason = error.strerror or type(error).__name__
    raise InvalidSpecError(
        f"capability.files: {error.filename} cannot be read: {reason}"
    ) from error


def _hash(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        _refuse(error)


def _elsewhere(uri: str, spec: BatchSpec) -> Iterator[tuple[str, str]]:
    options = spec.source.storage_options
    storage, key = locate(uri, storage_options=options)
    entry = storage.head(key)
    if entry is not None:
        yield uri, _identity(entry)
        return
    place = Place.of(uri)
    for entry in open_storage(place.root, storage_options=options).list(recursive=True):
        if place.pattern is None or place.pattern.fullmatch(entry.key):
            yield f"{place.root.rstrip('/')}/{entry.key}", _identity(entry)


def _identity(entry: Entry) -> str:
    return f"{entry.size} bytes, {entry.identity}"
