"""Where bytes are kept, on a disk or in a bucket: one contract, and its implementations."""

from batchrunner.storage.contract import Entry as Entry
from batchrunner.storage.contract import Staged as Staged
from batchrunner.storage.contract import Storage as Storage
from batchrunner.storage.opening import is_path as is_path
from batchrunner.storage.opening import locate as locate
from batchrunner.storage.opening import open_storage as open_storage
from batchrunner.storage.schemes import register as register

__all__ = ["Entry", "Staged", "Storage", "is_path", "locate", "open_storage", "register"]
