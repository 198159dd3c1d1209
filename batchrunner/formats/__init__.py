"""How rows stand in files: each format as a source, as a sink, and as `verify` reads it again."""

from batchrunner.formats.contract import RowFormat as RowFormat
from batchrunner.formats.contract import TableFormat as TableFormat
from batchrunner.formats.registry import register as register

__all__ = ["RowFormat", "TableFormat", "register"]
