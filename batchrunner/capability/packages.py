"""The versions of the installed packages that a capability imports."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of the packages that *modules* are of, by the package's name; and Python's.

    What no package says that it has, such as a folder of files, is left out.
    """
    found = {"python": platform.python_version()}
    unknown = set()
    for module in modules:
        name = module.replace(".", "-")
        known = _version(name)
        if known is None:
            unknown.add(module.partition(".")[0])
        else:
            found[name] = known
    if unknown:  # only then, since it reads what each package says of itself
        found |= _by_content(unknown, packages_distributions())
    return dict(sorted(found.items()))


def _by_content(modules: Iterable[str], packages: Mapping[str, list[str]]) -> dict[str, str]:
    names = {name for module in modules for name in packages.get(module, ())}
    return {name: known for name in names if (known := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
