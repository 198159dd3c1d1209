"""The fields of a spec and its code that decide the output, to compare with the recorded ones."""

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

from batchrunner.capability import Code, check_target, code_of, is_plain_function, load_target
from batchrunner.capability.legacy_hash import hash_of_object, hash_of_target
from batchrunner.capability.run_time import (
    DynamicImports,
    remember_side_effects,
    without_side_effects,
)
from batchrunner.driver.source_files import SourcePattern
from batchrunner.errors import InvalidSpecError
from batchrunner.spec import BatchSpec, redact_uri
from batchrunner.spec.fingerprint import decisive_fields, has_legacy_code, legacy_code_field
from batchrunner.storage import Entry, locate, open_storage

_log = logging.getLogger(__name__)

_MOST_LISTED = 5
_NO_CLASS = (
    "only a class takes these, and the capability is a function; use fn_kwargs, which are passed to "
    "each call"
)


@dataclass(frozen=True)
class RunDefinition:
    """A spec and its capability; computes the fields that decide the output on their first use.

    Attributes:
        spec: The spec.
        handed_over: The function, class or object that the user passed in Python, in place of the
            target that the spec names; None if the spec's target counts.
    """

    spec: BatchSpec
    handed_over: Any = field(default=None, repr=False)

    @cached_property
    def code(self) -> Code:
        """The code of the capability; empty where `capability.version` stands in for it.

        Raises:
            CapabilityImportError: The code cannot be found or parsed.
            InvalidSpecError: The capability is a function, and the spec has constructor arguments.
        """
        code = self._code_now()
        return replace(code, values=without_side_effects(self.handed_over, code.values))

    def _code_now(self) -> Code:
        called = self.spec.called
        check_constructor(self.spec, self.handed_over)
        if called.version is not None:
            return Code()
        targets = called.unversioned if self.handed_over is None else ()
        for target in targets:
            check_target(target)
        return code_of([*targets, *called.inputs.values()], handed_over=self.handed_over)

    def load(self) -> Any:
        """Return the capability itself, imported if it was not handed over; of stages, a list.

        Raises:
            CapabilityImportError: The capability cannot be imported.
        """
        if self.handed_over is not None:
            return self.handed_over
        loaded = [load_target(target) for target in self.spec.called.own_targets]
        return loaded if self.spec.called.stages else loaded[0]

    @cached_property
    def decisive(self) -> dict[str, str]:
        """The fields that decide the output: their values by dotted path, without secrets.

        Raises:
            CapabilityImportError: The code cannot be found or parsed.
            InvalidSpecError: One of `capability.files` does not exist.
        """
        return decisive_fields(self.spec, code=self.code, files=self._files)

    @cached_property
    def _files(self) -> dict[str, str]:
        return code_files(self.spec)

    def compared_with(self, old: Mapping[str, str]) -> Mapping[str, str]:
        """Return the decisive fields in the form of *old*, the recorded ones, so that both compare.

        Early versions recorded the code as one hash. Such a run goes on as long as that hash is the
        same; once the user accepts a change, the fields are recorded in the present form.
        """
        if not has_legacy_code(old):
            return self.decisive
        if self.handed_over is not None:
            code = hash_of_object(self.handed_over)
        else:
            code = hash_of_target(self.spec.called.own_targets[0])  # a run with stages is newer
        rest = {p: text for p, text in self.decisive.items() if not p.startswith("capability.code")}
        return {**rest, **legacy_code_field(code)}

    @contextmanager
    def at_work(self) -> Iterator[Callable[[], None]]:
        """Run the capability in this process inside the block; ignore what its calls change in it.

        A later run in this process does not take these changes for a change of the code. Yields a
        function to call once the capability is imported: it warns of modules that no import
        statement names. The end of the block calls it again, for imports made during calls.
        """
        warn = partial(self._warn_of_dynamic_imports, DynamicImports(self.code.modules))
        try:
            yield warn
        finally:
            warn()
            if self.handed_over is not None and self.spec.execution.engine == "local":
                after = self._code_now().values
                remember_side_effects(self.handed_over, before=self.code.values, after=after)

    def _warn_of_dynamic_imports(self, imports: DynamicImports) -> None:
        files = set(map(Path, self._files))
        modules = [
            m for m in imports.new() if m.origin and not files & {m.origin, *m.origin.parents}
        ]
        if modules and not self.code.is_empty:
            _log.warning(
                "the capability imports these modules only while it runs, so a change of them is not "
                "detected: %s. Name these files in capability.files, or give capability.version",
                _listed([f"{module.name} ({module.origin})" for module in modules]),
            )

    def warn_of_opaque(self) -> None:
        """Warn of the values in an object handed over whose changes cannot be detected."""
        opaque = [".".join(("capability.code", *path)) for path in self.code.opaque]
        if opaque:
            _log.warning(
                "a change of these values of the capability is not detected, only of their types: %s. "
                "Give capability.version, or name the files that they come from in capability.files",
                _listed(opaque),
            )


def check_constructor(spec: BatchSpec, handed_over: Any = None) -> None:
    """Check that `fn_constructor_kwargs` are given only for a class. Imports nothing.

    Raises:
        InvalidSpecError: The capability is a function, which has no constructor.
    """
    for number, stage in enumerate(spec.called.stages or ()):
        if stage.fn_constructor_kwargs and is_plain_function(stage.code):
            loc = ("capability", "stages", number, "fn_constructor_kwargs")
            raise spec.refusal(loc, _NO_CLASS)
    if not spec.called.fn_constructor_kwargs:
        return
    if handed_over is None:
        is_class = not is_plain_function(spec.called.own_targets[0])
    else:
        is_class = isinstance(handed_over, type)
    if not is_class:
        raise spec.refusal(("capability", "fn_constructor_kwargs"), _NO_CLASS)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more


def code_files(spec: BatchSpec) -> dict[str, str]:
    """Return a fingerprint of each file in `capability.files`, by its absolute name.

    A local file is read and hashed; the fingerprint of a remote one is its size and ETag.

    Raises:
        InvalidSpecError: An entry of `capability.files` names no file, or one that cannot be read.
        StorageError: The storage of a file cannot be reached.
    """
    fingerprints: dict[str, str] = {}
    for uri in spec.called.all_files:
        files = dict(_elsewhere(uri, spec) if "://" in uri else _on_disk(uri))
        if not files:
            raise InvalidSpecError(
                f"capability.files: {redact_uri(uri)}: there is no such file, and nothing in such "
                "a folder; check the path"
            )
        fingerprints |= files
    return fingerprints


def _on_disk(path: str) -> Iterator[tuple[str, str]]:
    if Path(path).exists():  # also when its name looks like a glob
        names = _below(path)
    else:
        source = SourcePattern.of(path)
        pattern, root = source.pattern, source.root.rstrip("/") + "/"
        names = (n for n in _below(source.root) if pattern and pattern.fullmatch(n[len(root) :]))
    for name in names:
        yield name, _hash(name)


def _below(path: str) -> Iterator[str]:
    """Yield the files below the folder *path*, or *path* if it is a file. Follows links.

    Visits each folder once, even if several links lead to it.
    """
    if Path(path).is_file():
        yield path
        return
    visited = set()
    for folder, inside, files in os.walk(path, followlinks=True, onerror=_refuse):
        real = Path(folder).resolve()
        if real in visited:  # a link upwards would never end
            inside.clear()
            continue
        visited.add(real)
        inside[:] = sorted(name for name in inside if name != "__pycache__")
        names = (f"{folder.rstrip('/')}/{name}" for name in sorted(files))
        yield from (name for name in names if Path(name).is_file() or Path(name).is_symlink())


def _refuse(error: OSError) -> NoReturn:
    reason = error.strerror or type(error).__name__
    raise InvalidSpecError(
        f"capability.files: {error.filename} cannot be read: {reason}; make it readable, or leave it out"
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
    source = SourcePattern.of(uri)
    for entry in open_storage(source.root, storage_options=options).list(recursive=True):
        if source.pattern is None or source.pattern.fullmatch(entry.key):
            yield f"{source.root.rstrip('/')}/{entry.key}", _identity(entry)


def _identity(entry: Entry) -> str:
    return f"{entry.size} bytes, {entry.identity}"
