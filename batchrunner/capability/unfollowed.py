"""Modules of the user's that this process imports, and no look at the source told of."""

from __future__ import annotations

import sys
from collections.abc import Collection

from batchrunner.capability.finding import Module, Owner, loaded_module


class Unfollowed:
    """Finds the modules that are imported from now on, and not among those that are looked at.

    A plug-in by a name that is made up when it runs, or a folder that is put into `sys.path` then.
    """

    def __init__(self, places: Collection[str]) -> None:
        """Take what stands at *places* for what is looked at."""
        self._places, self._known = places, set(sys.modules)

    def more(self) -> list[Module]:
        """Return those that came since the last call, by name."""
        names = set(sys.modules) - self._known
        self._known |= names
        modules = filter(None, map(loaded_module, sorted(names)))
        return [m for m in modules if m.owner is Owner.USER and m.place not in self._places]
