"""Folders that `batchrunner init` makes: one per use, each with a spec, a capability and real data."""
