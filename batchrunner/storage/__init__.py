"""Where bytes are kept: one seam, and what implements it."""

from batchrunner.storage.schemes import SCHEMES as SCHEMES
from batchrunner.storage.schemes import is_path as is_path
from batchrunner.storage.schemes import locate as locate
from batchrunner.storage.schemes import open_storage as open_storage
from batchrunner.storage.seam import Entry as Entry
from batchrunner.storage.seam import Staged as Staged
from batchrunner.storage.seam import Storage as Storage

__all__ = ["SCHEMES", "Entry", "Staged", "Storage", "is_path", "locate", "open_storage"]
