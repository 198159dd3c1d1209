"""Where bytes are kept: one seam, and what implements it."""

from batchrunner.storage.contract import Entry as Entry
from batchrunner.storage.contract import Staged as Staged
from batchrunner.storage.contract import Storage as Storage
from batchrunner.storage.schemes import SCHEMES as SCHEMES
from batchrunner.storage.schemes import is_path as is_path
from batchrunner.storage.schemes import locate as locate
from batchrunner.storage.schemes import open_storage as open_storage

__all__ = ["SCHEMES", "Entry", "Staged", "Storage", "is_path", "locate", "open_storage"]
