"""File formats: each one reads sources, writes parts, and reads both again for `verify`."""

from batchrunner.formats.contract import RowFormat as RowFormat
from batchrunner.formats.contract import SourceOnly as SourceOnly
from batchrunner.formats.contract import TableFormat as TableFormat
from batchrunner.formats.registry import register as register

__all__ = ["RowFormat", "SourceOnly", "TableFormat", "register"]
