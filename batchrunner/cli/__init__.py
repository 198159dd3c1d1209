"""The command line. Data goes to stdout, everything else to stderr."""

from batchrunner.cli.main import main as main

__all__ = ["main"]
